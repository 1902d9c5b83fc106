"""Training in a run's folder."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from glowflow import _arguments, _config, _native
from glowflow._model import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger("glowflow")

# Keys of section [data] of a run's configuration; all others belong to [train].
_DATA = ("edge", "flip", "shift", "test_fraction", "test_seed")
# Files that identify a folder as a run.
_RUN = (
    "best.safetensors", "checkpoint.safetensors", "checkpoint.previous.safetensors", "config.toml", "metrics.jsonl",
    "model.safetensors",
)
# Maximum number of classes that follow from labels: larger labels are identifiers.
_MAX_CLASSES = 1 << 20


class TrainState(NamedTuple):
    """Training state passed to the callback, every `log_every` steps."""

    step: int
    images: int
    """Number of images processed."""
    bits_per_dim: float
    """Mean over the batches since the last call; nan if all steps were skipped."""
    grad_norm: float
    """Maximum since the last call, before clipping."""
    lr: float
    images_per_second: float
    """0 until measured."""
    test_bits_per_dim: float | None
    """Value of the latest evaluation; None before the first."""


def train(
    data: Any,
    out: str | os.PathLike[str],
    *,
    model: _config.Config | None = None,
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
    """Trains in the folder `out`, like the command line, and returns the model with averaged weights, in f32.

    `data` and `test` are a folder, a file, `"portraits"` (built in), or uint8 [N, H, W, C]; `test` may be a pair of
    images and labels. By default 5 % of the images are held out if there are at least 100. Options that are None have the
    value of the preset, or the default of the architecture. `overrides` are other keys of the sections [train] and [data] of a
    run's configuration, such as `warmup=0` or `flip=True`.

    `callback` runs in the calling thread; if it returns True, training ends with a checkpoint, as after Ctrl-C.
    With `resume` the run in `out` continues with its configuration, and `data` may be None if it was in files.
    """
    options = {
        "batch": batch,
        "lr": lr,
        "optimizer": optimizer,
        "ema": ema,
        "seed": seed,
        "backprop": backprop,
        "precision": precision,
        **overrides,
    }
    texts = [_override(name, value) for name, value in options.items() if value is not None]
    out = os.path.abspath(os.fspath(out))
    known = None if model is None else getattr(model, "classes", 0)
    if resume and labels is not None:
        known = _native.run_classes(out)
    images, images_to_test, files, classes = _data(data, test, labels, known)
    if resume:
        if model is not None or preset is not None:
            raise ValueError("a run that is resumed has a model already: leave model and preset out")
    else:
        found = [name for name in _RUN if os.path.exists(os.path.join(out, name))]
        if found:
            raise ValueError(
                f"{out} already contains a run ({found[0]}): pass resume=True to continue it, or choose another folder"
            )
        if data is None:
            raise ValueError("data is None: pass a folder, a file, 'portraits', or uint8 [N, H, W, C]")
        if model is not None:
            texts = [_override(f"model.{key}", value) for key, value in model.to_dict().items()] + texts
        elif images is not None:
            texts.insert(0, _override("model.image", [int(size) for size in images[0].shape[1:]]))
            if classes:
                texts.insert(0, _override("model.classes", classes))
    arguments = {
        "out": out,
        "device": _arguments.device(device),
        "preset": preset,
        "overrides": texts,
        "data": files[0],
        "test": files[1],
        "steps": None if steps is None else _arguments.whole(steps, "steps"),
        "minutes": None if minutes is None else float(minutes),
        "resume": bool(resume),
        "classes": classes,
    }
    call = None if callback is None else lambda *fields: callback(TrainState(*fields))
    summary = json.loads(_native.train(arguments, images, images_to_test, call, logger.info))
    if summary["interrupted"]:
        logger.info("stopped at step %d; resume=True continues", summary["steps"])
    return Model.load(out, device=device)


def _data(
    data: Any, test: Any, labels: Any, known: int | None
) -> tuple[Any, Any, tuple[str | None, str | None], int]:
    """In-memory images for training and testing, or the paths of both; and the number of classes of in-memory images.

    `known` is the model's number of classes; by default it follows from the labels.
    """
    in_files = data is None or isinstance(data, (str, os.PathLike))
    if in_files:
        if labels is not None:
            raise ValueError("labels are for images in memory; those of files come with the files: leave labels out")
        if test is not None and not isinstance(test, (str, os.PathLike)):
            raise TypeError("data is in files, and test is in memory: pass test as a path, too")
        return None, None, (_path(data), _path(test)), 0
    if isinstance(test, (str, os.PathLike)):
        raise TypeError("data is in memory, and test is a path: pass test as uint8 [N, H, W, C], too")

    pixels = _arguments.any_images(data, "data")
    if labels is None:
        classes = 0
    elif known is not None:
        classes = known
    else:
        classes = 1 + int(np.max(_arguments.as_array(labels, "labels"), initial=0))
        if classes > _MAX_CLASSES:
            raise ValueError(
                f"label {classes - 1} is above {_MAX_CLASSES - 1}, and classes count from 0: "
                f"pass numpy.unique(labels, return_inverse=True)[1]"
            )
    images = pixels, _arguments.labels(labels, len(pixels), classes)
    if test is None:
        return images, None, (None, None), classes
    test, test_labels = test if isinstance(test, tuple) else (test, None)
    pixels = _arguments.images(test, pixels.shape[1:], "test")
    return images, (pixels, _arguments.labels(test_labels, len(pixels), classes, "test labels")), (None, None), classes


def _path(path: Any) -> str | None:
    """The absolute path, so that a run can be resumed from any folder; the name of the built-in data is kept."""
    if path is None:
        return None
    path = os.fspath(path)
    return path if path == "portraits" and not os.path.exists(path) else os.path.abspath(path)


def _override(name: str, value: Any) -> str:
    """`section.key=value` with the value in TOML, whose strings, numbers and lists have JSON syntax."""
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, (bool, int, float, str, list, tuple)):
        raise TypeError(f"{name} is {value!r}: pass a number, a text or a list")
    key = name if "." in name else f"{'data' if name in _DATA else 'train'}.{name}"
    return f"{key}={json.dumps(value)}"


def preset_names() -> list[str]:
    """Names of the presets of `train`."""
    return _native.preset_names()


def read_metrics(run: str | os.PathLike[str]) -> Mapping[str, NDArray[Any]]:
    """The numbers in the `metrics.jsonl` of a run as columns: `step`, and a float64 array per metric, nan without one."""
    path = os.fspath(run)
    if os.path.isdir(path):
        path = os.path.join(path, "metrics.jsonl")
    rows: dict[int, dict[str, Any]] = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                break  # A run is writing this line.
            try:
                record = json.loads(line)
                rows.setdefault(int(record.pop("step")), {}).update(record)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}: line {number} is not a record ({error})") from None
    steps = sorted(rows)
    values = [item for step in steps for item in rows[step].items()]
    names = list(dict.fromkeys(name for name, value in values if not isinstance(value, str)))

    def number_at(step: int, name: str) -> float:
        value = rows[step].get(name)
        return float("nan") if value is None else float(value)

    columns = {name: np.array([number_at(step, name) for step in steps], np.float64) for name in names}
    return {"step": np.array(steps, np.int64), **columns}
