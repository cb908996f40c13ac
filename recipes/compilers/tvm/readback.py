"""What a shared library holds, read without loading it: it may be for another processor."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import Any

from recipes.compilers.layers import LayerMap
from recipes.compilers.tvm.network import FloatNetwork
from recipes.compilers.tvm.templates import scheme_name
from search.candidate import Candidate
from search.errors import InfeasibleCandidate

_MODULES = "__tvm_ffi__library_bin"
"""The symbol under which TVM packs what is no machine code (tvm-ffi, src/ffi/extra/library_module.cc)."""
_MACHINE = "relax.VMExecutable"
_CODE = "_lib"
"""Stands for the library's own machine code."""
_CALL = re.compile(r"^\s*call\s+(\w+)", re.MULTILINE)


def check_asked(network: FloatNetwork, layers: LayerMap, candidate: Candidate, artifact: bytes) -> None:
    """Compare the kernels that a library calls, in order, with the candidate's configuration.

    Raises:
        InfeasibleCandidate: naming the first layer that differs, with what was asked and found.
    """
    configs = layers.operator_configs(candidate)
    weighted = [piece for piece in network.pieces if piece.weighted is not None]
    kinds = tuple(f"{piece.operator.kind.lower()}_" for piece in weighted)
    called = [name for name in calls(artifact) if name.startswith(kinds)]
    if len(called) != len(weighted):
        raise InfeasibleCandidate(f"the artifact calls {len(called)} kernels with weights instead of {len(weighted)}")
    for piece, name in zip(weighted, called, strict=True):
        asked = f"{piece.operator.kind.lower()}_{scheme_name(configs[piece.operator.index])}"
        if name.rpartition("_")[0] != asked:
            layer = layers.layer_of.get(piece.operator.index, f"operator {piece.operator.index}")
            raise InfeasibleCandidate(f"layer {layer} ({piece.operator.kind}): asked for {asked}, the artifact calls "
                                      f"{name}")


def calls(artifact: bytes) -> list[str]:
    """Return the functions that a library's `main` calls, in order. Raises ValueError for what is no such library."""
    import tvm

    load = tvm.get_global_func(f"ffi.Module.load_from_bytes.{_MACHINE}")
    return _CALL.findall(str(load(dict(_modules(artifact))[_MACHINE])["as_text"]()))


def _modules(artifact: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield kind and bytes of every module that a library holds beside its code."""
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(io.BytesIO(artifact))
    symbols: Any = elf.get_section_by_name(".dynsym")
    symbol = symbols.get_symbol_by_name(_MODULES)[0]
    start = next(iter(elf.address_offsets(symbol.entry.st_value)))
    packed = _Packed(artifact[start + 8:start + symbol.entry.st_size])
    for _ in range(2):  # which module imports which
        packed.take(8 * packed.number())
    while packed.rest:
        kind = packed.take(packed.number()).decode()
        if kind != _CODE:
            yield kind, packed.take(packed.number())


class _Packed:
    """Bytes that are read from their beginning."""

    def __init__(self, rest: bytes) -> None:
        self.rest = rest

    def number(self) -> int:
        return int(struct.unpack("<Q", self.take(8))[0])

    def take(self, count: int) -> bytes:
        found, self.rest = self.rest[:count], self.rest[count:]
        return found
