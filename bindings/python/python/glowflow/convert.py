"""Models from the state dictionaries of other Glow programs, with equal likelihoods and latents.

Values may be numpy arrays or tensors of torch on any device. `image` (height and width) and `bits` are
required if a program's checkpoints do not record them.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from glowflow import Model, _arguments, _native, _safetensors

__all__ = ["from_chaiyujin", "from_file", "from_normflows", "from_openai", "from_rosinality", "from_y0ast"]

Permutation = Literal["conv1x1", "shuffle", "reverse"]
_logger = logging.getLogger("glowflow")


def from_y0ast(
    state_dict: Mapping[str, Any],
    *,
    image: int | tuple[int, int] | None = None,
    bits: int | None = None,
    permutation: Permutation | None = None,
    device: str = "auto",
) -> Model:
    """A model of https://github.com/y0ast/Glow-PyTorch."""
    return _convert("y0ast", state_dict, image, bits, permutation, device)


def from_rosinality(
    state_dict: Mapping[str, Any], *, image: int | tuple[int, int], bits: int, device: str = "auto"
) -> Model:
    """A model of https://github.com/rosinality/glow-pytorch."""
    return _convert("rosinality", state_dict, image, bits, None, device)


def from_chaiyujin(
    state_dict: Mapping[str, Any],
    *,
    image: int | tuple[int, int] | None = None,
    bits: int | None = None,
    permutation: Permutation | None = None,
    device: str = "auto",
) -> Model:
    """A model of https://github.com/chaiyujin/glow-pytorch."""
    return _convert("chaiyujin", state_dict, image, bits, permutation, device)


def from_openai(
    variables: Mapping[str, Any], *, image: int | tuple[int, int], bits: int, device: str = "auto"
) -> Model:
    """A model of https://github.com/openai/glow; `variables` are the arrays of `tf.train.load_checkpoint` by name."""
    return _convert("openai", variables, image, bits, None, device)


def from_normflows(
    state_dict: Mapping[str, Any],
    *,
    bits: int,
    image: int | tuple[int, int] | None = None,
    device: str = "auto",
) -> Model:
    """A `MultiscaleFlow` of `GlowBlock`s of https://github.com/VincentStimper/normalizing-flows."""
    return _convert("normflows", state_dict, image, bits, None, device)


def from_file(
    path: str | os.PathLike[str],
    source: Literal["y0ast", "rosinality", "chaiyujin", "openai", "normflows"],
    *,
    image: int | tuple[int, int] | None = None,
    bits: int | None = None,
    permutation: Permutation | None = None,
    device: str = "auto",
) -> Model:
    """A model of a checkpoint: PyTorch's formats (nothing in them is executed), safetensors, or `.npz`."""
    size = (image, image) if isinstance(image, int) else image
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "model.safetensors")
        for note in _native.convert(os.fspath(path), source, size, bits, permutation, out):
            _logger.info(note)
        return Model.load(out, device=device)


def _convert(
    source: Any,
    tensors: Mapping[str, Any],
    image: int | tuple[int, int] | None,
    bits: int | None,
    permutation: Permutation | None,
    device: str,
) -> Model:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "checkpoint.safetensors")
        _safetensors.write(path, {name: _array(value, name) for name, value in tensors.items()}, {})
        return from_file(path, source, image=image, bits=bits, permutation=permutation, device=device)


def _array(value: Any, name: str) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()
    return _arguments.as_array(value, name)
