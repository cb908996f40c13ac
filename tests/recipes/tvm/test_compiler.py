"""The compiler tvm on the demo networks: what it computes, what it may choose, and that it does what was asked."""

from __future__ import annotations

import hashlib
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipes.blobs import BlobStore
from recipes.compilers.compare import worst_output
from recipes.compilers.layers import LayerMap
from recipes.compilers.tflite.compiler import TfliteCompiler
from recipes.compilers.tvm import link
from recipes.compilers.tvm.compiler import TvmCompiler
from recipes.compilers.tvm.host import host_target
from recipes.compilers.tvm.legal import STATIC_2, STATIC_4, STATIC_8
from recipes.compilers.tvm.network import FloatNetwork, read_network
from recipes.compilers.tvm.readback import calls, check_asked
from recipes.compilers.tvm.run import Runner
from recipes.errors import ModelError
from recipes.models.dataset import Dataset, load_data
from recipes.models.network import Network, load_network, run
from recipes.models.source import parse_data, parse_model
from recipes.ports import Array, Ports
from recipes.target import Target
from search.candidate import Candidate
from search.errors import InfeasibleCandidate
from search.space import FLOAT32, Calibration, LayerConfig
from tests.recipes.conversion_cases import TARGET as LITERT

NETWORKS = ("residual", "separable", "transformer")
HOST = host_target("test")
COMPILER = TvmCompiler()


@cache
def images() -> Dataset:
    return load_data(parse_data("demo:fashion_mnist", Path()))


@dataclass(frozen=True)
class Converted:
    network: Network
    model: bytes
    ports: Ports
    statistics: bytes

    @property
    def layers(self) -> LayerMap:
        return COMPILER.layers(self.model, HOST)

    @property
    def found(self) -> FloatNetwork:
        return read_network(self.model)

    def candidate(self, config: LayerConfig, calibration: Calibration = Calibration.MIN_MAX) -> Candidate:
        space = self.layers.space
        return Candidate.of(space, {layer.name: layer.widen(config) for layer in space.layers},
                            calibration=calibration)

    def artifact(self, candidate: Candidate, statistics: bytes | None = None) -> bytes:
        return COMPILER.quantiser(self.model, statistics or self.statistics, self.layers, HOST).quantise(candidate)

    def top1(self, artifact: bytes, count: int) -> float:
        split = images().splits["validation"]
        assert split.targets is not None
        runner = Runner(artifact, self.ports)
        hits = [runner.run(split.inputs, i)[0].argmax() == split.targets[i] for i in range(count)]
        return float(np.mean(hits))


@cache
def converted(name: str) -> Converted:
    network = load_network(parse_model(f"demo:{name}", Path()))
    inputs = images().splits["calibration"].inputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's exporter uses what PyTorch advises against
        model, ports = COMPILER.convert(network, {key: array[:1] for key, array in inputs.items()},
                                        images().positional)
    return Converted(network, model, ports, COMPILER.calibrate(model, ports, inputs))


