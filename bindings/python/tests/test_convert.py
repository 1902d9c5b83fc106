"""Checkpoints of other programs; the Rust tests compare the results."""

import numpy as np
import pytest

from glowflow import convert
from glowflow._safetensors import write


def rosinality(channels=12, hidden=4):
    """The tensors of an identity model with one level and one step of flow."""
    half, block = channels // 2, "blocks.0.flows.0"
    shapes = {
        f"{block}.coupling.net.0.weight": (hidden, half, 3, 3),
        f"{block}.coupling.net.0.bias": (hidden,),
        f"{block}.coupling.net.2.weight": (hidden, hidden, 1, 1),
        f"{block}.coupling.net.2.bias": (hidden,),
        f"{block}.coupling.net.4.conv.weight": (half, hidden, 3, 3),
        f"{block}.coupling.net.4.conv.bias": (half,),
        f"{block}.coupling.net.4.scale": (1, half, 1, 1),
        "blocks.0.prior.conv.weight": (2 * channels, channels, 3, 3),
        "blocks.0.prior.conv.bias": (2 * channels,),
        "blocks.0.prior.scale": (1, 2 * channels, 1, 1),
    }
    return {
        f"{block}.actnorm.loc": np.zeros((1, channels, 1, 1), np.float32),
        f"{block}.actnorm.scale": np.ones((1, channels, 1, 1), np.float32),
        f"{block}.actnorm.initialized": np.ones((), np.uint8),
        f"{block}.invconv.weight": np.eye(channels, dtype=np.float32)[:, :, None, None],
        **{name: np.zeros(shape, np.float32) for name, shape in shapes.items()},
    }


def test_a_state_dict_becomes_a_model(tmp_path):
    model = convert.from_rosinality(rosinality(), image=8, bits=5, device="cpu")
    assert model.config.image == (8, 8, 3) and model.config.bits == 5
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    encoded = model.encode(pixels)
    v = (pixels >> 3) / 32 - 0.5 + 0.5 / 32
    expected = -0.5 * (np.log(2 * np.pi) + v**2).sum((1, 2, 3)) - v[0].size * np.log(32)
    np.testing.assert_allclose(encoded.log_prob, expected, rtol=1e-5)
    write(tmp_path / "checkpoint.safetensors", rosinality(), {})
    read = convert.from_file(tmp_path / "checkpoint.safetensors", "rosinality", image=(8, 8), bits=5, device="cpu")
    assert read.fingerprint == model.fingerprint


def test_wrong_checkpoints_are_named(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    write(path, rosinality(), {})
    with pytest.raises(ValueError, match="pass bits$"):
        convert.from_file(path, "rosinality", image=8)
    with pytest.raises(ValueError, match="pass image and bits$"):
        convert.from_file(path, "rosinality")
    with pytest.raises(ValueError, match="blocks.0.x"):
        convert.from_rosinality({**rosinality(), "blocks.0.x": np.zeros(3, np.float32)}, image=8, bits=5)
    with pytest.raises(ValueError, match="unknown program"):
        convert.from_file(path, "mine")
    with pytest.raises(FileNotFoundError):
        convert.from_file(tmp_path / "missing.pt", "y0ast")
