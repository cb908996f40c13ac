"""Which boards of a kind work together: those that are reached, are alike, and are not the same machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from device_farm.errors import FarmError
from device_farm.inventory import BoardEntry
from orchestrator import wiring
from orchestrator.bench import Bench
from recipes.target import Target


def assembled(entries: Sequence[BoardEntry], benches: Mapping[str, Bench],
              note: Callable[[str], None]) -> list[BoardEntry]:
    """Connect to boards, all at once; return those that can work together, in the inventory's order.

    Args:
        entries: of one kind, or one board.
        benches: by name.
        note: told of each board that is left out, and why.

    Raises:
        FarmError: none is reached: the first one's.
    """
    with ThreadPoolExecutor(len(entries), thread_name_prefix="connect") as threads:
        names = [entry.name for entry in entries]
        failures = dict(zip(names, threads.map(lambda name: _connected(benches[name]), names), strict=True))
    reached = [entry for entry in entries if failures[entry.name] is None]
    for entry in entries:
        error = failures[entry.name]
        if error is not None and not reached:
            raise error
        if error is not None:
            note(f"{entry.name} is left out: {error}")
    found: list[BoardEntry] = []
    boots: dict[str, str] = {}
    for entry in reached:
        why = _unlike(benches[entry.name], benches[reached[0].name])
        boot = benches[entry.name].runner.facts.boot_id
        if why is None and entry.shares_host == "forbidden" and boot in boots:
            why = f"it is the same machine as {boots[boot]} (shares_host of both in the inventory is forbidden)"
        if why is not None:
            note(f"{entry.name} is left out: {why}")
            continue
        found.append(entry)
        boots.setdefault(boot, entry.name)
    return found


def _connected(bench: Bench) -> FarmError | None:
    try:
        bench.connect()
    except FarmError as error:
        return error
    return None


def _unlike(bench: Bench, first: Bench) -> str | None:
    """Say why what was built for one board may not run on another, or not as fast; None where they are alike."""
    ours, theirs = _targets(bench), _targets(first)
    if ours == theirs:
        return None
    differing = [f"{name} {getattr(own, name)!r} (there {getattr(other, name)!r})"
                 for own, other in zip(ours, theirs, strict=False)
                 for name in ("machine", "runtime", "runtime_version", "cpu_features")
                 if getattr(own, name) != getattr(other, name)]
    return f"it is not like {first.name}: {', '.join(differing)}"


def _targets(bench: Bench) -> list[Target]:
    return [wiring.target_of(bench.runner.facts, name, version) for name, version in bench.runner.runtimes.items()]
