"""QUIP descriptors with a center and gradients, and the descriptors of a GAP potential."""

from __future__ import annotations

import logging
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from ase import Atoms

from ase_sensitivity.descriptors.base import Rows, Shortcuts
from ase_sensitivity.descriptors.components import Component
from ase_sensitivity.descriptors.quip.arguments import (
    KNOWN,
    MANDATORY,
    QUIPArguments,
    UnsupportedDescriptorError,
    real_number,
)
from ase_sensitivity.descriptors.quip.clusters import canonical_order
from ase_sensitivity.descriptors.quip.library import quip_calls, quip_rows, reset_clebsch_gordan
from ase_sensitivity.descriptors.quip.probe import refuse_crashes
from ase_sensitivity.descriptors.quip.stops import refuse_stops, with_compress_file
from ase_sensitivity.descriptors.soap.soap import ENLARGED, SOAP
from ase_sensitivity.errors import DescriptorWarning, warn
from ase_sensitivity.geometry.neighbors import boxed, neighbor_pairs
from ase_sensitivity.geometry.structure import check_atoms, check_memory
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.contract import Jacobian
from ase_sensitivity.jacobian.stacked import StackedJacobian, WholeJacobian
from ase_sensitivity.types import Floats, Ints
from ase_sensitivity.validation import check_exists

logger = logging.getLogger(__name__)


LEFT_OUT = (
    "some descriptors of this GAP are not supported and left out; they may resolve what the others "
    "do not; the log names them"
)


