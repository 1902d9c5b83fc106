"""Overhead of the package: `encode` and `sample` of 64 images from Python and from Rust, in turn, on the processor.

    cargo build --release --example overhead
    python benches/overhead.py [--repeat 15] [--image 32 32 3] [--levels 3] [--steps 8] [--hidden 128]

Run it on an idle machine. Prints a line of JSON for each: medians in seconds, and the median ratio of adjacent runs.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

import glowflow

HERE = Path(__file__).resolve().parent
IMAGES = 64


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--image", type=int, nargs=3, default=(32, 32, 3))
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=128)
    args = parser.parse_args()

    config = glowflow.GlowConfig(tuple(args.image), levels=args.levels, steps=args.steps, hidden=args.hidden)
    model = glowflow.Model(config, device="cpu")
    n, y, x, c = np.ogrid[:IMAGES, : args.image[0], : args.image[1], : args.image[2]]
    pixels = ((31 * n + 7 * y + 13 * x + 5 * c) % 256).astype(np.uint8)
    calls = {"encode": lambda: model.encode(pixels), "sample": lambda: model.sample(IMAGES, seed=1)}

    target = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        model.save(path)
        program = [target / "release" / "examples" / "overhead", path]
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as rust:

            def in_rust(name):
                rust.stdin.write(f"{name}\n")
                rust.stdin.flush()
                return float(rust.stdout.readline())

            def in_python(name):
                start = time.perf_counter()
                calls[name]()
                return time.perf_counter() - start

            for name in calls:
                in_rust(name), in_python(name)  # Warm-up.
                pairs = []
                for turn in range(args.repeat):
                    # Alternate the order within a pair, in case it matters.
                    order = (in_rust, in_python) if turn % 2 else (in_python, in_rust)
                    first, second = (run(name) for run in order)
                    pairs.append((first, second) if turn % 2 else (second, first))
                row = {
                    "call": name,
                    "images": IMAGES,
                    "rust_seconds": statistics.median(rust for rust, _ in pairs),
                    "python_seconds": statistics.median(python for _, python in pairs),
                    "ratio": statistics.median(python / rust for rust, python in pairs),
                }
                print(json.dumps(row), flush=True)
            rust.stdin.close()


if __name__ == "__main__":
    main()
