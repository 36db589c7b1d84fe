"""The three products of a Jacobian, and what can be done with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from ase_sensitivity import (
    SOAP,
    FeatureJacobian,
    FiniteDifferenceDescriptor,
    QUIPDescriptor,
    StackedJacobian,
    StreamedJacobian,
    analyze,
    find_pairs,
    gradient,
)
from ase_sensitivity.descriptors.base import (
    HasRestricted,
    HasRows,
    HasSquaredJVPGradient,
    HasStream,
    rows_of,
)
from ase_sensitivity.geometry.ranges import Range
from ase_sensitivity.jacobian.contract import BlockJacobian, Jacobian
from ase_sensitivity.spectrum.scopes import structure_view
from ase_sensitivity.spectrum.solvers import spectrum
from ase_sensitivity.testing import check_descriptor
from tests.structures import periodic, rattled
from tests.test_reach import two_hops

SOAP_STRING = "soap cutoff=3.2 n_max=3 l_max=2 atom_sigma=0.5"


def streamed(part: FeatureJacobian) -> StreamedJacobian:
    n = part.n_atoms
    return StreamedJacobian(
        part.of_rows, (0, 2, n), n_atoms=n, cutoff=part.cutoff, center_atoms=np.arange(n)
    )


def jacobians(atoms: Atoms) -> dict[str, BlockJacobian]:
    soap = SOAP(["C", "H", "O"], 3.2, 3, 2).jacobian(atoms)
    several = QUIPDescriptor([SOAP_STRING, "distance_2b cutoff=3"], species=["C", "H", "O"])
    return {"blocks": soap, "streamed": streamed(soap), "stacked": several.jacobian(atoms)}


class TestProducts:
    @pytest.mark.parametrize("kind", ["blocks", "streamed", "stacked"])
    def test_are_those_of_the_dense_matrix(self, kind: str):
        atoms = rattled(molecule("CH3OH"), 0.1, 0)
        atoms.set_cell([4.0, 4.1, 4.2])
        atoms.pbc = True  # rows see several images of an atom
        n = len(atoms)
        jacobian = jacobians(atoms)[kind]
        assert isinstance(jacobian, Jacobian)
        J = np.concatenate([part.dense(part.atom, n) for part in jacobian.parts])
        rng = np.random.default_rng(0)
        v, w = rng.normal(size=(4, n, 3)), rng.normal(size=(2, len(J)))
        scale = np.abs(J).max()
        np.testing.assert_allclose(jacobian.apply(v), v.reshape(4, -1) @ J.T, atol=1e-13 * scale)
        adjoint = jacobian.adjoint(w).reshape(2, -1)
        np.testing.assert_allclose(adjoint, w @ J, atol=1e-12 * scale)
        np.testing.assert_allclose(jacobian.gram(), J.T @ J, atol=1e-12 * scale**2)
        some = J.reshape(len(J), n, 3)[:, [3, 0]].reshape(len(J), 6)
        np.testing.assert_allclose(jacobian.gram([3, 0]), some.T @ some, atol=1e-12 * scale**2)
        assert jacobian.apply(np.empty((0, n, 3))).shape == (0, len(J))

    @pytest.mark.parametrize("kind", ["blocks", "streamed", "stacked"])
    def test_other_shapes_are_refused(self, kind: str):
        jacobian = jacobians(periodic())[kind]
        with pytest.raises(ValueError, match="`displacements` has shape"):
            jacobian.apply(np.zeros((6, 3)))
        n_features = jacobian.apply(np.zeros((1, jacobian.n_atoms, 3))).shape[1]
        for wrong in (np.zeros((1, n_features - 1)), np.zeros((1, n_features + 1)), np.zeros(3)):
            with pytest.raises(ValueError, match="`weights` has"):
                jacobian.adjoint(wrong)
        for wrong in ([-1], [jacobian.n_atoms]):
            with pytest.raises(ValueError, match="`atoms` has"):
                jacobian.gram(wrong)


class ProductsOnly:
    """As from automatic differentiation: no block is ever formed, or kept where one can see it."""

    def __init__(self, inner: FeatureJacobian) -> None:
        self._inner = inner
        self.n_atoms, self.precision = inner.n_atoms, inner.precision
        self.features = inner.features
        self.per_image = False
        self.ranges: tuple[Range, ...] = inner.ranges

    def gram(self, atoms=None):
        return self._inner.gram(atoms)

    def apply(self, displacements):
        return self._inner.apply(displacements)

    def adjoint(self, weights):
        return self._inner.adjoint(weights)


class Automatic:
    species = ("C", "H", "O", "Si", "N")
    cutoff = 4.0
    body_order = 3

    def __init__(self, n_max: int = 4, l_max: int = 3) -> None:
        self.soap = SOAP(self.species, self.cutoff, n_max, l_max)

    def features(self, atoms: Atoms) -> np.ndarray:
        return self.soap.features(atoms)

    def jacobian(self, atoms: Atoms) -> ProductsOnly:
        return ProductsOnly(self.soap.jacobian(atoms))


class TestWithoutBlocks:
    # With few features, too: more coordinates than numbers to tell them by.
    @pytest.mark.parametrize("basis", [(4, 3), (1, 0)])
    @pytest.mark.parametrize(
        "build",
        [
            lambda: molecule("CH4"),
            lambda: molecule("NH3"),
            lambda: rattled(molecule("CH3CH2OH"), 0.05, 0),
            lambda: bulk("Si", cubic=True),
            lambda: rattled(bulk("Si", cubic=True).repeat((1, 1, 3)), 0.05, 0),
        ],
    )
    def test_the_same_spectrum(self, build: Callable[[], Atoms], basis: tuple[int, int]):
        atoms, automatic = build(), Automatic(*basis)
        exact = analyze(atoms, automatic.soap, causes=True)
        found = analyze(atoms, automatic, causes=True)
        assert (found.n_trivial, found.n_null) == (exact.n_trivial, exact.n_null)
        assert found.counts == exact.counts
        np.testing.assert_allclose(
            found.singular_values, exact.singular_values, atol=1e-12 * exact.scale
        )

    def test_what_is_kept_is_not_changed(self):
        """A class may hand out the same array again."""
        atoms = molecule("CH4")
        automatic = Automatic()
        jacobian = automatic.jacobian(atoms)
        kept = jacobian.gram()
        jacobian.gram = lambda atoms=None: kept
        before = kept.copy()
        assert spectrum(structure_view(jacobian, atoms)).n_null == 2
        np.testing.assert_array_equal(kept, before)

    def test_small_values_are_refined_by_apply(self):
        """Down to where a Gram matrix knows nothing any more."""
        atoms = molecule("C2H6")  # whose printed geometry is not quite symmetric
        automatic = Automatic()
        exact, found = (
            spectrum(structure_view(d.jacobian(atoms), atoms)) for d in (automatic.soap, automatic)
        )
        assert found.method == "refined"
        assert 1e-9 < exact.ratio < 1e-6
        assert found.ratio == pytest.approx(exact.ratio, rel=1e-5)

    @pytest.mark.parametrize("center", [None, 2])
    def test_atoms(self, center: int | None):
        atoms = rattled(molecule("CH3CH2OH"), 0.05, 0)
        automatic = Automatic()
        exact = analyze(atoms, automatic.soap, scope="atom", center=center)
        found = analyze(atoms, automatic, scope="atom", center=center)
        assert found.center == exact.center
        assert found.ratio == pytest.approx(exact.ratio, rel=1e-9)

    def test_what_needs_blocks_says_so(self):
        atoms = molecule("CH3CH2OH")
        for act, what in (
            (lambda: analyze(atoms, Automatic(), scope="environment"), "environment scope"),
            (lambda: gradient(atoms, Automatic()), "a gradient or a walk"),
            (lambda: find_pairs([atoms], Automatic()), "a comparison of features"),
        ):
            try:
                said = str(act().errors)
            except ValueError as error:
                said = str(error)
            assert f"{what} needs the blocks of a Jacobian, and ProductsOnly" in said


class TestContract:
    @staticmethod
    def broken(**changes: Callable) -> Automatic:
        kind = type("Broken", (ProductsOnly,), changes)
        found = Automatic()
        found.jacobian = lambda atoms: kind(found.soap.jacobian(atoms))
        return found

    @pytest.fixture
    def atoms(self) -> Atoms:
        return rattled(molecule("CH3OH"), 0.1, 0)

    def test_products_alone(self, atoms: Atoms):
        check_descriptor(Automatic(), atoms)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"adjoint": lambda self, w: 1.001 * self._inner.adjoint(w)}, "adjoint"),
            ({"gram": lambda self, a=None: 1.001 * self._inner.gram(a)}, "gram"),
            ({"gram": lambda self, a=None: self._inner.gram(None if a is None else a[::-1])},
             "of some atoms"),
            ({"apply": lambda self, v: self._inner.apply(v).astype(np.float32)}, "float32"),
            ({"apply": lambda self, v: 1.001 * self._inner.apply(v),
              "adjoint": lambda self, w: 1.001 * self._inner.adjoint(w),
              "gram": lambda self, a=None: 1.001**2 * self._inner.gram(a)}, "differences"),
            ({"per_image": property(lambda self: None, lambda self, value: None)}, "per_image"),
            ({"precision": property(lambda self: 2.0, lambda self, value: None)}, "precision"),
            ({"n_atoms": property(lambda self: 7, lambda self, value: None)}, "n_atoms"),
        ],
    )  # fmt: skip
    def test_is_found(self, atoms: Atoms, change: dict[str, Callable], message: str):
        with pytest.raises(AssertionError, match=message):
            check_descriptor(self.broken(**change), atoms)

    def test_hears_farther_than_it_says(self):
        """Fragments by the cutoff that it claims move, and features with them."""
        atoms = molecule("CH3OH") + molecule("H2O")
        atoms.positions[6:] += (0.3, 0.2, 3.6)
        atoms.rattle(0.1, seed=0)
        check_descriptor(FiniteDifferenceDescriptor(two_hops, cutoff=3.6, reach=7.2), atoms)
        with pytest.raises(AssertionError, match="see farther than its cutoff"):
            check_descriptor(FiniteDifferenceDescriptor(two_hops, cutoff=1.6, reach=7.2), atoms)

    def test_sees_farther_than_it_says(self):
        chain = Atoms("H4", [(0, 0, 0), (1.9, 0.1, 0), (3.7, -0.2, 0.3), (5.5, 0.3, -0.1)])
        with pytest.raises(AssertionError, match="beyond the reach of 3 Å"):
            check_descriptor(FiniteDifferenceDescriptor(two_hops, cutoff=3.0), chain)

    def test_single_precision(self, atoms: Atoms):
        """What a newcomer writes: two hops, in single precision throughout."""
        exact = FiniteDifferenceDescriptor(two_hops, cutoff=3.0, reach=6.0)

        class Single:
            species, cutoff, reach, body_order = None, 3.0, 6.0, None

            def features(self, atoms: Atoms) -> np.ndarray:
                return exact.features(atoms).astype(np.float32)

            def jacobian(self, atoms: Atoms) -> FeatureJacobian:
                found = exact.jacobian(atoms)
                n = len(atoms)
                return FeatureJacobian(
                    features=found.features.astype(np.float32),
                    centers=range(n),
                    row=found.row.astype(np.int32),
                    atom=found.atom.astype(np.int32),
                    displacement=found.displacement.astype(np.float32),
                    blocks=found.blocks.astype(np.float32),
                    n_atoms=n,
                    cutoff=3.0,
                    reach=6.0,
                )

        check_descriptor(Single(), atoms)
        assert analyze(atoms, Single()).n_null == analyze(atoms, exact).n_null


def test_stacked_features_are_in_one_vector():
    atoms = molecule("H2O")
    part = SOAP(["H", "O"], 3.0, 2, 2).jacobian(atoms)
    v = np.random.default_rng(0).normal(size=(2, 3, 3))
    both = StackedJacobian((part, part)).apply(v)
    np.testing.assert_array_equal(both, np.tile(part.apply(v), 2))


class Rescaled:
    """A mixin that changes the Jacobian of whatever it is mixed into."""

    def jacobian(self, atoms: Atoms) -> FeatureJacobian:
        found = super().jacobian(atoms)
        return replace(found, features=2 * found.features, blocks=2 * found.blocks)

    def features(self, atoms: Atoms) -> np.ndarray:
        return 2 * super().features(atoms)


class TestShortcuts:
    """They are those of their own Jacobian only, which nobody has to look for in parents."""

    def test_declared(self):
        soap = SOAP(["H", "O"], 3.0, 2, 2)
        numeric = FiniteDifferenceDescriptor(two_hops)
        for kind in (HasStream, HasRows, HasRestricted, HasSquaredJVPGradient):
            assert isinstance(soap, kind)
            assert not isinstance(Automatic(), kind)
        assert isinstance(numeric, HasRows)
        assert not isinstance(numeric, HasStream)

    @pytest.mark.parametrize("changed", ["by the class", "by a mixin"])
    def test_of_a_changed_jacobian(self, changed: str):
        atoms = rattled(molecule("H2O"), 0.1, 0)
        if changed == "by a mixin":

            class Doubled(Rescaled, SOAP):
                pass

        else:

            class Doubled(SOAP):
                def jacobian(self, atoms):
                    found = super().jacobian(atoms)
                    return replace(found, features=2 * found.features, blocks=2 * found.blocks)

                def features(self, atoms):
                    return 2 * super().features(atoms)

        once, twice = (kind(["H", "O"], 3.0, 3, 3) for kind in (SOAP, Doubled))
        for kind in (HasStream, HasRows, HasRestricted, HasSquaredJVPGradient):
            assert not isinstance(twice, kind)
        ((rows, _),) = rows_of(twice, atoms)
        np.testing.assert_array_equal(rows, 2 * once.features(atoms))
        assert analyze(atoms, twice).sigma_max == pytest.approx(2 * analyze(atoms, once).sigma_max)
        slopes = [gradient(atoms, d).positions for d in (once, twice)]
        np.testing.assert_allclose(slopes[1], 2 * slopes[0], atol=1e-5)
        check_descriptor(twice, atoms)

    def test_what_it_defines_itself_is_used(self):
        class Own(SOAP):
            def jacobian(self, atoms):
                return super().jacobian(atoms)

            def rows(self, atoms):
                return super().rows(atoms)

        class Child(Own):
            pass

        for kind in (Own, Child):
            soap = kind(["H", "O"], 3.0, 2, 2)
            assert isinstance(soap, HasRows)
            assert not isinstance(soap, HasStream)

    def test_of_the_others(self):
        class Numeric(Rescaled, FiniteDifferenceDescriptor):
            pass

        class Quip(Rescaled, QUIPDescriptor):
            pass

        assert Numeric.rows is Quip.rows is Quip.stream is None
        assert Quip(SOAP_STRING, species=["H", "O"]).features(molecule("H2O")).shape[0] == 3
