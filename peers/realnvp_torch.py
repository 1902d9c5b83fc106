"""RealNVP in PyTorch, optimised for speed: the reference that glowflow's RealNVP is timed against.

The model follows the project's specification, tensor for tensor, so that a glowflow model file loads here
(`--verify FILE` does so and checks likelihoods in both modes, latents and gradients).

Optimisations over the plain form:
  * batch normalisation is PyTorch's own operation, followed by an in-place ReLU;
  * weight normalisation is one scaling of each weight, computed once per step;
  * Adam is PyTorch's fused one;
  * one coupling is compiled, not the whole model: couplings of equal shapes share the code.

`--serve` answers requests ("train 3", one per line of stdin) with the seconds of each repetition, as `glow_torch.py`.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

from glow_torch import serve

VARIANTS = ("eager", "channels_last", "compile", "compile_channels_last")
ALPHA, EPSILON, DECAY, PENALTY, CLIP = 0.05, 1e-4, 0.1, 5e-5, 100.0
LOG_2PI = math.log(2 * math.pi)


def running(module, channels):
    module.register_buffer("running_mean", torch.zeros(channels))
    module.register_buffer("running_var", torch.ones(channels))


def follow(module, mean, var):
    """Updates running statistics with those of a batch."""
    with torch.no_grad():
        module.running_mean.lerp_(mean, DECAY)
        module.running_var.lerp_(var, DECAY)


class Norm(nn.Module):
    """`(x - mean)/sqrt(var + eps) + bias`."""

    def __init__(self, channels):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        running(self, channels)

    def forward(self, x):
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, None, self.bias, False, 0.0, EPSILON)
        y, mean, inverse = torch.native_batch_norm(x, None, self.bias, None, None, True, 0.0, EPSILON)
        follow(self, mean.detach(), inverse.detach().pow(-2) - EPSILON)
        return y


class FlowNorm(nn.Module):
    """Mean and inverse standard deviation of a coupling's changed part; both are differentiable."""

    def __init__(self, channels):
        super().__init__()
        running(self, channels)

    def forward(self, y):
        mean, var = self.running_mean, self.running_var
        if self.training:
            var, mean = torch.var_mean(y, (0, 2, 3), correction=0)
            follow(self, mean.detach(), var.detach())
        return mean.view(1, -1, 1, 1), torch.rsqrt(var + EPSILON).view(1, -1, 1, 1)


class Conv(nn.Module):
    """A convolution with weight normalisation, with a magnitude if `gain`."""

    def __init__(self, inputs, outputs, size, gain=True, bias=False):
        super().__init__()
        bound = math.sqrt(2 / inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, size, size).uniform_(-bound, bound))
        self.magnitude = nn.Parameter(torch.full((outputs,), math.sqrt(size * size / 6))) if gain else None
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.padding = size // 2

    def forward(self, x):
        scale = torch.rsqrt(self.weight.square().sum((1, 2, 3)))
        if self.magnitude is not None:
            scale = scale * self.magnitude
        return F.conv2d(x, self.weight * scale.view(-1, 1, 1, 1), self.bias, padding=self.padding)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.conv1 = Norm(width), Conv(width, width, 3, gain=False)
        self.norm2, self.conv2 = Norm(width), Conv(width, width, 3)

    def forward(self, h):
        y = self.conv1(self.norm1(h).relu_())
        return h + self.conv2(self.norm2(y).relu_())


class Network(nn.Module):
    """The residual network of a coupling, from `channels` to `2·channels`."""

    def __init__(self, channels, width, blocks, checkerboard):
        super().__init__()
        self.norm_in = Norm(channels)
        self.conv_in = Conv(2 * channels + checkerboard, width, 3, gain=False)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.skips = nn.ModuleList(Conv(width, width, 1) for _ in range(blocks + 1))
        self.norm_out = Norm(width)
        self.conv_out = Conv(width, 2 * channels, 1, bias=True)

    def forward(self, x, mask=None):
        a = self.norm_in(x)
        if mask is not None:
            a = 2 * a
        parts = [F.relu(a), F.relu(-a)]
        if mask is not None:
            parts.append(mask.expand(len(x), -1, -1, -1))
        h = self.conv_in(torch.cat(parts, 1))
        total = self.skips[0](h)
        for block, skip in zip(self.blocks, self.skips[1:]):
            h = block(h)
            total = total + skip(h)
        return self.conv_out(self.norm_out(total).relu_()).chunk(2, 1)


