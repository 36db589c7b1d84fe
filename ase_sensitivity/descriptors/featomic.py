"""Features of featomic's calculators."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from ase_sensitivity.descriptors.base import Rows, Shortcuts
from ase_sensitivity.descriptors.quip.arguments import chemical_species
from ase_sensitivity.descriptors.trained import needs_package
from ase_sensitivity.geometry.neighbors import check_apart
from ase_sensitivity.geometry.structure import symbols_in
from ase_sensitivity.geometry.unfolding import pairs_within, unfolded
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.whole import in_images, in_rows
from ase_sensitivity.types import Floats, Ints

BODY_ORDERS = {"SoapRadialSpectrum": 2, "SoapPowerSpectrum": 3, "PowerSpectrum": 3}
"""Of calculators for which it is known, by class."""

SUMMED = 1e-13
"""Relative accuracy of derivatives that are sums over waves or images."""

LODE = "lode_spherical_expansion"
"""What featomic's core calls the calculator that has no cutoff and yet sees all images."""

ROWS = ["system", "atom"]
"""What featomic calls the rows of a descriptor of atoms."""


class FeatomicDescriptor(Shortcuts):
    """A calculator of featomic as a descriptor, with its own derivatives.

    Parameters
    ----------
    calculator
        A ``SoapPowerSpectrum``, a ``SoapRadialSpectrum``, a ``clebsch_gordan.PowerSpectrum`` of a
        spherical expansion, or another calculator whose features are invariant, belong to atoms and
        have derivatives by positions.
    species
        Chemical symbols of the neighbors that are seen. Features of all of them have their columns,
        also in structures without them.
    body_order
        As in :class:`~ase_sensitivity.Descriptor`. By default it is that of the calculators named
        above, and unknown for others.

    Raises
    ------
    ImportError
        If there is no featomic.
    TypeError, ValueError
        If an argument has no meaning, or features have no derivatives. Also if they have no cutoff,
        except for LODE.

    Notes
    -----
    featomic sums the derivatives of the images of an atom, and takes no structure that is periodic
    along some directions only. It is asked for a cluster without a cell in which every image is an
    atom. Calculators without a cutoff (LODE) see all images of a structure that is periodic along
    all directions: their cutoff is infinite, and the images are summed.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from featomic import SoapRadialSpectrum
    >>> from ase_sensitivity import analyze
    >>> calculator = SoapRadialSpectrum(
    ...     cutoff={"radius": 4.0, "smoothing": {"type": "ShiftedCosine", "width": 0.5}},
    ...     density={"type": "Gaussian", "width": 0.4},
    ...     basis={"radial": {"type": "Gto", "max_radial": 5}},
    ... )
    >>> analyze(molecule("CH4"), FeatomicDescriptor(calculator, ["C", "H"])).n_null
    2
    """

    def __init__(
        self, calculator: Any, species: Sequence[str], *, body_order: int | None = None
    ) -> None:
        needs_package("featomic", "FeatomicDescriptor", torch=False)
        self.calculator = calculator
        self.species = chemical_species("species", species)
        self.cutoff = _cutoff(calculator)
        if body_order is None:
            body_order = BODY_ORDERS.get(type(calculator).__name__)
        self.body_order = body_order
        self._columns: dict[tuple[int, ...], int] = {}
        self._places: dict[tuple[bytes, bytes], tuple[Ints, Ints]] = {}
        # Every pair of species is close to a center here, so that every feature is there.
        types = np.array([atomic_numbers[symbol] for symbol in self.species])
        probe = Atoms(np.repeat(types, 2))
        if not self._has_cutoff:
            probe = Atoms(probe.numbers, cell=[10, 10, 10], pbc=True)
        probe.positions[:, 0] = np.linspace(0.0, 0.5 * min(self.cutoff, 10.0), len(probe))
        for key, block in self._blocks(probe, len(probe), derivatives=True):
            for label in _labels(key, block):
                self._columns.setdefault(label, len(self._columns))

    def __repr__(self) -> str:
        made = _made_of(self.calculator)
        return f"FeatomicDescriptor({made}, species={list(self.species)})"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "calculator": _parameters(self.calculator)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.calculator = _from_parameters(state["calculator"])

    @property
    def n_features(self) -> int:
        """Number of features of each atom."""
        return len(self._columns)

    def features(self, atoms: Atoms) -> Floats:
        """Features of shape (n_atoms, n_features)."""
        check_apart(atoms)
        features = np.zeros((len(atoms), self.n_features))
        seen = unfolded(atoms, self.cutoff)[0] if self._has_cutoff else _right_handed(atoms)
        for key, block in self._blocks(seen, len(atoms)):
            self._fill(features, key, block)
        return features

    def rows(self, atoms: Atoms) -> list[Rows]:
        """Features and the atom at the center of each row; one part."""
        return [(self.features(atoms), np.arange(len(atoms)))]

    def restricted(self, atoms: Atoms) -> FeatomicDescriptor:
        """The same descriptor without the species that a structure does not have."""
        present = symbols_in(atoms)
        species = [symbol for symbol in self.species if symbol in present]
        if len(species) in (0, len(self.species)):
            return self
        return type(self)(self.calculator, species, body_order=self.body_order)

    def jacobian(self, atoms: Atoms) -> FeatureJacobian:
        """Features and their derivatives, with every periodic image apart if there is a cutoff."""
        check_apart(atoms)
        n = len(atoms)
        if not self._has_cutoff:
            return self._summed(atoms)
        cluster, parent = unfolded(atoms, self.cutoff)
        row, column = pairs_within(cluster, n, self.cutoff)
        number = np.full((n, len(cluster)), -1)
        number[row, column] = np.arange(len(row))
        features = np.zeros((n, self.n_features))
        blocks = np.zeros((len(row), 3, self.n_features))
        for center, atom, place, found in self._derivatives(cluster, features):
            where = number[center, atom]
            known = where >= 0  # at the cutoff exactly, where the derivatives are zero
            blocks[where[known][:, None, None], np.arange(3)[:, None], place] = found[known]
        return in_images(cluster, parent, features, row, column, blocks, cutoff=self.cutoff)

    def _summed(self, atoms: Atoms) -> FeatureJacobian:
        """The Jacobian with all images of an atom in one block."""
        n = len(atoms)
        features, gradient = np.zeros((n, self.n_features)), np.zeros((n, n, 3, self.n_features))
        for center, atom, place, found in self._derivatives(_right_handed(atoms), features):
            gradient[center[:, None, None], atom[:, None, None], np.arange(3)[:, None], place] = (
                found
            )
        return in_rows(
            atoms,
            features,
            gradient,
            np.arange(n),
            cutoff=self.cutoff,
            reach=self.cutoff,
            precision=SUMMED,
        )

    @property
    def _has_cutoff(self) -> bool:
        return math.isfinite(self.cutoff)

    def _derivatives(
        self, structure: Atoms, features: Floats
    ) -> Iterator[tuple[Ints, Ints, Ints, Floats]]:
        """Fill in features of the first atoms, and give their derivatives.

        Each part has m centers, the atoms that move, the numbers of the features, and derivatives
        of shape (m, 3, any).
        """
        for key, block in self._blocks(structure, len(features), derivatives=True):
            own, kept, place = self._fill(features, key, block)
            gradient = block.gradient("positions")
            center = own[gradient.samples.column("sample")]
            inside = center < len(features)
            found = gradient.values.reshape(len(center), 3, -1)[inside][..., kept]
            yield center[inside], gradient.samples.column("atom")[inside], place, found

    def _blocks(
        self, cluster: Atoms, n: int, *, derivatives: bool = False
    ) -> Iterator[tuple[Ints, Any]]:
        """Blocks of the first n atoms at least, with their keys but for the type of the center."""
        from metatensor import Labels

        name = type(self.calculator).__name__
        asked: dict[str, Any] = {"gradients": ["positions"] if derivatives else None}
        if _is_base(self.calculator):
            only = np.arange(n, dtype=np.int32)[:, None]
            asked["selected_samples"] = Labels(["atom"], only)
        try:
            found = self.calculator.compute(cluster, **asked)
        except Exception as error:  # of many types, some of them of the package alone
            raise ValueError(f"{name} gave no features for {cluster.symbols}: {error}") from error
        chosen = [i for i, word in enumerate(found.keys.names) if word != "center_type"]
        for key, block in zip(found.keys.values, found.blocks(), strict=True):
            components = [word for labels in block.components for word in labels.names]
            if block.samples.names != ROWS or any(n > 1 for n in block.values.shape[1:-1]):
                what = ", ".join([*block.samples.names, *components])
                raise ValueError(f"{name} gives no invariant features of atoms, but by {what}")
            yield key[chosen], block

    def _fill(self, features: Floats, key: Ints, block: Any) -> tuple[Ints, Ints, Ints]:
        """Put values where they belong.

        Returns
        -------
        atom
            The atom of each row of the block.
        kept
            Those of its columns that are features.
        place
            Which features they are.
        """
        known = (key.tobytes(), block.properties.values.tobytes())
        if known not in self._places:
            places = np.array([self._columns.get(label, -1) for label in _labels(key, block)])
            self._places[known] = (np.flatnonzero(places >= 0), places[places >= 0])
        kept, place = self._places[known]
        atom = block.samples.column("atom")
        inside = atom < len(features)
        values = block.values.reshape(len(atom), -1)[inside]
        features[atom[inside][:, None], place] = values[:, kept]
        return atom, kept, place


