"""Kernels of the compiler tvm on an emulated aarch64 board: cross-compiled here, exact there, never how fast."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from device_farm.inventory import add_board
from orchestrator import wiring
from profilers.refusals import ArtifactDied
from profilers.runner import AgentRunner
from recipes.artifact import Artifact
from recipes.compilers.tvm.compiler import TvmCompiler
from recipes.compilers.tvm.legal import FLOAT16, STATIC_2, STATIC_4, STATIC_8
from recipes.compilers.tvm.run import Runner
from recipes.models.network import Network
from recipes.target import Target
from search.candidate import Candidate
from search.space import FLOAT32, LayerConfig
from tests.aarch64.emulated import USER, EmulatedBoard, missing, running_board
from tests.aarch64.test_aarch64 import Desk
from tests.recipes.tvm.test_compiler import Converted, converted, images

pytestmark = pytest.mark.boards

COMPILER = TvmCompiler()
PI_4 = ("asimd", "cpuid", "crc32", "evtstrm", "fp")
PI_5 = (*PI_4, "asimddp", "asimdhp", "fphp")
"""Features as their kernels print them (Cortex-A72, Cortex-A76): constructed."""
EXAMPLES = 4


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedBoard]:
    if (reason := missing()) is not None:
        pytest.exit(reason, returncode=1)
    with running_board(tmp_path_factory.mktemp("board")) as running:
        yield running


@dataclass(frozen=True)
class Processor:
    """A board that has such a processor, and a way to run artifacts there."""

    runner: AgentRunner
    features: tuple[str, ...]

    @property
    def target(self) -> Target:
        return Target("aarch64", "tvm", "0.26.0", self.features)

    def outputs(self, artifact: bytes, given: Converted, folder: Path,
                data: Mapping[str, Any] | None = None) -> np.ndarray[Any, Any]:
        """Return what the board computes for some images, or for other data."""
        model, inputs, outputs = folder / "model.so", folder / "inputs.npz", folder / "outputs.npz"
        model.write_bytes(artifact)
        images_ = {name: array[:EXAMPLES] for name, array in images().splits["calibration"].inputs.items()}
        encoded: dict[str, Any] = dict(given.ports.encode(data or images_))
        np.savez(inputs, **encoded)
        self.runner.run(Artifact.of(model), inputs, outputs)
        with np.load(outputs) as arrays:
            return np.asarray(arrays["o0"])


@pytest.fixture(scope="module")
def desk(board: EmulatedBoard, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk.document("devices", "add", "pi-a", "--host", "127.0.0.1", "--port", str(board.port), "--user", USER,
                  "--identity-file", str(board.identity_file), "--kind", "rpi4", "--yes")
    entry = desk.entry().model_copy(update={"shares_host": "allowed", "env": {"QEMU_CPU": "cortex-a72"}})
    add_board(desk.folder / "inventory.yaml", entry, replace=True)
    done = desk.document("devices", "setup", "pi-a", "--compiler", "tvm")
    assert done["folder"].endswith("/runtimes/tvm-0.26.0")
    return desk


@pytest.fixture(scope="module", params=["cortex-a72", "cortex-a76"])
def processor(desk: Desk, request: pytest.FixtureRequest) -> Iterator[Processor]:
    entry = desk.entry().model_copy(update={"env": {"QEMU_CPU": request.param}})
    runner = wiring.connector(entry, desk.folder / ".orchestrator", wiring.agent_file(desk.folder), [COMPILER])()
    assert isinstance(runner, AgentRunner)
    runner.acquire(1_000_000_000 + len(request.param), "tests")
    yield Processor(runner, {"cortex-a72": PI_4, "cortex-a76": PI_5}[request.param])
    runner.close()


def uniform(given: Converted, config: LayerConfig) -> Candidate:
    space = given.layers.space
    return Candidate.of(space, {layer.name: layer.widen(config) for layer in space.layers})


def built(given: Converted, candidate: Candidate, target: Target) -> bytes:
    layers = COMPILER.layers(given.model, target)
    return COMPILER.quantiser(given.model, given.statistics, layers, target).quantise(candidate)


def made_of(network: torch.nn.Module, inputs: Mapping[str, Any]) -> Converted:
    """Convert a network, with the ranges of these inputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's exporter uses what PyTorch advises against
        model, ports = COMPILER.convert(Network(network.eval()), {"x": inputs["x"][:1]}, True)
    return Converted(Network(network), model, ports, COMPILER.calibrate(model, ports, inputs))


