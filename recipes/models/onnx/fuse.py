"""Join operators that exporters take apart: MatMul and Add to one linear layer, five around an Erf to one Gelu."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isclose, sqrt
from typing import TYPE_CHECKING

from recipes.models.onnx.node import Node

if TYPE_CHECKING:
    from recipes.ports import Array


def fuse(nodes: Sequence[Node], constants: Mapping[str, Array], live: frozenset[str],
         outputs: Iterable[str]) -> list[Node]:
    """Return the nodes with what belongs together joined, at the place of the last one of each group.

    Args:
        nodes: of a graph, in execution order.
        constants: what is known of them.
        live: values that depend on the network's inputs.
        outputs: of the network; they are kept.
    """
    graph = _Graph(nodes, constants, frozenset(outputs))
    joined: dict[str, Node] = {}
    gone: set[str] = set()
    for node in nodes:
        found = graph.linear(node, live) if node.op == "MatMul" else graph.gelu(node) if node.op == "Erf" else None
        if found is not None:
            whole, parts = found
            joined[whole.outputs[0]] = whole
            gone.update(part.outputs[0] for part in parts)
    kept = (joined.get(node.outputs[0], node) for node in nodes)
    return [node for node in kept if node.outputs[0] in joined or node.outputs[0] not in gone]


class _Graph:
    """Who writes and who reads a value."""

    def __init__(self, nodes: Sequence[Node], constants: Mapping[str, Array], outputs: frozenset[str]) -> None:
        self._constants, self._outputs = constants, outputs
        self._writer = {output: node for node in nodes for output in node.outputs}
        self._readers: dict[str, list[Node]] = defaultdict(list)
        for node in nodes:
            for name in node.inputs:
                self._readers[name].append(node)

    def linear(self, node: Node, live: frozenset[str]) -> tuple[Node, list[Node]] | None:
        """Join a product with constant weights and the sum with one constant for every column."""
        weight = self._constants.get(node.inputs[1])
        following = self._only_reader(node, "Add")
        if weight is None or weight.ndim != 2 or node.inputs[0] not in live or following is None:
            return None
        other = self._other(following, node.outputs[0])
        bias = self._constants.get(other)
        if bias is None or bias.shape != weight.shape[1:]:
            return None
        return replace(node, inputs=(*node.inputs, other), outputs=following.outputs), [node]

    def gelu(self, erf: Node) -> tuple[Node, list[Node]] | None:
        """Join x/2 * (1 + erf(x / sqrt(2))), with its halving before or after the product."""
        scaled, one = self._writer.get(erf.inputs[0]), self._only_reader(erf, "Add")
        if scaled is None or one is None or self._value(one, erf.outputs[0]) != 1.0:
            return None
        by = {"Div": sqrt(2), "Mul": sqrt(0.5)}.get(scaled.op)
        x = next((name for name in scaled.inputs if name not in self._constants), "")
        product = self._only_reader(one, "Mul")
        if by is None or product is None or (scaled.op == "Div" and x != scaled.inputs[0]) \
                or self._only_reader(scaled, "Erf") is None \
                or not isclose(self._value(scaled, x) or 0.0, by, rel_tol=1e-6):
            return None
        factor = self._other(product, one.outputs[0])
        half = self._only_reader(product, "Mul") if factor == x else self._writer.get(factor)
        if half is None or half.op != "Mul":
            return None
        read = product.outputs[0] if factor == x else x
        if read not in half.inputs or self._value(half, read) != 0.5:
            return None
        last = half if factor == x else product
        parts = [scaled, erf, one, product]
        if factor != x and self._only_reader(half, "Mul") is not None:
            parts.append(half)
        whole = replace(erf, op="Gelu", inputs=(x,), outputs=last.outputs, attributes={}, proto=None)
        return whole, [part for part in parts if part is not last]

    def _only_reader(self, node: Node, op: str) -> Node | None:
        """Return the node that reads a value, where it is the only one and of this kind."""
        readers = self._readers[node.outputs[0]]
        single = len(readers) == 1 and node.outputs[0] not in self._outputs and readers[0].op == op
        return readers[0] if single else None

    @staticmethod
    def _other(node: Node, name: str) -> str:
        """Return the other one of two inputs."""
        return node.inputs[1] if node.inputs[0] == name else node.inputs[0]

    def _value(self, node: Node, name: str) -> float | None:
        """Return the other one of two inputs where it is a single constant number."""
        found = self._constants.get(self._other(node, name))
        return float(found.reshape(-1)[0]) if found is not None and found.size == 1 else None