def _labels(key: Ints, block: Any) -> Iterator[tuple[int, ...]]:
    """What each column of a block is."""
    for properties in block.properties.values.tolist():
        yield (*key.tolist(), *properties)


def _cutoff(calculator: Any) -> float:
    """The largest radius within which a calculator sees neighbors; infinite for LODE."""
    if not callable(getattr(calculator, "compute", None)):
        raise TypeError(
            f"`calculator` must be a calculator of featomic, not {type(calculator).__name__}"
        )
    parts = [getattr(calculator, name, None) for name in ("calculator_1", "calculator_2")]
    used = [part for part in parts if part is not None] or [calculator]
    radii = [list(getattr(part, "cutoffs", ())) or _endless(part) for part in used]
    if not all(radii):
        raise ValueError(
            f"{type(calculator).__name__} has no cutoff: only features of atoms within one, and "
            "those of LODE, are seen"
        )
    return float(max(max(own) for own in radii))


def _endless(part: Any) -> list[float]:
    """An infinite radius for LODE, which needs none; otherwise nothing."""
    return [math.inf] if getattr(part, "c_name", "") == LODE else []


def _right_handed(atoms: Atoms) -> Atoms:
    """The structure with two cell vectors exchanged if they are left-handed.

    featomic 0.6 finds no k-vectors in left-handed cells.
    """
    if not atoms.pbc.all():
        raise ValueError(
            f"features without a cutoff need a structure that is periodic along all directions, "
            f"and `atoms.pbc` is {atoms.pbc.tolist()}"
        )
    turned = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    if turned.cell.handedness < 0:
        turned.set_cell(atoms.cell.array[[1, 0, 2]])
    return turned


