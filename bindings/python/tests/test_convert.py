"""Checkpoints of other programs; the Rust tests compare their numbers."""

import numpy as np
import pytest

from glowflow import convert
from glowflow._safetensors import write


def test_wrong_checkpoints_are_named(tmp_path):
    with pytest.raises(ValueError, match="bits"):
        convert.from_file(_empty(tmp_path), "rosinality", image=32)
    with pytest.raises(ValueError):
        convert.from_rosinality({"blocks.0.x": np.zeros(3, np.float32)}, image=32, bits=5)
    with pytest.raises(ValueError, match="unknown program"):
        convert.from_file(_empty(tmp_path), "mine")
    with pytest.raises(FileNotFoundError):
        convert.from_file(tmp_path / "missing.pt", "y0ast")


def _empty(folder):
    path = folder / "checkpoint.safetensors"
    write(path, {"blocks.0.flows.0.coupling.net.0.weight": np.zeros((4, 6, 3, 3), np.float32)}, {})
    return path
