"""How long the adaptive engine thinks: milliseconds a proposal, without what it asks of the host.

    .venv/bin/python -m benchmarks.proposals
        [--layers 20,60] [--measurements 100,1000] [--repeats 7]

Made-up networks with skips: 20 options a layer (five formats at four widths), a prior that is 20 % wrong for every
option, 2 % of noise, an accuracy that is nearly additive. Before the proposals that are timed, the engine has seen so
many measurements of what lies around the best.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.table import Table

from search.adaptive.engine import Engine
from search.adaptive.graph import Floats, Graph, Ints, Option, Site, Tables
from search.adaptive.latency import LatencyModel
from search.adaptive.memory import key_of
from search.proposers.adaptive import COMBINATIONS, EVALUATIONS, NARROWING, PASSES

FORMATS = {"float32": (1.0, 0.0), "fp16": (0.8, 0.001), "w8": (0.9, 0.01), "w8a8": (0.35, 0.05), "w4a8": (0.5, 0.2)}
"""Name -> (latency beside float32, loss)."""
WIDTHS = 4
KINDS = ("conv", "dw", "fc")
TARGETS_MS = {(20, 100): 60, (60, 100): 150, (20, 1000): 500, (60, 1000): 500}
AROUND = 0.2
"""Share of the layers in which what was measured differs from the best."""
NOISE = 0.02


@dataclass
class Host:
    """A host and a board whose truth is known; how long they were asked."""

    layers: int
    seed: int
    spent_s: float = 0.0
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = rng = np.random.default_rng(self.seed)
        options = tuple(Option(name, "int" if name.endswith("a8") else "float", (name, f"p{level}"), level)
                        for level in range(WIDTHS) for name in FORMATS)
        self.graph = Graph(tuple(Site(f"s{i}", KINDS[i % 3], options, i - 1, (i - 3,) if i % 4 == 3 and i > 3 else ())
                                 for i in range(self.layers)))
        speed = np.array([FORMATS[o.scheme][0] * (1 - 0.22 * o.level) for o in options])
        read = 1 - 0.2 * np.arange(WIDTHS)
        costs = rng.lognormal(0, 0.6, self.layers)[:, None, None] * 1e-3 * read[None, :, None] * speed[None, None]
        forms = np.array([o.format for o in options])
        edges = np.repeat(1e-4 * (forms[:, None] != forms[None])[None], len(self.graph.edges), 0)
        self.prior = Tables(self.graph, costs, edges)
        wrong = np.exp(0.2 * rng.normal(size=(self.layers, 1, len(options))))
        self.true = Tables(self.graph, costs * wrong, 1.3 * edges)
        harm = np.array([FORMATS[o.scheme][1] + 0.2 * o.level ** 1.5 for o in options])
        self.loss = 0.01 * rng.lognormal(0, 1, self.layers)[:, None] * harm[None]

    def divergence(self, configs: Ints) -> Floats:
        found: Floats = self.loss[np.arange(self.layers)[None], configs].sum(1)
        return found

    def accuracy(self, configs: Ints) -> Floats:
        found: Floats = 0.91 - 0.4 * self.divergence(configs) + 0.0005 * np.sin(configs.sum(1))
        return found

    def timed(self, answer: Callable[[Ints], Floats]) -> Callable[[Ints], Floats]:
        def ask(configs: Ints) -> Floats:
            started = time.perf_counter()
            found = answer(configs)
            self.spent_s += time.perf_counter() - started
            return found
        return ask

    def measure(self, engine: Engine, config: Ints) -> None:
        latency_s = float(self.true.total(config[None])[0]) * float(np.exp(NOISE * self.rng.normal()))
        engine.tell(config, latency_s, float(self.accuracy(config[None])[0]))


def proposal_ms(layers: int, measurements: int, repeats: int, seed: int) -> tuple[list[float], float]:
    """Return milliseconds of every proposal, and the host's for one."""
    host = Host(layers, seed)
    int8 = np.full(layers, list(FORMATS).index("w8a8"))
    engine = Engine(LatencyModel(host.prior), host.timed(host.divergence), host.timed(host.accuracy),
                    0.6 * float(host.true.total(int8[None])[0]), np.zeros(layers, np.int64), seed, passes=PASSES,
                    evaluations=EVALUATIONS, narrowing=NARROWING, combinations=COMBINATIONS)
    host.measure(engine, int8)
    for _ in range(3):
        found = engine.propose()
        assert found is not None
        host.measure(engine, found)
    best = engine.judge().incumbent()
    center = int8 if best is None else best
    while len(engine.model.readings) < measurements:
        changed = host.rng.random(layers) < AROUND
        config = np.where(changed, host.rng.integers(0, host.graph.width, layers), center)
        if key_of(config) not in engine.measured:
            host.measure(engine, config)
    taken_ms, host.spent_s = [], 0.0
    for _ in range(repeats):
        before_s, started = host.spent_s, time.perf_counter()
        found = engine.propose()
        taken_ms.append(1e3 * (time.perf_counter() - started - (host.spent_s - before_s)))
        assert found is not None
        host.measure(engine, found)
    return taken_ms, 1e3 * host.spent_s / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", default="20,60")
    parser.add_argument("--measurements", default="100,1000")
    parser.add_argument("--repeats", type=int, default=7, help="proposals that are timed")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    table = Table(title=f"proposals, median of {given.repeats}; {os.cpu_count()} cores",
                  title_justify="left", show_edge=False, pad_edge=False)
    for column in ("layers", "measured", "ms", "least - most", "target ms", "host ms here"):
        table.add_column(column, justify="right")
    for measurements in map(int, given.measurements.split(",")):
        for layers in map(int, given.layers.split(",")):
            taken_ms, host_ms = proposal_ms(layers, measurements, given.repeats, given.seed)
            target = TARGETS_MS.get((layers, measurements))
            table.add_row(str(layers), str(measurements), f"{statistics.median(taken_ms):.0f}",
                          f"{min(taken_ms):.0f} - {max(taken_ms):.0f}", "-" if target is None else str(target),
                          f"{host_ms:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
