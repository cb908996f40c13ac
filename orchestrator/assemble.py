"""Which boards of a kind work together: those that are reached, are alike, and are not the same machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from device_farm.errors import FarmError, Unfit
from device_farm.health import Quarantine
from device_farm.inventory import BoardEntry
from orchestrator import wiring
from orchestrator.bench import Bench
from orchestrator.leasing import leased_name
from orchestrator.store.lease_book import BY_ITSELF, LeaseBook
from recipes.target import Target


def serving(book: LeaseBook, entries: Sequence[BoardEntry], note: Callable[[str], None]) -> list[BoardEntry]:
    """Return the boards that do not wait for a person. Raises Unfit where none is left: waiting would not help."""
    kept = {one.board: one for one in book.quarantines() if one.waits_for_person}
    said = {entry.name: _waits(entry.name, kept[leased_name(entry)]) for entry in entries if leased_name(entry) in kept}
    if len(said) == len(entries):
        raise Unfit("; ".join(said.values()))
    for why in said.values():
        note(why)
    return [entry for entry in entries if entry.name not in said]


def _waits(name: str, kept: Quarantine) -> str:
    return (f"{name} waits for a person since {kept.since.astimezone():%Y-%m-%d %H:%M}: {kept.reason}; when it is "
            f"mended: orchestrator devices check {name}")


def assembled(entries: Sequence[BoardEntry], benches: Mapping[str, Bench], book: LeaseBook,
              note: Callable[[str], None]) -> list[BoardEntry]:
    """Connect to boards, all at once; return those that can work together, in the inventory's order.

    Args:
        entries: of one kind, or one board.
        benches: by name.
        book: boards in quarantine that are reached, and fit, serve again.
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
    others = {lease.board for lease in book.leases()}  # whose searches bring them back themselves
    boots: dict[str, str] = {}
    for entry in reached:
        why = _unlike(benches[entry.name], benches[reached[0].name])
        boot = benches[entry.name].runner.facts.boot_id
        if why is None and entry.shares_host == "forbidden" and boot in boots:
            why = f"it is the same machine as {boots[boot]} (shares_host of both in the inventory is forbidden)"
        if why is not None:
            note(f"{entry.name} is left out: {why}")
            continue
        if leased_name(entry) not in others and book.restore(leased_name(entry), BY_ITSELF):
            note(f"{entry.name} is back from quarantine")
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
