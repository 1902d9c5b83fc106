"""Glow in PyTorch, written to be fast: the peer that glowflow is timed against.

The model is that of the project's specification, tensor for tensor, so that a glowflow model file
loads here (`--verify FILE` does so and checks likelihoods, latents, gradients and decoding).

What makes it fast, beyond the plain form:
  * every actnorm and every ZeroConv scale is folded into the weights of its convolution, so the wide
    activations are touched by a convolution, its bias and a ReLU in place, and by nothing else;
  * actnorm and the 1x1 convolution of a step are one product;
  * the edge channel is appended where the input is narrow, and is a small map added to the output
    where the output is narrow; nothing `hidden` wide is padded or concatenated;
  * weights that sampling needs (inverse matrices, folded weights) are computed once, not per call.

Every measurement prints one JSON line. `--serve` answers requests ("train 3", "sample 2", one per
line of stdin) with the seconds of each repetition, so that a live, warm process can take turns with
another program.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

VARIANTS = ("eager", "channels_last", "linear", "compile", "compile_channels_last", "compile_linear")
LOG_2PI = math.log(2 * math.pi)


def zeros(*shape):
    return nn.Parameter(torch.zeros(*shape))


def ring_taps(height, width):
    """[9, height*width]: 1 where a tap of a 3x3 kernel falls on the padding ring, the edge channel's image."""
    ring = F.pad(torch.zeros(1, 1, height, width), (1, 1, 1, 1), value=1.0)
    return F.unfold(ring, 3)[0]


class ActNorm(nn.Module):
    """`y = (x + bias) * exp(3 logs)`; only ever used folded into a neighbouring product."""

    def __init__(self, channels):
        super().__init__()
        self.bias, self.logs = zeros(channels), zeros(channels)

    def scale(self):
        return torch.exp(3 * self.logs)


class ZeroConv(nn.Module):
    """Edge-aware 3x3 convolution with a learned scale of its output."""

    def __init__(self, inputs, outputs, height, width):
        super().__init__()
        self.weight, self.bias, self.logs = zeros(outputs, inputs + 1, 3, 3), zeros(outputs), zeros(outputs)
        self.register_buffer("taps", ring_taps(height, width), persistent=False)
        self.size = height, width

    def folded(self):
        """The weight without its edge channel, and the map that bias and edge channel add to the output."""
        scale = torch.exp(3 * self.logs)
        weight = self.weight * scale.view(-1, 1, 1, 1)
        extra = torch.addmm((self.bias * scale)[:, None], weight[:, -1].flatten(1), self.taps)
        return weight[:, :-1], extra.view(1, -1, *self.size)


def zero_conv(x, weight, extra):
    return F.conv2d(x, weight, padding=1) + extra


def pointwise(x, weight, bias, linear):
    """1x1 convolution by the matrix `weight`; `linear` makes it one matrix product on views of a channels-last x."""
    if not linear:
        return F.conv2d(x, weight[:, :, None, None], bias)
    b, c, h, w = x.shape
    y = torch.addmm(bias, x.permute(0, 2, 3, 1).reshape(-1, c), weight.t())
    return y.view(b, h, w, -1).permute(0, 3, 1, 2)


class Coupling(nn.Module):
    """The affine or additive coupling and its network."""

    def __init__(self, channels, hidden, affine, height, width):
        super().__init__()
        half = channels // 2
        self.affine = affine
        self.conv1 = nn.Conv2d(half + 1, hidden, 3, bias=False)
        self.actnorm1 = ActNorm(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 1, bias=False)
        self.actnorm2 = ActNorm(hidden)
        self.conv3 = ZeroConv(hidden, channels if affine else half, height, width)
        nn.init.normal_(self.conv1.weight, std=0.05)
        nn.init.normal_(self.conv2.weight, std=0.05)
        ring = F.pad(torch.zeros(1, 1, height, width), (1, 1, 1, 1), value=1.0)
        self.register_buffer("ring", ring, persistent=False)

    def folded(self):
        s1, s2 = self.actnorm1.scale(), self.actnorm2.scale()
        return (self.ring,
                self.conv1.weight * s1.view(-1, 1, 1, 1), self.actnorm1.bias * s1,
                self.conv2.weight.flatten(1) * s2[:, None], self.actnorm2.bias * s2,
                *self.conv3.folded())


