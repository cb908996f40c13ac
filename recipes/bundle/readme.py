"""The README.md of a bundle: what it is, and commands that work as they stand."""

from __future__ import annotations

from recipes.bundle.formats import FORMATS
from recipes.bundle.schema import Measured, Recipe


def readme(recipe: Recipe) -> str:
    """Write the page for one recipe. Python and shell blocks run in the bundle's own folder."""
    return f"""\
# {recipe.model.name} for {recipe.target.runtime} on {recipe.target.machine}

{_summary(recipe)}

{FORMATS[recipe.compiler].running(recipe)}

Verify that every file is as it was exported (`orchestrator recipes verify .` also rebuilds the model and compares):

```sh
sha256sum --check SHA256SUMS
```

{FORMATS[recipe.compiler].rebuilding(recipe)}
"""


def _summary(recipe: Recipe) -> str:
    labels, model = recipe.candidate.layers.values(), recipe.kept.model
    changed = sum(label != "float32" for label in labels)
    lines = [f"`{model}`: {recipe.files[model].size_bytes:,} bytes, {changed} of {len(labels)} layers "
             f"quantised, found by study {recipe.study!r} on {recipe.created:%Y-%m-%d}; "
             "`recipe.yaml` says everything that decides its bytes."]
    if recipe.candidate.widths:
        kept = ", ".join(f"{name} {width}" for name, width in recipe.candidate.widths.items())
        lines.append(f"Pruned: channels kept of each group: {kept} (order: {recipe.prune_criterion}, recovery: "
                     f"{recipe.candidate.recovery}); `{recipe.kept.float_model}` is the pruned network.")
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
