"""Pictures of studies: what they show, and that names neither overlap nor leave the picture."""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from orchestrator.plot_labels import Name, place_names
from orchestrator.plots import Unit, best_so_far, layer_bits, lowest_shown, margin_of, title, verdict, write_plots
from orchestrator.store.records import TrialRole
from orchestrator.store.store import Store
from orchestrator.study_view import StudyView, view_of
from tests.orchestrator.made import Made, baselines, make_study


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


def view(store: Store, *trials: Made, budget: str | None = "0.8x", name: str = "s", layers: int = 9) -> StudyView:
    make_study(store, name, [*baselines(), *trials], {"budget": budget}, layers)
    return view_of(store, name)


def png_size(file: Path) -> tuple[int, int]:
    data = file.read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


class TestWhatIsShown:
    def test_the_best_so_far_is_feasible_and_improves(self, store: Store) -> None:
        found = best_so_far(view(store, Made(90, {"top1": 0.99}), Made(70, {"top1": 0.88}), Made(60, {"top1": 0.895}),
                                 Made(79, {"top1": 0.894}), Made(75, {"top1": 0.91})))
        assert [(step.measurement, step.point.evidence.metrics["top1"]) for step in found] == [
            (3, 0.89), (6, 0.895), (8, 0.91)]

    def test_without_the_baseline_of_the_budget_nothing_is_feasible(self, store: Store) -> None:
        make_study(store, "s", [Made(1, {"top1": 0.5})], {"budget": "0.5x"})
        seen = view_of(store, "s")
        assert seen.goal is None
        assert seen.winner is None
        assert best_so_far(seen) == ()

    def test_a_speed_goal_looks_for_the_fastest_within_the_drop(self, store: Store) -> None:
        make_study(store, "s", [*baselines(), Made(40, {"top1": 0.895}), Made(30, {"top1": 0.5})], {"max_drop": 1.0})
        found = best_so_far(view_of(store, "s"))
        assert [round(step.point.evidence.latency_s * 1e6) for step in found] == [100, 50, 40]

    def test_a_collapsed_candidate_does_not_flatten_the_picture(self) -> None:
        assert lowest_shown([0.9, 0.91, 0.905, 0.902, 0.1]) == 0.9
        assert lowest_shown([0.9, 0.9, 0.9]) == 0.9
        assert lowest_shown([0.5]) == 0.5

    def test_layers_without_weights_have_no_weight_bits(self, store: Store) -> None:
        seen = view(store)
        rows = layer_bits(seen, seen.points[1])  # its first layer is dynamic_w8
        assert [row.weight_bits for row in rows[:3]] == [8, 32, None]
        assert [row.scheme for row in rows[:2]] == ["dynamic", "float"]

    def test_an_unfinished_study_never_claims_a_winner(self, store: Store) -> None:
        seen = view(store)
        assert verdict(seen).startswith("not finished (interrupted); best so far int8: 50 us")
        assert "simulated" not in title(seen)

    @pytest.mark.parametrize(("seconds", "unit"), [(2.0, "s"), (0.02, "ms"), (2e-5, "us"), (2e-8, "ns")])
    def test_units(self, seconds: float, unit: str) -> None:
        assert Unit.of(seconds).name == unit