class Coupling(nn.Module):
    def __init__(self, channels, width, blocks, checkerboard):
        super().__init__()
        self.checkerboard = checkerboard
        self.scale = nn.Parameter(torch.zeros(1) if checkerboard else torch.ones(1))
        self.norm = FlowNorm(channels)
        self.network = Network(channels, width, blocks, checkerboard)

    def change(self, x, t, raw, changes):
        """The output of a coupling for `x`, and its log-determinant per sample. `changes` is 1 at the changed values."""
        s = self.scale * torch.tanh(raw)
        y = (x + t) * torch.exp(s)
        if changes is not None:
            y, s = y * changes, s * changes
        mean, inverse = self.norm(y)
        z = (y - mean) * inverse
        if changes is not None:
            z = z * changes
        elements = x.shape[2] * x.shape[3] if changes is None else changes.sum()
        return z, s.sum((1, 2, 3)) + elements * inverse.log().sum()

    def forward(self, x, mask, first):
        """`mask` is 1 at the values that a checkerboard coupling keeps; `first`: a channel-wise coupling changes the first half."""
        if self.checkerboard:
            kept = x * mask
            z, logdet = self.change(x, *self.network(kept, mask), 1 - mask)
            return kept + z, logdet
        a, b = x.chunk(2, 1)
        if first:
            z, logdet = self.change(a, *self.network(b), None)
            return torch.cat([z, b], 1), logdet
        z, logdet = self.change(b, *self.network(a), None)
        return torch.cat([a, z], 1), logdet


class Level(nn.Module):
    def __init__(self, channels, width, blocks, last):
        super().__init__()
        checkerboard = [Coupling(channels, width, blocks, True) for _ in range(4 if last else 3)]
        channelwise = [] if last else [Coupling(2 * channels, 2 * width, blocks, False) for _ in range(3)]
        self.couplings = nn.ModuleList(checkerboard + channelwise)


