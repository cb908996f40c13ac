"""What `orchestrator tune` found out, for a study: the fastest tiles, and the formats that pay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.store.records import KernelRecord
from orchestrator.store.store import Store
from recipes.compilers.compiler import Compiler
from recipes.compilers.layers import LayerMap
from recipes.target import Target

TUNABLE = "tvm"
"""The compiler whose kernels have tiles."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What is known of a network's kernels on a kind of board."""

    layers: LayerMap
    """With the formats that pay."""
    schedules: str | None
    """Blob: the fastest tiles; None where nothing was measured."""
    note: str | None
    """What to tell the user."""


def tuned(store: Store, compiler: Compiler, kind: str, model: bytes, layers: LayerMap, target: Target) -> Tuned:
    """Return what the store knows of a network's kernels on a kind of board."""
    if compiler.name != TUNABLE:
        return Tuned(layers, None, None)
    from recipes.compilers.tvm.kernels.isa import isa_of
    from recipes.compilers.tvm.link import templates_digest
    from recipes.compilers.tvm.network import read_network
    from recipes.compilers.tvm.pays import KernelCost, paying
    from recipes.compilers.tvm.schedules import schedules_bytes, tile_of
    from recipes.compilers.tvm.templates import templates_of

    network, isa = read_network(model), isa_of(target.machine, target.cpu_features)
    wanted = {template.key for template in templates_of(network, layers, isa)}
    known = {record.kernel: record for record in store.kernels(kind, target.runtime_version, templates_digest())
             if record.kernel in wanted and record.reason is None}
    if not known:
        return Tuned(layers, None, None)
    kept, dropped = paying(network, layers, isa, {key: KernelCost(record.best_ns, record.code_bytes)
                                                  for key, record in known.items()})
    changed = {key: tile_of(record.tile) for key, record in known.items() if record.best_ns < record.default_ns}
    blob = store.blobs.put_bytes(schedules_bytes(changed)).sha256 if changed else None
    return Tuned(kept, blob, _note(known, len(wanted), len(changed), {n: len(f) for n, f in dropped.items()}))


def _note(known: Mapping[str, KernelRecord], wanted: int, changed: int, dropped: Mapping[str, int]) -> str:
    text = f"{len(known)} of {wanted} kernels are tuned for this kind of board, {changed} with a tile of their own"
    if dropped:
        text += (f"; {sum(dropped.values())} formats of {len(dropped)} layers are not offered: they are neither faster "
                 "nor smaller there than more precise ones")
    return text
