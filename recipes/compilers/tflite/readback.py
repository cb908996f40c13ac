"""Read an artifact back: what was asked is what it contains, or the candidate is infeasible."""

from __future__ import annotations

from recipes.compilers.graph import Graph, Operator
from recipes.compilers.layers import LayerMap
from recipes.compilers.tflite.graph import read_graph
from search.candidate import Candidate
from search.errors import InfeasibleCandidate
from search.space import LayerConfig, Scheme

GIVEN = frozenset({"INT32", "INT64", "BOOL", "UINT8"})
"""Types that no quantisation makes: they come from the model's inputs."""
_INT = {8: "INT8", 4: "INT4", 2: "INT2", 16: "INT16"}


def check_asked(layers: LayerMap, candidate: Candidate, artifact: bytes, io: str = "float") -> None:
    """Compare the tensor types of every operator with the candidate's configuration.

    The quantiser keeps the order of operators and inserts QUANTIZE and DEQUANTIZE, so the n-th other
    operator of the artifact is the n-th of the float model.

    Raises:
        InfeasibleCandidate: naming the first layer that differs, with what was asked and found.
    """
    try:
        made = read_graph(artifact)
    except ValueError as error:
        raise InfeasibleCandidate(f"the quantiser made a broken file: {error}") from error
    kept = [op for op in made.operators if op.kind not in ("QUANTIZE", "DEQUANTIZE")]
    asked_kinds = [op.kind for op in layers.graph.operators]
    if [op.kind for op in kept] != asked_kinds:
        raise InfeasibleCandidate(f"the artifact has other operators than the float model: {len(kept)} instead "
                                  f"of {len(asked_kinds)}")
    for index, config in layers.operator_configs(candidate).items():
        float_op = layers.graph.operators[index]
        found = _executed(made, kept[index], layers.has_weights(float_op))
        asked = _asked(config, layers.has_weights(float_op))
        if found != asked:
            name = layers.layer_of.get(index, f"operator {index}")
            raise InfeasibleCandidate(f"layer {name} ({float_op.kind}): asked for {config.label} ({asked}), "
                                      f"the artifact has {found}")
    for port in (*made.inputs, *made.outputs):
        dtype = made.tensors[port.tensor].dtype
        original = next(layers.graph.tensors[p.tensor].dtype for p in (*layers.graph.inputs, *layers.graph.outputs)
                        if p.name == port.name)
        expected = "INT8" if io == "int8" and original == "FLOAT32" else original
        if dtype != expected:
            raise InfeasibleCandidate(f"port {port.name}: asked for {expected}, the artifact has {dtype}")


def _asked(config: LayerConfig, weighted: bool) -> str:
    activation = _INT[config.activation_bits] if config.scheme is Scheme.STATIC else "FLOAT32"
    if not weighted:
        return f"activations {activation}"
    if config.scheme is Scheme.FLOAT:
        weight = "FLOAT32" if config.weight_bits == 32 else "FLOAT16 dequantised"
    else:
        weight = _INT[config.weight_bits] + (" dequantised" if config.scheme is Scheme.WEIGHT_ONLY else "")
    return f"weights {weight}, activations {activation}"


def _executed(graph: Graph, op: Operator, weighted: bool) -> str:
    """Describe what an operator of the artifact reads and writes; indices and images of bytes do not count."""
    types = {graph.tensors[t].dtype for t in (*op.outputs, *graph.activations(op))} - GIVEN
    activation = "+".join(sorted(types)) or "FLOAT32"
    if not weighted:
        return f"activations {activation}"
    tensor = op.inputs[1]
    if graph.tensors[tensor].constant:
        weight = graph.tensors[tensor].dtype
    else:
        weight = f"{graph.tensors[graph.producer[tensor].inputs[0]].dtype} dequantised"
    return f"weights {weight}, activations {activation}"
