"""Features of MACE models."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
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
from ase_sensitivity.geometry.neighbors import neighbor_pairs
from ase_sensitivity.validation import check_exists

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PRECISION = 1e-7
"""Of a model whose weights are in single precision, and with them what makes it invariant."""


class MACEDescriptor(LayeredDescriptor):
    """What the readouts of a MACE see: invariant features of the atoms after each layer.

    Parameters
    ----------
    model
        A calculator (``MACECalculator``) with one model, that model, or the name of its file. It is
        copied and stays as it is. Loading a file runs code that is in it, so that it has to be
        trusted.
    layers
        After which layers invariant features are taken, counted from 1: by default after each, as
        all have a readout. They stand beside each other.
    dtype, device, precision, batches
        As in :class:`TorchDescriptor`. By default 1e-7 for a model in single precision, as it is
        invariant no further.

    Raises
    ------
    ImportError
        If there is no mace.
    FileNotFoundError
        If there is no such file.
    TypeError, ValueError
        If an argument has no meaning.
    """

    def __init__(
        self,
        model: Any,
        *,
        layers: int | Sequence[int] | None = None,
        dtype: torch.dtype | str = "float64",
        device: torch.device | str = "cpu",
        precision: float | None = None,
        batches: bool = True,
    ) -> None:
        with contextlib.redirect_stdout(sys.stderr):  # it says what it cannot accelerate
            needs_package("mace", "MACEDescriptor")  # before e3nn, which does not load otherwise
            import torch
            from e3nn.o3 import Irreps
            from mace.modules import MACE

        if isinstance(model, str | Path):
            check_exists(model)
            model = torch.load(model, map_location="cpu", weights_only=False)
        several = getattr(model, "models", [model])
        if len(several) != 1:
            raise ValueError(f"`model` has {len(several)} models; give one of its `models`")
        own = several[0]
        if not isinstance(own, MACE):
            raise TypeError(
                f"`model` must be a MACE, or a calculator with one, not {type(own).__name__}"
            )
        self.n_layers = len(own.products)
        every = tuple(range(1, self.n_layers + 1))
        self.layers = chosen_layers(every if layers is None else layers, self.n_layers)
        # Scalars stand first.
        self._widths = {
            n: Irreps(str(own.products[n - 1].linear.irreps_out)).count("0e") for n in self.layers
        }
        cutoff = float(own.r_max)
        super().__init__(
            self._features,
            cutoff,
            reach=max(self.layers) * cutoff,
            species=[chemical_symbols[int(z)] for z in own.atomic_numbers],
            dtype=dtype,
            device=device,
            batches=batches,
        )
        coarse = next(own.parameters()).dtype != torch.float64
        self.precision = max(self.precision, PRECISION if coarse else 0.0)
        if precision is not None:
            self.precision = precision
        self.model = frozen_copy(own, self.device, self.dtype)

    def __repr__(self) -> str:
        known = f"cutoff={self.cutoff:g}, {fingerprint(self.model)}"
        return f"MACEDescriptor({known}, layers={self.layers})"

    def _features(self, atoms: Atoms, positions: Tensor, cell: Tensor) -> Tensor:
        import torch

        found: dict[int, Tensor] = {}
        hooks = []
        for number, width in self._widths.items():

            def keep(
                _: Any, __: Any, output: Tensor, number: int = number, width: int = width
            ) -> None:
                found[number] = output[:, :width]

            hooks.append(self.model.products[number - 1].register_forward_hook(keep))
        try:
            self.model(self._data(atoms, positions, cell), compute_force=False)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.cat([found[number] for number in self.layers], dim=1)

    def _data(self, atoms: Atoms, positions: Tensor, cell: Tensor) -> dict[str, Tensor]:
        """What the model takes, with shifts as functions of the cell."""
        import torch

        kinds = self.model.atomic_numbers.cpu().numpy()
        same = atoms.numbers[:, None] == kinds
        if not same.any(axis=1).all():
            unknown = atoms.symbols[int(np.argmin(same.any(axis=1)))]
            raise ValueError(f"the model does not know {unknown}")
        pairs = neighbor_pairs(atoms, self.cutoff)
        device = positions.device
        shifts = torch.as_tensor(pairs.shift, dtype=positions.dtype, device=device)
        return {
            "positions": positions,
            "cell": cell,
            "node_attrs": torch.as_tensor(same, dtype=positions.dtype, device=device),
            "edge_index": torch.as_tensor(np.stack([pairs.first, pairs.second]), device=device),
            "unit_shifts": shifts,
            "shifts": shifts @ cell,
            "batch": torch.zeros(len(atoms), dtype=torch.long, device=device),
            "ptr": torch.tensor([0, len(atoms)], device=device),
        }
