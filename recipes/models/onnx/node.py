"""One operator of an ONNX graph, and what is known of its inputs where the network is rebuilt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recipes.errors import ModelError

if TYPE_CHECKING:
    import torch

    from recipes.ports import Array

REMEDY = "give the network as FILE.py:FACTORY"
TRAINING = "call .eval() on the network and export it again"


@dataclass(frozen=True)
class Node:
    """An operator as the file has it."""

    file: str
    """As the user wrote it, for messages."""
    op: str
    """With its domain where that is not ONNX's own."""
    name: str
    inputs: tuple[str, ...]
    """`` where an optional one was left out."""
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    scopes: str = ""
    """The modules that PyTorch's exporter found it in, as text."""
    proto: Any = None
    """The NodeProto; None for what several were joined to."""

    @property
    def label(self) -> str:
        """Name it in messages."""
        return f"{self.file}: the node {self.name or self.outputs[0]!r} ({self.op})"


@dataclass(frozen=True)
class Place:
    """A node where it stands in the network."""

    node: Node
    constants: Mapping[str, Array]
    """What is known before any input is: initialisers, and what is computed from them and from shapes."""
    examples: Mapping[str, torch.Tensor]
    """The other values, on one example of zeros."""

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute; texts are str."""
        value = self.node.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def has(self, index: int) -> bool:
        """Tell whether an input is given."""
        return index < len(self.node.inputs) and self.node.inputs[index] != ""

    def is_constant(self, index: int) -> bool:
        """Tell whether an input is given, and known before the network runs."""
        return self.has(index) and self.node.inputs[index] in self.constants

    def constant(self, index: int, what: str) -> Array:
        """Return an input that must be constant. Raises ModelError."""
        if not self.is_constant(index):
            raise self.refusal(f"computes its {what} while it runs; expected a constant")
        return self.constants[self.node.inputs[index]]

    def integers(self, index: int, what: str) -> tuple[int, ...] | None:
        """Return a constant input as whole numbers; None where it was left out. Raises ModelError."""
        return tuple(int(n) for n in self.constant(index, what).reshape(-1)) if self.has(index) else None

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """Return the shape of an input, with a batch of one."""
        name = self.node.inputs[index]
        return tuple((self.constants if name in self.constants else self.examples)[name].shape)

    def refusal(self, why: str, remedy: str = REMEDY) -> ModelError:
        """Return what to raise for a node that cannot be rebuilt."""
        return ModelError(f"{self.node.label} {why}; {remedy}")
