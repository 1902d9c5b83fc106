"""The API and the command line give the same bits for the same number of threads."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import read_safetensors

import glowflow

# More than the command line computes at once.
IMAGES = 20
# Runs in a separate process, because the number of threads of a process is fixed.
API = """
import numpy as np
import glowflow

model = glowflow.Model.from_pretrained("portraits", device="cpu")
images = np.load("images.npy")
latents = model.encode(images).latents
np.savez(
    "api.npz",
    **{f"eps.{level}": values for level, values in enumerate(latents)},
    decoded=model.decode(latents),
    log_prob=model.log_prob(images, noise="uniform", draws=2, seed=3),
    bits_per_dim=model.bits_per_dim(images, draws=2, seed=3),
    midpoint=model.log_prob(images),
    samples=model.sample(len(images), temperature=0.8, seed=5),
)
"""


class Results:
    """The API's results in `api`, and commands on the same images, in a folder."""

    def __init__(self, folder, threads):
        self.folder, self.threads = folder, str(threads)
        np.save(folder / "images.npy", glowflow.portraits(IMAGES, size=64, seed=1)[0])
        self.run("-c", API)
        with np.load(folder / "api.npz") as api:
            self.api = dict(api)

    def run(self, *words):
        environment = {**os.environ, "RAYON_NUM_THREADS": self.threads}
        program = [sys.executable, *words]
        done = subprocess.run(program, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def command(self, name, *words):
        options = ["--model", "portraits", "--device", "cpu", "--threads", self.threads]
        self.run("-m", "glowflow", name, *words, *options)

    def scores(self, column):
        """A column of the table of scores, which has all digits."""
        with (self.folder / "scores.csv").open(newline="") as file:
            return np.array([float(row[column]) for row in csv.DictReader(file)])


@pytest.fixture(scope="module", params=[1, 2], ids=["1-thread", "2-threads"])
def results(request, tmp_path_factory):
    return Results(tmp_path_factory.mktemp("results"), request.param)


def test_scores(results):
    options = ["--data", "images.npy", "--precision", "f32", "--csv", "scores.csv"]
    results.command("score", *options, "--draws", "2", "--seed", "3")
    np.testing.assert_array_equal(results.scores("log_likelihood"), results.api["log_prob"])
    np.testing.assert_array_equal(results.scores("bits_per_dim"), results.api["bits_per_dim"])
    results.command("score", *options, "--dequantization", "midpoint")
    np.testing.assert_array_equal(results.scores("log_likelihood"), results.api["midpoint"])


def test_latents(results):
    results.command("encode", "--data", "images.npy", "--out", "latents.safetensors")
    file = read_safetensors(results.folder / "latents.safetensors")
    names = [name for name in file if name.startswith("eps.")]
    assert sorted(names) == sorted(name for name in results.api if name.startswith("eps."))
    for name in names:
        assert file[name].tobytes() == results.api[name].tobytes(), name


def test_pictures(results):
    image = pytest.importorskip("PIL.Image")

    def pictures(folder):
        # The names are numbers.
        paths = sorted((results.folder / folder).iterdir(), key=lambda path: int(path.stem))
        return np.stack([np.asarray(image.open(path)) for path in paths])

    options = ["--temperature", "0.8", "--seed", "5", "--precision", "f32"]
    results.command("sample", "--count", str(IMAGES), *options, "--out-dir", "samples")
    np.testing.assert_array_equal(pictures("samples"), results.api["samples"])
    results.command("encode", "--data", "images.npy", "--out", "latents.safetensors")
    results.command("decode", "--latents", "latents.safetensors", "--out-dir", "decoded")
    np.testing.assert_array_equal(pictures("decoded"), results.api["decoded"])
