"""Does the converted float32 model compute what PyTorch does, and if not: from which layer on?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recipes.blobs import BlobStore
from recipes.compilers.compiler import Compiler
from recipes.compilers.kinds import FOLLOWERS
from recipes.errors import ConversionMismatch
from recipes.models.dataset import Split
from recipes.models.network import Network, call, deviation, load_network, tensors, watched
from recipes.models.source import Reference
from recipes.ports import Array, Ports

SETTLED = 1e-4
"""Largest difference of an output between PyTorch and the converted model, as a share of its range."""
METRIC_SETTLED = 0.005
"""Largest difference of a metric (half a point of top-1); for values above 1, as a share of the value."""
EXAMPLES = 8
"""How many inputs a search for the first differing layer looks at when no single one is known."""
PARTS = frozenset({"ADD", "SUB", "MUL", "DIV", "MEAN", "SUM", "SQUARED_DIFFERENCE", "RSQRT", "SQRT", "BATCH_MATMUL",
                   "SOFTMAX"})
"""What normalisations and attention are taken apart into."""


@dataclass(frozen=True, slots=True)
class Worst:
    """The output and the example with the largest difference."""

    output: int
    example: int
    deviation: float
    """As a share of the output's range."""


def worst_output(expected: Sequence[Array], got: Sequence[Array]) -> Worst:
    """Return where two runs over the same inputs differ most.

    Args:
        expected: PyTorch's outputs, (N, ...) each.
        got: the converted model's outputs in the same layout.

    Raises:
        ConversionMismatch: when they differ in number or shape.
    """
    shapes = [array.shape for array in expected], [array.shape for array in got]
    if shapes[0] != shapes[1]:
        raise ConversionMismatch(f"the converted float32 model has outputs of the shapes {shapes[1]}, PyTorch's have "
                                 f"{shapes[0]}")
    found = []
    for index, (wanted, have) in enumerate(zip(expected, got, strict=True)):
        off = np.abs(have.astype(np.float64) - wanted.astype(np.float64)).reshape(len(wanted), -1).max(axis=1)
        example = int(off.argmax())
        found.append(Worst(index, example, deviation(have[example], wanted[example], wanted)))
    return max(found, key=lambda worst: worst.deviation)


def differing_metrics(expected: Mapping[str, float], got: Mapping[str, float]) -> str | None:
    """Name the metrics that differ by more than `METRIC_SETTLED`, or return None."""
    far = [f"{name} is {got[name]:.4f}, in PyTorch {wanted:.4f}" for name, wanted in expected.items()
           if abs(got[name] - wanted) > METRIC_SETTLED * max(1.0, abs(wanted))]
    return "; ".join(far) or None


@dataclass(frozen=True, slots=True)
class Difference:
    """The first layer of a converted model whose output PyTorch does not compute."""

    layer: str
    """As in the search space; the module's path where it is no layer of that."""
    kind: str
    """The operator, in the runtime's words."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """Everything that finds a difference; the network is loaded anew, so only in a worker process."""

    compiler: Compiler
    model: Reference
    positional: bool
    blob_folder: Path
    float_model: str
    """Blob."""
    ports: Ports
    layer_of: Mapping[int, str]
    """Operator -> its layer in the search space."""
    split: str
    """Blob."""


def find_difference(suspect: Suspect, example: int | None) -> Difference | None:
    """Look for the first layer that differs on one example, or on the first few. Runs user code.

    Returns None when, computed plainly, the model computes all that PyTorch computes on them.
    """
    blobs = BlobStore(suspect.blob_folder)
    split = Split.from_bytes(blobs.path(suspect.split).read_bytes())
    model = blobs.path(suspect.float_model).read_bytes()
    network = load_network(suspect.model)
    for index in range(min(EXAMPLES, split.examples)) if example is None else (example,):
        inputs = {name: array[index:index + 1] for name, array in split.inputs.items()}
        found = first_difference(suspect.compiler, network, suspect.positional, model, suspect.ports, suspect.layer_of,
                                 inputs)
        if found is not None:
            return found
    return None


def first_difference(compiler: Compiler, network: Network, positional: bool, model: bytes, ports: Ports,
                     layer_of: Mapping[int, str], inputs: Mapping[str, Array]) -> Difference | None:
    """Compare every tensor that a converted model computes with every tensor that PyTorch computes.

    An operator is right when its output is among PyTorch's tensors (fused operators give the last of
    theirs, and channels may be last), or when something that is computed from it is right (a
    normalisation is taken apart into operators that PyTorch has not). The first other one differs; before
    such a part, which may have no counterpart, the operator after it is named.

    Args:
        compiler: of the model.
        network: in PyTorch.
        positional: pass the inputs by position and not by name.
        model: the float model.
        ports: of that model.
        layer_of: operator -> its layer in the search space; others are named by their modules.
        inputs: one example, argument name -> array (1, ...).
    """
    graph = compiler.graph(model)
    known = _torch_tensors(network, inputs, positional)
    computed = compiler.tensors(model, ports, inputs)
    right: set[int] = set()
    for op in reversed(graph.operators):
        followed = any(reader.index in right for tensor in op.outputs for reader in graph.consumers.get(tensor, ()))
        if followed or all(_is_known(computed[tensor], known) for tensor in op.outputs):
            right.add(op.index)
    wrong = [op for op in graph.operators if op.index not in right and op.kind not in FOLLOWERS]
    first = next((op for op in wrong if op.kind not in PARTS), wrong[0] if wrong else None)
    if first is None:
        return None
    return Difference(layer_of.get(first.index) or compiler.path(model, first) or first.kind.lower(), first.kind)


def _is_known(array: Array, known: Mapping[int, list[Array]]) -> bool:
    """Tell whether PyTorch computed the same values; integers count as known."""
    if array.dtype.kind != "f":
        return True
    flat = array.ravel()
    return any(deviation(flat, candidate, candidate) <= SETTLED for candidate in known.get(array.size, ()))


def _torch_tensors(network: Network, inputs: Mapping[str, Array], positional: bool) -> dict[int, list[Array]]:
    """Return every float tensor that PyTorch computes, flat, by size; with the channels second and last."""
    import torch

    found: dict[int, list[Array]] = {}

    def keep(operator: Any, arguments: tuple[Any, ...], result: Any) -> None:
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, torch.Tensor) and part.is_floating_point():
                layouts = (part,) if part.ndim < 3 else (part, part.movedim(1, -1))
                found.setdefault(part.numel(), []).extend(t.flatten().clone().numpy() for t in layouts)

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it computes a whole encoder layer in one operator
    try:
        with watched(keep):
            call(network, tensors(inputs, 0, 1), positional)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return found