class QUIPDescriptor(Shortcuts):
    """Features and Jacobian of one or several QUIP descriptors, through quippy.

    Parameters
    ----------
    specification
        A QUIP descriptor string such as ``"soap cutoff=5 n_max=8 l_max=6 atom_sigma=0.5"``, or
        several. The features of several descriptors are combined, as in a GAP.
    species
        Chemical symbols. They fill ``species_Z`` and ``n_species`` and, for soap, the centers ``Z``
        and ``n_Z``, if a string does not give these. Without them, and without ``species_Z``, QUIP
        does not distinguish elements.
    native
        Use :class:`~ase_sensitivity.SOAP` for a soap if it has all of its options: the same
        features, 5 to 30 times as fast. If False, QUIP computes everything.

    Raises
    ------
    TypeError
        If ``specification`` is neither a string nor strings.
    ValueError
        If QUIP does not accept it, or would crash on it.

    Notes
    -----
    A QUIP string has the same meaning as in QUIP. In particular, soap's ``normalise`` is T unless
    given, and features are not multiplied by the cutoff function of GAP kernels of pairs and
    triplets.

    Examples
    --------
    >>> from ase.build import molecule
    >>> soap = QUIPDescriptor("soap cutoff=4 n_max=6 l_max=4 atom_sigma=0.5", species=["C", "H"])
    >>> soap.features(molecule("CH4")).shape
    (5, 391)
    """

    def __init__(
        self,
        specification: str | Sequence[str],
        *,
        species: Sequence[str] | None = None,
        native: bool = True,
    ) -> None:
        if not isinstance(specification, str | Sequence):
            raise TypeError(
                f"`specification` is {specification!r} but must be a QUIP string, or several"
            )
        texts = [specification] if isinstance(specification, str) else list(specification)
        if not texts:
            raise ValueError("`specification` lists no descriptor")
        parsed = [arguments for text in texts for arguments in QUIPArguments.parse_all(text)]
        if species is not None:
            one = len(parsed) == 1  # several may include some that take no species
            parsed = [
                arguments.with_species(species) if one or arguments.takes_species else arguments
                for arguments in parsed
            ]
        self._arguments = tuple(parsed)
        self._native = native
        self._parts = _computers(self._arguments, native)
        self._thetas: tuple[Floats | None, ...] = (None,) * len(parsed)

    @classmethod
    def from_gap(cls, path: str | Path, *, native: bool = True) -> QUIPDescriptor:
        """The descriptors that a GAP potential file was fitted with.

        Parameters
        ----------
        path
            The XML file that ``gap_fit`` wrote. Its sparse-point files are not needed. A
            ``compress_file`` is looked for in the working directory, as in QUIP, and then in the
            folder of the XML file.
        native
            As above.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not XML, has no GAP descriptor, or names a file that does not exist.

        Warns
        -----
        DescriptorWarning
            If some of the descriptors are not supported and left out; the log names them.

        Notes
        -----
        The file's ``gap_version`` determines some conventions of soap and distance_Nb, as in QUIP.
        """
        check_exists(path)
        try:
            root = ElementTree.parse(path).getroot()
        except ElementTree.ParseError as error:
            raise ValueError(f"{path} is not an XML file: {error}") from None
        if root.find(".//descriptor") is None:
            raise ValueError(f"{path} has no <descriptor>: not a GAP potential file")
        version = _gap_version(root)
        # Length scales that gap_fit took from the data are not in its strings.
        above = {child: parent for parent in root.iter() for child in parent}
        folder = Path(path).parent
        parsed, thetas, left_out = [], [], []
        for element in root.iter("descriptor"):
            try:
                words = QUIPArguments.parse(element.text or "")
            except UnsupportedDescriptorError as error:
                left_out.append(str(error))
                continue
            words = with_compress_file(words, folder)
            parsed.append(words if version is None else words.of_gap(version))
            thetas.append(_thetas(above[element]))
        if not parsed:
            raise ValueError(f"{path}: {left_out[0]}")
        for reason in left_out:
            logger.warning("A descriptor of %s is left out: %s", path, reason)
        if left_out:
            warn(LEFT_OUT, DescriptorWarning)
        found = cls.__new__(cls)
        found._native = native
        found._arguments = tuple(parsed)
        found._parts = _computers(found._arguments, native)
        found._thetas = tuple(thetas)
        return found

    @property
    def specification(self) -> tuple[str, ...]:
        """The QUIP strings, completed with species."""
        return tuple(str(arguments) for arguments in self._arguments)

    @property
    def species(self) -> tuple[str, ...] | None:
        """Species that are distinguished, or None if one of the strings does not list them."""
        symbols: dict[str, None] = {}
        for arguments in self._arguments:
            if arguments.species is None:
                return None
            symbols |= dict.fromkeys(arguments.species)
        return tuple(symbols)

    @property
    def elements(self) -> frozenset[str] | None:
        """Elements that some feature depends on, or None if one of the strings takes all."""
        found: set[str] = set()
        for arguments in self._arguments:
            if arguments.elements is None:
                return None
            found |= arguments.elements
        return frozenset(found)

    @property
    def cutoff(self) -> float:
        """The largest cutoff, in Å."""
        return max(part.cutoff for part in self._parts)

    @property
    def reach(self) -> float:
        """Radius in Å beyond which no atom affects a row: more than the cutoff for clusters."""
        parts = self._parts
        return max(part.reach if isinstance(part, _QUIPPart) else part.cutoff for part in parts)

    @property
    def body_order(self) -> int:
        """The largest body order of the strings."""
        return max(arguments.body_order for arguments in self._arguments)

    @property
    def correlations(self) -> tuple[tuple[int, tuple[str, ...] | None], ...]:
        """Body order and species of each string, in the order of the Jacobian's parts."""
        return tuple((words.body_order, words.species) for words in self._arguments)

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """One component for each group of strings that differ in their species only."""
        alike: dict[str, list[int]] = {}
        for n, words in enumerate(self._arguments):
            alike.setdefault(str(words.without_species_and_kernel), []).append(n)
        kinds = [text.split()[0] for text in alike]
        return tuple(
            Component(kind if kinds.count(kind) == 1 else text, self._of(own), tuple(own))
            for kind, (text, own) in zip(kinds, alike.items(), strict=True)
        )

    @property
    def kernel_weights(self) -> tuple[Floats, ...] | None:
        """Weights of the features of each string in a GAP's kernels, in eV; None if unknown."""
        found = []
        for words, thetas in zip(self._arguments, self._thetas, strict=True):
            weight = words.kernel_weight
            if thetas is not None and "delta" in words.arguments:
                found.append(real_number("delta", words.arguments["delta"]) / thetas)
            elif weight is None:
                return None
            else:
                found.append(np.array(weight))
        return tuple(found)

    def _of(self, chosen: Sequence[int]) -> QUIPDescriptor:
        """The descriptor of some of the strings."""
        other = QUIPDescriptor.__new__(QUIPDescriptor)
        other._native = self._native
        other._arguments = tuple(self._arguments[n] for n in chosen)
        other._parts = tuple(self._parts[n] for n in chosen)
        other._thetas = tuple(self._thetas[n] for n in chosen)
        return other

    def restricted(self, atoms: Atoms) -> QUIPDescriptor:
        """The same descriptor without channels of species that a structure does not have.

        Only soaps that :class:`SOAP` computes leave channels out, and none do with the weights of a
        GAP's kernels.
        """
        parts = tuple(
            part.restricted(atoms) if isinstance(part, SOAP) else part for part in self._parts
        )
        if parts == self._parts or self.kernel_weights is not None:
            return self
        other = self._of(range(len(parts)))
        other._parts = parts
        return other

    @property
    def soap(self) -> SOAP | None:
        """The :class:`SOAP` that computes a single soap string; None for anything else."""
        one = len(self._parts) == 1 and isinstance(self._parts[0], SOAP)
        return self._parts[0] if one else None  # type: ignore[return-value]

    def enlarged(self) -> QUIPDescriptor | None:
        """The same descriptors with larger bases, of those that have ``n_max`` and ``l_max``.

        None if there are none, or a basis would be too large.
        """
        larger = []
        for words in self._arguments:
            sizes = {name: words.arguments.get(name) for name in ("n_max", "l_max")}
            if None not in sizes.values():
                more = {name: str(int(str(size)) + ENLARGED) for name, size in sizes.items()}
                words = replace(words, arguments={**words.arguments, **more})
            larger.append(words)
        if tuple(larger) == self._arguments:
            return None
        other = self._of(range(len(self._parts)))
        other._arguments = tuple(larger)
        try:
            other._parts = _computers(other._arguments, self._native)
        except ValueError:
            return None
        return other

    def with_basis(self, n_max: int, l_max: int) -> QUIPDescriptor:
        """The same descriptors; those that have ``n_max`` and ``l_max`` get the new values."""
        return self._changed(
            [
                words.arguments | {"n_max": str(n_max), "l_max": str(l_max)}
                if {"n_max", "l_max"} <= words.arguments.keys()
                else words.arguments
                for words in self._arguments
            ]
        )

    def with_options(self, **options: Any) -> QUIPDescriptor:
        """The same descriptors with other values of some words of their strings.

        Parameters
        ----------
        **options
            Words of QUIP strings. The strings that have the word get the new value; a single string
            gets it in any case.

        Raises
        ------
        ValueError
            If no string has the word, or QUIP does not know it or does not accept the value.
        """
        found = [dict(words.arguments) for words in self._arguments]
        for name, value in options.items():
            having = [own for own in found if name in own]
            if not having and len(found) == 1 and name in KNOWN - {*MANDATORY["soap"]}:
                having = found  # a descriptor with one of the others has it in its string
            if not having:
                raise ValueError(f"`{name}` is no option of {self!r}")
            for own in having:
                own[name] = str(value)[0] if isinstance(value, bool) else str(value)
        return self._changed(found)

    def _changed(self, arguments: Sequence[dict[str, str]]) -> QUIPDescriptor:
        """The same descriptors with other arguments of each string."""
        other = self._of(range(len(self._parts)))
        texts = [
            str(replace(words, arguments=own))
            for words, own in zip(self._arguments, arguments, strict=True)
        ]
        other._arguments = tuple(
            replace(QUIPArguments.parse(text), gap_version=words.gap_version)
            for text, words in zip(texts, self._arguments, strict=True)
        )
        other._parts = _computers(other._arguments, self._native)
        return other

    def __repr__(self) -> str:
        texts = self.specification
        return f"QUIPDescriptor({texts[0] if len(texts) == 1 else list(texts)!r})"

    def features(self, atoms: Atoms) -> Floats:
        """Features of shape (n_rows, n_features); block-diagonal for several strings.

        Raises
        ------
        ValueError
            If the structure is unusable or QUIP refuses it.
        """
        return scipy.linalg.block_diag(*(features for features, _ in self._rows(atoms)))

    def rows(self, atoms: Atoms) -> list[Rows]:
        """Features and the atom at the center of each row, for each string.

        Raises
        ------
        ValueError
            If the structure is unusable or QUIP refuses it.
        """
        return self._rows(atoms)

    def _rows(self, atoms: Atoms) -> list[Rows]:
        return [rows for part in self._parts for rows in part.rows(atoms)]

    def jacobian(self, atoms: Atoms) -> WholeJacobian:
        """Features and their derivatives, in 1/Å times the features' unit.

        Raises
        ------
        ValueError
            If the structure is unusable or QUIP refuses it.
        """
        parts = tuple(part.jacobian(atoms) for part in self._parts)
        return parts[0] if len(parts) == 1 else StackedJacobian(parts)

    def stream(self, atoms: Atoms) -> Jacobian:
        """The Jacobian, if possible a few centers at a time if it is large.

        Raises
        ------
        ValueError
            If the structure is unusable or QUIP refuses it.
        """
        if len(self._parts) == 1 and isinstance(self._parts[0], SOAP):
            return self._parts[0].stream(atoms)
        return self.jacobian(atoms)

    def squared_jvp_gradient(
        self,
        atoms: Atoms,
        displacements: Floats,
        step: float,
        *,
        center: int | None = None,
        central_difference: bool = True,
    ) -> tuple[Floats, Floats] | None:
        """As that of :class:`~ase_sensitivity.SOAP`; None if QUIP computes one of the strings.

        Raises
        ------
        ValueError
            If the structure is unusable.
        """
        soaps = [part for part in self._parts if isinstance(part, SOAP)]
        if len(soaps) < len(self._parts):
            return None
        total: tuple[Floats, Floats] | None = None
        for soap in soaps:
            found = soap.squared_jvp_gradient(
                atoms, displacements, step, center=center, central_difference=central_difference
            )
            if found is None:
                return None
            total = found if total is None else (total[0] + found[0], total[1] + found[1])
        return total


