"""AdaptiveSampler in Optuna: optimize, ask and tell, a study loaded again, several processes, bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

import orchestrator
import search
from search.adaptive.graph import Graph, Option, Site, Tables
from search.adaptive.judge import Aim
from search.adaptive.latency import LatencyModel
from search.sampler import CLAIM, NEWS, AdaptiveSampler, Choice, SpaceExhausted, _claimed, _write, flat_prior

COST = {"float": 1.0, "int8": 0.4, "int4": 0.6}
LOST = {"float": 0.0, "int8": 0.01, "int4": 0.04}
OPTIONS = tuple(Option(name, "f" if name == "float" else "i", (name,)) for name in COST)


def network(length: int = 6) -> Graph:
    return Graph(tuple(Site(f"layer{n}", "conv", OPTIONS, n - 1) for n in range(length)))


def weight(name: str) -> float:
    return 1.0 + 0.3 * (int(name[5:]) % 4)


def latency_s(choice: Choice) -> float:
    """A board that is slower than its parts where precision changes."""
    names = [choice[site] for site in sorted(choice, key=lambda n: int(n[5:]))]
    changes = sum((a == "float") != (b == "float") for a, b in zip(names, names[1:], strict=False))
    return 1e-3 * (sum(weight(f"layer{n}") * COST[name] for n, name in enumerate(names)) + 0.05 * changes)


def lost(choice: Choice) -> float:
    return sum(LOST[option] / weight(site) for site, option in choice.items())


def accuracy(choice: Choice) -> float:
    return 0.9 - lost(choice)


def make(length: int = 6, budget: float | None = 0.6, seed: int = 0, aim: Aim = Aim.ACCURATE) -> AdaptiveSampler:
    graph = network(length)
    full = latency_s({site.name: "float" for site in graph.sites})
    limit = None if budget is None else budget * full
    return AdaptiveSampler(graph, lost, accuracy, budget_s=limit, seed=seed, aim=aim)


def run(sampler: AdaptiveSampler, trials: int, study: optuna.Study | None = None, noise: float = 0.0) -> optuna.Study:
    study = study or optuna.create_study(sampler=sampler, direction="maximize")
    rng = np.random.default_rng(len(study.trials))

    def objective(trial: optuna.Trial) -> float:
        choice = sampler.choice(trial)
        sampler.report(trial, latency_s(choice) * float(np.exp(noise * rng.normal())))
        return accuracy(choice)

    study.optimize(objective, n_trials=trials)
    return study


def chosen(study: optuna.Study) -> list[tuple[object, ...]]:
    return [tuple(trial.params[f"layer{n}"] for n in range(len(trial.params))) for trial in study.trials]


def test_it_is_public_in_both_packages() -> None:
    assert orchestrator.AdaptiveSampler is search.AdaptiveSampler is AdaptiveSampler


def test_optimize_finds_the_optimum_of_729_in_ten_measurements() -> None:
    sampler = make()
    study = run(sampler, 10)
    full = latency_s({f"layer{n}": "float" for n in range(6)})
    every = [{f"layer{n}": list(COST)[(code // 3 ** n) % 3] for n in range(6)} for code in range(729)]
    best = max(accuracy(choice) for choice in every if latency_s(choice) <= 0.6 * full)
    assert study.best_value == pytest.approx(best, abs=1e-9)
    assert all(value <= 0 for value in study.best_trial.constraints.values())
    assert len(set(chosen(study))) == 10


def test_ask_and_tell_proposes_for_several_boards_at_once() -> None:
    sampler = make()
    study = optuna.create_study(sampler=sampler, direction="maximize")
    for _ in range(3):
        batch = [study.ask() for _ in range(4)]
        choices = [sampler.choice(trial) for trial in batch]
        for trial, choice in zip(batch, choices, strict=True):
            sampler.report(trial, latency_s(choice))
            study.tell(trial, accuracy(choice))
    assert len(set(chosen(study))) == 12


def test_a_budget_out_of_reach_is_known_after_a_few_measurements() -> None:
    """All int8 is the fastest there is, 0.4 of float."""
    full = latency_s({f"layer{n}": "float" for n in range(6)})
    hopeless, near = make(budget=0.3), make(budget=0.45)
    assert hopeless.reach(optuna.create_study(direction="maximize")) is None
    found = hopeless.reach(run(hopeless, 4))
    assert found is not None
    assert found.probability < 0.01
    assert found.latency_s == pytest.approx(0.4 * full, rel=0.1)
    possible = near.reach(run(near, 4))
    assert possible is not None
    assert possible.probability > 0.5
    endless = make(budget=None, aim=Aim.FASTEST)
    assert endless.reach(run(endless, 4)) is None


def test_a_free_site_costs_no_time() -> None:
    options = (Option("min_max", "float", ("min_max",)), Option("mse", "float", ("mse",)))
    graph = Graph((*network().sites, Site("ranges", "ranges", options, free=True)))
    prior = flat_prior(graph)
    assert not prior.sites[-1].any()
    assert prior.sites[:-1].all()
    with pytest.raises(ValueError, match="the site 'ranges' costs time, but it is free"):
        LatencyModel(Tables(graph, np.ones_like(prior.sites), prior.edges))


def test_notes_of_another_version_are_found_out_again() -> None:
    sampler = make()
    study = run(sampler, 4)
    for trial in study.get_trials(deepcopy=False):
        trial.system_attrs[NEWS] = '{"schema": 1}'
    again = make()
    assert not again.engine(study).memory.tables
    assert again.choice(study.ask())


def test_which_board_measured_is_kept_with_the_study() -> None:
    sampler = make()
    study = optuna.create_study(sampler=sampler, direction="maximize")
    for number in range(12):  # of eight, a layer may have changed its format in step with the boards
        trial = study.ask()
        choice = sampler.choice(trial)
        board, bias = (("pi-a", 1.05), ("pi-b", 0.95))[number % 2]
        sampler.report(trial, latency_s(choice) * bias, board=board)
        study.tell(trial, accuracy(choice))
    copy = optuna.create_study(direction="maximize")
    copy.add_trials(study.trials)
    model = make().engine(copy).model
    assert [reading.board for reading in model.readings] == ["pi-a", "pi-b"] * 6
    assert model.posterior().mean[-2] > 0.02 > -0.02 > model.posterior().mean[-1]


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(0, 1000), st.integers(1, 6))
def test_a_study_that_is_loaded_again_proposes_the_same(seed: int, trials: int) -> None:
    sampler = make(seed=seed)
    study = run(sampler, trials, noise=0.02)
    other = make(seed=seed)
    copy = optuna.create_study(sampler=other, direction="maximize")
    copy.add_trials(study.trials)
    assert other.choice(copy.ask()) == sampler.choice(study.ask())


def test_what_the_host_found_out_is_not_computed_again() -> None:
    sampler = make()
    study = run(sampler, 5)
    calls: list[Choice] = []

    def counted(choice: Choice) -> float:
        calls.append(choice)
        return lost(choice)

    again = AdaptiveSampler(network(), counted, accuracy, budget_s=sampler.engine(study).budget_s)
    assert len(again.engine(study).memory.tables) == len(sampler.engine(study).memory.tables) >= 1
    assert not calls


SCRIPT = """
import sys, optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from tests.search.test_sampler import make, run
sampler = make()
study = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(sys.argv[1])), sampler=sampler)
run(sampler, 5, study)
"""


def test_several_processes_share_a_storage_without_a_duplicate(tmp_path: Path) -> None:
    file = str(tmp_path / "journal.log")
    storage = JournalStorage(JournalFileBackend(file))
    optuna.create_study(study_name="s", storage=storage, direction="maximize")
    running = [subprocess.Popen([sys.executable, "-c", SCRIPT, file], stderr=subprocess.PIPE, text=True)
               for _ in range(3)]
    for process in running:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    study = optuna.load_study(study_name="s", storage=storage)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 15
    assert len(set(chosen(study))) == 15


def test_of_two_that_claim_the_same_the_earlier_trial_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    study, picks = optuna.create_study(), np.array([0, 1, 2])
    for _ in range(2):
        study.ask()
    earlier, later = study.trials
    waited = []

    def wait(seconds: float) -> None:
        """While the earlier one waits, the later one decides."""
        waited.append(seconds)
        assert not _claimed(study, later, picks), "it gives way at once"
        _write(study, later, CLAIM, {"picks": [2, 1, 0], "kept": True})

    monkeypatch.setattr("search.sampler.time.sleep", wait)
    _write(study, later, CLAIM, {"picks": picks.tolist(), "kept": False})
    assert _claimed(study, earlier, picks)
    assert len(waited) == 1
    assert not _claimed(study, later, picks)


def test_a_small_space_is_exhausted_without_a_duplicate() -> None:
    sampler = make(length=2)
    study = run(sampler, 30)
    assert sorted(chosen(study)) == sorted((a, b) for a in COST for b in COST)
    with pytest.raises(SpaceExhausted, match="every configuration"):
        sampler.choice(study.ask())


def test_a_trial_that_failed_is_not_proposed_again() -> None:
    sampler = make()
    study = optuna.create_study(sampler=sampler, direction="maximize")
    first = study.ask()
    choice = sampler.choice(first)
    study.tell(first, state=TrialState.FAIL)
    for _ in range(3):
        trial = study.ask()
        assert sampler.choice(trial) != choice
        study.tell(trial, state=TrialState.FAIL)


def test_the_front_spreads_over_latencies() -> None:
    sampler = make(budget=None, aim=Aim.FRONT)
    study = optuna.create_study(sampler=sampler, directions=["minimize", "maximize"])
    for _ in range(14):
        trial = study.ask()
        choice = sampler.choice(trial)
        sampler.report(trial, latency_s(choice))
        study.tell(trial, [latency_s(choice), accuracy(choice)])
    times = sorted(trial.values[0] for trial in study.best_trials)
    assert len(times) >= 6
    assert times[-1] > 1.6 * times[0]


def test_the_fastest_is_found_among_what_is_accurate_enough() -> None:
    graph = network()

    def enough(choice: Choice) -> float:
        return accuracy(choice) if accuracy(choice) >= 0.87 else float("nan")

    sampler = AdaptiveSampler(graph, lost, enough, aim=Aim.FASTEST)
    study = run(sampler, 10)
    every = [{f"layer{n}": list(COST)[(code // 3 ** n) % 3] for n in range(6)} for code in range(729)]
    best = min(latency_s(choice) for choice in every if accuracy(choice) >= 0.87)
    found = min(trial.user_attrs["adaptive:latency_s"] for trial in study.trials if (trial.value or 0) >= 0.87)
    assert found <= 1.02 * best


@pytest.mark.parametrize("value", [float("nan"), -1.0])
def test_a_divergence_that_is_none_is_refused_by_name(value: float) -> None:
    sampler = AdaptiveSampler(network(), lambda choice: value, accuracy, budget_s=1e-2)
    with pytest.raises(ValueError, match=r"divergence: expected 0 or more .*, got (nan|-1.0) for \{'layer0': 'float'"):
        sampler.engine(optuna.create_study(sampler=sampler)).propose()


def test_where_every_accuracy_is_nan_it_says_so_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    sampler = AdaptiveSampler(network(), lost, lambda choice: float("nan"), budget_s=1e-2)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    seen = set()
    for _ in range(6):
        trial = study.ask()
        choice = sampler.choice(trial)
        sampler.report(trial, latency_s(choice))
        study.tell(trial, accuracy(choice))
        seen.add(tuple(choice.items()))
    assert len(seen) == 6
    said = [record.message for record in caplog.records if "accuracy() returned NaN for all of" in record.message]
    assert len(said) == 1


def test_thirty_percent_of_noise_is_survived() -> None:
    study = run(make(), 20, noise=0.3)
    full = latency_s({f"layer{n}": "float" for n in range(6)})
    within = [trial for trial in study.trials
              if latency_s({k: str(v) for k, v in trial.params.items()}) <= 0.6 * full]
    assert max(trial.value or 0 for trial in within) >= 0.83


@pytest.mark.parametrize(("change", "message"), [
    ({"budget_s": None}, "needs budget_s"), ({"budget_s": -1.0}, "expected a positive number of seconds, got -1.0"),
    ({"floating": {"layer0": "int3"}}, "site 'layer0': expected one of float, int8, int4, got 'int3'")])
def test_bad_arguments_are_refused(change: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"budget_s": 1.0, **change}
    with pytest.raises(ValueError, match=message):
        AdaptiveSampler(network(), lost, accuracy, **given)  # type: ignore[arg-type]


def test_options_that_cannot_be_told_apart_are_refused() -> None:
    twice = Graph((Site("a", "conv", (OPTIONS[0], OPTIONS[0])),))
    with pytest.raises(ValueError, match="site 'a': two options have the same scheme and level: float, float"):
        AdaptiveSampler(twice, lost, accuracy, budget_s=1.0)


def test_a_latency_that_is_none_is_refused() -> None:
    sampler = make()
    study = optuna.create_study(sampler=sampler, direction="maximize")
    with pytest.raises(ValueError, match="latency_s: expected a positive number of seconds, got 0"):
        sampler.report(study.ask(), 0)
