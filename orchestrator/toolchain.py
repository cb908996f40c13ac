"""One compiler of a study, with everything that depends on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.store.records import digest_of
from recipes.errors import DataError, ModelError

if TYPE_CHECKING:  # they import all that a search needs
    from profilers.accuracy import EvaluationInputs
    from recipes.compilers.build import BuildInputs
    from recipes.compilers.layers import LayerMap
    from recipes.compress.groups import LeftOut
    from recipes.models.prepare import Prepared
    from recipes.models.source import Reference
    from search.space import SearchSpace


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A compiler, what it made of the network, and the runtime that executes its artifacts."""

    prepared: Prepared
    layers: LayerMap
    builder: BuildInputs
    evaluator: EvaluationInputs
    left_out: tuple[LeftOut, ...]
    """Channels that cannot be pruned; none where pruning is off."""
    runtime_version: str
    """On the board."""

    @property
    def name(self) -> str:
        """The compiler's."""
        return self.builder.compiler.name

    @property
    def runtime(self) -> str:
        """Of the board, and of the host that evaluates in its place."""
        return self.evaluator.runtime.name

    @property
    def space(self) -> SearchSpace:
        return self.layers.space

    def searching(self, space: SearchSpace) -> Toolchain:
        """Return the same with a study's own space: a part of what the compiler offers now."""
        return replace(self, layers=replace(self.layers, space=space))


def model_digest(prepared: Mapping[str, Prepared]) -> str:
    """Tell networks apart: by the float model, where there are several compilers by all of theirs."""
    digests = {name: found.model_digest for name, found in prepared.items()}
    return digest_of(dict(digests)) if len(digests) > 1 else next(iter(digests.values()))


def refuse_foreign(model: Reference, compilers: Sequence[str]) -> None:
    """Refuse a model that a compiler cannot import. Raises ModelError."""
    if model.kind == "tflite" and "tvm" in compilers:
        raise ModelError(f"--model {model.text}: a .tflite model is LiteRT's own, and tvm cannot import it; give the "
                         "network as FILE.py:FACTORY, .pt2 or .onnx, or take --compiler tflite alone")


def refuse_other_data(prepared: Mapping[str, Prepared], data: Reference) -> None:
    """Refuse data that are not the same for every compiler: accuracies could not be compared. Raises DataError."""
    first, *others = prepared.values()
    for other in others:
        differing = [name for name in first.splits if first.splits[name] != other.splits[name]]
        if differing:
            raise DataError(f"--data {data.text}: it is loaded once for each compiler ({', '.join(prepared)}) and must "
                            f"give the same data every time; {', '.join(differing)} differ: fix the seeds in it")