class TestFiles:
    def test_many_layers_and_candidates_stay_a_picture_one_can_open(self, store: Store, tmp_path: Path) -> None:
        trials = [Made(40 + 3 * i, {"top1": 0.87 + 0.001 * (i * 7 % 40)}) for i in range(40)]
        seen = view(store, *trials, Made(5000, {"top1": 0.1}), layers=210)
        pictures = {picture.kind: picture.path for picture in write_plots(seen, tmp_path / "p")}
        for kind in ("pareto", "progress", "layers"):
            path = pictures[kind]
            assert path is not None
            width, height = png_size(path)
            assert 700 < width < 3500
            assert 400 < height < 3500

    @pytest.mark.parametrize("trials", [0, 1])
    def test_few_measurements(self, store: Store, tmp_path: Path, trials: int) -> None:
        make_study(store, "s", [Made(1, {"top1": 0.5})][:trials])
        pictures = write_plots(view_of(store, "s"), tmp_path / "p")
        assert [picture.path is not None for picture in pictures] == [trials > 0, trials > 0, False, trials > 0]
        assert all(picture.reason for picture in pictures if picture.path is None)

    @pytest.mark.parametrize(("trials", "legends"), [
        (1, [["best so far"], ["best so far"]]),
        (2, [["Pareto front", "baseline", "best so far"], ["baseline", "best feasible so far", "best so far"]]),
    ])
    def test_a_legend_names_what_can_be_seen(self, store: Store, tmp_path: Path, trials: int,
                                             legends: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[list[str]] = []
        save = Figure.savefig

        def look(figure: Figure, *args: Any, **kwargs: Any) -> None:
            seen.append(sorted(text.get_text() for text in figure.legends[0].get_texts()))
            save(figure, *args, **kwargs)

        monkeypatch.setattr(Figure, "savefig", look)
        make_study(store, "s", [Made(60.0, {"top1": 0.89}, TrialRole.BASELINE, "float32"),
                                Made(100.0, {"top1": 0.9}, TrialRole.BASELINE, "int8")][:trials])
        write_plots(view_of(store, "s"), tmp_path / "p")
        assert seen[:2] == legends
        assert ('"name":"Pareto front"' in (tmp_path / "p" / "s.html").read_text("utf-8")) is (trials > 1)

    def test_an_axis_shows_more_than_a_single_value(self) -> None:
        assert margin_of(100.0, 100.0) == pytest.approx(5.0)
        assert margin_of(0.0, 0.0) > 0
        assert margin_of(0.8, 0.9) == pytest.approx(0.008)

    def test_the_page_needs_no_network_and_shows_names_as_text(self, store: Store, tmp_path: Path) -> None:
        make_study(store, "s", [*baselines(), Made(70, {"top1": 0.95}, TrialRole.SEED, "<img src=x onerror=alert(1)>"),
                                Made(60, {"top1": 0.95}, TrialRole.BASELINE, "<img src=y>")],
                   {"budget": "0.8x", "model": "<script>evil</script>"})
        write_plots(view_of(store, "s"), tmp_path / "p")
        text = (tmp_path / "p" / "s.html").read_text("utf-8")
        assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?(?:https?:)?//", text)
        assert "<script>evil" not in text
        assert not re.findall(r"(?:<|\\u003c)img src=[xy]", text)
        assert "&lt;script&gt;evil" in text
        assert text.count("Plotly.newPlot(") == 3
        assert text.count('"showSendToCloud": false') == 3

    def test_a_formula_in_a_name_is_text(self, store: Store, tmp_path: Path) -> None:
        make_study(store, "s", [*baselines(), Made(70, {"top1": 0.95}, TrialRole.SEED, "$\\frac{$")],
                   {"budget": "0.8x", "model": "$\\oops{$_^"})
        assert all(picture.path is not None for picture in write_plots(view_of(store, "s"), tmp_path / "p"))


class TestNames:
    def test_crowded_names_neither_overlap_nor_leave_the_picture(self) -> None:
        figure = Figure(figsize=(9, 6))
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        points = [(1.0 + 0.01 * i, 0.9 + 0.0002 * (i % 3)) for i in range(8)] + [(1.9, 0.905), (0.6, 0.898)]
        axes.set_xlim(0.5, 2.0)
        axes.set_ylim(0.895, 0.906)
        figure.draw_without_rendering()
        place_names(axes, [Name(f"weight_only_int8_{i}", x, y, "black") for i, (x, y) in enumerate(points)], points)
        texts = [child for child in axes.get_children() if isinstance(child, Annotation)]
        boxes = [text.get_tightbbox() for text in texts]
        frame = axes.get_window_extent()
        extents = [super(Annotation, text).get_window_extent() for text in texts]
        assert len(boxes) == len(points)
        assert not [pair for pair in itertools.combinations(extents, 2) if pair[0].overlaps(pair[1])]
        assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
                   for box in extents)
