"""Reversible generative models of images with exact likelihoods: Glow, RealNVP and NICE.

B images of H×W pixels and C channels; D = H·W·C; a model of L levels has latents [B, h_l, w_l, c_l], D numbers per image in
total. Results are numpy arrays. Arguments may be numpy, or anything on the CPU with `__dlpack__` or `__array__` (torch, jax);
they are not copied if they are C-contiguous and of the expected type. `torch.from_numpy(result)` shares the result's memory.
Every call that computes releases the GIL, and one model may be used from several threads.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

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

__version__: str

class DeviceError(RuntimeError):
    """A device is missing, failed, or has too little memory."""

class Diverged(RuntimeError):
    """Training encountered only non-finite gradients."""

@dataclass(frozen=True)
class GlowConfig:
    """A Glow (Kingma and Dhariwal 2018). The default is the published model of CIFAR-10."""

    architecture: ClassVar[str]
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
    dequantization: Literal["uniform", "variational"] = "uniform"
    dequantization_couplings: int = 4
    dequantization_hidden: int = 128
    dequantization_channels: int = 32
    def __post_init__(self) -> None: ...
    def to_dict(self) -> dict[str, Any]: ...
    def to_json(self) -> str: ...

@dataclass(frozen=True)
class RealNvpConfig:
    """A RealNVP (Dinh, Sohl-Dickstein and Bengio 2016). The default is the published model of CIFAR-10."""

    architecture: ClassVar[str]
    image: tuple[int, int, int] = (32, 32, 3)
    bits: int = 8
    levels: int = 2
    blocks: int = 8
    hidden: int = 64
    dequantization: Literal["uniform", "variational"] = "uniform"
    dequantization_couplings: int = 4
    dequantization_hidden: int = 128
    dequantization_channels: int = 32
    def __post_init__(self) -> None: ...
    def to_dict(self) -> dict[str, Any]: ...
    def to_json(self) -> str: ...

@dataclass(frozen=True)
class NiceConfig:
    """A NICE (Dinh, Krueger and Bengio 2014). The default is the published model of MNIST."""

    architecture: ClassVar[str]
    image: tuple[int, int, int] = (28, 28, 1)
    bits: int = 8
    couplings: int = 4
    layers: int = 5
    hidden: int = 1000
    prior: Literal["logistic", "normal"] = "logistic"
    def __post_init__(self) -> None: ...
    def to_dict(self) -> dict[str, Any]: ...
    def to_json(self) -> str: ...

Config: TypeAlias = GlowConfig | RealNvpConfig | NiceConfig

class Encoded(NamedTuple):
    latents: list[NDArray[np.float32]]
    """L arrays [B, h_l, w_l, c_l], standardised: N(0, 1) under the model."""
    log_prob: NDArray[np.float64]
    """[B], nats: the log-density at the dequantised images, times the volume of a bin."""

class Model:
    """A model with its weights on a device.

    Models compute in f32 unless another precision is given: in bf16 and tf32 inverses are not exact.
    """

    def __init__(self, config: Config, *, seed: int = 0, device: str = "auto", precision: str = "f32") -> None:
        """A new, untrained model."""
    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto", precision: str = "f32") -> Model:
        """Loads a `model.safetensors`, or the one in a run's folder."""
    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        device: str = "auto",
        precision: str = "f32",
        **hub: Any,
    ) -> Model:
        """Loads a folder with `model.safetensors`, the bundled model `"portraits"`, or a model of the Hub if `huggingface_hub` is installed."""
    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a `model.safetensors`, atomically."""
    def save_pretrained(
        self, folder: str | os.PathLike[str], *, push_to_hub: bool = False, repo_id: str | None = None
    ) -> None:
        """Writes `model.safetensors`, `config.json` and, unless there is one, a model card `README.md`."""
    @property
    def config(self) -> Config:
        """The architecture."""
    @property
    def latent_shapes(self) -> list[tuple[int, int, int]]:
        """Height, width and channels of each level's latents."""
    @property
    def num_parameters(self) -> int:
        """Number of trained parameters."""
    @property
    def fingerprint(self) -> int:
        """Checksum of architecture and weights, which identifies the model."""
    @property
    def device(self) -> str:
        """Name of the device."""
    @property
    def classes(self) -> int:
        """Number of classes; 0 for a model without labels."""
    def encode(
        self,
        images: Any,
        labels: Any = None,
        *,
        noise: Literal["typical", "midpoint", "uniform", "variational"] | Any = "typical",
        seed: int = 0,
    ) -> Encoded:
        """Latents and log-densities of uint8 [B, H, W, C].

        `noise` makes pixels continuous: `typical`, the centre of each bin or the median of the model's own dequantiser;
        `midpoint`, the centre; `uniform` or `variational`, drawn from `seed`; or float32 [B, H, W, C] in [0, 1/2**bits).
        """
    def decode(self, latents: Any, labels: Any = None, *, continuous: bool = False) -> NDArray[Any]:
        """Decodes latents as returned by `encode`: uint8 [B, H, W, C], or with `continuous` float32 in [-0.5, 0.5)."""
    def log_prob(
        self,
        images: Any,
        labels: Any = None,
        *,
        noise: Literal["midpoint", "uniform", "variational"] | Any = "midpoint",
        seed: int = 0,
        draws: int = 1,
        importance: bool = False,
    ) -> NDArray[np.float64]:
        """log p(x) in nats, [B]. At the midpoint it is the density of one point, not a likelihood of the image."""
    def bits_per_dim(
        self,
        images: Any,
        labels: Any = None,
        *,
        noise: Literal["midpoint", "uniform", "variational"] | None = None,
        seed: int = 0,
        draws: int = 1,
        importance: bool = False,
    ) -> NDArray[np.float64]:
        """-log p(x)/(D log 2), [B]: the value reported in papers. By default the noise is that of training."""
    def sample(
        self, num_samples: int = 1, *, temperature: float = 0.7, labels: Any = None, seed: int = 0
    ) -> NDArray[np.uint8]:
        """New images, uint8 [num_samples, H, W, C]."""
    def sample_and_log_prob(
        self, num_samples: int = 1, *, temperature: float = 1.0, labels: Any = None, seed: int = 0
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """New images, and the model's log-density at each sampled point times the volume of a bin, in nats."""
    def sample_latents(
        self, num_samples: int = 1, *, temperature: float = 1.0, seed: int = 0
    ) -> list[NDArray[np.float32]]:
        """Latents drawn at a temperature; image `i` of a seed does not depend on the number of images."""
    def inverse_error(self, images: Any, labels: Any = None) -> float:
        """max |decode(encode(v)) - v| over the images."""
    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copies of all tensors, by their names in `docs/model.md`."""

Glow = Model

def interpolate(
    a: Sequence[Any], b: Sequence[Any], steps: int = 9, *, path: Literal["linear", "spherical"] = "linear"
) -> list[NDArray[np.float32]]:
    """Interpolates between the latents of two images ([1, h, w, c] per level): [steps, h, w, c] per level."""

class Directions:
    """Directions of attributes in a model's latent space: the difference of mean latents with and without each."""

    def __init__(self) -> None: ...
    @classmethod
    def fit(
        cls,
        model: Model,
        images: Any,
        attributes: Mapping[str, Any],
        *,
        labels: Any = None,
        orthogonalize: Sequence[str] = (),
    ) -> Directions:
        """Finds directions over uint8 [N, H, W, C]; `attributes` maps names to arrays [N] of 1, 0 and nan (unknown)."""
    @classmethod
    def load(cls, path: str | os.PathLike[str], model: Model) -> Directions:
        """Loads a `directions.safetensors` of the model, or the one in a run's folder."""
    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a `directions.safetensors`, atomically."""
    @property
    def names(self) -> list[str]:
        """Names of the attributes."""
    @property
    def auc(self) -> dict[str, tuple[float, float]]:
        """AUC on held-out images and its standard error; nan for directions that were not measured."""
    def __getitem__(self, name: str) -> list[NDArray[np.float32]]:
        """The direction of an attribute: [1, h, w, c] per level."""
    def move(self, latents: Any, /, **amounts: float) -> list[NDArray[np.float32]]:
        """latents + Σ amount·direction, such as `directions.move(latents, Smiling=0.7)`. Amounts are −3 to 3."""

class TrainState(NamedTuple):
    """Training state passed to the callback, every `log_every` steps."""

    step: int
    images: int
    bits_per_dim: float
    grad_norm: float
    lr: float
    images_per_second: float
    test_bits_per_dim: float | None

def train(
    data: Any,
    out: str | os.PathLike[str],
    *,
    model: Config | None = None,
    preset: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    test: Any = None,
    labels: Any = None,
    batch: int | None = None,
    lr: float | None = None,
    optimizer: Literal["adamax", "adam"] | None = None,
    ema: float | None = None,
    seed: int | None = None,
    backprop: Literal["reversible", "stored"] | None = None,
    precision: Literal["auto", "f32", "tf32", "bf16"] | None = None,
    device: str = "auto",
    resume: bool = False,
    callback: Callable[[TrainState], bool | None] | None = None,
    **overrides: Any,
) -> Model:
    """Trains in the folder `out`, like the command line, and returns the model with averaged weights.

    `data` and `test` are a folder, a file, `"portraits"` (built in), or uint8 [N, H, W, C]; `test` may be a pair of images
    and labels. The callback runs in the calling thread; if it returns True, training ends with a checkpoint, as after Ctrl-C.
    """

def portraits(count: int, size: int = 32, *, seed: int = 0) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.bool_]]]:
    """Drawn portraits, uint8 [count, size, size, 3], and their attributes by name, bool [count].

    A larger `count` begins with the same portraits; `train("portraits", ...)` uses seed 0.
    """

def preset_names() -> list[str]:
    """Names of the presets of `train`."""

def read_metrics(run: str | os.PathLike[str]) -> Mapping[str, NDArray[Any]]:
    """The `metrics.jsonl` of a run as columns: `step`, and a float64 array per metric, nan at steps without it."""

def study(
    name: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    scale: Literal["cpu", "gpu"] = "cpu",
    seeds: Sequence[int] | None = None,
    minutes: float | None = None,
    images: int | None = None,
    steps: int | None = None,
    flops: float | None = None,
    arms: Sequence[str] | None = None,
    curve: Sequence[float] | None = None,
    device: str = "auto",
    progress: bool = False,
    **overrides: Any,
) -> dict[str, Any]:
    """Trains the unfinished runs of a study in the folder `out`, and returns its results."""

def study_names() -> list[str]:
    """Names of the built-in studies."""