def network(x, linear, ring, w1, b1, w2, b2, w3, extra3):
    """The coupling network, on folded weights.

    `linear`: the first two convolutions as matrix products over channels-last rows, the first one on
    gathered patches. Each ReLU is taken of exactly the tensor that the next product saves for backward;
    of another view of it, the compiler would store a mask besides, which costs more than the ReLU.
    """
    x = torch.cat([F.pad(x, (1, 1, 1, 1)), ring.expand(len(x), -1, -1, -1)], 1)
    if linear:
        patches = x.permute(0, 2, 3, 1).unfold(1, 3, 1).unfold(2, 3, 1)
        b, height, width = patches.shape[:3]
        h = torch.addmm(b1, patches.reshape(b * height * width, -1), w1.flatten(1).t()).relu_()
        h = torch.addmm(b2, h, w2.t())
        h = F.relu(h.view(b, height, width, -1).permute(0, 3, 1, 2))
    else:
        h = F.conv2d(x, w1, b1).relu_()
        h = F.conv2d(h, w2[:, :, None, None], b2).relu_()
    return zero_conv(h, w3, extra3)


class Conv1x1(nn.Module):
    """Invertible 1x1 convolution by the factors P L (U + diag)."""

    def __init__(self, channels):
        super().__init__()
        p, lower, upper = torch.linalg.lu(torch.linalg.qr(torch.randn(channels, channels))[0])
        d = upper.diagonal()
        self.lower, self.upper = nn.Parameter(lower.tril(-1)), nn.Parameter(upper.triu(1))
        self.log_s = nn.Parameter(d.abs().log())
        self.register_buffer("sign", d.sign())
        self.register_buffer("index", p.argmax(1))
        self.register_buffer("eye", torch.eye(channels), persistent=False)

    def matrix(self):
        lower = self.lower.tril(-1) + self.eye
        upper = self.upper.triu(1) + torch.diag(self.sign * torch.exp(self.log_s))
        return (lower @ upper)[self.index]

    def logdet(self):
        return self.log_s.sum()


class FixedPermutation(nn.Module):
    """`y[i] = x[index[i]]`."""

    def __init__(self, channels, kind):
        super().__init__()
        index = torch.arange(channels).flip(0) if kind == "reverse" else torch.randperm(channels)
        self.register_buffer("index", index)
        self.register_buffer("eye", torch.eye(channels), persistent=False)

    def matrix(self):
        return self.eye[self.index]

    def logdet(self):
        return 0.0


class Step(nn.Module):
    """Actnorm, permutation, coupling."""

    def __init__(self, channels, hidden, affine, permutation, height, width, linear):
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.permutation = Conv1x1(channels) if permutation == "conv1x1" else FixedPermutation(channels, permutation)
        self.coupling = Coupling(channels, hidden, affine, height, width)
        self.linear = linear

    def forward(self, x):
        """x -> y, log-determinant per sample."""
        scale = self.actnorm.scale()
        weight = self.permutation.matrix() * scale
        x = pointwise(x, weight, weight @ self.actnorm.bias, self.linear)
        pixels = x.shape[2] * x.shape[3]
        logdet = pixels * (3 * self.actnorm.logs.sum() + self.permutation.logdet())
        xa, xb = x.chunk(2, 1)
        out = network(xa, self.linear, *self.coupling.folded())
        if not self.coupling.affine:
            return torch.cat([xa, xb + out], 1), logdet.expand(len(x))
        shift, raw = out.chunk(2, 1)
        raw = raw + 2
        yb = (xb + shift) * torch.sigmoid(raw)
        return torch.cat([xa, yb], 1), logdet + F.logsigmoid(raw).sum((1, 2, 3), dtype=torch.float32)


