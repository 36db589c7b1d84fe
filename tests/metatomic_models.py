"""Small models in the format of metatomic, with random weights."""

# ruff: noqa: UP006, UP035, UP045  (metatomic compares annotations, and TorchScript reads them)
from typing import Dict, List, Optional

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelMetadata,
    ModelOutput,
    NeighborListOptions,
    System,
)


class Radial(torch.nn.Module):
    """Numbers of neighbors at distances, and, with messages, what these neighbors have heard."""

    def __init__(self, cutoff: float, full: bool, messages: bool) -> None:
        super().__init__()
        self.cutoff, self.full, self.messages = cutoff, full, messages
        self.register_buffer("radii", torch.linspace(0.2, 0.8, 6) * cutoff)
        self.weights = torch.nn.Parameter(torch.rand(100, generator=torch.manual_seed(0)))

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        return [NeighborListOptions(cutoff=self.cutoff, full_list=self.full, strict=True)]

    def forward(
        self,
        systems: List[System],
        outputs: Dict[str, ModelOutput],
        selected_atoms: Optional[Labels] = None,
    ) -> Dict[str, TensorMap]:
        system = systems[0]
        block = system.get_neighbor_list(self.requested_neighbor_lists()[0])
        first = block.samples.column("first_atom").long()
        second = block.samples.column("second_atom").long()
        vectors = block.values[:, :, 0]
        if not self.full:
            first, second = torch.cat([first, second]), torch.cat([second, first])
            vectors = torch.cat([vectors, -vectors])
        distances = (vectors**2).sum(dim=1, keepdim=True).sqrt() / self.cutoff
        near = (1 - distances**2) ** 4
        pairs = torch.exp(-30 * (distances - self.radii / self.cutoff) ** 2) * near
        kinds = self.weights[system.types.long()]
        empty = torch.zeros(len(system.types), 6, dtype=pairs.dtype)
        heard = empty.index_add(0, first, pairs * kinds[second, None])
        if self.messages:
            passed = empty.index_add(0, first, pairs * heard[second])
            heard = torch.cat([heard, passed], dim=1)
        atoms = torch.arange(len(heard), dtype=torch.int32)
        samples = torch.stack([torch.zeros_like(atoms), atoms], dim=1)
        order = torch.arange(len(atoms) - 1, -1, -1)  # samples may come in any order
        features = TensorBlock(
            heard[order],
            Labels(["system", "atom"], samples[order]),
            [],
            Labels(["feature"], torch.arange(heard.shape[1], dtype=torch.int32)[:, None]),
        )
        key = Labels(["_"], torch.zeros(1, 1, dtype=torch.int32))
        found: Dict[str, TensorMap] = {}
        for name in outputs:
            found[name] = TensorMap(key, [features])
        return found


def exported(
    *,
    cutoff: float = 3.5,
    full: bool = True,
    messages: bool = False,
    dtype: str = "float64",
    unit: str = "angstrom",
    name: str = "feature",
) -> AtomisticModel:
    """A model with a cutoff in Å, which it keeps in another unit."""
    lengths = {"angstrom": 1.0, "nm": 0.1}
    own = Radial(cutoff * lengths[unit], full, messages)
    capabilities = ModelCapabilities(
        outputs={name: ModelOutput(sample_kind="atom")},
        atomic_types=[1, 6, 8, 11, 14, 17],
        interaction_range=cutoff * lengths[unit] * (2 if messages else 1),
        length_unit=unit,
        supported_devices=["cpu"],
        dtype=dtype,
    )
    own = own.to(getattr(torch, dtype)).eval()
    return AtomisticModel(own, ModelMetadata(name="radial"), capabilities)
