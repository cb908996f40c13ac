"""Makes searchers: name -> factory. The names and what they need stand in search/samplers.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from search.baselines import sampled
from search.baselines.ase import Ase
from search.baselines.baseline import Baseline, SiteTable, Strategy
from search.baselines.chance import Chance
from search.baselines.fedspine import FedSpine
from search.baselines.hawq import Hawq
from search.baselines.ledger import Ledger
from search.baselines.mixdq import MixDq
from search.baselines.ohq import Ohq
from search.baselines.ordinal import Scale
from search.baselines.quantune import Quantune
from search.baselines.task import Searcher, Task
from search.proposers.adaptive import AdaptiveSearcher
from search.samplers import check_installed

Factory = Callable[[Task], Searcher]


def _on_the_scale(make: Callable[[Ledger, Scale], Strategy]) -> Factory:
    """Return a factory of what sees the reduced ordinal scale alone."""

    def factory(task: Task) -> Baseline:
        ledger, scale = Ledger(task, task.ladder), Scale(task.graph, task.ladder, task.seed)
        return Baseline(ledger, make(ledger, scale), scale)

    return factory


def _on_the_graph(make: Callable[[Ledger], Strategy]) -> Factory:
    """Return a factory of what sees every option."""

    def factory(task: Task) -> Baseline:
        every = [range(len(site.options)) for site in task.graph.sites]
        ledger = Ledger(task, every)
        strategy = make(ledger)
        return Baseline(ledger, strategy, Scale(task.graph, every, task.seed),
                        strategy if isinstance(strategy, SiteTable) else None)

    return factory


SEARCHERS: Mapping[str, Factory] = {
    "adaptive": AdaptiveSearcher,
    "tpe": _on_the_scale(lambda ledger, scale: sampled.tpe(ledger, scale, ledger.task.seed)),
    "nsga2": _on_the_scale(lambda ledger, scale: sampled.nsga2(ledger, scale, ledger.task.seed)),
    "gp": _on_the_scale(lambda ledger, scale: sampled.gp(ledger, scale, ledger.task.seed)),
    "random": _on_the_scale(lambda ledger, scale: Chance(scale)),
    "quantune": _on_the_scale(lambda ledger, scale: Quantune(ledger, scale, ledger.task.seed)),
    "hawq": _on_the_graph(Hawq),
    "ohq": _on_the_graph(Ohq),
    "ase": _on_the_scale(Ase),
    "fedspine": _on_the_graph(lambda ledger: FedSpine(ledger, ledger.task.seed)),
    "mixdq": _on_the_graph(MixDq),
}


def make_searcher(name: str, task: Task) -> Searcher:
    """Make a searcher by its name.

    Raises:
        UnknownSampler: there is none of this name.
        SamplerNotInstalled: a package that it needs is missing.
    """
    check_installed(name)
    return SEARCHERS[name](task)
