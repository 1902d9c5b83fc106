"""Code shared by the modules of all architectures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glowflow import Config

LOG_2PI = math.log(2 * math.pi)
EPSILON, DECAY = 1e-4, 0.1  # of batch normalisations


class FlowModule(nn.Module):
    """A flow: `forward` computes likelihoods, `inverse` samples."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.bins = 2**config.bits
        self.dims = math.prod(config.image)
        # Tensors of the file that are not part of the flow, such as those of a dequantiser.
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


def normal(eps: Tensor) -> Tensor:
    """log N(eps; 0, 1) of each image."""
    return -0.5 * (LOG_2PI + eps.square()).flatten(1).sum(1)


def follow(module: nn.Module, mean: Tensor, var: Tensor) -> None:
    """Updates running statistics with those of a batch."""
    with torch.no_grad():
        module.running_mean.lerp_(mean, DECAY)  # type: ignore[operator, union-attr]
        module.running_var.lerp_(var, DECAY)  # type: ignore[operator, union-attr]


class BatchNorm(nn.Module):
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
            follow(self, mean.detach(), var.detach())
        return mean.view(1, -1, 1, 1), torch.rsqrt(var + EPSILON).view(1, -1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(x - mean)·inverse + bias`, as one operation of PyTorch."""
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, None, self.bias, False, 0.0, EPSILON)
        # `F.batch_norm` would follow the unbiased variance.
        x, mean, inverse = torch.native_batch_norm(x, None, self.bias, None, None, True, 0.0, EPSILON)
        follow(self, mean.detach(), inverse.detach().pow(-2) - EPSILON)
        return x