class RealNvp(nn.Module):
    """`forward` is the training direction: log p(v) and the latents of every level."""

    def __init__(self, image, levels, blocks, hidden, bits=8, architecture="realnvp"):
        super().__init__()
        height, width, channels = image
        self.bins, self.dims = 2 ** bits, height * width * channels
        self.levels = nn.ModuleList(Level(channels * 2 ** l, hidden * 2 ** l, blocks, l == levels - 1) for l in range(levels))
        self.call = Coupling.forward  # or its compiled form
        for l in range(levels):
            even = (torch.arange(height >> l)[:, None] + torch.arange(width >> l)) % 2 == 0
            self.register_buffer(f"mask{l}", even.float()[None, None], persistent=False)

    def dequantise(self, pixels, noise=None):
        """u8 NHWC pixels -> v, NCHW, with fresh uniform noise unless some is given."""
        if self.bins < 256:
            pixels = pixels // (256 // self.bins)
        noise = torch.rand(pixels.shape) / self.bins if noise is None else noise
        return (pixels / self.bins - 0.5 + noise).permute(0, 3, 1, 2)

    def forward(self, v):
        p = ALPHA + (1 - 2 * ALPHA) * (v + 0.5)
        log_p, log_q = torch.log(p), torch.log1p(-p)
        x, logp, latents = log_p - log_q, (math.log(1 - 2 * ALPHA) - log_p - log_q).sum((1, 2, 3)), []
        for l, level in enumerate(self.levels):
            masks = (even := getattr(self, f"mask{l}")), 1 - even
            for k, coupling in enumerate(level.couplings):
                if k == 3 and not coupling.checkerboard:
                    x = F.pixel_unshuffle(x, 2)
                x, logdet = self.call(coupling, x, masks[k % 2], k == 4)
                logp = logp + logdet
            if l < len(self.levels) - 1:
                # The diagonal pixels of each block continue, the others are factored out.
                b, c, h, w = x.shape
                x = x.view(b, c // 4, 4, h, w)[:, :, (0, 3, 1, 2)].transpose(1, 2).reshape(b, c, h, w)
                x, z = x.chunk(2, 1)
                latents.append(z)
        latents.append(x)
        for z in latents:
            logp = logp - 0.5 * (LOG_2PI + z * z).sum((1, 2, 3))
        return logp, latents

    def bits_per_dim(self, logp):
        return (self.dims * math.log(self.bins) - logp) / (self.dims * math.log(2))

    def penalized(self):
        return [p for name, p in self.named_parameters() if name.endswith("magnitude")] + [
            coupling.scale for level in self.levels for coupling in level.couplings if coupling.checkerboard]


class Bench:
    """A model, its optimiser and a batch, prepared for one variant."""

    def __init__(self, args):
        self.format = torch.channels_last if args.variant.endswith("channels_last") else torch.contiguous_format
        torch.manual_seed(0)
        self.model = RealNvp((args.image, args.image, 3), args.levels, args.blocks, args.hidden).to(memory_format=self.format)
        self.pixels = torch.randint(0, 256, (args.batch, args.image, args.image, 3), dtype=torch.uint8)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.penalized = self.model.penalized()
        if args.variant.startswith("compile"):
            torch._dynamo.config.recompile_limit = 64
            self.model.call = torch.compile(Coupling.forward, dynamic=False)

    def train(self):
        nats = self.model.dims * math.log(2)
        v = self.model.dequantise(self.pixels).contiguous(memory_format=self.format)
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


def verify(path, memory_format):
    """Compares with the float64 vectors in a model file; returns the largest differences by name."""
    from safetensors import safe_open

    with safe_open(path, "pt") as f:
        config = json.loads(f.metadata()["glow.config"])
        tensors = {name: f.get_tensor(name) for name in f.keys()}
    test = {name.removeprefix("test."): tensors.pop(name) for name in list(tensors) if name.startswith("test.")}
    model = RealNvp(**config)
    model.load_state_dict(tensors)
    model.to(memory_format=memory_format)
    v = model.dequantise(test["pixels"], test["noise"].float()).contiguous(memory_format=memory_format)

    bins = model.dims * math.log(model.bins)

    def apart(a, b):
        """‖difference‖/‖reference‖."""
        return ((a.double() - b).norm() / b.norm().clamp_min(1e-30)).item()

    with torch.no_grad():
        logp, latents = model.eval()(v)
    report = {"log-likelihood, evaluation": apart(logp - bins, test["log_likelihood"]),
              "latents": max(apart(e.permute(0, 2, 3, 1), test[f"eps.{i}"]) for i, e in enumerate(latents))}
    logp, _ = model.train()(v)
    model.bits_per_dim(logp).mean().backward()
    report["log-likelihood, training"] = apart(logp - bins, test["train.log_likelihood"])
    buffers = dict(model.named_buffers())
    report["running statistics"] = max(
        apart(buffers[name.removeprefix("updated.")], t) for name, t in test.items() if name.startswith("updated."))
    report["gradients"] = max(apart(p.grad, test["grad." + name]) for name, p in model.named_parameters())
    return report


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
    parser.add_argument("--verify", metavar="FILE", nargs="+", help="check against the test vectors of model files")
    return parser.parse_args()


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    if args.verify:
        bad = False
        for path in args.verify:
            for memory_format in (torch.contiguous_format, torch.channels_last):
                report = verify(path, memory_format)
                bad |= not all(difference <= 1e-4 for difference in report.values())
                print(json.dumps({"file": path, "memory_format": str(memory_format), **report}))
        sys.exit(bad)
    bench = Bench(args)
    if args.serve:
        serve(bench)
        return
    bench.seconds("train", args.warmup)
    seconds = bench.seconds("train", args.repeat)
    print(json.dumps({"seconds": seconds, "median": statistics.median(seconds)}))


if __name__ == "__main__":
    main()
