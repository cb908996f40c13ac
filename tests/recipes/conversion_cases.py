"""Networks of many kinds, and what becomes of them; converted in a process of its own, as in a search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from recipes.compilers.compare import Difference, first_difference, worst_output
from recipes.compilers.layers import LayerMap
from recipes.compilers.tflite.calibrate import calibrate, clip, load_statistics
from recipes.compilers.tflite.compiler import TfliteCompiler
from recipes.compilers.tflite.convert import convert
from recipes.compilers.tflite.graph import read_graph
from recipes.compilers.tflite.layers import map_layers
from recipes.compilers.tflite.quantise import Quantiser
from recipes.models.network import Network, load_network, run, settle
from recipes.models.source import Reference
from recipes.ports import Ports
from recipes.target import Target
from search.candidate import Candidate
from search.space import Calibration
from tests.recipes.onnx.graphs import exported

Arrays = dict[str, NDArray[Any]]
TARGET = Target("x86_64", "litert", "2.3.0")
EXAMPLES = 4


class Flat(nn.Module):
    """Convolutions, then a linear layer on the flattened image, as in LeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.hidden, self.head = nn.Linear(16 * 4 * 4, 32), nn.Linear(32, 10)

    def forward(self, image: Tensor) -> Tensor:
        half = functional.max_pool2d(functional.relu(self.first(image)), 2)
        quarter = functional.max_pool2d(functional.relu(self.second(half)), 2)
        result: Tensor = self.head(functional.relu(self.hidden(quarter.flatten(1))))
        return result


