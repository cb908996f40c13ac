"""Why a search ended, and what further measurements would bring, in the words that people and documents get."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.units import Budget, show_seconds
from search.adaptive.judge import FASTER, Outlook
from search.adaptive.reach import Reach
from search.goal import TIE, Goal
from search.proposers.stopping import UNREACHABLE, Why

if TYPE_CHECKING:
    from orchestrator.schemas.search import OutlookDocument

SLACK = 1.02
"""A budget that is suggested is so much larger than the latency that was measured once."""
LEAST = 0.01
"""Smaller probabilities and gains (points) are not told apart."""
SAYS_NOT = "the sampler {} does not say"
NOTHING_MEETS = ("of nothing that was measured is it likely enough that it meets the goal, so that whatever does "
                 "would be an improvement")
OUT_OF_REACH = "the latency budget is out of reach"
NOT_PROPOSED = "this run of the search proposed nothing"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a search ended."""

    why: Why
    message: str
    outlook: Outlook | None
    """Of the last proposal."""
    silence: str
    """Why there is no outlook."""

    def document(self, goal: Goal) -> OutlookDocument | None:
        """Return the outlook as documents show it."""
        if self.outlook is None:
            return None
        found: OutlookDocument = {"improvement": improvement(goal), "probability": self.outlook.probability}
        if goal.maximises_quality or goal.front is not None:
            found["gain_points"] = 100 * self.outlook.gain
        else:
            found["gain_s"] = self.outlook.gain
        return found


def improvement(goal: Goal) -> str:
    """Say what counts as an improvement, behind 'a further measurement'."""
    if goal.front is not None:
        return f"extends the front by more than {100 * TIE:g} points or {100 * FASTER:g} % of the latency"
    if goal.maximises_quality:
        return f"improves {goal.objective} by more than {100 * TIE:g} points"
    return f"is more than {100 * TIE:g} % faster"


def say_outlook(document: OutlookDocument) -> str:
    """Write an outlook as a sentence."""
    gain = _points(document["gain_points"]) if "gain_points" in document else show_seconds(document["gain_s"])
    return (f"A further measurement {document['improvement']} with probability "
            f"{_probability(document['probability'])}; the expected gain is {gain}.")


def little_expected(spent: str, goal: Goal, outlook: Outlook) -> str:
    """Say that the search stops, because hardly anything is expected of going on."""
    return (f"stopped after {spent}: a further one {improvement(goal)} with probability "
            f"{_probability(outlook.probability)}")


def out_of_reach(spent: str, goal: Goal, found: Reach, nearest_s: float, suggestion: str, prune: bool) -> str:
    """Say that no configuration keeps within the latency budget, how near one comes, and what would help.

    Args:
        spent: the measurements.
        goal: with a latency budget.
        found: what is believed of the fastest configurations.
        nearest_s: the least latency that was measured.
        suggestion: a budget that can be met.
        prune: channels may be pruned already.
    """
    return (f"stopped after {spent}: no configuration keeps within {show_seconds(goal.latency_budget_s or 0.0)} (the "
            f"likeliest with a probability below {UNREACHABLE:g}); the fastest that was measured takes "
            f"{show_seconds(nearest_s)}, the fastest of all probably {show_seconds(found.latency_s)}; what helps: "
            f"--budget {suggestion}" + ("" if prune else ", or --prune in a new study"))


def larger_budget(budget: Budget, nearest_s: float, baseline_s: float | None) -> str:
    """Return a budget that what was measured meets, in the form in which the budget was given.

    Args:
        budget: as it was asked for.
        nearest_s: the least latency that was measured.
        baseline_s: latency of the baseline of which the budget is a share.
    """
    if budget.factor is None or baseline_s is None:
        value, unit = next((nearest_s / scale, unit) for unit, scale in (
            ("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)) if nearest_s >= scale or unit == "ns")
        return f"{_up(SLACK * value):g}{unit}"
    name = f":{budget.baseline}" if budget.baseline else ""
    return f"{_up(SLACK * nearest_s / baseline_s):g}x{name}"


def _probability(value: float) -> str:
    return f"{value:.2f}" if value >= LEAST else f"below {LEAST:g}"


def _points(value: float) -> str:
    return f"{value:.2g} points" if value >= LEAST else f"below {LEAST:g} points"


def _up(value: float) -> float:
    """Round up to three digits."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / step) * step