def _thetas(coordinates: ElementTree.Element) -> Floats | None:
    """Length scales of the features from a GAP file, if its kernel is Gaussian."""
    if coordinates.get("covariance_type") != "1":
        return None
    thetas = np.array((coordinates.findtext("theta") or "").split(), dtype=float)
    return thetas if len(thetas) and (thetas > 0).all() else None


def _gap_version(root: ElementTree.Element) -> int | None:
    """Version of the program that wrote a GAP file, 0 if not stated; None without a GAP."""
    for element in root.iter("GAP_params"):
        text = element.get("gap_version", "0")
        if not re.fullmatch(r"\s*\d{1,10}\s*", text):
            raise ValueError(f"`gap_version` is {text!r} but must be an integer")
        return int(text)
    return None


def _computers(parsed: tuple[QUIPArguments, ...], native: bool) -> tuple[SOAP | _QUIPPart, ...]:
    soaps = [_native(arguments) if native else None for arguments in parsed]
    left = [arguments for arguments, soap in zip(parsed, soaps, strict=True) if soap is None]
    for arguments in left:
        refuse_stops(arguments)
    refuse_crashes(left)
    return tuple(
        _QUIPPart(arguments) if soap is None else soap
        for arguments, soap in zip(parsed, soaps, strict=True)
    )


