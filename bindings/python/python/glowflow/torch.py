"""Models as plain modules of PyTorch, for gradients by pixels and for fine-tuning.

The modules are written for clarity, in the formulas of `docs/model.md`, and have its names of tensors. They are some times
slower than `glowflow.Model`. Images inside of a module are [B, C, H, W], latents that it returns [B, h, w, c] as those of
`Model.encode`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glowflow import Config, GlowConfig, Model, NiceConfig, RealNvpConfig, _safetensors

__all__ = ["FlowModule", "GlowModule", "NiceModule", "RealNvpModule", "as_module", "to_safetensors"]

_LOG_2PI = math.log(2 * math.pi)
_EPSILON, _DECAY = 1e-4, 0.1  # of batch normalisations


def as_module(model: Model | str | os.PathLike[str]) -> FlowModule:
    """A model, or that of a file or a run's folder, as a module in evaluation mode on the CPU."""
    if not isinstance(model, Model):
        model = Model.load(model, device="cpu")
    tensors = {name: torch.from_numpy(array) for name, array in model.state_dict().items()}
    module = _module(model.config)
    own = module.state_dict().keys()
    module.others = {name: tensor for name, tensor in tensors.items() if name not in own}
    unknown = [name for name in module.others if not name.startswith("dequantizer.")]
    if unknown:
        raise NotImplementedError(f"as_module has no {unknown[0]}")
    module.load_state_dict({name: tensor for name, tensor in tensors.items() if name in own})
    return module.eval()


def to_safetensors(module: FlowModule, path: str | os.PathLike[str]) -> None:
    """Writes a module as a `model.safetensors`, which `Model.load` reads."""
    tensors = {**module.others, **module.state_dict()}
    arrays = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu()
        arrays[name] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    _safetensors.write(path, arrays, {"glow.config": module.config.to_json()})


def _module(config: Config) -> FlowModule:
    if isinstance(config, GlowConfig):
        return GlowModule(config)
    if isinstance(config, RealNvpConfig):
        return RealNvpModule(config)
    return NiceModule(config)


