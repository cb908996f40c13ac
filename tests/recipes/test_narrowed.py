"""The build chain of a narrowed candidate: each step once, the same bytes everywhere, and what can go wrong."""

from __future__ import annotations

import json
import multiprocessing
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipes.blobs import BlobStore
from recipes.compilers.build import BuildInputs, _check_layers, build
from recipes.compilers.grouped import with_groups
from recipes.compilers.layers import LayerMap
from recipes.compilers.tflite.compiler import TfliteCompiler
from recipes.compilers.tflite.graph import read_graph
from recipes.compilers.tflite.layers import map_layers
from recipes.compress.groups import Axis, ChannelGroup, Member, Plan
from recipes.compress.planning import PruneSettings, plan_pruning
from recipes.errors import ModelError
from recipes.models.prepare import Prepared
from recipes.models.source import parse_data, parse_model
from recipes.steps import FOLDER, run_step
from recipes.target import Target
from search.candidate import Candidate, Recovery
from search.errors import InfeasibleCandidate
from search.recipes import uniform
from search.space import FLOAT32

TARGET = Target("x86_64", "litert", version("ai-edge-litert"), ())
NET = '''
import torch
from recipes.demo import networks

class Mine(networks.Separable):
    pass

def make():
    net = Mine()
    net.load_state_dict(networks.separable().state_dict())
    return net.eval()
'''


@dataclass(frozen=True)
class Made:
    """A prepared network of a user's, and what builds its candidates."""

    folder: Path
    prepared: Prepared
    layers: LayerMap
    inputs: BuildInputs

    def candidate(self, name: str, width: int, recovery: Recovery | None = None) -> Candidate:
        named = uniform(self.layers.space, name, 1)
        assert not isinstance(named, str)
        widths = {group.name: width for group in self.layers.space.groups}
        return Candidate.of(self.layers.space, named.candidate.config_of, 1, widths, recovery)

    def steps(self) -> set[str]:
        return {file.name for file in (self.folder / "blobs" / FOLDER).rglob("*.json")}


def quiet(task: Any, *arguments: Any) -> Any:
    """Run in a process of its own: the converter warns and prints."""
    warnings.simplefilter("ignore")
    return task(*arguments)


def prepare_mine(folder: Path) -> Prepared:
    from recipes.models.prepare import prepare

    return prepare(TfliteCompiler(), parse_model("net.py:make", folder), parse_data("demo:fashion_mnist", folder),
                   folder / "blobs", PruneSettings("magnitude", 0))


def both_calibrations(blobs: Path, model: str, statistics: str, split: str) -> tuple[str, str]:
    """Return our statistics and those that the quantiser's calibrator finds on all inputs, as JSON."""
    from ai_edge_quantizer import calibrator, recipe, recipe_manager
    from ai_edge_quantizer.utils import calibration_utils, qsv_utils

    from recipes.models.dataset import Split

    store = BlobStore(blobs)
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipe.static_wi8_ai8())
    collector = calibrator.Calibrator(store.path(model).read_bytes(), num_threads=1,
                                      qsv_update_func=qsv_utils.min_max_update)
    pictures = np.moveaxis(Split.from_bytes(store.path(split).read_bytes()).inputs["input"], 1, -1)
    collector.calibrate({None: [{"args_0": picture[None]} for picture in pictures]}, manager)
    ours = json.loads(store.path(statistics).read_bytes())["model_qsvs"]
    theirs = json.dumps(collector.get_model_qsvs(), cls=calibration_utils.NumpyEncoder, sort_keys=True)
    return json.dumps(ours, sort_keys=True), theirs


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as found:
        yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pool: ProcessPoolExecutor) -> Made:
    folder = tmp_path_factory.mktemp("narrowed")
    (folder / "blobs").mkdir()
    (folder / "net.py").write_text(NET)
    prepared: Prepared = pool.submit(quiet, prepare_mine, folder).result()
    assert prepared.plan is not None
    blobs = BlobStore(folder / "blobs")
    layers = with_groups(map_layers(read_graph(blobs.path(prepared.float_model)), TARGET),
                         Plan.from_bytes(blobs.path(prepared.plan).read_bytes())).layers
    inputs = BuildInputs(TfliteCompiler(), folder / "blobs", prepared.float_model, prepared.statistics, prepared.ports,
                         prepared.splits["calibration"], TARGET, "float", prepared.pruning)
    return Made(folder, prepared, layers, inputs)


def test_two_workers_that_need_the_same_steps_build_the_same_and_one_does_the_work(
        made: Made, pool: ProcessPoolExecutor) -> None:
    before = made.steps()
    waiting: list[Future[Any]] = [pool.submit(quiet, build, made.inputs, made.candidate(name, 32))
                                  for name in ("int8", "int8", "dynamic_int8")]
    one, two, other = (future.result() for future in waiting)
    assert one.artifact.sha256 == two.artifact.sha256 != other.artifact.sha256
    assert one.float_model == two.float_model == other.float_model
    assert [step.name for step in one.steps] == ["recover", "convert", "calibrate"]
    assert len(made.steps() - before) == 3


