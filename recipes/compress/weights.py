"""A network's parameters and buffers as bytes, the same for the same values."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from recipes.errors import ModelError

if TYPE_CHECKING:
    import torch


def weights_bytes(module: torch.nn.Module) -> bytes:
    """Serialise all values that `state_dict` names, as an uncompressed .npz."""
    arrays: dict[str, Any] = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def load_weights(module: torch.nn.Module, data: bytes, name: str) -> None:
    """Give a network the values that `weights_bytes` wrote; a layer without a bias may get one.

    Raises ModelError when the network is not built as it was.
    """
    import torch

    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        known = module.state_dict()
        for key in arrays.files:
            parent, _, last = key.rpartition(".")
            value = torch.from_numpy(arrays[key])
            owner = module.get_submodule(parent) if key in known or last == "bias" else None
            if owner is None or (key in known and known[key].shape != value.shape):
                raise ModelError(f"{name}: the network is not built as it was when the study began ({key} differs); "
                                 "a factory must return the same network every time")
            buffer = last in dict(owner.named_buffers(recurse=False))
            setattr(owner, last, value if buffer else torch.nn.Parameter(value, value.is_floating_point()))
        missing = sorted(set(known) - set(arrays.files))
    if missing:
        raise ModelError(f"{name}: the network is not built as it was when the study began ({missing[0]} is new); a "
                         "factory must return the same network every time")
