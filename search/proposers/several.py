"""Several spaces, one search: a proposer for each, and the next measurement is for the one that promises most.

Choosing an algorithm together with its parameters (Thornton et al. 2013, KDD, Auto-WEKA) by a bandit whose arms are
the algorithms, each with the curve of the best that it has found (Li et al. 2020, AAAI, "Efficient automatic CASH via
rising bandits"). Whose turn it is follows from what was told alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from search.adaptive.judge import NO_RIVALS, Outlook, Rivals
from search.adaptive.reach import Reach
from search.candidate import Candidate
from search.goal import TIE, Evidence, Goal
from search.proposers.base import Proposer
from search.proposers.stopping import UNREACHABLE

LITTLE = 6
"""Who has fewer measurements is little known: as many as there are uniform recipes."""
LEAST = 3
"""Before so many measurements nobody is out of the race, unless next to nothing of it runs."""
WINDOW = 8
"""Measurements in a row by which a sampler that does not say what it expects is judged."""
PROMISING = 0.05
"""What improves the result with less than this probability promises nothing."""


class Contender(Proposer, Protocol):
    """The proposer of one space, among others."""

    def offers(self) -> Rivals:
        """Return what was measured of its space within the goal's constraints."""

    def face(self, rivals: Rivals) -> None:
        """Take what the others offer, and renew the outlook with it; the host is asked nothing."""

    def chance_within(self, limit_s: float) -> float:
        """Return the probability that its fastest configuration takes at most so long; 1 before anything was told."""


