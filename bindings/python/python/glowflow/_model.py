"""Models of any architecture: encode, decode, score, sample."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from glowflow import _arguments, _config, _native

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Encoded(NamedTuple):
    """Images in latent space."""

    latents: list[NDArray[np.float32]]
    """L arrays [B, h_l, w_l, c_l], standardised: N(0, 1) under the model."""
    log_prob: NDArray[np.float64]
    """[B], nats: the log-density at the dequantised images, times the volume of a bin."""


class Model:
    """A model with its weights on a device.

    Models compute in f32 unless another precision is given: in bf16 and tf32 inverses are not exact.
    """

    def __init__(
        self, config: _config.Config, *, seed: int = 0, device: str = "auto", precision: str = "f32"
    ) -> None:
        """A new, untrained model."""
        seed = _arguments.whole(seed, "seed")
        self._set(_native.Model(config.to_json(), seed, _arguments.device(device), precision))

    def _set(self, native: _native.Model) -> None:
        self._native = native
        self._config = _config.of_json(native.config)
        if native.notice is not None:
            warnings.warn(native.notice, RuntimeWarning, stacklevel=3)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto", precision: str = "f32") -> Model:
        """Loads a `model.safetensors`, or the one in a run's folder."""
        model = cls.__new__(cls)
        model._set(_native.Model.load(os.fspath(path), _arguments.device(device), precision))
        return model

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
        """Loads a folder with `model.safetensors`, the bundled model `"portraits"`, or a model of the Hugging Face Hub if `huggingface_hub` is installed.

        `hub` are arguments of `huggingface_hub.snapshot_download`.
        """
        from glowflow import _hub

        folder = _hub.folder(name_or_path, revision, hub)
        model = cls.load(folder, device=device, precision=precision)
        _hub.check(folder, model)
        return model

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a `model.safetensors`, atomically."""
        self._native.save(os.fspath(path))

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, push_to_hub: bool = False, repo_id: str | None = None
    ) -> None:
        """Writes `model.safetensors`, `config.json` and, unless there is one, a model card `README.md`."""
        from glowflow import _hub

        _hub.save(self, folder, push_to_hub, repo_id)

    @property
    def config(self) -> _config.Config:
        """The architecture."""
        return self._config

    @property
    def latent_shapes(self) -> list[tuple[int, int, int]]:
        """Height, width and channels of each level's latents."""
        return self._native.latent_shapes

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters."""
        return self._native.num_parameters

    @property
    def fingerprint(self) -> int:
        """Checksum of architecture and weights, which identifies the model."""
        return self._native.fingerprint

    @property
    def device(self) -> str:
        """Name of the device."""
        return self._native.device

    @property
    def classes(self) -> int:
        """Number of classes; 0 for a model without labels."""
        return getattr(self._config, "classes", 0)

    def __repr__(self) -> str:
        return f"<glowflow.Model {self.config!r}, {self.num_parameters} parameters, on {self.device}>"

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
        pixels, classes = self._images(images, labels)
        kind, given = _arguments.noise(noise, pixels, 2**self.config.bits)
        seed = _arguments.whole(seed, "seed")
        return Encoded(*self._native.encode(pixels, classes, kind, seed, given))

    def decode(self, latents: Any, labels: Any = None, *, continuous: bool = False) -> NDArray[Any]:
        """Decodes latents as returned by `encode`: uint8 [B, H, W, C], or with `continuous` float32 in [-0.5, 0.5)."""
        levels = _arguments.latents(latents, self.latent_shapes)
        classes = _arguments.labels(labels, len(levels[0]), self.classes)
        if continuous:
            return self._native.decode_continuous(levels, classes)
        return _finite(*self._native.decode(levels, classes))

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
        """log p(x) in nats, [B].

        At the midpoint it is the density of one point, deterministic but not a likelihood of the image. With random noise it
        is the mean over `draws`, a lower bound in expectation, or with `importance` the log of the mean likelihood.
        """
        if not isinstance(noise, str):
            if draws != 1 or importance:
                raise ValueError("draws and importance are for random noise: leave them out, or pass noise='uniform'")
            return self.encode(images, labels, noise=noise).log_prob
        return self._score(images, labels, noise, seed, draws, importance, False)

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
        """-log p(x)/(D log 2), [B]: the value reported in papers. By default the noise is that of training: uniform,
        or the model's own."""
        if noise is None:
            noise = self._native.noise
        if not isinstance(noise, str):
            raise TypeError("noise is not a name: pass 'midpoint', 'uniform' or 'variational', or call log_prob with an array")
        return self._score(images, labels, noise, seed, draws, importance, True)

    def _score(
        self, images: Any, labels: Any, noise: str, seed: int, draws: int, importance: bool, bits: bool
    ) -> NDArray[np.float64]:
        pixels, classes = self._images(images, labels)
        seed, draws = _arguments.whole(seed, "seed"), _arguments.whole(draws, "draws", 1)
        return self._native.score(pixels, classes, noise, seed, draws, importance, bits)

    def sample(
        self, num_samples: int = 1, *, temperature: float = 0.7, labels: Any = None, seed: int = 0
    ) -> NDArray[np.uint8]:
        """New images, uint8 [num_samples, H, W, C]."""
        count = _arguments.whole(num_samples, "num_samples")
        classes = _arguments.labels(labels, count, self.classes)
        seed = _arguments.whole(seed, "seed")
        return _finite(*self._native.sample(count, float(temperature), classes, seed))

    def sample_and_log_prob(
        self, num_samples: int = 1, *, temperature: float = 1.0, labels: Any = None, seed: int = 0
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """New images, and the model's log-density at each sampled point times the volume of a bin, in nats.

        Points outside of the pixels' range count as its nearest point. The density is that of temperature 1.
        """
        latents = self.sample_latents(num_samples, temperature=temperature, seed=seed)
        points = self.decode(latents, labels, continuous=True).astype(np.float64)
        bits, bins = self.config.bits, 2**self.config.bits
        finite = np.isfinite(points).all(axis=(1, 2, 3))
        points[~finite] = 0.0
        values = np.clip(np.floor((points + 0.5) * bins), 0, bins - 1)
        noise = (points + 0.5 - values / bins).astype(np.float32)
        noise = np.clip(noise, 0, np.nextafter(np.float32(1 / bins), np.float32(0)))
        pixels = values.astype(np.uint8) << (8 - bits)
        log_prob = self.encode(pixels, labels, noise=noise).log_prob
        log_prob[~finite] = np.nan
        pixels[~finite] = 0
        return _finite(pixels, finite), log_prob

    def sample_latents(
        self, num_samples: int = 1, *, temperature: float = 1.0, seed: int = 0
    ) -> list[NDArray[np.float32]]:
        """Latents drawn at a temperature; image `i` of a seed does not depend on the number of images."""
        count, seed = _arguments.whole(num_samples, "num_samples"), _arguments.whole(seed, "seed")
        return self._native.sample_latents(count, float(temperature), seed)

    def inverse_error(self, images: Any, labels: Any = None) -> float:
        """max |decode(encode(v)) - v| over the images."""
        return self._native.inverse_error(*self._images(images, labels))

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copies of all tensors, by their names in `docs/model.md`."""
        return {name: flat.reshape(shape) for name, shape, flat in self._native.tensors()}

    def _images(self, images: Any, labels: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
        pixels = _arguments.images(images, self.config.image)
        return pixels, _arguments.labels(labels, len(pixels), self.classes)


Glow = Model
"""Alias of `Model`, named after its first architecture."""


def interpolate(
    a: Sequence[Any], b: Sequence[Any], steps: int = 9, *, path: Literal["linear", "spherical"] = "linear"
) -> list[NDArray[np.float32]]:
    """Interpolates between the latents of two images ([1, h, w, c] per level): [steps, h, w, c] per level."""
    if path not in ("linear", "spherical"):
        raise ValueError(f"path is {path!r}: pass 'linear' or 'spherical'")
    ends = _arguments.latents(a, None, "a"), _arguments.latents(b, None, "b")
    return _native.interpolate(*ends, _arguments.whole(steps, "steps", 2), path == "spherical")


def _finite(pixels: NDArray[np.uint8], finite: Sequence[bool]) -> NDArray[np.uint8]:
    """Returns the pixels, with a warning if some images have non-finite values."""
    count = len(finite) - int(np.count_nonzero(finite))
    if count:
        warnings.warn(
            f"{count} of {len(finite)} images have values that are not finite; their pixels are 0",
            RuntimeWarning,
            stacklevel=3,
        )
    return pixels
