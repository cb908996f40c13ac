"""Solve, measure, correct, solve again: proposes the configuration that a board should measure next.

Every round: the latency model's mean and a few draws from it give corrected costs; the solver finds the least
divergence within the budget for each; the host evaluates the accuracy of what is new; the board gets the
configuration with the largest expected gain times the probability that it meets the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from search.adaptive.graph import Extra, Floats, Graph, Ints
from search.adaptive.judge import LEAST_PROBABILITY, NO_RIVALS, Aim, Judge, Outlook, Rivals
from search.adaptive.latency import LatencyModel, Profile, Reading
from search.adaptive.luck import Close
from search.adaptive.memory import Memory, News, configs_of, key_of
from search.adaptive.quality import Divergence, Sensitivity, probes
from search.adaptive.round import SPREAD, Round

INNER = 2
"""Sensitivity tables that are taken anew in a round, each around the best that the last one led to."""
KEPT = 2
"""Tables around former centers that are still solved with."""
EVALUATIONS = 14
"""Configurations whose accuracy the host computes after each table."""
PROMOTIONS = 3
"""Of candidates to a dearer level, before one of them is measured."""
MARGIN = 0.001
"""What counts as an improvement: 0.1 points, or 0.1 % of the latency."""
WORTH = 0.5
"""Share of the margin that is no gain: on the exam, near twins of what was measured took measurements from others."""


@dataclass
class Engine:
    """Proposes for one latency budget.

    Args:
        model: what is believed of the boards.
        divergence: from float32, of batches of configurations; cheap.
        accuracy: of batches of configurations, on the host; dearer, and perhaps an estimate. NaN where a
            configuration is infeasible.
        budget_s: the latency that must not be exceeded; None: there is no such limit.
        floating: the configuration that is float32.
        seed: of the draws.
        extra: further resources with limits.
        aim: what is looked for.
        passes: calibration passes that the host has time for while one measurement is made: tables around new
            centers and the screening wait until they are affordable.
        evaluations: configurations whose accuracy the host computes after each table.
        margin: what counts as an improvement, in the unit of `accuracy`.
        narrowing: what the divergence of a new combination of levels costs beside, in passes.
        combinations: new combinations of levels whose accuracy the host computes after each table.
        dearer: the levels above `accuracy`, cheapest first: what is about to be measured is promoted one by one. The
            last one is as `tell` will give it; none: `accuracy` is that.
        closeness: of configurations whose accuracy is known, for which it costs nothing more; None: accuracies are
            taken as they are.
        promotions: at most so many before a proposal: where one is worse than it was rated, another may be better.
    """

    model: LatencyModel
    divergence: Divergence
    accuracy: Callable[[Ints], Floats]
    budget_s: float | None
    floating: Ints
    seed: int
    extra: Sequence[Extra] = ()
    aim: Aim = Aim.ACCURATE
    passes: float = np.inf
    evaluations: int = EVALUATIONS
    margin: float = MARGIN
    narrowing: float = 0.0
    combinations: float = np.inf
    dearer: Sequence[Callable[[Ints], Floats]] = ()
    closeness: Callable[[Ints], Sequence[Close | None]] | None = None
    promotions: int = PROMOTIONS
    measured: dict[bytes, list[float]] = field(default_factory=dict)
    """Configuration -> its readings, seconds."""
    blocked: set[bytes] = field(default_factory=set)
    """Configurations that are under way or infeasible."""
    outlook: Outlook | None = None
    """What the last proposal is expected to bring; None while nothing that was measured meets the budget."""
    rivals: Rivals = NO_RIVALS
    """What other searches for the same goal have found: only what beats it is an improvement."""

    def __post_init__(self) -> None:
        self.memory = Memory(self.graph, self.floating)
        if self.aim is Aim.FRONT:
            self.model.floor = 0.0  # doubts about small sites keep a front from spreading early (decision 5)

    @property
    def graph(self) -> Graph:
        return self.model.graph

    def tell(self, config: Ints, latency_s: float, accuracy: float | None,
             confirmed: bool = False, board: str = "") -> None:
        """Take in a measurement.

        Args:
            config: (sites,).
            latency_s: as the board says.
            accuracy: as the host computes it; None: nothing new.
            confirmed: it was read twice and is no spike.
            board: which one measured; where there are several, the budget is meant for the average one.
        """
        key = key_of(config)
        self.measured.setdefault(key, []).append(latency_s)
        self.blocked.discard(key)
        if accuracy is not None:
            self.memory.tell(key, accuracy)
        self.model.readings.append(Reading(tuple(int(o) for o in config), latency_s, confirmed, board))

    def tell_profile(self, config: Ints, site_s: Floats, timer_s: float) -> None:
        """Take in the time of every site of one configuration."""
        self.model.profiles.append(Profile(tuple(int(o) for o in config), tuple(float(t) for t in site_s), timer_s))

    def tell_infeasible(self, config: Ints) -> None:
        """A configuration can never be measured."""
        self.blocked.add(key_of(config))

    def learn(self, news: News) -> None:
        """Take in what an earlier proposal of the same study made the host find out (see `news`)."""
        self.memory.learn(news)

    def news(self) -> News:
        """Return what the host has found out since the last call: with it a replayed study proposes the same."""
        return self.memory.news()

    def propose(self, promotions: int | None = None) -> Ints | None:
        """Return what to measure next, never the same twice; None when nothing new is left.

        `promotions` instead of the engine's own: 0 where only the outlook is asked for.
        """
        if self.closeness is not None:
            self._note_close(configs_of([k for k in self.measured if k not in self.memory.close], self.graph.length))
        judge = self.judge()
        rng = np.random.default_rng([self.seed, len(self.model.readings), len(self.blocked)])
        for _ in range(INNER):
            fresh_table = self._linearise(judge)
            now = Round(self.graph, judge, self.memory, self._around(), self.extra, self.floating,
                        len(self.model.readings), judge.settled(self._free()))
            self._evaluate(self._screen(now, rng))
            if not fresh_table:
                break
        return self._choose(judge, self.promotions if promotions is None else promotions)

    def _choose(self, judge: Judge, promotions: int) -> Ints | None:
        """Return the best of what the host knows, by the accuracy of the highest level."""
        for promotion in range(promotions + 1):
            judge = replace(judge, accuracy=self.memory.believed())  # the host knows more by now
            pool = self._free()
            if not len(pool):
                break
            found = judge.choose(pool)
            level = self.memory.level(key_of(found))
            if level >= len(self.dearer) or promotion == promotions:
                self.outlook = judge.outlook(pool, self.margin)
                return found
            self.memory.note_accuracy(found[None], self.dearer[level](found[None]), level + 1)
            self._note_close(found[None])
        self.outlook = None
        return self._any_left()

    def _free(self) -> Ints:
        """Return what the host knows and nobody has measured: what runs, or all where nothing does."""
        pool, accuracy = self.memory.known()
        free = np.array([k not in self.measured and k not in self.blocked for k in map(key_of, pool)], bool)
        runs = free & np.isfinite(accuracy)
        found: Ints = pool[runs if runs.any() else free]
        return found

    def face(self, rivals: Rivals) -> None:
        """Take what other searches have found, and renew the outlook from what the host knows already.

        None before the host was asked, and while nothing meets the budget.
        """
        self.rivals, judge = rivals, self.judge()
        self.outlook = judge.outlook(self._free(), self.margin)
        if self.outlook is None and self.memory.tables and (rivals or judge.incumbent() is not None):
            self.outlook = Outlook(0.0, 0.0)  # nothing that the host knows meets the other constraints

    def exhausted(self) -> bool:
        """Tell whether every configuration was measured, is under way or infeasible."""
        return self._any_left() is None

    def judge(self) -> Judge:
        """Return what is believed now."""
        return Judge(self.model.posterior(), self.aim, self.budget_s, self.memory.believed(),
                     configs_of([*self.measured], self.graph.length), WORTH * self.margin, self.rivals)

    def _linearise(self, judge: Judge) -> bool:
        """Take a sensitivity table around float32 once, then around the best that is known; tell whether one was."""
        if not self.memory.tables:
            self.memory.take_table(self.divergence, self.floating, floating=True)
        center = self._center(judge)
        if center is None or any(np.array_equal(table.center, center) for table in self._around()):
            return False
        if self._credit() < self._price(center):
            return False
        self.memory.take_table(self.divergence, center)
        self.memory.note_passes(int(self.narrowing * self._widenings))
        return True

    def _around(self) -> list[Sensitivity]:
        """Return the tables that are solved with beside the first."""
        return self.memory.tables[1:][-KEPT:]

    def _credit(self) -> float:
        """Return how many calibration passes the host has time for."""
        return self.passes * (1 + len(self.model.readings)) - self.memory.passes

    def _price(self, center: Ints) -> float:
        """Return what a sensitivity table costs, in passes."""
        known = self.memory.divergence
        return sum(key_of(row) not in known for row in probes(self.graph, center)) + self.narrowing * self._widenings

    @cached_property
    def _widenings(self) -> int:
        """How many single changes of a level there are."""
        return sum(len({option.level for option in site.options}) - 1
                   for index, site in enumerate(self.graph.sites) if self.graph.leaders[index] == index)

    def _center(self, judge: Judge) -> Ints | None:
        """Return the best configuration that the host knows and that probably meets the budget.

        On the front, one point of it after the other.
        """
        configs, accuracy = self.memory.known()
        if self.aim is not Aim.FRONT or not len(configs):
            return judge.best(configs, accuracy, 0.5)
        usable = np.isfinite(accuracy) & (judge.probability(configs) >= 0.5)
        if not usable.any():
            return None
        times = judge.posterior.predict(configs)[0]
        slots = np.geomspace(times[usable].min(), times[usable].max(), SPREAD + 1)
        most = slots[1 + len(self.model.readings) % SPREAD]
        found: Ints = configs[np.argmax(np.where(usable & (times <= most * (1 + 1e-9)), accuracy, -np.inf))]
        return found

    def _screen(self, round_: Round, rng: np.random.Generator) -> Ints:
        """Keep the new configurations whose divergence and chance promise most."""
        pool = round_.pool(rng)
        new = [key_of(c) not in self.memory.levels and key_of(c) not in self.blocked for c in pool]
        configs: Ints = pool[np.array(new, bool)]
        if not len(configs):
            return configs
        chance, predicted = round_.judge.probability(configs), round_.corrected.predict(configs)
        order = np.argsort(np.where(chance >= LEAST_PROBABILITY / 2, predicted, np.inf), kind="stable")
        unknown = np.array([key_of(config) not in self.memory.divergence for config in configs[order]], bool)
        narrowing = unknown * self.narrowing * round_.fresh_levels(configs[order])
        affordable = int((np.cumsum(unknown + narrowing) <= self._credit()).sum())
        kept = order[:max(self.evaluations, affordable)]
        configs, chance = configs[kept], chance[kept]
        divergence = round_.corrected_divergence(configs, self.memory.diverging(self.divergence, configs))
        self.memory.note_passes(int(narrowing[:len(kept)].sum()))
        if self.aim is Aim.FRONT:
            order = round_.spread_out(configs, divergence, self.evaluations)
        else:
            rank = np.argsort(np.where(chance >= LEAST_PROBABILITY / 2, divergence, np.inf), kind="stable")
            order = round_.few_levels(configs, rank, self.combinations)[:self.evaluations]
        found: Ints = configs[order]
        return found

    def _evaluate(self, configs: Ints) -> None:
        if len(configs):
            self.memory.note_accuracy(configs, self.accuracy(configs))
            self._note_close(configs)

    def _note_close(self, configs: Ints) -> None:
        if self.closeness is not None and len(configs):
            self.memory.note_close(configs, self.closeness(configs))

    def _any_left(self) -> Ints | None:
        """Return the first configuration that was neither measured nor blocked; None when there is none."""
        return next((config for config in self.graph.every()
                     if key_of(config) not in self.measured and key_of(config) not in self.blocked), None)
