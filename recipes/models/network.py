"""The user's network in PyTorch: made, made ready, and run on arrays. Only in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from recipes.boundary import foreign
from recipes.errors import DataError, ModelError
from recipes.models.fit import Shape, check_shapes, refusing_layer
from recipes.models.source import Reference, load_callable
from recipes.ports import Array

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
BATCH = 64
DEMO_SHAPE = (1, 28, 28)
ALONE = 1e-3
"""Largest difference, as a share of the output's range, between an input run alone and in a batch."""
_TRAINING_ARGUMENT = {"aten.batch_norm.default": 5, "aten.dropout.default": 2, "aten.feature_dropout.default": 2,
                      "aten._native_batch_norm_legit_functional.default": 5}
"""Operators of an exported graph, and which of their arguments says that it was exported for training."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network in evaluation mode, with float32 contiguous parameters."""

    module: torch.nn.Module
    arguments: tuple[str, ...] = ()
    """Names of its inputs, where it takes them by position only."""
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    """Of one example of each input, as far as it is known without running the network."""

    def arrange(self, inputs: Mapping[str, T], positional: bool) -> tuple[dict[str, T], bool]:
        """Put named inputs into the order that the network wants; return them, and whether to pass by position.

        Raises ModelError when the names differ.
        """
        if positional or not self.arguments:
            return dict(inputs), positional
        if set(inputs) != set(self.arguments):
            raise ModelError(f"the model has the inputs {', '.join(self.arguments)}; the data have "
                             f"{', '.join(inputs)}")
        return {name: inputs[name] for name in self.arguments}, True


def load_network(reference: Reference) -> Network:
    """Make the network that a reference names. Raises ModelError."""
    import torch

    if reference.kind == "pt2":
        return _load_exported(reference)
    if reference.kind == "onnx":
        return _load_onnx(reference)
    factory: Callable[[], Any]
    shapes: Mapping[str, Shape] = {}
    if reference.kind == "demo":
        from recipes.demo import networks

        factory, shapes = getattr(networks, reference.target), {"images": DEMO_SHAPE}
    else:
        factory = load_callable(reference, ModelError)
    made: Any = None
    with foreign(f"{reference.text}()", ModelError):
        made = factory()
    if not isinstance(made, torch.nn.Module):
        raise ModelError(f"{reference.text}() returned {type(made).__name__}; expected a torch.nn.Module")
    settle(made, reference.text)
    return Network(made, shapes=shapes)


def _load_exported(reference: Reference) -> Network:
    """Load a .pt2 archive as a tree of modules, so that its layers have the names that they had."""
    import torch
    from torch.export.unflatten import InterpreterModule

    name = reference.text
    with foreign(f"loading {reference.target}", ModelError):
        program = torch.export.load(reference.target)
        module = torch.export.unflatten(program)
    for node in program.graph.nodes:
        position = _TRAINING_ARGUMENT.get(str(node.target))
        if position is not None and len(node.args) > position and node.args[position] is True:
            raise ModelError(f"{name}: was exported in training mode ({node.name} is {node.target}); call .eval() on "
                             "the model before torch.export.export")
    inputs = program.graph_signature.user_inputs
    for node in program.graph.nodes:
        batch = node.meta["val"].shape[0] if node.op == "placeholder" and node.name in inputs else 1
        if isinstance(batch, int) and batch != 1:
            raise ModelError(f"{name}: exported for a batch of {batch}; export it with one example, or with a "
                             "dynamic batch (torch.export.Dim)")
    args, kwargs = program.call_spec.in_spec.children()
    if len(inputs) not in (args.num_children, kwargs.num_children):
        raise ModelError(f"{name}: its inputs are nested, or partly keywords; export it with tensors that are all "
                         "passed by position")
    for part in module.modules():
        if isinstance(part, InterpreterModule) and (known_as := part.type_name()):
            where, _, kind = known_as.rpartition(".")  # the converter names tensors by the classes of modules
            part.__class__ = type(kind, (InterpreterModule,), {"__module__": where})
    settle(module, name)
    shapes = {node.name: tuple(size if isinstance(size, int) else None for size in node.meta["val"].shape[1:])
              for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs}
    return Network(module, tuple(inputs) if args.num_children else (), {name: shapes[name] for name in inputs})


def _load_onnx(reference: Reference) -> Network:
    """Rebuild the network of an ONNX file."""
    from recipes.models.onnx.load import load_onnx

    module, file = load_onnx(reference)
    settle(module, reference.text)
    return Network(module, tuple(port.name for port in file.inputs), {port.name: port.shape for port in file.inputs})


def settle(module: torch.nn.Module, name: str) -> None:
    """Put a network into evaluation mode and give every parameter memory of its own, contiguous.

    From channels_last parameters litert-torch makes a model in which different weights are merged.

    Raises ModelError for a network that is not in float32, on the CPU and finite.
    """
    import torch

    with foreign(f"{name}: reading the parameters", ModelError):
        module.eval()
        for key, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.is_floating_point() and tensor.dtype != torch.float32:
                raise ModelError(f"{name}: {key} is {str(tensor.dtype).removeprefix('torch.')}; expected float32: "
                                 "call .float() on the model")
            if tensor.device.type != "cpu":
                raise ModelError(f"{name}: {key} is on {tensor.device}; expected the CPU: call .cpu() on the model")
            if not torch.isfinite(tensor).all():
                raise ModelError(f"{name}: {key} has values that are not finite")
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)


