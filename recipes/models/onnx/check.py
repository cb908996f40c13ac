"""Does the network that was rebuilt from an ONNX file compute what the file says, and if not: from which node on?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from recipes.boundary import foreign
from recipes.errors import DataError, ModelError
from recipes.models.fit import check_shapes
from recipes.models.network import Network, deviation
from recipes.models.onnx.node import REMEDY
from recipes.models.onnx.read import OnnxFile, read_onnx

if TYPE_CHECKING:
    from recipes.models.source import Reference
    from recipes.ports import Array

SETTLED = 1e-4
"""Largest difference of an output between the file and PyTorch, as a share of its range."""
FEW = 2
"""Inputs that both are run on; the reference evaluator is slow."""


def check_onnx(reference: Reference, network: Network, inputs: Mapping[str, Array], positional: bool) -> None:
    """Compare a rebuilt network with its file, which ONNX's own reference evaluator runs.

    Args:
        reference: of the file.
        network: what was made of it.
        inputs: argument name -> array (N, ...).
        positional: they go by position and not by name.

    Raises:
        DataError: the inputs do not fit the network.
        ModelError: the file cannot be run, or something else comes out.
    """
    from onnx.reference import ReferenceEvaluator

    file = read_onnx(reference)
    if not positional:
        inputs, _ = network.arrange(inputs, positional)
    _check_inputs(file, network, inputs)
    with foreign(f"{file.name}: preparing ONNX's reference evaluator", ModelError):
        evaluator = ReferenceEvaluator(file.model)
    count = min(FEW, len(next(iter(inputs.values()))))
    pairs = [_both(file, evaluator, network, inputs, index) for index in range(count)]
    for name in file.outputs:
        wanted, got = (np.concatenate([pair[side][name] for pair in pairs]) for side in (0, 1))
        if wanted.shape != got.shape:
            raise ModelError(f"{file.name}: the output {name!r} has the shape {got.shape} in PyTorch, and "
                             f"{wanted.shape} by ONNX's reference evaluator; {REMEDY}")
        off = deviation(got, wanted, wanted)
        if not off <= SETTLED:
            raise ModelError(f"{file.name}: the output {name!r} differs by {off:.2g} of its range between PyTorch and "
                             f"ONNX's reference evaluator{_first(file, pairs)}; expected at most {SETTLED:g}: {REMEDY}")


def _check_inputs(file: OnnxFile, network: Network, inputs: Mapping[str, Array]) -> None:
    """Compare what the data have with what the file takes."""
    where = "the calibration inputs"
    if len(inputs) != len(file.inputs):
        raise ModelError(f"the model has the inputs {', '.join(given.name for given in file.inputs)}; the data have "
                         f"{', '.join(inputs)}")
    check_shapes(network.shapes, inputs, True, where)
    for given, (name, array) in zip(file.inputs, inputs.items(), strict=True):
        kind = "iu" if given.dtype.kind in "iu" else given.dtype.kind
        if array.dtype.kind not in kind:
            raise DataError(f"{where} have the wrong type: the model takes {given.name} {given.dtype}, got {name} "
                            f"{array.dtype}; give data of the type that the model was made for")


def _both(file: OnnxFile, evaluator: Any, network: Network, inputs: Mapping[str, Array],
          index: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Run one example both ways; return all values of each by their names in the file."""
    import torch

    given = {port.name: array[index:index + 1].astype(port.dtype)
             for port, array in zip(file.inputs, inputs.values(), strict=True)}
    wanted: dict[str, Array] = {}
    with foreign(f"{file.name}: running it by ONNX's reference evaluator", ModelError), np.errstate(all="ignore"):
        found = evaluator.run(None, given, intermediate=True)
        wanted = {name: np.asarray(value) for name, value in found.items()}
    with foreign(f"{file.name}: running it in PyTorch", ModelError), torch.no_grad():
        values = network.module.values(*map(torch.from_numpy, given.values()))  # type: ignore[operator] # OnnxNetwork's
    return wanted, {name: value.numpy() for name, value in values.items()}


def _first(file: OnnxFile, pairs: list[tuple[dict[str, Array], dict[str, Array]]]) -> str:
    """Name the first node with a result that differs; what was joined or folded has none to compare."""
    for node in file.nodes:
        for name in node.outputs:
            for wanted, got in pairs:
                if name in got and name in wanted and wanted[name].dtype.kind == "f":
                    same = wanted[name].shape == got[name].shape
                    if not same or not deviation(got[name], wanted[name], wanted[name]) <= SETTLED:
                        return f", first at the node {node.name or node.outputs[0]!r} ({node.op})"
    return ""
