"""A narrowed candidate from end to end: measured, stored, resumed, shown, exported, verified."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, get_args

import optuna
import pytest
import yaml
from rich.console import Console

from device_farm.inventory import Inventory
from device_farm.inventory_file import InventoryError
from orchestrator.conclude import conclude
from orchestrator.config import StudyConfig
from orchestrator.ending import NOT_PROPOSED, Ending
from orchestrator.errors import UsageError
from orchestrator.finish import confirm_finalists, evaluate_on_test
from orchestrator.goals import resolve_goal
from orchestrator.loop import Found, Loop
from orchestrator.outcome import Outcome
from orchestrator.phases import baseline_evidence, measure_baselines
from orchestrator.plots import layer_bits, write_plots
from orchestrator.progress import Silent
from orchestrator.report import print_report
from orchestrator.store.journal import OptunaJournal
from orchestrator.store.records import NewStudy, StudyStatus, TrialRole
from orchestrator.store.store import Store
from orchestrator.studies import show_document
from orchestrator.study_report import print_study
from orchestrator.study_run import StudyRun
from orchestrator.study_view import view_of
from orchestrator.workbench import Workbench, open_workbench
from recipes.bundle.schema import CandidateEntry, RecipeFacts
from recipes.bundle.verify import verify_bundle
from recipes.compress.criteria import CRITERIA
from search.candidate import Candidate, Recovery
from search.proposers.stopping import Why
from search.recipes import Named
from search.space import Scheme
from tests.orchestrator.made import baselines, make_study

MODEL = "demo:residual"
BOARD = "sim"


@dataclass(frozen=True)
class Searched:
    """A study in which candidates were chosen by hand."""

    folder: Path
    document: Mapping[str, Any]
    narrowed: Candidate
    steps: int
    """Distinct steps that made the narrowed candidates' float models."""

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def cli(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run([sys.executable, "-m", "orchestrator.cli.app", *arguments, "--store", str(self.store)],
                              cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """Measure float32, int8 and three narrowed candidates; the narrowed int8 one is the fastest."""
    folder = tmp_path_factory.mktemp("pruned")
    config = StudyConfig(study="cut", model=MODEL, device=BOARD, prune=True, baselines="needed",  # type: ignore[call-arg]
                         sampler="tpe", max_drop=8.0, measurements=8)
    with Store.open(folder / "store") as store, \
            open_workbench(store, Inventory(), config, folder, Silent()) as bench:
        space = bench.first.layers.space
        study = store.create_study(NewStudy(
            name="cut", seed=0, config=config.model_dump(mode="json", by_alias=True), spaces={"tflite": space},
            model_digest=bench.first.prepared.model_digest, tool_versions=dict(bench.first.prepared.versions)))
        loop = Loop(store, study, bench.crew, bench.pool, bench.toolchains, "median", bench.exclusive,
                    2, Silent(), lambda: False)
        measure_baselines(bench, loop, lambda found: None)
        goal = resolve_goal(config, "top1", baseline_evidence(loop))
        half = {group.name: group.widths[len(group.widths) // 2] for group in space.groups}
        chosen = [Candidate.of(space, configs(bench, scheme), 1, half, recovery)
                  for scheme, recovery in ((Scheme.FLOAT, None), (Scheme.STATIC, None), (Scheme.STATIC, Recovery.NONE))]
        loop.run(iter([(Named("", c, ()), TrialRole.SEARCH) for c in chosen]), 20, lambda found: None)
        verdict = confirm_finalists(bench, loop, goal, None, lambda: False)
        found = [f for f in loop.found.values() if f.candidate in chosen]
        assert [f.infeasible for f in found] == [None] * 3
        assert verdict.winner is not None
        test = evaluate_on_test(bench, loop, [verdict.winner])
        outcome = Outcome(bench, study, loop, goal, None, verdict, {}, test,
                          Ending(Why.ALLOWANCE, "all of 20 measurements are made", None, NOT_PROPOSED), 1.0, False)
        document = conclude(store, outcome)
        OptunaJournal(store, study, "top1").catch_up()
        store.release(study.id, StudyStatus.INTERRUPTED)
        return Searched(folder, document, chosen[1], len({s.key for f in found for s in steps_of(f)}))


def steps_of(found: Found) -> tuple[Any, ...]:
    assert found.report is not None
    return found.report.built.steps


def configs(bench: Workbench, scheme: Scheme) -> dict[str, Any]:
    """Return 8 bits of a scheme where that is legal, else float32."""
    return {layer.name: next((c for c in layer.choices if c.scheme is scheme and c.weight_bits in (8, 32)),
                             layer.choices[0]) for layer in bench.first.layers.space.layers}


def test_the_narrowed_int8_candidate_wins_because_it_is_small_fast_and_accurate(searched: Searched) -> None:
    winner, baselines = searched.document["winner"], {e["name"]: e for e in searched.document["baselines"]}
    float32 = baselines["float32"]
    assert winner["candidate_id"] == searched.narrowed.id
    assert searched.document["goal_met"] is True
    assert winner["size_bytes"] < 0.2 * float32["size_bytes"]
    assert winner["latency_s"]["median"] < 0.5 * float32["latency_s"]["median"]
    assert float32["accuracy"]["validation"] - 0.08 < winner["accuracy"]["validation"] < 0.91
    assert winner["recovery"] == "reconstruct"
    assert {"group": "stem.0", "kept": 8, "channels": 16} in winner["pruned"]
    assert len(winner["pruned"]) == 6
    assert "pruned" not in float32


def test_a_change_of_bits_makes_no_new_float_model(searched: Searched) -> None:
    """Two levels of recovery with three steps each; the two formats of the first level share theirs."""
    assert searched.steps == 6


def test_the_bundle_of_a_narrowed_candidate_rebuilds_byte_for_byte(searched: Searched) -> None:
    bundle = Path(searched.document["recipe"])
    assert [check.name for check in verify_bundle(bundle) if not check.ok] == []
    recipe = yaml.safe_load((bundle / "recipe.yaml").read_text())
    assert recipe["schema"] == 5
    assert recipe["candidate"]["widths"] == dict(searched.narrowed.widths)
    assert recipe["candidate"]["recovery"] == "reconstruct"
    assert recipe["prune_criterion"] == "obs"
    assert (bundle / "float.tflite").stat().st_size < 120_000  # 327 KB at full width
    readme = (bundle / "README.md").read_text()
    assert "stem.0 8, " in readme
    assert "(order: obs, recovery: reconstruct)" in readme


def test_the_readme_of_the_bundle_rebuilds_the_model_too(searched: Searched) -> None:
    bundle = Path(searched.document["recipe"])
    blocks = (bundle / "README.md").read_text().split("```python\n")[1:]
    for block, printed in zip(blocks, ("[[", "the same bytes"), strict=True):
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", block.partition("```")[0]], cwd=bundle,
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert printed in done.stdout


def test_the_store_shows_and_draws_what_was_cut(searched: Searched, tmp_path: Path) -> None:
    with Store.open(searched.store) as store:
        view = view_of(store, "cut")
        shown, text = show_document(store, view), StringIO()
        print_study(shown, view, Console(file=text, width=80))
        pictures = write_plots(view, tmp_path)
    assert [len(trial.get("widths", {})) for trial in shown["trials"]] == [0, 6, 6, 6]
    groups = shown["search_space"]["groups"]
    assert isinstance(groups, list)
    assert len(groups) == 6
    printed = text.getvalue()
    assert "6 groups of channels" in printed
    assert f"{searched.narrowed.id} (pruned)" in " ".join(printed.split())
    assert "Channels kept: stem.0 8 of 16, blocks.0.first.0 8 of 16" in " ".join(printed.split())
    assert max(map(len, printed.splitlines())) <= 80
    assert all(picture.path is not None for picture in pictures)
    assert view.winner is not None
    labels = {row.name: row.label for row in layer_bits(view, view.winner)}
    assert labels["stem.0"] == "stem.0 (8 of 16)"
    assert labels["head"] == "head"
    page = next(p.path for p in pictures if p.kind == "all")
    assert page is not None
    assert "kept: stem.0 8 of 16" in page.read_text()


def test_the_report_names_what_was_cut_in_80_columns(searched: Searched) -> None:
    text = StringIO()
    print_report(dict(searched.document), Console(file=text, width=80))
    assert "Channels kept: stem.0 8 of 16" in text.getvalue()
    assert "recovery: reconstruct" in " ".join(text.getvalue().split())


def test_optuna_sees_the_widths(searched: Searched) -> None:
    with Store.open(searched.store) as store:
        journal = store.journal_path(store.study("cut").id)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    trials = optuna.load_study(study_name="cut", storage=storage).trials
    assert [trial.params["width:stem.0"] for trial in trials] == [16, 8, 8, 8]


def test_a_study_with_narrowed_candidates_is_resumed_and_measures_none_twice(searched: Searched) -> None:
    ran = json.loads(searched.cli("search", "--sampler", "tpe", "--study", "cut", "--resume", "--measurements", "6",
                                  "--format", "json"))
    assert ran["measurements"] == 6
    again = {entry["candidate_id"] for entry in ran["pareto"]}
    assert searched.narrowed.id in again
    with Store.open(searched.store) as store:
        histories = store.histories(store.study("cut").id)
    assert len({h.trial.candidate_id for h in histories}) == len(histories)


def test_a_study_from_before_there_was_pruning_can_be_resumed_unpruned_only(tmp_path: Path) -> None:
    config = {"budget": "0.8x"}
    with Store.open(tmp_path / "store") as store:
        make_study(store, "old", baselines(), config)
        asked = {**StudyConfig.model_validate({}).model_dump(mode="json", by_alias=True), **store.study("old").config}
        for prune, refusal in ((False, "rpi4"), (True, "another prune .it has False, asked for is True.")):
            wanted = StudyConfig.model_validate({**asked, "prune": prune})
            with pytest.raises((UsageError, InventoryError), match=refusal):  # unpruned, only the board is missing
                StudyRun(store, Inventory(), wanted, tmp_path, Silent(), resume=True).run()


def test_what_study_files_and_recipes_may_name_is_what_there_is() -> None:
    assert get_args(StudyConfig.model_fields["prune_criterion"].annotation) == tuple(CRITERIA)
    named, _ = get_args(RecipeFacts.model_fields["prune_criterion"].annotation)
    assert get_args(named) == tuple(CRITERIA)
    assert get_args(CandidateEntry.model_fields["recovery"].annotation) == tuple(level.value for level in Recovery)


def test_a_dry_run_shows_the_groups_and_what_is_left_out(searched: Searched) -> None:
    arguments = ("search", "--dry-run", "--device", BOARD, "--model", "demo:transformer", "--prune")
    document = json.loads(searched.cli(*arguments, "--format", "json"))
    assert [group["name"] for group in document["groups"]] == [f"blocks.{i}.expand" for i in range(4)]
    assert document["groups"][0]["widths"] == [128, 112, 96, 80, 64, 48, 32, 16]
    assert {entry["name"] for entry in document["left_out"]} >= {"patches", "head"}
    text = " ".join(searched.cli(*arguments).split())
    assert "4 groups of channels that may be pruned" in text
    assert "not pruned: patches: " in text
