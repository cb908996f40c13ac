"""Pictures of a study: latency against accuracy, the progress, the winner's bits; as PNG and as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from orchestrator.errors import UsageError
from orchestrator.schemas.strict import SCHEMA
from orchestrator.schemas.studies import PlotFile, StudyPlot
from orchestrator.study_view import Point, StudyView
from orchestrator.units import show_bytes, show_seconds
from search.space import LayerConfig, Scheme

Kind = Literal["pareto", "progress", "layers", "all"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OUTLIER = 6.0
"""Points lie below the picture when they are this many times as far from the best as the median is."""
LOGARITHMIC = 25.0
"""Ratio of the slowest to the fastest from which the latency has a logarithmic axis."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A file that was written, or why there is none."""

    kind: Kind
    path: Path | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Unit:
    """What an axis counts in."""

    name: str
    seconds: float

    @classmethod
    def of(cls, largest_s: float) -> Unit:
        """Choose the unit in which the largest value has at most four digits before the point."""
        for name, seconds in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
            if largest_s >= seconds:
                return cls(name, seconds)
        return cls("ns", 1e-9)


@dataclass(frozen=True, slots=True)
class LayerBits:
    """One row of the picture of a winner's bits."""

    name: str
    kind: str
    config: LayerConfig
    weight_bits: int | None
    """None: the operator has no weights."""
    channels: tuple[int, int] | None = None
    """How many of its output channels are kept, and of how many; None where none are cut."""

    @property
    def label(self) -> str:
        """The layer's name, with its channels where some are cut."""
        return self.name if self.channels is None else f"{self.name} ({self.channels[0]} of {self.channels[1]})"

    @property
    def cells(self) -> tuple[int | None, int]:
        """Bits of the weights and of the activations."""
        return self.weight_bits, self.config.activation_bits

    @property
    def scheme(self) -> str:
        """How it computes, in the words of the field."""
        if self.config.scheme is Scheme.FLOAT:
            return "float"
        return self.config.scheme.value.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Progress:
    """The best feasible candidate after each measurement that improved it."""

    measurement: int
    """Counted from 1."""
    point: Point


def write_plots(view: StudyView, folder: Path, stem: str | None = None) -> tuple[Picture, ...]:
    """Write STEM-pareto.png, STEM-progress.png, STEM-layers.png and STEM.html into a folder.

    Args:
        view: the study.
        folder: made when absent.
        stem: start of the files' names; the study's name when None.

    Raises UsageError when they cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _write(view, folder, stem or view.record.name)
    except OSError as error:
        raise UsageError(f"--output {folder}: the pictures cannot be written there ({error.strerror}); choose another "
                         "folder") from error


def _write(view: StudyView, folder: Path, name: str) -> tuple[Picture, ...]:
    from orchestrator import plot_html, plot_png

    if not view.points:
        return tuple(Picture(kind, None, "nothing was measured yet") for kind in KINDS)
    pictures = [Picture("pareto", plot_png.pareto(view, folder / f"{name}-pareto.png")),
                Picture("progress", plot_png.progress(view, folder / f"{name}-progress.png"))]
    if view.winner is None:
        pictures.append(Picture("layers", None, "there is no best candidate yet: a baseline that the budget needs is "
                                                "not measured"))
    else:
        pictures.append(Picture("layers", plot_png.layers(view, view.winner, folder / f"{name}-layers.png")))
    return (*pictures, Picture("all", plot_html.page(view, folder / f"{name}.html")))


def title(view: StudyView) -> str:
    """Return the heading of every picture; it says so when latencies are simulated."""
    text = f"{view.record.name}: {view.config.model} on {view.config.device}"
    return f"{text} (simulated)" if view.simulated else text


def compiler_noun(view: StudyView, noun: str, compiler: str) -> str:
    """Name a kind of points: with their compiler where a study has several."""
    return noun if len(view.record.spaces) == 1 else f"{noun}, {compiler}"


def verdict(view: StudyView) -> str:
    """Say in one line what was looked for and what is best."""
    best = view.winner
    if best is None:
        return "no result yet"
    figures = (f"{best.name}: {show_seconds(best.evidence.latency_s)}, {view.metric} "
               f"{best.evidence.metrics[view.metric]:.4f}, {show_bytes(best.evidence.size_bytes)}")
    if not view.finished:
        return f"not finished ({view.record.status.value.lower()}); best so far {figures}"
    met = view.record.document is not None and view.record.document["goal_met"]
    return f"{'goal met' if met else 'goal not met; nearest'}: {figures}"


def latency_axis(view: StudyView, unit: Unit) -> str:
    """Name the latency axis."""
    return f"{view.config.latency_stat} latency [{unit.name}]" + (" (simulated)" if view.simulated else "")


def is_logarithmic(view: StudyView) -> bool:
    """Tell whether latencies differ too much for a linear axis."""
    values = [point.evidence.latency_s for point in view.points]
    return max(values) > LOGARITHMIC * min(values)


def lowest_shown(values: Sequence[float]) -> float:
    """Return the least quality to show, so that a collapsed candidate does not flatten all others."""
    ordered = sorted(values, reverse=True)
    usual = ordered[0] - ordered[len(ordered) // 2]
    limit = ordered[0] - OUTLIER * usual
    shown = [value for value in ordered if value >= limit] if usual > 0 else ordered
    return shown[-1]


def margin_of(floor: float, top: float) -> float:
    """Return how far an axis goes beyond what it shows, also when that is a single value."""
    return (top - floor) * 0.08 or abs(top) * 0.05 or 0.005


def best_so_far(view: StudyView) -> tuple[Progress, ...]:
    """Return when the best feasible candidate changed."""
    if view.goal is None:
        return ()
    found: list[Progress] = []
    for number, point in enumerate(view.points, 1):
        if view.feasible(point) and (not found or view.goal.score(point.evidence)
                                     > view.goal.score(found[-1].point.evidence)):
            found.append(Progress(number, point))
    return tuple(found)


def layer_bits(view: StudyView, point: Point) -> tuple[LayerBits, ...]:
    """Return a candidate's bits in the order of the network."""
    space = view.record.spaces[point.compiler]
    cut = {layer: (point.widths[group.name], group.channels) for group in space.groups if group.name in point.widths
           for layer in group.produced_by}
    return tuple(LayerBits(layer.name, layer.kind, point.layers[layer.name],
                           point.layers[layer.name].weight_bits if layer.weights else None, cut.get(layer.name))
                 for layer in space.layers)


def plot_document(view: StudyView, pictures: Sequence[Picture]) -> StudyPlot:
    """Say which files were written."""
    files: list[PlotFile] = [{"kind": p.kind, "format": "html" if p.kind == "all" else "png", "path": str(p.path)}
                             for p in pictures if p.path is not None]
    return {"schema": SCHEMA, "study": view.record.name, "files": files,
            "absent": {p.kind: p.reason for p in pictures if p.reason is not None}}
