"""Networks that only benchmarks need, with random weights: their times count, not their outputs."""

from __future__ import annotations

import torch
from torch import nn


class Inverted(nn.Module):
    """An inverted residual block (Sandler et al. 2018, MobileNetV2, arXiv 1801.04381, figure 3)."""

    def __init__(self, given: int, made: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = given * expansion
        first = [] if expansion == 1 else [nn.Conv2d(given, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        self.path = nn.Sequential(
            *first, nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, made, 1, bias=False), nn.BatchNorm2d(made))
        self.adds = stride == 1 and given == made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, made, height / stride, width / stride)."""
        found: torch.Tensor = self.path(x)
        return x + found if self.adds else found


class MobileNetV2(nn.Module):
    """Table 2 of the paper, width 1.0, for (N, 3, 96, 96)."""

    BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    """Expansion, channels, repetitions, stride of the first."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6())
        blocks, given = list[nn.Module](), 32
        for expansion, made, count, stride in self.BLOCKS:
            for number in range(count):
                blocks.append(Inverted(given, made, stride if number == 0 else 1, expansion))
                given = made
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(nn.Conv2d(given, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6())
        self.head = nn.Linear(1280, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (N, classes)."""
        found: torch.Tensor = self.head(self.last(self.blocks(self.stem(x))).mean((2, 3)))
        return found


class LinearStack(nn.Module):
    """Linear layers as a decoder has them at batch 1: every weight is read once, so that memory decides."""

    def __init__(self, blocks: int = 16, width: int = 1024, inner: int = 4096) -> None:
        super().__init__()
        self.up = nn.ModuleList(nn.Linear(width, inner) for _ in range(blocks))
        self.down = nn.ModuleList(nn.Linear(inner, width) for _ in range(blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, width) of (N, width)."""
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(torch.relu(up(x)))
        return x
