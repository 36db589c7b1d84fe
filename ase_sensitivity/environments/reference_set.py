"""The environments of a training set, for comparison with those that a model meets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms

from ase_sensitivity.descriptors.base import Descriptor, descriptor_text
from ase_sensitivity.descriptors.given import Given
from ase_sensitivity.descriptors.of_frames import descriptor_for
from ase_sensitivity.environments import reference_file
from ase_sensitivity.environments.comparison import Comparison
from ase_sensitivity.environments.environment_set import EnvironmentSet, Rows
from ase_sensitivity.environments.nearest import FeatureIndex
from ase_sensitivity.environments.query import Query, most_novel, unit_of
from ase_sensitivity.environments.reference_file import Saved
from ase_sensitivity.environments.row_sets import RowSet
from ase_sensitivity.environments.scales import Scales
from ase_sensitivity.environments.thinning import THINNING
from ase_sensitivity.environments.twins import best_twin, candidates
from ase_sensitivity.environments.usual import saturation
from ase_sensitivity.io.reading import Frames, check_frames, read_frames
from ase_sensitivity.io.references import Task, tasks_of, unit_factors
from ase_sensitivity.plain_text import many
from ase_sensitivity.types import Floats, Ints
from ase_sensitivity.validation import as_integer

LISTED = 16
"""Number of near references of each environment that may be its twins."""

UNBOUND = "the descriptor of this reference set is not known: ReferenceSet.read(path, descriptor)"

LARGEST_RADIUS = 6.0
"""Structures are compared within the cutoff of the descriptor, and at most within this, in Å."""


class ReferenceSet:
    """The environments of a training set, indexed by their features.

    Parameters
    ----------
    frames
        A file, with ASE's ``@`` slices, or a list or iterator of structures and files, which are
        read one at a time. Structures are kept without their features.
    descriptor
        What the model sees; or a QUIP string as in :func:`~ase_sensitivity.scan`.
    forces_key, energy_key, units, type_map
        Reference values, as in :func:`~ase_sensitivity.scan`.
    max_environments
        If there are more environments, this number is kept. By default all are.
    thinning
        Which ones are kept: ``"random"``, or ``"farthest"``, those that are farthest from each
        other in feature space, chosen whenever there are twice as many. The second takes a time of
        the order of the square of ``max_environments``.
    progress
        Called with the number of structures read so far.

    Attributes
    ----------
    n_frames, n_seen
        Number of structures read, and of environments in them.
    errors
        Structures that could not be read or evaluated, or that lack a label, and why.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, or no structure has an environment.
    FileNotFoundError
        If a file does not exist.

    Notes
    -----
    See :doc:`/reference_set` for definitions, and for what is guaranteed.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase_sensitivity import SOAP
    >>> frames = [molecule("CH4") for _ in range(20)]
    >>> for seed, frame in enumerate(frames):
    ...     frame.rattle(0.1, seed=seed)
    >>> soap = SOAP(["C", "H"], cutoff=3, n_max=6, l_max=4)
    >>> reference = ReferenceSet(frames, soap)
    >>> reference.compare(frames[3]).novelty
    0.0
    >>> reference.compare(molecule("C2H6")).novelty > 1
    True
    """

    descriptor: Descriptor
    descriptor_text: str
    radius: float
    scales: Scales
    environments: EnvironmentSet
    index: FeatureIndex
    units: Floats
    slopes: Floats
    shape_slopes: Floats
    """Of each group, by its number in the index: see ``query.unit_of`` and ``scales.Scale``."""
    _saved: Saved | None = None
    """What was read, as long as the descriptor is not known."""

    def __init__(
        self,
        frames: Frames,
        descriptor: Given,
        *,
        forces_key: str | None = None,
        energy_key: str | None = None,
        units: str = "eV",
        type_map: Sequence[str] | None = None,
        max_environments: int | None = None,
        thinning: Literal["random", "farthest"] = "random",
        progress: Callable[[int], object] | None = None,
    ) -> None:
        if max_environments is not None:
            as_integer("max_environments", max_environments, 1)
        if thinning not in THINNING:
            raise ValueError(f"`thinning` is {thinning!r} but must be {' or '.join(THINNING)}")
        check_frames(frames)
        seen: Descriptor = descriptor_for(descriptor, frames, type_map)
        read = read_frames(frames, type_map=type_map)
        tasks = tasks_of(read, forces_key, energy_key, unit_factors(units), strict=True)
        self._fill(tasks, seen, max_environments, thinning, progress)

    @classmethod
    def of_tasks(
        cls, tasks: Iterable[Task], descriptor: Descriptor, rows: Rows | None = None
    ) -> ReferenceSet:
        """The set of structures that are read already; ``rows`` gives their features."""
        found = cls.__new__(cls)
        found._fill(tasks, descriptor, rows=rows)
        return found

    @classmethod
    def read(cls, path: str | Path, descriptor: Descriptor | None = None) -> ReferenceSet:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path
            The file.
        descriptor
            The descriptor with which the set was made, which the file has by name only. Without
            it, the set can be given to an observer or a scan, which have one.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is no reference set, or one of another descriptor.
        """
        found = cls.__new__(cls)
        saved = reference_file.read(path)
        found.descriptor_text, found.radius = saved.descriptor_text, saved.radius
        found._saved = saved
        if descriptor is not None:
            found.bind(descriptor)
        return found

    def bind(self, descriptor: Descriptor) -> None:
        """Say which descriptor the set is of.

        Raises
        ------
        ValueError
            If it is of another one.
        """
        text = descriptor_text(descriptor)
        if text != self.descriptor_text:
            raise ValueError(
                f"`reference` was made with {self.descriptor_text}, not with {text}; make it again"
            )
        if self._saved is None:
            return
        saved, self._saved = self._saved, None
        self.descriptor = descriptor
        self.scales = Scales(descriptor, self.radius)
        self.scales.by_group = saved.scales
        self.environments = EnvironmentSet.restored(
            descriptor,
            saved.structures,
            saved.columns,
            saved.projections,
            saved.kinds,
            saved.n_frames,
            saved.n_seen,
        )
        self._index()

    def save(self, path: str | Path) -> None:
        """Write everything to a file that ends in .npz.

        Raises
        ------
        ValueError
            If the name ends otherwise.
        OSError
            If it cannot be written.
        """
        if self._saved is not None:
            raise ValueError(UNBOUND)
        reference_file.write(
            path,
            Saved(
                self.descriptor_text,
                self.radius,
                self.environments.structures,
                self.environments.columns,
                self.environments.projections,
                self.environments.kinds,
                self.n_frames,
                self.n_seen,
                self.scales.by_group,
            ),
        )

    def _fill(
        self,
        tasks: Iterable[Task],
        descriptor: Descriptor,
        limit: int | None = None,
        thinning: str = "random",
        progress: Callable[[int], object] | None = None,
        rows: Rows | None = None,
    ) -> None:
        self.descriptor = descriptor
        self.descriptor_text = descriptor_text(descriptor)
        self.radius = min(descriptor.cutoff, LARGEST_RADIUS)
        self.scales = Scales(descriptor, self.radius)
        self.environments = EnvironmentSet(
            tasks,
            descriptor,
            limit,
            progress,
            drawn=THINNING[thinning],
            measured=self.scales.measure,
            rows=rows,
            by_element=True,
        )
        self._index()

    def _index(self) -> None:
        self.index = FeatureIndex(self.environments)
        scales = [self.scales.by_group[group] for group in self.index.groups]
        self.units = np.array([unit_of(scale) for scale in scales])
        self.slopes = np.array([scale.slope for scale in scales])
        self._saturations: dict[int, float] = {}
        self._slope_of = {number: self.scales.slope_of(number) for number, _ in self.index.groups}
        self.shape_slopes = np.array([scale.shape_slope for scale in scales])

    def __len__(self) -> int:
        return len((self._saved or self.environments).columns["structure"])

    def __repr__(self) -> str:
        return f"ReferenceSet({many(len(self), 'environment')} of {self.n_frames} frames)"

    @property
    def n_frames(self) -> int:
        """Number of structures read."""
        return (self._saved or self.environments).n_frames

    @property
    def n_seen(self) -> int:
        """Number of environments in them."""
        return (self._saved or self.environments).n_seen

    @property
    def digest(self) -> str:
        """A text that tells this set from others, of what it was made of.

        Features have no part in it: their last digits depend on the processor.
        """
        known = self._saved or self.environments
        parts: list[Any] = [known.columns["structure"], known.columns["center"]]
        for number, task in sorted(known.structures.items()):
            atoms = task.atoms
            parts += [[number], atoms.numbers, atoms.pbc, atoms.positions, atoms.cell.array]
            parts += [[] if task.energy is None else [task.energy]]
            parts += [[] if task.forces is None else task.forces]
        text = hashlib.sha256(f"{self.descriptor_text} {self.n_seen}".encode())
        for part in parts:
            values = np.asarray(part, dtype=float)
            text.update(f"{values.shape}".encode() + np.ascontiguousarray(values).tobytes())
        return f"{self!r} {text.hexdigest()[:16]}"

    @property
    def errors(self) -> list[tuple[Any, str]]:
        """Structures that could not be used, and why."""
        return [] if self._saved is not None else list(self.environments.errors)

    def compare(
        self,
        atoms: Atoms,
        *,
        forces: Floats | None = None,
        energy: float | None = None,
        rows: tuple[Ints, list[RowSet]] | None = None,
    ) -> Comparison:
        """Compare a structure with the set.

        Parameters
        ----------
        atoms
            The structure.
        forces, energy
            Its reference values in eV/Å, of shape (n_atoms, 3), and in eV, if they are known. They
            count in the spread of labels.
        rows
            Its centers and their features, if they are known.

        Returns
        -------
        Comparison
            Novelty of the most novel environment, and the clearest twin, if there is one.

        Raises
        ------
        ValueError
            If the descriptor fails.
        """
        if self._saved is not None:
            raise ValueError(UNBOUND)
        query = Query.of(self, atoms, forces, energy, rows)
        near = self.index.near(query.group, query.projected, query.beyond, LISTED)
        novelty, center, nearest = most_novel(self, query, near)
        atom = int(query.centers[center])
        return Comparison(
            novelty=novelty,
            center=None if atom < 0 else atom,
            nearest=None if nearest < 0 else self.environments.place(nearest),
            twin=best_twin(self, query, candidates(self, query, near)),
        )

    def listed(self, query: Query, center: int, k: int) -> list[int]:
        """The ``k`` references with the least bounds of the distance to a center of a query."""
        own = slice(center, center + 1)
        near = self.index.near(query.group[own], query.projected[own], query.beyond[own], k)
        return [int(j) for j in near.index[0] if j >= 0]

    def slope_of(self, numbers: Ints) -> Floats:
        """The largest slope of centers of each element; 0 for those that the set lacks."""
        return np.array([self._slope_of.get(number, 0.0) for number in numbers.tolist()])

    def saturation(self, group: int, far: float) -> float:
        """Of a group by its number: see ``usual.saturation``."""
        if group not in self._saturations:
            known = self.environments
            number, kind = list(self.index.groups)[group]
            rows = np.flatnonzero((known.number == number) & (known.kind == kind))
            slope = float(self.slopes[group])
            self._saturations[group] = saturation(known, rows, slope, self.radius, far)
        return self._saturations[group]

    def slope_of_kind(self, element: int, kind: int) -> float:
        """The slope of centers of an element and kind; 0 for those that no structure has."""
        scale = self.scales.by_group.get((element, kind))
        return 0.0 if scale is None else scale.slope
