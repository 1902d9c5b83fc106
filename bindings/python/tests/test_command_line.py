"""The bundled command."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import glowflow

COMMAND = [sys.executable, "-m", "glowflow"]


def run(*words):
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True)


def test_version_and_help():
    done = run("--version")
    assert done.returncode == 0 and glowflow.__version__ in done.stdout
    assert "quickstart" in run("--help").stdout


def test_exit_status(tmp_path):
    assert run("train", "--no-such-option").returncode == 2
    done = run("info", "--model", str(tmp_path / "missing"))
    assert done.returncode == 1 and done.stderr.startswith("error: ")


def test_results_agree(model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    done = run("info", "--model", str(tmp_path), "--json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert str(model.num_parameters) in json.dumps(json.loads(done.stdout))


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_ctrl_c_stops_with_a_checkpoint(tmp_path):
    words = ["train", "--data", "portraits", "--preset", "tiny32", "--device", "cpu", "--minutes", "5"]
    process = subprocess.Popen([*COMMAND, *words, "--out", str(tmp_path / "run")], stderr=subprocess.DEVNULL)
    metrics, start = tmp_path / "run" / "metrics.jsonl", time.monotonic()
    # Before the first step there is nothing to save.
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() - start < 60:
        time.sleep(0.1)
    try:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
