"""Times, sizes and shares as a user writes and reads them."""

from __future__ import annotations

import pytest

from orchestrator.errors import UsageError
from orchestrator.units import counted, parse_budget, parse_seconds, parse_size_budget, show_bytes, show_seconds


@pytest.mark.parametrize(("text", "seconds"), [
    ("10ms", 0.010), ("500us", 500e-6), ("2s", 2.0), ("1.5 ms", 0.0015), ("250ns", 250e-9), (" .5s ", 0.5)])
def test_latencies_are_read(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)
    budget = parse_budget(text)
    assert budget.absolute == pytest.approx(seconds)
    assert (budget.factor, budget.needs) == (None, None)
    assert budget.resolve(None) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "seconds", "unit"), [
    ("30m", 1800.0, "minutes"), ("30min", 1800.0, "minutes"), ("1h", 3600.0, "hours")])
def test_minutes_and_hours_are_times_but_no_latencies(text: str, seconds: float, unit: str) -> None:
    assert parse_seconds(text) == seconds
    with pytest.raises(UsageError, match=rf"in ns, us, ms or s, such as 10ms, got '{text}' \({unit}\); .* --time"):
        parse_budget(text)


@pytest.mark.parametrize(("text", "size"), [
    ("80KB", 80_000), ("64KiB", 65_536), ("1.5MB", 1_500_000), ("1MiB", 1 << 20), ("900 B", 900)])
def test_sizes_are_read(text: str, size: float) -> None:
    assert parse_size_budget(text).resolve(None) == size


@pytest.mark.parametrize(("text", "factor", "needs"), [
    ("0.5x", 0.5, "float32"), ("0.6x:int8", 0.6, "int8"), ("1x:fp16", 1.0, "fp16"), ("2x", 2.0, "float32"),
    (".8x:dynamic_int8", 0.8, "dynamic_int8")])
def test_shares_are_taken_of_a_baseline(text: str, factor: float, needs: str) -> None:
    for budget in (parse_budget(text), parse_size_budget(text)):
        assert (budget.absolute, budget.factor, budget.needs) == (None, factor, needs)
        assert budget.resolve(0.010) == pytest.approx(factor * 0.010)
        with pytest.raises(ValueError, match=f"{needs} has no value"):
            budget.resolve(None)


@pytest.mark.parametrize("text", ["", "10", "ms", "10 lightyears", "-10ms", "0ms", "0.0s", "1e3ms", "10MS", "nan",
                                  "10ms ok", "1.2.3ms", "x", "0x", "0.0x:int8", "0.5x:", "0.5x int8", "inf s", "80KB",
                                  "∞ms", f"{'9' * 400}ms", f"{'9' * 400}x"])
def test_other_latency_budgets_are_refused_with_every_form_and_the_text(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_budget(text)
    for form in ("10ms", "0.5x", "0.6x:int8", repr(text)):
        assert form in str(caught.value)


@pytest.mark.parametrize("text", ["", "10", "0s", "nan", "10 lightyears", f"{'9' * 400}s"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a positive time such as 90s, 30m or 2h") as caught:
        parse_seconds(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["", "80", "KB", "-80KB", "0KB", "80kb", "80 KBs", "10ms", "0x", "1TB"])
def test_other_size_budgets_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a positive size such as 80KB") as caught:
        parse_size_budget(text)
    assert repr(text) in str(caught.value)


def test_an_unknown_baseline_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no baseline 'int9'; there are float32, fp16, dynamic_int8") as caught:
        parse_budget("0.5x:int9")
    assert "'0.5x:int9'" in str(caught.value)


@pytest.mark.parametrize(("seconds", "text"), [
    (153e-6, "153 us"), (1.2412e-3, "1.24 ms"), (52.34e-6, "52.3 us"), (2.0, "2 s"), (75e-9, "75 ns"),
    (1e-3, "1 ms"), (999.4e-6, "999 us"), (0.0, "0 ns"), (3600.0, "3600 s"), (12.345, "12.3 s")])
def test_latencies_are_printed_with_three_digits(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text


@pytest.mark.parametrize(("size", "text"), [
    (81_234, "81.2 KB"), (999, "999 B"), (1000, "1.0 KB"), (1_500_000, "1.5 MB"), (0, "0 B")])
def test_sizes_are_printed(size: float, text: str) -> None:
    assert show_bytes(size) == text


def test_numbers_have_their_nouns() -> None:
    assert [counted(number, "layer") for number in (0, 1, 2)] == ["0 layers", "1 layer", "2 layers"]


def test_what_is_printed_can_be_read_again() -> None:
    for exponent in range(-7, 1):
        for digits in (1.0, 1.5, 2.34, 5.0, 9.99, 9.996):
            value = digits * 10.0**exponent
            shown = show_seconds(value)
            assert "e" not in shown.partition(" ")[0]
            assert parse_seconds(shown) == pytest.approx(value, rel=0.006)
            size = digits * 10.0**(exponent + 8)
            assert parse_size_budget(show_bytes(size)).resolve(None) == pytest.approx(size, rel=0.06)
