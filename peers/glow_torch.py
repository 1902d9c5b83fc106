"""Glow in PyTorch, optimised for speed: the reference that glowflow is timed against.

The model follows the project's specification, tensor for tensor, so that a glowflow model file
loads here (`--verify FILE` does so and checks likelihoods, latents, gradients and decoding).

Optimisations over the plain form:
  * every actnorm and every ZeroConv scale is folded into the weights of its convolution, so the wide
    activations are processed only by a convolution, its bias and an in-place ReLU;
  * actnorm and the 1x1 convolution of a step are one product;
  * the edge channel is appended where the input is narrow, and is a small map added to the output
    where the output is narrow; no `hidden`-wide activation is padded or concatenated;
  * weights for sampling (inverse matrices, folded weights) are computed once, not per call.

Additionally on a GPU (`--device cuda`):
  * narrow channels are padded with zeros to multiples of 8, as the tensor cores prefer;
  * bf16 autocast covers only the coupling networks: flow variables, log-determinants and the
    matrices of 1x1 convolutions stay in f32;
  * one step of flow is compiled, not the whole model: all steps of a level share the
    result, so that compiling takes as long for 32 steps as for one;
  * variants ending in `_graphs` capture the whole training step, optimiser included, or the whole
    sampling in one CUDA graph.

Every measurement prints one JSON line. `--serve` answers requests ("train 3", "sample 2", one per
line of stdin) with the seconds of each repetition, so that a live, warm process can be interleaved
with another program.
"""

import argparse
import contextlib
import functools
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
GRAPHS = tuple(variant + "_graphs" for variant in VARIANTS)  # --device cuda
LOG_2PI = math.log(2 * math.pi)


def zeros(*shape):
    return nn.Parameter(torch.zeros(*shape))


def missing(channels, multiple):
    """Number of channels missing to the next multiple."""
    return -channels % multiple


def ring_taps(height, width):
    """[9, height*width]: 1 where a tap of a 3x3 kernel is on the padding ring: the patches of the edge channel."""
    ring = F.pad(torch.zeros(1, 1, height, width), (1, 1, 1, 1), value=1.0)
    return F.unfold(ring, 3)[0]


class ActNorm(nn.Module):
    """`y = (x + bias) * exp(3 logs)`; always folded into an adjacent product."""

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
        """The weight without its edge channel, and the contribution of bias and edge channel to the output."""
        scale = torch.exp(3 * self.logs)
        weight = self.weight * scale.view(-1, 1, 1, 1)
        extra = torch.addmm((self.bias * scale)[:, None], weight[:, -1].flatten(1), self.taps)
        return weight[:, :-1], extra.view(1, -1, *self.size)


def zero_conv(x, weight, extra):
    y = F.conv2d(x, weight, padding=1)
    if len(weight) > extra.shape[1]:  # outputs that exist only for alignment
        y = y[:, :extra.shape[1]]
    return y + extra


def pointwise(x, weight, bias, flat):
    """1x1 convolution by the matrix `weight`; `flat` makes it one matrix product on views of a channels-last x."""
    if not flat:
        return F.conv2d(x, weight[:, :, None, None], bias)
    b, c, h, w = x.shape
    y = torch.addmm(bias, x.permute(0, 2, 3, 1).reshape(-1, c), weight.t())
    return y.view(b, h, w, -1).permute(0, 3, 1, 2)


class Coupling(nn.Module):
    """The affine or additive coupling and its network.

    Inputs and outputs of the network are padded with zeros to a multiple of `align` channels.
    """

    def __init__(self, channels, hidden, affine, height, width, align):
        super().__init__()
        half = channels // 2
        self.affine, self.bf16 = affine, False
        self.conv1 = nn.Conv2d(half + 1, hidden, 3, bias=False)
        self.actnorm1 = ActNorm(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 1, bias=False)
        self.actnorm2 = ActNorm(hidden)
        self.conv3 = ZeroConv(hidden, channels if affine else half, height, width)
        nn.init.normal_(self.conv1.weight, std=0.05)
        nn.init.normal_(self.conv2.weight, std=0.05)
        ring = F.pad(torch.zeros(1, 1, height, width), (1, 1, 1, 1), value=1.0)
        # The edge channel, followed by the alignment channels.
        self.more_inputs, self.more_outputs = missing(half + 1, align), missing(len(self.conv3.bias), align)
        ring = F.pad(ring, (0, 0, 0, 0, 0, self.more_inputs))
        self.register_buffer("ring", ring, persistent=False)

    def folded(self):
        s1, s2 = self.actnorm1.scale(), self.actnorm2.scale()
        w1, (w3, extra3) = self.conv1.weight * s1.view(-1, 1, 1, 1), self.conv3.folded()
        if self.more_inputs:
            w1 = F.pad(w1, (0, 0, 0, 0, 0, self.more_inputs))
        if self.more_outputs:
            w3 = F.pad(w3, (0, 0, 0, 0, 0, 0, 0, self.more_outputs))
        return (self.ring, w1, self.actnorm1.bias * s1,
                self.conv2.weight.flatten(1) * s2[:, None], self.actnorm2.bias * s2,
                w3, extra3)


