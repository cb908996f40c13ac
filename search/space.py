"""What may be chosen: layer configurations, layers and the space that they span. Pure data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

BITS = (1, 2, 3, 4, 8, 16, 32)


class Scheme(StrEnum):
    """How a layer computes with the bits that it has."""

    FLOAT = "float"
    """Float arithmetic; `weight_bits` 16 stores the weights as float16."""
    WEIGHT_ONLY = "weight_only"
    """Integer weights, dequantised before a float operator."""
    DYNAMIC = "dynamic"
    """Integer weights; activations are quantised at run time, tensor by tensor."""
    STATIC = "static"
    """Integer weights and activations with calibrated ranges."""


class Granularity(StrEnum):
    """What shares one scale."""

    CHANNEL = "channel"
    TENSOR = "tensor"


class Calibration(StrEnum):
    """How the ranges of integer activations are found; one choice for the whole network."""

    MIN_MAX = "min_max"
    """From the least to the greatest value on the calibration inputs."""
    PERCENTILE = "percentile"
    """One value in 10,000 is clipped on either side (Wu et al. 2020, arXiv 2004.09602, section 3.2)."""
    MSE = "mse"
    """The range with the least squared error of 8-bit values."""


class Clipping(StrEnum):
    """How the scales of integer weights are found; one choice for the whole network."""

    NONE = "none"
    """The greatest weight is the greatest integer."""
    OCTAV = "octav"
    """Least squared error by Newton's method (Sakr et al. 2022, arXiv 2206.06501, equation 6)."""


FOR_ALL: Mapping[str, Calibration | Clipping] = {"calibration": Calibration.MIN_MAX, "clipping": Clipping.NONE}
"""What is chosen for all layers together -> its first value, with which nothing is said of it."""


@dataclass(frozen=True, slots=True, order=True)
class LayerConfig:
    """The numeric format of one layer; bits of 32 mean float32."""

    weight_bits: int = 32
    activation_bits: int = 32
    scheme: Scheme = Scheme.FLOAT
    granularity: Granularity = Granularity.CHANNEL

    def __post_init__(self) -> None:
        for field, bits in (("weight_bits", self.weight_bits), ("activation_bits", self.activation_bits)):
            if bits not in BITS:
                raise ValueError(f"{field}: expected one of {BITS}, got {bits}")
        floats = self.scheme in (Scheme.FLOAT, Scheme.WEIGHT_ONLY, Scheme.DYNAMIC)
        if floats and self.activation_bits != 32:
            raise ValueError(f"a {self.scheme} layer keeps float32 activations, got {self.activation_bits} bits")
        if self.scheme is Scheme.STATIC and self.activation_bits == 32:
            raise ValueError("a static layer needs integer activations, got 32 bits")
        if self.scheme is Scheme.FLOAT and self.weight_bits not in (16, 32):
            raise ValueError(f"a float layer has 16 or 32 weight bits, got {self.weight_bits}")
        if self.scheme is Scheme.FLOAT and self.granularity is not Granularity.CHANNEL:
            raise ValueError(f"a float layer has no scales to share, got the granularity {self.granularity}")

    @property
    def label(self) -> str:
        """Short name: `float32`, `fp16`, `dynamic_w8`, `weight_only_w8`, `static_w4a8`."""
        if self.scheme is Scheme.FLOAT:
            return "float32" if self.weight_bits == 32 else "fp16"
        tail = f"a{self.activation_bits}" if self.scheme is Scheme.STATIC else ""
        grain = "" if self.granularity is Granularity.CHANNEL else "_tensor"
        return f"{self.scheme}_w{self.weight_bits}{tail}{grain}"

    @classmethod
    def from_label(cls, label: str) -> LayerConfig:
        """Parse what `label` prints. Raises ValueError naming the label."""
        if label == "float32":
            return cls()
        if label == "fp16":
            return cls(weight_bits=16)
        grain = Granularity.TENSOR if label.endswith("_tensor") else Granularity.CHANNEL
        head, _, bits = label.removesuffix("_tensor").rpartition("_w")
        weight, _, activation = bits.partition("a")
        try:
            found = cls(int(weight), int(activation or 32), Scheme(head), grain)
        except ValueError as error:
            raise ValueError(f"no layer configuration is called {label!r}: {error}") from error
        if found.label != label:
            raise ValueError(f"no layer configuration is called {label!r}; did you mean {found.label!r}?")
        return found

    @property
    def sort_key(self) -> tuple[int, int, int]:
        """Widest first: the ordinal scale on which samplers see the choices of a layer."""
        order = (Scheme.FLOAT, Scheme.WEIGHT_ONLY, Scheme.DYNAMIC, Scheme.STATIC)
        return (-self.activation_bits, -self.weight_bits, order.index(self.scheme))


