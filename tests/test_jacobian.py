"""What a Jacobian is to the stages behind it: arrays of any kind, and how many digits they have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from ase_sensitivity import (
    SOAP,
    FeatureJacobian,
    FiniteDifferenceDescriptor,
    Repel,
    Sensitivity,
    StackedJacobian,
    StreamedJacobian,
    analyze,
    gradient,
    size_independent,
    strain_derivative,
)
from ase_sensitivity.descriptors.base import rows_of

FLOATS = ("features", "displacement", "blocks")
INTEGERS = ("centers", "row", "atom", "center_atoms")


def small(atoms: Atoms) -> SOAP:
    return SOAP(sorted(set(atoms.symbols)), cutoff=4.0, n_max=4, l_max=3)


@pytest.fixture
def ethanol() -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=0)
    return atoms


@pytest.fixture
def jacobian(ethanol: Atoms) -> FeatureJacobian:
    return small(ethanol).jacobian(ethanol)


CHANGES = {
    "order": np.asfortranarray,
    "stride": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "backwards": lambda a: a[::-1].copy()[::-1],
    "byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "list": lambda a: a.tolist(),
}


class Given(SOAP):
    """Its Jacobian with the arrays in another data type."""

    dtype: type = np.float32

    def jacobian(self, atoms: Atoms) -> FeatureJacobian:
        found = super().jacobian(atoms)
        return replace(found, **{name: getattr(found, name).astype(self.dtype) for name in FLOATS})


class Half(Given):
    dtype = np.float16


def rounded(atoms: Atoms, kind: type[Given] = Given) -> Sensitivity:
    return analyze(atoms, kind(sorted(set(atoms.symbols)), 4.0, 4, 3), k=None)


class TestArraysOfAnyKind:
    @pytest.mark.parametrize("change", CHANGES)
    def test_same_numbers(self, jacobian: FeatureJacobian, change: str):
        names = (*FLOATS, *INTEGERS)
        given = {name: CHANGES[change](getattr(jacobian, name)) for name in names}
        found = replace(jacobian, **given)
        for name in names:
            array = getattr(found, name)
            assert array.flags.c_contiguous
            assert array.dtype == getattr(jacobian, name).dtype
            np.testing.assert_array_equal(array, getattr(jacobian, name))
        assert found.precision == jacobian.precision

    @pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
    def test_integers(self, jacobian: FeatureJacobian, dtype: type):
        found = replace(jacobian, row=jacobian.row.astype(dtype), atom=jacobian.atom.astype(dtype))
        np.testing.assert_array_equal(found.atom, jacobian.atom)

    def test_what_is_right_is_not_copied(self, jacobian: FeatureJacobian):
        found = replace(jacobian)
        assert all(getattr(found, name) is getattr(jacobian, name) for name in FLOATS)

    @pytest.mark.parametrize("name", FLOATS)
    def test_precision_is_that_of_the_coarsest(self, jacobian: FeatureJacobian, name: str):
        found = replace(jacobian, **{name: getattr(jacobian, name).astype(np.float32)})
        assert found.precision == pytest.approx(1.2e-7, rel=0.01)
        assert replace(found, precision=1e-5).precision == 1e-5
        assert StackedJacobian((jacobian, found)).precision == found.precision

    @pytest.mark.parametrize("name", [*FLOATS, *INTEGERS])
    @pytest.mark.parametrize("dtype", [np.complex128, np.str_, bool, object])
    def test_no_numbers(self, jacobian: FeatureJacobian, name: str, dtype: type):
        with pytest.raises(ValueError, match=f"`{name}`"):
            replace(jacobian, **{name: getattr(jacobian, name).astype(dtype)})

    @pytest.mark.parametrize("name", FLOATS)
    def test_not_in_memory(self, jacobian: FeatureJacobian, name: str):
        class Tensor:
            def __array__(self, *arguments, **settings):
                raise RuntimeError("call detach() first")

        with pytest.raises(ValueError, match=rf"`{name}` is a Tensor .*detach\(\) first"):
            replace(jacobian, **{name: Tensor()})

    @pytest.mark.parametrize("name", INTEGERS)
    @pytest.mark.parametrize("bad", [-2, 9])
    def test_what_does_not_exist(self, jacobian: FeatureJacobian, name: str, bad: int):
        array = getattr(jacobian, name).copy()
        array[0 if bad < 0 else -1] = bad
        with pytest.raises(ValueError, match=f"`{name}` has {bad} but must be from"):
            replace(jacobian, **{name: array})

    @pytest.mark.parametrize("name", ["features", "centers", "atom", "displacement", "blocks"])
    def test_shapes(self, jacobian: FeatureJacobian, name: str):
        with pytest.raises(ValueError, match=f"`{name}` has shape"):
            replace(jacobian, **{name: getattr(jacobian, name)[..., None]})

    @pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
    def test_no_precision(self, jacobian: FeatureJacobian, bad: float):
        with pytest.raises(ValueError, match="`precision`"):
            replace(jacobian, precision=bad)

    def test_features_alone(self, ethanol: Atoms):
        class Single(SOAP):
            def rows(self, atoms):
                return [(f.astype(np.float32), centers) for f, centers in super().rows(atoms)]

        found = rows_of(Single(["C", "H", "O"], 4.0, 4, 3), ethanol)
        assert found[0][0].dtype == np.float64

    def test_pieces_say_how_good_they_are(self, jacobian: FeatureJacobian):
        coarse = replace(jacobian, blocks=jacobian.blocks.astype(np.float32))

        def stream(precision: float) -> StreamedJacobian:
            return StreamedJacobian(
                coarse.of_rows,
                (0, 5, 9),
                n_atoms=9,
                cutoff=4.0,
                center_atoms=np.arange(9),
                precision=precision,
            )

        with pytest.raises(ValueError, match=r"rows 0 to 4 are good to 1\.2e-07"):
            list(stream(1e-15).parts)
        assert len(list(stream(2e-7).parts)) == 2


class TestSinglePrecision:
    """Every count is right, or the result says that it is not resolved."""

    # Some values of C2H6, C3H6 and C6H6 vanish but for the digits of their printed geometry.
    @pytest.mark.parametrize(
        "name", ["H2O", "CO2", "NH3", "CH4", "C2H4", "HCN", "C2H6", "C3H6_D3h", "C6H6", "CH3CH2OH"]
    )
    def test_count(self, name: str):
        atoms = molecule(name)
        exact = analyze(atoms, small(atoms), k=None)
        for kind, limit in ((Given, 1e-5), (Half, 0.05)):
            found = rounded(atoms, kind)
            assert 1e-7 < found.resolution < limit
            resolved = exact.singular_values > found.resolution * exact.scale
            assert found.n_null == (~resolved).sum()
            assert found.n_trivial == exact.n_trivial
            assert (found.n_null > 0) == ("Not resolved" in found.summary())
            assert "Not resolved" not in exact.summary()
            np.testing.assert_allclose(
                found.singular_values[resolved],
                exact.singular_values[resolved],
                atol=found.resolution * exact.scale,
            )

    def test_was_garbage(self, ethanol: Atoms):
        """Loops that take singles for doubles read past the end of the array."""
        exact, found = analyze(ethanol, small(ethanol)), rounded(ethanol)
        assert found.n_null == exact.n_null == 0
        assert found.sigma_max == pytest.approx(exact.sigma_max, rel=1e-6)

    @pytest.mark.parametrize("scope", ["environment", "atom"])
    def test_other_scopes(self, ethanol: Atoms, scope):
        exact = analyze(ethanol, small(ethanol), scope=scope, center=0)
        coarse = Given(["C", "H", "O"], 4.0, 4, 3)
        found = analyze(ethanol, coarse, scope=scope, center=0)
        assert found.n_null == exact.n_null
        assert found.ratio == pytest.approx(exact.ratio, abs=1e-6)

    def test_causes(self):
        found = analyze(molecule("CH4"), Given(["C", "H"], 4.0, 4, 3), causes=True)
        assert (found.n_null, found.counts["symmetry"]) == (2, 2)


class TestImages:
    """Summed images are no points of an environment, and the Jacobian says so."""

    @staticmethod
    def both(atoms: Atoms) -> tuple[SOAP, FiniteDifferenceDescriptor]:
        soap = SOAP(sorted(set(atoms.symbols)), 3.0, 2, 1)
        return soap, FiniteDifferenceDescriptor(soap.features, cutoff=3.0)

    @pytest.fixture
    def primitive(self) -> Atoms:
        """Every atom sees several images of the other."""
        atoms = bulk("Si")
        atoms.rattle(0.05, seed=0)
        return atoms

    def test_who_says_what(self, primitive: Atoms, ethanol: Atoms):
        large = bulk("Si", cubic=True)
        for atoms, apart in ((primitive, False), (large, True), (ethanol, True)):
            soap, numeric = self.both(atoms)
            assert soap.jacobian(atoms).per_image
            assert numeric.jacobian(atoms).per_image is apart
        endless = FiniteDifferenceDescriptor(self.both(primitive)[0].features)
        assert not endless.jacobian(primitive).per_image
        stacked = StackedJacobian(tuple(d.jacobian(primitive) for d in self.both(primitive)))
        assert not stacked.per_image

    @pytest.mark.parametrize("center", [0, None])
    def test_environment_scope_is_refused(self, primitive: Atoms, center):
        soap, numeric = self.both(primitive)
        assert analyze(primitive, soap, scope="environment", center=center).n_null > 0
        with pytest.raises(ValueError, match="images kept apart"):
            analyze(primitive, numeric, scope="environment", center=center)
        with pytest.raises(ValueError, match="images kept apart"):
            gradient(primitive, numeric, scope="environment", center=0)

    @pytest.mark.parametrize("periodic", [False, True])
    def test_environments_with_one_image_each(self, ethanol: Atoms, periodic: bool):
        """The same points as of the analytic descriptor: what is out of sight is none."""
        if periodic:
            ethanol.set_cell([6.2, 6.3, 6.4])
            ethanol.pbc = True
        soap, numeric = self.both(ethanol)
        exact = analyze(ethanol, soap, scope="environment", center=8)
        found = analyze(ethanol, numeric, scope="environment", center=8)
        assert found.n_coordinates == exact.n_coordinates < 27
        assert (found.n_trivial, found.n_null) == (exact.n_trivial, exact.n_null)
        assert found.ratio == pytest.approx(exact.ratio, rel=1e-5)
        np.testing.assert_allclose(
            strain_derivative(numeric.jacobian(ethanol)),
            strain_derivative(soap.jacobian(ethanol)),
            atol=1e-9,
        )

    def test_no_strain(self, primitive: Atoms):
        soap, numeric = self.both(primitive)
        with pytest.raises(ValueError, match="sums periodic images"):
            strain_derivative(numeric.jacobian(primitive))
        exact, found = (gradient(primitive, d, index=2) for d in (soap, numeric))
        np.testing.assert_allclose(found.positions, exact.positions, atol=1e-5)
        assert np.isfinite(exact.strain).all()
        assert np.isnan(found.strain).all()
        assert Repel(0.9, 1.0).evaluate(primitive, numeric).stress is None
        with pytest.raises(ValueError, match="no environments"):
            size_independent(primitive, numeric)

    def test_blocks_beyond_the_cutoff_are_kept_where_they_say_something(self, ethanol: Atoms):
        lying = FiniteDifferenceDescriptor(SOAP(["C", "H", "O"], 5.0, 2, 1).features, cutoff=3.0)
        found = lying.jacobian(ethanol)
        assert np.linalg.norm(found.displacement, axis=1).max() > 3.0