class Level(nn.Module):
    def __init__(self, steps, prior):
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.prior = prior


class TopPrior(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.mean, self.logs = zeros(channels), zeros(channels)
        if classes:
            self.class_weight = zeros(classes, 2 * channels)

    def forward(self, label=None):
        both = torch.cat([self.mean, self.logs])[None]
        if hasattr(self, "class_weight"):
            both = both + self.class_weight[label]
        return both[:, :, None, None].chunk(2, 1)


class Glow(nn.Module):
    """`forward` is the training direction: log p(v) and the standardised latents of every level."""

    def __init__(self, image, levels, steps, hidden, coupling="affine", permutation="conv1x1", classes=0, bits=8,
                 linear=False, checkpointed=False):
        super().__init__()
        height, width, channels = image
        self.image, self.bins, self.linear, self.checkpointed = tuple(image), 2 ** bits, linear, checkpointed
        self.dims = height * width * channels
        self.levels, self.latent_shapes = nn.ModuleList(), []
        for level in range(levels):
            height, width, channels = height // 2, width // 2, channels * 4
            flow = [Step(channels, hidden, coupling == "affine", permutation, height, width, linear)
                    for _ in range(steps)]
            last = level == levels - 1
            self.levels.append(Level(flow, None if last else ZeroConv(channels // 2, channels, height, width)))
            kept = channels if last else channels // 2
            self.latent_shapes.append((kept, height, width))
            channels = kept
        self.prior = TopPrior(channels, classes)

    def dequantise(self, pixels, noise=None):
        """u8 NHWC pixels -> v, NCHW, with fresh uniform noise unless some is given."""
        if self.bins < 256:
            pixels = pixels // (256 // self.bins)
        noise = torch.rand(pixels.shape) / self.bins if noise is None else noise
        return (pixels / self.bins - 0.5 + noise).permute(0, 3, 1, 2)

    def forward(self, v, label=None):
        x, logp, latents = v, 0.0, []
        for level in self.levels:
            x = F.pixel_unshuffle(x, 2)
            if self.linear:
                x = x.contiguous(memory_format=torch.channels_last)
            for step in level.steps:
                x, logdet = checkpoint(step, x, use_reentrant=False) if self.checkpointed else step(x)
                logp = logp + logdet
            if level.prior is None:
                z, (mean, logs) = x, self.prior(label)
            else:
                x, z = x.chunk(2, 1)
                mean, logs = zero_conv(x, *level.prior.folded()).chunk(2, 1)
            eps = (z - mean) * torch.exp(-logs)
            logp = logp - (0.5 * (LOG_2PI + eps * eps) + logs).sum((1, 2, 3), dtype=torch.float32)
            latents.append(eps)
        return logp, latents

    def bits_per_dim(self, logp):
        return (self.dims * math.log(self.bins) - logp) / (self.dims * math.log(2))


class Decoder(nn.Module):
    """Latents -> v, on weights folded and inverted once: a snapshot of a model, for sampling."""

    @torch.no_grad()
    def __init__(self, model):
        super().__init__()
        self.linear, self.affine = model.linear, model.levels[0].steps[0].coupling.affine
        self.priors = nn.ModuleList(self.keep(level.prior.folded()) for level in model.levels if level.prior is not None)
        self.levels = nn.ModuleList(
            nn.ModuleList(self.keep(self.inverse(step)) for step in reversed(level.steps)) for level in model.levels)
        self.top = model.prior

    @staticmethod
    def keep(tensors):
        """A module holding tensors as constants, which is what lets the compiler prepack them."""
        return nn.ParameterList(nn.Parameter(t.detach().clone(), requires_grad=False) for t in tensors)

    @staticmethod
    def inverse(step):
        scale = 1 / step.actnorm.scale()
        weight = torch.linalg.inv(step.permutation.matrix().double()).float() * scale[:, None]
        return weight, -step.actnorm.bias, *step.coupling.folded()

    def forward(self, latents, label=None):
        x = None
        for number, steps in reversed(list(enumerate(self.levels))):
            if x is None:
                mean, logs = self.top(label)
                x = mean + torch.exp(logs) * latents[number]
            else:
                mean, logs = zero_conv(x, *self.priors[number]).chunk(2, 1)
                x = torch.cat([x, mean + torch.exp(logs) * latents[number]], 1)
            if self.linear:
                x = x.contiguous(memory_format=torch.channels_last)
            for weight, bias, *folded in steps:
                ya, yb = x.chunk(2, 1)
                out = network(ya, self.linear, *folded)
                if self.affine:
                    shift, raw = out.chunk(2, 1)
                    yb = yb * (1 + torch.exp(-2 - raw)) - shift
                else:
                    yb = yb - out
                x = pointwise(torch.cat([ya, yb], 1), weight, bias, self.linear)
            x = F.pixel_shuffle(x, 2)
        return x


class Bench:
    """A model, its optimiser and a batch, prepared as one variant says."""

    def __init__(self, args):
        self.args = args
        self.compiled = args.variant.startswith("compile")
        self.linear = args.variant.endswith("linear")
        self.format = torch.contiguous_format
        if self.linear or args.variant.endswith("channels_last"):
            self.format = torch.channels_last
        torch.manual_seed(0)
        self.model = Glow((args.image, args.image, 3), args.levels, args.steps, args.hidden, args.coupling,
                          linear=self.linear, checkpointed=args.checkpoint)
        for name, p in self.model.named_parameters():
            # A model past its first step: with the ZeroConvs at 0 every coupling would be the identity.
            if name.endswith(("conv3.weight", "prior.weight")):
                nn.init.normal_(p, std=0.1 / math.sqrt(p[0].numel()))
        self.model.to(memory_format=self.format)
        self.pixels = torch.randint(0, 256, (args.batch, args.image, args.image, 3), dtype=torch.uint8)
        # foreach was slower on the CPU, and there is no fused Adamax.
        self.optimiser = torch.optim.Adamax(self.model.parameters(), lr=1e-4, foreach=False)
        if args.precision == "bf16":
            self.cast = lambda: torch.autocast("cpu", torch.bfloat16)
        else:
            self.cast = contextlib.nullcontext
        self.flow, self.decoder = self.model, None
        if self.compiled:
            self.flow = torch.compile(self.model, dynamic=False, mode=args.compile_mode)

    def train(self):
        v = self.model.dequantise(self.pixels).contiguous(memory_format=self.format)
        with self.cast():
            logp, _ = self.flow(v)
        loss = self.model.bits_per_dim(logp).mean()
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        return loss.item()

    @torch.no_grad()
    def sample(self):
        if self.decoder is None:
            self.decoder = Decoder(self.model).eval().to(memory_format=self.format)
            if self.compiled:
                import torch._inductor.config as inductor

                inductor.freezing = True  # weights are constants here: prepacked, ReLU fused into the product
                self.decoder = torch.compile(self.decoder, dynamic=False, mode=self.args.compile_mode)
        latents = [0.7 * torch.randn(self.args.batch, *shape).contiguous(memory_format=self.format)
                   for shape in self.model.latent_shapes]
        with self.cast():
            v = self.decoder(latents)
        levels = torch.floor((v + 0.5) * self.model.bins).clamp_(0, self.model.bins - 1)
        return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def seconds(self, what, count):
        """Seconds of each of `count` repetitions."""
        work, times = {"train": self.train, "sample": self.sample}[what], []
        for _ in range(count):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return times

    def state_bytes(self):
        """Bytes of weights, gradients and the optimiser's two moments: what every trainer has to hold."""
        return 4 * sum(p.numel() * p.element_size() for p in self.model.parameters())


def status_bytes(field):
    """A memory figure of this process from the kernel: VmHWM is the peak, VmRSS the present size."""
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"{field} is not in /proc/self/status")


def serve(bench):
    for line in sys.stdin:
        if line.strip():
            what, count = line.split()
            print(json.dumps({"seconds": bench.seconds(what, int(count))}), flush=True)


def verify(path, linear):
    """Compare with the float64 vectors in a model file; returns the largest differences by name."""
    from safetensors import safe_open

    with safe_open(path, "pt") as f:
        config = json.loads(f.metadata()["glow.config"])
        tensors = {name: f.get_tensor(name) for name in f.keys()}
    test = {name.removeprefix("test."): tensors.pop(name) for name in list(tensors) if name.startswith("test.")}
    model = Glow(**config, linear=linear)
    model.load_state_dict(tensors)
    if linear:
        model.to(memory_format=torch.channels_last)
    label = test.get("label")
    logp, latents = model(model.dequantise(test["pixels"], test["noise"].float()), label)
    bits = model.bits_per_dim(logp)
    bits.mean().backward()
    nchw = [test[f"eps_random.{i}"].float().permute(0, 3, 1, 2) for i in range(len(latents))]
    with torch.no_grad():
        decoded = Decoder(model)(nchw, label).permute(0, 2, 3, 1)

    def apart(a, b, relative=False):
        difference = (a.double() - b).abs().max().item()
        return difference / max(b.abs().max().item(), 1e-30) if relative else difference

    return {
        "bits_per_dim": apart(bits, test["bits_per_dim"]),
        "latents": max(apart(e.permute(0, 2, 3, 1), test[f"eps.{i}"]) for i, e in enumerate(latents)),
        "decoded": apart(decoded, test["decoded"]),
        "gradients (relative to the largest of the tensor)": max(
            apart(p.grad, test["grad." + name], relative=True) for name, p in model.named_parameters()),
    }


def arguments():
    parser = argparse.ArgumentParser(description="Glow in PyTorch, to be timed")
    parser.add_argument("mode", nargs="?", choices=("train-step", "sample", "memory"), default="train-step")
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--image", type=int, default=32, help="height and width")
    parser.add_argument("--coupling", choices=("affine", "additive"), default="affine")
    parser.add_argument("--variant", choices=VARIANTS, default="channels_last")
    parser.add_argument("--compile-mode", default="default", help="mode of torch.compile")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32", help="bf16: autocast")
    parser.add_argument("--checkpoint", action="store_true", help="recompute every step of flow in backward")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--serve", action="store_true", help="answer requests on stdin")
    parser.add_argument("--verify", metavar="FILE", nargs="+", help="check against the test vectors of model files")
    return parser.parse_args()


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    if args.verify:
        bad = 0
        for path in args.verify:
            for linear in (False, True):
                differences = verify(path, linear)
                bad += any(not d < 1e-4 for d in differences.values())
                print(json.dumps({"file": os.path.basename(path), "linear": linear, **differences}), flush=True)
        sys.exit(f"{bad} of the checks differ by more than 1e-4" if bad else 0)

    if args.mode == "memory":
        # What PyTorch loads at its first step of training is part of the idle process, too.
        tiny = argparse.Namespace(**{**vars(args), "levels": 1, "steps": 1, "hidden": 8, "batch": 1, "image": 8})
        Bench(tiny).seconds("train", 2)
        idle = status_bytes("VmRSS")
    bench = Bench(args)
    if args.serve:
        return serve(bench)
    out = {"mode": args.mode, "variant": args.variant, "torch": torch.__version__, "threads": args.threads,
           **{k: getattr(args, k) for k in ("levels", "steps", "hidden", "batch", "image", "coupling", "precision")}}
    if args.mode == "memory":
        # Two steps: in the first one the optimiser has no moments yet, so its peak is not that of training.
        bench.seconds("train", 2)
        out |= {"checkpoint": args.checkpoint, "peak_rss": status_bytes("VmHWM"), "state_bytes": bench.state_bytes(),
                "idle_rss": idle}
    else:
        what = args.mode.removesuffix("-step")
        start = time.perf_counter()
        bench.seconds(what, args.warmup)
        out["warmup_seconds"] = time.perf_counter() - start
        out["seconds"] = bench.seconds(what, args.repeat)
        out["median"] = statistics.median(out["seconds"])
    print(json.dumps(out), flush=True)


if __name__ == "__main__":
    main()
