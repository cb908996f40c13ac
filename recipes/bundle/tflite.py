"""Bundles of TFLite: with the rules by which the quantiser alone makes the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recipes.bundle.format import Rebuild, candidate_of, example, result, versions
from recipes.bundle.schema import FILES, RULES, STATISTICS, FileName, PortEntry, Recipe, RecipeFacts
from recipes.compilers.tflite.compiler import TfliteCompiler
from recipes.compilers.tflite.quantise import quantiser_recipe

_NAMES = FILES["tflite"]
_INTERPRETER = {"litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}


@dataclass(frozen=True, slots=True)
class TfliteFormat:
    """Implements Format."""

    compiler: TfliteCompiler = TfliteCompiler()

    def others(self, recipe: RecipeFacts, float_model: bytes) -> Mapping[FileName, bytes]:
        """See Format: the quantiser's rules."""
        layers = self.compiler.layers(float_model, recipe.target.to_target())
        return {RULES: rules_text(quantiser_recipe(layers, candidate_of(layers, recipe), recipe.io))}

    def running(self, recipe: Recipe) -> str:
        """See Format."""
        return (f"Run it (needs {versions(recipe, 'ai-edge-litert')}, and numpy){_runtime_hint(recipe)}:\n\n"
                f"```python\n{_run(recipe)}\n```")

    def rebuilding(self, recipe: Recipe) -> str:
        """See Format."""
        if recipe.io == "float" and set(recipe.candidate.layers.values()) == {"float32"}:
            return """\
Nothing is quantised, so there is nothing to rebuild: the model is the float model.

```sh
cmp float.tflite model.tflite
```"""
        return f"""\
Rebuild it with the quantiser alone (needs {versions(recipe, "ai-edge-quantizer")}):

```python
from pathlib import Path

from ai_edge_quantizer import Quantizer
from ai_edge_quantizer.utils.calibration_utils import load_calibration_results

statistics, _ = load_calibration_results("calibration.json")
rebuilt = Quantizer("float.tflite", "quantizer_recipe.json").quantize(statistics).quantized_model
print("the same bytes" if rebuilt == Path("model.tflite").read_bytes() else "OTHER BYTES")
```"""

    def rebuilds(self, folder: Path, recipe: Recipe) -> tuple[Rebuild, ...]:
        """See Format: the rules, and by them the artifact, as a production line without this program does."""
        return (Rebuild(f"candidate -> {RULES}", "write the rules", RULES, (_NAMES.float_model,),
                        lambda: self.others(recipe, (folder / _NAMES.float_model).read_bytes())[RULES]),
                Rebuild(f"{RULES} -> {_NAMES.model}", "quantise", _NAMES.model,
                        (_NAMES.float_model, STATISTICS, RULES), lambda: _by_rules(folder)))


def rules_text(rules: list[dict[str, Any]]) -> bytes:
    """Return the quantiser's rules as the bytes of quantizer_recipe.json."""
    return (json.dumps(rules, indent=1) + "\n").encode()


def _by_rules(folder: Path) -> bytes:
    """Do what the bundle's README tells a production line to do."""
    from ai_edge_quantizer import Quantizer
    from ai_edge_quantizer.utils.calibration_utils import load_calibration_results

    quantizer = Quantizer(str(folder / _NAMES.float_model), str(folder / RULES))
    if not quantizer.get_quantization_recipe():
        return (folder / _NAMES.float_model).read_bytes()
    statistics, _ = load_calibration_results(str(folder / STATISTICS))
    made = quantizer.quantize(statistics, enable_progress_report=False, enable_progress_bar=False)
    return bytes(made.quantized_model)


def _runtime_hint(recipe: Recipe) -> str:
    package = _INTERPRETER[recipe.target.runtime]
    return "" if package == "ai_edge_litert" else f"; on the board, import from `{package}.interpreter`"


def _run(recipe: Recipe) -> str:
    lines = ["import numpy as np", "from ai_edge_litert.interpreter import Interpreter", "",
             f'interpreter = Interpreter("{_NAMES.model}", num_threads={recipe.candidate.threads})',
             "interpreter.allocate_tensors()",
             "inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()"]
    for port in recipe.inputs:
        lines += _give(port, recipe.model.name)
    lines.append("interpreter.invoke()")
    for port in recipe.outputs:
        lines += _take(port, recipe.model.name)
    return "\n".join([*lines, f"print({', '.join(f'y{port.position}' for port in recipe.outputs)})"])


def _give(port: PortEntry, model: str) -> list[str]:
    name, lines = f"x{port.position}", [example(port, model)]
    if port.scale is not None:
        limits = np.iinfo(port.dtype)
        lines.append(f'{name} = np.clip(np.round({name} / {port.scale!r}) + ({port.zero_point}), {limits.min}, '
                     f'{limits.max}).astype("{port.dtype}")')
    return [*lines, f'interpreter.set_tensor(inputs[{port.position}]["index"], {name})']


def _take(port: PortEntry, model: str) -> list[str]:
    name = f"y{port.position}"
    lines = [f'{name} = interpreter.get_tensor(outputs[{port.position}]["index"])  {result(port, model)}']
    if port.scale is not None:
        lines.append(f'{name} = ({name}.astype("float32") - ({port.zero_point})) * np.float32({port.scale!r})')
    return lines


if TYPE_CHECKING:
    from recipes.bundle.format import Format

    _: Format = TfliteFormat()
