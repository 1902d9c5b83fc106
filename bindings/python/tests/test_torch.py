"""Torch modules: equal likelihoods, gradients with respect to pixels, and export to a file."""

import numpy as np
import pytest

import glowflow

torch = pytest.importorskip("torch")
# The models are small, so threads would mostly wait for each other.
torch.set_num_threads(1)


@pytest.fixture
def module(vectors):
    from glowflow.torch import as_module

    return as_module(vectors.path)


def given(module, vectors):
    """v and labels of the vectors."""
    v = module.dequantize(torch.from_numpy(vectors.pixels), torch.from_numpy(np.array(vectors.known["noise"])))
    return v, None if vectors.labels is None else torch.from_numpy(np.array(vectors.labels))


def test_likelihoods_in_f64(vectors, module):
    module = module.double()
    with torch.no_grad():
        log_prob, latents = module(*given(module, vectors))
    # The file's weights are f32; those of the vectors are not rounded further.
    np.testing.assert_allclose(log_prob.numpy(), vectors.known["log_likelihood"], rtol=1e-6)
    for level, eps in enumerate(latents):
        np.testing.assert_allclose(eps.numpy(), vectors.known[f"eps.{level}"], rtol=1e-5, atol=1e-6)


def test_likelihoods_equal_ours(vectors, module):
    v, labels = given(module, vectors)
    with torch.no_grad():
        log_prob, _ = module.double()(v.double(), labels)
    ours = vectors.model.log_prob(vectors.pixels, vectors.labels, noise=vectors.noise)
    np.testing.assert_allclose(log_prob.numpy(), ours, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_a_training_step(vectors, module, memory_format):
    """The likelihood of the batch, gradients, and running statistics afterwards, if there are batch normalisations."""
    module = module.double().train().to(memory_format=memory_format)
    v, labels = given(module, vectors)
    log_prob, _ = module(v.contiguous(memory_format=memory_format), labels)
    module.bits_per_dim(log_prob).mean().backward()
    known = vectors.known
    want = known.get("train.log_likelihood", known["log_likelihood"])
    np.testing.assert_allclose(log_prob.detach().numpy(), want, rtol=1e-6)

    found = {f"grad.{name}": tensor.grad for name, tensor in module.named_parameters()}
    found |= {f"updated.{name}": tensor for name, tensor in module.named_buffers() if ".running_" in name}
    assert found.keys() == {name for name in known if name.startswith(("grad.", "updated."))}
    for name, tensor in found.items():
        difference = np.linalg.norm(tensor.numpy() - known[name])
        assert difference <= 1e-6 * np.linalg.norm(known[name]) + 1e-9, name


def test_inverse(vectors, module):
    module = module.double()
    v, labels = given(module, vectors)
    with torch.no_grad():
        _, latents = module(v, labels)
        np.testing.assert_allclose(module.inverse(latents, labels).numpy(), v.numpy(), atol=1e-8)


def test_gradients_by_pixels(vectors, module):
    module = module.double()
    v, labels = given(module, vectors)
    v = v.clone().requires_grad_()
    log_prob, _ = module(v, labels)
    (gradient,) = torch.autograd.grad(log_prob.sum(), v)
    direction = torch.randn(v.shape, dtype=v.dtype, generator=torch.Generator().manual_seed(0))
    # Short, so that no ReLU crosses its kink.
    step = 1e-7
    with torch.no_grad():
        ends = [module(v + sign * step * direction, labels)[0].sum() for sign in (1, -1)]
    numerical = (ends[0] - ends[1]) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(numerical.item(), rel=1e-6)


def test_to_safetensors(vectors, module, tmp_path):
    from glowflow.torch import to_safetensors

    to_safetensors(module, tmp_path / "model.safetensors")
    assert glowflow.Model.load(tmp_path, device="cpu").fingerprint == vectors.model.fingerprint


def test_fine_tuning(model, images, tmp_path):
    from glowflow.torch import as_module, to_safetensors

    module = as_module(model)
    v = module.dequantize(torch.from_numpy(images), torch.full(images.shape, 0.5 / 256))
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    for _ in range(10):
        optimizer.zero_grad()
        module.bits_per_dim(module(v)[0]).mean().backward()
        optimizer.step()
    to_safetensors(module, tmp_path / "model.safetensors")
    tuned = glowflow.Model.load(tmp_path, device="cpu")
    assert tuned.log_prob(images).mean() > model.log_prob(images).mean()


def test_tensors_are_arguments(model, images):
    tensor = torch.from_numpy(images)
    np.testing.assert_array_equal(model.log_prob(tensor), model.log_prob(images))
    encoded = model.encode(tensor)
    shared = torch.from_dlpack(encoded.latents[0])
    shared.zero_()
    assert not encoded.latents[0].any()
    latents = [torch.from_numpy(level) for level in model.encode(images).latents]
    np.testing.assert_array_equal(model.decode(latents), images)


def test_invalid_tensors(model, images):
    tensor = torch.from_numpy(images)
    with pytest.raises(TypeError) as error:
        model.encode(tensor.permute(0, 3, 1, 2) / 255)
    assert "pass (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)" in str(error.value)
    latents = [torch.from_numpy(level).requires_grad_() for level in model.encode(images).latents]
    with pytest.raises(TypeError, match=r"detach\(\)"):
        model.decode(latents)


@pytest.mark.parametrize("coupling", ["affine", "additive", "mixture"])
@pytest.mark.parametrize("network", ["convolutions", "residual", "attention"])
@pytest.mark.parametrize("normalization", ["actnorm", "batchnorm"])
def test_couplings_and_networks(images, tmp_path, coupling, network, normalization):
    """Options that the vectors do not cover, with weights for which every tensor has an effect."""
    from glowflow.torch import as_module, to_safetensors

    config = glowflow.GlowConfig(
        image=(16, 16, 3),
        levels=2,
        steps=2,
        hidden=8,
        coupling=coupling,
        network="residual" if network == "attention" else network,
        attention=2 if network == "attention" else 0,
        normalization=normalization,
        prior="edge",
        mixture_components=3,
    )
    module = as_module(glowflow.Model(config, device="cpu"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor += 0.05 * torch.randn(tensor.shape, generator=generator)
    to_safetensors(module, tmp_path / "model.safetensors")
    model = glowflow.Model.load(tmp_path, device="cpu")

    module = as_module(model).double()
    encoded = model.encode(images)
    v = module.dequantize(torch.from_numpy(images), torch.full(images.shape, 0.5 / 256, dtype=torch.float64))
    with torch.no_grad():
        log_prob, latents = module(v)
        back = module.inverse(latents)
    np.testing.assert_allclose(log_prob.numpy(), encoded.log_prob, rtol=1e-5)
    for ours, theirs in zip(encoded.latents, latents):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(back.numpy(), v.numpy(), atol=1e-7)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x / 255,
        lambda x: (x / 127.5 - 1).to(torch.float64),
        lambda x: x.float(),
        lambda x: x.to(torch.int64),
        lambda x: torch.from_numpy(x.numpy().astype(np.uint16) * 257),
        lambda x: (x / 255).permute(0, 3, 1, 2),
    ],
)
def test_the_line_restores_images_of_torch(change):
    config = glowflow.GlowConfig(image=(8, 8, 3), levels=1, steps=1, hidden=4)
    model = glowflow.Model(config, device="cpu")
    images = torch.arange(2 * 8 * 8 * 3).reshape(2, 8, 8, 3).remainder(256).to(torch.uint8)
    changed = change(images)
    with pytest.raises(TypeError) as error:
        model.encode(changed)
    line = str(error.value).rsplit("pass ", 1)[1]
    assert torch.equal(eval(line, {"images": changed, "torch": torch}), images)


def test_bfloat16_is_named():
    config = glowflow.GlowConfig(image=(8, 8, 3), levels=1, steps=1, hidden=4)
    with pytest.raises(TypeError, match=r"pass images.detach\(\).cpu\(\).float\(\)"):
        glowflow.Model(config, device="cpu").encode(torch.zeros(1, 8, 8, 3, dtype=torch.bfloat16))