FLOAT32 = LayerConfig()


@dataclass(frozen=True, slots=True)
class Layer:
    """One variable: an operator with weights, or weightless operators that switch together."""

    name: str
    """The module path of the PyTorch network, e.g. `blocks.0.mlp.fc1`."""
    kind: str
    """The operator in the runtime's words, e.g. `CONV_2D`."""
    choices: tuple[LayerConfig, ...]
    """Legal configurations on the target, widest first."""
    weights: int = 0
    """Number of weights, without bias."""
    macs: int = 0
    """Multiply-accumulates of one inference."""

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError(f"layer {self.name} ({self.kind}) has no legal configuration")
        if tuple(sorted(self.choices, key=lambda c: c.sort_key)) != self.choices:
            raise ValueError(f"layer {self.name}: choices must be sorted, widest first")

    def widen(self, config: LayerConfig) -> LayerConfig:
        """Return `config` where it is legal, else the next wider legal configuration.

        Wider means: the same scheme with more weight bits, then float32.
        """
        if config in self.choices:
            return config
        same = [c for c in self.choices if c.scheme is config.scheme
                and c.weight_bits >= config.weight_bits and c.activation_bits >= config.activation_bits]
        if same:
            return min(same, key=lambda c: (c.activation_bits, c.weight_bits))
        return self.choices[0]


@dataclass(frozen=True, slots=True)
class PruneGroup:
    """One variable of pruning: channels that layers share, so that they go together or not at all."""

    name: str
    """The module path of the first layer that produces the channels."""
    channels: int
    """Of the network as it was given."""
    widths: tuple[int, ...]
    """Legal numbers of kept channels, widest (`channels`) first."""
    produced_by: tuple[str, ...]
    """Layers whose output channels these are; a depthwise convolution stands here and in `read_by`."""
    read_by: tuple[str, ...]
    """Layers whose input channels these are."""

    def __post_init__(self) -> None:
        if self.widths[:1] != (self.channels,):
            raise ValueError(f"group {self.name}: the widest width is all {self.channels} channels, "
                             f"got {list(self.widths)}")
        if list(self.widths) != sorted(set(self.widths), reverse=True) or self.widths[-1] < 1:
            raise ValueError(f"group {self.name}: widths must be positive, distinct and sorted, widest first, "
                             f"got {list(self.widths)}")
        if not self.produced_by:
            raise ValueError(f"group {self.name}: no layer produces its channels")


@dataclass(frozen=True)
class SearchSpace:
    """What one compiler and one board's runtime can really execute, layer by layer."""

    compiler: str
    layers: tuple[Layer, ...]
    groups: tuple[PruneGroup, ...] = ()
    """Channels that may be pruned; none where pruning is off or not possible."""
    calibrations: tuple[Calibration, ...] = (Calibration.MIN_MAX,)
    """Of integer activations, one for the whole network."""
    clippings: tuple[Clipping, ...] = (Clipping.NONE,)
    """Of integer weights, one for the whole network."""

    def __post_init__(self) -> None:
        for what, names in (("layer", [layer.name for layer in self.layers]),
                            ("group", [group.name for group in self.groups])):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what} names must be unique, got twice: {', '.join(twice)}")
        for group in self.groups:
            unknown = [name for name in (*group.produced_by, *group.read_by) if name not in self.by_name]
            if unknown:
                raise ValueError(f"group {group.name}: no such layer in the space: {', '.join(unknown)}")
        if not self.calibrations or not self.clippings:
            raise ValueError("a space offers at least one way of calibration and one of clipping")

    @cached_property
    def by_name(self) -> Mapping[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def group_of(self) -> Mapping[str, PruneGroup]:
        """Group name -> group."""
        return {group.name: group for group in self.groups}

    def part_of(self, other: SearchSpace) -> bool:
        """Tell whether another space has the same layers and groups, and every choice that this one has.

        A study from before there were more choices, or with those alone that paid then, goes on with its own.
        """
        return ((self.compiler, len(self.layers), self.groups) == (other.compiler, len(other.layers), other.groups)
                and all(mine == replace(theirs, choices=mine.choices) and set(mine.choices) <= set(theirs.choices)
                        for mine, theirs in zip(self.layers, other.layers, strict=True))
                and set(self.calibrations) <= set(other.calibrations) and set(self.clippings) <= set(other.clippings))

    @property
    def log10_size(self) -> float:
        """Decimal logarithm of the number of distinct candidates."""
        return sum(math.log10(n) for n in (*(len(layer.choices) for layer in self.layers),
                                           *(len(group.widths) for group in self.groups),
                                           len(self.calibrations), len(self.clippings)))
