"""Models: files, samples, latents, and folders of pretrained models."""

import json
import subprocess
import sys

import numpy as np
import pytest

import glowflow


def test_save_and_load(model, images, tmp_path):
    path = tmp_path / "model.safetensors"
    model.save(path)
    loaded = glowflow.Model.load(path, device="cpu")
    assert loaded.config == model.config
    assert loaded.fingerprint == model.fingerprint
    np.testing.assert_array_equal(loaded.log_prob(images), model.log_prob(images))
    assert model.num_parameters == sum(
        tensor.size for name, tensor in model.state_dict().items() if not name.endswith((".index", ".sign"))
    )


@pytest.mark.parametrize(
    "config",
    [
        glowflow.GlowConfig(image=(8, 8, 3), levels=1, steps=1, hidden=4, coupling="mixture", network="residual"),
        glowflow.RealNvpConfig(image=(8, 8, 3), levels=2, blocks=1, hidden=4),
        glowflow.NiceConfig(image=(6, 5, 1), hidden=8, layers=1),
    ],
)
def test_architectures(config, tmp_path):
    model = glowflow.Model(config, device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (3, *config.image), np.uint8)
    np.testing.assert_array_equal(model.decode(model.encode(pixels).latents), pixels)
    model.save(tmp_path / "model.safetensors")
    assert glowflow.Model.load(tmp_path, device="cpu").config == config
    assert json.loads(config.to_json()).get("architecture", "glow") == config.architecture


def test_results_are_the_callers(model, images):
    latents = model.encode(images).latents
    for array in [*latents, model.decode(latents), model.sample(2)]:
        assert array.flags.c_contiguous and array.flags.writeable
        array[...] = 0
    np.testing.assert_array_equal(np.from_dlpack(model.sample(2)), model.sample(2))


def test_samples(model):
    first, again, other = model.sample(3, seed=1), model.sample(3, seed=1), model.sample(3, seed=2)
    assert first.shape == (3, 16, 16, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    latents = model.sample_latents(3, temperature=0.7, seed=1)
    np.testing.assert_array_equal(model.decode(latents), first)
    assert model.sample(0).shape == (0, 16, 16, 3)


def test_sample_and_log_prob(model):
    pixels, log_prob = model.sample_and_log_prob(4, seed=3)
    assert pixels.shape == (4, 16, 16, 3) and log_prob.shape == (4,)
    np.testing.assert_array_equal(pixels, model.decode(model.sample_latents(4, seed=3)))
    assert np.isfinite(log_prob).all()


def test_scores(model, images):
    bits = model.bits_per_dim(images, draws=2, seed=5)
    log_prob = model.log_prob(images, noise="uniform", draws=2, seed=5)
    np.testing.assert_allclose(bits, -log_prob / (16 * 16 * 3 * np.log(2)), rtol=1e-12)
    tighter = model.bits_per_dim(images, draws=2, seed=5, importance=True)
    assert (tighter <= bits + 1e-12).all()


def test_interpolate(model, images):
    a, b = ([level[i : i + 1] for level in model.encode(images).latents] for i in (0, 1))
    for path in ("linear", "spherical"):
        way = glowflow.interpolate(a, b, 5, path=path)
        assert [level.shape for level in way] == [(5, *shape) for shape in model.latent_shapes]
        decoded = model.decode(way)
        np.testing.assert_array_equal(decoded[0], images[0])
        np.testing.assert_array_equal(decoded[-1], images[1])
    with pytest.raises(ValueError, match="one image each"):
        glowflow.interpolate(model.encode(images).latents, b)
    with pytest.raises(ValueError, match="steps"):
        glowflow.interpolate(a, b, 1)


def test_directions(model, tmp_path):
    rng = np.random.default_rng(0)
    bright = np.arange(400) % 2
    pixels = rng.integers(0, 100, (400, 16, 16, 3), np.uint8) + (100 * bright[:, None, None, None]).astype(np.uint8)
    known = bright.astype(np.float32)
    known[:3] = np.nan
    directions = glowflow.Directions.fit(model, pixels, {"Bright": known})
    assert directions.names == ["Bright"]
    value, error = directions.auc["Bright"]
    assert value > 0.9 and error >= 0
    directions.save(tmp_path / "directions.safetensors")
    loaded = glowflow.Directions.load(tmp_path, model)
    latents = model.encode(pixels[:1]).latents
    moved = loaded.move(latents, Bright=1)
    for have, level, along in zip(moved, latents, directions["Bright"]):
        np.testing.assert_allclose(have, level + along, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="Bright"):
        directions.move(latents, Hat=1)
    with pytest.raises(ValueError, match="nan if it is unknown"):
        glowflow.Directions.fit(model, pixels, {"Bright": 2 * bright})
    with pytest.raises(ValueError, match="another model"):
        glowflow.Directions.load(tmp_path, glowflow.Model(model.config, seed=2, device="cpu"))


def test_pretrained(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model"]["hidden"] == 16
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n") and "library_name: glowflow" in card
    assert f"`{model.fingerprint:08x}`" in card and "glowflow.Model.from_pretrained" in card
    loaded = glowflow.Model.from_pretrained(tmp_path, device="cpu")
    assert loaded.fingerprint == model.fingerprint
    # An edited card is kept.
    (tmp_path / "README.md").write_text("mine")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    (tmp_path / "config.json").write_text('{"model": {"hidden": 1}}')
    with pytest.raises(ValueError, match="another model"):
        glowflow.Model.from_pretrained(tmp_path, device="cpu")
    with pytest.raises(FileNotFoundError):
        glowflow.Model.from_pretrained(tmp_path / "missing")


def test_a_folder_like_the_cache_of_the_hub(model, tmp_path):
    """Snapshots are links to blobs."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123abc"
    model.save_pretrained(blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    assert glowflow.Model.from_pretrained(snapshot, device="cpu").fingerprint == model.fingerprint


def test_import_is_quick():
    """CPU time of `import glowflow` beyond numpy's, whose import alone takes from 0.06 s to 0.2 s: minima of five, interleaved."""
    resource = pytest.importorskip("resource")

    def seconds(code):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    numpy, both = (min(times) for times in zip(*((seconds("import numpy"), seconds("import glowflow")) for _ in range(5))))
    assert both - numpy < 0.1


def test_torch_is_not_imported():
    code = "import glowflow, sys; assert 'torch' not in sys.modules; assert 'huggingface_hub' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
