"""RealNVP in PyTorch: the reference that glowflow's RealNVP is timed against.

The model is `glowflow.torch.RealNvpModule`, whose tests compare likelihoods, gradients and running statistics with
float64 vectors. It has the optimisations of a PyTorch program:
  * batch normalisation is PyTorch's own operation, followed by an in-place ReLU;
  * weight normalisation is one scaling of each weight, computed once per step.

Additionally here:
  * Adam is PyTorch's fused one;
  * one coupling is compiled, not the whole model: couplings of equal shapes share the code.

`--serve` answers requests ("train 3", one per line of stdin) with the seconds of each repetition, as `glow_torch.py`.
"""

import argparse
import json
import math
import os
import statistics
import time

import torch
from torch import nn

import glowflow
from glow_torch import serve
from glowflow.torch import as_module

VARIANTS = ("eager", "channels_last", "compile", "compile_channels_last")
PENALTY, CLIP = 5e-5, 100.0


def compile_couplings(model):
    """Compiles the couplings' forward pass, once for all of the same shapes."""
    torch._dynamo.config.recompile_limit = 64
    kind = type(model.levels[0].couplings[0])
    kind.forward = torch.compile(kind.forward, dynamic=False)


def penalized(model):
    """Magnitudes of weights, and scales of checkerboard couplings: the first three of a level, and all of the last."""
    *levels, last = model.levels
    checkerboard = [coupling for level in levels for coupling in level.couplings[:3]] + list(last.couplings)
    magnitudes = [p for name, p in model.named_parameters() if name.endswith("magnitude")]
    return magnitudes + [coupling.scale for coupling in checkerboard]


class Bench:
    """A model, its optimiser and a batch, prepared for one variant."""

    def __init__(self, args):
        self.format = torch.channels_last if args.variant.endswith("channels_last") else torch.contiguous_format
        config = glowflow.RealNvpConfig(
            image=(args.image, args.image, 3), levels=args.levels, blocks=args.blocks, hidden=args.hidden)
        # New weights, with glowflow's initial values.
        self.model = as_module(glowflow.Model(config, device="cpu")).train().to(memory_format=self.format)
        torch.manual_seed(0)
        self.pixels = torch.randint(0, 256, (args.batch, args.image, args.image, 3), dtype=torch.uint8)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.penalized = penalized(self.model)
        if args.variant.startswith("compile"):
            compile_couplings(self.model)

    def train(self):
        nats = self.model.dims * math.log(2)
        v = self.model.dequantize(self.pixels).contiguous(memory_format=self.format)
        logp, _ = self.model(v)
        loss = self.model.bits_per_dim(logp).mean()
        penalty = PENALTY / nats * sum(p.square().sum() for p in self.penalized)
        (loss + penalty).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP / nats)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return loss.item()

    def seconds(self, what, count):
        """Seconds of each of `count` training steps."""
        if what != "train":
            raise ValueError(f"{what} is not timed for RealNVP, only train")
        times = []
        for _ in range(count):
            start = time.perf_counter()
            self.train()
            times.append(time.perf_counter() - start)
        return times


def arguments():
    parser = argparse.ArgumentParser(description="RealNVP in PyTorch, to be timed on the CPU")
    parser.add_argument("mode", nargs="?", choices=("train-step",), default="train-step")
    parser.add_argument("--levels", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--image", type=int, default=32, help="height and width")
    parser.add_argument("--variant", choices=VARIANTS, default="channels_last")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help="answer requests on stdin")
    return parser.parse_args()


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    bench = Bench(args)
    if args.serve:
        serve(bench)
        return
    bench.seconds("train", args.warmup)
    seconds = bench.seconds("train", args.repeat)
    print(json.dumps({"seconds": seconds, "median": statistics.median(seconds)}))


if __name__ == "__main__":
    main()
