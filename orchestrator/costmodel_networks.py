"""The priors on whole networks: on every candidate that the store's studies measured."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

import numpy as np

from orchestrator.schemas.costmodel import NetworkErrors, PriorErrors
from orchestrator.store.records import StudyRecord, TrialHistory
from orchestrator.store.store import Store
from profilers.cost_model import VARIANTS, CostModel
from profilers.cost_model_errors import PriorError, error_of
from profilers.cost_model_prior import learned_prior
from profilers.cost_model_rows import Conditions
from profilers.prior import roofline_prior
from profilers.simulation import Roofline
from profilers.sites import sites_of
from recipes.blobs import BlobMissing
from recipes.compilers.layers import LayerMap
from recipes.compilers.tflite.graph import read_graph
from recipes.compilers.tflite.layers import map_layers
from recipes.target import Target
from search.adaptive.graph import Tables
from search.candidate import Candidate

COMPILER = "tflite"
"""Whose layers the sweep measures."""
LEAST = 8
"""Fewer candidates of a study say too little of a prior."""


def network_errors(store: Store, board_kinds: Collection[str], model: CostModel,
                   roofline: Roofline) -> list[NetworkErrors]:
    """Compare the priors with the candidates of every study on such boards, oldest study first.

    Narrowed candidates and other compilers' are left out, and a study whose float model is gone or whose space this
    version would draw otherwise.
    """
    found: list[NetworkErrors] = []
    for study in store.studies():
        histories = [h for h in store.histories(study.id)
                     if h.latency_s is not None and _is_known(json.loads(h.trial.candidate))]
        for where in dict.fromkeys(_where(history) for history in histories):
            own = [history for history in histories if _where(history) == where]
            layers = _layers(store, study, where) if where.board_kind in board_kinds and len(own) >= LEAST else None
            if layers is not None:
                found.append({"study": study.name, "model": str(study.config.get("model")),
                              "board_kind": where.board_kind, "candidates": len(own),
                              "priors": _errors(layers, own, where, model, roofline)})
    return found


def _errors(layers: LayerMap, histories: list[TrialHistory], where: Conditions, model: CostModel,
            roofline: Roofline) -> dict[str, PriorErrors]:
    sites = sites_of(layers)
    candidates = [Candidate.from_json(layers.space, history.trial.candidate) for history in histories]
    picks = np.array([sites.picks(candidate) for candidate in candidates])
    truth = np.array([history.latency_s for history in histories], np.float64)

    def error(tables: Tables) -> PriorErrors:
        return described(error_of(tables.total(picks), truth, [where] * len(truth)))

    return {"roofline": error(roofline_prior(layers, sites, roofline, where.threads)),
            **{name: error(learned_prior(layers, sites, model, name, where, roofline)) for name in VARIANTS}}


def described(error: PriorError) -> PriorErrors:
    """Return an error as documents have it."""
    return {"median_relative_error": error.median_relative, "rank_correlation": error.rank_correlation}


def _where(history: TrialHistory) -> Conditions:
    measurement = history.measurements[0].measurement
    return Conditions(measurement.kind, measurement.runtime, measurement.runtime_version, measurement.threads)


def _layers(store: Store, study: StudyRecord, where: Conditions) -> LayerMap | None:
    """Return a study's network, None when it cannot be had as the study saw it."""
    models = [step.outputs["float_model"] for step in store.steps(study.id) if step.name == "prepare"]
    for model in reversed(models):
        try:
            layers = map_layers(read_graph(store.blobs.path(model)), _target(where))
        except (BlobMissing, ValueError):  # it is gone, or another compiler's
            continue
        return layers if study.spaces[COMPILER].part_of(layers.space) else None
    return None


def _is_known(candidate: Mapping[str, object]) -> bool:
    """Tell whether the cost model's layers are those of a candidate (in its JSON form)."""
    return candidate["compiler"] == COMPILER and not candidate.get("widths")


def _target(where: Conditions) -> Target:
    return Target(where.board_kind, where.runtime, where.runtime_version)
