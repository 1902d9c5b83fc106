"""Models as plain PyTorch modules, for gradients with respect to pixels and for fine-tuning.

The modules are written for clarity and use the formulas and tensor names of `docs/model.md`. They are several times slower
than `glowflow.Model`. Images are [B, C, H, W] inside a module; the latents that it returns are [B, h, w, c], as those of
`Model.encode`.
"""

from __future__ import annotations

import os

import torch

from glowflow import Config, GlowConfig, Model, RealNvpConfig, _safetensors
from glowflow.torch._flow import FlowModule
from glowflow.torch._glow import GlowModule
from glowflow.torch._nice import NiceModule
from glowflow.torch._realnvp import RealNvpModule

__all__ = ["FlowModule", "GlowModule", "NiceModule", "RealNvpModule", "as_module", "to_safetensors"]


def as_module(model: Model | str | os.PathLike[str]) -> FlowModule:
    """A model, given directly or as a file or run folder, as a module in evaluation mode on the CPU."""
    if not isinstance(model, Model):
        model = Model.load(model, device="cpu")
    tensors = {name: torch.from_numpy(array) for name, array in model.state_dict().items()}
    module = _module(model.config)
    own = module.state_dict().keys()
    module.others = {name: tensor for name, tensor in tensors.items() if name not in own}
    unknown = [name for name in module.others if not name.startswith("dequantizer.")]
    if unknown:
        raise NotImplementedError(f"as_module has no {unknown[0]}")
    module.load_state_dict({name: tensor for name, tensor in tensors.items() if name in own})
    return module.eval()


def to_safetensors(module: FlowModule, path: str | os.PathLike[str]) -> None:
    """Writes a module as a `model.safetensors`, which `Model.load` reads."""
    tensors = {**module.others, **module.state_dict()}
    arrays = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu()
        arrays[name] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    _safetensors.write(path, arrays, {"glow.config": module.config.to_json()})


def _module(config: Config) -> FlowModule:
    if isinstance(config, GlowConfig):
        return GlowModule(config)
    if isinstance(config, RealNvpConfig):
        return RealNvpModule(config)
    return NiceModule(config)
