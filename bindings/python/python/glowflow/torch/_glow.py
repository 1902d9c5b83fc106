"""Glow (Kingma and Dhariwal 2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glowflow import GlowConfig
from glowflow.torch._flow import BatchNorm, FlowModule, normal


# Levels with more pixels have no attention.
MAX_ATTENTION_PIXELS = 64


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


class _Attention(nn.Module):
    """`h + out(softmax(Q·Kᵀ/√(d/heads))·V)` over the pixels of an image, `Q, K, V` of `RMS(h)·norm + position`."""

    def __init__(self, width: int, heads: int, pixels: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.Parameter(torch.ones(width))
        self.position = nn.Parameter(torch.zeros(pixels, width))
        self.query, self.key, self.value, self.out = (_Weight(width, width, 1, 1) for _ in range(4))

    def forward(self, h: Tensor) -> Tensor:
        b, d, height, width = h.shape
        n = _rms(h) * _channels(self.norm) + self.position.T.reshape(d, height, width)
        # [B, heads, pixels, d/heads]
        q, k, v = (
            F.conv2d(n, part.weight).view(b, self.heads, d // self.heads, -1).transpose(2, 3)
            for part in (self.query, self.key, self.value)
        )
        mixed = torch.softmax(q @ k.transpose(2, 3) / (d // self.heads) ** 0.5, 3) @ v
        return h + F.conv2d(mixed.transpose(2, 3).reshape(h.shape), self.out.weight)


def _rms(c: Tensor) -> Tensor:
    """`c` over its root mean square over channels, at each pixel."""
    return c * torch.rsqrt(c.square().mean(1, keepdim=True) + 1e-5)


class _Coupling(nn.Module):
    """The coupling of one half of the channels, given the other: its network and its transform."""

    def __init__(self, channels: int, pixels: int, config: GlowConfig) -> None:
        super().__init__()
        half, hidden = channels // 2, config.hidden
        self.kind, self.bounded = config.coupling, config.scale == "exp2tanh"
        self.residual, self.components = config.network == "residual", config.mixture_components
        outputs = half if self.kind == "additive" else channels
        if self.residual:
            self.conv_in = nn.Conv2d(half + 1, hidden, 3)
            self.blocks = nn.ModuleList(_ResidualBlock(hidden) for _ in range(config.network_blocks))
            attends = config.attention > 0 and pixels <= MAX_ATTENTION_PIXELS
            self.attention = _Attention(hidden, config.attention, pixels) if attends else None
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
            if self.attention is not None:
                h = self.attention(h)
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
        """Bisection between the roots of single components, followed by one differentiable Newton step."""
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

    def __init__(self, channels: int, pixels: int, config: GlowConfig) -> None:
        super().__init__()
        self.norm = BatchNorm(channels) if config.normalization == "batchnorm" else None
        self.actnorm = _ActNorm(channels)
        self.permutation = _Conv1x1(channels) if config.permutation == "conv1x1" else _Permutation(channels)
        self.coupling = _Coupling(channels, pixels, config)

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
    def __init__(self, channels: int, pixels: int, config: GlowConfig, last: bool) -> None:
        super().__init__()
        self.steps = nn.ModuleList(_Step(channels, pixels, config) for _ in range(config.steps))
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
                raise ValueError("the model has classes: pass labels, one class per image")
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
        height, width, channels = config.image
        self.levels = nn.ModuleList()
        for level in range(config.levels):
            channels, last = 4 * channels, level + 1 == config.levels
            pixels = (height >> level + 1) * (width >> level + 1)
            self.levels.append(_GlowLevel(channels, pixels, config, last))
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
            log_prob = log_prob + normal(eps) - logs.expand_as(z).flatten(1).sum(1)
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
