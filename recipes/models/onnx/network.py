"""The PyTorch network of an ONNX file: modules for its layers, functions for the rest, in the file's order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Step:
    """One operator: a layer, or a function that a module computes so that it has the module's path."""

    path: str
    """Of the layer or the module; `` for the network itself."""
    compute: Callable[..., Any] | None
    """None for a layer."""
    operands: tuple[str, ...]
    results: tuple[str, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """The modules on the way to it."""
        return tuple(self.path.split(".")) if self.path else ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that makes a network."""

    inputs: Mapping[str, torch.dtype]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]
    layers: Mapping[str, torch.nn.Module]
    """Path -> layer."""
    constants: Mapping[str, torch.Tensor]
    """Value -> tensor; trained ones are parameters."""
    one_by_one: bool
    """It computes with shapes of a batch of one."""


def network_of(plan: Plan) -> torch.nn.Module:
    """Return the network; it takes its inputs by position, and has `values(*inputs)` besides."""
    scope, whole = _classes()
    module: torch.nn.Module = whole(plan)
    for step in plan.steps:
        above = module
        for count, part in enumerate(step.parts, 1):
            if part not in dict(above.named_children()):
                above.add_module(part, plan.layers.get(".".join(step.parts[:count])) or scope())
            above = above.get_submodule(part)
    return module


@cache
def _classes() -> tuple[Any, Any]:
    import torch

    class Scope(torch.nn.Module):
        """Computes what lies in it, so that compilers see every module on the way."""

        def forward(self, *given: torch.Tensor, path: tuple[str, ...], compute: Any) -> Any:
            return descend(self, given, path, compute)

    def descend(module: torch.nn.Module, given: Sequence[torch.Tensor], path: tuple[str, ...], compute: Any) -> Any:
        if not path:
            return compute(*given)
        part = module.get_submodule(path[0])
        return part(*given, path=path[1:], compute=compute) if isinstance(part, Scope) else part(*given)

    class OnnxNetwork(torch.nn.Module):
        """Computes the steps of a plan."""

        def __init__(self, plan: Plan) -> None:
            super().__init__()
            self.inputs, self.outputs, self.one_by_one = dict(plan.inputs), plan.outputs, plan.one_by_one
            self.steps = plan.steps
            self.attributes: dict[str, str] = {}
            for name, tensor in plan.constants.items():
                self._keep(name, tensor)
            self.last = _last_readings(plan)

        def forward(self, *given: torch.Tensor) -> Any:
            found = self._run(given, self.last)
            results = tuple(found[name] for name in self.outputs)
            return results if len(results) > 1 else results[0]

        def values(self, *given: torch.Tensor) -> dict[str, torch.Tensor]:
            """Return everything that is computed, by its name in the file."""
            return self._run(given, {})

        def _run(self, given: Sequence[torch.Tensor], last: Mapping[int, Sequence[str]]) -> dict[str, torch.Tensor]:
            if len(given) != len(self.inputs):
                raise ValueError(f"the network has {len(self.inputs)} inputs, got {len(given)}")
            if self.one_by_one and any(len(tensor) != 1 for tensor in given):
                raise ValueError(f"the file is made for a batch of one, got {len(given[0])}")
            found = {name: tensor if tensor.is_floating_point() else tensor.to(kind)
                     for (name, kind), tensor in zip(self.inputs.items(), given, strict=True)}
            found.update({name: getattr(self, attribute) for name, attribute in self.attributes.items()})
            for index, step in enumerate(self.steps):
                operands = [found[name] for name in step.operands]
                found.update(named(step, descend(self, operands, step.parts, step.compute)))
                for name in last.get(index, ()):
                    del found[name]
            return found

        def _keep(self, name: str, tensor: torch.Tensor) -> None:
            attribute = "".join(c if c.isalnum() else "_" for c in name)
            while hasattr(self, attribute):
                attribute += "_"
            self.attributes[name] = attribute
            if isinstance(tensor, torch.nn.Parameter):
                self.register_parameter(attribute, tensor)
            else:
                self.register_buffer(attribute, tensor)

    return Scope, OnnxNetwork


def named(step: Step, result: Any) -> dict[str, torch.Tensor]:
    """Name the results of a step; an operator with one result returns it alone."""
    return dict(zip(step.results, result if len(step.results) > 1 else (result,), strict=True))


def _last_readings(plan: Plan) -> dict[int, list[str]]:
    """Return which values are not read after a step, so that a batch's values are not all kept."""
    last = {name: index for index, step in enumerate(plan.steps) for name in (*step.operands, *step.results)}
    found: dict[int, list[str]] = defaultdict(list)
    for name, index in last.items():
        if name not in plan.outputs:
            found[index].append(name)
    return dict(found)
