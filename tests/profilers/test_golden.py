"""Whether a board computes what the host computes."""

from __future__ import annotations

import numpy as np
import pytest

from profilers.golden import Array, check_golden, tolerance
from search.errors import InfeasibleCandidate
from search.space import FLOAT32, LayerConfig, Scheme

HOST: tuple[Array, ...] = (np.linspace(-1, 1, 40, dtype=np.float32).reshape(4, 10),
                           np.arange(-128, 128, dtype=np.int8).reshape(4, 64))
DYNAMIC, WEIGHT_ONLY = LayerConfig(8, 32, Scheme.DYNAMIC), LayerConfig(8, 32, Scheme.WEIGHT_ONLY)
STATIC, FP16 = LayerConfig(8, 8, Scheme.STATIC), LayerConfig(weight_bits=16)


def changed(output: int, position: tuple[int, int], value: float) -> tuple[Array, ...]:
    board = [array.copy() for array in HOST]
    board[output][position] = value
    return tuple(board)


def refusal(board: tuple[Array, ...], host: tuple[Array, ...] = HOST, allowed: float = 0.02) -> str:
    with pytest.raises(InfeasibleCandidate) as caught:
        check_golden(board, host, allowed, "pi-a")
    return caught.value.reason


def test_equal_outputs_pass_even_with_no_tolerance() -> None:
    check_golden(HOST, HOST, 0.0, "pi-a")


@pytest.mark.parametrize(("output", "ok", "too_far"), [(0, -1 + 0.039, -1 + 0.041), (1, -123, -122)])
def test_the_tolerance_is_a_share_of_the_outputs_range(output: int, ok: float, too_far: float) -> None:
    check_golden(changed(output, (0, 0), ok), HOST, 0.02, "pi-a")
    message = refusal(changed(output, (0, 0), too_far))
    assert message.startswith(f"output {output} on pi-a differs from the host's by 2.")
    assert "at most 2.00% is allowed" in message


def test_one_wrong_value_in_one_example_is_found() -> None:
    for example in range(4):
        assert "output 0" in refusal(changed(0, (example, 9), 9.0))


def test_int8_differences_do_not_wrap_around() -> None:
    """127 against -128 is the whole range, not one step."""
    assert "by 100.00% of its range" in refusal(changed(1, (0, 0), 127))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    assert refusal(changed(0, (2, 3), value), allowed=1e9) == "output 0 is not finite on pi-a"


def test_a_host_that_computes_nonsense_passes_nothing() -> None:
    broken = (np.full((4, 10), np.nan, np.float32),)
    assert "output 0 on pi-a differs" in refusal((HOST[0],), broken)


def test_shapes_types_and_numbers_of_outputs_must_agree() -> None:
    assert refusal((HOST[0].T, HOST[1])) == "output 0 is float32 (10, 4) on pi-a, float32 (4, 10) on the host"
    assert refusal((HOST[0].astype(np.float64), HOST[1])) == (
        "output 0 is float64 (4, 10) on pi-a, float32 (4, 10) on the host")
    assert refusal(HOST[:1]) == "the artifact has 1 outputs on pi-a, 2 on the host"


def test_constant_outputs_are_compared_absolutely() -> None:
    host = (np.full((4, 1), 5.0, np.float32),)
    check_golden((host[0] + np.float32(0.01),), host, 0.02, "pi-a")
    assert "output 0" in refusal((host[0] + np.float32(0.03),), host)


def test_tolerances_follow_the_loosest_scheme() -> None:
    floats = tolerance([FLOAT32, FP16, WEIGHT_ONLY])
    static = tolerance([FLOAT32, STATIC])
    dynamic = tolerance([STATIC, FLOAT32, DYNAMIC])
    assert 0 < floats < static < dynamic <= 0.05
    assert static >= 1 / 256, "one step of the last requantisation"
    assert tolerance([STATIC] * 3) == static
