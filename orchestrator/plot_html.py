"""The pictures as one HTML page that needs no network, drawn by plotly."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from plotly import graph_objects as go

from orchestrator.plot_style import BIT_COLOURS, BIT_WIDTHS, FRONT, LIMIT, ROLES, WINNER
from orchestrator.plots import (
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
from orchestrator.pruned import pruned_groups, say_for_all, say_pruned
from orchestrator.store.records import TrialRole
from orchestrator.study_view import Point, StudyView
from orchestrator.units import show_bytes, show_seconds

_CONFIG = {"displaylogo": False, "responsive": True, "showSendToCloud": False}
"""Without the last, plotly offers to upload the figures."""
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222}}
h1{{font-size:1.4rem;margin:0}}h2{{font-size:1.1rem;margin:2rem 0 0}}p{{margin:.2rem 0}}</style></head><body>
<h1>{title}</h1><p>{verdict}</p>
"""


def page(view: StudyView, path: Path) -> Path:
    """Write one page with all pictures."""
    sections = [("Latency and accuracy", _pareto(view)), ("Progress", _progress(view))]
    if view.winner is not None:
        sections.append((f"Bits of every layer: {view.winner.name}", _layers(view, view.winner)))
    parts = [_HEAD.format(title=escape(title(view)), verdict=escape(verdict(view)))]
    for index, (heading, figure) in enumerate(sections):
        parts.append(f"<h2>{escape(heading)}</h2>\n")
        parts.append(figure.to_html(full_html=False, include_plotlyjs=index == 0, config=_CONFIG))
    path.write_text("".join(parts) + "</body></html>\n", "utf-8")
    return path


def _pareto(view: StudyView) -> Any:
    unit = Unit.of(max(point.evidence.latency_s for point in view.points))
    figure = go.Figure()
    front = view.front()
    if len(front) > 1:
        figure.add_scatter(x=[p.evidence.latency_s / unit.seconds for p in front],
                           y=[p.evidence.metrics[view.metric] for p in front], mode="lines", name="Pareto front",
                           line={"color": FRONT, "shape": "hv"}, hoverinfo="skip")
    for role, style in ROLES.items():
        for number, compiler in enumerate(view.record.spaces):
            chosen = [p for p in view.points
                      if p.trial.role is role and p.compiler == compiler and role is not TrialRole.BASELINE]
            if chosen:
                figure.add_scatter(**_points(view, chosen, unit), name=compiler_noun(view, f"{style.noun}s", compiler),
                                   marker={"symbol": style.symbol + "-open" * (number > 0), "color": style.colour,
                                           "size": 8})
    for index, point in enumerate(p for p in view.points if p.trial.role is TrialRole.BASELINE):
        figure.add_scatter(**_points(view, [point], unit), name=escape(point.name),
                           marker={"symbol": ("diamond", "diamond-open", "triangle-up", "triangle-down", "cross", "x",
                                              "hexagon", "pentagon")[index % 8],
                                   "color": ROLES[TrialRole.BASELINE].colour, "size": 10})
    if view.winner is not None:
        figure.add_scatter(**_points(view, [view.winner], unit), name="winner" if view.finished else "best so far",
                           marker={"symbol": "star", "color": WINNER, "size": 17})
    values = [p.evidence.metrics[view.metric] for p in view.points]
    floor, top = lowest_shown(values), max(values)
    margin = margin_of(floor, top)
    _limits(view, figure, unit, floor - margin)
    figure.update_xaxes(title=latency_axis(view, unit), type="log" if is_logarithmic(view) else "linear")
    figure.update_yaxes(title=escape(f"{view.metric} on the validation split"), range=[floor - margin, top + margin])
    return _styled(figure, 560)


def _progress(view: StudyView) -> Any:
    quality = view.goal is None or view.goal.maximises_quality
    metric = view.goal.objective if view.goal is not None else view.metric
    unit = Unit.of(max(point.evidence.latency_s for point in view.points))
    values = [p.evidence.metrics[metric] if quality else p.evidence.latency_s / unit.seconds for p in view.points]
    figure = go.Figure()
    for holds, name in ((True, "goal met"), (False, "goal not met")):
        chosen = [(n, v, p) for n, (p, v) in enumerate(zip(view.points, values, strict=True), 1)
                  if view.feasible(p) is holds]
        if chosen:
            figure.add_scatter(x=[n for n, _, _ in chosen], y=[v for _, v, _ in chosen], mode="markers", name=name,
                               text=[_hover(view, p) for _, _, p in chosen], hoverinfo="text",
                               marker={"color": ROLES[TrialRole.SEED].colour, "size": 8,
                                       "symbol": "circle" if holds else "circle-open"})
    steps = best_so_far(view)
    if steps and steps[0].measurement < len(values):
        x, y = [s.measurement for s in steps], [values[s.measurement - 1] for s in steps]
        figure.add_scatter(x=[*x, len(values)], y=[*y, y[-1]], mode="lines", name="best feasible so far",
                           line={"color": WINNER, "shape": "hv"}, hoverinfo="skip")
    figure.update_xaxes(title="measurement")
    figure.update_yaxes(title=escape(f"{metric} on the validation split") if quality else latency_axis(view, unit))
    if quality:
        floor, top = lowest_shown(values), max(values)
        margin = margin_of(floor, top)
        figure.update_yaxes(range=[floor - margin, top + margin])
    return _styled(figure, 460)


