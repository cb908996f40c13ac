"""Module paths for the operators of an ONNX graph, those of the network that was exported where the file tells them."""

from __future__ import annotations

import ast
import re

from recipes.models.onnx.node import Node

_ODD = re.compile(r"\W")


class Paths:
    """Gives layers paths of their own, and other operators the path of the module that computed them."""

    def __init__(self, taken: frozenset[str]) -> None:
        """Take names that no part of a path may have: the attributes of every module."""
        self._taken = taken
        self._layers: set[str] = set()
        self._holders: set[str] = set()

    def layer(self, node: Node, weight: str) -> str:
        """Return a new path for a layer.

        Args:
            node: the operator.
            weight: the name of its weights in the file; PyTorch's exporters keep `PATH.weight`. `` where it may
                be that of another layer.
        """
        own = weight.removesuffix(".weight") if weight.endswith(".weight") else _scope(node)
        wanted = self._legal(own) or self._legal(node.name.rpartition("/")[2]) or node.op.lower()
        if self._inside_layer(wanted):
            wanted = wanted.replace(".", "_")
        if wanted in self._holders:
            wanted = f"{wanted}.{node.op.lower()}"
        path, count = wanted, 0
        while path in self._layers or path in self._holders:
            count += 1
            path = f"{wanted}_{count}"
        self._layers.add(path)
        self._holders.update(_above(path))
        return path

    def function(self, node: Node) -> str:
        """Return the path of the module that computes an operator without weights; `` for the network itself."""
        path = self._legal(_scope(node))
        while path in self._layers or self._inside_layer(path):
            path = path.rpartition(".")[0]
        self._holders.update((path, *_above(path)))
        return path

    def _inside_layer(self, path: str) -> bool:
        return any(above in self._layers for above in _above(path))

    def _legal(self, path: str) -> str:
        parts = [_ODD.sub("_", part) for part in path.split(".") if part]
        return ".".join(f"{part}_" if part in self._taken else part for part in parts)


def _above(path: str) -> list[str]:
    """Return the paths of all modules that a module is in, but the network itself."""
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _scope(node: Node) -> str:
    """Return the path of the module that an operator was computed by; `` where nothing tells.

    torch.onnx.export leaves a list such as ['', 'blocks', 'blocks.0', 'add'], and its TorchScript exporter a name such
    as /blocks/blocks.0/first/first.0/Conv; other exporters name nodes module/layer/Conv2D.
    """
    if node.scopes:
        try:
            scopes = ast.literal_eval(node.scopes)
        except (ValueError, SyntaxError):
            scopes = []
        if isinstance(scopes, list) and len(scopes) > 1:
            return str(scopes[-2])
    parts: list[str] = []
    for part in [part for part in node.name.split("/") if part][:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts[-1] = part
        else:
            parts.append(part)
    return ".".join(parts)
