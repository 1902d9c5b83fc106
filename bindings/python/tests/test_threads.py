"""Other Python threads run while glowflow computes, and several can use one model."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import glowflow


class Ticker:
    """Counts wake-ups of another Python thread."""

    def __enter__(self):
        self.ticks, self.end = 0, threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def run(self):
        while not self.end.wait(0.002):
            self.ticks += 1

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()


def test_encode_releases_the_gil():
    config = glowflow.GlowConfig(image=(32, 32, 3), levels=3, steps=4, hidden=64)
    model = glowflow.Model(config, device="cpu")
    images = np.zeros((64, 32, 32, 3), np.uint8)
    with Ticker() as ticker:
        start = time.perf_counter()
        while time.perf_counter() - start < 1:
            model.encode(images)
    # Far fewer than the 500 of an idle machine, because all cores are busy.
    assert ticker.ticks > 20


def test_training_releases_the_gil(portraits, config, tmp_path):
    with Ticker() as ticker:
        glowflow.train(portraits, tmp_path / "run", model=config, steps=40, batch=16, device="cpu")
    assert ticker.ticks > 5


def test_one_model_in_four_threads(model):
    rng = np.random.default_rng(1)
    batches = [rng.integers(0, 256, (count, 16, 16, 3), np.uint8) for count in (1, 3, 5, 7)] * 4
    alone = [model.encode(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(model.encode, batches))
        decoded = list(pool.map(lambda encoded: model.decode(encoded.latents), together))
    for one, other in zip(alone, together):
        np.testing.assert_array_equal(one.log_prob, other.log_prob)
        for a, b in zip(one.latents, other.latents):
            np.testing.assert_array_equal(a, b)
    for batch, back in zip(batches, decoded):
        np.testing.assert_array_equal(batch, back)
