"""Features of the trained potential CHGNet."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from ase_sensitivity.descriptors.trained import (
    LayeredDescriptor,
    chosen_layers,
    fingerprint,
    frozen_copy,
    needs_package,
)
from ase_sensitivity.geometry.neighbors import boxed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

N_ELEMENTS = 94
"""Elements that its embedding knows: hydrogen to plutonium."""


class CHGNetDescriptor(LayeredDescriptor):
    """What the readout of CHGNet sees: features of the atoms after its message passing.

    The energies of CHGNet are sums over atoms of a function of the last features. Its forces lie in
    the row space of their Jacobian, and vanish along its null directions.

    Parameters
    ----------
    model
        A ``chgnet.model.CHGNet``, a calculator that has one (``CHGNetCalculator``), or the name of
        a model that comes with the package: ``"0.3.0"``, ``"0.2.0"`` or ``"r2scan"``. It is copied
        and stays as it is.
    layers
        After which interaction blocks features are taken, counted from 1: by default after the
        last, normalised as the readout takes them. Several stand beside each other.
    dtype, device, precision, batches
        As in :class:`TorchDescriptor`.

    Raises
    ------
    ImportError
        If there is no chgnet.
    TypeError, ValueError
        If an argument has no meaning.

    Notes
    -----
    The cutoff, 6 Å, is that of one message; there are four, so that the reach is 24 Å. The copy of
    the model computes in double precision, in which the null directions of symmetry are exact.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase_sensitivity import analyze
    >>> found = analyze(molecule("CH4"), CHGNetDescriptor(), causes=True)
    >>> found.n_null, found.counts["symmetry"]
    (2, 2)
    """

    def __init__(
        self,
        model: Any = "0.3.0",
        *,
        layers: int | Sequence[int] | None = None,
        dtype: torch.dtype | str = "float64",
        device: torch.device | str = "cpu",
        precision: float | None = None,
        batches: bool = True,
    ) -> None:
        needs_package("chgnet", "CHGNetDescriptor")
        from chgnet.model import CHGNet

        if isinstance(model, str):
            with contextlib.redirect_stdout(io.StringIO()):  # it says how many parameters it has
                model = CHGNet.load(model_name=model, use_device="cpu", verbose=False)
        own = getattr(model, "model", model)
        if not isinstance(own, CHGNet):
            raise TypeError(
                "`model` must be a CHGNet, a calculator with one or the name of one, not "
                f"{type(model).__name__}"
            )
        self.n_layers = len(own.atom_conv_layers)
        self.layers = chosen_layers(layers, self.n_layers)
        cutoff = float(own.graph_converter.atom_graph_cutoff)
        super().__init__(
            self._features,
            cutoff,
            reach=max(self.layers) * cutoff,
            species=chemical_symbols[1 : N_ELEMENTS + 1],
            dtype=dtype,
            device=device,
            precision=precision,
            batches=batches,
        )
        self.model = frozen_copy(own, self.device, self.dtype)
        self.model.graph_converter.on_isolated_atoms = "ignore"

    def __repr__(self) -> str:
        known = f"{self.model.version!r}, {fingerprint(self.model)}"
        return f"CHGNetDescriptor({known}, layers={self.layers})"

    def _features(self, atoms: Atoms, positions: Tensor, cell: Tensor) -> Tensor:
        import torch

        graph = self._graph(atoms, positions, cell)
        layers, norm = self.model.atom_conv_layers, self.model.readout_norm
        found: dict[int, Tensor] = {}
        hooks = []
        for number in self.layers:
            last = number == len(layers) and norm is not None
            module = norm if last else layers[number - 1]

            def keep(_: Any, __: Any, output: Tensor, number: int = number) -> None:
                found[number] = output

            hooks.append(module.register_forward_hook(keep))
        try:
            self.model._compute(graph)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.cat([found[number] for number in self.layers], dim=1)

    def _graph(self, atoms: Atoms, positions: Tensor, cell: Tensor) -> Any:
        """The graph of CHGNet, its vectors as functions of positions and cell."""
        import torch
        from chgnet.model.model import BatchedGraph
        from pymatgen.core import Lattice, Structure

        box = atoms if atoms.pbc.all() else self._box(atoms)
        structure = Structure(
            Lattice(box.cell.array), box.numbers, box.cell.scaled_positions(box.positions)
        )
        graph = self.model.graph_converter(structure).to(self.device)
        pairs = graph.atom_graph.reshape(-1, 2).long()
        shifts = graph.neighbor_image.reshape(-1, 3).to(positions.dtype)
        bases_ag, bases_bg, vectors = self.model.bond_basis_expansion(
            center=positions[pairs[:, 0]],
            neighbor=positions[pairs[:, 1]],
            undirected2directed=graph.undirected2directed,
            image=shifts,
            lattice=cell,
        )
        angles = graph.bond_graph.reshape(-1, 5).long()
        bases = torch.empty(0, dtype=positions.dtype, device=positions.device)
        if len(angles):
            bases = self.model.angle_basis_expansion(vectors[angles[:, 2]], vectors[angles[:, 4]])
        return BatchedGraph(
            atomic_numbers=graph.atomic_number,
            bond_bases_ag=bases_ag,
            bond_bases_bg=bases_bg,
            angle_bases=bases,
            batched_atom_graph=pairs,
            batched_bond_graph=angles[:, [0, 1, 3]],
            atom_owners=torch.zeros(len(atoms), dtype=torch.int32, device=positions.device),
            directed2undirected=graph.directed2undirected,
            atom_positions=[positions],
            strains=[None],
            volumes=torch.ones(1, dtype=positions.dtype, device=positions.device),
        )

    def _box(self, atoms: Atoms) -> Atoms:
        """The atoms, in a cell whose images along directions that are not periodic are far away."""
        bare = atoms.copy()
        free = ~atoms.pbc
        bare.cell = boxed(atoms, self.cutoff).cell
        spans = np.ptp(bare.cell.scaled_positions(atoms.positions), axis=0)
        lengths = bare.cell.lengths()
        wanted = np.where(free, spans * lengths + self.cutoff + 1.0, lengths)
        bare.set_cell(bare.cell.array * (wanted / lengths)[:, None])
        bare.pbc = True
        return bare
