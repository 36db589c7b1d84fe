"""How large a basis has to be: a sweep over n_max and l_max."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ase_sensitivity.analysis import Scope, check_arguments
from ase_sensitivity.causes.symmetry import TOLERANCE
from ase_sensitivity.dataset.evaluation import Settings, Task, evaluate
from ase_sensitivity.dataset.nested import lower
from ase_sensitivity.dataset.reading import Frames, check_frames, read_frames
from ase_sensitivity.dataset.record import FrameRecord
from ase_sensitivity.dataset.scan import NULL_TOLERANCE
from ase_sensitivity.dataset.tasks import tasks_of, unit_factors
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.descriptors.quip import QUIPDescriptor
from ase_sensitivity.descriptors.soap.soap import SOAP

logger = logging.getLogger(__name__)

FALLS = 0.1
"""The required slope still falls if a larger basis of the sweep has one lower by this fraction."""

COUNTED = ("null", "fragment", "symmetry", "incompleteness", "truncation", "unknown")

Family = Callable[[int, int], Descriptor] | SOAP | QUIPDescriptor
Basis = tuple[int, int]


@dataclass(frozen=True)
class Convergence:
    """What bases of a family resolve in a set of structures.

    Attributes
    ----------
    rows
        One dictionary per basis, in the order of its size: ``n_max``, ``l_max``, ``n_features``,
        ``n_frames``, ``n_failed``; ``n_null``, ``n_symmetry``, ``n_incompleteness``,
        ``n_truncation``, ``n_fragment`` and ``n_unknown``, summed over all structures;
        ``frames_truncated``, the number of structures with null directions that a larger basis
        would see; ``smallest_ratio`` and ``median_ratio`` of sigma_min / sigma_max; and with forces
        ``irreducible_force_error``, the root mean square over all components in eV/Å,
        ``required_slope``, the median over structures in eV/Å, and ``largest_slope``.
    resolving
        n_max and l_max of the smallest basis without a null direction caused by truncation; None if
        there is none.
    flat
        Of the smallest of those from which on the required slope falls no more: by less than 10 %
        in any larger basis of the sweep, of which there has to be one. None without forces.
    recommended
        ``flat``, or ``resolving`` if there are no forces.
    """

    rows: list[dict[str, Any]]
    resolving: Basis | None
    flat: Basis | None
    recommended: Basis | None

    def summary(self) -> str:
        """A table and what follows from it."""
        forces = any(row["required_slope"] is not None for row in self.rows)
        lines = ["n_max  l_max  features  truncated  median ratio"]
        lines[0] += "  irreducible  slope   (eV/Å)" if forces else ""
        for row in self.rows:
            line = (
                f"{row['n_max']:5d}  {row['l_max']:5d}  {row['n_features']:8d}  "
                f"{row['frames_truncated']:9d}  {_number(row['median_ratio'], '.2e'):>12s}"
            )
            if forces:
                line += f"  {_number(row['irreducible_force_error'], '.2e'):>11s}"
                line += f"  {_number(row['required_slope'], '.3g'):>6s}"
            lines.append(line)
        failed = max(row["n_failed"] for row in self.rows)
        if failed:
            lines.append(f"{failed} of {self.rows[0]['n_frames']} structures failed.")
        lines.append(_said(self.resolving, "is the smallest basis that truncates nothing"))
        if forces and self.resolving is not None:
            lines.append(_said(self.flat, "is where the required slope stops falling"))
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()


def converge(
    frames: Frames,
    family: Family,
    *,
    n_max: Iterable[int] = (2, 4, 6, 8),
    l_max: Iterable[int] = range(7),
    forces_key: str | None = None,
    energy_key: str | None = None,
    units: str = "eV",
    scope: Scope = "structure",
    null_tolerance: float = NULL_TOLERANCE,
    tolerance: float = TOLERANCE,
    progress: Callable[[int], object] | None = None,
) -> Convergence:
    """Find the smallest basis that a data set needs.

    Parameters
    ----------
    frames
        As in :func:`~ase_sensitivity.scan`. Only one structure is in memory at a time.
    family
        A :class:`~ase_sensitivity.SOAP` or :class:`~ase_sensitivity.QUIPDescriptor` whose basis is
        changed, or a function that gives a descriptor for ``(n_max, l_max)``.
    n_max, l_max
        The values to try.
    forces_key, energy_key, units, scope, null_tolerance, tolerance
        As in :func:`~ase_sensitivity.scan`.
    progress
        Called with the number of structures done so far.

    Returns
    -------
    Convergence
        A row per basis, and which one is enough.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, or no structure can be evaluated.

    Notes
    -----
    The features of a :class:`~ase_sensitivity.SOAP` with a lower ``l_max`` are some of those with a
    higher one, so that one Jacobian per ``n_max`` does for all ``l_max``. Radial functions depend
    on ``n_max`` and there is nothing to share.

    Null directions whose cause is not known count as caused by truncation as far as some basis of
    the sweep sees them.

    Examples
    --------
    >>> from ase import Atoms
    >>> from ase_sensitivity import SOAP
    >>> places = [(1, 0, 0), (0.28, 0.96, 0), (-0.48, 0.6, 0.64), (-0.36, -0.48, -0.8)]
    >>> molecule = Atoms("CH4", [(0, 0, 0), *places])
    >>> soap = SOAP(["H"], cutoff=3, n_max=8, l_max=5, atom_sigma=0.3, centers=["C"])
    >>> found = converge([molecule], soap, n_max=[8], l_max=range(1, 7))
    >>> [row["n_truncation"] for row in found.rows]
    [6, 4, 2, 1, 0, 0]
    >>> found.resolving
    (8, 5)
    """
    check_frames(frames)
    levels = {
        name: sorted({_level(name, value, lowest) for value in values})
        for name, values, lowest in (("n_max", n_max, 1), ("l_max", l_max, 0))
    }
    for name, values in levels.items():
        if not values:
            raise ValueError(f"`{name}` has no values to try")
    make = _maker(family)
    members = [[make(n, m) for m in levels["l_max"]] for n in levels["n_max"]]
    for member in members[0]:
        _check(member, scope, null_tolerance)
    # The number of modes is of no interest: with forces all of them are computed anyway.
    settings = Settings(scope, 1, True, False, null_tolerance, tolerance)
    totals: dict[Basis, _Total] = {}
    tasks = tasks_of(read_frames(frames), forces_key, energy_key, unit_factors(units), strict=True)
    for n_done, task in enumerate(tasks, 1):
        for n, row in zip(levels["n_max"], members, strict=True):
            found = _swept(row, settings, task)
            for m, (record, n_features) in zip(levels["l_max"], found, strict=True):
                totals.setdefault((n, m), _Total()).add(record, n_features)
        if progress is not None:
            progress(n_done)
    if not totals:
        raise ValueError("`frames` has no frames")
    if all(total.n_failed == total.n_frames for total in totals.values()):
        raise ValueError(f"no structure could be evaluated: {next(iter(totals.values())).error}")
    return _judged(totals)


def _level(name: str, value: int, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < lowest:
        raise ValueError(f"`{name}` has {value!r} but must be integers of {lowest} or more")
    return int(value)


def _maker(family: Family) -> Callable[[int, int], Descriptor]:
    if isinstance(family, SOAP | QUIPDescriptor):
        return family.with_basis
    if isinstance(family, type) or not callable(family):
        raise TypeError(
            f"`family` is {family!r} but must be a SOAP, a QUIPDescriptor or a function of n_max "
            "and l_max"
        )
    return family


def _check(member: Descriptor, scope: str, null_tolerance: float) -> None:
    from ase import Atoms

    check_arguments(
        Atoms("H"), member, scope=scope, center=None, k=None, null_tolerance=null_tolerance
    )


def _swept(
    members: Sequence[Descriptor], settings: Settings, task: Task
) -> list[tuple[FrameRecord, int]]:
    """Records of a structure and numbers of features, for descriptors with ascending l_max."""
    soaps = [_soap(member) for member in members]
    largest = soaps[-1]
    if largest is None or len(task.atoms) == 0:
        return [_of_one(member, settings, task) for member in members]
    try:
        jacobian = largest.jacobian(task.atoms)
    except Exception:  # each basis will say what is wrong
        logger.info("%s@%d failed", task.source, task.index, exc_info=True)
        return [_of_one(member, settings, task) for member in members]
    found = []
    for member, soap in zip(members, soaps, strict=True):
        if soap is not None and repr(largest.with_basis(*soap.basis_size)) == repr(soap):
            member = lower(soap, jacobian, largest.basis_size[1])
        found.append(_of_one(member, settings, task))
    return found


def _soap(member: Descriptor) -> SOAP | None:
    found: Any = member.soap if isinstance(member, QUIPDescriptor) else member
    return found if isinstance(found, SOAP) else None


def _of_one(member: Descriptor, settings: Settings, task: Task) -> tuple[FrameRecord, int]:
    (record,), _ = evaluate(member, settings, [task])
    return record, 0 if record.row["ratio"] is None else _n_features(member, task)


def _n_features(member: Descriptor, task: Task) -> int:
    known: int | None = getattr(member, "n_features", None)
    return known if known is not None else int(member.features(task.atoms).shape[1])


@dataclass
class _Total:
    """Sums over structures for one basis."""

    n_features: int = 0
    n_frames: int = 0
    n_failed: int = 0
    error: str | None = None
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    unseen: list[tuple[int, int]] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    lost: float = 0.0
    n_coordinates: int = 0
    slopes: list[float] = field(default_factory=list)

    def add(self, record: FrameRecord, n_features: int) -> None:
        """Add what was found of a structure."""
        row = record.row
        self.n_frames += 1
        if row["ratio"] is None:
            self.n_failed += 1
            self.error = record.error
            self.unseen.append((0, 0))
            return
        self.n_features = n_features
        counts = {name: row[f"n_{name}"] or 0 for name in COUNTED}
        if row["n_truncation"] is None:  # the causes could not be found
            counts["unknown"] = counts["null"]
        for name, number in counts.items():
            self.counts[name] += number
        self.unseen.append((counts["truncation"], counts["unknown"]))
        self.ratios.append(row["ratio"])
        if record.lost_forces is not None:
            self.lost += float((record.lost_forces**2).sum())
            self.n_coordinates += record.lost_forces.size
            self.slopes.append(row["required_slope"])

    def row(self, basis: Basis, least: Sequence[int]) -> dict[str, Any]:
        """The row of a table; ``least`` is how many unknown ones no basis sees."""
        truncated = sum(t > 0 or u > m for (t, u), m in zip(self.unseen, least, strict=True))
        forces = self.n_coordinates > 0
        return {
            "n_max": basis[0],
            "l_max": basis[1],
            "n_features": self.n_features,
            "n_frames": self.n_frames,
            "n_failed": self.n_failed,
            **{f"n_{name}": number for name, number in self.counts.items()},
            "frames_truncated": truncated,
            "smallest_ratio": min(self.ratios, default=None),
            "median_ratio": float(np.median(self.ratios)) if self.ratios else None,
            "irreducible_force_error": (
                float(np.sqrt(self.lost / self.n_coordinates)) if forces else None
            ),
            "required_slope": float(np.median(self.slopes)) if forces else None,
            "largest_slope": max(self.slopes) if forces else None,
        }


def _judged(totals: dict[Basis, _Total]) -> Convergence:
    unknown = np.array([[u for _, u in total.unseen] for total in totals.values()])
    least = unknown.min(axis=0).tolist()
    rows = {basis: total.row(basis, least) for basis, total in totals.items()}
    order = sorted(rows, key=lambda basis: (rows[basis]["n_features"], basis))
    resolving = [basis for basis in order if rows[basis]["frames_truncated"] == 0]
    # Truncated features lose forces, and what is left of them may well need lower slopes.
    flat = [basis for basis in resolving if _is_flat(basis, rows)]
    forces = any(row["required_slope"] is not None for row in rows.values())
    return Convergence(
        rows=[rows[basis] for basis in order],
        resolving=next(iter(resolving), None),
        flat=next(iter(flat), None),
        recommended=next(iter(flat if forces else resolving), None),
    )


def _is_flat(basis: Basis, rows: dict[Basis, dict[str, Any]]) -> bool:
    """Whether no larger basis, of which there has to be one, has a lower slope."""
    slope = rows[basis]["required_slope"]
    larger = [
        row["required_slope"]
        for other, row in rows.items()
        if other != basis and other[0] >= basis[0] and other[1] >= basis[1]
    ]
    if slope is None or not larger or None in larger:
        return False
    return bool(min(larger) >= (1 - FALLS) * slope)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _said(basis: Basis | None, words: str) -> str:
    if basis is None:
        return f"No basis of the sweep {words}."
    return f"n_max={basis[0]}, l_max={basis[1]} {words}."
