"""Attribute directions: vectors in latent space that change an attribute, such as a smile."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from glowflow import _arguments, _native
from glowflow._model import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Directions:
    """Directions of attributes in a model's latent space: the difference of mean latents with and without each."""

    _inner: _native.Directions

    def __init__(self) -> None:
        raise TypeError("use Directions.fit(model, images, attributes) or Directions.load(path, model)")

    @classmethod
    def _of(cls, native: _native.Directions) -> Directions:
        directions = cls.__new__(cls)
        directions._inner = native
        return directions

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
        """Finds directions over uint8 [N, H, W, C].

        `attributes` maps names to arrays [N] of 1, 0 and nan (unknown). One in five images is held out to measure `auc`.
        Directions named in `orthogonalize` are removed from all others.
        """
        pixels, classes = model._images(images, labels)
        names = [str(name) for name in attributes]
        columns = [_answers(attributes[name], name, len(pixels)) for name in attributes]
        values = np.ascontiguousarray(np.stack(columns, 1)) if columns else np.empty((len(pixels), 0), np.int8)
        native, notices = _native.Directions.fit(
            model._native, (pixels, classes), names, values, list(orthogonalize)
        )
        for notice in notices:
            warnings.warn(notice, RuntimeWarning, stacklevel=2)
        return cls._of(native)

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: Model) -> Directions:
        """Loads a `directions.safetensors` of the model, or the one in a run's folder."""
        return cls._of(_native.Directions.load(os.fspath(path), model._native))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a `directions.safetensors`, atomically."""
        self._inner.save(os.fspath(path))

    @property
    def names(self) -> list[str]:
        """Names of the attributes."""
        return self._inner.names

    @property
    def auc(self) -> dict[str, tuple[float, float]]:
        """AUC on held-out images and its standard error; nan for directions that were not measured."""
        nothing = float("nan"), float("nan")
        return {name: auc or nothing for name, auc in zip(self.names, self._inner.auc)}

    def __getitem__(self, name: str) -> list[NDArray[np.float32]]:
        """The direction of an attribute: [1, h, w, c] per level."""
        if name not in self.names:
            raise KeyError(name)
        return self._inner.direction(name)

    def __repr__(self) -> str:
        return f"<glowflow.Directions {', '.join(self.names)}>"

    def move(self, latents: Any, /, **amounts: float) -> list[NDArray[np.float32]]:
        """latents + Σ amount·direction, such as `directions.move(latents, Smiling=0.7)`. Amounts are −3 to 3."""
        moves = [(name, float(amount)) for name, amount in amounts.items()]
        return self._inner.move_latents(_arguments.latents(latents, None), moves)


def _answers(value: Any, name: str, count: int) -> np.ndarray:
    """1 with the attribute, 0 without it, −1 if unknown."""
    array = _arguments.as_array(value, f"attributes[{name!r}]")
    if array.shape != (count,):
        raise ValueError(
            f"attributes[{name!r}] has the shape {list(array.shape)}, and there are {count} images: pass one value per image"
        )
    numbers = array.astype(np.float64)
    unknown = np.isnan(numbers)
    wrong = numbers[~unknown & (numbers != 0) & (numbers != 1)]
    if len(wrong):
        raise ValueError(
            f"attributes[{name!r}] holds {wrong[0]:g}: pass 1 for images with it, 0 for those without it, nan if it is unknown"
        )
    return np.where(unknown, -1, numbers).astype(np.int8)
