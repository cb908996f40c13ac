"""What the host has found out for the engine, and how it is written down so that a study can be replayed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from search.adaptive.graph import Floats, Graph, Ints
from search.adaptive.luck import Close, believed
from search.adaptive.quality import Divergence, Sensitivity, measure_sensitivity, probes

SCHEMA = 4
MEASURED = 99
"""The level of what was told with a measurement: perhaps on a board, and on other examples than the host's."""
SHRUNK = 4
"""What dearer levels add is believed as if so many promotions had added nothing."""
Accuracies = Mapping[bytes, Mapping[int, float]]
"""Configuration -> level -> accuracy; NaN where it is infeasible. Of two levels the higher one counts."""


@dataclass(frozen=True)
class Finding:
    """One sensitivity table as it was measured."""

    center: Ints
    values: Floats
    """Divergences in the order in which they were asked for."""
    floating: bool
    """Around float32, where nothing can improve."""


@dataclass(frozen=True)
class News:
    """What one proposal made the host find out."""

    tables: tuple[Finding, ...] = ()
    accuracy: Accuracies = field(default_factory=dict)
    passes: int = 0
    """Calibration passes beyond the first table."""
    close: Mapping[bytes, Close] = field(default_factory=dict)
    divergence: Mapping[bytes, float] = field(default_factory=dict)
    """Of configurations outside of tables."""

    def __add__(self, other: News) -> News:
        """Return both."""
        accuracy = {key: {**other.accuracy.get(key, {}), **self.accuracy.get(key, {})}
                    for key in (*other.accuracy, *self.accuracy)}
        return News((*other.tables, *self.tables), accuracy, self.passes + other.passes,
                    {**other.close, **self.close}, {**other.divergence, **self.divergence})

    def to_json(self) -> str:
        """Write it down exactly."""
        return json.dumps({
            "schema": SCHEMA, "passes": self.passes,
            "tables": [{"center": t.center.tolist(), "values": t.values.tolist(), "floating": t.floating}
                       for t in self.tables],
            "divergence": [[np.frombuffer(key, np.int64).tolist(), value] for key, value in self.divergence.items()],
            "close": [[np.frombuffer(key, np.int64).tolist(), close.divergence, close.luck]
                      for key, close in self.close.items()],
            "accuracy": [[np.frombuffer(key, np.int64).tolist(), level, None if np.isnan(value) else value]
                         for key, levels in self.accuracy.items() for level, value in levels.items()]},
                          separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> News:
        """Read it back. Raises ValueError for another schema."""
        data = json.loads(text)
        if data["schema"] != SCHEMA:
            raise ValueError(f"the engine's notes have the schema {data['schema']}, this version reads {SCHEMA}")
        tables = tuple(Finding(np.array(t["center"], np.int64), np.array(t["values"], float), t["floating"])
                       for t in data["tables"])
        accuracy: dict[bytes, dict[int, float]] = {}
        for config, level, value in data["accuracy"]:
            accuracy.setdefault(key_of(np.array(config)), {})[level] = float("nan") if value is None else float(value)
        close = {key_of(np.array(config)): Close(*values) for config, *values in data["close"]}
        divergence = {key_of(np.array(config)): float(value) for config, value in data["divergence"]}
        return cls(tables, accuracy, data["passes"], close, divergence)


class Memory:
    """All that the host has found out; `floating` is the configuration that is float32."""

    def __init__(self, graph: Graph, floating: Ints) -> None:
        self._graph, self._floating = graph, floating
        self.levels: dict[bytes, dict[int, float]] = {}
        """See Accuracies."""
        self.close: dict[bytes, Close] = {}
        self.divergence: dict[bytes, float] = {}
        """From float32."""
        self.tables: list[Sensitivity] = []
        """The first is around float32."""
        self.passes = 0
        """Calibration passes beyond the first table."""
        self._fresh = News()

    def learn(self, news: News) -> None:
        """Take in what an earlier proposal found out."""
        for finding in news.tables:
            self._keep(finding)
        for key, levels in news.accuracy.items():
            self.levels[key] = {**self.levels.get(key, {}), **levels}
        self.close.update(news.close)
        self.divergence.update(news.divergence)
        self.passes += news.passes

    def take_table(self, divergence: Divergence, center: Ints, floating: bool = False) -> None:
        """Measure a sensitivity table."""
        rows = probes(self._graph, center)
        fresh = self._diverge(divergence, rows)
        finding = Finding(center, self._divergences(rows), floating)
        self._keep(finding)
        self._note(News(tables=(finding,), passes=0 if floating else len(fresh)))

    def diverging(self, divergence: Divergence, configs: Ints) -> Floats:
        """Return divergences: (configurations,); what is known the host is not asked again."""
        fresh = self._diverge(divergence, configs)
        self._note(News(divergence=fresh, passes=len(fresh)))
        return self._divergences(configs)

    def note_accuracy(self, configs: Ints, accuracy: Floats, level: int = 0) -> None:
        """Take in what the host computed at a level."""
        found = dict(zip(map(key_of, configs), map(float, accuracy), strict=True))
        for key, value in found.items():
            self.tell(key, value, level)
        self._note(News(accuracy={key: {level: value} for key, value in found.items()}))

    def tell(self, key: bytes, accuracy: float, level: int = MEASURED) -> None:
        """Take in an accuracy that others keep."""
        self.levels.setdefault(key, {})[level] = accuracy

    def level(self, key: bytes) -> int:
        """Return the level that a configuration's accuracy is from; -1: it has none."""
        return max(self.levels.get(key, {-1: 0.0}))

    @property
    def accuracy(self) -> dict[bytes, float]:
        """Configuration -> accuracy at its highest level."""
        return {key: levels[max(levels)] for key, levels in self.levels.items()}

    def note_close(self, configs: Ints, close: Sequence[Close | None]) -> None:
        """Take in how close configurations are to float32; None: not known."""
        found = {key_of(config): one for config, one in zip(configs, close, strict=True) if one is not None}
        self.close.update(found)
        self._note(News(close=found))

    def note_passes(self, passes: int) -> None:
        """Take in that the host ran the calibration inputs so often."""
        self._note(News(passes=passes))

    def news(self) -> News:
        """Return what has been found out since the last call."""
        fresh, self._fresh = self._fresh, News()
        return fresh

    def believed(self) -> dict[bytes, float]:
        """Return configuration -> accuracy, without what is probably luck, and with what dearer levels will add."""
        known = self.accuracy
        more = self._added()
        found = believed(known, self.close, known.get(key_of(self._floating)))
        return {key: value + sum(added for level, added in more.items() if level > self.level(key))
                for key, value in found.items()} if more else found

    def _added(self) -> dict[int, float]:
        """Return level -> what it adds to the accuracy of the one below, as promotions have shown so far.

        Nothing where it takes away: what is promoted was picked for a high accuracy, and is often worse than that.
        """
        shown: dict[int, list[float]] = {}
        for levels in self.levels.values():
            order = sorted(level for level in levels if level < MEASURED)
            for below, level in pairwise(order):
                if np.isfinite(levels[below]) and np.isfinite(levels[level]):
                    shown.setdefault(level, []).append(levels[level] - levels[below])
        return {level: max(sum(gains), 0.0) / (len(gains) + SHRUNK) for level, gains in shown.items()}

    def known(self) -> tuple[Ints, Floats]:
        """Return configurations and what is believed of their accuracy; their order is always the same."""
        accuracy = self.believed()
        keys = sorted(accuracy)
        return configs_of(keys, self._graph.length), np.array([accuracy[key] for key in keys])

    def _diverge(self, divergence: Divergence, configs: Ints) -> dict[bytes, float]:
        """Ask the host for what is not known, and return that."""
        missing = [key for key in dict.fromkeys(map(key_of, configs)) if key not in self.divergence]
        values = divergence(configs_of(missing, self._graph.length)) if missing else ()
        fresh = dict(zip(missing, map(float, values), strict=True))
        self.divergence.update(fresh)
        return fresh

    def _divergences(self, configs: Ints) -> Floats:
        return np.array([self.divergence[key] for key in map(key_of, configs)])

    def _keep(self, finding: Finding) -> None:
        rows = probes(self._graph, finding.center)
        self.divergence.update(zip(map(key_of, rows), map(float, finding.values), strict=True))
        least = 0.0 if finding.floating else None
        self.tables.append(measure_sensitivity(self._graph, self._divergences, finding.center, least))

    def _note(self, fresh: News) -> None:
        self.passes += fresh.passes
        self._fresh = fresh + self._fresh


def key_of(config: Ints) -> bytes:
    """Return a configuration as a key."""
    return np.asarray(config, np.int64).tobytes()


def configs_of(keys: Sequence[bytes], length: int) -> Ints:
    """Return keys as configurations: (count, sites)."""
    return np.array([np.frombuffer(key, np.int64) for key in keys], np.int64).reshape(-1, length)
