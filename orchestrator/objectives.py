"""What a study looks for: one best candidate, or the Pareto front of several objectives."""

from __future__ import annotations

import re
from dataclasses import dataclass

from orchestrator.errors import UsageError
from search.goal import METRIC_NAME
from search.samplers import SAMPLERS

ACCURACY, LATENCY, SIZE = "accuracy", "latency", "size"
UNMEASURED = ("energy", "memory")
"""What no board of a study measures yet."""


@dataclass(frozen=True, slots=True)
class Objectives:
    """What `--objective` says."""

    metric: str | None
    """A metric's own name; None: the first metric of the data."""
    latency: bool
    quality: bool
    size: bool

    @property
    def front(self) -> bool:
        """Whether several are looked for at once."""
        return self.latency + self.quality + self.size > 1


def parse_objectives(text: str) -> Objectives:
    """Read `accuracy,latency`, `recall_6,latency,size`, or one word. Raises UsageError."""
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word in UNMEASURED:
            raise UsageError(f"no board of this study measures {word}; measured are latency, size and the quality "
                             f"metrics; got {text!r}")
        if re.fullmatch(METRIC_NAME, word) is None:
            raise UsageError("expected objectives with commas between them, such as accuracy,latency or "
                             f"accuracy,latency,size, got {text!r}")
    if len(words) != len(set(words)):
        raise UsageError(f"expected every objective once, got {text!r}")
    metrics = [word for word in words if word not in (LATENCY, SIZE)]
    if len(metrics) > 1:
        raise UsageError(f"expected one quality metric beside latency and size, got {text!r}; --require bounds others")
    found = Objectives(next((word for word in metrics if word != ACCURACY), None), LATENCY in words, bool(metrics),
                       SIZE in words)
    if found.size and not (found.latency and found.quality):
        raise UsageError(f"a front with size has accuracy and latency too: accuracy,latency,size; got {text!r}; "
                         "--size-budget limits the size")
    return found


def check_objectives(text: str, sampler: str, budget: bool) -> None:
    """Refuse what contradicts the rest of a study.

    Args:
        text: the objectives.
        sampler: what proposes.
        budget: the study has a latency or size budget.

    Raises:
        UsageError: which does not say where the text stands.
    """
    found = parse_objectives(text)
    if found.front and not SAMPLERS[sampler].fronts:
        known = [name for name, entry in SAMPLERS.items() if entry.fronts]
        raise UsageError(f"the sampler {sampler} looks for one best candidate, no front; those that do: "
                         f"{', '.join(known)}")
    if not found.front and found.latency and budget:
        raise UsageError("with a budget the most accurate candidate within it is looked for; leave the budget out to "
                         "get the fastest (--max-drop says how accurate), or give accuracy,latency for the front "
                         "within it")
    if not found.front and found.quality and not budget:
        raise UsageError("the most accurate of all is float32 or one as slow; give --budget or --size-budget, or "
                         "accuracy,latency for the front")
