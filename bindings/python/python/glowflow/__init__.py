"""Reversible generative models of images with exact likelihoods: Glow, RealNVP and NICE.

Shapes: B images of H×W pixels and C channels; D = H·W·C; a model of L levels has latents [B, h_l, w_l, c_l], D numbers
per image in total. Images are uint8 [B, H, W, C], results are numpy arrays.
"""

from glowflow._config import Config, GlowConfig, NiceConfig, RealNvpConfig
from glowflow._directions import Directions
from glowflow._model import Encoded, Glow, Model, interpolate
from glowflow._native import DeviceError, Diverged, __version__
from glowflow._portraits import portraits
from glowflow._study import study, study_names
from glowflow._training import TrainState, preset_names, read_metrics, train

__all__ = [
    "Config",
    "DeviceError",
    "Directions",
    "Diverged",
    "Encoded",
    "Glow",
    "GlowConfig",
    "Model",
    "NiceConfig",
    "RealNvpConfig",
    "TrainState",
    "__version__",
    "interpolate",
    "portraits",
    "preset_names",
    "read_metrics",
    "study",
    "study_names",
    "train",
]
