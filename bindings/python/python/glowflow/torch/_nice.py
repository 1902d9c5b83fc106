"""NICE (Dinh, Krueger and Bengio 2014)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glowflow import NiceConfig
from glowflow.torch._flow import FlowModule, normal


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
    """A NICE. Values are in the order of rows, columns and channels."""

    def __init__(self, config: NiceConfig) -> None:
        super().__init__(config)
        sizes = (self.dims + 1) // 2, self.dims // 2  # even and odd positions
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
            base = normal(h)
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
        """Adds the perceptron's output for the positions `k % 2` to the others."""
        even, odd = x[:, 0::2], x[:, 1::2]
        if k % 2 == 0:
            odd = odd + sign * coupling(even)
        else:
            even = even + sign * coupling(odd)
        y = torch.empty_like(x)
        y[:, 0::2], y[:, 1::2] = even, odd
        return y
