"""Features of the trained potentials of SevenNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ase import Atoms
from ase.data import chemical_symbols

from ase_sensitivity.descriptors.torch_function import neighbor_vectors
from ase_sensitivity.descriptors.trained import (
    LayeredDescriptor,
    chosen_layers,
    fingerprint,
    frozen_copy,
    needs_package,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PRECISION = 1e-7
"""The coefficients that make its features invariant are kept in single precision."""

GATE = "equivariant_gate"
"""How the last module of each interaction block is called."""


class SevenNetDescriptor(LayeredDescriptor):
    """What the readout of a SevenNet sees: invariant features of the atoms.

    Parameters
    ----------
    model
        A calculator (``SevenNetCalculator``), its model, the name of a model that comes with the
        package, ``"7net-0"``, or what else ``sevenn`` takes for one. It is copied and stays as it
        is.
    layers
        After which interaction blocks invariant features are taken, counted from 1: by default
        after the last, as the readout takes them. Several stand beside each other.
    modal
        Of a model with several modalities, which one to take.
    dtype, device, precision, batches
        As in :class:`TorchDescriptor`. By default 1e-7, as the model is invariant in single
        precision only.

    Raises
    ------
    ImportError
        If there is no sevenn.
    TypeError, ValueError
        If an argument has no meaning.
    """

    def __init__(
        self,
        model: Any = "7net-0",
        *,
        layers: int | Sequence[int] | None = None,
        modal: str | None = None,
        dtype: torch.dtype | str = "float64",
        device: torch.device | str = "cpu",
        precision: float | None = None,
        batches: bool = True,
    ) -> None:
        needs_package("sevenn", "SevenNetDescriptor")
        from e3nn.o3 import Irreps
        from sevenn.nn.sequential import AtomGraphSequential
        from sevenn.util import load_checkpoint

        if isinstance(model, str):
            model = load_checkpoint(model).build_model()
        own = getattr(model, "model", model)
        if not isinstance(own, AtomGraphSequential):
            raise TypeError(
                "`model` must be a SevenNet, a calculator with one or the name of one, not "
                f"{type(model).__name__}"
            )
        self.modal = getattr(model, "modal", None) if modal is None else modal
        if own.modal_map and self.modal not in own.modal_map:
            raise ValueError(f"`modal` is {self.modal!r} but must be one of {[*own.modal_map]}")
        self._settings = {"modal": self.modal}
        gates = [name for name in own._modules if name.endswith(GATE)]
        self.n_layers = len(gates)
        self.layers = chosen_layers(layers, self.n_layers)
        # Scalars stand first.
        self._widths = {
            gates[n - 1]: Irreps(own._modules[gates[n - 1]].gate.irreps_out).count("0e")
            for n in self.layers
        }
        super().__init__(
            self._features,
            float(own.cutoff),
            reach=max(self.layers) * float(own.cutoff),
            species=[chemical_symbols[z] for z in sorted(own.type_map)],
            dtype=dtype,
            device=device,
            batches=batches,
        )
        self.precision = max(PRECISION, self.precision) if precision is None else precision
        self.model = frozen_copy(own, self.device, self.dtype)
        self.model.set_is_batch_data(False)

    def __repr__(self) -> str:
        known = f"{len(self.species or ())} elements, {fingerprint(self.model)}"
        modal = "" if self.modal is None else f", modal={self.modal!r}"
        return f"SevenNetDescriptor({known}, layers={self.layers}{modal})"

    def _features(self, atoms: Atoms, positions: Tensor, cell: Tensor) -> Tensor:
        import sevenn._keys as key
        import torch

        unknown = sorted(set(atoms.numbers.tolist()) - set(self.model.type_map))
        if unknown:
            raise ValueError(f"the model does not know {chemical_symbols[unknown[0]]}")
        center, neighbor, vectors = neighbor_vectors(atoms, positions, cell, self.cutoff)
        numbers = torch.as_tensor(atoms.numbers, device=positions.device)
        data: dict[str, Any] = {
            key.NODE_FEATURE: numbers,
            key.ATOMIC_NUMBERS: numbers,
            key.POS: positions,
            key.EDGE_IDX: torch.stack([center, neighbor]),
            key.EDGE_VEC: vectors,
            key.NUM_ATOMS: torch.tensor(len(atoms), device=positions.device),
        }
        if self.model.modal_map:
            data[key.DATA_MODALITY] = self.modal
            data["x"] = numbers
        key_grad, self.model.key_grad = self.model.key_grad, None
        try:
            data = self.model._preprocess(data)
        finally:
            self.model.key_grad = key_grad
        found: dict[str, Tensor] = {}
        for name, module in self.model._modules.items():
            data = module(data)
            for what, value in data.items():  # elements become floats of single precision
                if torch.is_tensor(value) and value.is_floating_point():
                    data[what] = value.to(positions.dtype)
            if name in self._widths:
                found[name] = data[key.NODE_FEATURE][:, : self._widths[name]]
            if len(found) == len(self._widths):
                break
        return torch.cat([found[name] for name in self._widths], dim=1)
