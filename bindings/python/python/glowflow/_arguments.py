"""Validation and conversion of arguments. Errors name the value passed, and the line to write instead."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np


def as_array(value: Any, name: str) -> np.ndarray:
    """The memory of `value` as a numpy array, without a copy if possible."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            device = getattr(value, "device", "its device")
            # numpy has no bfloat16.
            line = f"{name}.detach().cpu()" + (".float()" if "bfloat16" in str(getattr(value, "dtype", "")) else "")
            raise TypeError(f"{name} is on {device}, or cannot be shared ({error}): pass {line}") from None
    array = np.asarray(value)
    if array.dtype == object:
        raise TypeError(
            f"{name} is a {type(value).__name__} of parts that do not form one array: pass numpy.stack({name})"
        )
    return array


def images(value: Any, image: Sequence[int], name: str = "images") -> np.ndarray:
    """Pixels uint8 [B, H, W, C] of the shape `image`, C-contiguous."""
    array = as_array(value, name)
    torch = not isinstance(value, np.ndarray) and hasattr(value, "permute")
    height, width, channels = image
    # The expression that converts the argument, as a user would write it.
    line, wrong = name, []
    if array.dtype != np.uint8:
        wrong.append(f"has the type {array.dtype}")
        line = _as_pixels(array, name, torch) + (".to(torch.uint8)" if torch else ".astype(numpy.uint8)")
    shape = array.shape
    if shape[-3:] != (height, width, channels) and shape[-3:] == (channels, height, width):
        wrong.append(f"has the shape {list(shape)}, channels first")
        axes = (0, 2, 3, 1) if len(shape) == 4 else (1, 2, 0)
        line += f".{'permute' if torch else 'transpose'}{axes}"
        shape = (*shape[:-3], height, width, channels)
    if shape == (height, width, channels):
        wrong.append("is one image, not a batch")
        line += "[None]"
        shape = (1, *shape)
    if shape[1:] != (height, width, channels) or len(shape) != 4:
        raise ValueError(
            f"{name} has the shape {list(array.shape)}, and the model takes [B, {height}, {width}, {channels}]: "
            f"resize them, or use a model of their size"
        )
    if wrong:
        kind = TypeError if array.dtype != np.uint8 else ValueError
        raise kind(
            f"{name} {' and '.join(wrong)}; the model takes uint8 [B, {height}, {width}, {channels}], values 0 to 255: "
            f"pass {line}"
        )
    return np.ascontiguousarray(array)


# Overshoot of interpolation beyond the range of an image, as a part of the range.
_OVERSHOOT = 0.05


def _as_pixels(array: np.ndarray, name: str, torch: bool) -> str:
    """The expression that maps `array` to the values 0 to 255, by its type and its range."""
    if array.dtype.kind not in "fiub" or array.size == 0:
        return name
    least, largest = array.min(), array.max()
    if not (np.isfinite(least) and np.isfinite(largest)):
        raise TypeError(f"{name} has the type {array.dtype} and values that are not finite: pass uint8, values 0 to 255")

    def clipped(low: int) -> str:
        return name if low <= least and largest <= 1 else f"{name}.clip({low}, 1)"

    if array.dtype.kind == "b":
        return f"({name} * 255)"
    if array.dtype.kind == "f":
        if -_OVERSHOOT <= least and largest <= 1 + _OVERSHOOT:
            return f"({clipped(0)} * 255).round()"
        # Values of -0.5 to 0.5 may be a dark image of -1 to 1, or centred at 0.
        if -1 - 2 * _OVERSHOOT <= least < -0.5 and largest <= 1 + 2 * _OVERSHOOT:
            return f"(({clipped(-1)} + 1) * 127.5).round()"
        if 0 <= least and 2 < largest <= 255:
            return f"{name}.round()"
    elif 0 <= least and largest <= 255:
        return name
    elif array.dtype == np.uint16 and largest > 4095:
        # torch does not divide uint16. Smaller values may have 10 or 12 bits.
        return f"({name}{'.int()' if torch else ''} // 257)"
    raise TypeError(f"{name} has the type {array.dtype} and values of {least} to {largest}: scale them to 0 to 255")


def any_images(value: Any, name: str) -> np.ndarray:
    """Pixels uint8 [N, H, W, C] of any size, for a model that is yet to be created."""
    array = as_array(value, name)
    if array.ndim != 4:
        raise ValueError(f"{name} has the shape {list(array.shape)}: pass uint8 [N, H, W, C]")
    if array.size == 0:
        raise ValueError(f"{name} has the shape {list(array.shape)}, which holds no images")
    _, first, _, last = array.shape
    shape = array.shape[1:]
    if last not in (1, 3) and first in (1, 3):
        # Channels first: report the error for a model of this image size.
        shape = (*array.shape[2:], first)
    return images(value, shape, name)


