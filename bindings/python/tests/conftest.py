"""Fixtures: model files with test vectors, and small models."""

import json
from pathlib import Path

import numpy as np
import pytest

import glowflow

FIXTURES = Path(__file__).resolve().parents[3] / "crates" / "glowflow" / "tests" / "fixtures"
TYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "u1"}


def read_safetensors(path):
    """Returns tensors by name."""
    data = Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, tensor in header.items():
        first, last = tensor["data_offsets"]
        array = np.frombuffer(data[start + first : start + last], TYPES[tensor["dtype"]])
        tensors[name] = array.reshape(tensor["shape"])
    return tensors


class Vectors:
    """A model, and float64 reference results of an independent program."""

    def __init__(self, path):
        self.path = path
        self.known = {
            name.removeprefix("test."): tensor
            for name, tensor in read_safetensors(path).items()
            if name.startswith("test.")
        }
        self.model = glowflow.Model.load(path, device="cpu")

    @property
    def pixels(self):
        return np.array(self.known["pixels"])

    @property
    def noise(self):
        return self.known["noise"].astype(np.float32)

    @property
    def labels(self):
        return self.known.get("label")

    def latents(self, name):
        return [
            self.known[f"{name}.{level}"].astype(np.float32) for level in range(len(self.model.latent_shapes))
        ]


@pytest.fixture(params=sorted(path.stem for path in FIXTURES.glob("*.safetensors")))
def vectors(request):
    return Vectors(FIXTURES / f"{request.param}.safetensors")


@pytest.fixture
def config():
    return glowflow.GlowConfig(image=(16, 16, 3), levels=2, steps=2, hidden=16)


@pytest.fixture
def model(config):
    return glowflow.Model(config, seed=1, device="cpu")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)


@pytest.fixture
def portraits():
    """Smooth images, which a model learns within a few steps."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (128, 4, 4, 3), np.uint8)
    return np.ascontiguousarray(small.repeat(4, 1).repeat(4, 2))
