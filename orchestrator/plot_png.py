"""The pictures as PNG, drawn by matplotlib without a display."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from orchestrator.plot_labels import Name, place_names
from orchestrator.plot_style import BIT_COLOURS, BIT_WIDTHS, FRONT, LIMIT, ROLES, WINNER
from orchestrator.plots import (
    LayerBits,
    Unit,
    best_so_far,
    compiler_noun,
    is_logarithmic,
    latency_axis,
    layer_bits,
    lowest_shown,
    margin_of,
    title,
    verdict,
)
from orchestrator.store.records import TrialRole
from orchestrator.study_view import Point, StudyView
from orchestrator.units import counted, show_seconds

_DPI = 150
_ROWS, _BLOCKS = 30, 4
_DENSITY = 25
_BAR = 9
"""Points along an interval's bar that names avoid."""


def pareto(view: StudyView, path: Path) -> Path:
    """Draw latency against quality; baselines are named, the winner is marked, the budget is a line."""
    figure, axes = _picture(9.0, 6.2)
    unit = Unit.of(max(point.evidence.latency_s for point in view.points))
    floor = lowest_shown([_quality(view, point) for point in view.points])
    top = max(_quality(view, point) for point in view.points)
    margin = margin_of(floor, top)
    xs = {p.trial.id: p.evidence.latency_s / unit.seconds for p in view.points}
    ys = {p.trial.id: max(_quality(view, p), floor - margin / 2) for p in view.points}
    if is_logarithmic(view):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    bars = {p.trial.id: (min(xs[p.trial.id], p.latency.ci95[0] / unit.seconds),
                         max(xs[p.trial.id], p.latency.ci95[1] / unit.seconds)) for p in view.points}

    def draw(chosen: Sequence[Point], marker: str, colour: str, label: str | None, hollow: bool = False) -> None:
        x, y = [xs[p.trial.id] for p in chosen], [ys[p.trial.id] for p in chosen]
        reach = ([xs[p.trial.id] - bars[p.trial.id][0] for p in chosen],
                 [bars[p.trial.id][1] - xs[p.trial.id] for p in chosen])
        axes.errorbar(x, y, xerr=reach, fmt=marker, color=colour, mfc="white" if hollow else colour, ms=5.5,
                      capsize=2.5, lw=1, alpha=0.85, label=label, zorder=3)

    front = view.front()
    if len(front) > 1:
        axes.step([xs[p.trial.id] for p in front], [ys[p.trial.id] for p in front], where="post", color=FRONT, lw=1.4,
                  label="Pareto front", zorder=2)
    for role, style in ROLES.items():
        for number, compiler in enumerate(view.record.spaces):
            chosen = [p for p in view.points
                      if p.trial.role is role and p.compiler == compiler and p is not view.winner]
            if chosen:
                draw(chosen, style.marker, style.colour, compiler_noun(view, style.noun, compiler), number > 0)
    names = []
    if view.winner is not None:
        x0, y0 = xs[view.winner.trial.id], ys[view.winner.trial.id]
        word = "winner" if view.finished else "best so far"
        draw([view.winner], "none", WINNER, None)
        axes.plot([x0], [y0], "*", color=WINNER, ms=17, mec="white", mew=0.8, ls="none", label=word, zorder=5)
        text = word if view.winner.trial.label is None else f"{word} ({view.winner.trial.label})"
        names.append(Name(text, x0, y0, WINNER, bold=True))
    names += [Name(_named(view, p, floor), xs[p.trial.id], ys[p.trial.id], ROLES[TrialRole.BASELINE].colour)
              for p in view.points if p.trial.role is TrialRole.BASELINE and p is not view.winner]
    axes.set_ylim(floor - margin, top + margin)
    _limits(view, axes, unit)
    axes.set_xlabel(latency_axis(view, unit) + ", bars: 95 % interval")
    axes.set_ylabel(f"{view.metric} on the validation split", parse_math=False)
    hidden = sum(_quality(view, p) < floor for p in view.points)
    notes = [_at_the_edge(hidden)] if hidden else []
    steps = [(xs[p.trial.id], ys[p.trial.id]) for p in front]
    marks = [*zip(xs.values(), ys.values(), strict=True), *_along(view, axes, unit, steps)]
    marks += [(x, ys[trial]) for trial, ends in bars.items() for x in np.linspace(*ends, _BAR)]
    return _finish(figure, axes, view, path, notes, names, marks)


