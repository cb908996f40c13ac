"""Options of the tests."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kernel-shapes", type=int, default=6,
                     help="random shapes of every kernel and arithmetic of the compiler tvm")
