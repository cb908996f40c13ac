"""The projection of a study into an Optuna journal, so that every Optuna tool works on it.

The store is the truth. The journal is written at checkpoints, off the hot path, and can be deleted
and written anew at any time.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from orchestrator.store import records
from orchestrator.store.errors import StoreUnusable
from orchestrator.store.records import StudyRecord, TrialHistory
from orchestrator.store.store import Store
from search.space import FOR_ALL, SearchSpace

TRIAL_ID = "trial_id"
WIDTH = "width:"
"""Before a group's name, where its kept channels are a parameter."""
TOGETHER = "for_all:"
"""Before what is chosen for all layers together."""
COMPILER = "compiler"
"""A parameter where a study has several; then the others have their compiler before them: `tvm:stem`."""
_LOCK_GRACE_S = 3
"""A lock that a killed process left behind is broken after this time; a write takes milliseconds."""


@dataclass(frozen=True, slots=True)
class Projection:
    """What one checkpoint did."""

    added: int
    unvalued: tuple[int, ...]
    """Numbers of complete trials without a value of the objective: they wait for it."""


def no_constraints(history: TrialHistory) -> Mapping[str, float]:
    return {}


class OptunaJournal:
    """One study's journal: two objectives, latency in seconds (minimised) and a metric (maximised)."""

    def __init__(self, store: Store, study: StudyRecord, metric: str,
                 constraints: Callable[[TrialHistory], Mapping[str, float]] = no_constraints) -> None:
        """Open the journal, creating it when absent, and see what it holds.

        Args:
            store: where the trials are read from.
            study: whose trials.
            metric: the objective; the other one is `latency_s`.
            constraints: name -> violation of a complete trial; at most 0 is satisfied.

        Raises:
            OSError: when the journal cannot be written.
            StoreUnusable: when it is damaged.
        """
        self._store = store
        self._record = study
        self._metric = metric
        self._constraints = constraints
        self._choices = {name: _distributions(space) for name, space in study.spaces.items()}
        self._full = {name: {f"{WIDTH}{group.name}": group.channels for group in space.groups}
                      for name, space in study.spaces.items()}
        self._study = _open_study(store.journal_path(study.id), study.name, metric)
        there = self._study.get_trials(deepcopy=False)
        self._there = {str(trial.user_attrs.get(TRIAL_ID)) for trial in there}

    def catch_up(self) -> Projection:
        """Append every finished trial that is not there yet, in order of number. Raises OSError.

        INFEASIBLE becomes Optuna's FAIL. FAILED (the farm's fault) is no result and is left out.
        """
        added, unvalued = 0, []
        for trial in self._store.trials(self._record.id):
            ended = trial.state in (records.TrialState.COMPLETE, records.TrialState.INFEASIBLE)
            if not ended or str(trial.id) in self._there:
                continue
            projected = self._project(self._store.history(trial.id))
            if projected is None:
                unvalued.append(trial.number)
                continue
            self._study.add_trial(projected)
            self._there.add(str(trial.id))
            added += 1
        return Projection(added, tuple(unvalued))

    def _project(self, history: TrialHistory) -> FrozenTrial | None:
        trial = history.trial
        candidate = json.loads(trial.candidate)
        compiler = candidate["compiler"]
        labels: Mapping[str, str | int] = {
            **candidate["layers"], **self._full[compiler],
            **{f"{WIDTH}{name}": width for name, width in candidate.get("widths", {}).items()},
            **{f"{TOGETHER}{name}": candidate.get(name, first) for name, first in FOR_ALL.items()}}
        # A baseline may be outside the space (other numeric formats): those layers are no parameters.
        found = [(name, labels[name], distribution) for name, distribution in self._choices[compiler].items()
                 if labels.get(name) in distribution.choices]
        if len(self._choices) > 1:
            found = [(COMPILER, compiler, CategoricalDistribution(list(self._choices))),
                     *((f"{compiler}:{name}", label, distribution) for name, label, distribution in found)]
        attributes: dict[str, str | int | float] = {
            TRIAL_ID: str(trial.id), "number": trial.number, "role": trial.role.value}
        optional = {"label": trial.label, "reason": trial.reason, "artifact_sha256": trial.artifact_sha256,
                    "size_bytes": trial.size_bytes,
                    **{e.metric: history.value(e.metric) for e in history.evaluations}}
        attributes |= {name: value for name, value in optional.items() if value is not None}
        values, constraints, state = None, None, TrialState.FAIL
        if trial.state is records.TrialState.COMPLETE:
            latency_s, quality = history.latency_s, history.value(self._metric)
            if latency_s is None or quality is None:
                return None
            state, values, constraints = TrialState.COMPLETE, (latency_s, quality), self._constraints(history)
        return optuna.create_trial(
            state=state, values=values, params={name: label for name, label, _ in found}, user_attrs=attributes,
            constraints=None if constraints is None else dict(constraints),
            distributions={name: distribution for name, _, distribution in found})


def _open_study(path: Path, name: str, metric: str) -> optuna.Study:
    _cut_torn_line(path)
    lock = JournalFileSymlinkLock(str(path), grace_period=_LOCK_GRACE_S)
    try:
        storage = JournalStorage(JournalFileBackend(str(path), lock))
        study = optuna.create_study(storage=storage, study_name=name, directions=("minimize", "maximize"),
                                    load_if_exists=True)
    except (ValueError, KeyError) as error:
        raise StoreUnusable(f"journal {path} is damaged ({error}): delete it, it is written anew from the "
                            "store") from error
    names = ["latency_s", metric]
    if study.metric_names != names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # Optuna's name for it since 3.2
            study.set_metric_names(names)
    return study


def _cut_torn_line(path: Path) -> None:
    """Cut the last line when a killed process did not finish it: Optuna could never append again."""
    if not path.exists():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)


def _distributions(space: SearchSpace) -> dict[str, CategoricalDistribution]:
    layers = {layer.name: CategoricalDistribution([choice.label for choice in layer.choices])
              for layer in space.layers}
    for_all: dict[str, list[str]] = {"calibration": [*space.calibrations], "clipping": [*space.clippings]}
    return {**layers, **{f"{WIDTH}{group.name}": CategoricalDistribution(list(group.widths))
                         for group in space.groups},
            **{f"{TOGETHER}{name}": CategoricalDistribution([str(value) for value in values])
               for name, values in for_all.items() if len(values) > 1}}
