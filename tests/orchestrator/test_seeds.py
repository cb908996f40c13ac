"""Which per-operator-kind recipes a search measures before it proposes."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.config import StudyConfig
from orchestrator.phases import planned_seeds, wanted_seeds
from search.recipes import seeds
from tests.search.spaces import mixed_space

ALL = [seed.name for seed in seeds(mixed_space(), 1)]
WEIGHTED = ["int8:weighted", "dynamic_int8:weighted", "int4:weighted"]


@pytest.mark.parametrize(("keys", "wanted"), [
    ({"sampler": "adaptive", "budget": "10ms"}, []),
    ({"sampler": "adaptive", "max_drop": 0.5}, WEIGHTED),
    ({"sampler": "adaptive", "objective": "latency"}, WEIGHTED),
    ({"sampler": "adaptive", "objective": "accuracy,latency"}, ALL),
    ({"sampler": "tpe", "budget": "10ms"}, ALL),
    ({"sampler": "tpe", "max_drop": 0.5}, ALL)])
def test_the_adaptive_engine_wants_few_unless_a_front_is_looked_for(keys: dict[str, Any], wanted: list[str]) -> None:
    assert len(ALL) > len(WEIGHTED)
    config = StudyConfig.model_validate({"study": "s", "device": "sim", "model": "demo:residual", **keys})
    assert [seed.name for seed in wanted_seeds(config, mixed_space())] == wanted


def test_seeds_take_at_most_half_of_what_the_baselines_leave() -> None:
    config = StudyConfig.model_validate({"study": "s", "device": "sim", "model": "demo:residual", "sampler": "tpe",
                                         "budget": "10ms", "measurements": 7})
    planned = planned_seeds(config, mixed_space(), {next(iter(seeds(mixed_space(), 1))).candidate.id, "int8"}, 2)
    assert [seed.name for seed in planned] == ALL[1:4]