def _is_base(calculator: Any) -> bool:
    """Whether a calculator is one of featomic's core, and not made of others in Python.

    With torch installed, those made of others are modules of torch.
    """
    from featomic.calculators import CalculatorBase

    return isinstance(calculator, CalculatorBase)


def _made_of(calculator: Any) -> str:
    """A text that tells a calculator from others: the results of a scan are continued by it."""
    name = type(calculator).__name__
    if _is_base(calculator):
        return f"{name}({calculator.parameters})"
    parts = [getattr(calculator, part, None) for part in ("calculator_1", "calculator_2")]
    return f"{name}({', '.join(_made_of(part) for part in parts if part is not None)})"


def _parameters(calculator: Any) -> tuple[Any, ...]:
    """What a calculator is made from; itself it does not travel to other processes."""
    if _is_base(calculator):
        return (type(calculator), calculator.c_name, calculator.parameters)
    state = dict(vars(calculator))
    for name in ("calculator_1", "calculator_2"):
        if state.get(name) is not None:
            state[name] = _parameters(state[name])
    return (type(calculator), state)


def _from_parameters(found: tuple[Any, ...]) -> Any:
    from featomic.calculators import CalculatorBase

    kind, *rest = found
    calculator = kind.__new__(kind)
    if len(rest) == 2:
        CalculatorBase.__init__(calculator, *rest)
        return calculator
    for name, value in rest[0].items():
        part = name in ("calculator_1", "calculator_2") and value is not None
        setattr(calculator, name, _from_parameters(value) if part else value)
    return calculator
