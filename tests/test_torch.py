"""Functions written with torch as descriptors: products, counts, distances by differentiation."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT

from ase_sensitivity import (
    Repel,
    SensitivityCalculator,
    SensitivityObserver,
    TorchDescriptor,
    analyze,
    find_pairs,
    gradient,
    nearest_singular,
    replay,
    scan,
)
from ase_sensitivity.auditing.contract import contract_checks
from ase_sensitivity.geometry.unfolding import unfolded
from ase_sensitivity.jacobian.contract import Jacobian
from ase_sensitivity.md import observer as observing
from ase_sensitivity.testing import check_descriptor
from tests.conftest import Still
from tests.structures import rattled

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from ase_sensitivity.jacobian import autograd  # noqa: E402
from tests.torch_functions import (  # noqa: E402
    SymmetryFunctions,
    inverse_distances,
    two_hops,
)


def peroxide() -> Atoms:
    return rattled(molecule("H2O2"), 0.1, 0)


def slab() -> Atoms:
    atoms = fcc111("Al", (1, 1, 2), vacuum=4)
    atoms.pbc = (True, True, False)
    return rattled(atoms, 0.1, 1)


STRUCTURES: dict[str, Callable[[], Atoms]] = {
    "isolated": peroxide,
    "small cell": lambda: rattled(bulk("Si"), 0.1, 1),
    "slab": slab,
    "large cell": lambda: Atoms(peroxide(), cell=[12, 13, 14], pbc=True),
}


class TestSumRule:
    """Features that a rigid motion changes give an error, and no numbers."""

    @staticmethod
    def anchored(atoms, positions, cell):
        return torch.exp(-(positions**2))

    @staticmethod
    def oriented(atoms, positions, cell):
        vectors = positions - positions[:, None]
        return torch.exp(-(vectors**2)).sum(dim=1)

    @pytest.mark.parametrize("name", ["anchored", "oriented"])
    def test_structures(self, name):
        seen = TorchDescriptor(getattr(self, name))
        with pytest.raises(ValueError, match=rf"{name}.* breaks the sum rule in H2O2: a rigid"):
            analyze(peroxide(), seen)
        with pytest.raises(ValueError, match="breaks the sum rule"):
            analyze(peroxide(), seen, scope="environment", center=0)

    def test_crystals_have_no_rotations(self):
        silicon = STRUCTURES["small cell"]()
        with pytest.raises(ValueError, match="breaks the sum rule in Si2"):
            analyze(silicon, TorchDescriptor(self.anchored))
        assert analyze(silicon, TorchDescriptor(self.oriented)).n_trivial == 3

    def test_rotations_may_be_seen(self):
        seen = TorchDescriptor(self.oriented, rotation_invariant=False)
        check_descriptor(seen, peroxide())
        found = analyze(peroxide(), seen, causes=True)
        assert (found.n_trivial, found.n_null) == (3, 0)
        assert found.counts["symmetry"] == 0
        assert analyze(peroxide(), seen, scope="environment").n_trivial == 3
        for asked, verdict in ((seen, "finding"), (TorchDescriptor(self.oriented), "failed")):
            rows = contract_checks(asked, {"molecule": peroxide()})
            assert {row.name: row.verdict for row in rows}["invariances"] == verdict


def symmetry_functions(body_order: int = 3, cutoff: float = 3.5, **how) -> TorchDescriptor:
    function = SymmetryFunctions(cutoff, body_order)
    return TorchDescriptor(function, cutoff, body_order=body_order, **how)


def planar_ammonia() -> Atoms:
    angles = 2 * np.pi / 3 * np.arange(3)
    ring = np.column_stack([np.cos(angles), np.sin(angles), 0 * angles])
    return Atoms("NH3", [(0, 0, 0), *ring])


class TestContract:
    @pytest.mark.parametrize("structure", STRUCTURES)
    @pytest.mark.parametrize("body_order", [2, 3])
    def test_symmetry_functions(self, structure: str, body_order: int):
        check_descriptor(symmetry_functions(body_order), STRUCTURES[structure]())

    @pytest.mark.parametrize("structure", ["isolated", "large cell"])
    def test_messages(self, structure: str):
        check_descriptor(TorchDescriptor(two_hops, 3.0, reach=6.0), STRUCTURES[structure]())

    def test_a_row_of_the_whole_structure(self):
        check_descriptor(TorchDescriptor(inverse_distances), peroxide())

    @pytest.mark.parametrize("structure", ["isolated", "small cell"])
    def test_in_single_precision(self, structure: str):
        check_descriptor(symmetry_functions(2, dtype="float32"), STRUCTURES[structure]())

    def test_what_forgets_the_strain_is_found_out(self):
        class Unstrained(TorchDescriptor):
            def squared_jvp_gradient(self, *arguments, **how):
                positions, strain = super().squared_jvp_gradient(*arguments, **how)
                return positions, 0.9 * strain

        with pytest.raises(AssertionError, match="by strain is off"):
            check_descriptor(Unstrained(SymmetryFunctions(3.5, 2), 3.5), peroxide())


class TestProducts:
    def test_the_jacobian_of_inverse_distances(self):
        """d (1 / r) / d x = -(x_i - x_j) / r^3."""
        atoms = peroxide()
        first, second = np.triu_indices(len(atoms), 1)
        vectors = atoms.positions[first] - atoms.positions[second]
        lengths = np.linalg.norm(vectors, axis=1)
        J = np.zeros((len(first), len(atoms), 3))
        rows = np.arange(len(first))
        J[rows, first] = -vectors / lengths[:, None] ** 3
        J[rows, second] = vectors / lengths[:, None] ** 3
        J = J[np.argsort(1 / lengths)].reshape(len(first), -1)
        found = TorchDescriptor(inverse_distances).jacobian(atoms)
        rng = np.random.default_rng(0)
        v, w = rng.normal(size=(3, len(atoms), 3)), rng.normal(size=(2, len(first)))
        np.testing.assert_allclose(found.apply(v), v.reshape(3, -1) @ J.T, atol=1e-13)
        np.testing.assert_allclose(found.adjoint(w).reshape(2, -1), w @ J, atol=1e-13)
        np.testing.assert_allclose(found.gram(), J.T @ J, atol=1e-13)

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_before_and_after_the_whole_is_known(self, structure: str):
        """By sweeps of the products alone, and from what is kept."""
        atoms = STRUCTURES[structure]()
        found = symmetry_functions().jacobian(atoms)
        assert isinstance(found, Jacobian)
        rng = np.random.default_rng(0)
        v, w = rng.normal(size=(3, len(atoms), 3)), rng.normal(size=(2, found.features.size))
        some = np.array([len(atoms) - 1, 0])

        def products() -> list[np.ndarray]:
            return [found.apply(v), found.adjoint(w), found.gram(some)]

        before = products()
        found.gram()
        for old, new in zip(before, products(), strict=True):
            np.testing.assert_allclose(new, old, atol=1e-12 * np.abs(old).max())
        assert found.apply(np.empty((0, len(atoms), 3))).shape == (0, found.features.size)

    def test_what_is_too_large_to_keep(self, monkeypatch):
        atoms = peroxide()
        expected = symmetry_functions().jacobian(atoms).gram()
        monkeypatch.setattr(autograd, "LARGE", 1e4)
        small = symmetry_functions().jacobian(atoms)
        assert 3 * len(atoms) * small.features.size > autograd.LARGE
        np.testing.assert_allclose(small.gram(), expected, atol=1e-12 * expected.max())
        assert analyze(molecule("CH4"), symmetry_functions()).n_null == 2

    def test_operations_that_know_no_batches(self):
        """Sweeps are made one by one then, also of functions that torch cannot look into."""

        class Square(torch.autograd.Function):
            @staticmethod
            def forward(context, x):
                context.save_for_backward(x)
                return x**2

            @staticmethod
            def backward(context, g):
                (x,) = context.saved_tensors
                assert type(g) is torch.Tensor
                assert not torch._C._functorch.is_batchedtensor(g), "no batches"
                return 2 * x * g

        def squared(atoms, positions, cell):
            return Square.apply(inverse_distances(atoms, positions, cell))

        atoms = peroxide()
        found = TorchDescriptor(squared).jacobian(atoms)
        v = np.random.default_rng(0).normal(size=(3, len(atoms), 3))
        plain = TorchDescriptor(lambda *given: inverse_distances(*given) ** 2).jacobian(atoms)
        np.testing.assert_allclose(found.apply(v), plain.apply(v), atol=1e-13)

    def test_arrays_that_may_not_be_written_to(self):
        atoms = peroxide()
        v = np.broadcast_to(1.0 + np.arange(12.0).reshape(4, 3), (2, 4, 3))
        found = symmetry_functions(2).jacobian(atoms).apply(v)
        np.testing.assert_array_equal(found[0], found[1])
        symmetry_functions(2).squared_jvp_gradient(atoms, v)

    def test_an_atom_alone(self):
        found = analyze(Atoms("He"), symmetry_functions(2))
        assert (found.n_trivial, len(found.singular_values)) == (3, 0)

    def test_other_shapes_are_refused(self):
        found = symmetry_functions(2).jacobian(peroxide())
        with pytest.raises(ValueError, match="`displacements` has shape"):
            found.apply(np.zeros((6, 3)))
        with pytest.raises(ValueError, match="`weights` has shape"):
            found.adjoint(np.zeros((1, 5)))
        with pytest.raises(ValueError, match="`atoms` has"):
            found.gram(np.array([4]))
        with pytest.raises(ValueError, match="`displacements` has shape"):
            symmetry_functions(2).squared_jvp_gradient(peroxide(), np.zeros((6, 3)))


class TestCounts:
    @pytest.mark.parametrize("dtype", [torch.float64, "float32"])
    @pytest.mark.parametrize(
        ("build", "n_null"), [(lambda: molecule("CH4"), 2), (planar_ammonia, 1)]
    )
    def test_by_symmetry(self, build: Callable[[], Atoms], n_null: int, dtype):
        found = analyze(build(), symmetry_functions(dtype=dtype), causes=True)
        assert found.n_null == n_null
        assert found.counts["symmetry"] == n_null
        assert ("Not resolved" in str(found)) == (dtype == "float32")

    def test_nothing_is_blind_without_symmetry(self):
        assert analyze(peroxide(), symmetry_functions()).n_null == 0

    @pytest.mark.parametrize("body_order", [2, 3])
    def test_incompleteness(self, body_order: int):
        """Distances from one center alone: 4 of the 9 internal coordinates of CH4."""
        atoms = rattled(molecule("CH4"), 0.1, 0)

        def of_carbon(*given):
            return SymmetryFunctions(3.5, body_order)(*given)[:1]

        one = TorchDescriptor(of_carbon, 3.5, centers=[0], body_order=body_order)
        found = analyze(atoms, one, causes=True)
        assert found.n_null == (5 if body_order == 2 else 0)
        assert found.counts["incompleteness"] == found.n_null

    def test_messages_between_molecules(self):
        """Two molecules that exchange none move freely; nearer ones do not."""
        hops = TorchDescriptor(two_hops, 3.0, reach=6.0)
        for height, n_trivial in ((4.2, 12), (2.9, 6)):
            dimer = molecule("H2O") + molecule("H2O")
            dimer.positions[3:] += (0, 0, height)
            dimer.rattle(0.1, seed=0)
            assert analyze(dimer, hops).n_trivial == n_trivial

    def test_environments_in_a_crystal(self):
        """Every image is a point, as in a supercell where none is seen twice."""
        small = rattled(bulk("Si"), 0.1, 1)
        found = analyze(small, symmetry_functions(2), scope="environment", center=0, k=None)
        large = small.repeat(4)
        assert not symmetry_functions(2).jacobian(small)._one_image_each
        assert symmetry_functions(2).jacobian(large)._one_image_each
        expected = analyze(large, symmetry_functions(2), scope="environment", center=0, k=None)
        assert found.n_coordinates == expected.n_coordinates
        np.testing.assert_allclose(
            found.singular_values, expected.singular_values, atol=1e-12 * expected.sigma_max
        )

    def test_clusters_too_large_to_unfold(self, monkeypatch):
        monkeypatch.setattr(autograd, "MOST_IMAGES", 5)
        atoms = rattled(bulk("Si"), 0.1, 1)
        assert not symmetry_functions(2).jacobian(atoms).per_image
        with pytest.raises(ValueError, match="environment scope needs periodic images kept apart"):
            analyze(atoms, symmetry_functions(2), scope="environment")
        check_descriptor(symmetry_functions(2), atoms)

    def test_rows_of_the_whole_structure_have_no_environment(self):
        def average(*given):
            return SymmetryFunctions(3.5, 2)(*given).mean(dim=0, keepdim=True)

        with pytest.raises(ValueError, match="environment scope"):
            analyze(rattled(bulk("Si"), 0.1, 1), TorchDescriptor(average, 3.5), scope="environment")

    def test_a_slab_without_a_third_cell_vector(self):
        atoms = slab()
        expected = analyze(atoms, symmetry_functions(2), scope="environment")
        atoms.cell[2] = 0.0
        found = analyze(atoms, symmetry_functions(2), scope="environment")
        np.testing.assert_allclose(found.singular_values, expected.singular_values, rtol=1e-9)


class TestSharedProducts:
    """Columns of atoms that no row sees together come from one product."""

    @staticmethod
    def chain(n_molecules: int, pbc: bool = False) -> Atoms:
        """Water molecules in a row, each in touch with the next."""
        atoms = Atoms()
        for k in range(n_molecules):
            one = molecule("H2O")
            one.rotate(70 * k, (1, 2, 3))
            one.positions[:, 0] += 2.9 * k
            atoms += one
        atoms.set_cell([2.9 * n_molecules, 9, 9])
        atoms.pbc = (pbc, False, False)
        return rattled(atoms, 0.05, 0)

    @pytest.fixture
    def products(self, monkeypatch) -> list[int]:
        """How many J v each call makes."""
        made: list[int] = []
        apply = autograd.Sweeps.apply

        def counted(sweeps, displacements):
            made.append(len(displacements))
            return apply(sweeps, displacements)

        monkeypatch.setattr(autograd.Sweeps, "apply", counted)
        return made

    @pytest.mark.parametrize("pbc", [False, True])
    @pytest.mark.parametrize(
        ("build", "most"),
        [
            (lambda: symmetry_functions(2), 10),
            (lambda: TorchDescriptor(two_hops, 3.0, reach=6.0), 20),
        ],
        ids=["one hop", "two hops"],
    )
    def test_their_number_does_not_grow_with_the_system(self, build, most, pbc, products):
        counts = []
        for n_molecules in (16, 32, 64):
            products.clear()
            build().jacobian(self.chain(n_molecules, pbc)).gram()
            counts.append(sum(products))
        # Around a ring, colors may not fit together where they meet.
        assert max(counts) - min(counts) <= (12 if pbc else 0)
        assert max(counts) <= 3 * (most + (4 if pbc else 0)) + 1 < 3 * 3 * 16

    @pytest.mark.parametrize("structure", ["chain", "ring", "crystal", "far apart", "centers"])
    def test_the_jacobian_is_the_same(self, structure: str, monkeypatch):
        descriptor = TorchDescriptor(two_hops, 3.0, reach=6.0)
        if structure == "crystal":
            atoms = rattled(bulk("Si").repeat((1, 1, 12)), 0.1, 0)
            descriptor = symmetry_functions(2, 3.0)
        elif structure == "far apart":
            atoms = Atoms()
            for corner in np.ndindex(2, 2, 2):
                one = molecule("H2O")
                one.positions += 4.8 * np.array(corner)
                atoms += one
            atoms = rattled(atoms, 0.05, 0)
        else:
            atoms = self.chain(16, pbc=structure == "ring")
        if structure == "centers":
            oxygen = np.flatnonzero(atoms.symbols == "O")[::-1].copy()

            def of_oxygen(*given):
                return two_hops(*given)[oxygen]

            descriptor = TorchDescriptor(of_oxygen, 3.0, reach=6.0, centers=oxygen.tolist())
        rng = np.random.default_rng(0)
        found = descriptor.jacobian(atoms)
        v, w = rng.normal(size=(2, len(atoms), 3)), rng.normal(size=(2, found.features.size))
        some = np.array([5, 3])

        def products(jacobian) -> list[np.ndarray]:
            blocks = jacobian.as_blocks()
            facts = [blocks.keys, blocks.row, blocks.blocks] if blocks.per_image else []
            made = [jacobian.gram(), jacobian.gram(some), jacobian.apply(v), jacobian.adjoint(w)]
            return made + facts

        assert found._shared is not None
        mine = products(found)
        monkeypatch.setattr(autograd, "shared", lambda *given: None)
        for one, other in zip(mine, products(descriptor.jacobian(atoms)), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12 * np.abs(other).max())

    def test_the_contract(self):
        check_descriptor(TorchDescriptor(two_hops, 3.0, reach=6.0), self.chain(8))

    def test_single_atoms(self, products):
        """A few take three products each; all together no more than twice what they share."""
        atoms = self.chain(32)
        analyze(atoms, symmetry_functions(2), scope="atom", center=3)
        assert sum(products) == 3
        products.clear()
        found = symmetry_functions(2).jacobian(atoms)
        analyze(atoms, symmetry_functions(2), scope="atom")
        assert sum(products) <= 6 * found._shared.n_colors + 1 < 3 * len(atoms)

    def test_nothing_is_shared_in_small_structures(self):
        """Also where the cell is longer than what two rows see, but hardly so."""
        for atoms in (peroxide(), rattled(bulk("Si", cubic=True) * 2, 0.1, 0), self.chain(3, True)):
            assert symmetry_functions(2).jacobian(atoms)._shared is None

    @pytest.mark.parametrize(("cutoff", "reach"), [(3.0, 3.0), (2.0, 6.0)])
    def test_radii_that_are_not_true(self, cutoff, reach):
        """They would put derivatives in the columns of other atoms."""
        wrong = TorchDescriptor(two_hops, cutoff, reach=reach)
        with pytest.raises(ValueError, match="features depend on atoms beyond `reach`"):
            analyze(self.chain(16), wrong)


class TestWholeJacobians:
    """As few as possible for one question: each takes a product for every coordinate."""

    @pytest.fixture
    def made(self, monkeypatch) -> list[np.ndarray]:
        """The positions at which a whole Jacobian was made."""
        at: list[np.ndarray] = []
        whole = autograd.whole

        def counted(sweeps):
            at.append(sweeps._still.detach().numpy().copy())
            return whole(sweeps)

        monkeypatch.setattr(autograd, "whole", counted)
        return at

    @staticmethod
    def flat_ammonia(height: float) -> Atoms:
        atoms = planar_ammonia()
        atoms.positions[0, 2] += height
        return atoms

    def test_the_nearest_singular_configuration(self, made):
        found = nearest_singular(self.flat_ammonia(0.1), symmetry_functions())
        assert found.cause == "symmetry"
        # Here, and in the plane, which is found by geometry alone.
        assert len(made) == found.n_jacobians == 2

    def test_a_replay(self, made):
        """One for each frame, also where it is analyzed and then looked at closely."""
        frames = [self.flat_ammonia(height) for height in (0.4, 0.3, 0.2, 0.1, 0.05, 0.02)]
        found = replay(frames, symmetry_functions())
        assert np.nanmin(found.distance) < 0.02
        assert len({positions.tobytes() for positions in made}) == len(made)
        assert len(made) == 6

    def test_a_scan_with_distances(self, made):
        frames = [self.flat_ammonia(height) for height in (0.2, 0.1)]
        found = scan(frames, symmetry_functions(), distance=True)
        assert found.rows[1]["distance"] == pytest.approx(0.1 * np.sqrt(3) / 2, rel=0.1)
        assert len(made) == 2

    def test_what_is_remembered(self):
        atoms, descriptor = peroxide(), symmetry_functions(2)
        moved = atoms.copy()
        moved.positions[0, 0] += 1e-12
        with descriptor.remembering():
            first = descriptor.jacobian(atoms)
            assert descriptor.jacobian(atoms.copy()) is first
            with descriptor.remembering():
                assert descriptor.jacobian(atoms) is first
            assert descriptor.jacobian(moved) is not first
            again = descriptor.jacobian(atoms)
            assert again is not first  # only the last one is
        assert descriptor.jacobian(atoms) is not again

    def test_a_model_that_learns_is_looked_at_anew(self):
        """It may change between two questions."""
        weight = torch.ones((), dtype=torch.float64)
        seen = TorchDescriptor(lambda *given: weight * inverse_distances(*given))
        still = Still(peroxide())
        observer = SensitivityObserver(still, seen, on_singular="log")
        observer()
        weight *= 2
        before = observer.sensitivity.sigma_max
        observer()
        assert observer.sensitivity.sigma_max == pytest.approx(2 * before)

    def test_the_budget_knows_what_a_jacobian_takes(self, made, monkeypatch):
        """Also where it was remembered: the clock counts whole Jacobians."""
        clock = nullcontext(lambda: float(len(made)))
        monkeypatch.setattr(observing, "without_compiling", lambda: clock)
        still = Still(self.flat_ammonia(0.05))
        observer = SensitivityObserver(still, symmetry_functions())
        budget = observer._monitor.budget
        budget.clock = lambda: float(len(made))
        observer()
        assert observer.diagnosis.how != "skipped"
        assert budget.cost == 1


class TestDerivatives:
    """Of |J v|²; `check_descriptor` compares them with differences in all structures."""

    def test_layer_normalization(self):
        """Third derivatives of torch's are wrong, so that three reverse sweeps would be."""
        norm = torch.nn.LayerNorm(7).double()

        def normalized(*given):
            return norm(SymmetryFunctions(3.5, 2)(*given)[:, 1:])

        check_descriptor(TorchDescriptor(normalized, 3.5), peroxide())

    def test_a_gradient_takes_no_step(self):
        """The two ways agree: differences of Jacobians have an error of order step squared."""
        atoms = rattled(molecule("NH3"), 0.1, 0)

        class Slow(TorchDescriptor):
            squared_jvp_gradient = None

        quick, slow = (
            gradient(atoms, kind(SymmetryFunctions(3.5, 3), 3.5))
            for kind in (TorchDescriptor, Slow)
        )
        np.testing.assert_allclose(quick.positions, slow.positions, atol=1e-6)
        np.testing.assert_allclose(quick.strain, slow.strain, atol=1e-6)

    def test_the_walk_to_planar_ammonia(self):
        atoms = planar_ammonia()
        atoms.positions[0, 2] += 0.05
        found = nearest_singular(atoms, symmetry_functions())
        assert found.cause == "symmetry"
        # The nitrogen moves three quarters of the way, the hydrogens the rest.
        assert found.distance == pytest.approx(0.05 * np.sqrt(3) / 2, rel=0.05)

    def test_a_bias_does_work(self):
        """Forces are the derivative of the energy, which no call of a Jacobian enters."""
        atoms = rattled(molecule("NH3"), 0.1, 0)
        bias = Repel(ratio=0.9, strength=0.5)
        atoms.calc = SensitivityCalculator(EMT(), symmetry_functions(), bias=bias)
        along = np.random.default_rng(0).normal(size=atoms.positions.shape)
        forces, numeric, step = atoms.get_forces(), 0.0, 1e-4
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions += sign * step * along
            moved.calc = SensitivityCalculator(EMT(), symmetry_functions(), bias=bias)
            numeric -= sign * moved.get_potential_energy() / (2 * step)
        assert numeric == pytest.approx((forces * along).sum(), rel=1e-5)

    def test_a_bias_has_a_stress_where_images_are_summed(self):
        atoms = rattled(bulk("Cu", cubic=True), 0.1, 0)
        descriptor = symmetry_functions(2, cutoff=3.2)
        assert not descriptor.jacobian(atoms).as_blocks().per_image

        class Nothing(Calculator):
            implemented_properties = ("energy", "forces", "stress")

            def calculate(self, *given):
                super().calculate(*given)
                self.results = {"energy": 0.0, "forces": np.zeros((4, 3)), "stress": np.zeros(6)}

        def biased(strain: np.ndarray) -> Atoms:
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            moved.calc = SensitivityCalculator(Nothing(), descriptor, bias=Repel(0.9, 0.5))
            return moved

        strain = np.array([[1.0, 0.3, 0], [0.3, -0.5, 0.2], [0, 0.2, 0.4]])
        step = 1e-4
        energies = [biased(sign * step * strain).get_potential_energy() for sign in (1, -1)]
        numeric = (energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
        stress = biased(np.zeros((3, 3))).get_stress(voigt=False)
        assert abs(numeric) > 1e-6
        assert (stress * strain).sum() == pytest.approx(numeric, rel=1e-4)


class TestDataSets:
    def test_scan_and_pairs(self):
        frames = [rattled(molecule("NH3"), 0.1, seed) for seed in range(3)]
        frames.append(frames[0].copy())
        found = scan(frames, symmetry_functions())
        assert [row["n_null"] for row in found.rows] == [0, 0, 0, 0]
        assert len(find_pairs(frames, symmetry_functions()).duplicates) >= 1

    def test_goes_to_other_processes(self):
        descriptor = pickle.loads(pickle.dumps(symmetry_functions()))
        atoms = peroxide()
        np.testing.assert_array_equal(
            descriptor.features(atoms), symmetry_functions().features(atoms)
        )


class TestMistakes:
    @pytest.mark.parametrize(
        ("how", "error", "match"),
        [
            ({"function": 3}, TypeError, "`function` must be callable"),
            ({"cutoff": -1.0}, ValueError, "`cutoff` is -1.0"),
            ({"cutoff": 3.0, "reach": 2.0}, ValueError, "`reach` is 2.0"),
            ({"dtype": "float16"}, ValueError, "`dtype` is 'float16' but must be one of float64"),
            ({"precision": 0.0}, ValueError, "`precision` is 0.0"),
        ],
    )
    def test_arguments(self, how, error, match):
        with pytest.raises(error, match=match):
            TorchDescriptor(**({"function": inverse_distances} | how))

    @pytest.mark.parametrize(
        ("function", "error", "match"),
        [
            (lambda a, x, c: x.detach().numpy(), TypeError, "must return a torch.Tensor"),
            (lambda a, x, c: x.norm(dim=1), ValueError, "must return real numbers"),
            (lambda a, x, c: x.long(), ValueError, "must return real numbers"),
            (lambda a, x, c: x.detach() ** 2, ValueError, "do not depend on `positions`"),
            (lambda a, x, c: x[:, :1] / 0, ValueError, "not finite"),
            (lambda a, x, c: x[:2], ValueError, "say with `centers`"),
        ],
    )
    def test_functions(self, function, error, match):
        with pytest.raises(error, match=match):
            TorchDescriptor(function).jacobian(peroxide())

    def test_atoms_on_top_of_each_other(self):
        with pytest.raises(ValueError, match="on top of each other"):
            symmetry_functions().features(Atoms("H2"))


def test_unfolded_structures_see_the_same():
    atoms = rattled(bulk("Si"), 0.1, 1)
    cluster, parent = unfolded(atoms, 3.5)
    assert not cluster.pbc.any()
    np.testing.assert_array_equal(cluster.numbers, atoms.numbers[parent])
    features = symmetry_functions()
    np.testing.assert_allclose(
        features.features(cluster)[: len(atoms)], features.features(atoms), atol=1e-12
    )


def test_default_types_of_torch_do_not_matter():
    before = torch.get_default_dtype()
    atoms = peroxide()
    expected = symmetry_functions().jacobian(atoms).gram()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.no_grad():
            found = symmetry_functions().jacobian(atoms).gram()
    finally:
        torch.set_default_dtype(before)
    np.testing.assert_array_equal(found, expected)
    assert torch.is_grad_enabled()
