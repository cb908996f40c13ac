"""The simulated board: the real agent runs the real artifact; only the times come from a roofline.

So a crash, a rejection, NaN and the golden outputs are this machine's own, and what a search does with
latencies can be tried and tested without a board.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from device_farm.facts import BoardFacts
from profilers.measurement import Conditions, MeasureSettings
from profilers.runner import AgentRunner, MeasuredSession, Runner
from recipes.artifact import Artifact
from recipes.compilers.graph import Graph, Operator
from recipes.compilers.kinds import FOLLOWERS
from recipes.compilers.layers import macs
from recipes.compilers.tflite.graph import read_graph

UNPACKED_INT4 = "INT4 unpacked"
"""Weight-only int4: a float operator whose weights are dequantised in every run."""
_BITS = {"FLOAT32": 32, "FLOAT16": 16, "INT32": 32, "INT16": 16, "INT8": 8, "UINT8": 8, "BOOL": 8, "INT4": 4, "INT2": 2,
         UNPACKED_INT4: 4}
_WIDEST_BITS = 64


@dataclass(frozen=True, slots=True)
class Roofline:
    """A machine in numbers: an operator takes its arithmetic or its memory traffic, whichever is longer.

    Williams, Waterman and Patterson 2009, Roofline, doi:10.1145/1498765.1498785.
    """

    clock_hz: float
    cores: int
    bandwidth_bytes_s: float
    overhead_s: float
    """Of every operator."""
    macs_per_cycle: Mapping[tuple[str, str, str], float]
    """(operator, type of the weights, type of the activations) -> of one core."""
    reference_macs_per_cycle: float
    """Of every other combination: a kernel that nobody has optimised."""
    elements_per_cycle: Mapping[tuple[str, str], float]
    """(operator without weights, type of its input) -> of one core."""
    other_elements_per_cycle: float
    """Of every other operator that computes."""
    noise: float
    """Standard deviation of a run's logarithmic time."""

    def seconds(self, graph: Graph, threads: int = 1) -> float:
        """Return the time of one run, without noise."""
        return sum(self.operator_s(graph, op, threads) for op in graph.operators if graph.activations(op))

    def conversion_s(self, elements: int, threads: int = 1) -> float:
        """Return the time of quantising or dequantising so many float32 values."""
        cycles = elements / self._rate("QUANTIZE", "FLOAT32") / min(threads, self.cores)
        return max(cycles / self.clock_hz, 5 * elements / self.bandwidth_bytes_s) + self.overhead_s

    def operator_s(self, graph: Graph, op: Operator, threads: int = 1) -> float:
        """Return the time of one operator."""
        cycles = self._cycles(graph, op) / min(threads, self.cores)
        touched = (graph.tensors[t] for t in (*op.inputs, *op.outputs) if t >= 0)
        traffic_bytes = sum(t.elements * _BITS.get(t.dtype, _WIDEST_BITS) for t in touched) / 8
        return max(cycles / self.clock_hz, traffic_bytes / self.bandwidth_bytes_s) + self.overhead_s

    def _cycles(self, graph: Graph, op: Operator) -> float:
        given = graph.tensors[graph.activations(op)[0]]
        if count := macs(graph, op):
            weights = _weights_type(graph, op)
            kind = "CONV_2D" if op.kind == "TRANSPOSE_CONV" else op.kind
            rate = self.macs_per_cycle.get((kind, weights, given.dtype), self.reference_macs_per_cycle)
            dynamic = given.dtype == "FLOAT32" and weights in ("INT8", "INT4")
            return count / rate + (given.elements / self._rate("QUANTIZE", "FLOAT32") if dynamic else 0.0)
        if op.kind in FOLLOWERS:  # moves data: traffic alone
            return 0.0
        elements = max(given.elements, graph.tensors[op.outputs[0]].elements)
        return elements / self._rate(op.kind, given.dtype)

    def _rate(self, kind: str, dtype: str) -> float:
        return self.elements_per_cycle.get((kind, dtype), self.other_elements_per_cycle)


def _weights_type(graph: Graph, op: Operator) -> str:
    """Return the type that an operator multiplies with; the runtime unpacks int8 and float16 once, at loading."""
    tensor = op.inputs[1]
    writer = graph.producer.get(tensor)
    if writer is not None and graph.is_constant(tensor) and graph.tensors[writer.inputs[0]].dtype == "INT4":
        return UNPACKED_INT4
    return graph.tensors[tensor].dtype


_SLOW_IN_INT8 = ("SOFTMAX", "GELU", "LOGISTIC", "TANH", "RSQRT", "SQRT", "SQUARED_DIFFERENCE", "MEAN", "SUM", "DIV")