def here_and_there(given: Converted, config: LayerConfig, processor: Processor, inputs: Mapping[str, Any],
                   folder: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return what a network computes on this machine, and on the board."""
    candidate, here = uniform(given, config), COMPILER.host_target(processor.target)
    local = Runner(built(given, candidate, here), given.ports)
    expected = np.stack([local.run(inputs, example)[0] for example in range(len(inputs["x"]))])
    found = processor.outputs(built(given, candidate, processor.target), given, folder, inputs)
    return expected, found.reshape(expected.shape)


def test_a_search_ends_with_a_recipe_for_that_board(desk: Desk) -> None:
    """The first test: those below hold the board's lock."""
    document = desk.document("search", "--device", "rpi4", "--model", "demo:separable", "--compiler", "tvm",
                             "--budget", "100x", "--size-budget", "0.8x", "--study", "t", "--measurements", "5",
                             "--baselines", "needed")
    assert document["runtime"] == {"name": "tvm", "version": "0.26.0"}
    assert (document["goal_met"], document["infeasible"]) == (True, [])
    assert document["winner"]["accuracy"]["test"] > 0.8
    desk.document("recipes", "export", "--study", "t", "--output", "recipe")
    assert desk.document("recipes", "verify", "recipe")["ok"] is True
    head = (desk.folder / "recipe" / "model.so").read_bytes()[:20]
    assert (head[:4], head[18]) == (b"\x7fELF", 183), "ELF for EM_AARCH64"


@pytest.mark.parametrize("name", ["residual", "separable", "transformer"])
@pytest.mark.parametrize("config", [STATIC_8, STATIC_4, STATIC_2, FLOAT32], ids=lambda config: config.label)
def test_a_network_computes_there_what_it_computes_here(processor: Processor, name: str, config: LayerConfig,
                                                       tmp_path: Path) -> None:
    given = converted(name)
    candidate, here = uniform(given, config), COMPILER.host_target(processor.target)
    assert here.machine != "aarch64"
    local = Runner(built(given, candidate, here), given.ports)
    split = images().splits["calibration"].inputs
    expected = np.stack([local.run(split, example)[0] for example in range(EXAMPLES)])
    found = processor.outputs(built(given, candidate, processor.target), given, tmp_path)
    assert float(np.abs(found.reshape(expected.shape) - expected).max() / np.ptp(expected)) < 1e-5
    assert np.ptp(found) > 0


@pytest.mark.parametrize("config", [STATIC_8, STATIC_4, STATIC_2], ids=lambda config: config.label)
def test_the_greatest_sums_are_exact(processor: Processor, config: LayerConfig, tmp_path: Path) -> None:
    """All products of an output have one sign, and both factors are as great as they can be: -128 and 127."""
    layer, signs = torch.nn.Linear(64, 16), np.random.default_rng(0).choice([-1.0, 1.0], (16, 64)).astype(np.float32)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(signs))
        layer.bias.zero_()
    inputs = {"x": np.concatenate([np.sign(signs), -np.sign(signs)])}
    expected, found = here_and_there(made_of(layer, inputs), config, processor, inputs, tmp_path)
    assert np.array_equal(found, expected)
    assert np.abs(expected).max() == pytest.approx(64, rel=0.02)


@pytest.mark.parametrize("config", [STATIC_8, STATIC_4, STATIC_2, FLOAT32], ids=lambda config: config.label)
def test_any_number_of_channels(processor: Processor, config: LayerConfig, tmp_path: Path) -> None:
    """A load of 16 bytes is four factors of four channels: some of these channels fill it, some half, some not."""
    torch.manual_seed(1)
    sizes = (3, 16, 24, 20, 33, 64, 8, 5)
    layers = [torch.nn.Conv2d(given, made, 1 + number % 3, 1 + number % 2, number % 2)
              for number, (given, made) in enumerate(pairwise(sizes))]
    network = torch.nn.Sequential(*(step for layer in layers for step in (layer, torch.nn.ReLU())),
                                  torch.nn.Flatten(), torch.nn.LazyLinear(7))
    inputs = {"x": np.random.default_rng(1).normal(size=(EXAMPLES, 3, 41, 41)).astype(np.float32)}
    network(torch.from_numpy(inputs["x"]))
    expected, found = here_and_there(made_of(network, inputs), config, processor, inputs, tmp_path)
    assert float(np.abs(found - expected).max() / np.ptp(expected)) < (1e-5 if config == FLOAT32 else 1e-7)
    assert np.ptp(expected) > 0


@pytest.mark.parametrize("name", ["residual", "separable", "transformer"])
def test_float16_is_offered_where_it_is_computed_and_this_machine_rounds_as_it_does(
        processor: Processor, name: str, tmp_path: Path) -> None:
    given = converted(name)
    offered = any(FLOAT16 in layer.choices for layer in COMPILER.layers(given.model, processor.target).space.layers)
    assert offered == (processor.features == PI_5)
    if not offered:
        return
    here = COMPILER.host_target(processor.target)
    space = COMPILER.layers(given.model, here).space
    assert space == COMPILER.layers(given.model, processor.target).space
    candidate = Candidate.of(space, {layer.name: layer.widen(FLOAT16) for layer in space.layers})
    local, split = Runner(built(given, candidate, here), given.ports), images().splits["calibration"].inputs
    expected = np.stack([local.run(split, example)[0] for example in range(EXAMPLES)])
    found = processor.outputs(built(given, candidate, processor.target), given, tmp_path)
    off = float(np.abs(found.reshape(expected.shape) - expected).max() / np.ptp(expected))
    float32 = Runner(built(given, uniform(given, FLOAT32), here), given.ports)
    plain = np.stack([float32.run(split, example)[0] for example in range(EXAMPLES)])
    lost = float(np.abs(expected - plain).max() / np.ptp(plain))
    assert 0 < lost < 5e-3
    assert off < 1e-3 if name == "transformer" else off == 0, "layers in float32 add up in another order there"


def test_code_for_another_processor_is_the_candidates_fault(processor: Processor, tmp_path: Path) -> None:
    """Only a wrong description of a board could bring it there: code is made for what a board says that it has."""
    given, newer = converted("residual"), Target("aarch64", "tvm", "0.26.0", PI_5)
    artifact = built(given, uniform(given, STATIC_8), newer)
    if processor.features == PI_5:
        assert np.ptp(processor.outputs(artifact, given, tmp_path)) > 0
        return
    with pytest.raises(ArtifactDied, match="SIGILL"):
        processor.outputs(artifact, given, tmp_path)
    assert np.ptp(processor.outputs(built(given, uniform(given, STATIC_8), processor.target), given, tmp_path)) > 0
