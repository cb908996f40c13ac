"""Estimates steer, what is about to be measured is built first: an engine whose host is too hopeful."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from search.adaptive.engine import PROMOTIONS
from search.adaptive.graph import Floats, Ints
from search.adaptive.memory import MEASURED, SHRUNK, Memory, News, key_of
from search.adaptive.quality import probes
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
        return replace(self.bench.task(), accuracy=self.estimate, dearer=(self.exact,) if exact else ())


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
        assert len(host.built) - before <= PROMOTIONS
        host.bench.answer(searcher, config)


def test_looking_ahead_builds_nothing_and_proposes_nothing() -> None:
    host = Hopeful(Bench.by_chance(leveled(4, levels=2)))
    searcher = AdaptiveSearcher(host.task())
    host.bench.drive(searcher, 4)
    before, blocked = list(host.built), set(searcher.engine.blocked)
    searcher.engine.outlook = None
    searcher.foresee()
    assert searcher.outlook() is not None
    assert host.built == before
    assert searcher.engine.blocked == blocked


def test_notes_say_what_was_built() -> None:
    graph = leveled(3)
    memory = Memory(graph, np.zeros(3, np.int64))
    configs = np.array([[0, 1, 2], [2, 1, 0]])
    memory.note_accuracy(configs, np.array([0.8, np.nan]))
    memory.note_accuracy(configs[:1], np.array([0.7]), level=1)
    again = Memory(graph, np.zeros(3, np.int64))
    again.learn(News.from_json(memory.news().to_json()))
    assert [again.level(key_of(config)) for config in (*configs, np.zeros(3, np.int64))] == [1, 0, -1]
    assert str(again.levels) == str(memory.levels), "NaN is no equal of itself"
    assert again.accuracy[key_of(configs[0])] == 0.7, "the built one counts"
    assert np.isnan(again.accuracy[key_of(configs[1])])


def test_a_replayed_search_asks_for_no_divergence_twice() -> None:
    bench, asked = Bench.by_chance(leveled(5, levels=2)), list[bytes]()

    def divergence(configs: Ints) -> Floats:
        asked.extend(key_of(config) for config in configs)
        return bench.divergence(configs)

    def made(seed: int) -> AdaptiveSearcher:
        searcher = AdaptiveSearcher(replace(bench.task(), divergence=divergence, seed=seed))
        searcher.engine.passes = 200  # a host that can screen more than it evaluates
        return searcher

    searcher, notes = made(0), list[str]()
    for _ in range(4):
        bench.drive(searcher, 1)
        notes.append(searcher.notes() or "")
    before = set(asked)
    assert len(asked) == len(before), "not within one search either"
    tables = {key_of(row) for table in searcher.engine.memory.tables for row in probes(bench.graph, table.center)}
    assert before - tables - set(searcher.engine.memory.levels), "some were screened, and not evaluated"
    again = made(1)
    for text in notes:
        again.learn(text, True)
    for config, latency_s in bench.told:
        again.tell(config, latency_s, float(bench.accuracy(config[None])[0]), {})
    bench.drive(again, 3)
    assert len(asked) > len(before), "other draws screen others"
    assert len(asked) == len(set(asked))


@dataclass
class Trained:
    """A host with three levels: rated, built, and trained, which gives back what a site's fourth option loses."""

    bench: Bench
    asked: list[tuple[int, bytes]] = field(default_factory=list)

    def at(self, level: int, configs: Ints) -> Floats:
        self.asked += [(level, key_of(config)) for config in configs]
        lost = 0.1 * (configs == 3).sum(1)
        found: Floats = self.bench.accuracy(configs) - (lost if level < 2 else 0.0)
        return found

    def task(self) -> Task:
        return replace(self.bench.task(), accuracy=lambda c: self.at(0, c),
                       dearer=(lambda c: self.at(1, c), lambda c: self.at(2, c)))


def test_what_is_measured_was_promoted_through_every_level() -> None:
    host = Trained(Bench.by_chance(leveled(4, levels=2)))
    searcher = AdaptiveSearcher(host.task())
    told = [config for config, _ in host.bench.told]
    for _ in range(6):
        config = searcher.propose()
        assert config is not None
        memory, key = searcher.engine.memory, key_of(config)
        assert len(host.asked) == len(set(host.asked)), "no level is computed twice"
        if memory.level(key) == 2:
            assert [level for level, asked in host.asked if asked == key] == [0, 1, 2], "cheapest first"
            assert memory.accuracy[key] == memory.levels[key][2], "the highest level counts"
        host.bench.answer(searcher, config)
        told.append(config)
    assert all(memory.level(key_of(config)) == MEASURED for config in told)


def test_what_training_adds_is_expected_of_the_others_too() -> None:
    memory = Memory(leveled(3), np.zeros(3, np.int64))
    configs = np.array([[n, 0, 0] for n in range(4)] + [[n, 1, 0] for n in range(4)])
    memory.note_accuracy(configs, np.full(8, 0.8))
    memory.note_accuracy(configs[:4], np.full(4, 0.84), level=1)
    believed = memory.believed()
    assert believed[key_of(configs[0])] == 0.84
    assert believed[key_of(configs[5])] == pytest.approx(0.8 + 0.04 * 4 / (4 + SHRUNK))
    for config in configs[:4]:
        memory.tell(key_of(config), 0.99)
    assert memory.believed()[key_of(configs[5])] == believed[key_of(configs[5])], "a board's examples may be easier"
    worse = Memory(leveled(3), np.zeros(3, np.int64))
    worse.note_accuracy(configs, np.full(8, 0.8))
    worse.note_accuracy(configs[:4], np.full(4, 0.7), level=1)
    assert worse.believed()[key_of(configs[5])] == 0.8, "it was picked for being high"