def test_a_narrowed_model_has_the_layers_of_the_whole_one_and_half_their_channels(
        made: Made, pool: ProcessPoolExecutor) -> None:
    built = pool.submit(quiet, build, made.inputs, made.candidate("float32", 32)).result()
    narrowed = map_layers(read_graph(built.artifact.path), TARGET)
    assert [x.name for x in narrowed.space.layers] == [x.name for x in made.layers.space.layers]
    whole = made.layers.space.by_name
    assert narrowed.space.by_name["blocks.1.pointwise.0"].weights * 4 == whole["blocks.1.pointwise.0"].weights
    assert narrowed.space.by_name["blocks.1.depthwise.0"].weights * 2 == whole["blocks.1.depthwise.0"].weights
    report = json.loads(BlobStore(made.inputs.blob_folder).path(built.steps[0].outputs["report"]).read_bytes())
    assert report["level"] == "reconstruct"
    assert all(layer["after"] <= layer["before"] for layer in report["rebuilt"])


def test_a_step_whose_blob_was_removed_is_done_again_with_the_same_bytes(
        made: Made, pool: ProcessPoolExecutor) -> None:
    candidate = made.candidate("int8", 32)
    first = pool.submit(quiet, build, made.inputs, candidate).result()
    blobs = BlobStore(made.inputs.blob_folder)
    for sha256 in (first.float_model.model, first.steps[0].outputs["weights"]):
        assert blobs.remove(sha256) > 0
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        again = fresh.submit(quiet, build, made.inputs, candidate).result()
    assert again == first


def test_levels_of_recovery_and_widths_are_different_models(made: Made, pool: ProcessPoolExecutor) -> None:
    candidates = [made.candidate("float32", 16), made.candidate("float32", 16, Recovery.NONE),
                  made.candidate("float32", 24)]
    built = [future.result() for future in [pool.submit(quiet, build, made.inputs, c) for c in candidates]]
    assert len({found.artifact.sha256 for found in built}) == 3


def test_the_statistics_are_those_of_the_quantisers_own_calibrator(made: Made, pool: ProcessPoolExecutor) -> None:
    ours, theirs = pool.submit(quiet, both_calibrations, made.inputs.blob_folder, made.prepared.float_model,
                               made.prepared.statistics, made.prepared.splits["calibration"]).result()
    assert ours == theirs


def test_a_factory_that_returns_another_network_is_one_message(made: Made, pool: ProcessPoolExecutor) -> None:
    other = made.folder / "other"
    other.mkdir()
    (other / "net.py").write_text(NET.replace("Separable", "Residual").replace("separable", "residual"))
    assert made.inputs.pruning is not None
    inputs = replace(made.inputs, pruning=replace(made.inputs.pruning, model=parse_model("net.py:make", other)))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh, \
            pytest.raises(ModelError, match="net.py:make: the network is not built as it was when the study began"):
        fresh.submit(quiet, build, inputs, made.candidate("float32", 40)).result()


def test_a_study_that_does_not_prune_builds_no_narrowed_candidate(made: Made) -> None:
    with pytest.raises(ValueError, match="is narrowed, but this study does not prune"):
        build(replace(made.inputs, pruning=None), made.candidate("float32", 32))


def test_layers_that_are_lost_or_lose_a_format_make_a_candidate_infeasible(made: Made) -> None:
    candidate = made.candidate("dynamic_int8", 32)
    fewer = replace(made.layers, space=replace(made.layers.space, layers=made.layers.space.layers[1:], groups=()))
    with pytest.raises(InfeasibleCandidate, match="narrowed .stem.0 at 32, .* has other layers than at full width: "
                                                  "stem.0"):
        _check_layers(fewer, candidate)
    first = replace(made.layers.space.by_name["blocks.0.pointwise.0"], choices=(FLOAT32,))
    poorer = tuple(first if layer.name == first.name else layer for layer in made.layers.space.layers)
    with pytest.raises(InfeasibleCandidate, match="layer blocks.0.pointwise.0: narrowed .* it is a CONV_2D, for which "
                                                  "dynamic_w8 is not legal; legal: float32"):
        _check_layers(replace(made.layers, space=replace(made.layers.space, layers=poorer)), candidate)


def test_a_group_whose_layer_the_converted_model_lacks_is_left_out(made: Made) -> None:
    group = ChannelGroup("gone", 16, (Member("gone", Axis.OUT, tuple(range(16)), tuple(range(16))),))
    found = with_groups(made.layers, Plan((group,), ()))
    assert found.layers.space.groups == ()
    assert [(e.name, e.reason) for e in found.left_out] == [
        ("gone", "the converted model has no layer of the name gone")]


@pytest.mark.parametrize(("name", "reason"), [("net.tflite", "a .tflite model has fixed shapes"),
                                              ("net.pt2", "an exported .pt2 graph has fixed shapes")])
def test_models_with_fixed_shapes_have_no_groups_and_say_what_to_give(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / name).touch()
    plan = plan_pruning(parse_model(name, tmp_path), None, {}, True, PruneSettings("obs", 0))
    assert plan.groups == ()
    assert plan.left_out[0].reason.startswith(reason)
    assert "give the network as FILE.py:FACTORY" in plan.left_out[0].reason


def test_a_step_that_raises_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    blobs, calls = BlobStore(tmp_path), []

    def fail() -> Mapping[str, bytes]:
        raise RuntimeError("once")

    def succeed() -> Mapping[str, bytes]:
        calls.append(1)
        return {"out": b"bytes"}

    with pytest.raises(RuntimeError, match="once"):
        run_step(blobs, "make", {"of": 1}, ("numpy",), fail)
    first = run_step(blobs, "make", {"of": 1}, ("numpy",), succeed)
    assert run_step(blobs, "make", {"of": 1}, ("numpy",), fail) == first
    assert run_step(blobs, "make", {"of": 2}, ("numpy",), succeed).key != first.key
    assert len(calls) == 2
