"""Invalid arguments: the error shows the line to write instead."""

import dataclasses
import json
import re

import numpy as np
import pytest

import glowflow
from glowflow import _native


@pytest.mark.parametrize(
    ("change", "kind", "line"),
    [
        (lambda x: x / np.float32(255), TypeError, "pass (images * 255).round().astype(numpy.uint8)"),
        (lambda x: x / np.float32(127.5) - 1, TypeError, "pass ((images + 1) * 127.5).round().astype(numpy.uint8)"),
        (lambda x: x.astype(np.float32), TypeError, "pass images.round().astype(numpy.uint8)"),
        (lambda x: x * np.float32(2), TypeError, "scale them to 0 to 255"),
        (lambda x: x / np.float32(255) - np.float32(0.5), TypeError, "scale them to 0 to 255"),
        (lambda x: np.full(x.shape, np.nan), TypeError, "not finite"),
        (lambda x: x.astype(np.int64), TypeError, "pass images.astype(numpy.uint8)"),
        (lambda x: x.astype(np.int64) - 256, TypeError, "scale them to 0 to 255"),
        (lambda x: x.astype(np.uint16) * 257, TypeError, "pass (images // 257).astype(numpy.uint8)"),
        (lambda x: x.astype(np.uint16) * 16, TypeError, "scale them to 0 to 255"),
        (lambda x: x > 127, TypeError, "pass (images * 255).astype(numpy.uint8)"),
        (lambda x: x.transpose(0, 3, 1, 2), ValueError, "pass images.transpose(0, 2, 3, 1)"),
        (lambda x: x[0], ValueError, "pass images[None]"),
        (lambda x: x[0].transpose(2, 0, 1), ValueError, "pass images.transpose(1, 2, 0)[None]"),
        (
            lambda x: x.transpose(0, 3, 1, 2) / 255,
            TypeError,
            "pass (images * 255).round().astype(numpy.uint8).transpose(0, 2, 3, 1)",
        ),
        (lambda x: x[:, :8], ValueError, "takes [B, 16, 16, 3]"),
        (lambda x: [x[0], x[1, :8]], (TypeError, ValueError), ""),
    ],
)
def test_images(model, images, change, kind, line):
    with pytest.raises(kind) as error:
        model.encode(change(images))
    assert line in str(error.value)


def test_the_lines_work(model, images):
    want = model.log_prob(images)
    floats = (images / np.float32(255)).transpose(0, 3, 1, 2)
    written = (floats * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(model.log_prob(written), want)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x / np.float32(255),
        lambda x: x / np.float64(127.5) - 1,
        lambda x: x.astype(np.float32),
        # Interpolation overshoots.
        lambda x: np.where(x == 0, -0.01, np.where(x == 255, 1.02, x / 255)),
        lambda x: np.where(x == 0, -1.03, np.where(x == 255, 1.05, x / 127.5 - 1)),
        lambda x: x.astype(np.int64),
        lambda x: x.astype(np.uint16) * 257,
    ],
)
def test_the_line_restores_the_images(model, images, change):
    changed = change(images)
    with pytest.raises(TypeError) as error:
        model.encode(changed)
    line = str(error.value).rsplit("pass ", 1)[1]
    np.testing.assert_array_equal(eval(line, {"images": changed, "numpy": np}), images)


def unaligned(array):
    """A copy of `array` whose memory starts at an odd address."""
    memory = np.empty(array.nbytes + 1, np.uint8)
    copy = memory[1:].view(array.dtype).reshape(array.shape)
    copy[...] = array
    assert not copy.flags.aligned
    return copy


def test_unaligned_arrays(model, images):
    encoded = model.encode(images)
    levels = [unaligned(level) for level in encoded.latents]
    np.testing.assert_array_equal(model.decode(levels), images)
    noise = np.full(images.shape, 0.5 / 2**model.config.bits, np.float32)
    np.testing.assert_array_equal(model.log_prob(images, noise=unaligned(noise)), model.log_prob(images, noise=noise))


def test_lists_and_views(model, images):
    want = model.log_prob(images)
    np.testing.assert_array_equal(model.log_prob(list(images)), want)
    np.testing.assert_array_equal(model.log_prob(images[::-1])[::-1], model.log_prob(images[::-1].copy())[::-1])

    class Array:
        def __array__(self, dtype=None, copy=None):
            return images

    np.testing.assert_array_equal(model.log_prob(Array()), want)


