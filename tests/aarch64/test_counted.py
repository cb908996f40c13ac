"""What the benchmark of emulated processors makes of the emulator's counts."""

from __future__ import annotations

from itertools import count

from benchmarks.counted import RUNS, instructions
from benchmarks.emulated import Row, table


def test_reading_the_count_is_not_counted() -> None:
    """Every read takes 7 instructions and every run 1,000."""
    clock = count(step=7)
    runs: list[int] = []
    assert instructions(lambda: runs.append(1), lambda: next(clock) + 1000 * len(runs)) == [1000] * RUNS


def test_a_row_is_compared_with_int8_on_its_own_processor() -> None:
    def row(processor: str, scheme: str, instructions: float) -> Row:
        return Row(processor, "net", "tflite", scheme, instructions, 30, 20, 0.0)

    lines = table([row("b", "float32", 6e6), row("a", "static_w8a8", 1e6), row("b", "static_w8a8", 2e6)]).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["a", "b", "b"]
    assert lines[2].split()[3:] == ["float32", "6.000", "3.00", "20", "10", "0e+00"]
