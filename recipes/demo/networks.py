"""The demo networks: a residual CNN, a depthwise-separable CNN and a vision transformer.

Every network maps (N, 1, 28, 28) float32 images in [0, 1] to (N, 10) logits.
"""

from collections.abc import Callable
from importlib import resources
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10
PATCH = 4


class ConvNorm(nn.Sequential):
    """Convolve and normalise; `kernel` is odd and the padding keeps the image size."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        )


class ResidualBlock(nn.Module):
    """Add two 3x3 convolutions to their input, which is projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, 3, stride=stride)
        self.second = ConvNorm(outputs, outputs, 3)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = ConvNorm(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        hidden = functional.relu(self.first(x))
        return functional.relu(self.second(hidden) + self.shortcut(x))


class Residual(nn.Module):
    """ResNet-8 of MLPerf Tiny (Banbury et al. 2021, arXiv 2106.07597), for one input channel.

    `times` as wide: 16, 32 and 64 channels by default.
    """

    def __init__(self, times: int = 1) -> None:
        super().__init__()
        few, more, most = 16 * times, 32 * times, 64 * times
        self.stem = ConvNorm(1, few, 3)
        self.blocks = nn.Sequential(
            ResidualBlock(few, few, stride=1),
            ResidualBlock(few, more, stride=2),
            ResidualBlock(more, most, stride=2),
        )
        self.head = nn.Linear(most, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 1, 28, 28) images to (N, 10) logits."""
        features = self.blocks(functional.relu(self.stem(x)))
        # adaptive_avg_pool2d, because mean((2, 3)) leaves a TRANSPOSE in the LiteRT graph.
        logits: Tensor = self.head(functional.adaptive_avg_pool2d(features, 1).flatten(1))
        return logits


class SeparableBlock(nn.Module):
    """Filter each channel with a 3x3 kernel, then mix the channels with a 1x1 kernel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = ConvNorm(width, width, 3, groups=width)
        self.pointwise = ConvNorm(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width, H, W) to the same shape."""
        return functional.relu(self.pointwise(functional.relu(self.depthwise(x))))


class Separable(nn.Module):
    """DS-CNN small (Zhang et al. 2017, arXiv 1711.07128), with a 3x3 stem of stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(1, 64, 3, stride=2)
        self.blocks = nn.Sequential(*(SeparableBlock(64) for _ in range(4)))
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 1, 28, 28) images to (N, 10) logits."""
        features = self.blocks(functional.relu(self.stem(x)))
        logits: Tensor = self.head(functional.adaptive_avg_pool2d(features, 1).flatten(1))
        return logits


class Attention(nn.Module):
    """Multi-head self-attention in plain matmuls, which LiteRT maps to BATCH_MATMUL."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, tokens, width) to the same shape."""
        # Three projections and four transposes: one fused projection, or one matmul per head,
        # leaves fewer TRANSPOSEs in LiteRT, but more SLICEs, and was not faster.
        query, key, value = (
            project(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        scale = query.shape[-1] ** -0.5
        weights = functional.softmax(query @ key.transpose(2, 3) * scale, dim=-1)
        mixed: Tensor = self.output((weights @ value).transpose(1, 2).flatten(2))
        return mixed


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each normalised first and added to its input."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.expand_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, tokens, width) to the same shape."""
        x = x + self.attention(self.attention_norm(x))
        hidden = functional.gelu(self.expand(self.expand_norm(x)))
        output: Tensor = x + self.contract(hidden)
        return output


class Transformer(nn.Module):
    """Vision transformer (Dosovitskiy et al. 2020, arXiv 2010.11929): 49 patches of 4x4 pixels."""

    def __init__(self) -> None:
        super().__init__()
        width, tokens = 64, 49
        # Linear on cut-out patches: a strided convolution of one channel would become
        # DEPTHWISE_CONV_2D in LiteRT, which has fewer precisions than FULLY_CONNECTED.
        self.patches = nn.Linear(PATCH * PATCH, width)
        self.positions = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.blocks = nn.Sequential(*(TransformerBlock(width, 4, 2 * width) for _ in range(4)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 1, 28, 28) images to (N, 10) logits."""
        rows, columns = x.shape[2] // PATCH, x.shape[3] // PATCH
        cells = x.reshape(-1, rows, PATCH, columns, PATCH).transpose(2, 3)
        patches = cells.reshape(-1, rows * columns, PATCH * PATCH)
        tokens = self.patches(patches) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits


ARCHITECTURES: MappingProxyType[str, Callable[[], nn.Module]] = MappingProxyType(
    {"residual": Residual, "separable": Separable, "transformer": Transformer}
)

VALIDATION_ACCURACY: MappingProxyType[str, float] = MappingProxyType(
    {"residual": 0.9150, "separable": 0.9045, "transformer": 0.8805}
)
"""What the weights in this package reach on the 2,000 validation images."""


def residual() -> nn.Module:
    """Return the trained residual network, in eval mode."""
    return _trained("residual")


def separable() -> nn.Module:
    """Return the trained depthwise-separable network, in eval mode."""
    return _trained("separable")


def transformer() -> nn.Module:
    """Return the trained vision transformer, in eval mode."""
    return _trained("transformer")


def _trained(name: str) -> nn.Module:
    network = ARCHITECTURES[name]()
    with resources.files("recipes.demo").joinpath(f"{name}.pt").open("rb") as weights:
        network.load_state_dict(torch.load(weights, weights_only=True))
    return network.eval()
