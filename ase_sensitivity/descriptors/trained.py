"""What descriptors of trained models have in common."""

from __future__ import annotations

import copy
import hashlib
import importlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_sensitivity.descriptors.torch_function import TorchDescriptor, needs_torch

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


def needs_package(package: str, what: str, *, torch: bool = True, module: str | None = None) -> Any:
    """A package, which is an extra of the same name; ImportError that names it, if there is none.

    Parameters
    ----------
    package
        Its name.
    what
        What needs it.
    torch
        Whether it needs torch, which is looked for first.
    module
        What is imported of it, if that has another name.
    """
    if torch:
        needs_torch(what, package)
    try:
        return importlib.import_module(module or package)
    except ImportError as error:
        raise ImportError(
            f'{what} needs {package}: pip install "ase-sensitivity[{package}]"'
        ) from error


def chosen_layers(layers: int | Sequence[int] | None, n_layers: int) -> tuple[int, ...]:
    """Numbers of layers, counted from 1: by default the last.

    Raises
    ------
    ValueError
        If there is one that a model does not have, or none.
    """
    wanted = (n_layers,) if layers is None else tuple(np.atleast_1d(layers).tolist())
    if not wanted or not all(isinstance(n, int) and 0 < n <= n_layers for n in wanted):
        raise ValueError(f"`layers` is {layers!r} but must be numbers from 1 to {n_layers}")
    return wanted


class LayeredDescriptor(TorchDescriptor):
    """Features of a trained model after some of its layers.

    Attributes
    ----------
    model
        A copy of the model.
    layers
        The layers that features are taken from, counted from 1.
    n_layers
        How many the model has.
    """

    model: Any
    layers: tuple[int, ...]
    n_layers: int
    _settings: Mapping[str, Any] = MappingProxyType({})  # that only this class has

    def at_layers(self, layers: int | Sequence[int]) -> Self:
        """The same model with features of other layers, counted from 1.

        Raises
        ------
        ValueError
            If there is one that the model does not have, or none.
        """
        kind: Any = type(self)
        return kind(
            self.model,
            layers=layers,
            dtype=self.dtype,
            device=self.device,
            precision=self.precision,
            batches=self.batches,
            **self._settings,
        )


def frozen_copy(model: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A copy of a model in another data type, whose weights are constants; the model stays."""
    own = copy.deepcopy(model).to(device=device, dtype=dtype).eval()
    for parameter in own.parameters():
        parameter.requires_grad_(False)
    return own


def fingerprint(model: Any) -> str:
    """Eight digits that tell the weights of a model from others, for the text of a descriptor."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        if hasattr(value, "detach"):
            digest.update(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()[:8]
