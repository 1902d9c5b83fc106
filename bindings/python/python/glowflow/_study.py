"""Studies: several configurations, trained with equal budgets and several seeds."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, Literal

from glowflow import _arguments, _native
from glowflow._training import _override, _path, logger


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
    """Trains the unfinished runs of a study in the folder `out`, and returns its results.

    `name` is a built-in study (`study_names`) or a TOML file. Arguments replace the values of the study; `overrides` are
    keys for all configurations, as in `train`. Ctrl-C ends it with a checkpoint, and the same call continues it.
    """
    if scale not in ("cpu", "gpu"):
        raise ValueError(f"scale is {scale!r}: pass 'cpu' or 'gpu'")
    arguments = {
        "name": os.fspath(name),
        "out": os.fspath(out),
        "device": _arguments.device(device),
        "gpu": scale == "gpu",
        "data": _path(data),
        "seeds": None if seeds is None else [_arguments.whole(seed, "a seed") for seed in seeds],
        "minutes": None if minutes is None else float(minutes),
        "images": None if images is None else _arguments.whole(images, "images"),
        "steps": None if steps is None else _arguments.whole(steps, "steps"),
        "flops": None if flops is None else float(flops),
        "arms": None if arms is None else list(arms),
        "curve": None if curve is None else [float(multiple) for multiple in curve],
        "overrides": [_override(key, value) for key, value in overrides.items() if value is not None],
        "progress": bool(progress),
    }
    return json.loads(_native.study(arguments, logger.info))


def study_names() -> list[str]:
    """Names of the built-in studies."""
    return _native.study_names()
