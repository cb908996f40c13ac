"""Candidate -> shared library, read back."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from recipes.blobs import BlobStore
from recipes.compilers.layers import LayerMap
from recipes.compilers.tvm.kernels.isa import isa_of
from recipes.compilers.tvm.link import library
from recipes.compilers.tvm.lower import Ranges, lower, scheme_name
from recipes.compilers.tvm.network import FloatNetwork
from recipes.target import Target
from search.candidate import Candidate
from search.errors import InfeasibleCandidate

SCHEMA = 1
CALL = re.compile(r"^\s*call\s+(\w+)", re.MULTILINE)


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
                 blobs: BlobStore | None) -> None:
        self.layers = layers
        self._blobs = blobs
        self._network, self._ranges, self._target = network, ranges, target

    def quantise(self, candidate: Candidate, io: str = "float") -> bytes:
        """See Quantiser; inputs and outputs are float."""
        if io != "float":
            raise InfeasibleCandidate(f"the compiler tvm makes float inputs and outputs, not {io}")
        isa = isa_of(self._target.machine, self._target.cpu_features)
        lowered = lower(self._network, self.layers, self._ranges, candidate, isa)
        data = library(lowered, self._target, self._blobs)
        check_asked(self._network, self.layers, candidate, data)
        return data


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
    """Return the functions that a library's `main` calls, in order."""
    import tvm

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model.so"
        place.write_bytes(artifact)
        text = str(tvm.runtime.load_module(str(place))["as_text"]())
    return CALL.findall(text)