def bf16_products(on):
    """bf16 on the GPU, for a coupling network. (Without the cache of cast weights, which a graph must not capture.)"""
    return torch.autocast("cuda", torch.bfloat16, cache_enabled=False) if on else contextlib.nullcontext()


def network(x, linear, flat, ring, w1, b1, w2, b2, w3, extra3):
    """The coupling network, with folded weights.

    `linear`: the first two convolutions as matrix products over channels-last rows, the first one on
    gathered patches; `flat`: the second one only. Each ReLU is applied to exactly the tensor that the next
    product saves for backward; for another view of it, the compiler would store an additional mask, which
    costs more than the ReLU.
    """
    x = torch.cat([F.pad(x, (1, 1, 1, 1)), ring.expand(len(x), -1, -1, -1)], 1)
    if linear or flat:
        if linear:
            patches = x.permute(0, 2, 3, 1).unfold(1, 3, 1).unfold(2, 3, 1)
            b, height, width = patches.shape[:3]
            h = torch.addmm(b1, patches.reshape(b * height * width, -1), w1.flatten(1).t()).relu_()
        else:
            h = F.conv2d(x.contiguous(memory_format=torch.channels_last), w1, b1).permute(0, 2, 3, 1)
            b, height, width = h.shape[:3]
            h = h.reshape(b * height * width, -1).relu_()
        h = torch.addmm(b2, h, w2.t())
        h = F.relu(h.view(b, height, width, -1).permute(0, 3, 1, 2))
    else:
        h = F.conv2d(x, w1, b1).relu_()
        h = F.conv2d(h, w2[:, :, None, None], b2).relu_()
    return zero_conv(h, w3, extra3)