class Several:
    """Proposes for one space or another. Implements Proposer.

    Args:
        contenders: compiler -> the proposer of its space.
        goal: of all of them.
        left: returns how many measurements are left.
    """

    def __init__(self, contenders: Mapping[str, Contender], goal: Goal, left: Callable[[], int]) -> None:
        self._contenders, self._goal, self._left = contenders, goal, left
        self._told: dict[str, list[tuple[str, Evidence]]] = {name: [] for name in contenders}
        """Compiler -> (candidate's id, what was measured), in order."""
        self._asked: Counter[str] = Counter()
        """Compiler -> candidates that were told of or proposed, each once."""
        self._known: set[str] = set()
        self._exhausted: set[str] = set()
        self._outlook: Outlook | None = None

    def propose(self) -> Candidate | None:
        """Return a candidate of the compiler whose turn it is; None when there is none left of any."""
        while racing := self._racing():
            name = self._turn(racing)
            candidate = self._contenders[name].propose()
            if candidate is None:
                self._exhausted.add(name)
                continue
            self._count(candidate)
            if self._contenders[name].outlook() is None:
                self._look([name])
            self._outlook = self._widest(racing)
            return candidate
        return None

    def tell(self, candidate: Candidate, evidence: Evidence | None) -> None:
        """Take what became of a candidate; one of a compiler that is not searched counts for nobody."""
        if candidate.compiler not in self._contenders:
            return
        self._count(candidate)
        self._contenders[candidate.compiler].tell(candidate, evidence)
        if evidence is not None:
            self._told[candidate.compiler].append((candidate.id, evidence))

    def surprising(self, candidate: Candidate, latency_s: float) -> bool:
        """See Proposer."""
        own = self._contenders.get(candidate.compiler)
        return own is not None and own.surprising(candidate, latency_s)

    def foresee(self) -> None:
        """See Proposer."""
        racing = self._racing()
        self._look(racing)
        for name in racing:
            self._contenders[name].foresee()
        self._outlook = self._widest(racing)

    def outlook(self) -> Outlook | None:
        """Return what the most promising one expects; None where nobody says."""
        return self._outlook

    def notes(self) -> str | None:
        """See Proposer."""
        found = {name: notes for name, own in self._contenders.items() if (notes := own.notes()) is not None}
        return json.dumps(found, separators=(",", ":")) if found else None

    def learn(self, notes: str) -> None:
        """See Proposer."""
        for name, own in json.loads(notes).items():
            if name in self._contenders:
                self._contenders[name].learn(own)

    def reach(self) -> Reach | None:
        """Return the fastest of all, and the likeliest to keep within the budget."""
        found = [reach for own in self._contenders.values() if (reach := own.reach()) is not None]
        if not found:
            return None
        return Reach(min(reach.latency_s for reach in found), max(reach.probability for reach in found))

    def _count(self, candidate: Candidate) -> None:
        if candidate.id not in self._known:
            self._known.add(candidate.id)
            self._asked[candidate.compiler] += 1

    def _racing(self) -> list[str]:
        """Return who may still have the winner, as far as there is more to propose; all where nobody may."""
        left = [name for name in self._contenders if name not in self._exhausted]
        self._look(left)
        return [name for name in left if self._may_win(name)] or left

    def _look(self, names: Sequence[str]) -> None:
        """Let everyone see what the others have."""
        offers = {name: own.offers() for name, own in self._contenders.items()}
        for name in names:
            others = [NO_RIVALS, *(found for other, found in offers.items() if other != name)]
            self._contenders[name].face(Rivals(np.concatenate([found.latency_s for found in others]),
                                               np.concatenate([found.accuracy for found in others])))

    def _turn(self, racing: Sequence[str]) -> str:
        """Return whose turn it is.

        The largest expected gain; those that are little known, or whose outlook is not, take turns with it.
        """
        gains = {name: outlook.gain if outlook.probability >= PROMISING else 0.0 for name in racing
                 if len(self._told[name]) >= LITTLE and (outlook := self._contenders[name].outlook()) is not None}
        leading = [name for name, gain in gains.items() if gain == max(gains.values())]
        return min((name for name in racing if name in leading or name not in gains), key=self._asked.__getitem__)

    def _widest(self, racing: Sequence[str]) -> Outlook | None:
        """Return the outlook with the largest probability of an improvement; None while somebody's is not known."""
        found = [self._contenders[name].outlook() for name in racing]
        known = [outlook for outlook in found if outlook is not None]
        return max(known, key=lambda outlook: outlook.probability, default=None) if len(known) == len(found) else None

    def _may_win(self, name: str) -> bool:
        """Tell whether a compiler may still have the winner, or extend the front."""
        own, told = self._contenders[name], self._told[name]
        if len(told) < LEAST:
            return self._asked[name] < LITTLE + WINDOW  # hardly any of so many runs
        budget_s, rival_s, outlook = self._goal.latency_budget_s, self._rival_s(name), own.outlook()
        if budget_s is not None and own.chance_within(budget_s) < UNREACHABLE:
            return False
        slower = rival_s is not None and own.chance_within(rival_s) < UNREACHABLE
        if slower and not self._goal.maximises_quality:
            return False
        if outlook is None:
            return self._catches_up(name)
        return not slower or len(told) < LITTLE or outlook.probability >= PROMISING

    def _rival_s(self, name: str) -> float | None:
        """Return the latency of the best of all where another compiler has it, and one best is looked for.

        What is neither more accurate nor as fast does not win: ties go to the faster.
        """
        everything = {i: (other, e) for other, told in self._told.items() for i, e in told}
        best = self._goal.best((i, e) for i, (_, e) in everything.items())
        if best is None or self._goal.front is not None:
            return None
        holder, evidence = everything[best]
        return evidence.latency_s if holder != name and self._goal.feasible(evidence) else None

    def _catches_up(self, name: str) -> bool:
        """Tell whether the best of a sampler that says nothing, going on as lately, is the best of all in the end.

        On a front: whether any of its last `WINDOW` lies on it.
        """
        own = self._told[name]
        everything = [pair for told in self._told.values() for pair in told]
        if len(own) < LITTLE + WINDOW:
            return True
        if self._goal.front is not None:
            return bool({i for i, _ in own[-WINDOW:]} & set(self._goal.pareto(everything)))
        best, before, now = self._best(everything), self._best(own[:-WINDOW]), self._best(own)
        if best is None or now is None or before is None:
            return best is None or now is not None  # nobody has anything; or it has just found its first
        tie = TIE if self._goal.maximises_quality else 0.0
        return now + (now - before) / WINDOW * self._left() >= best - tie

    def _best(self, told: Sequence[tuple[str, Evidence]]) -> float | None:
        """Return the best score within the constraints."""
        return max((self._goal.score(e) for _, e in told if self._goal.feasible(e)), default=None)
