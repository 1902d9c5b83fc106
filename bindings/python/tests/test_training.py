"""Training: the callback, Ctrl-C, and resuming."""

import dataclasses
import os
import signal
import threading

import numpy as np
import pytest

import glowflow


@pytest.fixture
def options(config):
    return {"model": config, "batch": 8, "log_every": 2, "eval_every": 4, "device": "cpu", "precision": "f32"}


def test_the_callback_is_called(portraits, options, tmp_path):
    states, threads = [], set()

    def callback(state):
        states.append(state)
        threads.add(threading.current_thread())

    model = glowflow.train(portraits, tmp_path, steps=8, callback=callback, **options)
    assert [state.step for state in states] == [2, 4, 6, 8]
    assert [state.images for state in states] == [16, 32, 48, 64]
    assert all(np.isfinite(state.bits_per_dim) and state.lr > 0 and state.grad_norm > 0 for state in states)
    assert states[0].test_bits_per_dim is None and states[-1].test_bits_per_dim is not None
    assert threads == {threading.current_thread()}
    assert model.fingerprint == glowflow.Model.load(tmp_path, device="cpu").fingerprint

    metrics = glowflow.read_metrics(tmp_path)
    assert metrics["step"].tolist() == [2, 4, 6, 8]
    np.testing.assert_allclose(metrics["train_bits_per_dim"], [state.bits_per_dim for state in states])
    assert np.isnan(metrics["test_bits_per_dim"]).tolist() == [True, False, True, False]


def test_metrics_of_a_variational_bound_are_numbers(portraits, options, tmp_path):
    sizes = {"dequantization_couplings": 0, "dequantization_hidden": 8, "dequantization_channels": 4}
    options["model"] = dataclasses.replace(options["model"], dequantization="variational", **sizes)
    glowflow.train(portraits, tmp_path, steps=4, **options)
    assert '"bound":"variational"' in (tmp_path / "metrics.jsonl").read_text()
    metrics = glowflow.read_metrics(tmp_path)
    assert "bound" not in metrics
    assert np.isfinite(metrics["test_bits_per_dim"]).tolist() == [False, True]


def test_true_ends_training(portraits, options, tmp_path):
    steps = []

    def callback(state):
        steps.append(state.step)
        return state.step >= 4

    glowflow.train(portraits, tmp_path, steps=100, callback=callback, **options)
    assert steps == [2, 4]
    assert (tmp_path / "checkpoint.safetensors").exists()


def test_an_exception_of_the_callback_is_raised(portraits, options, tmp_path):
    def callback(state):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        glowflow.train(portraits, tmp_path, steps=100, callback=callback, **options)
    # The run is saved, and can be continued.
    glowflow.train(portraits, tmp_path, steps=6, resume=True, device="cpu")
    assert glowflow.read_metrics(tmp_path)["step"].tolist() == [2, 4, 6]


@pytest.mark.skipif(os.name == "nt", reason="os.kill ends the process")
def test_ctrl_c_ends_training_with_a_checkpoint(portraits, options, tmp_path):
    def callback(state):
        if state.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    model = glowflow.train(portraits, tmp_path, steps=10**6, callback=callback, **options)
    assert (tmp_path / "checkpoint.safetensors").exists()
    assert model.config == options["model"]
    # Python's own handler is still installed.
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(5)


def test_a_resumed_run_has_the_same_weights(portraits, options, tmp_path):
    whole = glowflow.train(portraits, tmp_path / "whole", steps=8, **options)
    glowflow.train(portraits, tmp_path / "parts", steps=4, **options)
    parts = glowflow.train(portraits, tmp_path / "parts", steps=8, resume=True, device="cpu")
    assert parts.fingerprint == whole.fingerprint


def test_a_resumed_run_keeps_its_classes(portraits, tmp_path):
    labels = np.arange(len(portraits)) % 3
    options = {"batch": 8, "device": "cpu"}
    glowflow.train(portraits, tmp_path, labels=labels, preset="tiny32", steps=2, **options)
    with pytest.raises(ValueError, match="classes"):
        glowflow.train(portraits, tmp_path, labels=labels + 1, steps=4, resume=True, device="cpu")
    model = glowflow.train(portraits, tmp_path, labels=labels % 2, steps=4, resume=True, device="cpu")
    assert model.classes == 3


def test_identifiers_are_not_classes(portraits, tmp_path):
    labels = np.full(len(portraits), 1_700_000_000)
    with pytest.raises(ValueError, match=r"numpy.unique\(labels, return_inverse=True\)"):
        glowflow.train(portraits, tmp_path, labels=labels, steps=2, device="cpu")


def test_files_and_arrays_train_alike(portraits, options, tmp_path):
    np.save(tmp_path / "images.npy", portraits)
    paths = glowflow.train(tmp_path / "images.npy", tmp_path / "files", steps=4, **options)
    arrays = glowflow.train(portraits, tmp_path / "arrays", steps=4, **options)
    assert paths.fingerprint == arrays.fingerprint
    resumed = glowflow.train(None, tmp_path / "files", steps=6, resume=True, device="cpu")
    assert resumed.fingerprint != paths.fingerprint


def test_without_a_model_the_images_give_their_size(portraits, tmp_path):
    labels = np.arange(len(portraits)) % 3
    model = glowflow.train(
        portraits[:, :8, :8],
        tmp_path,
        labels=labels,
        preset="tiny32",
        steps=2,
        batch=8,
        device="cpu",
        test=(portraits[:20, :8, :8], labels[:20]),
    )
    assert model.config.image == (8, 8, 3)
    assert model.classes == 3
    assert model.sample(2, labels=[0, 2]).shape == (2, 8, 8, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": None}, "pass a folder"),
        ({"data": "missing"}, "missing"),
        ({"labels": [0] * 128}, "no classes"),
        ({"data": "portraits", "labels": [0]}, "leave labels out"),
        ({"warm": 5}, "warm"),
        ({"lr": -1.0}, "train.lr"),
        ({"preset": "large"}, "large"),
        ({"minutes": -1}, "minutes"),
        ({"resume": True}, "leave model and preset out"),
    ],
)
def test_invalid_options(portraits, options, tmp_path, change, message):
    arguments = {"data": portraits, "out": tmp_path / "run", "steps": 2, **options, **change}
    with pytest.raises((ValueError, OSError), match=message):
        glowflow.train(**arguments)
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_run_is_not_overwritten(portraits, options, tmp_path):
    glowflow.train(portraits, tmp_path, steps=2, **options)
    with pytest.raises(ValueError, match="resume=True"):
        glowflow.train(portraits, tmp_path, steps=2, **options)


def test_images_of_another_size(portraits, options, tmp_path):
    with pytest.raises(ValueError, match="resize"):
        glowflow.train(portraits[:, :8, :8], tmp_path, steps=2, **options)
    with pytest.raises(TypeError, match="uint8"):
        glowflow.train(portraits / 255, tmp_path, steps=2, **options)