def test_labels(images):
    config = glowflow.GlowConfig(image=(16, 16, 3), levels=1, steps=1, hidden=4, classes=3)
    model = glowflow.Model(config, device="cpu")
    labels = np.arange(6) % 3
    want = model.log_prob(images, labels)
    np.testing.assert_array_equal(model.log_prob(images, list(labels)), want)
    np.testing.assert_array_equal(model.log_prob(images, 1), model.log_prob(images, [1] * 6))
    for wrong, kind, line in [
        (None, ValueError, "pass labels, a class of 0 to 2 for each image"),
        (labels.astype(np.float32), TypeError, "pass labels.astype(numpy.int64)"),
        (np.eye(3, dtype=np.int64)[labels], ValueError, "pass labels.argmax(1)"),
        (labels[:5], ValueError, "there are 6 images"),
        (labels + 1, ValueError, "label 3 is not one of the model's 3 classes"),
        (labels - 1, ValueError, "label -1"),
    ]:
        with pytest.raises(kind) as error:
            model.encode(images, wrong)
        assert line in str(error.value)


def test_labels_for_a_model_without_classes(model, images):
    with pytest.raises(ValueError, match="leave labels out"):
        model.encode(images, [0] * 6)


def test_latents(model, images):
    encoded = model.encode(images)
    latents = encoded.latents
    for wrong, kind, line in [
        (encoded, TypeError, "pass latents.latents"),
        (latents[0], TypeError, "pass [latents]"),
        (latents[:1], ValueError, "2 levels"),
        ([level.transpose(0, 3, 1, 2) for level in latents], ValueError, "pass latents[0].transpose(0, 2, 3, 1)"),
        ([level.astype(np.int32) for level in latents], TypeError, "pass latents[0].astype(numpy.float32)"),
        ([latents[0], latents[1][:2]], ValueError, "equally many"),
    ]:
        with pytest.raises(kind) as error:
            model.decode(wrong)
        assert line in str(error.value)
    # f64 is converted.
    np.testing.assert_array_equal(model.decode([level.astype(np.float64) for level in latents]), images)


def test_noise_and_numbers(model, images):
    for wrong, kind in [
        ({"noise": "gaussian"}, ValueError),
        ({"noise": np.ones_like(images)}, TypeError),
        ({"noise": np.ones(images.shape, np.float32)}, ValueError),
        ({"noise": np.zeros((1, 16, 16, 3), np.float32)}, ValueError),
        ({"noise": "variational"}, ValueError),
        ({"noise": "uniform", "seed": -1}, ValueError),
        ({"noise": "uniform", "seed": 0.5}, TypeError),
    ]:
        with pytest.raises(kind):
            model.encode(images, **wrong)
    with pytest.raises(ValueError, match="temperature"):
        model.sample(temperature=-1)
    with pytest.raises(ValueError, match="too many"):
        model.sample(10**9)
    with pytest.raises(ValueError, match="importance"):
        model.log_prob(images, importance=True)
    noise = np.zeros(images.shape, np.float32)
    for given in ({"draws": 2}, {"importance": True}):
        with pytest.raises(ValueError, match="random noise"):
            model.log_prob(images, noise=noise, **given)
    with pytest.raises(TypeError, match="log_prob"):
        model.bits_per_dim(images, noise=noise)


def test_configurations_take_numbers_of_numpy():
    sizes = np.array([16, 16, 3])
    config = glowflow.GlowConfig(image=sizes, levels=np.int64(1), steps=np.uint8(2), hidden=np.int32(4))
    assert config == glowflow.GlowConfig(image=(16, 16, 3), levels=1, steps=2, hidden=4)
    assert json.loads(config.to_json())["image"] == [16, 16, 3]


def test_configurations_are_checked():
    with pytest.raises(ValueError, match="divisible"):
        glowflow.GlowConfig(image=(30, 32, 3))
    with pytest.raises(ValueError, match="conv1x1"):
        glowflow.GlowConfig(permutation="random")
    with pytest.raises(TypeError):
        glowflow.GlowConfig(depth=3)


@pytest.mark.parametrize("kind", [glowflow.GlowConfig, glowflow.RealNvpConfig, glowflow.NiceConfig])
def test_configurations_have_every_key(kind):
    with pytest.raises(ValueError, match="unknown field") as error:
        _native.check_config(json.dumps({"architecture": kind.architecture, "?": 0}))
    # The message lists the valid keys.
    assert set(re.findall(r"`(\w+)`", str(error.value))) == {field.name for field in dataclasses.fields(kind)}


def test_files_and_devices(tmp_path, config):
    with pytest.raises(FileNotFoundError):
        glowflow.Model.load(tmp_path / "missing.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not a model")
    with pytest.raises(ValueError, match="broken.safetensors"):
        glowflow.Model.load(broken)
    with pytest.raises(ValueError, match="gpu"):
        glowflow.Model(config, device="gpu")
    with pytest.raises(ValueError, match="f16"):
        glowflow.Model(config, precision="f16")
    with pytest.raises(glowflow.DeviceError):
        glowflow.Model(config, device="cuda:99")
