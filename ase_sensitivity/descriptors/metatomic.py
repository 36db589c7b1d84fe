"""Features of models in the format of metatomic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from ase_sensitivity.descriptors.torch_function import TorchDescriptor
from ase_sensitivity.descriptors.trained import fingerprint, frozen_copy, needs_package
from ase_sensitivity.geometry.neighbors import neighbor_pairs
from ase_sensitivity.validation import check_exists

if TYPE_CHECKING:
    import torch
    from torch import Tensor

OUTPUTS = ("feature", "mtt::aux::energy_last_layer_features")
"""Outputs with features of atoms, by preference."""

SAMPLES = ["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"]


class MetatomicDescriptor(TorchDescriptor):
    """An output of a metatomic model, such as those that metatrain exports.

    Parameters
    ----------
    model
        An ``AtomisticModel``, or the name of its file. It is copied and stays as it is. Loading a
        file may run code that is in it, so that it has to be trusted.
    output
        Which output is taken: by default ``feature``, or else the
        ``mtt::aux::energy_last_layer_features`` of metatrain. It must be available for each atom
        and should be invariant under rotations, or be declared as not.
    extensions
        The directory with the compiled extensions that a file needs.
    device, precision, batches, rotation_invariant
        As in :class:`TorchDescriptor`. The data type is that of the model. PET is not invariant
        under rotations.

    Raises
    ------
    ImportError
        If there is no metatomic.
    FileNotFoundError
        If there is no such file.
    TypeError, ValueError
        If an argument has no meaning, or the model has no such output.

    Notes
    -----
    The reach is the interaction range of the model, the cutoff that of its largest list of
    neighbors, which with message passing is less.
    """

    def __init__(
        self,
        model: Any,
        *,
        output: str | None = None,
        extensions: str | None = None,
        device: torch.device | str = "cpu",
        precision: float | None = None,
        batches: bool = True,
        rotation_invariant: bool = True,
    ) -> None:
        needs_package("metatomic", "MetatomicDescriptor", module="metatomic.torch")
        from metatomic.torch import (
            ModelEvaluationOptions,
            ModelOutput,
            is_atomistic_model,
            load_atomistic_model,
        )

        if isinstance(model, str | Path):
            check_exists(model)
            model = load_atomistic_model(str(model), extensions_directory=extensions)
        if not (hasattr(model, "capabilities") and is_atomistic_model(model)):
            raise TypeError(
                "`model` must be an AtomisticModel of metatomic or the name of its file, not "
                f"{type(model).__name__}"
            )
        capabilities = model.capabilities()
        self.output = _chosen_output(output, list(capabilities.outputs))
        if needed := list(model.requested_inputs(use_new_names=True)):
            raise ValueError(f"the model needs {', '.join(needed)}, which is not supported")
        unit = capabilities.length_unit
        self._lists = model.requested_neighbor_lists()
        for options in self._lists:
            options.length_unit = unit
        radii = [float(options.engine_cutoff("angstrom")) for options in self._lists]
        reach = float(capabilities.engine_interaction_range("angstrom"))
        if not radii:
            raise ValueError("the model asks for no neighbors, so that no cutoff is known")
        super().__init__(
            self._features,
            max(radii),
            reach=max(reach, *radii),
            species=[chemical_symbols[z] for z in sorted(capabilities.atomic_types)],
            dtype=capabilities.dtype,
            device=device,
            precision=precision,
            batches=batches,
            rotation_invariant=rotation_invariant,
        )
        self.model = frozen_copy(model, self.device, self.dtype)
        self._options = ModelEvaluationOptions(
            length_unit="angstrom", outputs={self.output: ModelOutput(sample_kind="atom")}
        )

    def __repr__(self) -> str:
        known = f"{self.model.metadata().name!r}, {fingerprint(self.model)}"
        return f"MetatomicDescriptor({known}, output={self.output!r})"

    def _features(self, atoms: Atoms, positions: Tensor, cell: Tensor) -> Tensor:
        import torch
        from metatomic.torch import System

        system = System(
            torch.as_tensor(atoms.numbers, dtype=torch.int32, device=positions.device),
            positions,
            cell,
            torch.as_tensor(atoms.pbc.copy(), device=positions.device),
        )
        for options in self._lists:
            system.add_neighbor_list(options, _neighbors(atoms, positions, cell, options))
        found = self.model([system], self._options, check_consistency=False)[self.output]
        columns = []
        for block in found.blocks():
            if "atom" not in block.samples.names:
                raise ValueError(f"the output {self.output} of the model has no rows of atoms")
            values = block.values.reshape(len(block.values), -1)
            atom = block.samples.column("atom").long()
            rows = torch.zeros(
                len(atoms), values.shape[1], dtype=values.dtype, device=values.device
            )
            columns.append(rows.index_add(0, atom, values))
        return torch.cat(columns, dim=1)


def _chosen_output(wanted: str | None, known: list[str]) -> str:
    if wanted is None:
        wanted = next((name for name in OUTPUTS if name in known), OUTPUTS[0])
    if wanted not in known:
        raise ValueError(f"`output` is {wanted!r} but must be one of {', '.join(known)}")
    return wanted


def _neighbors(atoms: Atoms, positions: Tensor, cell: Tensor, options: Any) -> Any:
    """A list of neighbors whose vectors are functions of positions and cell."""
    import torch
    from metatensor.torch import Labels, TensorBlock

    pairs = neighbor_pairs(atoms, float(options.engine_cutoff("angstrom")))
    labels = np.column_stack([pairs.first, pairs.second, pairs.shift])
    if not options.full_list:  # each pair once: the one that is greater as (second, shift)
        forward = pairs.second > pairs.first
        onto_itself = pairs.second == pairs.first
        sign = pairs.shift @ np.array([1_000_000_000_000, 1_000_000, 1])
        labels = labels[forward | (onto_itself & (sign > 0))]
    samples = torch.as_tensor(labels.astype(np.int32), device=positions.device)
    first, second = samples[:, 0].long(), samples[:, 1].long()
    vectors = positions[second] - positions[first] + samples[:, 2:].to(cell.dtype) @ cell
    device = positions.device
    return TensorBlock(
        values=vectors[:, :, None],
        samples=Labels(SAMPLES, samples),
        components=[Labels("xyz", torch.arange(3, dtype=torch.int32, device=device)[:, None])],
        properties=Labels("distance", torch.zeros(1, 1, dtype=torch.int32, device=device)),
    )