@pytest.mark.parametrize("name", NETWORKS)
class TestEveryNetwork:
    def test_the_float_model_computes_what_pytorch_does(self, name: str) -> None:
        made, inputs = converted(name), images().splits["validation"].inputs
        expected = run(made.network, {key: array[:16] for key, array in inputs.items()}, images().positional, "test")
        assert worst_output(expected, COMPILER.outputs(made.model, made.ports, inputs, 16)).deviation < 1e-5

    def test_the_same_network_gives_the_same_bytes(self, name: str) -> None:
        made, inputs = converted(name), images().splits["calibration"].inputs
        again = load_network(parse_model(f"demo:{name}", Path()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, _ = COMPILER.convert(again, {key: array[:1] for key, array in inputs.items()}, images().positional)
        assert model == made.model
        candidate = made.candidate(STATIC_8)
        digests = {hashlib.sha256(made.artifact(candidate)).hexdigest() for _ in range(2)}
        assert len(digests) == 1

    def test_eight_bits_lose_little_and_four_a_little_more(self, name: str) -> None:
        made, count = converted(name), 500
        artifacts = [made.artifact(made.candidate(config)) for config in (FLOAT32, STATIC_8, STATIC_4)]
        float32, int8, int4 = (made.top1(artifact, count) for artifact in artifacts)
        assert float32 > 0.85
        assert int8 > float32 - 0.012
        assert int4 > float32 - 0.03
        assert len(artifacts[2]) < len(artifacts[1]) < len(artifacts[0])

    def test_every_layer_can_be_the_only_one_in_integers(self, name: str) -> None:
        made = converted(name)
        space = made.layers.space
        inputs = images().splits["validation"].inputs
        (reference,) = Runner(made.artifact(made.candidate(FLOAT32)), made.ports).run(inputs, 3)
        for layer in space.layers[:: max(1, len(space.layers) // 4)]:
            configs = {other.name: FLOAT32 for other in space.layers} | {layer.name: STATIC_8}
            artifact = made.artifact(Candidate.of(space, configs))
            (found,) = Runner(artifact, made.ports).run(inputs, 3)
            off = np.abs(found - reference).max() / np.ptp(reference)
            assert 0 < off < 0.05, layer.name
            assert sum("w8a8" in name or "add_int8" in name for name in calls(artifact)) == len(
                made.layers.operators[layer.name])


@pytest.mark.parametrize("name", ["residual", "transformer"])
def test_layers_with_weights_have_the_names_that_tflite_gives_them(name: str) -> None:
    made, inputs = converted(name), images().splits["calibration"].inputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, _ = TfliteCompiler().convert(made.network, {key: array[:1] for key, array in inputs.items()},
                                             images().positional)
    spaces = made.layers.space, TfliteCompiler().layers(theirs, LITERT).space
    ours, others = ({(layer.name, layer.weights, layer.macs) for layer in space.layers if layer.weights}
                    for space in spaces)
    assert ours == others


def test_depthwise_weights_take_fewer_bits_too() -> None:
    made = converted("separable")
    sizes = []
    for config in (STATIC_8, STATIC_4, STATIC_2):
        formats = {layer.name: config if layer.kind == "DEPTHWISE_CONV_2D" else STATIC_8
                   for layer in made.layers.space.layers}
        artifact = made.artifact(Candidate.of(made.layers.space, formats))
        deep = [name for name in calls(artifact) if name.startswith("depthwise")]
        assert deep and all(f"_w{config.weight_bits}a8_" in name for name in deep)
        assert made.top1(artifact, 300) > (0.85 if config.weight_bits > 2 else 0.3), "chance is 0.1"
        weights = sum(piece.weighted.weight.size for piece in made.found.pieces
                      if piece.operator.kind == "DEPTHWISE_CONV_2D" and piece.weighted is not None)
        sizes.append(len(artifact))
    assert sizes[0] - sizes[1] > 0.3 * weights, "half of a byte each, less what unpacks them"


def test_a_library_that_calls_other_kernels_is_infeasible() -> None:
    made = converted("residual")
    artifact = made.artifact(made.candidate(FLOAT32))
    with pytest.raises(InfeasibleCandidate, match=r"layer stem\.0 \(CONV_2D\): asked for conv_2d_w8a8, the artifact "
                                                  "calls conv_2d_float32"):
        check_asked(made.found, made.layers, made.candidate(STATIC_8), artifact)


def test_a_kernel_is_compiled_once_for_all_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, real, compiled = converted("separable"), link._compiled, list[str]()

    def noted(name: str, make: Callable[[], Any], target: Target) -> bytes:
        compiled.append(name)
        return real(name, make, target)

    monkeypatch.setattr(link, "_compiled", noted)
    quantiser = COMPILER.quantiser(made.model, made.statistics, made.layers, HOST, BlobStore(tmp_path))
    every = {made.candidate(FLOAT32): quantiser.quantise(made.candidate(FLOAT32))}
    every[made.candidate(STATIC_8)] = quantiser.quantise(made.candidate(STATIC_8))
    known = list(compiled)
    assert len(known) == len(set(known))
    names = [layer.name for layer in made.layers.space.layers]
    mixed = Candidate.of(made.layers.space, {name: STATIC_8 if i > 2 else FLOAT32 for i, name in enumerate(names)})
    every[mixed] = quantiser.quantise(mixed)
    assert [name for name in compiled[len(known):] if "quantise" not in name] == [], "conversions may be new"
    assert len(known) < 2 * sum(layer.weights > 0 for layer in made.layers.space.layers), "equal shapes share one"
    for candidate, artifact in every.items():
        assert made.artifact(candidate) == artifact, "compiled again it is the same"


def test_ranges_that_clip_are_narrower_and_other_bytes() -> None:
    made, inputs = converted("separable"), images().splits["calibration"].inputs
    clipped = COMPILER.clip(made.model, made.ports, inputs, made.statistics)
    plain = made.artifact(made.candidate(STATIC_8))
    for method in (Calibration.PERCENTILE, Calibration.MSE):
        assert len(clipped[method]) > 100
        assert made.artifact(made.candidate(STATIC_8, method), clipped[method]) != plain
    assert made.top1(made.artifact(made.candidate(STATIC_8, Calibration.MSE), clipped[Calibration.MSE]), 300) > 0.85


def small(module: Any, shape: tuple[int, ...]) -> tuple[Any, bytes, Ports, dict[str, Array]]:
    """Convert a network, with 16 random inputs."""
    inputs: dict[str, Array] = {"x": np.random.default_rng(0).normal(size=(16, *shape)).astype(np.float32)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, ports = COMPILER.convert(Network(module.eval()), {"x": inputs["x"][:1]}, True)
    return module, model, ports, inputs


def int8_of(module: Any, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return what a network and its uniform int8 artifact compute."""
    import torch

    module, model, ports, inputs = small(module, shape)
    layers = COMPILER.layers(model, HOST)
    candidate = Candidate.of(layers.space, {layer.name: layer.widen(STATIC_8) for layer in layers.space.layers})
    artifact = COMPILER.quantiser(model, COMPILER.calibrate(model, ports, inputs), layers, HOST).quantise(candidate)
    runner = Runner(artifact, ports)
    found = ports.decode({"o0": np.concatenate([runner.run(inputs, i)[0] for i in range(16)])})[0]
    with torch.no_grad():
        return np.asarray(module(torch.from_numpy(inputs["x"])).numpy()), found


def test_what_clips_is_computed_with_the_layer_before_it() -> None:
    from torch import nn

    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU6(), nn.Conv2d(8, 8, 3), nn.Hardtanh(-0.5, 0.25))
    pieces = read_network(small(network, (3, 9, 9))[1]).pieces
    assert [piece.limits for piece in pieces if piece.weighted is not None] == [(0, 6), (-0.5, 0.25)]
    assert not {"MAXIMUM", "MINIMUM", "CLIP"} & {piece.operator.kind for piece in pieces}
    expected, found = int8_of(network, (3, 9, 9))
    assert (expected.min(), expected.max()) == (-0.5, 0.25), "it clips"
    assert np.abs(found - expected).max() < 0.02


@pytest.mark.parametrize("name", ["maximum", "average", "attention"])
def test_other_networks_are_converted(name: str) -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2) if name == "maximum" else nn.AvgPool2d(2)]
    pooled = nn.Sequential(*layers, nn.Flatten(), nn.Linear(864, 10))
    encoder = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
    module, shape = (encoder, (12, 32)) if name == "attention" else (pooled, (1, 28, 28))
    expected, found = int8_of(module, shape)
    assert np.abs(found - expected).max() < 0.03 * np.ptp(expected)


def test_a_bias_that_dwarfs_its_weights_is_kept() -> None:
    import torch
    from torch import nn

    layer = nn.Linear(8, 4)
    with torch.no_grad():
        layer.weight[:2] *= 0
        layer.weight[2] *= 1e-9
        layer.bias.copy_(torch.tensor([1.0, -2.0, 0.5, 0.1]))
    expected, found = int8_of(layer, (8,))
    assert np.abs(found - expected).max() < 0.02


def test_a_sum_that_would_not_fit_32_bits_is_refused_with_its_layer() -> None:
    from torch import nn

    with pytest.raises(InfeasibleCandidate, match="FULLY_CONNECTED of wide: each output sums 40,000 products; 32"):
        int8_of(nn.Sequential(OrderedDict(wide=nn.Linear(40_000, 2))), (40_000,))


def test_one_bit_is_offered_only_where_it_is_asked_for_and_computes_what_the_papers_say() -> None:
    import torch

    from recipes.compilers.tvm.legal import STATIC_1

    torch.manual_seed(0)
    layer = torch.nn.Linear(70, 33)
    inputs: dict[str, Array] = {"x": np.random.default_rng(0).normal(0.3, 1, (32, 70)).astype(np.float32)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, ports = COMPILER.convert(Network(layer.eval()), {"x": inputs["x"][:1]}, True)
    assert STATIC_1 not in COMPILER.layers(model, HOST).space.layers[0].choices
    compiler = TvmCompiler(signs=True)
    layers = compiler.layers(model, HOST)
    candidate = Candidate.of(layers.space, {each.name: STATIC_1 for each in layers.space.layers})
    statistics = compiler.calibrate(model, ports, inputs)
    runner = Runner(compiler.quantiser(model, statistics, layers, HOST).quantise(candidate), ports)
    found = np.concatenate([runner.run(inputs, i)[0] for i in range(32)])
    x, weight, bias = inputs["x"], layer.weight.detach().numpy(), layer.bias.detach().numpy()
    low, high = float(x.min()), float(x.max())
    x = np.where(x >= (low + high) / 2, low + 0.75 * (high - low), low + 0.25 * (high - low))
    expected = x @ (np.where(weight > 0, 1, -1) * np.abs(weight).mean(axis=1, keepdims=True)).T + bias
    float32 = inputs["x"] @ weight.T + bias
    step = (max(float32.max(), 0) - min(float32.min(), 0)) / 255
    kept = np.clip(expected, float32.min(), float32.max())
    near = np.abs(found - kept) <= 0.51 * step
    assert near.mean() > 0.9, "but for inputs within half a step of the middle"


def test_integer_inputs_and_outputs_are_refused() -> None:
    made = converted("residual")
    quantiser = COMPILER.quantiser(made.model, made.statistics, made.layers, HOST)
    with pytest.raises(InfeasibleCandidate, match="float inputs and outputs, not int8"):
        quantiser.quantise(made.candidate(STATIC_8), "int8")


def test_a_machine_that_tvm_makes_no_code_for_is_named() -> None:
    made = converted("residual")
    quantiser = COMPILER.quantiser(made.model, made.statistics, made.layers, replace(HOST, machine="armv7l"))
    with pytest.raises(ValueError, match="x86_64 and aarch64, not for armv7l"):
        quantiser.quantise(made.candidate(FLOAT32))


def test_an_operator_that_tvm_does_not_know_is_named_with_its_layer() -> None:
    import torch

    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = torch.special.bessel_j0(x)
            return found

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.odd = torch.nn.Linear(4, 4), Odd()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.odd(self.first(x))
            return found

    given: dict[str, Array] = {"x": np.zeros((1, 4), np.float32)}
    named = r"TVM cannot import special_bessel_j0 \(layer odd\)"
    with warnings.catch_warnings(), pytest.raises(ModelError, match=named):
        warnings.simplefilter("ignore")
        COMPILER.convert(Network(Net().eval()), given, True)


def test_what_is_no_float_model_is_refused() -> None:
    for data in (b"TFL3", b"{}", b'{"schema": 99}'):
        with pytest.raises(ValueError, match="float model of the compiler tvm"):
            COMPILER.graph(data)
