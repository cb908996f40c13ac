"""Estimates steer, what is about to be measured is built first: an engine whose host is too hopeful."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from search.adaptive.engine import BUILDS
from search.adaptive.graph import Floats, Ints
from search.adaptive.memory import Memory, News, key_of
from search.baselines.task import Task
from search.proposers.adaptive import AdaptiveSearcher
from tests.search.tasks import Bench, leveled


@dataclass
class Hopeful:
    """A host whose estimates are too high wherever the last site takes its fourth option."""

    bench: Bench
    built: list[bytes] = field(default_factory=list)

    def estimate(self, configs: Ints) -> Floats:
        return np.where(configs[:, -1] == 3, 0.95, self.bench.accuracy(configs))

    def exact(self, configs: Ints) -> Floats:
        self.built += [key_of(config) for config in configs]
        return self.bench.accuracy(configs)

    def task(self, exact: bool = True) -> Task:
        return replace(self.bench.task(), accuracy=self.estimate, exact=self.exact if exact else None)


def test_what_is_measured_is_what_is_best_when_built() -> None:
    graph = leveled(4, levels=2)
    with_builds, without = Hopeful(Bench.by_chance(graph)), Hopeful(Bench.by_chance(graph))
    with_builds.bench.drive(AdaptiveSearcher(with_builds.task()), 6)
    without.bench.drive(AdaptiveSearcher(without.task(exact=False)), 6)
    misled = [sum(config[-1] == 3 for config, _ in host.bench.told) for host in (with_builds, without)]
    assert misled[0] < misled[1], "a hope that a build destroys is not measured"
    assert len(with_builds.built) == len(set(with_builds.built)), "nothing is built twice"
    assert without.built == []


def test_few_are_built_for_one_proposal() -> None:
    host = Hopeful(Bench.by_chance(leveled(4, levels=2)))
    searcher = AdaptiveSearcher(host.task())
    for _ in range(6):
        before = len(host.built)
        config = searcher.propose()
        assert config is not None
        assert len(host.built) - before <= BUILDS
        host.bench.answer(searcher, config)


def test_notes_say_what_was_built() -> None:
    graph = leveled(3)
    memory = Memory(graph, np.zeros(3, np.int64))
    configs = np.array([[0, 1, 2], [2, 1, 0]])
    memory.note_accuracy(configs, np.array([0.8, np.nan]))
    memory.note_accuracy(configs[:1], np.array([0.7]), exact=True)
    again = Memory(graph, np.zeros(3, np.int64))
    again.learn(News.from_json(memory.news().to_json()))
    assert again.exact == {key_of(configs[0])}
    assert again.accuracy[key_of(configs[0])] == 0.7, "the built one counts"
    assert np.isnan(again.accuracy[key_of(configs[1])])