def _native(arguments: QUIPArguments) -> SOAP | None:
    if arguments.kind == "soap":
        try:
            return SOAP.from_quip(str(arguments))
        except ValueError as error:  # an option that SOAP lacks, or that is wrong
            logger.info("%s; left to QUIP", error)
    return None


class _QUIPPart:
    """One QUIP string. The Fortran object is created again after unpickling."""

    def __init__(self, arguments: QUIPArguments) -> None:
        from quippy.descriptors import Descriptor

        self.arguments = arguments
        with quip_calls(f"QUIP does not accept {str(self.arguments)!r}"):
            self._quip = Descriptor(str(self.arguments))
            self.cutoff = float(self._quip.cutoff())
            self.n_features = int(self._quip.dimensions())
        # A cluster is a chain of atoms, each within the cutoff of the next one.
        n_hops = arguments.body_order - 1 if arguments.kind == "distance_Nb" else 1
        self.reach = n_hops * self.cutoff
        if self.n_features < 1:
            raise ValueError(f"{str(self.arguments)!r} has no features")

    def __getstate__(self) -> QUIPArguments:
        return self.arguments

    def __setstate__(self, arguments: QUIPArguments) -> None:
        refuse_stops(arguments)  # another machine may lack a file
        self.__init__(arguments)  # type: ignore[misc]

    @property
    def _clusters(self) -> bool:
        """Whether rows are triplets or larger clusters, with an order of atoms chosen by QUIP.

        To replace it by a canonical order takes positions, which come with the gradients.
        """
        return self.arguments.kind == "distance_Nb" and self.arguments.body_order > 2

    def rows(self, atoms: Atoms) -> list[Rows]:
        found = self._calculate(atoms, gradients=self._clusters)
        return [(found.features, found.centers)]

    def jacobian(self, atoms: Atoms) -> FeatureJacobian:
        return self._calculate(atoms, gradients=True)

    def _calculate(self, atoms: Atoms, gradients: bool) -> FeatureJacobian:
        check_atoms(atoms)
        pairs = neighbor_pairs(atoms, self.cutoff)
        # two copies: one in QUIP, one here
        check_memory(len(pairs.first) + len(atoms), self.n_features, copies=2)
        box = boxed(atoms, self.cutoff)
        for name in self.arguments.arrays:
            box.set_array(name, _integers(atoms, name))
        with quip_calls("QUIP failed on this structure"):
            rows = self._rows(box, gradients)
        if not rows:
            return self._empty(len(atoms))
        centers = np.array([row["center"] for row in rows], dtype=np.intp)
        features = np.array([row["data"] for row in rows])
        center_atoms = np.unique(np.concatenate([row["center_atoms"] for row in rows]))
        jacobian = FeatureJacobian(
            features=features,
            centers=centers,
            row=np.repeat(np.arange(len(rows)), [len(row["atom"]) for row in rows]),
            atom=np.concatenate([row["atom"] for row in rows]),
            displacement=np.concatenate([row["displacement"] for row in rows]),
            blocks=np.concatenate([row["blocks"] for row in rows]),
            n_atoms=len(atoms),
            cutoff=self.cutoff,
            reach=self.reach,
            center_atoms=center_atoms,
            pairs=pairs,
        )
        jacobian.check_finite()
        return jacobian

    def _rows(self, box: Atoms, gradients: bool) -> list[dict[str, Any]]:
        if self.arguments.kind.startswith("bispectrum"):
            reset_clebsch_gordan()
        raw = quip_rows(self._quip, box, gradients, self.arguments.gap_version)
        rows = [self._row(raw.x[i], box, gradients) for i in range(len(raw.x))]
        return [row for row in rows if row is not None]

    def _row(self, raw: Any, box: Atoms, gradients: bool) -> dict[str, Any] | None:
        """Copy one row out of Fortran's memory; None if the row has no data."""
        try:
            data = np.array(raw.data, dtype=float).ravel()
            center_atoms: Ints = np.array(raw.ci, dtype=np.intp) - 1
        except (AttributeError, ValueError):  # f90wrap: the array is not allocated
            return None
        if not np.atleast_1d(raw.has_data).all():
            return None
        atom: Ints = np.empty(0, dtype=np.intp)
        displacement = np.empty((0, 3))
        blocks = np.empty((0, 3, self.n_features))
        whole = self.arguments.averaged
        if gradients:
            # Blocks that QUIP did not compute have neither an atom nor defined memory. The arrays
            # are views of Fortran's memory, freed with `raw`: copy.
            present = np.array(raw.has_grad_data, dtype=bool)
            atom = np.array(raw.ii, dtype=np.intp)[present] - 1
            blocks = np.ascontiguousarray(np.array(raw.grad_data).transpose(2, 1, 0)[present])
            displacement = np.array(raw.pos).T[present] - box.positions[center_atoms[0]]
            if whole:
                displacement[:] = 0.0
            if self._clusters:
                positions = np.array(raw.pos).T
                numbers = box.numbers[center_atoms] * ("Z" in self.arguments.arguments)
                order, distances = canonical_order(numbers, positions)
                center_atoms = center_atoms[order]
                data, blocks = data[distances], blocks[:, :, distances]
                displacement = positions[present] - positions[order[0]]
        return {
            "center": -1 if whole else center_atoms[0],
            "center_atoms": center_atoms if whole else center_atoms[:1],
            "data": data,
            "atom": atom,
            "displacement": displacement,
            "blocks": blocks,
        }

    def _empty(self, n_atoms: int) -> FeatureJacobian:
        none: Ints = np.empty(0, dtype=np.intp)
        return FeatureJacobian(
            features=np.empty((0, self.n_features)),
            centers=none,
            row=none,
            atom=none,
            displacement=np.empty((0, 3)),
            blocks=np.empty((0, 3, self.n_features)),
            n_atoms=n_atoms,
            cutoff=self.cutoff,
            reach=self.reach,
        )


def _integers(atoms: Atoms, name: str) -> Ints:
    """The array of integers that a string names, one for each atom."""
    found = atoms.arrays.get(name)
    if found is None or found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(
            f"`resid_name` is {name} but the structure has no such array of one integer per atom; "
            f"set atoms.arrays[{name!r}]"
        )
    return found.astype(np.int32)
