"""Cost models: trained on every layer that was measured, kept in versions, and used as a new study's prior."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.costmodel_networks import described, network_errors
from orchestrator.errors import UsageError
from orchestrator.schemas.costmodel import CostmodelEvaluated, CostmodelTrained
from orchestrator.schemas.strict import SCHEMA
from orchestrator.store.records import ALL_KINDS, CostModelRecord, NewCostModel
from orchestrator.store.store import Store
from orchestrator.tuned import TUNABLE
from profilers.cost_model import VARIANTS, CostModel, ModelUnusable, Variant, library_version
from profilers.cost_model_errors import TooFewRows, evaluate_priors
from profilers.cost_model_features import FEATURES_VERSION
from profilers.cost_model_prior import learned_prior
from profilers.cost_model_rows import Conditions, Observation
from profilers.prior import roofline_prior
from profilers.simulation import CORTEX_A72, OWN_KERNELS
from recipes.blobs import BlobMissing
from recipes.compilers.layers import LayerMap
from search.adaptive.graph import Tables
from search.sites import Sites

ONE_KIND = "the rows are of one kind of board only"
ROOFLINE = CORTEX_A72
"""The analytic model of every kind of board; a search corrects its scale."""


AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Prior:
    """What a new study believes before its first measurement, and why."""

    tables: Tables
    why: str
    """A sentence for the user."""


def observations(store: Store, kind: str | None) -> tuple[Observation, ...]:
    """Return the measured layers of a kind of board; without a kind, all but the simulated ones.

    Raises:
        UsageError: there are none.
    """
    rows = store.layers(kind=kind)
    found = tuple(Observation(row.shape, row.config, row.where, row.latency_s) for row in rows
                  if row.latency_s is not None and (kind is not None or not row.simulated))
    if found:
        return found
    known = sorted({row.where.board_kind for row in store.layers() if row.latency_s is not None})
    collect = "measure some first: orchestrator costmodel collect --device NAME"
    if not known:
        raise UsageError(f"the store holds no measured layers; {collect}")
    if kind is None:
        raise UsageError(f"all layers in the store are simulated; to train with those, name their kind: --kind "
                         f"{known[0]}; otherwise {collect}")
    raise UsageError(f"--kind {kind}: the store holds no measured layers of this kind of board, only of "
                     f"{', '.join(known)}; {collect}")


def evaluate_costmodel(store: Store, kind: str | None) -> CostmodelEvaluated:
    """Say how far each prior is from layers that it was not trained with. Raises UsageError."""
    rows = observations(store, kind)
    return _document(store, kind, rows, CostModel.train(rows, ROOFLINE))


def train_costmodel(store: Store, kind: str | None) -> CostmodelTrained:
    """Train on all rows, evaluate on held-out ones, and keep the model as a new version. Raises UsageError."""
    rows = observations(store, kind)
    model = CostModel.train(rows, ROOFLINE)
    document = _document(store, kind, rows, model)
    blob = store.blobs.put_bytes(model.to_bytes())
    record = store.add_cost_model(NewCostModel(
        scope=kind or ALL_KINDS, blob_sha256=blob.sha256, rows=len(rows), features_version=FEATURES_VERSION,
        library=library_version(), chosen=document["chosen"], board_kinds=tuple(document["board_kinds"]),
        errors={name: found["median_relative_error"] for name, found in document["held_out_families"].items()}))
    return {"schema": SCHEMA, "scope": record.model.scope, "version": record.version,
            "created_at": record.created_at.isoformat(), "features_version": FEATURES_VERSION,
            "library": record.model.library, "sha256": blob.sha256, "evaluation": document}


def prior_for(store: Store, layers: LayerMap, sites: Sites, where: Conditions, asked: str = AUTO) -> Prior:
    """Return the prior of a new study: the newest model that knows the board's kind, where it beats the roofline.

    Args:
        store: where models are kept.
        layers: of the float model.
        sites: what `profilers.sites.sites_of` made of them.
        where: kind of board, runtime and threads of the study.
        asked: `auto`, `roofline`, or a variant of cost models.

    Raises UsageError: a cost model was asked for, and there is none for this kind of board that can be used.
    """
    wanted: Variant | None = next((v for v in VARIANTS if v == asked), None)
    own = where.runtime == TUNABLE

    def roofline(why: str) -> Prior:
        model = OWN_KERNELS if own else ROOFLINE
        return Prior(roofline_prior(layers, sites, model, where.threads), f"prior: the roofline model; {why}")

    if asked == "roofline":
        return roofline("it was asked for")
    if own:
        return roofline("cost models know LiteRT's kernels alone")
    record = known_model(store, where.board_kind, asked)
    if record is None:
        return roofline(f"no cost model knows boards of kind {where.board_kind} (orchestrator costmodel collect, then "
                        "train)")
    chosen = record.model.chosen
    variant = wanted or next((v for v in VARIANTS if v == chosen), None)
    if variant is None:
        return roofline(f"on layers held out from training, the cost model ({record.name}) is no better")
    try:
        model = load_model(store, record)
    except UsageError as error:
        if wanted:
            raise
        return roofline(str(error))
    tables = learned_prior(layers, sites, model, variant, where, ROOFLINE)
    return Prior(tables, f"prior: the cost model, {record.name} ({variant}): {_shares(record, variant)}")


def refuse_prior(store: Store, board_kind: str, runtimes: Collection[str], asked: str) -> None:
    """Refuse a cost model that no compiler of a study can use, before anything is measured. Raises UsageError."""
    if asked in VARIANTS and set(runtimes) == {TUNABLE}:
        raise UsageError(f"--prior {asked}: cost models know LiteRT's kernels alone; use --prior auto with --compiler "
                         f"{TUNABLE}")
    known_model(store, board_kind, asked)


def known_model(store: Store, board_kind: str, asked: str) -> CostModelRecord | None:
    """Return the newest model for a kind of board. Raises UsageError where one was asked for and there is none."""
    record = latest_model(store, board_kind)
    if record is None and asked in VARIANTS:
        raise UsageError(f"--prior {asked}: no cost model knows boards of kind {board_kind}; make one: orchestrator "
                         f"costmodel collect --device {board_kind}, then costmodel train; or use --prior auto")
    return record


def latest_model(store: Store, board_kind: str) -> CostModelRecord | None:
    """Return the newest model that was trained with rows of a kind of board; None when there is none."""
    known = [record for record in store.cost_models() if board_kind in record.model.board_kinds]
    return known[-1] if known else None


def load_model(store: Store, record: CostModelRecord) -> CostModel:
    """Read a model's file. Raises UsageError when it cannot be used."""
    try:
        return CostModel.from_bytes(store.blobs.path(record.model.blob_sha256).read_bytes())
    except (ModelUnusable, BlobMissing) as error:
        raise UsageError(f"cost model, {record.name}: {error}") from error


def _document(store: Store, kind: str | None, rows: tuple[Observation, ...], model: CostModel) -> CostmodelEvaluated:
    try:
        found = evaluate_priors(rows, ROOFLINE)
    except TooFewRows as error:
        raise UsageError(str(error)) from error
    by_kind, kinds = found.by_board_kind, sorted({row.where.board_kind for row in rows})
    document: CostmodelEvaluated = {
        "schema": SCHEMA, "scope": kind or ALL_KINDS, "board_kinds": kinds, "rows": len(rows),
        "held_out_families": {name: described(error) for name, error in found.by_family.items()},
        "held_out_board_kinds": None if by_kind is None else {
            name: described(error) for name, error in by_kind.items()},
        "networks": network_errors(store, kinds, model, ROOFLINE), "chosen": found.chosen}
    if by_kind is None:
        document["held_out_board_kinds_absent_because"] = ONE_KIND
    return document


def _shares(record: CostModelRecord, chosen: str) -> str:
    ours, analytic = record.model.errors[chosen], record.model.errors["roofline"]
    return f"{ours:.0%} off on held-out layers, the roofline {analytic:.0%}"
