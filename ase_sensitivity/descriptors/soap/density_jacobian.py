"""The Jacobian of the power spectrum with products that come from the density coefficients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ase_sensitivity.descriptors.soap import jvp, tiles
from ase_sensitivity.descriptors.soap.basis import Basis
from ase_sensitivity.descriptors.soap.density import scratch
from ase_sensitivity.descriptors.soap.environments import Environments
from ase_sensitivity.descriptors.soap.local_gram import add_local, local_grams
from ase_sensitivity.descriptors.soap.power_spectrum import common, in_shares, n_threads
from ase_sensitivity.jacobian.arrays import as_displacements, as_floats
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.scale import ScaleSums
from ase_sensitivity.jacobian.sparsity import SQUARE, Sparsity
from ase_sensitivity.jacobian.streamed import StreamedJacobian
from ase_sensitivity.types import Floats, Ints

LOST = 10
"""Derivatives may cancel by this factor in their squares (along the features, which have norm 1, or
over the images of an atom) before a Gram matrix is computed from blocks, which cancel first."""

CACHED = 2**20
"""Bytes of Gram matrices of environments that one thread computes before they are added up."""

CHUNK = 2**24
"""The same for several threads."""

LARGEST = 2**27
"""Bytes of the Gram matrix, and of the tiles, of an environment up to which there are no blocks:
1300 neighbors."""

AT_ONCE = 16
"""Number of vectors that products treat at a time, to limit memory."""

BLOCK, NEIGHBOR = 80, 20_000
"""Time for a number of a block, and for a neighbor in tiles, in multiplications of a product."""


class DensityJacobian(StreamedJacobian):
    """A Jacobian of the power spectrum that forms blocks only where they are asked for.

    Its products take the coefficients of the neighbor density of each center and their derivatives.

    Parameters
    ----------
    basis, environments, normalise, threads
        As for the power spectrum.
    cutoff
        Radius in Å.
    n_features
        Length of a feature vector.
    features
        Gives the features.
    compute, bounds
        Blocks of a range of rows, as in :class:`StreamedJacobian`.
    """

    spares_blocks = True

    def __init__(
        self,
        basis: Basis,
        environments: Environments,
        normalise: bool,
        threads: int | None,
        *,
        cutoff: float,
        n_features: int,
        features: Callable[[], Floats],
        compute: Callable[[int, int], FeatureJacobian],
        bounds: Sequence[int],
    ) -> None:
        super().__init__(
            compute,
            bounds,
            n_atoms=environments.n_atoms,
            cutoff=cutoff,
            center_atoms=environments.centers,
            pairs=environments.pairs,
        )
        self._basis, self._environments = basis, environments
        self._normalise, self._threads = normalise, threads
        self._n_features, self._features = n_features, features
        self._most = environments.most(0, len(environments.centers))

    @property
    def features(self) -> Floats:
        """All features; computed again at each access."""
        return self._features()

    def apply(self, displacements: Floats) -> Floats:
        """J v for displacements of shape (m, n_atoms, 3): of shape (m, all features).

        Raises
        ------
        ValueError
            If the displacements have another shape.
        """
        moved, around = as_displacements(displacements, self.n_atoms), self._environments
        n_rows, n_features = len(around.centers), self._n_features
        found = np.zeros((len(moved), n_rows, n_features))
        first = around.centers[around.row]
        for begin in range(0, len(moved), AT_ONCE):
            some = slice(begin, begin + AT_ONCE)
            changes = moved[some, around.atom] - moved[some, first]
            self._run(jvp.changes_of_features, changes, found[some])
        return found.reshape(len(moved), n_rows * n_features)

    def adjoint(self, weights: Floats) -> Floats:
        """J^T w for weights of shape (m, all features): of shape (m, n_atoms, 3).

        Raises
        ------
        ValueError
            If the numbers of weights and of features differ.
        """
        given, around = as_floats("weights", weights)[0], self._environments
        n_rows, n_features = len(around.centers), self._n_features
        if given.ndim != 2 or given.shape[1] != n_rows * n_features:
            raise ValueError(
                f"`weights` has shape {given.shape} but must be (any, {n_rows * n_features})"
            )
        given = given.reshape(len(given), n_rows, n_features)
        total = np.zeros((self.n_atoms, len(given), 3))
        first = around.centers[around.row]
        for begin in range(0, len(given), AT_ONCE):
            some = slice(begin, begin + AT_ONCE)
            forces = np.zeros((len(given[some]), len(first), 3))
            self._run(jvp.forces_of_weights, given[some], forces)
            by_pair = forces.swapaxes(0, 1)
            np.add.at(total[:, some], around.atom, by_pair)
            np.subtract.at(total[:, some], first, by_pair)
        return total.swapaxes(0, 1)

    def fill_gram(
        self,
        column_of: Ints,
        total: Floats,
        *,
        band: int | None = None,
        pattern: Sparsity = SQUARE,
    ) -> ScaleSums | None:
        """As in :class:`BlockJacobian`, without blocks unless these take less time or are needed.

        Blocks take less time where a center sees many images of few atoms. They are needed where
        squares of derivatives cancel to a large part.
        """
        if self._blocks_are_faster:
            return super().fill_gram(column_of, total, band=band, pattern=pattern)
        sums, before = self._of_environments(column_of, total, pattern)
        if before <= LOST * pattern.trace(total):
            return sums
        total[...] = 0.0
        return super().fill_gram(column_of, total, band=band, pattern=pattern)

    @property
    def _blocks_are_faster(self) -> bool:
        """Whether blocks and their products take less time, or less memory, than all neighbors."""
        basis, around = self._basis, self._environments
        most, n_pairs = self._most, len(around.atom)
        if max(72 * most, 64 * (basis.l_max + 1) ** 2) * most > LARGEST:
            return True
        product = 30 * (basis.l_max + 1) ** 2 + 4 * basis.n_max * (basis.l_max + 1)
        n_numbers = 3.0 * BLOCK * around.n_blocks
        if self._n_features * n_numbers >= n_pairs * (NEIGHBOR + 0.5 * most * product):
            return False  # also if every center had most neighbors: so for most molecules
        n = np.diff(around.starts)
        points = np.minimum(n + 1, self.n_atoms)  # images of an atom are summed
        squares = float(n @ n)
        n_numbers += 4.5 * float(points @ points)
        return self._n_features * n_numbers < NEIGHBOR * n_pairs + 0.5 * squares * product

    def _of_environments(
        self, column_of: Ints, total: Floats, pattern: Sparsity
    ) -> tuple[ScaleSums, float]:
        """Add the Gram matrices of environments.

        The second number is the sum of the squares of derivatives before they are projected by
        `normalise`.
        """
        around, species = self._environments, self._basis.n_species
        rows, starts = self._rows_with(column_of)
        most = self._most
        width = 4 * ((most + 3 * min(species, most)) // 4)
        size = 9 * (width + 1) * (width + 4)
        alone = n_threads(starts, self._threads) == 1
        chunk = CACHED if alone else CHUNK
        at_once = max(1, min(chunk // (8 * size), len(rows)))
        found = (
            np.empty((at_once, size)),
            np.empty((at_once, width), dtype=np.intp),
            np.empty((at_once, width + 1)),
            np.empty(at_once),
        )
        columns, counts = np.empty((2, max(width + 1, at_once)), dtype=np.intp)
        run = self._local_grams(width, alone)
        sums, features = np.zeros(2), 0.0
        for begin in range(0, len(rows), at_once):
            some = rows[begin : begin + at_once]
            run(some, starts[begin : begin + len(some) + 1] - starts[begin], found)
            add_local(
                *found[:3],
                some,
                around.starts,
                around.centers,
                around.atom,
                column_of,
                *pattern.arrays,
                total,
                columns,
                counts,
                sums,
            )
            squares, own = found[3][: len(some)], counts[: len(some)]
            features += float(own @ (squares > 0.0 if self._normalise else squares))
        scale = ScaleSums()
        scale.include(float(sums[0]), features)
        return scale, float(sums[1])

    def _local_grams(
        self, width: int, alone: bool
    ) -> Callable[[Ints, Ints, tuple[Any, ...]], None]:
        """Runs `local_grams` for some rows with these first pairs, and its output arrays."""
        around, basis = self._environments, self._basis
        known = (
            around.starts,
            around.vectors,
            around.species,
            around.center_species,
            basis.central,
            basis.arguments(),
            tiles.positions(basis.l_max),
            self._normalise,
        )
        scratch = tiles.scratch(basis, width)

        def fill(rows: Ints, starts: Ints, found: tuple[Any, ...]) -> None:
            if alone and local_grams.overloads:  # compiled already
                local_grams(rows, *known, scratch, *found)
                return

            def run(begin: int, end: int) -> None:
                own = scratch if end - begin == len(rows) else tiles.scratch(basis, width)
                local_grams(rows[begin:end], *known, own, *(part[begin:end] for part in found))

            in_shares(run, local_grams, starts, self._threads)

        return fill

    def _rows_with(self, column_of: Ints) -> tuple[Ints, Ints]:
        """The rows that see an atom with a column, and their first pairs if others are left out."""
        around = self._environments
        if column_of.min(initial=0) >= 0:
            return np.arange(len(around.centers)), around.starts
        seen = column_of[around.centers] >= 0
        seen[around.row[column_of[around.atom] >= 0]] = True
        rows = np.flatnonzero(seen)
        return rows, np.concatenate(([0], np.cumsum(np.diff(around.starts)[rows])))

    def _run(self, kernel: Any, given: Floats, found: Floats) -> None:
        """Run a kernel of products for all rows."""
        basis, around = self._basis, self._environments
        given = np.ascontiguousarray(given)  # other layouts would be compiled again
        n_power = basis.n_channels * (basis.n_channels + 1) // 2 * basis.harmonics.l_padded

        def run(begin: int, end: int) -> None:
            density = scratch(basis, around.most(begin, end))
            first = common(basis, around, self._normalise, begin, end)
            kernel(*first, given, jvp.scratch(density, n_power), found)

        in_shares(run, kernel, around.starts, self._threads)
