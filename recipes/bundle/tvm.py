"""Bundles of TVM: a shared library, which the runtime alone executes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.bundle.format import Rebuild, example, result, versions
from recipes.bundle.schema import FILES, FileName, Recipe, RecipeFacts
from recipes.compilers.tvm.compiler import TvmCompiler
from recipes.compilers.tvm.target import features

_NAMES = FILES["tvm"]


@dataclass(frozen=True, slots=True)
class TvmFormat:
    """Implements Format."""

    compiler: TvmCompiler = TvmCompiler()

    def others(self, recipe: RecipeFacts, float_model: bytes) -> Mapping[FileName, bytes]:
        """See Format; there are none."""
        return {}

    def running(self, recipe: Recipe) -> str:
        """See Format."""
        used = ", ".join(features(recipe.target.to_target()))
        return (f"Run it on {recipe.target.machine}{f' with {used}' if used else ''} (needs "
                f"{versions(recipe, 'apache-tvm', 'apache-tvm-ffi')}, of which `orchestrator devices setup` brings the "
                f"runtime alone to a board, and numpy):\n\n```python\n{_run(recipe)}\n```")

    def rebuilding(self, recipe: Recipe) -> str:
        """See Format."""
        return (f"Rebuild it: `orchestrator recipes verify .` (needs 'hil-orchestrator[tvm]' with "
                f"{versions(recipe, *self.compiler.quantises_with)}).")

    def rebuilds(self, folder: Path, recipe: Recipe) -> tuple[Rebuild, ...]:
        """See Format; there is nothing more."""
        return ()


def _run(recipe: Recipe) -> str:
    model, inputs, outputs = recipe.model.name, recipe.inputs, recipe.outputs
    return "\n".join([
        "import numpy as np", "import tvm", "from tvm.runtime.vm import VirtualMachine", "",
        f'machine = VirtualMachine(tvm.runtime.load_module("./{_NAMES.model}"), tvm.cpu())',
        *(example(port, model) for port in inputs),
        f"outputs = machine[\"main\"]({', '.join(f'tvm.runtime.tensor(x{port.position})' for port in inputs)})",
        *(f"y{port.position} = outputs[{port.position}].numpy()  {result(port, model)}" for port in outputs),
        f"print({', '.join(f'y{port.position}' for port in outputs)})"])


if TYPE_CHECKING:
    from recipes.bundle.format import Format

    _: Format = TvmFormat()