class Normalised(nn.Module):
    """Batch norm in training mode when it is made, a depthwise convolution, a mean over the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU(),
                                  nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.Hardswish())
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.head(self.drop(self.body(image).mean((2, 3))))
        return result


class Segmenting(nn.Module):
    """Image to image: strided, transposed and resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.up, self.out = nn.ConvTranspose2d(16, 8, 2, 2), nn.Conv2d(8, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        half = functional.relu(self.down(image))
        merged = functional.relu(self.up(functional.relu(self.deep(half)))) + half
        result: Tensor = self.out(functional.interpolate(merged, scale_factor=2.0, mode="bilinear"))
        return result


class Pair(nn.Module):
    """Two inputs of different kinds; three outputs, one of which another layer reads too."""

    def __init__(self) -> None:
        super().__init__()
        self.look, self.weigh = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(5, 8)
        self.kind, self.value = nn.Linear(16, 4), nn.Linear(16, 1)

    def forward(self, image: Tensor, facts: Tensor) -> dict[str, Tensor]:
        seen = functional.adaptive_avg_pool2d(functional.relu(self.look(image)), 1).flatten(1)
        both = torch.cat([seen, functional.relu(self.weigh(facts))], 1)
        return {"kind": self.kind(both), "value": self.value(both), "features": both}


class Text(nn.Module):
    """A small transformer on token ids (int64)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True, norm_first=True)
        self.head = nn.Linear(16, 3)
        for norm in (self.encoder.norm1, self.encoder.norm2):
            nn.init.uniform_(norm.weight, 0.5, 1.5)

    def forward(self, ids: Tensor) -> Tensor:
        result: Tensor = self.head(self.encoder(self.embedding(ids)).mean(1))
        return result


class Signal(nn.Module):
    """Convolutions over time."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 8, 3, padding=1), nn.Conv1d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, signal: Tensor) -> Tensor:
        result: Tensor = self.head(functional.relu(self.second(functional.relu(self.first(signal)))).mean(2))
        return result


class Shared(nn.Module):
    """One layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(functional.relu(self.twice(functional.relu(self.twice(x)))))
        return result


class Bytes(nn.Module):
    """An image of bytes (uint8), scaled inside."""

    def __init__(self) -> None:
        super().__init__()
        self.look, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 3)

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.head(functional.relu(self.look(image.float() / 255)).amax((2, 3)))
        return result


class Conv_Block(nn.Module):  # noqa: N801 - users write such names
    """A class and an attribute with underscores, which the converter joins by an underscore."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_1, self.norm_1 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, image: Tensor) -> Tensor:
        return functional.relu(self.norm_1(self.layer_1(image)))


def deep() -> nn.Module:
    """A hundred layers with weights."""
    return nn.Sequential(*(part for _ in range(100) for part in (nn.Linear(8, 8), nn.Tanh())))


def convolutions() -> nn.Module:
    """Convolutions of one shape."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1),
                         *(part for _ in range(7) for part in (nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten())


def channels_last() -> nn.Module:
    """The same in the memory format from which the converter merges different weights.

    Whether it does depends on addresses in memory: of three convolutions it merges two in half of the
    runs, of eight in every run.
    """
    network = convolutions()
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def images(size: int) -> Arrays:
    return {"image": np.random.default_rng(0).normal(size=(EXAMPLES, 3, size, size)).astype(np.float32)}


def vectors(*shape: int) -> Arrays:
    return {"x": np.random.default_rng(0).normal(size=(EXAMPLES, *shape)).astype(np.float32)}


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Arrays]]] = {
    "flat": (Flat, lambda: images(16)),
    "normalised": (Normalised, lambda: images(8)),
    "segmenting": (Segmenting, lambda: images(16)),
    "pair": (Pair, lambda: {**images(8), "facts": vectors(5)["x"]}),
    "text": (Text, lambda: {"ids": np.random.default_rng(0).integers(0, 50, (EXAMPLES, 12))}),
    "signal": (Signal, lambda: vectors(4, 10)),
    "shared": (Shared, lambda: vectors(8)),
    "convolutions": (convolutions, lambda: images(8)),
    "channels_last": (channels_last, lambda: images(8)),
    "one_layer": (lambda: nn.Linear(6, 3), lambda: vectors(6)),
    "underscores": (lambda: nn.Sequential(Conv_Block(), Conv_Block()), lambda: images(8)),
    "bytes": (Bytes, lambda: {"image": (80 * images(8)["image"] + 128).clip(0, 255).astype(np.uint8)}),
    "deep": (deep, lambda: vectors(8)),
}


@dataclass(frozen=True)
class Converted:
    """What a test looks at."""

    deviation: float
    """The largest difference of an output, as a share of its range."""
    model: bytes
    ports: Ports
    layers: LayerMap
    difference: Difference | None
    """By `first_difference` on the first example."""


@dataclass(frozen=True)
class Case:
    """A network and what it was converted to."""

    network: Network
    inputs: Arrays
    positional: bool
    model: bytes
    ports: Ports

    @property
    def example(self) -> Arrays:
        return {name: array[:1] for name, array in self.inputs.items()}

    @property
    def layers(self) -> LayerMap:
        return map_layers(read_graph(self.model), TARGET)

    def difference(self, model: bytes) -> Difference | None:
        return first_difference(TfliteCompiler(), self.network, self.positional, model, self.ports,
                                self.layers.layer_of, self.example)


@cache
def case(name: str, folder: Path | None = None, kind: str = "pt2") -> Case:
    """Convert a network, by way of a file in `folder` if there is one."""
    network, inputs, positional = made(name, folder, kind)
    return Case(network, inputs, positional,
                *convert(network, {n: a[:1] for n, a in inputs.items()}, positional))


def converted(name: str, folder: Path | None = None, kind: str = "pt2") -> Converted:
    """Convert a network, run it and compare."""
    made = case(name, folder, kind)
    wanted = run(made.network, made.inputs, made.positional, name)
    got = executed(made.model, made.ports, made.inputs)
    return Converted(worst_output(wanted, got).deviation, made.model, made.ports, made.layers,
                     made.difference(made.model))


def made(name: str, folder: Path | None = None, kind: str = "pt2") -> tuple[Network, Arrays, bool]:
    """Make a network with its inputs; tell whether they go by position."""
    make, inputs_of = NETWORKS[name]
    torch.manual_seed(0)
    module, inputs = make(), inputs_of()
    positional = len(inputs) == 1
    if folder is None:
        settle(module, name)
        return Network(module), inputs, positional
    if kind == "onnx":
        return load_network(exported(module, inputs, folder)), inputs, positional
    example = tuple(torch.from_numpy(a[:1]) for a in inputs.values())
    path = folder / f"{name}.pt2"
    torch.export.save(torch.export.export(module.eval(), example), path)
    return load_network(Reference(path.name, "pt2", str(path))), inputs, positional


def executed(model: bytes, ports: Ports, inputs: Arrays) -> tuple[NDArray[Any], ...]:
    """Run a model on every example with LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    encoded, found = ports.encode(inputs), []
    for example in range(EXAMPLES):
        for position, detail in enumerate(interpreter.get_input_details()):
            interpreter.set_tensor(detail["index"], encoded[f"i{position}"][example:example + 1])
        interpreter.invoke()
        found.append([interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()])
    return ports.decode({f"o{i}": np.concatenate(rows) for i, rows in enumerate(zip(*found, strict=True))})


def mixes(name: str, count: int) -> int:
    """Quantise random candidates and run each; return how many there were. Raises what is infeasible."""
    made, rng = case(name), np.random.default_rng(1)
    space, plain = made.layers.space, calibrate(made.model, made.ports, made.inputs)
    statistics = {Calibration.MIN_MAX: plain, **clip(made.model, made.ports, made.inputs, plain)}
    quantisers = {method: Quantiser(made.model, load_statistics(data), made.layers)
                  for method, data in statistics.items()}
    for _ in range(count):
        chosen = {layer.name: layer.choices[rng.integers(len(layer.choices))] for layer in space.layers}
        candidate = Candidate.of(space, chosen, calibration=space.calibrations[rng.integers(len(space.calibrations))],
                                 clipping=space.clippings[rng.integers(len(space.clippings))])
        executed(quantisers[candidate.calibration].quantise(candidate), made.ports, made.inputs)
    return count


def corrupted(name: str) -> dict[str, Difference | None]:
    """Change the weights of each layer of a converted network in turn; return layer -> what was found."""
    made = case(name)
    layers = made.layers
    return {layer.name: made.difference(with_other_weights(made.model, layers, layer.name))
            for layer in layers.space.layers if layer.weights}


def with_other_weights(model: bytes, layers: LayerMap, layer: str) -> bytes:
    """Return a model with every second weight of a layer larger by 30 %."""
    from ai_edge_litert.tools import flatbuffer_utils as flat

    op = layers.graph.operators[layers.operators[layer][0]]
    parsed = flat.convert_bytearray_to_object(bytearray(model))
    buffer = parsed.buffers[layers.graph.tensors[op.inputs[1]].buffer]
    weights = np.frombuffer(bytes(buffer.data), np.float32).copy()
    weights[::2] *= 1.3
    buffer.data = np.frombuffer(weights.tobytes(), np.uint8)
    return bytes(flat.convert_object_to_bytearray(parsed))


def write_archives(folder: Path) -> None:
    """Write one.pt2, free.pt2, eight.pt2 and training.pt2 of one network, and text.pt2, which is none."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                            nn.Dropout(0.5), nn.Linear(4, 3)).eval()
    one, eight = torch.zeros(1, 3, 4, 4), torch.zeros(8, 3, 4, 4)
    torch.export.save(torch.export.export(network, (one,)), folder / "one.pt2")
    torch.export.save(torch.export.export(network, (eight,)), folder / "eight.pt2")
    free = torch.export.export(network, (eight,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(free, folder / "free.pt2")
    torch.export.save(torch.export.export(network.train(), (one,)), folder / "training.pt2")
    (folder / "text.pt2").write_text("no archive")
