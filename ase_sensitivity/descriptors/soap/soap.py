"""SOAP: the same features as in QUIP, and other body orders, computed by compiled kernels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numba
import numpy as np
from ase import Atoms

from ase_sensitivity.descriptors.base import Rows, Shortcuts
from ase_sensitivity.descriptors.quip.arguments import chemical_species
from ase_sensitivity.descriptors.soap.basis import Basis
from ase_sensitivity.descriptors.soap.bispectrum import Bispectrum, bispectrum, check_products
from ase_sensitivity.descriptors.soap.density_jacobian import DensityJacobian
from ase_sensitivity.descriptors.soap.environments import ALL_SPECIES, Environments
from ase_sensitivity.descriptors.soap.power_spectrum import power_spectrum, squared_jvp_gradient
from ase_sensitivity.descriptors.soap.quip_string import soap_arguments
from ase_sensitivity.descriptors.soap.radial import check_table
from ase_sensitivity.descriptors.soap.radial_spectrum import radial_spectrum
from ase_sensitivity.errors import warn
from ase_sensitivity.geometry.structure import (
    CLOSEST,
    FARTHEST,
    check_fits,
    check_memory,
    symbols_in,
)
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.streamed import StreamedJacobian
from ase_sensitivity.types import Floats, Ints
from ase_sensitivity.validation import as_flag, as_integer, as_number

KEPT = 2**23
"""Up to this number of bytes, `stream` returns derivatives as a whole, so that they are computed
only once."""

CHUNK = 2**25
"""Bytes of larger derivatives that are computed at a time: enough work for several threads."""

CACHED = 2**20
"""The same for a single thread: it fits into a processor's cache."""

ENLARGED = 4
"""Radial functions and degrees l that a larger basis has more, to tell truncation."""

AT_ONCE = 16
"""Number of displacements that `squared_jvp_gradient` treats at a time, to limit memory."""


