"""The searchers that can be asked for by name: one line each, and the packages that they need beside the usual ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec


class UnknownSampler(ValueError):
    """No searcher has this name."""


class SamplerNotInstalled(ValueError):
    """A searcher needs a package that is missing."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """How a searcher is told from the others."""

    line: str
    """At most 44 characters, for --help."""
    reduced: bool = False
    """Whether it sees only what the measured recipes leave of the space."""
    package: str | None = None
    """The module that it imports when it is used."""
    install: str | None = None
    """What pip is asked to install where that module is missing."""
    foresees: bool = False
    """Whether it says what further measurements would bring."""
    fronts: bool = False
    """Whether it looks for a front of accuracy and latency where that is asked for."""


SAMPLERS: Mapping[str, Sampler] = {
    "adaptive": Sampler("solve, measure, correct, solve again", foresees=True, fronts=True),
    "tpe": Sampler("Optuna's TPE, and steps from the best", reduced=True),
    "nsga2": Sampler("Optuna's NSGA-II: accuracy and latency", reduced=True, fronts=True),
    "gp": Sampler("Optuna's Gaussian process; needs torch", True, "torch", "hil-orchestrator[tflite]"),
    "random": Sampler("chance: what the others must beat", reduced=True, fronts=True),
    "quantune": Sampler("XGBoost on what was measured", True, "xgboost", "xgboost"),
    "hawq": Sampler("integer program on a latency model"),
    "ohq": Sampler("integer program on a measured table"),
    "ase": Sampler("evokes a subspace, searches within it", reduced=True),
    "fedspine": Sampler("bandit over bit and pruning ratios"),
    "mixdq": Sampler("integer program, a table for each metric"),
}


def sampler_named(name: str) -> Sampler:
    """Return what is known of a searcher. Raises UnknownSampler, which lists the known names."""
    if name not in SAMPLERS:
        raise UnknownSampler(f"no sampler is called {name!r}; known: {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def check_installed(name: str) -> None:
    """Refuse a searcher whose package is missing. Raises UnknownSampler, SamplerNotInstalled."""
    found = sampler_named(name)
    if found.package is not None and find_spec(found.package) is None:
        raise SamplerNotInstalled(f"the sampler {name!r} needs {found.package}, which is not installed; run "
                                  f"\"pip install '{found.install}'\", or choose another sampler")
