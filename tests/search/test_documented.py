"""The example in docs/search.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import optuna
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "search.md"


def test_the_example_of_the_engine_alone_runs_and_meets_its_budget() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, str(PAGE), "exec"), names)  # noqa: S102 - our own page
    study: optuna.Study = names["study"]
    assert len(study.trials) == 12
    best = min(0.1 * sum(0.01 * (n + 1) for n in range(8) if code >> n & 1) for code in range(256)
               if 8 - 0.6 * bin(code).count("1") <= 5)
    assert study.best_value == pytest.approx(0.92 - best)
