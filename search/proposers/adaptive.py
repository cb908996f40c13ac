"""The adaptive engine as a searcher, with what it may ask of the host for each measurement."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from search.adaptive.engine import Engine
from search.adaptive.graph import Ints
from search.adaptive.judge import Outlook, Rivals
from search.adaptive.latency import LatencyModel
from search.adaptive.memory import News, key_of
from search.baselines.task import Task

PASSES = 24
"""Artifacts that are built and run on the calibration inputs for one measurement: one to two seconds of two cores."""
EVALUATIONS = 6
"""Artifacts whose accuracy is computed after each sensitivity table."""
NARROWING = 8
"""What the divergence of new widths costs beside, in passes: a reconstruction on few examples."""
COMBINATIONS = 8
"""New widths that are recovered and rated after each sensitivity table: a second each."""
CONFIDENCE = 0.98
"""Probability to meet the budget of what is shipped."""


class AdaptiveSearcher:
    """Implements Searcher.

    Args:
        task: what is searched.
        passes: calibration passes that the host has time for while one measurement is made.
        evaluations: configurations whose accuracy the host computes after each table.
    """

    def __init__(self, task: Task, passes: float = PASSES, evaluations: int = EVALUATIONS) -> None:
        self._task = task
        self.engine = Engine(LatencyModel(task.prior), task.divergence, task.accuracy, task.budget_s, task.floating,
                             task.seed, aim=task.aim, passes=passes, evaluations=evaluations, margin=task.tie,
                             narrowing=NARROWING, combinations=COMBINATIONS, dearer=task.dearer,
                             closeness=task.closeness)

    def propose(self) -> Ints | None:
        """See Searcher."""
        self.engine.extra = self._task.limits()
        config = self.engine.propose()
        if config is not None:
            self.engine.blocked.add(key_of(config))
        return config

    def tell(self, config: Ints, latency_s: float, accuracy: float, excess: Mapping[str, float]) -> None:
        """See Searcher."""
        broken = any(not value <= 0 for value in excess.values())
        self.engine.tell(config, latency_s, float("nan") if broken else accuracy)

    def tell_infeasible(self, config: Ints) -> None:
        """See Searcher."""
        self.engine.tell_infeasible(config)

    def notes(self) -> str | None:
        """See Searcher."""
        news = self.engine.news()
        return None if news == News() else news.to_json()

    def learn(self, notes: str, same: bool) -> None:
        """See Searcher."""
        news = News.from_json(notes)
        self.engine.learn(news if same else News(news.tables, passes=news.passes, divergence=news.divergence))

    def choice(self) -> Ints | None:
        """Return the most accurate (or fastest) that meets the budget with probability `CONFIDENCE`."""
        found = self.engine.judge().incumbent(CONFIDENCE)
        return None if found is None else np.asarray(found)

    def offers(self) -> Rivals:
        """See Searcher: latencies and accuracies as they are believed."""
        return self.engine.judge().offers()

    def face(self, rivals: Rivals) -> None:
        """See Searcher."""
        self.engine.face(rivals)

    def foresee(self) -> None:
        """See Searcher."""
        self.engine.extra = self._task.limits()
        self.engine.propose(promotions=0)

    def outlook(self) -> Outlook | None:
        """See Searcher; None also while nothing meets the goal: everything would be an improvement."""
        return self.engine.outlook