class Conv1x1(nn.Module):
    """Invertible 1x1 convolution with the factors P L (U + diag)."""

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

    def __init__(self, channels, hidden, affine, permutation, height, width, linear, flat, align):
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.permutation = Conv1x1(channels) if permutation == "conv1x1" else FixedPermutation(channels, permutation)
        self.coupling = Coupling(channels, hidden, affine, height, width, align)
        self.linear, self.flat = linear, flat

    def forward(self, x):
        """x -> y, log-determinant per sample."""
        scale = self.actnorm.scale()
        weight = self.permutation.matrix() * scale
        x = pointwise(x, weight, weight @ self.actnorm.bias, self.flat)
        pixels = x.shape[2] * x.shape[3]
        logdet = pixels * (3 * self.actnorm.logs.sum() + self.permutation.logdet())
        xa, xb = x.chunk(2, 1)
        folded = self.coupling.folded()
        with bf16_products(self.coupling.bf16):
            out = network(xa, self.linear, self.flat, *folded)
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
    """`forward` is the training direction: log p(v) and the standardised latents of every level.

    `linear` and `flat` select the convolutions computed as matrix products on a channels-last x: the first one of
    every coupling network and all 1x1, or the latter only.
    """

    def __init__(self, image, levels, steps, hidden, coupling="affine", permutation="conv1x1", classes=0, bits=8,
                 linear=False, flat=False, align=1, checkpointed=False):
        super().__init__()
        height, width, channels = image
        self.image, self.bins, self.checkpointed = tuple(image), 2 ** bits, checkpointed
        self.linear, self.flat = linear, flat or linear
        self.compiled_step = None  # or `Step.forward`, compiled
        self.dims = height * width * channels
        self.levels, self.latent_shapes = nn.ModuleList(), []
        for level in range(levels):
            height, width, channels = height // 2, width // 2, channels * 4
            flow = [Step(channels, hidden, coupling == "affine", permutation, height, width, self.linear, self.flat, align)
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
        noise = torch.rand(pixels.shape, device=pixels.device) / self.bins if noise is None else noise
        return (pixels / self.bins - 0.5 + noise).permute(0, 3, 1, 2)

    def run_step(self, step, x):
        call = step if self.compiled_step is None else functools.partial(self.compiled_step, step)
        # Nothing in a step is random: there is no state of a generator to keep.
        return checkpoint(call, x, use_reentrant=False, preserve_rng_state=False) if self.checkpointed else call(x)

    def forward(self, v, label=None):
        x, logp, latents = v, 0.0, []
        for level in self.levels:
            x = F.pixel_unshuffle(x, 2)
            if self.flat:
                x = x.contiguous(memory_format=torch.channels_last)
            for step in level.steps:
                x, logdet = self.run_step(step, x)
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


def inverse_step(x, affine, linear, flat, bf16, weight, bias, *folded):
    """The inverse of a step of flow, with folded and inverted weights."""
    ya, yb = x.chunk(2, 1)
    with bf16_products(bf16):
        out = network(ya, linear, flat, *folded)
    if affine:
        shift, raw = out.chunk(2, 1)
        yb = yb * (1 + torch.exp(-2 - raw)) - shift
    else:
        yb = yb - out
    return pointwise(torch.cat([ya, yb], 1), weight, bias, flat)


class Decoder(nn.Module):
    """Latents -> v, with weights folded and inverted once: a snapshot of a model for sampling."""

    @torch.no_grad()
    def __init__(self, model):
        super().__init__()
        coupling = model.levels[0].steps[0].coupling
        self.how = coupling.affine, model.linear, model.flat, coupling.bf16
        self.flat, self.inverse_step = model.flat, inverse_step
        self.priors = nn.ModuleList(self.keep(level.prior.folded()) for level in model.levels if level.prior is not None)
        self.levels = nn.ModuleList(
            nn.ModuleList(self.keep(self.inverse(step)) for step in reversed(level.steps)) for level in model.levels)
        self.top = model.prior

    @staticmethod
    def keep(tensors):
        """A module that holds tensors as constants, so that the compiler can prepack them."""
        return nn.ParameterList(nn.Parameter(t.detach().clone(), requires_grad=False) for t in tensors)

    @staticmethod
    def inverse(step):
        scale = 1 / step.actnorm.scale()
        weight = torch.linalg.inv(step.permutation.matrix().double()).float() * scale[:, None]
        ring, *products, extra3 = step.coupling.folded()
        if step.coupling.bf16:  # cast once, not at every use
            products = [t.to(torch.bfloat16) for t in products]
        return weight, -step.actnorm.bias, ring, *products, extra3

    def forward(self, latents, label=None):
        x = None
        for number, steps in reversed(list(enumerate(self.levels))):
            if x is None:
                mean, logs = self.top(label)
                x = mean + torch.exp(logs) * latents[number]
            else:
                mean, logs = zero_conv(x, *self.priors[number]).chunk(2, 1)
                x = torch.cat([x, mean + torch.exp(logs) * latents[number]], 1)
            if self.flat:
                x = x.contiguous(memory_format=torch.channels_last)
            for tensors in steps:
                x = self.inverse_step(x, *self.how, *tensors)
            x = F.pixel_shuffle(x, 2)
        return x


class Bench:
    """A model, its optimiser and a batch, prepared for one variant."""

    def __init__(self, args):
        self.args, self.cuda = args, args.device == "cuda"
        variant = args.variant.removesuffix("_graphs")
        self.graphs, self.captured = args.variant.endswith("_graphs"), {}
        self.compiled = variant.startswith("compile")
        self.linear = variant.endswith("linear")
        self.format = torch.contiguous_format
        if self.linear or variant.endswith("channels_last"):
            self.format = torch.channels_last
        torch.manual_seed(0)
        # cuDNN has no fast channels-last f32 convolution without TF32, so all 1x1 convolutions become products.
        flat = self.cuda and self.format == torch.channels_last
        self.model = Glow((args.image, args.image, 3), args.levels, args.steps, args.hidden, args.coupling,
                          linear=self.linear, flat=flat, align=8 if self.cuda else 1, checkpointed=args.checkpoint)
        for name, p in self.model.named_parameters():
            # A model after its first step: with zero ZeroConvs every coupling would be the identity.
            if name.endswith(("conv3.weight", "prior.weight")):
                nn.init.normal_(p, std=0.1 / math.sqrt(p[0].numel()))
        self.model.to(device=args.device, memory_format=self.format)
        self.pixels = torch.randint(0, 256, (args.batch, args.image, args.image, 3), dtype=torch.uint8)
        if self.cuda:
            self.host_pixels, self.pixels = self.pixels.pin_memory(), self.pixels.cuda()
            self.host_samples = torch.empty_like(self.host_pixels).pin_memory()
        # foreach was slower on the CPU, and there is no fused Adamax.
        how = {"foreach": True, "capturable": True} if self.cuda else {"foreach": False}
        self.optimiser = torch.optim.Adamax(self.model.parameters(), lr=1e-4, **how)
        self.cast = contextlib.nullcontext
        if args.precision == "bf16" and self.cuda:
            for level in self.model.levels:
                for step in level.steps:
                    step.coupling.bf16 = True
        elif args.precision == "bf16":
            self.cast = lambda: torch.autocast("cpu", torch.bfloat16)
        self.flow, self.decoder = self.model, None
        if self.compiled:
            if args.compile == "whole":
                self.flow = self.compile(self.model)
            else:
                self.model.compiled_step = self.compile(Step.forward)

    def compile(self, what):
        # Shapes differ between levels, and the first step of a level may differ in requiring a gradient.
        torch._dynamo.config.recompile_limit = 64
        return torch.compile(what, dynamic=False, mode=self.args.compile_mode)

    def launch(self, work):
        """Runs work on the device; graph variants capture it at the first call and replay it later."""
        if not self.graphs:
            return work()
        if work not in self.captured:
            # Before capturing, everything must be compiled, selected and allocated, on a side stream.
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    work()
            torch.cuda.current_stream().wait_stream(stream)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = work()
            self.captured[work] = graph, result
        graph, result = self.captured[work]
        graph.replay()
        return result

    def train_work(self):
        v = self.model.dequantise(self.pixels).contiguous(memory_format=self.format)
        with self.cast():
            logp, _ = self.flow(v)
        loss = self.model.bits_per_dim(logp).mean()
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        return loss.detach()

    def train(self):
        if self.cuda:
            self.pixels.copy_(self.host_pixels, non_blocking=True)
        return self.launch(self.train_work).item()

    @torch.no_grad()
    def prepare_decoder(self):
        self.decoder = Decoder(self.model).eval().to(memory_format=self.format)
        if self.compiled and self.args.compile == "whole":
            import torch._inductor.config as inductor

            inductor.freezing = True  # weights are constants: prepacked, with the ReLU fused into the product
            self.decoder = self.compile(self.decoder)
        elif self.compiled:
            self.decoder.inverse_step = self.compile(inverse_step)

    @torch.no_grad()
    def sample_work(self):
        latents = [0.7 * torch.randn(self.args.batch, *shape, device=self.args.device)
                   .contiguous(memory_format=self.format) for shape in self.model.latent_shapes]
        with self.cast():
            v = self.decoder(latents)
        levels = torch.floor((v + 0.5) * self.model.bins).clamp_(0, self.model.bins - 1)
        return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def sample(self):
        if self.decoder is None:
            self.prepare_decoder()
        samples = self.launch(self.sample_work)
        return self.host_samples.copy_(samples, non_blocking=True) if self.cuda else samples

    def seconds(self, what, count):
        """Seconds of each of `count` repetitions."""
        work, times = {"train": self.train, "sample": self.sample}[what], []
        for _ in range(count):
            start = time.perf_counter()
            work()
            if self.cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return times

    def state_bytes(self):
        """Bytes of weights, gradients and the optimiser's two moments, which every trainer holds."""
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


def verify(path, linear, device):
    """Compares with the float64 vectors in a model file; returns the largest differences by name."""
    from safetensors import safe_open

    with safe_open(path, "pt") as f:
        config = json.loads(f.metadata()["glow.config"])
        tensors = {name: f.get_tensor(name) for name in f.keys()}
    test = {name.removeprefix("test."): tensors.pop(name) for name in list(tensors) if name.startswith("test.")}
    cuda = device == "cuda"
    model = Glow(**config, linear=linear, flat=cuda, align=8 if cuda else 1)
    model.load_state_dict(tensors)
    model.to(device=device, memory_format=torch.channels_last if linear or cuda else torch.contiguous_format)
    test = {name: t.to(device) for name, t in test.items()}
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


def ceilings(device):
    """Ceilings of the device: bytes read and written per second by a copy, and FLOP/s of a bf16 product."""
    cuda = device == "cuda"
    size, length = (8192, 2 ** 32) if cuda else (256, 2 ** 24)
    a, b, c = (torch.randn(size, size, device=device).bfloat16() for _ in range(3))
    source = torch.randint(0, 256, (length,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def best(work, calls):
        """Seconds per call: the median over groups of ten calls, after a warm-up."""
        turns = []
        for _ in range(calls + 1):
            if cuda:
                torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(10):
                work()
            if cuda:
                torch.cuda.synchronize()
            turns.append((time.perf_counter() - start) / 10)
        return statistics.median(turns[1:])

    return {"copy_bytes_per_second": 2 * length / best(lambda: target.copy_(source), 9),
            "bf16_flops_per_second": 2 * size ** 3 / best(lambda: torch.mm(a, b, out=c), 9),
            "device": torch.cuda.get_device_name() if cuda else "cpu", "torch": torch.__version__}


def choose_precision(args):
    """Everything that is not cast to bf16 uses full f32, unless TF32 was requested."""
    tf32 = args.precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    # cuDNN times its algorithms, except in memory measurements, which would include their workspaces.
    torch.backends.cudnn.benchmark = args.mode != "memory"


def device_memory(bench):
    """Peak memory of a training step on the GPU, after setup and with the optimiser's moments allocated."""
    bench.seconds("train", 2)
    torch.cuda.reset_peak_memory_stats()
    bench.seconds("train", 1)
    return {"device_peak_bytes": torch.cuda.max_memory_allocated(), "state_bytes": bench.state_bytes(),
            "peak_rss": status_bytes("VmHWM")}


def arguments():
    parser = argparse.ArgumentParser(description="Glow in PyTorch, to be timed")
    parser.add_argument("mode", nargs="?", choices=("train-step", "sample", "memory", "ceilings"), default="train-step")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--image", type=int, default=32, help="height and width")
    parser.add_argument("--coupling", choices=("affine", "additive"), default="affine")
    parser.add_argument("--variant", choices=VARIANTS + GRAPHS, default="channels_last",
                        help="those with graphs are for --device cuda")
    parser.add_argument("--compile", choices=("whole", "step"), help="what the compiler is given: the model (default "
                        "on the CPU), or a step of flow (default on a GPU)")
    parser.add_argument("--compile-mode", default="default", help="mode of torch.compile")
    parser.add_argument("--precision", choices=("f32", "tf32", "bf16"), default="f32",
                        help="bf16: autocast; tf32: in all products, --device cuda only")
    parser.add_argument("--checkpoint", action="store_true", help="recompute every step of flow in backward")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--serve", action="store_true", help="answer requests on stdin")
    parser.add_argument("--verify", metavar="FILE", nargs="+", help="check against the test vectors of model files")
    args = parser.parse_args()
    if args.device == "cpu" and (args.variant in GRAPHS or args.precision == "tf32"):
        parser.error("graphs and tf32 need --device cuda")
    args.compile = args.compile or ("whole" if args.device == "cpu" else "step")
    return args


def main():
    args = arguments()
    if args.device == "cuda":
        choose_precision(args)
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    if args.verify:
        bad = 0
        for path in args.verify:
            for linear in (False, True):
                differences = verify(path, linear, args.device)
                bad += any(not d < 1e-4 for d in differences.values())
                print(json.dumps({"file": os.path.basename(path), "linear": linear, **differences}), flush=True)
        sys.exit(f"{bad} of the checks differ by more than 1e-4" if bad else 0)

    if args.mode == "ceilings":
        return print(json.dumps(ceilings(args.device)), flush=True)
    if args.mode == "memory" and args.device == "cpu":
        # Libraries that PyTorch loads at its first training step are part of the idle process, too.
        tiny = argparse.Namespace(**{**vars(args), "levels": 1, "steps": 1, "hidden": 8, "batch": 1, "image": 8})
        Bench(tiny).seconds("train", 2)
        idle = status_bytes("VmRSS")
    bench = Bench(args)
    if args.serve:
        return serve(bench)
    out = {"mode": args.mode, "variant": args.variant, "torch": torch.__version__, "threads": args.threads,
           "device": args.device,
           **{k: getattr(args, k) for k in ("levels", "steps", "hidden", "batch", "image", "coupling", "precision")}}
    if args.mode == "memory" and args.device == "cuda":
        out |= {"checkpoint": args.checkpoint, **device_memory(bench)}
    elif args.mode == "memory":
        # Two steps: in the first one the optimiser has no moments yet, so its peak is not representative.
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
