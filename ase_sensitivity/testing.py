"""A check of the contract that every descriptor must meet, also for your own descriptors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from ase import Atoms
from scipy.spatial.distance import cdist
from scipy.stats import special_ortho_group

from ase_sensitivity.descriptors.base import (
    Descriptor,
    is_rotation_invariant,
    reach_of,
    rows_of,
    squared_jvp_gradient,
)
from ase_sensitivity.descriptors.finite_difference import WEIGHTS
from ase_sensitivity.geometry.structure import coordinates_of
from ase_sensitivity.jacobian.arrays import as_floats
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.contract import BlockJacobian, FormsBlocks, Jacobian, in_blocks
from ase_sensitivity.jacobian.stacked import StackedJacobian
from ase_sensitivity.spectrum.scopes import structure_view
from ase_sensitivity.types import Floats, Ints

DERIVATIVES, SUM_RULE = "finite differences", "sum rule"
ROTATION, REFLECTION, SQUARES = "rotation", "reflection", "derivatives of |J v|²"
"""Names of parts of the contract."""

LOST = 100
"""Rounding errors relative to the largest number may be this many times the precision."""


def check_descriptor(
    descriptor: Descriptor,
    atoms: Atoms,
    *,
    tolerance: float = 1e-9,
    step: float = 1e-3,
    differentiable: float = 1e-6,
    seed: int = 0,
    mirrored: bool = True,
) -> None:
    """Check that a descriptor is invariant and that its derivatives are those of its features.

    Parameters
    ----------
    descriptor
        The descriptor.
    atoms
        A structure without symmetry and with no two atoms exactly at the cutoff from each other,
        with any boundary conditions.
    tolerance
        Allowed error of invariances, sums and products, relative to the largest feature or
        derivative. It is raised if the precision of the Jacobian or of the features is lower.
    step
        Displacement in Å for five-point finite differences.
    differentiable
        Allowed error of the finite differences, relative to the largest derivative.
    seed
        For the random rotation and permutation.
    mirrored
        Whether the mirror image of a structure has the same features. Some models tell left from
        right. A descriptor whose attribute ``rotation_invariant`` is False may do so, and is not
        rotated either.

    Raises
    ------
    AssertionError
        The message says which part of the contract is violated, and by how much.
    """
    for part in contract(
        descriptor,
        atoms,
        tolerance=tolerance,
        step=step,
        differentiable=differentiable,
        seed=seed,
    ):
        if part.name == REFLECTION and not mirrored:
            continue
        if part.name not in (ROTATION, REFLECTION) or is_rotation_invariant(descriptor):
            part.check()


@dataclass(frozen=True)
class Part:
    """One part of the contract, to be checked.

    Attributes
    ----------
    name
        What has to hold.
    allowed
        The largest error.
    check
        Returns the error found, relative to the largest number, nan if there is nothing to check;
        AssertionError if it is too large.
    """

    name: str
    allowed: float
    check: Callable[[], float]


def contract(
    descriptor: Descriptor,
    atoms: Atoms,
    *,
    tolerance: float = 1e-9,
    step: float = 1e-3,
    differentiable: float = 1e-6,
    seed: int = 0,
    images: bool = True,
) -> Iterator[Part]:
    """The parts of the contract of a descriptor, in an order that makes sense.

    Parameters
    ----------
    descriptor, atoms, tolerance, step, differentiable, seed
        As in :func:`check_descriptor`.
    images
        Tell periodic images apart, which takes three products for each where a Jacobian has only
        products.

    Raises
    ------
    AssertionError
        If a part is violated that all others need.
    """
    _check_members(descriptor, Descriptor, "the descriptor")
    features, coarse = as_floats("features", descriptor.features(atoms))
    assert np.isfinite(features).all(), "features are not finite"
    jacobian = descriptor.jacobian(atoms)
    assert jacobian is not None, "jacobian() returned None"
    _check_members(jacobian, Jacobian, "the Jacobian")
    _check_facts(jacobian, atoms)
    _check_ranges(descriptor, jacobian)
    # With fewer digits, tolerances and steps are larger: larger steps lose fewer digits.
    rounding = LOST * max(jacobian.precision, coarse)
    tolerance, differentiable = max(tolerance, rounding), max(differentiable, LOST * rounding)
    step = max(step, coarse**0.2)
    whole: Jacobian = jacobian
    if not isinstance(jacobian, FeatureJacobian | StackedJacobian):
        yield from _of_products(jacobian, atoms, tolerance, seed)
        yield Part(
            DERIVATIVES,
            differentiable,
            lambda: _check_along(descriptor, atoms, jacobian, step, differentiable, seed),
        )
        if isinstance(jacobian, BlockJacobian):
            yield Part("blocks", tolerance, lambda: _agree_with_blocks(jacobian, tolerance))
        if not isinstance(jacobian, FormsBlocks):
            return
        whole = blocks = in_blocks(jacobian, "this check", per_image=images)
        what = "blocks and gram()"
        yield Part(
            "blocks", tolerance, lambda: _agree(what, blocks.gram(), jacobian.gram(), tolerance)
        )
    assert isinstance(whole, BlockJacobian)
    what = "jacobian() and features() give different features"
    yield Part(
        "features",
        max(1e-12, rounding),
        lambda: _agree(what, whole.features, features, max(1e-12, rounding)),
    )
    yield from _of_blocks(descriptor, atoms, whole, tolerance, seed)
    if images:
        yield Part("images", tolerance, lambda: _check_images(descriptor, atoms, whole, tolerance))
    yield Part(
        DERIVATIVES,
        differentiable,
        lambda: _check_derivatives(descriptor, atoms, whole, step, differentiable),
    )
    yield from _of_products(whole, atoms, tolerance, seed)
    yield Part(
        SQUARES,
        differentiable,
        lambda: _check_squares(descriptor, atoms, step, differentiable, seed),
    )


def _of_products(jacobian: Jacobian, atoms: Atoms, tolerance: float, seed: int) -> Iterator[Part]:
    yield Part("products", tolerance, lambda: _check_products(jacobian, atoms, tolerance, seed))
    yield Part(SUM_RULE, tolerance, lambda: _check_rigid(jacobian, atoms, tolerance, seed))


def _of_blocks(
    descriptor: Descriptor, atoms: Atoms, jacobian: BlockJacobian, tolerance: float, seed: int
) -> Iterator[Part]:
    for name, (changed, order) in _changed(atoms, seed).items():
        yield Part(
            name,
            tolerance,
            partial(_same_rows, descriptor, changed, jacobian, name, tolerance, order),
        )
    yield Part(SUM_RULE, tolerance, lambda: _check_sums(jacobian, tolerance))
    yield Part("reach", tolerance, lambda: _check_reach(jacobian, tolerance))


def _check_members(given: object, protocol: type, what: str) -> None:
    """All members of a protocol are there."""
    members = {name for base in protocol.__mro__ for name in vars(base) if name[0] != "_"}
    missing = sorted(name for name in members if not hasattr(given, name))
    assert not missing, f"{what}, {given!r}, lacks {', '.join(missing)}"


def _check_ranges(descriptor: Descriptor, jacobian: Jacobian) -> None:
    """The Jacobian has no other cutoff and reach than the descriptor."""
    for name, given, found in (
        ("cutoff", descriptor.cutoff, max(known.cutoff for known in jacobian.ranges)),
        ("reach", reach_of(descriptor), max(known.reach for known in jacobian.ranges)),
    ):
        assert math.isclose(given, found, rel_tol=0.05, abs_tol=0.1), (
            f"the {name} of the descriptor is {given:g} Å, that of its Jacobian {found:g} Å"
        )


def _check_facts(jacobian: Jacobian, atoms: Atoms) -> None:
    assert jacobian.n_atoms == len(atoms), f"n_atoms is {jacobian.n_atoms}, not {len(atoms)}"
    assert 0 < jacobian.precision < 1, f"precision is {jacobian.precision}"
    assert jacobian.per_image in (True, False), f"per_image is {jacobian.per_image!r}"
    for known in jacobian.ranges:
        assert 0 < known.cutoff <= known.reach, f"cutoff {known.cutoff}, reach {known.reach}"


def _check_products(jacobian: Jacobian, atoms: Atoms, tolerance: float, seed: int) -> float:
    """The three products are those of one matrix, in doubles."""
    rng = np.random.default_rng(seed)
    n = len(atoms)
    v = rng.normal(size=(3, n, 3))
    changes, gram = jacobian.apply(v), jacobian.gram()
    assert np.abs(changes).max(initial=0.0) > 0, "all derivatives are zero"
    w = rng.normal(size=changes.shape)
    forces = jacobian.adjoint(w)
    for product in (changes, gram, forces):
        assert product.dtype == np.float64, f"a product is of {product.dtype}, not of doubles"
    assert forces.shape == v.shape, f"adjoint() gives {forces.shape}, not {v.shape}"
    assert gram.shape == (3 * n, 3 * n), f"gram() gives {gram.shape}, not {(3 * n, 3 * n)}"
    norms = np.linalg.norm(changes, axis=1)[:, None] * np.linalg.norm(w, axis=1)
    worst = float((np.abs(changes @ w.T - np.einsum("iax,jax->ij", v, forces)) / norms).max())
    assert worst <= tolerance, f"adjoint() is not that of apply(): {worst:.1e} relative"
    flat = v.reshape(3, -1)
    what = "gram() is not J^T J of apply()"
    worst = max(worst, _agree(what, flat @ gram @ flat.T, changes @ changes.T, tolerance))
    # In single precision the product would hide what is smaller than the root of its precision.
    values, vectors = np.linalg.eigh(gram)
    softest = vectors[:, 0]
    error = abs(softest @ gram @ softest - (jacobian.apply(softest.reshape(1, n, 3)) ** 2).sum())
    allowed = max(1e-12, 10 * jacobian.precision**2) * values[-1]
    assert error <= allowed, (
        f"gram() is off by {error / values[-1]:.1e} of its largest eigenvalue along its softest "
        "vector: the product has to be accumulated in doubles"
    )
    some = rng.permutation(n)[: (n + 1) // 2]
    where = coordinates_of(some)
    part = jacobian.gram(some)
    return max(worst, _agree("gram() of some atoms", part, gram[np.ix_(where, where)], tolerance))


def _check_rigid(jacobian: Jacobian, atoms: Atoms, tolerance: float, seed: int) -> float:
    """Rigid motions change no feature."""
    n = len(atoms)
    changes = jacobian.apply(np.random.default_rng(seed).normal(size=(3, n, 3)))
    trivial = structure_view(jacobian, atoms).trivial.T.reshape(-1, n, 3)
    seen = _over(np.abs(jacobian.apply(trivial)).max(initial=0.0), np.abs(changes).max())
    assert seen <= tolerance, (
        f"a rigid motion of a fragment changes features by {seen:.1e} relative: "
        "does the descriptor see farther than its cutoff?"
    )
    return seen


def _check_along(
    descriptor: Descriptor,
    atoms: Atoms,
    jacobian: Jacobian,
    step: float,
    tolerance: float,
    seed: int,
) -> float:
    """Differences of the features along a displacement agree with apply()."""
    direction = np.random.default_rng(seed).normal(size=(len(atoms), 3))
    direction /= np.linalg.norm(direction)
    moving = atoms.copy()
    moving.set_constraint()
    numeric: Floats | float = 0.0
    for steps, weight in WEIGHTS.items():
        moving.positions = atoms.positions + steps * step * direction
        features = as_floats("features", descriptor.features(moving))[0]
        numeric = numeric + weight * features.ravel() / step
    found = jacobian.apply(direction[None])[0]
    what = "apply() and differences of features()"
    return _agree(what, found, np.asarray(numeric), tolerance)


def _agree_with_blocks(jacobian: BlockJacobian, tolerance: float) -> float:
    """Products that take another way are those of the blocks."""
    blocks = StackedJacobian(tuple(jacobian.parts))
    v = np.random.default_rng(0).normal(size=(2, jacobian.n_atoms, 3))
    changes = blocks.apply(v)
    w = jacobian.adjoint(changes)
    return max(
        _agree("blocks and apply()", changes, jacobian.apply(v), tolerance),
        _agree("blocks and adjoint()", blocks.adjoint(changes), w, tolerance),
        _agree("blocks and gram()", blocks.gram(), jacobian.gram(), tolerance),
    )


def _check_reach(jacobian: BlockJacobian, tolerance: float) -> float:
    worst = 0.0
    for part in jacobian.parts:
        outside = np.linalg.norm(part.displacement, axis=1) > part.reach
        largest = np.abs(part.blocks[outside]).max(initial=0.0)
        scale = np.abs(part.blocks).max(initial=0.0)
        assert largest <= tolerance * scale, (
            f"features depend on atoms beyond the reach of {part.reach:g} Å of the Jacobian"
        )
        worst = max(worst, _over(largest, scale))
    return worst


def _over(error: float, scale: float) -> float:
    return float(error / scale) if scale > 0 else 0.0


def _agree(what: str, found: Floats, expected: Floats, tolerance: float = 1e-12) -> float:
    assert found.shape == expected.shape, f"{what}: shapes {found.shape} and {expected.shape}"
    scale = np.abs(expected).max(initial=0.0)
    error = np.abs(found - expected).max(initial=0.0)
    assert error <= tolerance * scale, f"{what}: {error / scale:.1e} > {tolerance:.1e} relative"
    return _over(error, scale)


def _changed(atoms: Atoms, seed: int) -> dict[str, tuple[Atoms, Ints | None]]:
    """Structures with the same features, by what was done, and their order if that is another."""
    rng = np.random.default_rng(seed)
    moved = atoms.copy()
    moved.positions += rng.normal(size=3)
    found: dict[str, tuple[Atoms, Ints | None]] = {"translation": (moved, None)}

    rotation = special_ortho_group.rvs(3, random_state=rng)
    for name, matrix in ((ROTATION, rotation), (REFLECTION, -rotation)):
        turned = atoms.copy()
        turned.set_cell(atoms.cell.array @ matrix.T)
        turned.positions = atoms.positions @ matrix.T
        found[name] = turned, None

    if atoms.pbc.any():
        outside = atoms.copy()
        shifts = rng.integers(-3, 4, size=(len(atoms), 3)) * atoms.pbc
        outside.positions += shifts @ atoms.cell.array
        found["moving atoms out of the cell"] = outside, None

    order = rng.permutation(len(atoms))
    found["permutation"] = atoms[order], order
    return found


def _same_rows(
    descriptor: Descriptor,
    changed: Atoms,
    jacobian: BlockJacobian,
    what: str,
    tolerance: float,
    order: Ints | None = None,
) -> float:
    """Compare the rows of each center as sets: pairs and triplets come in any order."""
    worst = 0.0
    for part, (features, centers) in zip(jacobian.parts, rows_of(descriptor, changed), strict=True):
        scale = np.abs(part.features).max(initial=0.0)
        if order is not None:
            centers = np.where(centers >= 0, order[centers], -1)
        assert sorted(centers) == sorted(part.centers), f"{what} changes the centers"
        for center in np.unique(centers):
            distance = cdist(
                part.features[part.centers == center],
                features[centers == center],
                metric="chebyshev",
            )
            error = max(distance.min(axis=0).max(), distance.min(axis=1).max())
            assert error <= tolerance * scale, (
                f"features are not invariant under {what}: {error / scale:.1e} relative "
                f"at center {center}"
            )
            worst = max(worst, _over(error, scale))
    return worst


def _check_sums(jacobian: BlockJacobian, tolerance: float) -> float:
    worst = 0.0
    for part in jacobian.parts:
        total = np.zeros((len(part.centers), *part.blocks.shape[1:]))
        np.add.at(total, part.row, part.blocks)
        error, scale = np.abs(total).max(), np.abs(part.blocks).max()
        assert error <= tolerance * scale, (
            f"the blocks of a row do not sum to zero: {error / scale:.1e} relative"
        )
        worst = max(worst, _over(error, scale))
    return worst


def _check_images(
    descriptor: Descriptor, atoms: Atoms, jacobian: BlockJacobian, tolerance: float
) -> float:
    """Displacements lead to images, and images have the same blocks in a larger cell."""
    centered = [(part, part.center >= 0) for part in jacobian.parts]
    for part, chosen in centered:
        straight = atoms.positions[part.atom] - atoms.positions[part.center]
        offset = (part.displacement - straight)[chosen]
        cell = np.where(atoms.pbc[:, None], atoms.cell.array, np.eye(3))
        shift = offset @ np.linalg.inv(atoms.cell.complete() if atoms.pbc.any() else cell)
        assert np.abs(shift - np.rint(shift)).max(initial=0.0) < 1e-6, (
            "a displacement does not lead from the center to an image of the atom"
        )
    summed = jacobian.per_image is False or not np.isfinite(reach_of(descriptor))
    if not atoms.pbc.any() or summed:
        return 0.0
    worst = 0.0
    larger = _blocks(descriptor, atoms.repeat(np.where(atoms.pbc, 2, 1)))
    for (part, chosen), big in zip(centered, larger.parts, strict=True):
        if not chosen.any():
            continue
        center = int(part.center[chosen][0])
        own, others = part.center == center, big.center == center
        assert own.sum() == others.sum(), (
            f"center {center} depends on {own.sum()} images, in a repeated cell on {others.sum()}"
        )
        keys = np.column_stack([part.displacement, part.blocks.reshape(len(part.row), -1)])[own]
        wanted = np.column_stack([big.displacement, big.blocks.reshape(len(big.row), -1)])[others]
        distance = cdist(keys, wanted, metric="chebyshev")
        error = max(distance.min(axis=0).max(), distance.min(axis=1).max())
        assert error <= tolerance * max(1.0, np.abs(keys).max()), (
            f"the blocks of images differ from those in a repeated cell by {error:.1e}"
        )
        worst = max(worst, float(error))
    return worst


def _check_derivatives(
    descriptor: Descriptor, atoms: Atoms, jacobian: BlockJacobian, step: float, tolerance: float
) -> float:
    analytic = [_by_atom(part) for part in jacobian.parts]
    scales = [np.abs(gradient).max() for gradient in analytic]
    assert min(scales) > 0, "all derivatives are zero"
    moving = atoms.copy()
    moving.set_constraint()
    worst = 0.0
    for a in range(len(atoms)):
        for k in range(3):
            numeric = [np.zeros_like(gradient[:, a, k]) for gradient in analytic]
            for steps, weight in WEIGHTS.items():
                moving.positions[a, k] = atoms.positions[a, k] + steps * step
                for total, (features, _) in zip(numeric, rows_of(descriptor, moving), strict=True):
                    assert total.shape == features.shape, "rows appear or vanish: at a cutoff?"
                    total += weight * features / step
            moving.positions[a, k] = atoms.positions[a, k]
            for total, gradient, scale in zip(numeric, analytic, scales, strict=True):
                error = np.abs(gradient[:, a, k] - total).max()
                assert error <= tolerance * scale, (
                    f"the derivative along coordinate {k} of atom {a} is off by "
                    f"{error / scale:.1e} of the largest derivative"
                )
                worst = max(worst, float(error / scale))
    return worst


def _check_squares(
    descriptor: Descriptor, atoms: Atoms, step: float, tolerance: float, seed: int
) -> float:
    """Derivatives of |J v|^2 without J, if the descriptor has them, agree with those from J."""
    rng = np.random.default_rng(seed)
    modes, shift, strain = (
        rng.normal(size=shape) for shape in ((2, len(atoms), 3), (len(atoms), 3), (3, 3))
    )
    modes /= np.linalg.norm(modes[0])
    shift /= np.linalg.norm(shift)
    strain /= np.abs(atoms.positions).max() * np.linalg.norm(strain)
    found = squared_jvp_gradient(descriptor, atoms, modes, 1e-5)
    forward = squared_jvp_gradient(descriptor, atoms, modes, 1e-6, central_difference=False)
    if found is None or forward is None:
        return math.nan
    for number, part in enumerate(found):
        # Forward differences have an error of a few times the step.
        _agree(
            "squared_jvp_gradient() by forward differences", forward[number], part, 1e2 * tolerance
        )
    if all((centers >= 0).all() for _, centers in rows_of(descriptor, atoms)):
        alone = [
            squared_jvp_gradient(descriptor, atoms, modes, 1e-5, center=n)
            for n in range(len(atoms))
        ]
        rounding = max(1e-9, LOST * descriptor.jacobian(atoms).precision)
        for number, part in enumerate(found):
            total = sum(one[number] for one in alone if one is not None)
            what = "squared_jvp_gradient() of all centers together"
            _agree(what, np.asarray(total), part, rounding)

    def squares(size: float, deformation: Floats, displacement: Floats) -> Floats:
        moved = atoms.copy()
        moved.set_constraint()
        matrix = np.eye(3) + size * deformation
        moved.set_cell(atoms.cell.array @ matrix.T)
        moved.positions = atoms.positions @ matrix.T + size * displacement
        changes: Floats = descriptor.jacobian(moved).apply(modes)
        return (changes**2).sum(axis=1)

    cases = {
        "positions": (np.zeros((3, 3)), shift, (found[0] * shift).sum(axis=(1, 2))),
        "strain": (strain, np.zeros_like(shift), (found[1] * strain).sum(axis=(1, 2))),
    }
    worst = 0.0
    for name, (deformation, displacement, analytic) in cases.items():
        near, far = (
            squares(n * step, deformation, displacement)
            - squares(-n * step, deformation, displacement)
            for n in (1, 2)
        )
        numeric = (8 * near - far) / (12 * step)
        scale = np.abs(numeric).max()
        assert scale > 0, f"the derivatives of |J v|^2 by {name} are zero"
        error = np.abs(analytic - numeric).max()
        assert error <= tolerance * scale, (
            f"squared_jvp_gradient() by {name} is off by {error / scale:.1e} relative"
        )
        worst = max(worst, float(error / scale))
    return worst


def _blocks(descriptor: Descriptor, atoms: Atoms) -> BlockJacobian:
    return in_blocks(descriptor.jacobian(atoms), "this check", per_image=True)


def _by_atom(part: FeatureJacobian) -> Floats:
    """Derivatives with images summed, of shape (n_rows, n_atoms, 3, n_features)."""
    total = np.zeros((len(part.centers), part.n_atoms, *part.blocks.shape[1:]))
    np.add.at(total, (part.row, part.atom), part.blocks)
    return total
