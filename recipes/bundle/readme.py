"""The README.md of a bundle: what it is, and commands that work as they stand."""

from __future__ import annotations

import numpy as np

from recipes.bundle.schema import FLOAT_MODEL, MODEL, Measured, PortEntry, Recipe

_INTERPRETER = {"litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}


def readme(recipe: Recipe) -> str:
    """Write the page for one recipe. Python and shell blocks run in the bundle's own folder."""
    return f"""\
# {recipe.model.name} for {recipe.target.runtime} on {recipe.target.machine}

{_summary(recipe)}

Run it ({_needs(recipe, "ai-edge-litert")}, and numpy){_runtime_hint(recipe)}:

```python
{_run(recipe)}
```

Verify that every file is as it was exported (`orchestrator recipes verify .` also rebuilds the model and compares):

```sh
sha256sum --check SHA256SUMS
```

{_rebuild(recipe)}
"""


def _summary(recipe: Recipe) -> str:
    labels = recipe.candidate.layers.values()
    changed = sum(label != "float32" for label in labels)
    lines = [f"`{MODEL}`: {recipe.files['model.tflite'].size_bytes:,} bytes, {changed} of {len(labels)} layers "
             f"quantised, found by study {recipe.study!r} on {recipe.created:%Y-%m-%d}; "
             "`recipe.yaml` says everything that decides its bytes."]
    if recipe.candidate.widths:
        kept = ", ".join(f"{name} {width}" for name, width in recipe.candidate.widths.items())
        lines.append(f"Pruned: channels kept of each group: {kept} (order: {recipe.prune_criterion}, recovery: "
                     f"{recipe.candidate.recovery}); `{FLOAT_MODEL}` is the pruned network.")
    if for_all := recipe.to_candidate().for_all:
        lines.append(f"For all layers: {', '.join(f'{name} {value}' for name, value in for_all.items())}.")
    lines += [_measured(entry) for entry in recipe.measured]
    lines += [f"Accuracy on the {split} split: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
              + "." for split, metrics in recipe.accuracy.items() if metrics]
    return "\n".join(lines)


def _measured(entry: Measured) -> str:
    latency = entry.latency
    budget = "" if latency.budget_s is None else f", budget {latency.budget_s * 1e3:.4g} ms"
    kept = "" if latency.probability is None else f" (met with probability {latency.probability:.3f})"
    source = "Simulated" if entry.simulated else "Measured"
    return (f"{source} on {entry.board} ({entry.kind}, {entry.runtime} {entry.runtime_version}, threads: "
            f"{entry.threads}): median {latency.median_s * 1e3:.4g} ms, 90 % within {latency.p90_s * 1e3:.4g} ms"
            f"{budget}{kept}.")


def _needs(recipe: Recipe, distribution: str) -> str:
    version = recipe.tools.get(distribution)
    return f"needs {distribution} {version}" if version else f"needs {distribution}"


def _runtime_hint(recipe: Recipe) -> str:
    package = _INTERPRETER[recipe.target.runtime]
    return "" if package == "ai_edge_litert" else f"; on the board, import from `{package}.interpreter`"


def _run(recipe: Recipe) -> str:
    lines = ["import numpy as np", "from ai_edge_litert.interpreter import Interpreter", "",
             f'interpreter = Interpreter("{MODEL}", num_threads={recipe.candidate.threads})',
             "interpreter.allocate_tensors()",
             "inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()"]
    for port in recipe.inputs:
        lines += _give(port, recipe.model.name)
    lines.append("interpreter.invoke()")
    for port in recipe.outputs:
        lines += _take(port, recipe.model.name)
    lines += [f"print({', '.join(f'y{port.position}' for port in recipe.outputs)})"]
    return "\n".join(lines)


def _give(port: PortEntry, model: str) -> list[str]:
    name = f"x{port.position}"
    dtype = "float32" if port.scale is not None else port.dtype
    axes = "" if port.layout == "model" else f" as {port.layout}"
    lines = [f'{name} = np.zeros({port.shape}, "{dtype}")  # {port.name!r}: argument {port.source!r} of '
             f"{model}{axes}; put your data here"]
    if port.scale is not None:
        limits = np.iinfo(port.dtype)
        lines.append(f'{name} = np.clip(np.round({name} / {port.scale!r}) + ({port.zero_point}), {limits.min}, '
                     f'{limits.max}).astype("{port.dtype}")')
    return [*lines, f'interpreter.set_tensor(inputs[{port.position}]["index"], {name})']


def _take(port: PortEntry, model: str) -> list[str]:
    name = f"y{port.position}"
    axes = "" if port.layout == "model" else f" as {port.layout}"
    lines = [f'{name} = interpreter.get_tensor(outputs[{port.position}]["index"])  # {port.name!r}: output '
             f"{port.source} of {model}, {port.shape}{axes}"]
    if port.scale is not None:
        lines.append(f'{name} = ({name}.astype("float32") - ({port.zero_point})) * np.float32({port.scale!r})')
    return lines


def _rebuild(recipe: Recipe) -> str:
    if recipe.io == "float" and set(recipe.candidate.layers.values()) == {"float32"}:
        return """\
Nothing is quantised, so there is nothing to rebuild: the model is the float model.

```sh
cmp float.tflite model.tflite
```"""
    return f"""\
Rebuild it with the quantiser alone ({_needs(recipe, "ai-edge-quantizer")}):

```python
from pathlib import Path

from ai_edge_quantizer import Quantizer
from ai_edge_quantizer.utils.calibration_utils import load_calibration_results

statistics, _ = load_calibration_results("calibration.json")
rebuilt = Quantizer("float.tflite", "quantizer_recipe.json").quantize(statistics).quantized_model
print("the same bytes" if rebuilt == Path("model.tflite").read_bytes() else "OTHER BYTES")
```"""
