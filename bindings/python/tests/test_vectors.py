"""Models against the vectors of the Rust tests."""

import numpy as np


def norm_error(have, want):
    return np.linalg.norm(have - want) / np.linalg.norm(want)


def test_encode(vectors):
    encoded = vectors.model.encode(vectors.pixels, vectors.labels, noise=vectors.noise)
    for level, latents in enumerate(encoded.latents):
        assert latents.dtype == np.float32
        assert norm_error(latents, vectors.known[f"eps.{level}"]) < 1e-5
    assert encoded.log_prob.dtype == np.float64
    np.testing.assert_allclose(encoded.log_prob, vectors.known["log_likelihood"], rtol=1e-5, atol=1e-5)


def test_log_prob(vectors):
    log_prob = vectors.model.log_prob(vectors.pixels, vectors.labels, noise=vectors.noise)
    bits = -log_prob / (np.prod(vectors.model.config.image) * np.log(2))
    np.testing.assert_allclose(bits, vectors.known["bits_per_dim"], rtol=1e-5, atol=1e-5)
    if "midpoint.log_likelihood" in vectors.known:
        log_prob = vectors.model.log_prob(vectors.pixels, vectors.labels)
        np.testing.assert_allclose(log_prob, vectors.known["midpoint.log_likelihood"], rtol=1e-5, atol=1e-5)


def test_decode(vectors):
    decoded = vectors.model.decode(vectors.latents("eps_random"), vectors.labels, continuous=True)
    np.testing.assert_allclose(decoded, vectors.known["decoded"], rtol=1e-4, atol=1e-4)


def test_every_pixel_is_restored(vectors):
    encoded = vectors.model.encode(vectors.pixels, vectors.labels)
    low = 8 - vectors.model.config.bits
    back = vectors.model.decode(encoded.latents, vectors.labels)
    np.testing.assert_array_equal(back, vectors.pixels >> low << low)
    assert vectors.model.inverse_error(vectors.pixels, vectors.labels) < 1e-3


def test_state_dict_is_the_file(vectors):
    from conftest import read_safetensors

    tensors = {name: t for name, t in read_safetensors(vectors.path).items() if not name.startswith("test.")}
    state = vectors.model.state_dict()
    assert state.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert state[name].shape == tensor.shape, name
        if not name.endswith(("permutation.lower", "permutation.upper")):
            np.testing.assert_array_equal(state[name], tensor.astype(state[name].dtype), name)
