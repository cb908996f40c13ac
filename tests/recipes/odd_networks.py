"""Small networks in which channels are shared, mixed or fixed in ways that pruning must see."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

CHANNELS, SIZE, CLASSES = 16, 8, 5


def conv(inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)


class Base(nn.Module):
    """A stem, something in the middle, and a head behind a mean over the image."""

    def __init__(self, width: int = CHANNELS) -> None:
        super().__init__()
        self.stem, self.head = conv(3, CHANNELS), nn.Linear(width, CLASSES)

    def middle(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        features = self.middle(functional.relu(self.stem(x)))
        logits: Tensor = self.head(functional.adaptive_avg_pool2d(features, 1).flatten(1))
        return logits


class Flattened(nn.Module):
    """A linear layer reads every pixel of every channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv(3, CHANNELS), nn.Linear(CHANNELS * SIZE * SIZE, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(functional.relu(self.stem(x)).flatten(1))
        return logits


class Concatenated(Base):
    def __init__(self) -> None:
        super().__init__(3 * CHANNELS)
        self.left, self.right = conv(CHANNELS, CHANNELS), conv(CHANNELS, 2 * CHANNELS)

    def middle(self, x: Tensor) -> Tensor:
        return torch.cat([self.left(x).relu(), self.right(x).sigmoid()], 1)


class Gated(Base):
    """Squeeze and excite: a vector computed from the channels scales them."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(CHANNELS, 24, 1), nn.Conv2d(24, CHANNELS, 1)

    def middle(self, x: Tensor) -> Tensor:
        gate: Tensor = self.excite(self.squeeze(functional.adaptive_avg_pool2d(x, 1)).relu()).sigmoid()
        return x * gate


class Twice(Base):
    """One convolution on two paths."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.last = conv(CHANNELS, CHANNELS), conv(CHANNELS, CHANNELS)

    def middle(self, x: Tensor) -> Tensor:
        once: Tensor = self.shared(x).relu()
        return functional.relu(self.last(functional.relu(self.shared(once)) + once))


class NormFirst(Base):
    """Pre-activation: a batch normalisation has no convolution before it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner = nn.BatchNorm2d(CHANNELS), conv(CHANNELS, CHANNELS)

    def middle(self, x: Tensor) -> Tensor:
        added: Tensor = self.inner(self.norm(x).relu())
        return x + added


class SplitPath(Base):
    """A convolution whose output is read before and after its normalisation: not to be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = conv(CHANNELS, CHANNELS), nn.BatchNorm2d(CHANNELS)

    def middle(self, x: Tensor) -> Tensor:
        made: Tensor = self.inner(x)
        normed: Tensor = self.norm(made)
        return made.sigmoid() + normed


class Activated(Base):
    """A PReLU with a slope for every channel."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.inner = nn.PReLU(CHANNELS), conv(CHANNELS, CHANNELS)

    def middle(self, x: Tensor) -> Tensor:
        made: Tensor = self.slope(self.inner(x))
        return made


class Grouped(Base):
    def __init__(self) -> None:
        super().__init__()
        self.inner = conv(CHANNELS, CHANNELS, groups=2)

    def middle(self, x: Tensor) -> Tensor:
        made: Tensor = self.inner(x)
        return made


class Halved(Base):
    """A gated linear unit: the first half of the channels is multiplied by the second."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = conv(CHANNELS, 2 * CHANNELS)

    def middle(self, x: Tensor) -> Tensor:
        made: Tensor = self.inner(x)
        one, two = made.chunk(2, 1)
        return one * torch.sigmoid(two)


class Scaled(Base):
    """A parameter of the user's own with one value for every channel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(CHANNELS, 1, 1))

    def middle(self, x: Tensor) -> Tensor:
        return x * self.scale


class Masked(Base):
    """A constant with one value for every channel, which no gradient leads to."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.linspace(0, 1, CHANNELS).reshape(-1, 1, 1))

    def middle(self, x: Tensor) -> Tensor:
        return x * self.mask


class InputAdded(nn.Module):
    """The channels of a convolution are added to those of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = conv(3, 3), conv(3, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.last(x + self.inner(x))
        return made.mean((2, 3))


class OwnConv(nn.Conv2d):
    """Standardises its weights before it uses them."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return functional.conv2d(x, weight, self.bias, padding=1)


class Own(Base):
    def __init__(self) -> None:
        super().__init__()
        self.inner = OwnConv(CHANNELS, CHANNELS, 3)

    def middle(self, x: Tensor) -> Tensor:
        made: Tensor = self.inner(x)
        return made


class Tied(Base):
    """Two layers hold the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(CHANNELS, CHANNELS), conv(CHANNELS, CHANNELS)
        self.two.weight = self.one.weight

    def middle(self, x: Tensor) -> Tensor:
        return functional.relu(self.two(self.one(x).relu()))


class Normed(Base):
    """Weights that are computed from others at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = parametrizations.weight_norm(conv(CHANNELS, CHANNELS))

    def middle(self, x: Tensor) -> Tensor:
        made: Tensor = self.inner(x)
        return made


class TwoOutputs(Base):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        features = functional.relu(self.stem(x))
        return self.head(features.mean((2, 3))), features


class Series(nn.Module):
    """Convolutions over time, without padding, with stride and dilation."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv1d(3, CHANNELS, 3, stride=2), nn.Conv1d(CHANNELS, CHANNELS, 2, dilation=2)
        self.head = nn.Linear(CHANNELS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.two(self.one(x).relu()).mean(2))
        return logits


class Alone(nn.Module):
    """Nothing to prune: one layer from input to output."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.only(x.mean((2, 3)))
        return logits


PRUNABLE: dict[Callable[[], nn.Module], tuple[str, ...]] = {
    Base: ("stem",), Flattened: ("stem",), Concatenated: ("stem", "left", "right"), Gated: ("stem", "squeeze"),
    Twice: ("stem", "last"), NormFirst: ("stem",), SplitPath: ("stem", "inner"), Activated: ("stem", "inner"),
    Series: ("one", "two")}
"""Network -> names of its groups."""

LEFT_OUT: dict[Callable[[], nn.Module], dict[str, str]] = {
    Grouped: {"stem": "inner is a convolution in 2 groups"},
    Halved: {"inner": "some of them are computed from others of them|their place matters"},
    Scaled: {"stem": "the parameter scale has them too"},
    Masked: {"stem": "something else depends on their number.*RuntimeError"},
    InputAdded: {"inner": "3 are too few: kept channels are multiples of 8",
                 "last": "they are an output of the network"},
    Own: {"inner": r"inner is a Conv2d with a forward of its own \(OwnConv\)"},
    Tied: {"stem": "shares its weights with"},
    Normed: {"inner": r"the weights of inner are computed from others|inner is a Conv2d with a forward"},
    TwoOutputs: {"stem": "they are an output of the network"},
    Alone: {"only": "they are an output of the network"}}
"""Network -> group -> why it cannot be narrowed."""
