"""The phases of a search: baselines, the goal that follows from them, seeds, proposals."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from itertools import chain, zip_longest

from orchestrator.config import StudyConfig
from orchestrator.contradictions import refuse_hopeless
from orchestrator.costmodel import prior_for
from orchestrator.ending import (
    NOT_PROPOSED,
    NOTHING_MEETS,
    OUT_OF_REACH,
    SAYS_NOT,
    Ending,
    larger_budget,
    little_expected,
    out_of_reach,
)
from orchestrator.errors import NothingRan
from orchestrator.finish import rebuild
from orchestrator.host_oracle import PoolOracle
from orchestrator.loop import Found, Loop
from orchestrator.notes import keep_notes, recall_notes
from orchestrator.objectives import parse_objectives
from orchestrator.store.records import TrialRole
from orchestrator.toolchain import Toolchain
from orchestrator.units import counted, parse_budget
from orchestrator.workbench import Workbench
from profilers.cost_model_rows import Conditions
from profilers.sites import sites_of
from search.baselines.wiring import make_searcher
from search.goal import Evidence, Goal
from search.proposers.base import Proposer
from search.proposers.graph import GraphProposer
from search.proposers.reduced import reduced_choices
from search.proposers.several import Several
from search.proposers.stopping import Stopping, Why
from search.recipes import UNIFORM, WEIGHTED, Named, seeds, uniforms, weightless_seed
from search.samplers import sampler_named
from search.space import LayerConfig, SearchSpace

IGNORING_PRIOR = ("tpe", "nsga2", "gp", "random", "quantune")
"""Samplers that do not ask what an analytic or learned model believes."""
ANCHORED = 3
"""Readings of the baseline that a latency budget is a share of: all other latencies are held against it."""
Tell = Callable[[Found], None]


def measure_baselines(bench: Workbench, loop: Loop, tell: Tell) -> dict[str, str]:
    """Measure the uniform recipes that the study needs, of every compiler; return name -> why one is absent.

    Raises:
        NothingRan: float32 itself (of the first compiler) does not run on the board.
        UsageError: float32 shows that a constraint cannot be met.
        KeyboardInterrupt: the user stopped before float32 was measured.
    """
    config = bench.config
    needed = config.needed_baselines()
    absent: dict[str, str] = {}
    named: list[Named] = []
    for compiler, space in bench.spaces.items():
        made, missing = uniforms(space, needed, config.threads)
        left_out = {name: "not asked for (--baselines needed)" for name in UNIFORM if name not in needed}
        absent |= {bench.recipe(compiler, name): why for name, why in (left_out | missing).items()}
        named += [replace(recipe, name=bench.recipe(compiler, recipe.name)) for recipe in made]
    references = {bench.recipe(compiler, "float32") for compiler in bench.toolchains}

    def learn(found: Found) -> None:
        if found.name in references and found.evidence is not None:
            _set_reference(bench, found)
            refuse_hopeless(config, bench.objective, bench.spaces, {found.candidate.compiler: found.evidence})
        tell(found)

    bench.progress.phase("measuring the baselines")
    if len(named) > config.measurements:
        fewer = "; --baselines needed leaves out the others" if config.baselines == "all" else ""
        bench.progress.note(f"the {len(named)} baselines are measured all the same, although --measurements is "
                            f"{config.measurements}{fewer}")
    for found in loop.found.values():
        if found.name in references and found.evidence is not None:  # of an earlier controller
            rebuild(loop, found)
            _set_reference(bench, found)
    anchor = parse_budget(config.budget).needs if config.budget else None
    loop.again = lambda found, latencies_s: found.name == anchor and len(latencies_s) < ANCHORED
    allowance = max(config.measurements, len(named))
    if bench.crew.size > 1:  # what makes the boards comparable comes before all else
        loop.run(iter([(n, TrialRole.BASELINE) for n in named if n.name in references]), allowance, learn)
    loop.run(iter([(n, TrialRole.BASELINE) for n in named]), allowance, learn)
    for found in loop.found.values():
        if found.measurement is not None and loop.again(found, [0.0] * len(found.readings)) and not loop.stop():
            rebuild(loop, found)  # of an earlier controller, for which it was no anchor
            loop.read_again(found)
    loop.again = lambda found, latencies_s: False
    float32 = next((f for f in loop.found.values() if f.name == "float32"), None)
    if float32 is None or float32.evidence is None:
        if float32 is None or float32.infeasible is None:
            raise KeyboardInterrupt
        raise NothingRan(f"float32 does not run on this board: {float32.infeasible}")
    for name, toolchain in bench.toolchains.items():
        if name not in float32_evidence(bench, loop):
            bench.progress.note(f"{name}: its float32 does not run with {toolchain.runtime} on this board, so nothing "
                                "of it is searched")
    for baseline in named:
        entry = loop.found.get(baseline.candidate.id)
        if entry is None or entry.evidence is None:
            absent[baseline.name] = (entry.infeasible if entry else None) or "not measured: stopped before"
    return absent


def _set_reference(bench: Workbench, found: Found) -> None:
    """Have the boards cross-examined by a compiler's float32, and compared by the first one's."""
    if found.measurement is not None:
        latency_s = statistics.median(found.measurement.comparable_ns) * 1e-9
        bench.crew.set_reference(found.job(), latency_s)


def float32_evidence(bench: Workbench, loop: Loop) -> dict[str, Evidence]:
    """Return what was measured of float32, by compiler; one whose float32 does not run is left out."""
    known = baseline_evidence(loop)
    return {compiler: known[name] for compiler in bench.toolchains
            if (name := bench.recipe(compiler, "float32")) in known}


def baseline_evidence(loop: Loop) -> dict[str, Evidence]:
    """Return what was measured of the uniform recipes, by name."""
    return {f.name: f.evidence for f in loop.found.values()
            if f.role is TrialRole.BASELINE and f.name is not None and f.evidence is not None}


def wanted_seeds(config: StudyConfig, space: SearchSpace) -> list[Named]:
    """Return the per-operator-kind recipes for which a sampler has no better use of the measurements.

    With a latency budget the adaptive engine does without, else it wants those of all layers with weights: it finds out
    more with the same measurements. For a front all of them show how fast the network can be.
    """
    every = list(seeds(space, config.threads))
    if config.sampler != "adaptive" or (config.objective is not None and parse_objectives(config.objective).front):
        return every
    return [] if config.budget is not None else [seed for seed in every if seed.name.endswith(WEIGHTED)]


def seeds_of_all(bench: Workbench, baselines: Collection[str], timed: int) -> list[Named]:
    """Return the seeds of every compiler that are planned, in turn: see `planned_seeds`."""
    room = max(0, (bench.config.measurements - timed + 1) // 2)
    own = [[replace(seed, name=bench.recipe(compiler, seed.name))
            for seed in planned_seeds(bench.config, space, baselines, timed)]
           for compiler, space in bench.spaces.items()]
    return [seed for seed in chain.from_iterable(zip_longest(*own)) if seed is not None][:room]


def planned_seeds(config: StudyConfig, space: SearchSpace, baselines: Collection[str], timed: int) -> list[Named]:
    """Return the per-operator-kind recipes that at most half of the measurements that the baselines leave are spent on.

    Args:
        config: the study.
        space: what is legal.
        baselines: candidate ids, which are measured already.
        timed: how many of these ran on the board.
    """
    room = max(0, (config.measurements - timed + 1) // 2)
    return [named for named in wanted_seeds(config, space) if named.candidate.id not in baselines][:room]


def measure_seeds(bench: Workbench, loop: Loop, tell: Tell) -> None:
    """Measure the per-operator-kind recipes, with at most half of the measurements that the baselines leave."""
    baselines = {i for i, f in loop.found.items() if f.role is TrialRole.BASELINE}
    timed = sum(1 for i in baselines if loop.found[i].measurement is not None)
    planned = seeds_of_all(bench, baselines, timed)
    if loop.stop() or not planned:
        return
    bench.progress.phase("measuring the per-operator-kind seeds")
    left = [n for n in planned if n.candidate.id not in loop.found or n.candidate.id in loop.orphans]
    loop.run(iter([(n, TrialRole.SEED) for n in left]), bench.config.measurements, tell)


def search_proposals(bench: Workbench, loop: Loop, goal: Goal, tell: Tell, interrupted: Callable[[], bool]) -> Ending:
    """Measure what the proposer proposes until hardly anything is expected of more, or no more is allowed.

    Args:
        bench: the open workbench.
        loop: what was measured.
        goal: what is looked for.
        tell: is told of every finished candidate.
        interrupted: the user says enough.
    """
    config, allowance = bench.config, bench.config.measurements
    stopped = Why.INTERRUPTED if interrupted() else Why.TIME
    if loop.stop() or (loop.measured >= allowance and not loop.orphans):
        return _ending(bench, loop, goal, stopped if loop.stop() else Why.ALLOWANCE, None)
    bench.progress.phase(f"searching ({config.sampler})")
    proposer = make_proposer(bench, loop, goal)
    recall_notes(bench.store, loop.study, proposer, bench.progress)
    for found in loop.found.values():
        if found.evidence is not None or found.infeasible is not None:
            proposer.tell(found.candidate, found.evidence)
    stopping, why = Stopping(config.stop_below), Why.EXHAUSTED

    def learn(found: Found) -> None:
        proposer.tell(found.candidate, found.evidence)
        tell(found)

    def proposals() -> Iterator[tuple[Named, TrialRole]]:
        nonlocal why
        for left in loop.unfinished():
            yield left, TrialRole.SEARCH
        while (candidate := proposer.propose()) is not None:
            keep_notes(bench.store, loop.study, proposer)
            over = stopping.look(proposer, _met(loop, goal))
            if over is not None:
                why = over
                return
            yield Named("", candidate), TrialRole.SEARCH

    loop.again = lambda found, latencies_s: (
        len(latencies_s) == 1 and proposer.surprising(found.candidate, latencies_s[0]))
    loop.run(proposals(), allowance, learn)
    if loop.stop():
        why = Why.INTERRUPTED if interrupted() else Why.TIME
    elif loop.measured >= allowance:
        why = Why.ALLOWANCE
        if sampler_named(config.sampler).foresees:
            proposer.foresee()  # now that everything is told
            keep_notes(bench.store, loop.study, proposer)
    ending = _ending(bench, loop, goal, why, proposer)
    if why in (Why.OUTLOOK, Why.UNREACHABLE, Why.EXHAUSTED):
        bench.progress.note(ending.message)
    return ending


def _met(loop: Loop, goal: Goal) -> bool:
    """Tell whether anything that was measured meets the goal."""
    return any(f.evidence is not None and goal.feasible(f.evidence) for f in loop.found.values())


def _ending(bench: Workbench, loop: Loop, goal: Goal, why: Why, proposer: Proposer | None) -> Ending:
    """Say why the search ended, and what its last proposal was expected to bring."""
    config = bench.config
    outlook = proposer.outlook() if proposer is not None else None
    if not sampler_named(config.sampler).foresees:
        silence = SAYS_NOT.format(config.sampler)
    else:
        silence = NOT_PROPOSED if proposer is None else NOTHING_MEETS
    spent = f"{loop.measured} of {counted(config.measurements, 'measurement')}"
    message = {Why.ALLOWANCE: f"all of {counted(config.measurements, 'measurement')} are made",
               Why.TIME: f"stopped after {spent}: --time {config.time} is over",
               Why.INTERRUPTED: f"stopped after {spent}: interrupted"}.get(why, "")
    if why is Why.EXHAUSTED:
        reduced = ("; it leaves out the formats that the baselines showed to be slower and no more accurate"
                   if sampler_named(config.sampler).reduced else "")
        message = f"stopped after {spent}: the sampler {config.sampler} finds nothing new{reduced}"
    if why is Why.OUTLOOK and outlook is not None:
        message = little_expected(spent, goal, outlook)
    if why is Why.UNREACHABLE and proposer is not None and (found := proposer.reach()) is not None and config.budget:
        budget, baselines = parse_budget(config.budget), baseline_evidence(loop)
        nearest_s = min(f.evidence.latency_s for f in loop.found.values() if f.evidence is not None)
        base = baselines[budget.needs].latency_s if budget.needs else None
        silence = OUT_OF_REACH
        message = out_of_reach(spent, goal, found, nearest_s, larger_budget(budget, nearest_s, base), config.prune)
    return Ending(why, message, outlook, silence)


def make_proposer(bench: Workbench, loop: Loop, goal: Goal) -> Proposer:
    """Make the proposer; of several compilers, one for each whose float32 runs, and what decides whose turn it is.

    Raises NothingRan without float32.
    """
    running = float32_evidence(bench, loop)
    if not running:
        raise NothingRan(f"the sampler {bench.config.sampler} needs float32, which was not measured")
    made = {name: _proposer(bench, loop, goal, bench.toolchains[name]) for name in running}
    if len(bench.toolchains) == 1:
        return next(iter(made.values()))
    return Several(made, goal, lambda: bench.config.measurements - loop.measured)


def _proposer(bench: Workbench, loop: Loop, goal: Goal, own: Toolchain) -> GraphProposer:
    """Make one compiler's: its whole space with the best prior for the board, and what the measured recipes leave."""
    config = bench.config
    recipe = bench.recipe(own.name, "float32")
    float32 = next(f.candidate for f in loop.found.values() if f.name == recipe)
    sites = sites_of(own.layers)
    target = own.builder.target
    where = Conditions(bench.board.kind, target.runtime, target.runtime_version, config.threads)
    prior = prior_for(bench.store, own.layers, sites, where, config.prior)
    if config.sampler not in IGNORING_PRIOR:
        bench.progress.note(prior.why if len(bench.toolchains) == 1 else f"{own.name}: {prior.why}")
    oracle = PoolOracle(bench.pool, own.builder, own.evaluator, float32)
    known = {f.name.removeprefix(f"{own.name}:"): f.evidence for f in loop.found.values()
             if f.name and f.evidence is not None and f.candidate.compiler == own.name}
    return GraphProposer(sites, prior.tables, oracle, goal,
                         lambda task: make_searcher(config.sampler, task), config.seed, config.threads,
                         measured_choices(own.space, known, goal))


def measured_choices(space: SearchSpace, known: Mapping[str, Evidence],
                     goal: Goal) -> dict[str, tuple[LayerConfig, ...]]:
    """Return, layer by layer, what the measured recipes do not rule out.

    Args:
        space: one compiler's.
        known: plain name of a recipe of this compiler -> what was measured.
        goal: what is looked for.
    """
    weighted: dict[LayerConfig, Evidence] = {}
    for name, config in UNIFORM.items():
        evidence = known.get(f"{name}{WEIGHTED}") or known.get(name)
        if evidence is not None:
            weighted[config] = evidence
    kinds = {layer.kind for layer in space.layers if not layer.weights}
    weightless = {kind: known[name] for kind in kinds if (name := weightless_seed(kind)) in known}
    return reduced_choices(space, weighted, weightless, goal)
