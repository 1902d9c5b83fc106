"""The drawn portraits, and the bundled model of them."""

import numpy as np
import pytest

import glowflow


def test_portraits_are_arrays():
    images, attributes = glowflow.portraits(5, size=24)
    assert (images.shape, images.dtype) == ((5, 24, 24, 3), np.uint8)
    assert len(attributes) == 6 and all((a.shape, a.dtype) == ((5,), np.bool_) for a in attributes.values())
    assert len(np.unique(images, axis=0)) == 5
    more, _ = glowflow.portraits(6, size=24)
    np.testing.assert_array_equal(more[:5], images)
    other, _ = glowflow.portraits(5, size=24, seed=1)
    assert not np.array_equal(other, images)
    assert glowflow.portraits(1)[0].shape == (1, 32, 32, 3)


@pytest.mark.parametrize("count, size", [(0, 32), (1, 15), (-1, 32), (10**15, 32)])
def test_invalid_sizes(count, size):
    with pytest.raises(ValueError):
        glowflow.portraits(count, size)


def test_the_bundled_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = glowflow.Model.from_pretrained("portraits", device="cpu")
    images, attributes = glowflow.portraits(200, size=64, seed=1)
    assert model.config.image == (64, 64, 3)
    assert abs(model.bits_per_dim(images).mean() - 0.864) < 0.02
    assert model.inverse_error(images[:8]) < 1e-4

    directions = glowflow.Directions.load("portraits", model)
    assert set(directions.names) == set(attributes)
    latents = model.encode(images[:4]).latents
    before, after = model.decode(latents), model.decode(directions.move(latents, Blue_Background=2.0))
    # Blue increases in the upper corners, which are background.
    assert after[:, :4, :4, 2].mean() > before[:, :4, :4, 2].mean() or attributes["Blue_Background"][:4].all()

    with pytest.raises(ValueError, match="comes with"):
        glowflow.Model.from_pretrained("portraits", revision="main", device="cpu")
