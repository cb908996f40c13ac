from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

from device_farm.errors import BoardBusy
from profilers.measurement import Measurement
from profilers.simulation import CORTEX_A72, SimulatedRunner
from recipes.artifact import Artifact
from recipes.compilers.tflite.graph import read_graph
from recipes.compilers.tflite.layers import map_layers
from recipes.compilers.tflite.quantise import Quantiser
from recipes.target import Target
from search.candidate import Candidate
from search.errors import InfeasibleCandidate
from search.space import LayerConfig
from tests.profilers.conftest import QUICK, WEIGHTS, Bench
from tests.profilers.tiny_model import dense, examples

SIDE, CHANNELS = 16, 32
MACS = SIDE * SIDE * CHANNELS * CHANNELS * 9
SPAN = np.full((1, 1, 1, 1), 5.0, np.float32)
Build = Callable[[str], Artifact]


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(4, SIDE, SIDE, CHANNELS)).astype(np.float32)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Return a function: label of a configuration -> a convolution's artifact, made by the real compiler."""
    model = convolution_model()
    layers = map_layers(read_graph(model), Target("x86_64", "litert", "2.3.0"))
    quantiser = Quantiser(model, {name: {"min": -SPAN, "max": SPAN} for name in "xy"}, layers)
    folder = tmp_path_factory.mktemp("convolutions")

    def built(label: str) -> Artifact:
        (layer,) = layers.space.layers
        path = folder / f"{label}.tflite"
        path.write_bytes(quantiser.quantise(Candidate.of(layers.space, {layer.name: LayerConfig.from_label(label)})))
        return Artifact.of(path)

    return built


@pytest.fixture
def board(bench: Bench) -> Iterator[SimulatedRunner]:
    runner = SimulatedRunner(bench.locked(board="sim", kind="sim"))
    yield runner
    runner.close()


def seconds(measured: Measurement) -> float:
    return float(np.median(measured.wall_ns)) * 1e-9


def test_formats_are_ordered_as_on_the_real_runtime(
        board: SimulatedRunner, build: Build, tmp_path: Path, images: NDArray[np.float32]) -> None:
    golden = examples(tmp_path, images)
    labels = ("static_w8a8", "dynamic_w8", "float32", "static_w4a8", "dynamic_w4", "weight_only_w4")
    times = [seconds(board.measure(build(label), golden, QUICK).measurement) for label in labels]
    assert times == sorted(times)
    assert seconds(board.measure(build("weight_only_w8"), golden, QUICK).measurement) == pytest.approx(times[2], 0.02)
    assert seconds(board.measure(build("fp16"), golden, QUICK).measurement) == pytest.approx(times[2], 0.02)


def test_a_float_convolution_takes_what_the_roofline_says(build: Build) -> None:
    once = CORTEX_A72.seconds(read_graph(build("float32").path))
    assert once == pytest.approx(MACS / 2.0 / 1.5e9 + 1e-6)
    starved = replace(CORTEX_A72, bandwidth_bytes_s=1e6)
    traffic_bytes = 4 * (2 * SIDE * SIDE * CHANNELS + 9 * CHANNELS * CHANNELS + CHANNELS)
    assert starved.seconds(read_graph(build("float32").path)) == pytest.approx(traffic_bytes / 1e6 + 1e-6)


def test_quantising_and_dequantising_cost_their_elements(build: Build) -> None:
    graph = read_graph(build("static_w8a8").path)
    assert [op.kind for op in graph.operators] == ["QUANTIZE", "CONV_2D", "DEQUANTIZE"]
    convolution, elements = MACS / 5.0 / 1.5e9, SIDE * SIDE * CHANNELS
    assert CORTEX_A72.seconds(graph) == pytest.approx(convolution + 2 * elements * (4 + 1) / 4e9 + 3e-6)
    fast = replace(CORTEX_A72, bandwidth_bytes_s=1e12)
    assert fast.seconds(graph) == pytest.approx(convolution + 2 * elements / 1.5e9 + 3e-6)


def test_threads_share_the_arithmetic_up_to_the_cores(build: Build) -> None:
    graph = read_graph(build("float32").path)
    one, four, eight = (CORTEX_A72.seconds(graph, threads) for threads in (1, 4, 8))
    assert four - 1e-6 == pytest.approx((one - 1e-6) / 4)
    assert eight == four


