"""A cost model: gradient-boosted trees that were trained on what layers took on boards.

Chen and Guestrin 2016, XGBoost, doi:10.1145/2939672.2939785.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from profilers.cost_model_features import (
    FEATURES_VERSION,
    Floats,
    Vocabulary,
    features,
    roofline_s,
)
from profilers.cost_model_rows import Conditions, Observation
from profilers.simulation import Roofline
from recipes.compilers.shapes import LayerShape
from search.space import LayerConfig

if TYPE_CHECKING:
    import xgboost

Variant = Literal["xgboost", "both"]
VARIANTS: tuple[Variant, ...] = ("xgboost", "both")
"""`xgboost` learns the logarithm of the latency; `both` that of its ratio to the roofline, which it also sees."""
_ROUNDS = 400
_SETTINGS: Mapping[str, object] = {
    "objective": "reg:squarederror", "max_depth": 6, "eta": 0.06, "subsample": 0.8, "colsample_bytree": 0.8,
    "min_child_weight": 1, "tree_method": "hist", "seed": 0, "nthread": 1}


class ModelUnusable(ValueError):
    """The stored model is damaged, or was trained with other features."""


@dataclass(frozen=True)
class CostModel:
    """Predicts the seconds of one operator."""

    boosters: Mapping[Variant, xgboost.Booster]
    vocabulary: Vocabulary
    log_ratio: float
    """Median logarithm of measured over roofline: for operators that were never measured."""
    rows: int

    @classmethod
    def train(cls, rows: Sequence[Observation], roofline: Roofline) -> CostModel:
        """Train both variants."""
        import xgboost

        vocabulary = Vocabulary.of(rows)
        table = np.array([features(row.shape, row.config, row.where, vocabulary, roofline) for row in rows])
        latency = np.log2([row.latency_s for row in rows])
        ratio = latency - table[:, -1]
        boosters: dict[Variant, xgboost.Booster] = {}
        for variant in VARIANTS:
            target = ratio if variant == "both" else latency
            boosters[variant] = xgboost.train(
                dict(_SETTINGS), xgboost.DMatrix(_seen(table, variant), label=target, nthread=1), _ROUNDS)
        return cls(boosters, vocabulary, float(np.median(ratio)), len(rows))

    def predict(self, variant: Variant, layers: Sequence[tuple[LayerShape, LayerConfig]], where: Conditions,
                roofline: Roofline) -> Floats:
        """Return seconds: (layers,). An operator that was never measured gets the roofline's, scaled."""
        import xgboost

        if not layers:
            return np.zeros(0)
        table = np.array([features(shape, config, where, self.vocabulary, roofline) for shape, config in layers])
        found = np.asarray(self.boosters[variant].predict(xgboost.DMatrix(_seen(table, variant), nthread=1)),
                           np.float64)
        if variant == "both":
            found = found + table[:, -1]
        known = np.array([shape.kind in self.vocabulary.operators for shape, _ in layers])
        seconds: Floats = np.exp2(np.where(known, found, table[:, -1] + self.log_ratio))
        return seconds

    def to_bytes(self) -> bytes:
        """Return the model as a file; `from_bytes` predicts the same bit by bit."""
        boosters = {name: base64.b64encode(bytes(booster.save_raw("ubj"))).decode()
                    for name, booster in self.boosters.items()}
        document = {"features": FEATURES_VERSION, "columns": list(self.vocabulary.columns),
                    "vocabulary": asdict(self.vocabulary), "log_ratio": self.log_ratio, "rows": self.rows,
                    "boosters": boosters}
        return json.dumps(document, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> CostModel:
        """Read what `to_bytes` wrote. Raises ModelUnusable."""
        import xgboost

        try:
            document = json.loads(data)
            if document["features"] != FEATURES_VERSION:
                raise ModelUnusable(f"the model was trained with version {document['features']} of the features, this "
                                    f"program has version {FEATURES_VERSION}; train it anew: orchestrator costmodel "
                                    "train")
            words = {name: tuple(str(word) for word in found) for name, found in document["vocabulary"].items()}
            boosters: dict[Variant, xgboost.Booster] = {}
            for variant in VARIANTS:
                boosters[variant] = xgboost.Booster({"nthread": 1}, model_file=bytearray(
                    base64.b64decode(document["boosters"][variant])))
            return cls(boosters, Vocabulary(**words), float(document["log_ratio"]), int(document["rows"]))
        except (KeyError, TypeError, json.JSONDecodeError, binascii.Error, xgboost.core.XGBoostError) as error:
            raise ModelUnusable(f"the model is damaged ({type(error).__name__}); train it anew: orchestrator costmodel "
                                "train") from error


def roofline_seconds(layers: Sequence[tuple[LayerShape, LayerConfig]], where: Conditions,
                     roofline: Roofline) -> Floats:
    """Return the analytic model's seconds: (layers,)."""
    return np.array([roofline_s(shape, config, roofline, where.threads) for shape, config in layers])


def library_version() -> str:
    """Return the name and version of what trains."""
    import xgboost

    return f"xgboost {xgboost.__version__}"


def _seen(table: Floats, variant: Variant) -> Floats:
    """Return the columns that a variant sees: `xgboost` knows nothing of the roofline, the last one."""
    return table if variant == "both" else table[:, :-1]
