"""What a descriptor is, what it may do beyond, and what the rest of the package asks of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol, runtime_checkable

from ase import Atoms

from ase_sensitivity.jacobian.arrays import as_floats
from ase_sensitivity.jacobian.contract import Jacobian, in_blocks
from ase_sensitivity.moved import names_moved
from ase_sensitivity.types import Floats, Ints

Rows = tuple[Floats, Ints]
"""Features of shape (n_rows, n_features), and the atom at the center of each row, (n_rows,)."""


@runtime_checkable
class Descriptor(Protocol):
    """A map from a structure to atom-centered features, with its Jacobian."""

    @property
    def species(self) -> Sequence[str] | None:
        """Chemical symbols of the neighbors that are told apart, or None if they are not."""
        ...

    @property
    def cutoff(self) -> float:
        """Radius in Å beyond which nothing is heard directly."""
        ...

    @property
    def body_order(self) -> int | None:
        """Nu + 1 for features that correlate nu neighbors with the center; None if unknown."""
        ...

    def features(self, atoms: Atoms) -> Floats:
        """Features of shape (n_rows, n_features)."""
        ...

    def jacobian(self, atoms: Atoms) -> Jacobian:
        """Derivatives of the features with respect to the atoms' positions."""
        ...


@runtime_checkable
class Reaches(Protocol):
    """A descriptor that sees farther than its cutoff, because messages are passed on."""

    @property
    def reach(self) -> float:
        """Radius in Å beyond which nothing matters to a row of features."""
        ...


def reach_of(descriptor: Descriptor) -> float:
    """Radius in Å beyond which nothing matters to a row: the cutoff, unless a descriptor says."""
    if isinstance(descriptor, Reaches):
        return max(descriptor.reach, descriptor.cutoff)
    return descriptor.cutoff


@runtime_checkable
class Streams(Protocol):
    """A descriptor whose Jacobian comes some rows at a time."""

    def stream(self, atoms: Atoms) -> Jacobian:
        """The Jacobian, in pieces computed when asked for."""
        ...


@runtime_checkable
class HasRows(Protocol):
    """A descriptor that gives features, and whose they are, without derivatives."""

    def rows(self, atoms: Atoms) -> list[Rows]:
        """Features and the atom at the center of each row, of each part."""
        ...


@runtime_checkable
class Restricts(Protocol):
    """A descriptor that can leave out features that are zero for all structures of some species."""

    def restricted(self, atoms: Atoms) -> Descriptor:
        """The same descriptor without features of species that a structure lacks."""
        ...


@runtime_checkable
class Enlarges(Protocol):
    """A descriptor whose basis can be larger."""

    def enlarged(self) -> Descriptor | None:
        """The same descriptor with a larger basis; None if that would cost too much."""
        ...


@runtime_checkable
class HasSquaredJVPGradient(Protocol):
    """A descriptor that differentiates |J v|² without Jacobians."""

    def squared_jvp_gradient(
        self,
        atoms: Atoms,
        displacements: Floats,
        step: float,
        *,
        center: int | None = None,
        central_difference: bool = True,
    ) -> tuple[Floats, Floats] | None:
        """As :meth:`SOAP.squared_jvp_gradient`."""
        ...


@runtime_checkable
class KnowsElements(Protocol):
    """A descriptor whose features depend on other elements than its ``species``."""

    @property
    def elements(self) -> Collection[str] | None:
        """Elements that some feature depends on, as neighbors; None for all."""
        ...


@runtime_checkable
class Correlates(Protocol):
    """A descriptor whose parts differ in body order or species."""

    @property
    def correlations(self) -> Sequence[tuple[int | None, Sequence[str] | None]]:
        """Body order and species of each part of the Jacobian."""
        ...


SHORTCUTS = ("stream", "rows", "restricted", "enlarged", "squared_jvp_gradient")
"""Methods that do what `jacobian` would do in more time."""


class Shortcuts:
    """Base of descriptors with shortcuts, which are those of their own Jacobian only.

    A subclass that changes ``jacobian`` has no longer the shortcuts that it does not define itself:
    they are None there, as an unhashable class has a ``__hash__`` that is None.
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for base in cls.__bases__:
            if not issubclass(base, Shortcuts) or base is Shortcuts:
                continue
            if cls.jacobian is base.jacobian:  # type: ignore[attr-defined]
                continue
            for name in SHORTCUTS:
                inherited = name not in vars(cls) and hasattr(base, name)
                if inherited and getattr(cls, name) is getattr(base, name):
                    setattr(cls, name, None)


def jacobian_of(descriptor: Descriptor, atoms: Atoms) -> Jacobian:
    """The Jacobian, in pieces computed when needed if the descriptor has a method ``stream``."""
    return (
        descriptor.stream(atoms) if isinstance(descriptor, Streams) else descriptor.jacobian(atoms)
    )


def restricted(descriptor: Descriptor, atoms: Atoms) -> Descriptor:
    """The descriptor without features that are zero for every structure of these species.

    Itself, unless it has a method of this name. Everything but the number of features is the same.
    """
    return descriptor.restricted(atoms) if isinstance(descriptor, Restricts) else descriptor


def squared_jvp_gradient(
    descriptor: Descriptor,
    atoms: Atoms,
    displacements: Floats,
    step: float,
    *,
    center: int | None = None,
    central_difference: bool = True,
) -> tuple[Floats, Floats] | None:
    """Derivatives of |J v|² by positions (m, n_atoms, 3) and strain (m, 3, 3), without Jacobians.

    None if the descriptor has no method of this name, or that gives None. Arguments are those of
    :meth:`SOAP.squared_jvp_gradient`.
    """
    if not isinstance(descriptor, HasSquaredJVPGradient):
        return None
    return descriptor.squared_jvp_gradient(
        atoms, displacements, step, center=center, central_difference=central_difference
    )


def rows_of(descriptor: Descriptor, atoms: Atoms) -> list[Rows]:
    """Features and whose they are, of each part of the descriptor.

    Descriptors that have a method ``rows`` are spared the derivatives.
    """
    if isinstance(descriptor, HasRows):
        found = descriptor.rows(atoms)
        return [(as_floats("features", features)[0], centers) for features, centers in found]
    whole = in_blocks(descriptor.jacobian(atoms), "a comparison of features")
    return [(part.features, part.centers) for part in whole.parts]


__getattr__ = names_moved(
    __name__,
    {
        "Range": "geometry.ranges",
        "BlockJacobian": "jacobian.contract",
        "FeatureJacobian": "jacobian.blocks",
        "StackedJacobian": "jacobian.stacked",
        "StreamedJacobian": "jacobian.streamed",
    },
)