def test_sessions_are_noisy_and_the_same_in_every_run(
        bench: Bench, board: SimulatedRunner, artifact: Artifact, golden: Path) -> None:
    first, second = (board.measure(artifact, golden, QUICK).measurement for _ in range(2))
    assert len(first.wall_ns) == QUICK.min_runs
    assert first.wall_ns != second.wall_ns
    board.close()
    again = SimulatedRunner(bench.locked(board="sim", kind="sim"))
    other = dense(golden.parent, WEIGHTS + 1, "other")
    again.measure(other, golden, QUICK)
    assert [again.measure(artifact, golden, QUICK).measurement.wall_ns for _ in range(2)] \
        == [first.wall_ns, second.wall_ns]
    many = again.measure(artifact, golden, replace(QUICK, min_runs=500, max_runs=400)).measurement
    assert len(many.wall_ns) == 400
    assert math.isclose(float(np.std(np.log(many.wall_ns))), 0.01, rel_tol=0.15)
    again.close()


def test_a_measurement_says_that_it_is_simulated_and_keeps_the_real_outputs(
        bench: Bench, board: SimulatedRunner, build: Build, tmp_path: Path, images: NDArray[np.float32]) -> None:
    golden, artifact = examples(tmp_path, images), build("static_w8a8")
    session = board.measure(artifact, golden, QUICK)
    assert session.measurement.simulated
    assert session.measurement.warmup_runs == 1  # a simulated board spends no time on real samples
    assert (session.measurement.board, session.measurement.kind) == ("sim", "sim")
    assert board.runtimes == {"litert": session.measurement.runtime_version}
    board.run(artifact, golden, tmp_path / "outputs.npz")
    with np.load(tmp_path / "outputs.npz") as real:
        np.testing.assert_array_equal(session.outputs[0], real["o0"])
    assert session.outputs[0].shape == images.shape


def test_a_corrupt_artifact_is_really_rejected(
        board: SimulatedRunner, artifact: Artifact, tmp_path: Path, golden: Path) -> None:
    path = tmp_path / "corrupt.tflite"
    path.write_bytes(artifact.path.read_bytes()[:40])
    with pytest.raises(InfeasibleCandidate, match=r"corrupt\.tflite on sim \(local\): the runtime does not load"):
        board.measure(Artifact.of(path), golden, QUICK)


def test_nan_outputs_are_really_found(board: SimulatedRunner, tmp_path: Path, golden: Path) -> None:
    with pytest.raises(InfeasibleCandidate, match="output 0 holds NaN"):
        board.measure(dense(tmp_path, np.full_like(WEIGHTS, np.nan)), golden, QUICK)


def test_the_lock_is_real(bench: Bench, board: SimulatedRunner) -> None:
    rival = SimulatedRunner(bench.runner(board="sim", kind="sim"))
    with pytest.raises(BoardBusy):
        rival.acquire(2, "a rival", "another store")
    rival.close()


def convolution_model() -> bytes:
    """Return a float model of one 3x3 convolution, (1, SIDE, SIDE, CHANNELS) -> the same shape."""
    dice = np.random.default_rng(1)
    weights = dice.normal(size=(CHANNELS, 3, 3, CHANNELS)).astype(np.float32) / 16
    buffers = [schema.BufferT() for _ in range(3)]
    buffers[1].data = np.frombuffer(weights.tobytes(), np.uint8)
    buffers[2].data = np.frombuffer(np.zeros(CHANNELS, np.float32).tobytes(), np.uint8)
    graph = schema.SubGraphT()
    image = (1, SIDE, SIDE, CHANNELS)
    graph.tensors = [tensor(b"x", image, 0), tensor(b"w", weights.shape, 1), tensor(b"b", (CHANNELS,), 2),
                     tensor(b"y", image, 0)]
    graph.inputs, graph.outputs = [0], [3]
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, 2], [3]
    operator.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
    options = operator.builtinOptions = schema.Conv2DOptionsT()
    options.padding, options.strideH, options.strideW = schema.Padding.SAME, 1, 1
    options.dilationHFactor = options.dilationWFactor = 1
    graph.operators = [operator]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    code.version = 1
    signature = schema.SignatureDefT()
    signature.inputs, signature.outputs = [port(b"x", 0)], [port(b"y", 3)]
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    model = schema.ModelT()
    model.signatureDefs = [signature]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], buffers
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def tensor(name: bytes, shape: tuple[int, ...], buffer: int) -> Any:
    made = schema.TensorT()
    made.name, made.shape, made.type, made.buffer = name, list(shape), schema.TensorType.FLOAT32, buffer
    return made


def port(name: bytes, index: int) -> Any:
    made = schema.TensorMapT()
    made.name, made.tensorIndex = name, index
    return made