class FlowModule(nn.Module):
    """A flow: `forward` is the direction of likelihoods, `inverse` that of samples."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.bins = 2**config.bits
        self.dims = math.prod(config.image)
        # Tensors of the file that a flow by itself does not need, such as those of a dequantiser.
        self.others: dict[str, Tensor] = {}

    def dequantize(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """uint8 [B, H, W, C] -> v [B, C, H, W] in [-0.5, 0.5). Noise [B, H, W, C] in [0, 1/bins) is uniform by default."""
        values = images.to(self._like().device) // (256 // self.bins)
        if noise is None:
            noise = torch.rand(values.shape, device=values.device, dtype=self._like().dtype) / self.bins
        return (values / self.bins - 0.5 + noise.to(self._like())).permute(0, 3, 1, 2)

    def forward(self, v: Tensor, labels: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """v [B, C, H, W] -> log p(v) times the volume of a bin, in nats [B], and latents [B, h, w, c]."""
        log_prob, latents = self.flow(v, labels)
        latents = [level.permute(0, 2, 3, 1) for level in latents]
        return log_prob - self.dims * math.log(self.bins), latents

    def inverse(self, latents: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Latents [B, h, w, c] -> v [B, C, H, W]."""
        return self.unflow([level.permute(0, 3, 1, 2) for level in latents], labels)

    def bits_per_dim(self, log_prob: Tensor) -> Tensor:
        """A log-likelihood in nats as bits per dimension."""
        return -log_prob / (self.dims * math.log(2))

    def flow(self, v: Tensor, labels: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """log p(v), and latents [B, c, h, w]."""
        raise NotImplementedError

    def unflow(self, latents: list[Tensor], labels: Tensor | None) -> Tensor:
        """Its inverse."""
        raise NotImplementedError

    def _like(self) -> Tensor:
        return next(self.parameters())


def _normal(eps: Tensor) -> Tensor:
    """log N(eps; 0, 1) of each image."""
    return -0.5 * (_LOG_2PI + eps.square()).flatten(1).sum(1)


def _follow(module: nn.Module, mean: Tensor, var: Tensor) -> None:
    """Moves running statistics towards those of a batch."""
    with torch.no_grad():
        module.running_mean.lerp_(mean, _DECAY)  # type: ignore[operator, union-attr]
        module.running_var.lerp_(var, _DECAY)  # type: ignore[operator, union-attr]


class _BatchNorm(nn.Module):
    """Mean and variance of each channel: those of the batch in training, running averages in evaluation."""

    def __init__(self, channels: int, bias: bool = False) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and inverse standard deviation, [1, C, 1, 1]."""
        mean, var = self.running_mean, self.running_var
        if self.training:
            var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            _follow(self, mean.detach(), var.detach())
        return mean.view(1, -1, 1, 1), torch.rsqrt(var + _EPSILON).view(1, -1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean, inverse = self.statistics(x)
        x = (x - mean) * inverse
        return x if self.bias is None else x + self.bias.view(1, -1, 1, 1)


# Glow


def _ring(x: Tensor) -> Tensor:
    """The edge channel, [1, 1, H + 2, W + 2]: 1 on the ring of padding, 0 inside."""
    return F.pad(x.new_zeros(1, 1, *x.shape[2:]), (1, 1, 1, 1), value=1.0)


def _edge_conv(x: Tensor, weight: Tensor) -> Tensor:
    """A 3×3 convolution whose last input is the edge channel."""
    ring = _ring(x).expand(len(x), -1, -1, -1)
    return F.conv2d(torch.cat([F.pad(x, (1, 1, 1, 1)), ring], 1), weight)


def _channels(x: Tensor) -> Tensor:
    return x.view(1, -1, 1, 1)


class _Weight(nn.Module):
    """The weight of a convolution without a bias."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(*shape))


class _ActNorm(nn.Module):
    """`y = (x + bias)·exp(3·logs)`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.logs = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return (x + _channels(self.bias)) * torch.exp(3 * _channels(self.logs))

    def inverse(self, y: Tensor) -> Tensor:
        return y * torch.exp(-3 * _channels(self.logs)) - _channels(self.bias)


class _ZeroConv(nn.Module):
    """`(conv3×3(x) + bias)·exp(3·logs)` with the edge channel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs + 1, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.logs = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return (_edge_conv(x, self.weight) + _channels(self.bias)) * torch.exp(3 * _channels(self.logs))


class _Conv1x1(nn.Module):
    """The 1×1 convolution `W = P·L·(U + diag(sign·exp(log_s)))`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lower = nn.Parameter(torch.zeros(channels, channels))
        self.upper = nn.Parameter(torch.zeros(channels, channels))
        self.log_s = nn.Parameter(torch.zeros(channels))
        self.register_buffer("sign", torch.ones(channels))
        self.register_buffer("index", torch.arange(channels))

    def matrix(self) -> Tensor:
        eye = torch.eye(len(self.log_s), dtype=self.log_s.dtype, device=self.log_s.device)
        upper = self.upper.triu(1) + torch.diag(self.sign * torch.exp(self.log_s))
        return ((self.lower.tril(-1) + eye) @ upper)[self.index]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.conv2d(x, self.matrix()[:, :, None, None]), self.log_s.sum()

    def inverse(self, y: Tensor) -> Tensor:
        matrix = torch.linalg.inv(self.matrix().double()).to(y.dtype)
        return F.conv2d(y, matrix[:, :, None, None])


class _Permutation(nn.Module):
    """`y[i] = x[index[i]]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("index", torch.arange(channels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, self.index], x.new_zeros(())

    def inverse(self, y: Tensor) -> Tensor:
        return y[:, torch.argsort(self.index)]


class _Head(nn.Module):
    """`(conv1×1(x) + bias)·exp(3·logs)`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.logs = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return (F.conv2d(x, self.weight) + _channels(self.bias)) * torch.exp(3 * _channels(self.logs))


class _ResidualBlock(nn.Module):
    """`h + p·σ(g)` with `(p, g) = project(ReLU(expand(RMS(depthwise7×7(h))·norm)))`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.zeros(7, 7, width))
        self.norm = nn.Parameter(torch.ones(width))
        self.expand = nn.Conv2d(width, 3 * width, 1)
        self.project = nn.Conv2d(3 * width, 2 * width, 1)

    def forward(self, h: Tensor) -> Tensor:
        taps = self.taps.permute(2, 0, 1)[:, None]
        c = F.conv2d(h, taps, padding=3, groups=len(taps))
        p, g = self.project(F.relu(self.expand(_rms(c) * _channels(self.norm)))).chunk(2, 1)
        return h + p * torch.sigmoid(g)


def _rms(c: Tensor) -> Tensor:
    """`c` over its root mean square over channels, at each pixel."""
    return c * torch.rsqrt(c.square().mean(1, keepdim=True) + 1e-5)


class _Coupling(nn.Module):
    """The coupling of one half of the channels, given the other: its network and its transform."""

    def __init__(self, channels: int, config: GlowConfig) -> None:
        super().__init__()
        half, hidden = channels // 2, config.hidden
        self.kind, self.bounded = config.coupling, config.scale == "exp2tanh"
        self.residual, self.components = config.network == "residual", config.mixture_components
        outputs = half if self.kind == "additive" else channels
        if self.residual:
            self.conv_in = nn.Conv2d(half + 1, hidden, 3)
            self.blocks = nn.ModuleList(_ResidualBlock(hidden) for _ in range(config.network_blocks))
            self.norm_out = nn.Parameter(torch.ones(hidden))
            self.conv_out = _ZeroConv(hidden, outputs)
        else:
            self.conv1 = _Weight(hidden, half + 1, 3, 3)
            self.actnorm1 = _ActNorm(hidden)
            self.conv2 = _Weight(hidden, hidden, 1, 1)
            self.actnorm2 = _ActNorm(hidden)
            self.conv3 = _ZeroConv(hidden, outputs)
        if self.kind == "mixture":
            self.head = _Head(hidden, 3 * self.components * half)

    def network(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The network's output, and its last hidden layer."""
        if self.residual:
            h = _edge_conv(x, self.conv_in.weight) + _channels(self.conv_in.bias)
            for block in self.blocks:
                h = block(h)
            h = _rms(h) * _channels(self.norm_out)
            return self.conv_out(h), h
        h = F.relu(self.actnorm1(_edge_conv(x, self.conv1.weight)))
        h = F.relu(self.actnorm2(F.conv2d(h, self.conv2.weight)))
        return self.conv3(h), h

    def log_scale(self, raw: Tensor) -> Tensor:
        """The logarithm of an affine coupling's scale."""
        return 2 * torch.tanh(raw / 2) if self.bounded else F.logsigmoid(raw + 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, changed = x.chunk(2, 1)
        out, hidden = self.network(kept)
        if self.kind == "additive":
            return torch.cat([kept, changed + out], 1), x.new_zeros(len(x))
        shift, raw = out.chunk(2, 1)
        if self.kind == "affine":
            a = self.log_scale(raw)
            changed, logdet = (changed + shift) * torch.exp(a), a
        else:
            a, mixture = 2 * torch.tanh(raw / 2), _Mixture(self.head(hidden), self.components)
            t, log_slope = mixture(changed)
            changed, logdet = t * torch.exp(a) + shift, log_slope + a
        return torch.cat([kept, changed], 1), logdet.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        kept, changed = y.chunk(2, 1)
        out, hidden = self.network(kept)
        if self.kind == "additive":
            return torch.cat([kept, changed - out], 1)
        shift, raw = out.chunk(2, 1)
        if self.kind == "affine":
            changed = changed * torch.exp(-self.log_scale(raw)) - shift
        else:
            a, mixture = 2 * torch.tanh(raw / 2), _Mixture(self.head(hidden), self.components)
            changed = mixture.inverse((changed - shift) * torch.exp(-a))
        return torch.cat([kept, changed], 1)


class _Mixture:
    """`t = (1 − κ)·log(F/(1 − F)) + κ·x` with `F` a mixture of logistic distribution functions.

    The head is `[B, 3·M·C/2, h, w]`: `l`, `m` and `w` of every component.
    """

    FLOOR, BOUND, SPREAD, BISECTIONS = 0.1, 2.5, 1.5, 64

    def __init__(self, head: Tensor, components: int) -> None:
        b, channels, h, w = head.shape
        logits, mean, width = head.view(b, 3, components, channels // (3 * components), h, w).unbind(1)
        offset = torch.linspace(-self.SPREAD, self.SPREAD, components) if components > 1 else torch.zeros(1)
        self.log_pi = F.log_softmax(logits, 1)
        self.mu = mean + offset.to(head).view(1, -1, 1, 1, 1)
        self.zeta = self.BOUND * torch.tanh(width / self.BOUND)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """t, and the logarithm of its slope."""
        z = (x[:, None] - self.mu) * torch.exp(-self.zeta)
        upper, lower = F.logsigmoid(z), F.logsigmoid(-z)
        log_f = torch.logsumexp(self.log_pi + upper, 1)
        log_g = torch.logsumexp(self.log_pi + lower, 1)
        log_density = torch.logsumexp(self.log_pi + upper + lower - self.zeta, 1)
        t = (1 - self.FLOOR) * (log_f - log_g) + self.FLOOR * x
        slope = (1 - self.FLOOR) * torch.exp(log_density - log_f - log_g) + self.FLOOR
        return t, slope.log()

    def inverse(self, t: Tensor) -> Tensor:
        """Bisection between the roots of single components, and a step of Newton's method that gradients flow through."""
        with torch.no_grad():
            slopes = (1 - self.FLOOR) * torch.exp(-self.zeta)
            roots = (t[:, None] + slopes * self.mu) / (slopes + self.FLOOR)
            low, high = roots.amin(1), roots.amax(1)
            for _ in range(self.BISECTIONS):
                middle = (low + high) / 2
                below = self(middle)[0] < t
                low, high = torch.where(below, middle, low), torch.where(below, high, middle)
            x = (low + high) / 2
        value, log_slope = self(x)
        return x - (value - t) * torch.exp(-log_slope.detach())


class _Step(nn.Module):
    """Normalisation, permutation, coupling."""

    def __init__(self, channels: int, config: GlowConfig) -> None:
        super().__init__()
        self.norm = _BatchNorm(channels) if config.normalization == "batchnorm" else None
        self.actnorm = _ActNorm(channels)
        self.permutation = _Conv1x1(channels) if config.permutation == "conv1x1" else _Permutation(channels)
        self.coupling = _Coupling(channels, config)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pixels = x.shape[2] * x.shape[3]
        logdet = 3 * self.actnorm.logs.sum()
        if self.norm is not None:
            mean, inverse = self.norm.statistics(x)
            x, logdet = (x - mean) * inverse, logdet + inverse.log().sum()
        x, of_permutation = self.permutation(self.actnorm(x))
        x, of_coupling = self.coupling(x)
        return x, of_coupling + pixels * (logdet + of_permutation)

    def inverse(self, y: Tensor) -> Tensor:
        x = self.actnorm.inverse(self.permutation.inverse(self.coupling.inverse(y)))
        if self.norm is not None:
            mean, inverse = self.norm.statistics(x)
            x = x / inverse + mean
        return x


class _GlowLevel(nn.Module):
    def __init__(self, channels: int, config: GlowConfig, last: bool) -> None:
        super().__init__()
        self.steps = nn.ModuleList(_Step(channels, config) for _ in range(config.steps))
        self.prior = None if last else _ZeroConv(channels // 2, channels)


class _Top(nn.Module):
    """Mean and log-scale of the last latents."""

    def __init__(self, channels: int, config: GlowConfig) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(channels))
        self.logs = nn.Parameter(torch.zeros(channels))
        self.class_weight = nn.Parameter(torch.zeros(config.classes, 2 * channels)) if config.classes else None
        self.edge = nn.Parameter(torch.zeros(2 * channels, 1, 3, 3)) if config.prior == "edge" else None

    def forward(self, like: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        both = torch.cat([self.mean, self.logs])[None]
        if self.class_weight is not None:
            if labels is None:
                raise ValueError("the model has classes: pass labels, one class an image")
            both = both + self.class_weight[labels]
        both = both[:, :, None, None]
        if self.edge is not None:
            both = both + F.conv2d(_ring(like), self.edge)
        mean, logs = both.chunk(2, 1)
        return mean, logs


class GlowModule(FlowModule):
    """A Glow."""

    def __init__(self, config: GlowConfig) -> None:
        super().__init__(config)
        channels = config.image[2]
        self.levels = nn.ModuleList()
        for level in range(config.levels):
            channels, last = 4 * channels, level + 1 == config.levels
            self.levels.append(_GlowLevel(channels, config, last))
            channels = channels if last else channels // 2
        self.prior = _Top(channels, config)

    def flow(self, v: Tensor, labels: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        x, log_prob, latents = v, v.new_zeros(len(v)), []
        for level in self.levels:
            x = F.pixel_unshuffle(x, 2)
            for step in level.steps:
                x, logdet = step(x)
                log_prob = log_prob + logdet
            if level.prior is None:
                z, (mean, logs) = x, self.prior(x, labels)
            else:
                x, z = x.chunk(2, 1)
                mean, logs = level.prior(x).chunk(2, 1)
            eps = (z - mean) * torch.exp(-logs)
            log_prob = log_prob + _normal(eps) - logs.expand_as(z).flatten(1).sum(1)
            latents.append(eps)
        return log_prob, latents

    def unflow(self, latents: list[Tensor], labels: Tensor | None) -> Tensor:
        x = latents[-1]
        for level, eps in zip(reversed(self.levels), reversed(latents)):
            if level.prior is None:
                mean, logs = self.prior(eps, labels)
                x = mean + torch.exp(logs) * eps
            else:
                mean, logs = level.prior(x).chunk(2, 1)
                x = torch.cat([x, mean + torch.exp(logs) * eps], 1)
            for step in reversed(level.steps):
                x = step.inverse(x)
            x = F.pixel_shuffle(x, 2)
        return x


# RealNVP

_ALPHA = 0.05
_ORDER, _INVERSE_ORDER = (0, 3, 1, 2), (0, 2, 3, 1)


class _NormedConv(nn.Module):
    """A weight-normalised convolution; without `gain` it has no magnitude."""

    def __init__(self, inputs: int, outputs: int, size: int, gain: bool = True, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(outputs, inputs, size, size))
        self.magnitude = nn.Parameter(torch.ones(outputs)) if gain else None
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.padding = size // 2

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(self.weight.square().sum((1, 2, 3)))
        if self.magnitude is not None:
            scale = scale * self.magnitude
        return F.conv2d(x, self.weight * scale.view(-1, 1, 1, 1), self.bias, padding=self.padding)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _BatchNorm(width, bias=True), _NormedConv(width, width, 3, gain=False)
        self.norm2, self.conv2 = _BatchNorm(width, bias=True), _NormedConv(width, width, 3)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(h))))))


class _Network(nn.Module):
    """The residual network of a coupling, from `channels` to twice as many."""

    def __init__(self, channels: int, width: int, blocks: int, checkerboard: bool) -> None:
        super().__init__()
        self.norm_in = _BatchNorm(channels, bias=True)
        self.conv_in = _NormedConv(2 * channels + checkerboard, width, 3, gain=False)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.skips = nn.ModuleList(_NormedConv(width, width, 1) for _ in range(blocks + 1))
        self.norm_out = _BatchNorm(width, bias=True)
        self.conv_out = _NormedConv(width, 2 * channels, 1, bias=True)

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
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
        shift, raw = self.conv_out(F.relu(self.norm_out(total))).chunk(2, 1)
        return shift, raw


class _MaskedCoupling(nn.Module):
    """A coupling that keeps the pixels of a mask, or without a mask one half of the channels."""

    def __init__(self, channels: int, width: int, blocks: int, checkerboard: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.norm = _BatchNorm(channels)
        self.network = _Network(channels, width, blocks, checkerboard)

    def change(self, x: Tensor, kept: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """The changed part, and the log-determinant of each image."""
        shift, raw = self.network(kept, mask)
        s = self.scale * torch.tanh(raw)
        y, changes = (x + shift) * torch.exp(s), None if mask is None else 1 - mask
        if changes is not None:
            y, s = y * changes, s * changes
        mean, inverse = self.norm.statistics(y)
        z, elements = (y - mean) * inverse, x.shape[2] * x.shape[3]
        if changes is not None:
            z, elements = z * changes, changes.sum()
        return z, s.flatten(1).sum(1) + elements * inverse.log().sum()

    def restore(self, z: Tensor, kept: Tensor, mask: Tensor | None) -> Tensor:
        """The inverse of `change`, in evaluation mode."""
        if self.training:
            raise RuntimeError("batch statistics cannot be inverted: call module.eval()")
        shift, raw = self.network(kept, mask)
        mean, inverse = self.norm.statistics(z)
        x = (z / inverse + mean) * torch.exp(-self.scale * torch.tanh(raw)) - shift
        return x if mask is None else x * (1 - mask)

    def forward(self, x: Tensor, mask: Tensor | None, first: bool) -> tuple[Tensor, Tensor]:
        """`first`: the first half of the channels is changed."""
        if mask is not None:
            kept = x * mask
            z, logdet = self.change(x, kept, mask)
            return kept + z, logdet
        a, b = x.chunk(2, 1)
        if first:
            z, logdet = self.change(a, b, None)
            return torch.cat([z, b], 1), logdet
        z, logdet = self.change(b, a, None)
        return torch.cat([a, z], 1), logdet

    def inverse(self, y: Tensor, mask: Tensor | None, first: bool) -> Tensor:
        if mask is not None:
            kept = y * mask
            return kept + self.restore(y, kept, mask)
        a, b = y.chunk(2, 1)
        return torch.cat([self.restore(a, b, None), b], 1) if first else torch.cat([a, self.restore(b, a, None)], 1)


class _RealNvpLevel(nn.Module):
    def __init__(self, channels: int, width: int, blocks: int, last: bool) -> None:
        super().__init__()
        masked = [_MaskedCoupling(channels, width, blocks, True) for _ in range(4 if last else 3)]
        halves = [] if last else [_MaskedCoupling(2 * channels, 2 * width, blocks, False) for _ in range(3)]
        self.couplings = nn.ModuleList(masked + halves)


class RealNvpModule(FlowModule):
    """A RealNVP."""

    def __init__(self, config: RealNvpConfig) -> None:
        super().__init__(config)
        channels, count = config.image[2], config.levels
        self.levels = nn.ModuleList(
            _RealNvpLevel(channels * 2**level, config.hidden * 2**level, config.blocks, level + 1 == count)
            for level in range(count)
        )

    def flow(self, v: Tensor, labels: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        p = _ALPHA + (1 - 2 * _ALPHA) * (v + 0.5)
        log_p, log_q = torch.log(p), torch.log1p(-p)
        x, latents = log_p - log_q, []
        log_prob = (math.log(1 - 2 * _ALPHA) - log_p - log_q).flatten(1).sum(1)
        for number, level in enumerate(self.levels):
            last = number + 1 == len(self.levels)
            for k, coupling in enumerate(level.couplings):
                if k == 3 and not last:
                    x = F.pixel_unshuffle(x, 2)
                x, logdet = coupling(x, *self._how(x, k, last))
                log_prob = log_prob + logdet
            if not last:
                # The diagonal pixels of each block go on, the others are factored out.
                x, z = _reorder(x).chunk(2, 1)
                latents.append(z)
        latents.append(x)
        for z in latents:
            log_prob = log_prob + _normal(z)
        return log_prob, latents

    def unflow(self, latents: list[Tensor], labels: Tensor | None) -> Tensor:
        x = latents[-1]
        for number, level in reversed(list(enumerate(self.levels))):
            last = number + 1 == len(self.levels)
            if not last:
                x = _restore_order(torch.cat([x, latents[number]], 1))
            for k, coupling in reversed(list(enumerate(level.couplings))):
                x = coupling.inverse(x, *self._how(x, k, last))
                if k == 3 and not last:
                    x = F.pixel_shuffle(x, 2)
        p = torch.sigmoid(x)
        return (p - _ALPHA) / (1 - 2 * _ALPHA) - 0.5

    @staticmethod
    def _how(x: Tensor, k: int, last: bool) -> tuple[Tensor | None, bool]:
        """The mask of coupling `k`, or whether it changes the first half of the channels."""
        if k >= 3 and not last:
            return None, k == 4
        rows = torch.arange(x.shape[2], device=x.device)[:, None]
        columns = torch.arange(x.shape[3], device=x.device)
        return ((rows + columns + k) % 2 == 0).to(x.dtype)[None, None], False


def _reorder(x: Tensor) -> Tensor:
    """`y[o·C + i] = x[4i + (0, 3, 1, 2)[o]]`."""
    b, c, h, w = x.shape
    return x.view(b, c // 4, 4, h, w)[:, :, list(_ORDER)].transpose(1, 2).reshape(b, c, h, w)


def _restore_order(y: Tensor) -> Tensor:
    b, c, h, w = y.shape
    return y.view(b, 4, c // 4, h, w).transpose(1, 2)[:, :, list(_INVERSE_ORDER)].reshape(b, c, h, w)


# NICE


class _Perceptron(nn.Module):
    def __init__(self, inputs: int, outputs: int, config: NiceConfig) -> None:
        super().__init__()
        sizes = [inputs, *[config.hidden] * config.layers, outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        return last(x)


class _Scaling(nn.Module):
    def __init__(self, dims: int) -> None:
        super().__init__()
        self.log_s = nn.Parameter(torch.zeros(dims))


class NiceModule(FlowModule):
    """A NICE. Numbers are in the order of rows, columns and channels."""

    def __init__(self, config: NiceConfig) -> None:
        super().__init__(config)
        sizes = (self.dims + 1) // 2, self.dims // 2  # even numbers, odd numbers
        self.couplings = nn.ModuleList(
            _Perceptron(sizes[k % 2], sizes[1 - k % 2], config) for k in range(config.couplings)
        )
        self.scaling = _Scaling(self.dims)
        self.logistic = config.prior == "logistic"

    def flow(self, v: Tensor, labels: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        x = v.permute(0, 2, 3, 1).flatten(1)
        for k, coupling in enumerate(self.couplings):
            x = self._couple(x, k, coupling, 1)
        h = x * torch.exp(self.scaling.log_s)
        if self.logistic:
            base = (-h.abs() - 2 * F.softplus(-h.abs())).sum(1)
        else:
            base = _normal(h)
        height, width, channels = self.config.image
        return base + self.scaling.log_s.sum(), [h.view(-1, height, width, channels).permute(0, 3, 1, 2)]

    def unflow(self, latents: list[Tensor], labels: Tensor | None) -> Tensor:
        x = latents[0].permute(0, 2, 3, 1).flatten(1) * torch.exp(-self.scaling.log_s)
        for k, coupling in reversed(list(enumerate(self.couplings))):
            x = self._couple(x, k, coupling, -1)
        height, width, channels = self.config.image
        return x.view(-1, height, width, channels).permute(0, 3, 1, 2)

    @staticmethod
    def _couple(x: Tensor, k: int, coupling: nn.Module, sign: int) -> Tensor:
        """Adds the perceptron of the numbers at `k % 2` to the others."""
        even, odd = x[:, 0::2], x[:, 1::2]
        if k % 2 == 0:
            odd = odd + sign * coupling(even)
        else:
            even = even + sign * coupling(odd)
        y = torch.empty_like(x)
        y[:, 0::2], y[:, 1::2] = even, odd
        return y
