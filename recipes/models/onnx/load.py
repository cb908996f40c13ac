"""From an ONNX file to a PyTorch network, operator by operator; what is known before the inputs are is folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recipes.boundary import foreign
from recipes.errors import ModelError
from recipes.models.onnx.functions import FUNCTIONS, function_of
from recipes.models.onnx.fuse import fuse
from recipes.models.onnx.layers import LAYERS, TELLING, input_of, is_layer, weights_of
from recipes.models.onnx.names import Paths
from recipes.models.onnx.network import Plan, Step, named, network_of
from recipes.models.onnx.node import REMEDY, Node, Place
from recipes.models.onnx.read import OnnxFile, read_onnx

if TYPE_CHECKING:
    import torch

    from recipes.models.source import Reference
    from recipes.ports import Array

SHAPES = ("Shape", "Size")


def load_onnx(reference: Reference) -> tuple[torch.nn.Module, OnnxFile]:
    """Return the network of an ONNX file, and the file. Raises ModelError.

    Layers have the names that the exported network had, where the file tells them. A file with a free batch gives a
    network for any batch, unless the file computes with the batch's size: shapes are those of one example.
    """
    file = read_onnx(reference)
    return network_of(_Builder(file).plan()), file


class _Builder:
    """Goes through the nodes once, and computes each on one example of zeros to know its shapes."""

    def __init__(self, file: OnnxFile) -> None:
        import torch

        self._file = file
        self._constants: dict[str, Array] = dict(file.constants)
        self._examples = {given.name: torch.zeros((1, *given.shape), dtype=getattr(torch, str(given.dtype)))
                          for given in file.inputs}
        self._trained = frozenset(file.constants)
        self._paths = Paths(frozenset(dir(torch.nn.Module())))
        self._steps: list[Step] = []
        self._layers: dict[str, torch.nn.Module] = {}
        self._known: dict[Any, str] = {}
        self._held: dict[str, torch.Tensor] = {}
        self._one_by_one = not file.free_batch

    def plan(self) -> Plan:
        """Return what makes the network. Raises ModelError naming the node that cannot be rebuilt."""
        nodes = []
        for node in self._file.nodes:
            if node.op == "Constant":
                self._fold(node)
            else:
                nodes.append(node)
        live = _live(nodes, [given.name for given in self._file.inputs])
        _refuse_unknown(nodes, live)
        inputs = {name: example.dtype for name, example in self._examples.items()}
        for node in fuse(nodes, self._constants, live, self._file.outputs):
            self._take(node)
        for name in self._file.outputs:
            if name in self._constants:
                raise ModelError(f"{self._file.name}: the output {name!r} does not depend on the inputs; remove it")
        return Plan(inputs, self._file.outputs, tuple(self._steps), self._layers, self._held, self._one_by_one)

    def _take(self, node: Node) -> None:
        place = Place(node, self._constants, self._examples)
        if all(name in self._constants for name in node.inputs if name):
            self._fold(node)
        elif node.op in SHAPES:
            self._fold_shape(place)
        else:
            with foreign(f"{node.label}: rebuilding it in PyTorch", ModelError):
                step = self._layer(place) if is_layer(place) else self._function(place)
                self._steps.append(step)
                self._examples.update(self._computed(step))

    def _fold(self, node: Node) -> None:
        """Compute a node whose inputs are all known, as the operator's definition does."""
        from onnx.reference import ReferenceEvaluator

        with foreign(f"{node.label}: computing it from constants", ModelError):
            opsets = {entry.domain: entry.version for entry in self._file.model.opset_import}
            given = {name: self._constants[name] for name in node.inputs if name}
            results = ReferenceEvaluator(node.proto, opsets=opsets).run(None, given)
            self._constants.update(zip(node.outputs, map(np.asarray, results), strict=True))

    def _fold_shape(self, place: Place) -> None:
        """Take a shape as known; with the batch's size in it, it is that of one example."""
        shape, node = place.shape(), place.node
        if node.op == "Size":
            found, first = np.array(int(np.prod(shape))), 0
        else:
            part = slice(place.attribute("start", 0), place.attribute("end", None))
            found, first = np.array(shape[part], np.int64), range(len(shape))[part].start
        self._constants[node.outputs[0]] = found
        self._one_by_one |= first == 0

    def _layer(self, place: Place) -> Step:
        """Make a layer, or take the one that has the same weights: a network may use it twice.

        Exporters join equal constants, so norms of the same weights may be different layers.
        """
        node, weights = place.node, weights_of(place)
        telling = node.op in TELLING
        sizes = place.shape()[2:] if place.attribute("auto_pad", "").startswith("SAME") else ()
        key = node.op, weights, len(place.shape()), sizes, repr(sorted(node.attributes.items()))
        path = self._known.get(key) if telling else None
        if path is None:
            path = self._known[key] = self._paths.layer(node, weights[0] if telling and weights else "")
            self._layers[path] = LAYERS[node.op](place).eval()
        return Step(path, None, (input_of(place),), node.outputs[:1])

    def _function(self, place: Place) -> Step:
        found = function_of(place)
        for name in found.operands:
            if name in self._constants:
                self._hold(name, place.node)
        return Step(self._paths.function(place.node), found.compute, found.operands, place.node.outputs)

    def _hold(self, name: str, node: Node) -> None:
        """Make a constant a tensor of the network: an initialiser is trained, what is computed is not."""
        import torch

        array = self._constants[name]
        if array.dtype.kind == "f" and array.dtype != np.float32:
            raise ModelError(f"{node.label}: its constant {name!r} is {array.dtype}; expected float32: export the "
                             "network in float32")
        tensor = torch.from_numpy(np.array(array))
        trained = name in self._trained and tensor.is_floating_point()
        self._held[name] = torch.nn.Parameter(tensor, requires_grad=False) if trained else tensor

    def _computed(self, step: Step) -> Mapping[str, torch.Tensor]:
        import torch

        compute = self._layers[step.path] if step.compute is None else step.compute
        with torch.no_grad():
            return named(step, compute(*({**self._examples, **self._held}[name] for name in step.operands)))


def _live(nodes: Sequence[Node], inputs: Sequence[str]) -> frozenset[str]:
    """Return the values that depend on the inputs; shapes do not."""
    found = set(inputs)
    for node in nodes:
        if node.op not in SHAPES and found & set(node.inputs):
            found.update(node.outputs)
    return frozenset(found)


def _refuse_unknown(nodes: Sequence[Node], live: frozenset[str]) -> None:
    """Name every operator that cannot be rebuilt, with a node of it."""
    first: dict[str, Node] = {}
    for node in nodes:
        if not live.isdisjoint(node.inputs) and node.op not in {*SHAPES, *LAYERS, *FUNCTIONS}:
            first.setdefault(node.op, node)
    if first:
        one = next(iter(first.values()))
        named_ = ", ".join(f"{op} (node {node.name or node.outputs[0]!r})" for op, node in first.items())
        raise ModelError(f"{one.file}: no PyTorch for the operators {named_}; export the network in other operators, "
                         f"or {REMEDY}")
