"""Candidate -> shared library, read back."""

from __future__ import annotations

import json

from recipes.blobs import BlobStore
from recipes.compilers.layers import LayerMap
from recipes.compilers.tvm.kernels.isa import isa_of
from recipes.compilers.tvm.link import library
from recipes.compilers.tvm.lower import Ranges, Rounded, lower
from recipes.compilers.tvm.network import FloatNetwork
from recipes.compilers.tvm.readback import check_asked
from recipes.compilers.tvm.schedules import Schedules
from recipes.target import Target
from search.candidate import Candidate
from search.errors import InfeasibleCandidate

SCHEMA = 1


def statistics_bytes(ranges: Ranges, method: str, count: int) -> bytes:
    """Write ranges as the bytes of calibration.json."""
    document = {"schema": SCHEMA, "method": method, "examples": count,
                "ranges": {name: list(pair) for name, pair in sorted(ranges.items())}}
    return json.dumps(document, sort_keys=True).encode()


def read_statistics(data: bytes) -> dict[str, tuple[float, float]]:
    """Read what `statistics_bytes` wrote. Raises ValueError for another version."""
    document = json.loads(data)
    if document.get("schema") != SCHEMA:
        raise ValueError(f"statistics of the compiler tvm with schema {document.get('schema')}; expected {SCHEMA}")
    return {name: (float(least), float(greatest)) for name, (least, greatest) in document["ranges"].items()}


class TvmQuantiser:
    """Implements Quantiser: one float network with its ranges."""

    def __init__(self, network: FloatNetwork, ranges: Ranges, layers: LayerMap, target: Target,
                 blobs: BlobStore | None, schedules: Schedules) -> None:
        self.layers, self._schedules = layers, schedules
        self._blobs = blobs
        self._rounded: Rounded = {}
        self._network, self._ranges, self._target = network, ranges, target

    def quantise(self, candidate: Candidate, io: str = "float") -> bytes:
        """See Quantiser; inputs and outputs are float."""
        if io != "float":
            raise InfeasibleCandidate(f"the compiler tvm makes float inputs and outputs, not {io}")
        isa = isa_of(self._target.machine, self._target.cpu_features)
        lowered = lower(self._network, self.layers, self._ranges, candidate, isa, (), self._rounded, self._schedules)
        data = library(lowered, self._target, self._blobs)
        check_asked(self._network, self.layers, candidate, data)
        return data