def progress(view: StudyView, path: Path) -> Path:
    """Draw the best feasible candidate over the measurements."""
    figure, axes = _picture(9.0, 5.2)
    quality = view.goal is None or view.goal.maximises_quality
    metric = view.goal.objective if view.goal is not None else view.metric
    unit = Unit.of(max(point.evidence.latency_s for point in view.points))
    values = [p.evidence.metrics[metric] if quality else p.evidence.latency_s / unit.seconds for p in view.points]
    floor, top = (lowest_shown(values) if quality else min(values)), max(values)
    margin = margin_of(floor, top)
    shown = [max(value, floor - margin / 2) for value in values]
    for role, style in ROLES.items():
        for holds in (True, False):
            chosen = [(n, v) for n, (p, v) in enumerate(zip(view.points, shown, strict=True), 1)
                      if p.trial.role is role and view.feasible(p) is holds and p is not view.winner]
            if chosen:
                text = style.noun if holds else f"{style.noun}, goal not met"
                axes.plot([n for n, _ in chosen], [v for _, v in chosen], style.marker, ms=5.5, mec=style.colour,
                          label=text, mfc=style.colour if holds else "none", alpha=0.85, zorder=3)
    steps = best_so_far(view)
    if steps and steps[0].measurement < len(view.points):
        x = [step.measurement for step in steps] + [len(view.points)]
        y = [shown[step.measurement - 1] for step in steps]
        axes.step(x, [*y, y[-1]], where="post", color=WINNER, lw=1.8, label="best feasible so far", zorder=4)
    if view.winner is not None:
        number = view.points.index(view.winner)
        axes.plot([number + 1], [shown[number]], "*", color=WINNER, ms=17, mec="white", mew=0.8, ls="none", zorder=5,
                  label="winner" if view.finished else "best so far")
    axes.set_ylim(floor - margin, top + margin)
    axes.set_xlim(0.5, len(view.points) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("measurement")
    axes.set_ylabel(f"{metric} on the validation split" if quality else latency_axis(view, unit), parse_math=False)
    hidden = sum(value < floor for value in values)
    notes = [] if steps else ["no candidate has met the goal yet"]
    if hidden:
        notes.append(_at_the_edge(hidden))
    return _finish(figure, axes, view, path, notes)


def layers(view: StudyView, point: Point, path: Path) -> Path:
    """Draw the bits of every layer's weights and activations, first layer at the top."""
    rows = layer_bits(view, point)
    per_block = max(_ROWS, math.ceil(len(rows) / _BLOCKS))
    blocks = [rows[start:start + per_block] for start in range(0, len(rows), per_block)]
    names = max(len(row.label) for row in rows)
    left = 0.075 * min(names, 40) + 0.2
    width, height = max(6.0, len(blocks) * (left + 2.2)), 0.24 * max(len(b) for b in blocks) + 1.9
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    _heading(figure, view, f"{point.name}: bits of every layer")
    for index, block in enumerate(blocks):
        _strip(figure.add_subplot(1, len(blocks), index + 1), block, per_block)
    used = sorted({bits for row in rows for bits in row.cells if bits is not None})
    patches = [Patch(facecolor=BIT_COLOURS[bits], edgecolor="#888888", label=f"{bits} bits") for bits in used]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(BIT_WIDTHS), frameon=False, fontsize=9)
    figure.savefig(path, format="png")
    return path


def _strip(axes: Axes, block: Sequence[LayerBits], rows: int) -> None:
    for row, layer in enumerate(block):
        for column, bits in enumerate(layer.cells):
            face = "#eeeeee" if bits is None else BIT_COLOURS[bits]
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor=face, edgecolor="white", lw=1))
            axes.text(column + 0.5, row + 0.5, "-" if bits is None else str(bits), ha="center", va="center", fontsize=8,
                      color="white" if bits in (16, 32) else "black")
        axes.text(2.15, row + 0.5, layer.scheme, va="center", fontsize=8)
    axes.set_xlim(0, 3.0)
    axes.set_ylim(rows if len(block) < rows and rows > _ROWS else len(block), 0)
    axes.set_xticks([0.5, 1.5], ["weights", "activ."], fontsize=8)
    axes.set_yticks([row + 0.5 for row in range(len(block))], [_short(layer.label) for layer in block], fontsize=8,
                    parse_math=False)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _picture(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _heading(figure: Figure, view: StudyView, *lines: str) -> None:
    width = int(figure.get_figwidth() * 10.5)
    text = "\n".join(fill(line, width) for line in (title(view), *lines))
    figure.suptitle(text, fontsize=11, x=0.02, ha="left", parse_math=False)


def _limits(view: StudyView, axes: Axes, unit: Unit) -> None:
    goal = view.goal
    if goal is None:
        return
    if goal.latency_budget_s is not None:
        axes.axvline(goal.latency_budget_s / unit.seconds, color=LIMIT, ls="--", lw=1.2,
                     label=f"budget {show_seconds(goal.latency_budget_s)}", zorder=1)
    least = (goal.minimum or {}).get(view.metric)
    if least is not None and least > axes.get_ylim()[0]:
        axes.axhline(least, color=LIMIT, ls=":", lw=1.2, label=f"least {view.metric} {least:.4f}", zorder=1)


def _along(view: StudyView, axes: Axes, unit: Unit, front: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return points along the front's steps and the budget line, which names should not cover."""
    marks = []
    for (x0, y0), (x1, y1) in pairwise(front):
        marks += [(x, y0) for x in np.linspace(x0, x1, _DENSITY)] + [(x1, y) for y in np.linspace(y0, y1, _DENSITY)]
    if view.goal is not None and view.goal.latency_budget_s is not None:
        marks += [(view.goal.latency_budget_s / unit.seconds, y) for y in np.linspace(*axes.get_ylim(), 3 * _DENSITY)]
    return marks


def _finish(figure: Figure, axes: Axes, view: StudyView, path: Path, notes: Sequence[str],
            names: Sequence[Name] = (), points: Sequence[tuple[float, float]] = ()) -> Path:
    """Add heading and legend, then the names, whose places depend on where the axes came to lie."""
    _heading(figure, view, verdict(view), *notes)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    place_names(axes, names, points)
    figure.savefig(path, format="png")
    return path


def _at_the_edge(hidden: int) -> str:
    return f"{counted(hidden, 'collapsed candidate')} drawn at the lower edge"


def _quality(view: StudyView, point: Point) -> float:
    return point.evidence.metrics[view.metric]


def _named(view: StudyView, point: Point, floor: float) -> str:
    value = _quality(view, point)
    return point.name if value >= floor else f"{point.name} (at {value:.3f})"


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"...{name[-37:]}"
