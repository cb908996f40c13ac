"""What the host has found out for the engine, and how it is written down so that a study can be replayed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from search.adaptive.graph import Floats, Graph, Ints
from search.adaptive.luck import Close, believed
from search.adaptive.quality import Divergence, Sensitivity, measure_sensitivity

SCHEMA = 2


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
    accuracy: Mapping[bytes, float] = field(default_factory=dict)
    """Configuration -> accuracy; NaN where it is infeasible."""
    passes: int = 0
    """Calibration passes beyond the first table."""
    exact: frozenset[bytes] = frozenset()
    """Of these the accuracy is the artifact's, no estimate."""
    close: Mapping[bytes, Close] = field(default_factory=dict)

    def __add__(self, other: News) -> News:
        """Return both."""
        return News((*other.tables, *self.tables), {**other.accuracy, **self.accuracy}, self.passes + other.passes,
                    self.exact | other.exact, {**other.close, **self.close})

    def to_json(self) -> str:
        """Write it down exactly."""
        return json.dumps({
            "schema": SCHEMA, "passes": self.passes,
            "tables": [{"center": t.center.tolist(), "values": t.values.tolist(), "floating": t.floating}
                       for t in self.tables],
            "close": [[np.frombuffer(key, np.int64).tolist(), close.divergence, close.luck]
                      for key, close in self.close.items()],
            "accuracy": [[np.frombuffer(key, np.int64).tolist(), None if np.isnan(value) else value, key in self.exact]
                         for key, value in self.accuracy.items()]}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> News:
        """Read it back. Raises ValueError for another schema."""
        data = json.loads(text)
        if data["schema"] != SCHEMA:
            raise ValueError(f"the engine's notes have the schema {data['schema']}, this version reads {SCHEMA}")
        tables = tuple(Finding(np.array(t["center"], np.int64), np.array(t["values"], float), t["floating"])
                       for t in data["tables"])
        accuracy = {key_of(np.array(config)): float("nan") if value is None else float(value)
                    for config, value, _ in data["accuracy"]}
        exact = frozenset(key_of(np.array(config)) for config, _, built in data["accuracy"] if built)
        close = {key_of(np.array(config)): Close(*values) for config, *values in data["close"]}
        return cls(tables, accuracy, data["passes"], exact, close)


class Memory:
    """All that the host has found out; `floating` is the configuration that is float32."""

    def __init__(self, graph: Graph, floating: Ints) -> None:
        self._graph, self._floating = graph, floating
        self.accuracy: dict[bytes, float] = {}
        """Configuration -> accuracy on the host; NaN where it is infeasible."""
        self.exact: set[bytes] = set()
        """Of these it is the artifact's, no estimate."""
        self.close: dict[bytes, Close] = {}
        self.tables: list[Sensitivity] = []
        """The first is around float32."""
        self.passes = 0
        """Calibration passes beyond the first table."""
        self._fresh = News()

    def learn(self, news: News) -> None:
        """Take in what an earlier proposal found out."""
        for finding in news.tables:
            self._keep(finding)
        self.accuracy.update(news.accuracy)
        self.exact |= news.exact
        self.close.update(news.close)
        self.passes += news.passes

    def take_table(self, divergence: Divergence, center: Ints, floating: bool = False) -> None:
        """Measure a sensitivity table."""
        values: list[Floats] = []

        def asked(configs: Ints) -> Floats:
            values.append(divergence(configs))
            return values[-1]

        least = 0.0 if floating else None
        self.tables.append(measure_sensitivity(self._graph, asked, center, least))
        found = np.concatenate(values)
        self._note(News(tables=(Finding(center, found, floating),), passes=0 if floating else len(found)))

    def note_accuracy(self, configs: Ints, accuracy: Floats, exact: bool = False) -> None:
        """Take in what the host computed: the artifact's accuracy, or an estimate."""
        found = dict(zip(map(key_of, configs), map(float, accuracy), strict=True))
        self.accuracy.update(found)
        self.exact |= set(found) if exact else set()
        self._note(News(accuracy=found, exact=frozenset(found if exact else ())))

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
        """Return configuration -> accuracy, without what is probably luck."""
        return believed(self.accuracy, self.close, self.accuracy.get(key_of(self._floating)))

    def known(self) -> tuple[Ints, Floats]:
        """Return configurations and what is believed of their accuracy; their order is always the same."""
        accuracy = self.believed()
        keys = sorted(accuracy)
        return configs_of(keys, self._graph.length), np.array([accuracy[key] for key in keys])

    def _keep(self, finding: Finding) -> None:
        least = 0.0 if finding.floating else None
        self.tables.append(measure_sensitivity(self._graph, lambda _: finding.values, finding.center, least))

    def _note(self, fresh: News) -> None:
        self.passes += fresh.passes
        self._fresh = fresh + self._fresh


def key_of(config: Ints) -> bytes:
    """Return a configuration as a key."""
    return np.asarray(config, np.int64).tobytes()


def configs_of(keys: Sequence[bytes], length: int) -> Ints:
    """Return keys as configurations: (count, sites)."""
    return np.array([np.frombuffer(key, np.int64) for key in keys], np.int64).reshape(-1, length)
