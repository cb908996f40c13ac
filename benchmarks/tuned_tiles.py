"""The fastest tiles of a network's kernels on this machine, as `orchestrator tune` finds them, without a store."""

from __future__ import annotations

from pathlib import Path

from orchestrator.tune_boards import SESSIONS, SETTINGS
from profilers.runner import AgentRunner
from profilers.tile_choice import TileChoice, Turns, choose, turns
from recipes.compilers.layers import LayerMap
from recipes.compilers.tvm.kernels.isa import isa_of
from recipes.compilers.tvm.network import read_network
from recipes.compilers.tvm.schedules import schedules_bytes
from recipes.compilers.tvm.templates import Template, templates_of
from recipes.compilers.tvm.tuning import TileLibrary, TileTask, parts, prepare_tiles
from recipes.target import Target
from search.errors import InfeasibleCandidate


def tuned_tiles(name: str, model: bytes, layers: LayerMap, target: Target, runner: AgentRunner, folder: Path) -> bytes:
    """Measure every kernel of a network, say how many have a better tile than the default, and return schedules."""
    templates = templates_of(read_network(model), layers, isa_of(target.machine, target.cpu_features))
    found = {}
    for template in templates:
        try:
            found[template.key] = _choice(template, target, runner, folder / "tiles")
        except InfeasibleCandidate as error:
            print(f"{name}: {template.title} keeps its default tile: {error}", flush=True)
    better = [choice for choice in found.values() if choice.best_ns < choice.default_ns]
    print(f"{name}: {len(better)} of {len(templates)} kernels have a faster tile than the default", flush=True)
    return schedules_bytes({key: choice.tile for key, choice in found.items()})


def _choice(template: Template, target: Target, runner: AgentRunner, folder: Path) -> TileChoice:
    """Measure the tiles of a kernel. Raises InfeasibleCandidate."""
    made = [prepare_tiles(TileTask(template, tiles, target, folder)) for tiles in parts(template, template.tiles())]
    return choose([Turns(library.tiles, library.code_bytes, _sessions(library, runner)) for library in made])


def _sessions(library: TileLibrary, runner: AgentRunner) -> tuple[tuple[int, ...], ...]:
    found = []
    for _ in range(SESSIONS):
        session = runner.measure(library.artifact, library.inputs, SETTINGS)
        sums = {float(output[0]) for output in session.outputs}
        if len(sums) != 1:
            raise InfeasibleCandidate(f"its tiles {library.tiles} do not compute the same")
        found.append(turns(session.measurement, len(library.tiles)))
    return tuple(found)
