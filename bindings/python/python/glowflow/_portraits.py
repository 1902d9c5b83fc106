"""The built-in data set of drawn portraits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glowflow import _arguments, _native

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def portraits(count: int, size: int = 32, *, seed: int = 0) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.bool_]]]:
    """Drawn portraits, uint8 [count, size, size, 3], and their attributes by name, bool [count].

    A larger `count` begins with the same portraits; `train("portraits", ...)` uses seed 0.
    """
    count = _arguments.whole(count, "count", 1)
    size = _arguments.whole(size, "size", 16, 4097)
    images, attributes = _native.portraits(count, size, _arguments.whole(seed, "seed"))
    return images, dict(attributes)
