"""`kill -9` at any moment: no finished measurement is lost, none is repeated, nothing is left running."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from orchestrator.store.records import Purpose, Split, StudyStatus, TrialHistory, TrialState
from orchestrator.store.store import Store
from tests.orchestrator.processes import end_family, wait_until_gone
from tests.orchestrator.searches import Quick, complete, quick_model

STUDY = "killed"
MEASUREMENTS = 26
SEED = 20
OPTIONS = ("--budget", "0.8x:int8", "--confidence", "0.9999", "--measurements", str(MEASUREMENTS))
MOMENTS = [
    *[("importing", 1, 1.0)] * 2,
    ("measuring the baselines", 1, 1.5),
    *[("#", 1, 0.3), ("#", 2, 0.3)] * 3,
    *[("#", 3, 0.3)] * 2,
    *[("searching", 1, 0.5)] * 2,
    ("#", 2, 0.4),
    *[("confirming", 1, 2.5)] * 4,
    *[("evaluating", 1, 1.0)] * 2,
]
"""When to kill: after the n-th line of progress with this text, plus a random share of these seconds."""


@dataclass
class Kept:
    """Every row that a controller has finished; nothing here may ever change."""

    trials: dict[str, tuple[object, ...]] = field(default_factory=dict)
    measurements: dict[str, tuple[object, ...]] = field(default_factory=dict)

    def compare(self, histories: tuple[TrialHistory, ...]) -> None:
        """Compare with what was there after earlier kills, then remember what is new."""
        for history in histories:
            whole_or_nothing(history)
            trial = history.trial
            if trial.state is not TrialState.RUNNING:
                row = (trial, tuple(e for e in history.evaluations if e.split is Split.VALIDATION))
                assert self.trials.setdefault(str(trial.id), row) == row
        found = {str(m.id): (m.trial_id, m.purpose, m.session, m.finished_at, m.measurement)
                 for history in histories for m in history.measurements}
        assert self.measurements.items() <= found.items(), "a finished measurement was lost or changed"
        self.measurements = dict(found)
        assert self.trials.keys() <= {str(history.trial.id) for history in histories}
        candidates = Counter(history.trial.candidate_id for history in histories)
        assert max(candidates.values(), default=1) == 1, "a candidate has two trials"


def whole_or_nothing(history: TrialHistory) -> None:
    """A result stands in the store with everything that belongs to it, once, or not at all."""
    searched = [m for m in history.measurements if m.purpose is Purpose.SEARCH]
    validated = [e for e in history.evaluations if e.split is Split.VALIDATION]
    assert len(searched) == len(validated) == int(history.trial.state is TrialState.COMPLETE)
    rounds = Counter(m.session for m in history.measurements if m.purpose is Purpose.CONFIRM)
    assert max(rounds.values(), default=1) == 1
    for record in history.measurements:
        assert record.measurement.artifact_sha256 == history.trial.artifact_sha256
        assert len(record.measurement.wall_ns) == len(record.measurement.cpu_ns) > 0


def kill_at(controller: subprocess.Popen[str], text: str, count: int, delay_s: float) -> bool:
    """Kill a controller `delay_s` after its count-th line with `text`; False when it had ended by then."""
    assert controller.stderr is not None
    told = []
    for line in controller.stderr:
        told.append(line)
        if sum(text in earlier for earlier in told) == count:
            time.sleep(delay_s)
            break
    running = controller.poll() is None
    controller.kill()
    controller.wait()
    for stream in (controller.stdout, controller.stderr):  # not read to their ends: orphans might hold them open
        if stream is not None:
            stream.close()
    assert running or controller.returncode in (0, 1), "".join(told)
    return running


def exists(quick: Quick) -> bool:
    """Tell whether a controller got as far as creating the study."""
    with Store.open(quick.store) as store:
        return STUDY in [study.name for study in store.studies()]


@pytest.fixture
def quick(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    return quick_model(tmp_path_factory, tmp_path_factory.mktemp("killed"))


def test_a_search_that_is_killed_twenty_times_loses_nothing_and_repeats_nothing(quick: Quick) -> None:
    rng = np.random.default_rng(SEED)
    mark = str(quick.folder)
    kept, killed = Kept(), Counter[str]()
    try:
        for text, count, most_s in MOMENTS:
            options = ("--resume",) if exists(quick) else (*quick.model(), *OPTIONS)
            controller = quick.start(*options, study=STUDY, mark=mark)
            killed[text] += kill_at(controller, text, count, float(rng.uniform(0, most_s)))
            assert wait_until_gone(mark, 10) == {}, f"processes outlive their controller, killed after {text!r}"
            if exists(quick):
                record, histories = quick.histories(STUDY)
                kept.compare(histories)
                assert record.status in (StudyStatus.INTERRUPTED, StudyStatus.FINISHED)
        done = quick.search("--resume", "--format", "json", study=STUDY, model=False)
    finally:
        end_family(mark)
    assert sum(killed.values()) >= 18
    assert all(killed[text] for text, _, _ in MOMENTS), killed
    record, histories = quick.histories(STUDY)
    kept.compare(histories)
    assert done.code in (0, 1), done.stderr
    assert record.status is StudyStatus.FINISHED
    assert {h.trial.state for h in histories} <= {TrialState.COMPLETE, TrialState.INFEASIBLE}
    assert [h.trial.number for h in histories] == list(range(len(histories)))
    assert len(complete(histories)) == MEASUREMENTS == done.document["measurements"]
    assert record.document == done.document
    assert done.document["winner"]["latency_s"]["confirmed"] is True