def _layers(view: StudyView, point: Point) -> Any:
    rows = layer_bits(view, point)
    codes = [[None if bits is None else BIT_WIDTHS.index(bits) for bits in row.cells] for row in rows]
    text = [["" if bits is None else str(bits) for bits in row.cells] for row in rows]
    hover = [[f"{escape(row.name)} ({escape(row.kind)})<br>{row.config.label}"] * 2 for row in rows]
    steps = len(BIT_WIDTHS)
    scale = [[edge, BIT_COLOURS[bits]] for i, bits in enumerate(BIT_WIDTHS) for edge in (i / steps, (i + 1) / steps)]
    figure = go.Figure(go.Heatmap(
        z=codes, x=["weights", "activations"], y=list(range(len(rows))), text=text, texttemplate="%{text}",
        hovertext=hover, hoverinfo="text", colorscale=scale, zmin=-0.5, zmax=steps - 0.5, xgap=2, ygap=2,
        colorbar={"title": "bits", "tickvals": list(range(steps)), "ticktext": [str(bits) for bits in BIT_WIDTHS]}))
    figure.update_yaxes(autorange="reversed", tickvals=list(range(len(rows))),
                        ticktext=[f"{escape(row.label)}  {row.scheme}" for row in rows], automargin=True)
    figure.update_xaxes(side="top")
    return _styled(figure, 22 * len(rows) + 120)


def _points(view: StudyView, points: list[Point], unit: Unit) -> dict[str, Any]:
    x = [p.evidence.latency_s / unit.seconds for p in points]
    return {
        "x": x, "y": [p.evidence.metrics[view.metric] for p in points], "mode": "markers", "hoverinfo": "text",
        "text": [_hover(view, p) for p in points],
        "error_x": {"type": "data", "symmetric": False, "thickness": 1,
                    "array": [max(0.0, p.latency.ci95[1] / unit.seconds - v) for p, v in zip(points, x, strict=True)],
                    "arrayminus": [max(0.0, v - p.latency.ci95[0] / unit.seconds)
                                   for p, v in zip(points, x, strict=True)]}}


def _hover(view: StudyView, point: Point) -> str:
    low, high = point.latency.ci95
    lines = [f"<b>{escape(point.name)}</b> (trial {point.trial.number}, {point.trial.role.value})",
             f"{view.config.latency_stat} {show_seconds(point.evidence.latency_s)}, "
             f"95 % {show_seconds(low)} - {show_seconds(high)}",
             *(f"{escape(name)} {value:.4f}" for name, value in point.evidence.metrics.items()),
             show_bytes(point.evidence.size_bytes)]
    if point.widths:
        lines.append(f"kept: {escape(say_pruned(pruned_groups(view.record.spaces[point.compiler], point.widths)))}")
    if point.for_all:
        lines.append(f"for all layers: {say_for_all(point.for_all)}")
    return "<br>".join(lines)


def _limits(view: StudyView, figure: Any, unit: Unit, bottom: float) -> None:
    goal = view.goal
    if goal is None:
        return
    if goal.latency_budget_s is not None:
        figure.add_vline(x=goal.latency_budget_s / unit.seconds, line={"color": LIMIT, "dash": "dash"},
                         annotation_text=f"budget {show_seconds(goal.latency_budget_s)}")
    least = (goal.minimum or {}).get(view.metric)
    if least is not None and least > bottom:
        figure.add_hline(y=least, line={"color": LIMIT, "dash": "dot"}, annotation_text=f"least {least:.4f}")


def _styled(figure: Any, height: int) -> Any:
    figure.update_layout(template="plotly_white", height=height, margin={"l": 60, "r": 20, "t": 30, "b": 50},
                         hovermode="closest")
    return figure
