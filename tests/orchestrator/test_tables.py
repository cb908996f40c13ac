"""Tables in narrow terminals: nothing is lost, and a name is whole or broken behind a separator."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from orchestrator.tables import Name, figures_table, print_listing

HEAD = ("study", "model", "device", "n", "result", "latency")
ROW = ("20261121-133255", "demo:transformer", "local", "48", "interrupted", "2.81 ms *")


def listed(width: int, *rows: tuple[str, ...]) -> list[str]:
    text = io.StringIO()
    print_listing(Console(file=text, width=width), HEAD, rows, figures=("n", "latency"), shortened=("model", "device"))
    return text.getvalue().splitlines()


@pytest.mark.parametrize(("width", "lines"), [
    (40, ["int8:weighted+BATCH_MATMUL"]),
    (26, ["int8:weighted+BATCH_MATMUL"]),
    (25, ["int8:weighted+BATCH_", "MATMUL"]),
    (14, ["int8:weighted+", "BATCH_MATMUL"]),
    (13, ["int8:", "weighted+", "BATCH_MATMUL"]),
    (4, ["int8", ":wei", "ghte", "d+BA", "TCH_", "MATM", "UL"]),
])
def test_a_name_breaks_behind_its_separators(width: int, lines: list[str]) -> None:
    assert Name("int8:weighted+BATCH_MATMUL").lines(width) == lines


@pytest.mark.parametrize("name", ["", "-", "...", "a", "blocks.0.attention..softmax", "_x_"])
def test_no_letter_of_a_name_is_lost(name: str) -> None:
    for width in range(1, 30):
        lines = Name(name).lines(width)
        assert "".join(lines) == name
        assert all(len(line) <= width for line in lines)


def test_a_table_breaks_names_and_no_figures() -> None:
    table = figures_table(("candidate",), ("latency", "size"), "[x] title")
    table.add_row(Name("dynamic_int8:weighted+BATCH_MATMUL"), "2.81 ms", "295.4 KB")
    text = io.StringIO()
    Console(file=text, width=42).print(table)
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 42
    assert lines[0].startswith("[x] title")
    assert "".join(line.partition("│")[0].strip() for line in lines[3:]) == "dynamic_int8:weighted+BATCH_MATMUL"
    assert "2.81 ms" in lines[3] and "295.4 KB" in lines[3]


def test_a_list_that_fits_is_one_line_for_each() -> None:
    head, line = listed(80, ROW)
    assert head.split() == list(HEAD)
    assert line == "20261121-133255  demo:transformer  local   48  interrupted  2.81 ms *"
    assert head.index("n ") == line.index("48") + 1, "figures stand at the right"


def test_a_narrow_list_shortens_what_matters_least() -> None:
    head, line = listed(66, ROW)
    assert max(len(head), len(line)) <= 66
    assert line.startswith("20261121-133255  ...ransformer  local")
    assert line.endswith("2.81 ms *")


def test_a_long_name_has_a_line_of_its_own() -> None:
    long = "a-study-with-a-name-that-is-much-too-long-for-one-column-of-a-table"
    lines = listed(80, (long, *ROW[1:]), ROW)
    assert max(map(len, lines)) <= 80
    assert lines[1] == long
    assert lines[2].strip().startswith("demo:transformer") and lines[2].endswith("2.81 ms *")
    assert lines[3].startswith("20261121-133255  demo:transformer")