class SOAP(Shortcuts):
    r"""Smooth overlap of atomic positions, with analytic Jacobian.

    The density of a center's neighbors, each a Gaussian, is expanded in radial functions and
    spherical harmonics, with coefficients c_nlm for each species. Their products give features that
    are invariant under rotations. With the default ``radial_basis`` and ``body_order`` these are
    QUIP's ``soap`` features, element by element.

    Parameters
    ----------
    species
        Chemical symbols of the neighbors seen, in the order of the features.
    cutoff
        Radius in Å.
    n_max, l_max
        Number of radial functions, 1 or more, and highest l, 0 or more.
    atom_sigma
        Width of the Gaussians in Å.
    cutoff_transition_width
        Width in Å of the region before the cutoff in which a neighbor's weight falls to zero.
    central_weight
        Weight of the center's own Gaussian.
    normalise
        Divide each feature vector by its norm. A vector of zeros is left as it is.
    centers
        Chemical symbols of the atoms that have features; the same as ``species`` by default.
    central_reference_all_species
        Whether the center's own Gaussian is in the density of every species, or only in that of its
        own species. As in QUIP, the default is True with one species only.
    radial_basis
        ``"quip"``: Gaussians at equally spaced radii, orthonormalised by Cholesky, l-independent.
        ``"gto"``: r^n exp(-r² / 2 s_n²) with s_n = max(sqrt(n), 1) cutoff / n_max,
        n = 0 .. n_max - 1, orthonormalised symmetrically (Löwdin) on the half line with weight r²,
        l-independent, for atoms that are Gaussians with squares normalised to 1. This is featomic's
        "Gto" with ``max_radial = n_max - 1``. (featomic's power spectrum differs by (-1)^l, and
        lists both (a, b) and (b, a) instead of the factor sqrt 2.)
        ``"dscribe"``: DScribe's "gto", r^l exp(-a r²) with exponents that depend on l, see
        :func:`~ase_sensitivity.descriptors.soap.radial.dscribe_basis`. (DScribe's features are
        pi sqrt 8 times ours, without the factor sqrt 2; it has no cutoff function.)
    body_order
        2: radial spectrum, c_n00. 3: power spectrum. 4: bispectrum, with only its O(3)-invariant
        (parity-even) part; slow, for small bases.
    smooth_cutoff
        Use (1 + cos(pi t² (3 - 2t))) / 2, 0 < t < 1, as the cutoff function instead of QUIP's
        (1 + cos(pi t)) / 2. The second derivative of QUIP's function jumps at both ends, and so do
        the forces of a bias (:class:`~ase_sensitivity.Repel`).
    threads
        Number of threads that share the centers; by default ``NUMBA_NUM_THREADS``, or one per
        processor. Results do not depend on it.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.

    Notes
    -----
    Features for ``body_order=3``: p_ab^l = (2 - delta_ab)^(1/2) / (2 l + 1)^(1/2)
    sum_m c_alm c_blm with a = (species, n) species-major, b <= a, l fastest. With ``"quip"`` one
    more feature follows, a zero in the place of QUIP's ``covariance_sigma0``.

    The first call in a process loads compiled kernels; the first call ever compiles them, which
    takes some seconds.

    Examples
    --------
    >>> from ase.build import molecule
    >>> soap = SOAP(["C", "H"], cutoff=4.0, n_max=6, l_max=4)
    >>> soap.features(molecule("CH4")).shape
    (5, 391)
    """

    def __init__(
        self,
        species: Sequence[str],
        cutoff: float,
        n_max: int,
        l_max: int,
        atom_sigma: float = 0.5,
        cutoff_transition_width: float = 0.5,
        central_weight: float = 1.0,
        normalise: bool = True,
        centers: Sequence[str] | None = None,
        *,
        central_reference_all_species: bool | None = None,
        radial_basis: Literal["quip", "gto", "dscribe"] = "quip",
        body_order: int = 3,
        smooth_cutoff: bool = False,
        threads: int | None = None,
    ) -> None:
        self._species = chemical_species("species", species)
        self._centers = self._species if centers is None else chemical_species("centers", centers)
        self._cutoff = as_number("cutoff", cutoff, "positive")
        self._n_max = as_integer("n_max", n_max, 1, 200)
        self._l_max = as_integer("l_max", l_max, 0, 200)
        self._sigma = as_number("atom_sigma", atom_sigma, "positive")
        self._width = as_number("cutoff_transition_width", cutoff_transition_width, "not negative")
        self._central_weight = as_number("central_weight", central_weight, "finite")
        self._normalise = as_flag("normalise", normalise)
        if central_reference_all_species is None:
            central_reference_all_species = len(self._species) == 1
        self._central_in_all = as_flag(
            "central_reference_all_species", central_reference_all_species
        )
        if radial_basis not in ("quip", "gto", "dscribe"):
            raise ValueError(
                f'`radial_basis` is {radial_basis!r} but must be "quip", "gto" or "dscribe"'
            )
        self._radial_basis = radial_basis
        if body_order not in (2, 3, 4):
            raise ValueError(f"`body_order` is {body_order!r} but must be 2, 3 or 4")
        self._body_order = int(body_order)
        self._smooth = as_flag("smooth_cutoff", smooth_cutoff)
        self._threads = None if threads is None else as_integer("threads", threads, 1, 200)
        self._check_bounds()

    @classmethod
    def from_quip(cls, text: str, *, threads: int | None = None) -> SOAP:
        """Read a QUIP string such as ``"soap cutoff=5 n_max=8 ..."``.

        The string must have ``species_Z`` and ``Z``.

        Raises
        ------
        ValueError
            If it is malformed, or has an option that SOAP lacks; the message names the option.
        """
        return cls(**soap_arguments(text), threads=threads)

    @property
    def species(self) -> tuple[str, ...]:
        """Chemical symbols of the neighbors seen."""
        return self._species

    @property
    def centers(self) -> tuple[str, ...]:
        """Chemical symbols of the atoms that have features."""
        return self._centers

    @property
    def cutoff(self) -> float:
        """Radius in Å beyond which no atom is seen."""
        return self._cutoff

    @property
    def body_order(self) -> int:
        """Nu + 1 for features that correlate nu neighbors with the center."""
        return self._body_order

    @property
    def n_features(self) -> int:
        """Length of a feature vector."""
        channels = len(self._species) * self._n_max
        if self._body_order == 2:
            return channels
        if self._body_order == 4:
            return Bispectrum.of(channels, self._l_max).n_features
        pairs = channels * (channels + 1) // 2
        return pairs * (self._l_max + 1) + (self._radial_basis == "quip")

    @property
    def normalise(self) -> bool:
        """Whether feature vectors are divided by their norms."""
        return self._normalise

    @property
    def orders(self) -> Ints:
        """For each feature, the lowest ``l_max`` with that feature, of shape (n_features,).

        Before normalisation, the features for a lower ``l_max`` are a subset of these. A smaller
        ``n_max`` has different radial functions.
        """
        channels = len(self._species) * self._n_max
        if self._body_order == 2:
            return np.zeros(channels, dtype=np.intp)
        if self._body_order == 4:
            terms = Bispectrum.of(channels, self._l_max).terms
            return np.repeat(
                [max(term.orders) for term in terms], [len(term.chosen) for term in terms]
            )
        orders = np.tile(np.arange(self._l_max + 1), channels * (channels + 1) // 2)
        return np.append(orders, 0) if self._radial_basis == "quip" else orders

    @property
    def basis_size(self) -> tuple[int, int]:
        """``n_max`` and ``l_max``."""
        return self._n_max, self._l_max

    def with_basis(self, n_max: int, l_max: int) -> SOAP:
        """The same descriptor with another number of radial functions and highest l."""
        return self.with_options(n_max=n_max, l_max=l_max)

    def with_options(self, **options: Any) -> SOAP:
        """The same descriptor with other values of some arguments.

        Parameters
        ----------
        **options
            Arguments of the class by name.

        Raises
        ------
        TypeError, ValueError
            If it has no such argument, or the value makes no sense.
        """
        own: dict[str, Any] = {
            "species": self._species,
            "cutoff": self._cutoff,
            "n_max": self._n_max,
            "l_max": self._l_max,
            "atom_sigma": self._sigma,
            "cutoff_transition_width": self._width,
            "central_weight": self._central_weight,
            "normalise": self._normalise,
            "centers": self._centers,
            "central_reference_all_species": self._central_in_all,
            "radial_basis": self._radial_basis,
            "body_order": self._body_order,
            "smooth_cutoff": self._smooth,
            "threads": self._threads,
        }
        for name in options:
            if name not in own:
                raise ValueError(f"`{name}` is no option of SOAP, which has {', '.join(own)}")
        return SOAP(**own | options)

    def enlarged(self) -> SOAP | None:
        """The same descriptor with `ENLARGED` more radial functions and degrees l.

        None at body order 4, where that takes much longer, and where tables would be too large.
        """
        return self._enlarged

    @cached_property
    def _enlarged(self) -> SOAP | None:
        if self._body_order > 3:
            return None
        l_max = self._l_max + ENLARGED if self._body_order == 3 else self._l_max
        try:
            return self.with_basis(self._n_max + ENLARGED, l_max)
        except ValueError:
            return None

    def restricted(self, atoms: Atoms) -> SOAP:
        """The same descriptor without the species that a structure does not have.

        Channels of these are always zero, but cost as much as others. The descriptor itself if
        there are no such species, or if centers contribute to the channels of all species.
        """
        present = symbols_in(atoms)
        species = tuple(symbol for symbol in self._species if symbol in present)
        if self._central_in_all or len(species) in (0, len(self._species)):
            return self
        if species not in self._fewer:
            other = self.with_basis(self._n_max, self._l_max)
            other._species = species
            self._fewer[species] = other
        return self._fewer[species]

    def _check_bounds(self) -> None:
        """Raise ValueError if tables would take very long, or more memory than there is."""
        if not CLOSEST <= self._cutoff <= FARTHEST:
            raise ValueError(
                f"`cutoff` is {self._cutoff:g} but must be from {CLOSEST:g} to {FARTHEST:g} Å"
            )
        check_table(self._cutoff, self._sigma, self._n_max, self._l_max)
        if self._body_order == 4:
            check_products(len(self._species) * self._n_max, self._l_max)

    def __repr__(self) -> str:
        return (
            f"SOAP({list(self._species)}, cutoff={self._cutoff:g}, n_max={self._n_max}, "
            f"l_max={self._l_max}, atom_sigma={self._sigma:g}, "
            f"cutoff_transition_width={self._width:g}, central_weight={self._central_weight:g}, "
            f"normalise={self._normalise}, centers={list(self._centers)}, "
            f"central_reference_all_species={self._central_in_all}, "
            f"radial_basis={self._radial_basis!r}, body_order={self._body_order}, "
            f"smooth_cutoff={self._smooth})"
        )

    def __getstate__(self) -> dict[str, Any]:
        # Tables are computed again when needed, which is cheaper than sending them.
        computed = ("_basis", "_fewer", "_enlarged")
        return {k: value for k, value in self.__dict__.items() if k not in computed}

    @cached_property
    def _fewer(self) -> dict[tuple[str, ...], SOAP]:
        """Descriptors restricted to some of the species; see :meth:`restricted`."""
        return {}

    def features(self, atoms: Atoms) -> Floats:
        """Features of shape (n_rows, n_features), one row per center.

        Raises
        ------
        TypeError, ValueError
            If the structure is unusable.
        """
        return self._calculate(self._environments(atoms), gradients=False)[0]

    def rows(self, atoms: Atoms) -> list[Rows]:
        """Features and the atom at the center of each row; one part.

        Raises
        ------
        TypeError, ValueError
            If the structure is unusable.
        """
        environments = self._environments(atoms)
        return [(self._calculate(environments, gradients=False)[0], environments.centers)]

    def jacobian(self, atoms: Atoms) -> FeatureJacobian:
        """Features and their derivatives, one row per center, in 1/Å times the features' unit.

        Raises
        ------
        TypeError, ValueError
            If the structure is unusable, or the derivatives would not fit into memory.
        """
        return self._jacobian(self._environments(atoms))

    def stream(self, atoms: Atoms) -> FeatureJacobian | StreamedJacobian:
        """The Jacobian; if it is large, a few centers at a time are computed when needed.

        At body order 3 its products need no derivatives of features, which are computed only where
        they are asked for themselves.

        Raises
        ------
        TypeError, ValueError
            If the structure is unusable.
        """
        environments = self._environments(atoms)
        per_block = 3 * self.n_features * 8
        chunk = CACHED if self._body_order == 3 and self._one_thread else CHUNK
        small = environments.n_blocks * per_block <= max(KEPT, chunk)
        if small and self._body_order != 3:
            return self._jacobian(environments)

        kept: dict[int, FeatureJacobian] = {}  # to wrap in functools.cache costs 2 % of a molecule

        def compute(start: int, stop: int) -> FeatureJacobian:
            if start in kept:
                return kept[start]
            features, blocks = self._calculate(environments.rows(start, stop), gradients=True)
            found = environments.jacobian(features, blocks, self._cutoff, start)
            if small:
                kept[start] = found
            return found

        n_rows = len(environments.centers)
        bounds = [0, n_rows] if small else environments.bounds(max(1, chunk // per_block))
        if self._body_order == 3:
            return DensityJacobian(
                self._basis,
                environments,
                self._normalise,
                self._threads,
                cutoff=self._cutoff,
                n_features=self.n_features,
                features=lambda: self._calculate(environments, gradients=False)[0],
                compute=compute,
                bounds=bounds,
            )
        return StreamedJacobian(
            compute,
            bounds,
            n_atoms=len(atoms),
            cutoff=self._cutoff,
            center_atoms=environments.centers,
            pairs=environments.pairs,
        )

    def squared_jvp_gradient(
        self,
        atoms: Atoms,
        displacements: Floats,
        step: float = 1e-4,
        *,
        center: int | None = None,
        central_difference: bool = True,
    ) -> tuple[Floats, Floats] | None:
        r"""Derivatives of \|J v\|² at fixed v, for several v, without computing the Jacobian J.

        Derivatives of singular values are computed from these (docs/theory, gradient).

        Parameters
        ----------
        atoms
            The structure.
        displacements
            The directions v, of shape (m, n_atoms, 3), without a unit.
        step
            Step of finite differences along v, in Å.
        center
            The only center to include; by default all centers.
        central_difference
            Whether to take central differences, with an error of order ``step`` squared. Forward
            differences, with an error of order ``step``, take little more than half the time.

        Returns
        -------
        positions
            Derivatives by the positions, of shape (m, n_atoms, 3), in 1/Å³ times the square of the
            features' unit.
        strain
            Derivatives by a strain E that maps positions and cell vectors x to (1 + E) x, of shape
            (m, 3, 3), in 1/Å² times the square of the features' unit.
        None
            Instead of both if ``body_order`` is not 3.

        Raises
        ------
        TypeError, ValueError
            If the structure is unusable, or an argument has no meaning.
        """
        environments = self._environments(atoms)
        modes = np.asarray(displacements, dtype=np.float64)
        if modes.ndim != 3 or modes.shape[1:] != (len(atoms), 3):
            raise ValueError(
                f"`displacements` has shape {modes.shape} but must be (any, {len(atoms)}, 3)"
            )
        as_number("step", step, "positive")
        if center is not None:
            start, stop = np.searchsorted(environments.centers, (center, center + 1)).tolist()
            environments = environments.rows(start, stop)
        if self._body_order != 3:
            return None
        first, second = environments.centers[environments.row], environments.atom
        positions, strain = np.zeros_like(modes), np.empty((len(modes), 3, 3))
        for begin in range(0, len(modes), AT_ONCE):
            some = slice(begin, begin + AT_ONCE)
            changes = modes[some, second] - modes[some, first]
            forces = squared_jvp_gradient(
                self._basis,
                environments,
                self._normalise,
                changes,
                step,
                central_difference,
                self._threads,
            )
            for total, force in zip(positions[some], forces, strict=True):
                np.add.at(total, second, force)
                np.subtract.at(total, first, force)
            strain[some] = np.einsum("mka,kb->mab", forces, environments.vectors)
        return positions, strain

    def derivatives_of_squares(
        self,
        atoms: Atoms,
        displacements: Floats,
        step: float = 1e-4,
        *,
        center: int | None = None,
        both_sides: bool = True,
    ) -> tuple[Floats, Floats] | None:
        """Old name of :meth:`squared_jvp_gradient`, which goes with the next release."""
        warn("derivatives_of_squares is squared_jvp_gradient now", DeprecationWarning)
        return self.squared_jvp_gradient(
            atoms, displacements, step, center=center, central_difference=both_sides
        )

    @property
    def _one_thread(self) -> bool:
        if self._threads is None:
            return int(numba.config.NUMBA_NUM_THREADS) == 1
        return self._threads == 1

    @cached_property
    def _basis(self) -> Basis:
        return Basis.build(
            self._radial_basis,
            len(self._species),
            self._cutoff,
            self._width,
            self._n_max,
            0 if self._body_order == 2 else self._l_max,
            self._sigma,
            self._central_weight,
            self._smooth,
        )

    def _environments(self, atoms: Atoms) -> Environments:
        environments = Environments.of(atoms, self._cutoff, self._species, self._centers)
        if self._central_in_all:
            environments.center_species[:] = ALL_SPECIES
        return environments

    def _jacobian(self, environments: Environments) -> FeatureJacobian:
        features, blocks = self._calculate(environments, gradients=True)
        return environments.jacobian(features, blocks, self._cutoff)

    def _check_memory(self, environments: Environments, n_blocks: int) -> None:
        """Raise ValueError if features, derivatives and scratch arrays do not fit into memory."""
        n_rows, harmonics = len(environments.centers), self._basis.harmonics
        most = environments.most(0, n_rows)
        check_memory(n_blocks, self.n_features)
        check_fits(
            8.0 * (n_rows * self.n_features),
            f"{n_rows} rows of {self.n_features} features",
            "reduce `n_max` or `l_max`",
        )
        check_fits(
            8.0 * most * (2 * self._n_max * harmonics.l_padded + 4 * harmonics.size),
            f"the expansion of an environment of {most} neighbors",
            "reduce `l_max` or the cutoff",
        )

    def _calculate(self, environments: Environments, gradients: bool) -> tuple[Floats, Floats]:
        n_blocks = environments.n_blocks if gradients else 0
        self._check_memory(environments, n_blocks)
        features = np.empty((len(environments.centers), self.n_features))
        blocks = np.empty((n_blocks, 3, self.n_features))
        if self._body_order == 2:
            radial_spectrum(self._basis, environments, self._normalise, features, blocks)
        elif self._body_order == 3:
            power_spectrum(
                self._basis, environments, self._normalise, features, blocks, self._threads
            )
        else:
            bispectrum(self._basis, environments, self._normalise, features, blocks)
        return features, blocks
