"""What a compiler decides in its bundles: further files, how the artifact runs, how it is made again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from recipes.bundle.schema import FileName, PortEntry, Recipe, RecipeFacts
from recipes.compilers.compiler import Compiler
from recipes.compilers.layers import LayerMap
from search.candidate import Candidate


@dataclass(frozen=True, slots=True)
class Rebuild:
    """A file that can be made again from others."""

    name: str
    """`source -> file`."""
    step: str
    """What a search calls it."""
    file: FileName
    needs: tuple[FileName, ...]
    make: Callable[[], bytes]


class Format(Protocol):
    """The bundles of one compiler."""

    @property
    def compiler(self) -> Compiler:
        """What made the artifact."""

    def others(self, recipe: RecipeFacts, float_model: bytes) -> Mapping[FileName, bytes]:
        """Return the files that only this compiler's bundles have."""

    def running(self, recipe: Recipe) -> str:
        """Write the part of the README that runs the artifact: Python that works in the bundle's folder."""

    def rebuilding(self, recipe: Recipe) -> str:
        """Write the part of the README that makes the artifact again."""

    def rebuilds(self, folder: Path, recipe: Recipe) -> tuple[Rebuild, ...]:
        """Return what can be rebuilt, beside the artifact from the candidate."""


def candidate_of(layers: LayerMap, recipe: RecipeFacts) -> Candidate:
    """Return a recipe's candidate on its own (narrowed) float model. Raises ValueError where it is not legal there."""
    found = recipe.to_candidate()
    return Candidate.of(layers.space, found.config_of, found.threads, calibration=found.calibration,
                        clipping=found.clipping)


def versions(recipe: Recipe, *distributions: str) -> str:
    """Return what was used in a sentence: `ai-edge-litert 2.3.0`."""
    return " and ".join(" ".join(filter(None, (name, recipe.tools.get(name)))) for name in distributions)


def example(port: PortEntry, model: str) -> str:
    """Return the line of Python that makes an input of zeros."""
    dtype = "float32" if port.scale is not None else port.dtype
    return (f'x{port.position} = np.zeros({port.shape}, "{dtype}")  # {port.name!r}: argument {port.source!r} of '
            f"{model}{_axes(port)}; put your data here")


def result(port: PortEntry, model: str) -> str:
    """Return the comment of Python that says what an output is."""
    return f"# {port.name!r}: output {port.source} of {model}, {port.shape}{_axes(port)}"


def _axes(port: PortEntry) -> str:
    return "" if port.layout == "model" else f" as {port.layout}"
