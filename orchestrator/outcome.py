"""What a study came to: everything that a report needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.ending import Ending
from orchestrator.finish import Verdict
from orchestrator.loop import Found, Loop
from orchestrator.objectives import LATENCY, SIZE
from orchestrator.store.records import StudyRecord, TrialRole
from orchestrator.units import Budget
from orchestrator.workbench import Workbench
from profilers.statistics import LatencySummary, summarise
from search.goal import Goal
from search.hypervolume import Corner, corner_of, hypervolume


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that a report needs."""

    bench: Workbench
    study: StudyRecord
    loop: Loop
    goal: Goal
    budget: Budget | None
    verdict: Verdict
    absent: dict[str, str]
    """Uniform recipe -> why it was not measured."""
    test: dict[str, dict[str, float]]
    """Candidate id -> metrics on the test split."""
    ending: Ending
    wall_s: float
    interrupted: bool

    def latency_of(self, found: Found) -> LatencySummary:
        """Return the latency that counts: of the confirmation where there was one, else of the search."""
        sessions: Sequence[tuple[int, ...]] = self.verdict.sessions.get(found.candidate.id) or ()
        if sessions:
            return summarise(sessions, self.bench.config.latency_stat)
        if found.latency is None:
            raise ValueError(f"candidate {found.candidate.id} was not measured")
        return found.latency

    def budget_s(self) -> float | None:
        """Return the latency limit in seconds; a share is taken of the baseline's confirmed latency."""
        if self.budget is None or self.budget.needs is None:
            return self.budget.absolute if self.budget else None
        base = next(f for f in self.loop.found.values()
                    if f.role is TrialRole.BASELINE and f.name == self.budget.needs)
        return self.budget.resolve(self.latency_of(base).value(self.bench.config.latency_stat))

    def objectives(self) -> list[str]:
        """Return what is looked for: metrics, latency, size."""
        front = self.goal.front
        if front is not None:
            return [self.goal.objective, LATENCY, *([SIZE] if front.size else [])]
        return [self.goal.objective if self.goal.maximises_quality else LATENCY]

    def corner(self) -> Corner | None:
        """Return the reference point of hypervolumes: the slowest and the least accurate of the uniform recipes.

        As the search measured them: the same for every sampler. None where only one was measured.
        """
        recipes = [f.evidence for f in self.loop.found.values()
                   if f.role is TrialRole.BASELINE and f.evidence is not None]
        return corner_of(recipes, self.goal.objective) if len(recipes) > 1 else None

    def hypervolume(self, corner: Corner) -> float:
        """Return the area that the front dominates of a corner."""
        statistic = self.bench.config.latency_stat
        front = [replace(f.evidence, latency_s=self.latency_of(f).value(statistic))
                 for f in self.front() if f.evidence is not None]
        return hypervolume(front, corner, self.goal.objective)

    def front(self) -> list[Found]:
        """Return the candidates that no other beats, fastest first."""
        statistic = self.bench.config.latency_stat
        known = {i: replace(f.evidence, latency_s=self.latency_of(f).value(statistic))
                 for i, f in self.loop.found.items() if f.evidence is not None}
        return [self.loop.found[i] for i in self.goal.pareto(known.items())]
