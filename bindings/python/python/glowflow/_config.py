"""Configurations of models: the JSON object `glow.config` of a model's file, as frozen dataclasses."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, ClassVar, Literal

import numpy as np

from glowflow import _native

Dequantization = Literal["uniform", "variational"]


def _plain(value: Any) -> Any:
    """Converts a scalar of numpy to a number of Python."""
    return value.item() if isinstance(value, np.generic) else value


class _Config:
    architecture: ClassVar[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", tuple(map(_plain, self.image)))  # type: ignore[attr-defined]
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            object.__setattr__(self, field.name, _plain(getattr(self, field.name)))
        _native.check_config(json.dumps(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """All keys, beginning with the architecture."""
        fields = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {"architecture": self.architecture, **fields, "image": list(fields["image"])}

    def to_json(self) -> str:
        """JSON as in a model's file: keys added after the first release are omitted if they have their default values."""
        return _native.check_config(json.dumps(self.to_dict()))


@dataclasses.dataclass(frozen=True)
class GlowConfig(_Config):
    """A Glow (Kingma and Dhariwal 2018). The default is the published model of CIFAR-10."""

    architecture: ClassVar[str] = "glow"

    image: tuple[int, int, int] = (32, 32, 3)
    bits: int = 8
    levels: int = 3
    steps: int = 32
    hidden: int = 512
    coupling: Literal["affine", "additive", "mixture"] = "affine"
    permutation: Literal["conv1x1", "shuffle", "reverse"] = "conv1x1"
    classes: int = 0
    scale: Literal["sigmoid", "exp2tanh"] = "sigmoid"
    normalization: Literal["actnorm", "batchnorm"] = "actnorm"
    network: Literal["convolutions", "residual"] = "convolutions"
    network_blocks: int = 2
    attention: int = 0
    mixture_components: int = 4
    prior: Literal["channel", "edge"] = "channel"
    dequantization: Dequantization = "uniform"
    dequantization_couplings: int = 4
    dequantization_hidden: int = 128
    dequantization_channels: int = 32


@dataclasses.dataclass(frozen=True)
class RealNvpConfig(_Config):
    """A RealNVP (Dinh, Sohl-Dickstein and Bengio 2016). The default is the published model of CIFAR-10."""

    architecture: ClassVar[str] = "realnvp"

    image: tuple[int, int, int] = (32, 32, 3)
    bits: int = 8
    levels: int = 2
    blocks: int = 8
    hidden: int = 64
    dequantization: Dequantization = "uniform"
    dequantization_couplings: int = 4
    dequantization_hidden: int = 128
    dequantization_channels: int = 32


@dataclasses.dataclass(frozen=True)
class NiceConfig(_Config):
    """A NICE (Dinh, Krueger and Bengio 2014). The default is the published model of MNIST."""

    architecture: ClassVar[str] = "nice"

    image: tuple[int, int, int] = (28, 28, 1)
    bits: int = 8
    couplings: int = 4
    layers: int = 5
    hidden: int = 1000
    prior: Literal["logistic", "normal"] = "logistic"


Config = GlowConfig | RealNvpConfig | NiceConfig


def of_json(text: str) -> Config:
    """The configuration of a model's file."""
    keys = json.loads(text)
    kinds: dict[str, Any] = {kind.architecture: kind for kind in (GlowConfig, RealNvpConfig, NiceConfig)}
    return kinds[keys.pop("architecture", "glow")](**keys)