def parameter_count(network: Network) -> int:
    """Return the number of trained values; what several layers share counts once."""
    return sum(parameter.numel() for parameter in network.module.parameters())


def call(network: Network, inputs: Mapping[str, torch.Tensor], positional: bool) -> tuple[torch.Tensor, ...]:
    """Run the network once and return its outputs as a tuple. Raises ModelError, or what the network raises."""
    import torch

    given, positional = network.arrange(inputs, positional)
    with torch.no_grad():
        result = network.module(*given.values()) if positional else network.module(**given)
    return flatten(result)


def tensors(inputs: Mapping[str, Array], start: int, stop: int) -> dict[str, torch.Tensor]:
    """Return a slice of the inputs as tensors."""
    import torch

    return {name: torch.from_numpy(np.ascontiguousarray(array[start:stop])) for name, array in inputs.items()}


def run(network: Network, inputs: Mapping[str, Array], positional: bool, where: str) -> tuple[Array, ...]:
    """Run the network on all inputs, one at a time where it refuses a batch.

    Args:
        network: see `load_network`.
        inputs: argument name -> array (N, ...).
        positional: pass the arrays by position and not by name.
        where: which inputs these are, for messages.

    Returns:
        One array (N, ...) per output.

    Raises:
        DataError: when the inputs do not fit, or the network raises on one.
        ModelError: when its outputs have no batch axis, or are not finite.
    """
    count = len(next(iter(inputs.values())))
    check_shapes(network.shapes, inputs, positional, where)
    if count > 1:
        try:
            return _in_steps(network, inputs, positional, where, BATCH)
        except (DataError, ModelError):
            pass  # whatever is wrong is found again below, or lies in the batch
    return _in_steps(network, inputs, positional, where, 1)


def _in_steps(network: Network, inputs: Mapping[str, Array], positional: bool, where: str,
              step: int) -> tuple[Array, ...]:
    count = len(next(iter(inputs.values())))
    pieces: list[tuple[Array, ...]] = []
    for start in range(0, count, step):
        given = tensors(inputs, start, start + step)
        size = min(step, count - start)
        shapes = ", ".join(f"{name} {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
                           for name, tensor in given.items())
        try:
            with foreign(f"running the model on {where} ({shapes})", DataError):
                outputs = call(network, given, positional)
        except DataError as error:
            why = refusing_layer(network.module, partial(call, network, given, positional)) if step == 1 else None
            if why is None:
                raise
            raise DataError(f"the model does not take {where} ({shapes}): {why}") from error.__cause__
        for index, output in enumerate(outputs):
            if output.ndim == 0 or len(output) != size:
                raise ModelError(f"running the model on {where}: output {index} has the shape {tuple(output.shape)} "
                                 f"for {size} example(s); expected ({size}, ...): keep the batch axis")
        pieces.append(tuple(_array(output) for output in outputs))
    joined = tuple(np.concatenate(parts) for parts in zip(*pieces, strict=True))
    for index, array in enumerate(joined):
        if not np.isfinite(array).all():
            bad = int(np.argmin(np.isfinite(array).reshape(count, -1).all(axis=1)))
            raise ModelError(f"running the model on {where}: output {index} is not finite (input {bad})")
    return joined


def check_repeatable(network: Network, inputs: Mapping[str, Array], positional: bool,
                     outputs: tuple[Array, ...], name: str) -> None:
    """Run the first input alone and compare with what it gave among others.

    Raises ModelError for a network that is random or mixes the examples of a batch.
    """
    alone = _in_steps(network, {key: array[:1] for key, array in inputs.items()}, positional, "one input", 1)
    for index, (once, again) in enumerate(zip(outputs, alone, strict=True)):
        off = deviation(again, once[:1], once)
        if off > ALONE:
            raise ModelError(f"{name}: output {index} for the first calibration input changes by {off:.2g} of its "
                             "range when that input is run again, alone; the model must not be random and must "
                             "not mix the examples of a batch")


def deviation(got: Array, wanted: Array, scale: Array) -> float:
    """Return the largest difference of two arrays as a share of the range of `scale`."""
    reference = scale.astype(np.float64)
    span = float(reference.max() - reference.min()) or 1.0
    return float(np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max()) / span


def _array(tensor: torch.Tensor) -> Array:
    array: Array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array


def watched(seen: Callable[[Any, tuple[Any, ...], Any], None]) -> AbstractContextManager[Any]:
    """Return a context in which `seen(operator, arguments, result)` is called after every ATen operator."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call] # PyTorch's __init_subclass__ has no annotations
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            seen(func, args, result)
            return result

    context: AbstractContextManager[Any] = Watch()  # type: ignore[no-untyped-call] # nor has its __init__
    return context


def flatten(outputs: Any) -> tuple[torch.Tensor, ...]:
    """Return a network's outputs (a tensor, a sequence or a mapping) as a tuple of tensors.

    Raises ModelError for anything else.
    """
    import torch

    if isinstance(outputs, torch.Tensor):
        return (outputs,)
    values = list(outputs.values()) if isinstance(outputs, Mapping) else outputs
    if isinstance(values, (list, tuple)) and values and all(isinstance(v, torch.Tensor) for v in values):
        return tuple(values)
    inside = f" of {', '.join(type(v).__name__ for v in values)}" if isinstance(values, (list, tuple)) else ""
    raise ModelError(f"the model returns {type(outputs).__name__}{inside}; expected a tensor, or a tuple or a "
                     "mapping of tensors")
