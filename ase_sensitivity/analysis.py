"""From a structure to its sensitivity: the only place that runs all stages."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms

from ase_sensitivity.causes.attribution import Attribution, attribute, near_limit
from ase_sensitivity.causes.environments import unseen_species
from ase_sensitivity.descriptors.base import Descriptor, is_descriptor, jacobian_of, restricted
from ase_sensitivity.descriptors.components import balanced, components, has_pair_rows
from ase_sensitivity.descriptors.given import Given, of_atoms
from ase_sensitivity.errors import ConstraintWarning, warn
from ase_sensitivity.geometry.structure import check_atoms, check_points
from ase_sensitivity.geometry.symmetry import TOLERANCE
from ase_sensitivity.jacobian.contract import Jacobian
from ase_sensitivity.sensitivity import Sensitivity
from ase_sensitivity.spectrum.scopes import (
    View,
    atom_ratios,
    atom_view,
    check_images,
    environment_views,
    structure_view,
)
from ase_sensitivity.spectrum.screening import softest_environments
from ase_sensitivity.spectrum.solvers import NULL_TOLERANCE, Spectrum, spectrum
from ase_sensitivity.types import SCOPES, Floats, Ints, Scope
from ase_sensitivity.validation import as_flag, as_number

logger = logging.getLogger(__name__)


def analyze(
    atoms: Atoms,
    descriptor: Given | None = None,
    *,
    scope: Scope = "structure",
    center: int | None = None,
    k: int | None = 6,
    apply_constraints: bool = False,
    null_tolerance: float = NULL_TOLERANCE,
    previous: Sensitivity | None = None,
    causes: bool = False,
    tolerance: float = TOLERANCE,
    each: bool = True,
) -> Sensitivity:
    """Find the displacements of ``atoms`` that ``descriptor`` sees least.

    Parameters
    ----------
    atoms
        The structure. Neither it nor its calculator is touched.
    descriptor
        Anything with the attributes of :class:`~ase_sensitivity.Descriptor`; or a QUIP string
        (``"soap cutoff=5 n_max=8 l_max=6 atom_sigma=0.5"``), or several, for the species in the
        structure. By default that of the structure's calculator, if it is known
        (:func:`~ase_sensitivity.descriptor_of`).
    scope
        ``"structure"``: all centers against the coordinates of all atoms. ``"environment"``: one
        center against itself and every neighbor image as an independent point.
        ``"atom"``: all centers against the coordinates of one atom, the others frozen.
    center
        The center or atom to look at in the last two scopes; by default all, and the one with the
        smallest ratio is reported.
    k
        Number of singular values and modes to return; None for all.
    apply_constraints
        Leave out the coordinates of atoms fixed by :class:`ase.constraints.FixAtoms` (structure
        scope). Other constraints are ignored with a :class:`~ase_sensitivity.ConstraintWarning`.
    null_tolerance
        Singular values below this fraction of the largest are zero.
    previous
        Result for a similar configuration of the same atoms. It makes large systems faster.
    causes
        Find out why singular values vanish: fills ``counts``, ``causes`` and ``n_near_null``.
    tolerance
        With ``causes``: tolerance in Å for symmetries of the geometry and for equal distances.
    each
        If the descriptor consists of several, analyze each one by itself as well: ``alone`` of the
        result.

    Returns
    -------
    Sensitivity
        Singular values in 1/Å times the unit of the features. Their accuracy is that of
        :ref:`accuracy`. Several descriptors are weighted before they are combined
        (:ref:`several-descriptors`).

    Raises
    ------
    TypeError
        If ``atoms`` or ``descriptor`` has another type.
    ValueError
        If an argument is out of range, the structure is unusable or has no center, or a rigid
        motion changes the features, so that singular values would mean nothing. Also if small
        singular values of a large structure need a square matrix that does not fit into memory.
        With ``causes`` also if environments are too large for the body order of the descriptor.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase_sensitivity import QUIPDescriptor
    >>> soap = QUIPDescriptor("soap cutoff=4 n_max=8 l_max=6 atom_sigma=0.5", species=["C", "H"])
    >>> print(analyze(molecule("CH4"), soap, k=3))
    The structure has 15 coordinates; 6 rigid motions are set aside.
    Smallest singular values: ...   largest: ...
    sigma_min / sigma_max = ...
    2 directions are invisible to the descriptor: to first order no feature changes along them...
    >>> analyze(molecule("CH4"), soap, causes=True).counts
    {'incompleteness': 0, 'truncation': 0, 'fragment': 0, 'symmetry': 2}
    """
    check_atoms(atoms)
    seen: Descriptor = of_atoms(descriptor, atoms)
    as_flag("causes", causes)
    as_flag("each", each)
    as_flag("apply_constraints", apply_constraints)
    check_arguments(
        atoms,
        seen,
        scope=scope,
        center=center,
        k=k,
        null_tolerance=null_tolerance,
        tolerance=tolerance,
    )
    fixed = fixed_atoms(atoms) if apply_constraints else np.empty(0, dtype=np.intp)
    given, seen = seen, restricted(seen, atoms)
    jacobian = jacobian_of(seen, atoms)
    if jacobian.n_atoms != len(atoms):
        raise ValueError(
            f"the descriptor's Jacobian is of {jacobian.n_atoms} atoms, not of {len(atoms)}"
        )
    if not any(len(known.centers) for known in jacobian.ranges):
        raise ValueError(
            f"no atom of {atoms.get_chemical_formula()} is a center of {given!r}; check its species"
        )
    question = _Question(atoms, scope, center, fixed, k, null_tolerance, causes, tolerance)
    parts = components(seen)
    alone = {}
    for part in parts if each and len(parts) > 1 else ():
        own = part.jacobian(jacobian)
        if question.has_center(own):
            alone[part.name] = question.answer(own, part.descriptor)
    result = question.answer(balanced(seen, jacobian), seen, previous)
    if not parts:
        return result
    masking = tuple(part.name for part in parts if has_pair_rows(part.jacobian(jacobian)))
    return replace(result, alone=alone or None, masking=masking)


@dataclass(frozen=True)
class _Question:
    """The question about a structure: arguments of :func:`analyze`."""

    atoms: Atoms
    scope: str
    center: int | None
    fixed: Ints
    k: int | None
    null_tolerance: float
    causes: bool
    tolerance: float

    def has_center(self, jacobian: Jacobian) -> bool:
        """Whether a Jacobian has the center that is asked for, or any center if none is named."""
        centers = np.concatenate([known.centers for known in jacobian.ranges])
        if self.scope == "environment" and self.center is not None:
            return self.center in centers
        return len(centers) > 0

    def answer(
        self, jacobian: Jacobian, descriptor: Descriptor, previous: Sensitivity | None = None
    ) -> Sensitivity:
        """The result for the view of a Jacobian with the smallest ratio."""
        worst: tuple[View, Spectrum] | None = None
        tolerance = self.null_tolerance
        of = descriptor, self.atoms
        for view in _views(jacobian, *of, self.scope, self.center, self.fixed):
            named = view if view.of is not None else replace(view, of=of)
            start = _start(view, previous)
            found = spectrum(named, self.k, start=start, null_tolerance=tolerance)
            # A nan ratio means that there are only rigid motions: any other ratio is worse.
            if worst is None or found.ratio < worst[1].ratio or np.isnan(worst[1].ratio):
                worst = view, found
        if worst is None:
            raise ValueError("there are no atoms that could move")
        view, found = worst
        why = None
        if self.causes:
            found, why = _explained(*worst, self.atoms, descriptor, tolerance, self.tolerance)
        unseen = unseen_species(self.atoms, descriptor, jacobian.ranges)
        return _result(view, found, why, scope=self.scope, n_atoms=len(self.atoms), unseen=unseen)


def check_descriptor_type(descriptor: object) -> None:
    """Raise TypeError for anything that is no descriptor."""
    if not is_descriptor(descriptor):
        raise TypeError(
            f"`descriptor` must be a Descriptor, not {type(descriptor).__name__}; "
            "wrap a function in FiniteDifferenceDescriptor, or give a QUIP string"
        )


def check_arguments(
    atoms: Atoms,
    descriptor: Descriptor,
    *,
    scope: str,
    center: int | None,
    k: int | None,
    null_tolerance: float = NULL_TOLERANCE,
    tolerance: float = TOLERANCE,
) -> None:
    """Raise TypeError or ValueError for arguments that :func:`analyze` does not accept."""
    check_descriptor_type(descriptor)
    if scope not in SCOPES:
        raise ValueError(f"`scope` is {scope!r} but must be one of {', '.join(SCOPES)}")
    if k is not None and (not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1):
        raise ValueError(f"`k` is {k!r} but must be a positive integer or None")
    if not 0 < as_number("null_tolerance", null_tolerance) < 1:
        raise ValueError(f"`null_tolerance` is {null_tolerance} but must be between 0 and 1")
    if not 0 < as_number("tolerance", tolerance) <= 0.01:
        raise ValueError(f"`tolerance` is {tolerance} but must be positive and at most 0.01 Å")
    if center is not None:
        if scope == "structure":
            raise ValueError('`center` has no meaning with scope="structure"')
        if not isinstance(center, int | np.integer) or not 0 <= center < len(atoms):
            raise ValueError(
                f"`center` is {center!r} but must be an atom from 0 to {len(atoms) - 1}"
            )


def fixed_atoms(atoms: Atoms) -> Ints:
    """Atoms fixed by FixAtoms; a warning for other constraints."""
    if not atoms.constraints:
        return np.empty(0, dtype=np.intp)
    from ase.constraints import FixAtoms  # slow to import, but loaded already if there are any

    fixed: list[int] = []
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            fixed.extend(constraint.get_indices())
        else:
            logger.info("constraint %r is not taken into account", constraint)
            warn(
                "only FixAtoms is taken into account; other constraints are ignored",
                ConstraintWarning,
            )
    return np.unique(np.array(fixed, dtype=np.intp))


def _views(
    jacobian: Jacobian,
    descriptor: Descriptor,
    atoms: Atoms,
    scope: str,
    center: int | None,
    fixed: Ints,
) -> Iterator[View]:
    if scope == "structure":
        if len(fixed) < len(atoms):
            yield structure_view(jacobian, atoms, fixed, descriptor)
    elif scope == "environment":
        centers = np.unique(np.concatenate([known.centers for known in jacobian.ranges]))
        if center is not None and center not in centers:
            raise ValueError(f"atom {center} ({atoms.symbols[center]}) is not a center")
        blocks = check_images(jacobian, atoms)
        check_points(_most_points(jacobian))
        # Only environments that may be the softest are analyzed.
        wanted = softest_environments(blocks) if center is None else int(center)
        yield from environment_views(jacobian, atoms, wanted)
    elif center is not None:
        yield atom_view(jacobian, int(center))
    elif len(fixed) < len(atoms):
        ratios = atom_ratios(jacobian)
        ratios[fixed] = np.inf
        yield atom_view(jacobian, int(ratios.argmin()))


def _most_points(jacobian: Jacobian) -> int:
    """The largest number of points of an environment, center included, as far as it is known."""
    lists = [known.pairs for known in jacobian.ranges if known.pairs is not None]
    return 1 + max((int(np.bincount(pairs.first).max(initial=0)) for pairs in lists), default=0)


def _start(view: View, previous: Sensitivity | None) -> Floats | None:
    """Modes of an earlier result over the columns of a view, to start from; None without any."""
    if previous is None or previous.scope != "structure" or view.center is not None:
        return None
    modes: Floats = previous.modes[:, np.isin(previous.atoms, view.atoms)]
    return modes.reshape(len(modes), -1).T if len(modes) else None


def _explained(
    view: View,
    found: Spectrum,
    atoms: Atoms,
    descriptor: Descriptor,
    null_tolerance: float,
    tolerance: float,
) -> tuple[Spectrum, Attribution]:
    """The spectrum with modes that have one cause each, and the causes of its small values."""
    k = len(found.singular_values)
    n_values = 3 * view.n_columns - found.n_trivial
    smallest = found.singular_values.min(initial=np.inf)
    # If some values are small, causes need all of these and not only the first k.
    if smallest <= near_limit(found, tolerance) and k < n_values:
        found = spectrum(view, None, null_tolerance=null_tolerance)
    why = attribute(view, found, atoms, descriptor, tolerance=tolerance)
    if len(found.singular_values) == k and why.modes is found.modes:
        return found, why
    values = found.singular_values[:k]
    return replace(found, singular_values=values, modes=why.modes[:, :k]), why


def _result(
    view: View,
    found: Spectrum,
    why: Attribution | None,
    *,
    scope: str,
    n_atoms: int,
    unseen: Sequence[str],
) -> Sensitivity:
    values = found.singular_values
    modes = found.modes.T.reshape(len(values), view.n_columns, 3)
    points = view.atoms
    if scope != "environment" and view.n_columns < n_atoms:
        wide = np.zeros((len(values), n_atoms, 3))
        wide[:, points] = modes
        modes, points = wide, np.arange(n_atoms)
    explained: dict[str, Any] = {}
    if why is not None:
        explained = {
            "counts": why.counts | {"fragment": why.counts["fragment"] + view.n_apart},
            "causes": why.causes[: len(values)],
            "n_near_null": why.n_near_null,
        }
    return Sensitivity(
        scope=scope,
        singular_values=values,
        modes=modes,
        atoms=points,
        displacements=view.displacements,
        sigma_max=found.sigma_max,
        scale=found.scale,
        n_coordinates=3 * view.n_columns,
        n_trivial=found.n_trivial,
        n_apart=view.n_apart,
        n_null=found.n_null,
        center=view.center,
        method=found.method,
        resolution=found.resolution,
        unseen=tuple(unseen),
        **explained,
    )
