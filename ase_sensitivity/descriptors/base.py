"""The interface of a descriptor, its optional methods, and how the package calls them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeGuard, runtime_checkable

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
        """Chemical symbols of the neighbors seen, or None if species are not distinguished."""
        ...

    @property
    def cutoff(self) -> float:
        """Radius in Å beyond which a center sees no atom directly."""
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


def descriptor_text(descriptor: Descriptor) -> str:
    """A text that identifies a descriptor: its ``repr`` without addresses in memory."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(descriptor))


@runtime_checkable
class HasReach(Protocol):
    """A descriptor that may see farther than its cutoff, by message passing."""

    @property
    def reach(self) -> float:
        """Radius in Å beyond which no atom affects a row of features."""
        ...


def reach_of(descriptor: Descriptor) -> float:
    """Radius in Å beyond which no atom affects a row: the cutoff, unless there is a ``reach``."""
    if isinstance(descriptor, HasReach):
        return max(descriptor.reach, descriptor.cutoff)
    return descriptor.cutoff


@runtime_checkable
class HasStream(Protocol):
    """A descriptor that can compute its Jacobian a few rows at a time."""

    def stream(self, atoms: Atoms) -> Jacobian:
        """The Jacobian, in pieces that are computed when needed."""
        ...


@runtime_checkable
class HasRows(Protocol):
    """A descriptor that can compute features and their centers without derivatives."""

    def rows(self, atoms: Atoms) -> list[Rows]:
        """Features and the atom at the center of each row, of each part."""
        ...


@runtime_checkable
class HasRestricted(Protocol):
    """A descriptor that can leave out features of species that a structure does not have."""

    def restricted(self, atoms: Atoms) -> Descriptor:
        """The same descriptor without features of species that a structure does not have."""
        ...


@runtime_checkable
class HasEnlarged(Protocol):
    """A descriptor whose basis can be larger."""

    def enlarged(self) -> Descriptor | None:
        """The same descriptor with a larger basis; None if that would cost too much."""
        ...


@runtime_checkable
class HasSquaredJVPGradient(Protocol):
    """A descriptor that can differentiate |J v|² without a Jacobian."""

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
class HasElements(Protocol):
    """A descriptor with features that depend on other elements than its ``species``."""

    @property
    def elements(self) -> Collection[str] | None:
        """Elements of neighbors that some feature depends on; None for all elements."""
        ...


@runtime_checkable
class HasCorrelations(Protocol):
    """A descriptor with parts that differ in body order or species."""

    @property
    def correlations(self) -> Sequence[tuple[int | None, Sequence[str] | None]]:
        """Body order and species of each part of the Jacobian."""
        ...


@runtime_checkable
class HasInvariance(Protocol):
    """A descriptor that says whether it is invariant under rotations, as others have to be."""

    @property
    def rotation_invariant(self) -> bool:
        """Whether features stay the same when the structure is rotated."""
        ...


def is_rotation_invariant(descriptor: Descriptor) -> bool:
    """Whether features are declared to be invariant under rotations: yes, unless it says no."""
    return not isinstance(descriptor, HasInvariance) or bool(descriptor.rotation_invariant)


@runtime_checkable
class HasLayers(Descriptor, Protocol):
    """A descriptor made of layers that can be looked at by themselves."""

    @property
    def n_layers(self) -> int:
        """How many there are."""
        ...

    def at_layers(self, layers: Sequence[int]) -> Descriptor:
        """The features after some layers, counted from 1, beside each other."""
        ...


@runtime_checkable
class HasMemory(Protocol):
    """A descriptor that can keep its last Jacobian, as another one takes long."""

    def remembering(self) -> AbstractContextManager[None]:
        """A context in which the last Jacobian is not computed again for the same structure."""
        ...


def is_descriptor(value: object) -> TypeGuard[Descriptor]:
    """As ``isinstance`` with :class:`Descriptor`; that takes as long as a molecule's neighbors."""
    # A class passes the check by isinstance too, as it has the names that its instances have.
    return (
        not isinstance(value, type)
        and all(hasattr(value, name) for name in ("species", "cutoff", "body_order"))
        and all(optional(value, name) is not None for name in ("features", "jacobian"))
    )


def optional(descriptor: object, name: str) -> Any:
    """An optional method or attribute, None without it: faster than ``isinstance``."""
    return getattr(descriptor, name, None)


def remembering(descriptor: Descriptor) -> AbstractContextManager[None]:
    """A context for one question, which may ask for the Jacobian of a structure several times."""
    found = optional(descriptor, "remembering")
    return nullcontext() if found is None else found()


SHORTCUTS = ("stream", "rows", "restricted", "enlarged", "squared_jvp_gradient")
"""Methods that compute quantities faster than `jacobian` does."""


class Shortcuts:
    """Base of descriptors with shortcuts, which must agree with their ``jacobian``.

    A subclass that overrides ``jacobian`` loses the shortcuts that it does not define itself: they
    are set to None, as ``__hash__`` is None for an unhashable class.
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for base in cls.__bases__:
            if not (issubclass(base, Shortcuts) and hasattr(base, "jacobian")):
                continue
            if cls.jacobian is base.jacobian:  # type: ignore[attr-defined]
                continue
            for name in SHORTCUTS:
                inherited = name not in vars(cls) and hasattr(base, name)
                if inherited and getattr(cls, name) is getattr(base, name):
                    setattr(cls, name, None)


def jacobian_of(descriptor: Descriptor, atoms: Atoms) -> Jacobian:
    """The Jacobian, in pieces computed when needed if the descriptor has a method ``stream``."""
    found: Jacobian = (optional(descriptor, "stream") or descriptor.jacobian)(atoms)
    return found


def restricted(descriptor: Descriptor, atoms: Atoms) -> Descriptor:
    """The descriptor without features that are zero for every structure of these species.

    The descriptor itself, unless it has a method of this name. Everything except the number of
    features is the same.
    """
    found = optional(descriptor, "restricted")
    return descriptor if found is None else found(atoms)


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

    None if the descriptor has no method of this name, or the method returns None. Arguments are
    those of :meth:`SOAP.squared_jvp_gradient`.
    """
    if not isinstance(descriptor, HasSquaredJVPGradient):
        return None
    return descriptor.squared_jvp_gradient(
        atoms, displacements, step, center=center, central_difference=central_difference
    )


def rows_of(descriptor: Descriptor, atoms: Atoms) -> list[Rows]:
    """Features and the atom at the center of each row, for each part of the descriptor.

    If the descriptor has a method ``rows``, no derivatives are computed.
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
