"""No number counts before the outputs on golden inputs agree with the host's for the same artifact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.errors import InfeasibleCandidate
from search.space import LayerConfig, Scheme

Array = NDArray[Any]

EXAMPLES = 4
"""Golden inputs: the first calibration inputs."""


def tolerance(configs: Sequence[LayerConfig]) -> float:
    """Return the allowed difference as a share of the output's range.

    Written per scheme. Static int8 was exact between x86-64 and aarch64 (emulated Cortex-A72, LiteRT
    2.3), 4-bit weights differed by 1.4 %, because the two take other kernels. Dynamic quantisation
    rounds activations at run time, so a last-bit difference of a float before it may move a whole step
    in every layer. Float kernels differ in the order of sums. A kernel that is wrong is far outside:
    244 % for static int8 under an emulator's faulty matrix extension.
    """
    schemes = {config.scheme for config in configs}
    if Scheme.DYNAMIC in schemes:
        return 0.05
    if Scheme.STATIC in schemes:
        return 0.02
    return 1e-3


def check_golden(board: Sequence[Array], host: Sequence[Array], allowed: float, where: str) -> None:
    """Compare a board's outputs with the host's.

    Args:
        board: outputs on the board, each (EXAMPLES, ...).
        host: outputs of the same artifact on the host.
        allowed: see `tolerance`.
        where: the board's name, for the message.

    Raises:
        InfeasibleCandidate: when they differ: the board's runtime does not compute this artifact.
    """
    if len(board) != len(host):
        raise InfeasibleCandidate(f"the artifact has {len(board)} outputs on {where}, {len(host)} on the host")
    for index, (got, expected) in enumerate(zip(board, host, strict=True)):
        if (got.shape, got.dtype) != (expected.shape, expected.dtype):
            raise InfeasibleCandidate(f"output {index} is {got.dtype} {got.shape} on {where}, {expected.dtype} "
                                      f"{expected.shape} on the host")
        if got.dtype.kind == "f" and not np.isfinite(got).all():
            raise InfeasibleCandidate(f"output {index} is not finite on {where}")
        reference = expected.astype(np.float64)
        span = float(reference.max() - reference.min()) or 1.0
        worst = float(np.abs(got.astype(np.float64) - reference).max()) / span
        if not worst <= allowed:
            raise InfeasibleCandidate(
                f"output {index} on {where} differs from the host's by {worst:.2%} of its range; at most "
                f"{allowed:.2%} is allowed: {where}'s runtime computes this artifact otherwise")
