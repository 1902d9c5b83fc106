"""RealNVP (Dinh, Sohl-Dickstein and Bengio 2016)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glowflow import RealNvpConfig
from glowflow.torch._flow import BatchNorm, FlowModule, normal

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
        self.norm1, self.conv1 = BatchNorm(width, bias=True), _NormedConv(width, width, 3, gain=False)
        self.norm2, self.conv2 = BatchNorm(width, bias=True), _NormedConv(width, width, 3)

    def forward(self, h: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(h), inplace=True))
        return h + self.conv2(F.relu(self.norm2(y), inplace=True))


class _Network(nn.Module):
    """The residual network of a coupling, from `channels` to `2·channels`."""

    def __init__(self, channels: int, width: int, blocks: int, checkerboard: bool) -> None:
        super().__init__()
        self.norm_in = BatchNorm(channels, bias=True)
        self.conv_in = _NormedConv(2 * channels + checkerboard, width, 3, gain=False)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.skips = nn.ModuleList(_NormedConv(width, width, 1) for _ in range(blocks + 1))
        self.norm_out = BatchNorm(width, bias=True)
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
        shift, raw = self.conv_out(F.relu(self.norm_out(total), inplace=True)).chunk(2, 1)
        return shift, raw


class _MaskedCoupling(nn.Module):
    """A coupling that keeps the pixels of a mask, or without a mask one half of the channels."""

    def __init__(self, channels: int, width: int, blocks: int, checkerboard: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.norm = BatchNorm(channels)
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
                # The diagonal pixels of each block continue, the others are factored out.
                x, z = _reorder(x).chunk(2, 1)
                latents.append(z)
        latents.append(x)
        for z in latents:
            log_prob = log_prob + normal(z)
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
        """The mask of coupling `k`, or None, and True if it changes the first half of the channels."""
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