def labels(value: Any, batch: int, classes: int, name: str = "labels") -> np.ndarray | None:
    """One class per image, int64 [B]; None for a model without classes."""
    if value is None:
        if classes:
            raise ValueError(f"the model has {classes} classes: pass {name}, a class of 0 to {classes - 1} for each image")
        return None
    if not classes:
        raise ValueError(f"the model has no classes: leave {name} out")
    array = as_array(value, name)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} has the type {array.dtype}, and classes are whole numbers: pass {name}.astype(numpy.int64)")
    if array.ndim == 0:
        array = np.full(batch, array)
    if array.ndim == 2 and array.shape == (batch, classes):
        raise ValueError(f"{name} has the shape {list(array.shape)}, one-hot: pass {name}.argmax(1)")
    if array.shape != (batch,):
        raise ValueError(f"{name} has the shape {list(array.shape)}, and there are {batch} images: pass one class per image")
    wrong = array[(array < 0) | (array >= classes)]
    if len(wrong):
        raise ValueError(f"label {wrong[0]} is not one of the model's {classes} classes, 0 to {classes - 1}")
    return np.require(array, np.int64, "CA")


def latents(value: Any, shapes: Sequence[Sequence[int]] | None, name: str = "latents") -> list[np.ndarray]:
    """One float32 array [B, h, w, c] per level, C-contiguous. Without `shapes` any four-dimensional arrays are accepted."""
    if hasattr(value, "latents") and hasattr(value, "log_prob"):
        raise TypeError(f"{name} is what encode returned: pass {name}.latents")
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} is a {type(value).__name__}, and latents are a list of one array per level: pass [{name}]")
    if shapes is not None and len(value) != len(shapes):
        raise ValueError(f"{name} has {len(value)} arrays, and the model has {len(shapes)} levels: pass one array per level")
    levels = []
    for level, item in enumerate(value):
        here = f"{name}[{level}]"
        array = as_array(item, here)
        if array.dtype.kind != "f":
            raise TypeError(f"{here} has the type {array.dtype}: pass {here}.astype(numpy.float32)")
        if array.ndim != 4:
            raise ValueError(f"{here} has the shape {list(array.shape)}: pass [B, h, w, c]")
        if shapes is not None and array.shape[1:] != tuple(shapes[level]):
            height, width, channels = shapes[level]
            line = "pass latents of this model"
            if array.shape[1:] == (channels, height, width):
                line = f"it has the channels first: pass {here}.transpose(0, 2, 3, 1)"
            raise ValueError(
                f"{here} has the shape {list(array.shape)}, and the model's is [B, {height}, {width}, {channels}]; {line}"
            )
        levels.append(np.require(array, np.float32, "CA"))
    if len({len(level) for level in levels}) > 1:
        raise ValueError(f"{name} has levels of {[len(level) for level in levels]} images: pass equally many")
    return levels


def noise(value: Any, pixels: np.ndarray, bins: int) -> tuple[str, np.ndarray | None]:
    """The kind of noise, and the noise itself if it is an array."""
    if isinstance(value, str):
        return value, None
    array = as_array(value, "noise")
    if array.dtype.kind != "f":
        raise TypeError(f"noise has the type {array.dtype}: pass float32 in [0, 1/{bins})")
    if array.shape != pixels.shape:
        raise ValueError(f"noise has the shape {list(array.shape)}, and the images have {list(pixels.shape)}: pass one number per pixel")
    array = np.require(array, np.float32, "CA")
    if array.size and not (array.min() >= 0 and array.max() < 1 / bins):
        raise ValueError(f"noise is {array.min()} to {array.max()}, and a bin is [0, 1/{bins}): pass noise / {bins}")
    return "given", array


def whole(value: Any, name: str, least: int = 0, below: int = 2**64) -> int:
    """Checks that a value is an integer."""
    try:
        number = value.__index__()
    except AttributeError:
        raise TypeError(f"{name} is {value!r}: pass a whole number") from None
    if not least <= number < below:
        raise ValueError(f"{name} is {number}: pass {least} or more" + (f", below {below}" if number >= below else ""))
    return number


def device(name: str) -> str:
    """The device with this name, by default that of the environment variable GLOWFLOW_DEVICE."""
    return os.environ.get("GLOWFLOW_DEVICE") or "auto" if name == "auto" else name