CORTEX_A72 = Roofline(
    clock_hz=1.5e9, cores=4, bandwidth_bytes_s=4e9, overhead_s=1e-6,
    macs_per_cycle={
        ("CONV_2D", "FLOAT32", "FLOAT32"): 2.0, ("CONV_2D", "INT8", "INT8"): 5.0, ("CONV_2D", "INT8", "FLOAT32"): 4.5,
        ("CONV_2D", "INT4", "INT8"): 1.5, ("CONV_2D", "INT4", "FLOAT32"): 1.35,
        ("CONV_2D", UNPACKED_INT4, "FLOAT32"): 0.65,
        ("DEPTHWISE_CONV_2D", "FLOAT32", "FLOAT32"): 1.0, ("DEPTHWISE_CONV_2D", "INT8", "INT8"): 2.5,
        ("DEPTHWISE_CONV_2D", "INT8", "FLOAT32"): 0.5,
        ("FULLY_CONNECTED", "FLOAT32", "FLOAT32"): 2.0, ("FULLY_CONNECTED", "INT8", "INT8"): 5.0,
        ("FULLY_CONNECTED", "INT8", "FLOAT32"): 4.5, ("FULLY_CONNECTED", "INT4", "INT8"): 5.0,
        ("FULLY_CONNECTED", "INT4", "FLOAT32"): 4.5, ("FULLY_CONNECTED", UNPACKED_INT4, "FLOAT32"): 0.65,
        ("BATCH_MATMUL", "FLOAT32", "FLOAT32"): 2.0, ("BATCH_MATMUL", "INT8", "INT8"): 0.8},
    reference_macs_per_cycle=0.1,
    elements_per_cycle={
        **{(kind, "FLOAT32"): 0.1 for kind in ("SOFTMAX", "GELU", "LOGISTIC", "TANH")},
        **{(kind, "INT8"): 0.03 for kind in _SLOW_IN_INT8},
        ("ADD", "INT8"): 2.0, ("SUB", "INT8"): 2.0, ("MUL", "INT8"): 2.0},
    other_elements_per_cycle=1.0, noise=0.01)
"""Constructed, not measured: a Cortex-A72 (Raspberry Pi 4) with one LPDDR4 channel, as LiteRT uses it.

Float32 and static int8 stand as 1 to 2.5, like MobileNet v1 on the Raspberry Pi 4 in XNNPACK's README of
February 2022 (72 and 29 ms), and below what the instructions allow: 3.8 multiply-accumulates a cycle in
float32 (fmla), 5.3 in int8 without dot products (smull, smlal, sadalp). What leaves XNNPACK stands to
int8 and float32 as measured with LiteRT 2.3 on x86-64: int4 convolutions 3.3 times slower than int8,
unpacked int4 3 times slower than float32, dynamic depthwise convolutions slower than float32, and softmax,
GELU and normalisation in int8 so slow that a fully static transformer loses to float32.
"""


OWN_KERNELS = replace(CORTEX_A72, macs_per_cycle={**CORTEX_A72.macs_per_cycle, **{
    (kind, "INT4", given): rate for (kind, weights, given), rate in CORTEX_A72.macs_per_cycle.items()
    if weights == "INT8"}})
"""The same with the compiler tvm: 4 bits compute as fast as 8. A prior alone; nothing is simulated with it."""


class SimulatedRunner:
    """Wraps a runner of this machine and replaces its times. Not shared between threads."""

    def __init__(self, runner: AgentRunner, roofline: Roofline = CORTEX_A72) -> None:
        self._runner, self._roofline = runner, roofline
        self._sessions: Counter[str] = Counter()
        self.runtimes: Mapping[str, str] = runner.runtimes
        self.warnings = runner.warnings

    @property
    def facts(self) -> BoardFacts:
        """What this machine is: it runs the artifacts."""
        return self._runner.facts

    def acquire(self, token: int, owner: str, series: str | None = None) -> None:
        """Take the lock as `AgentRunner.acquire` does. Raises BoardBusy."""
        self._runner.acquire(token, owner, series)

    def measure(self, artifact: Artifact, golden: Path, settings: MeasureSettings,
                runtime: str | None = None) -> MeasuredSession:
        """Run the golden inputs and once more, then write down simulated times, `min_runs` of them.

        The times depend on the artifact's bytes and on how often this runner has measured it already.

        Raises:
            InfeasibleCandidate, FarmError, ValueError: as `AgentRunner.measure`.
        """
        short = replace(settings, min_runs=1, max_runs=1, max_warmup_s=0.0)
        session = self._runner.measure(artifact, golden, short, runtime)
        seconds = self._roofline.seconds(read_graph(artifact.path), settings.threads)
        key = f"{artifact.sha256}:{settings.threads}:{self._sessions[artifact.sha256]}"
        self._sessions[artifact.sha256] += 1
        dice = np.random.default_rng(int(hashlib.sha256(key.encode()).hexdigest(), 16))
        drawn = seconds * np.exp(self._roofline.noise * dice.standard_normal(min(settings.min_runs, settings.max_runs)))
        wall_ns = tuple(round(value * 1e9) for value in drawn.tolist())
        cpu_ns = tuple(value * min(settings.threads, self._roofline.cores) for value in wall_ns)
        measured = replace(session.measurement, wall_ns=wall_ns, cpu_ns=cpu_ns, simulated=True,
                           conditions=Conditions())
        return MeasuredSession(measured, session.outputs)

    def run(self, artifact: Artifact, inputs: Path, outputs: Path, limit: int | None = None,
            runtime: str | None = None) -> None:
        """Run a file of examples as `AgentRunner.run` does."""
        self._runner.run(artifact, inputs, outputs, limit, runtime)

    def prefetch(self, artifact: Artifact, inputs: Path) -> None:
        """Push as `AgentRunner.prefetch` does."""
        self._runner.prefetch(artifact, inputs)

    def close(self) -> None:
        """End the agent; never raises."""
        self._runner.close()


if TYPE_CHECKING:

    def _conforms(runner: AgentRunner) -> Runner:
        return SimulatedRunner(runner)
