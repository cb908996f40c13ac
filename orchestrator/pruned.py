"""What a candidate is called, what was cut out of it and chosen for all its layers, as people are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from search.space import SearchSpace

if TYPE_CHECKING:
    from orchestrator.schemas.search import PrunedGroup


def pruned_groups(space: SearchSpace, widths: Mapping[str, int]) -> list[PrunedGroup]:
    """Return the groups that are narrowed, in the order of the space."""
    return [{"group": group.name, "kept": widths[group.name], "channels": group.channels}
            for group in space.groups if group.name in widths]


def called(entry: Mapping[str, object], several: bool) -> str:
    """Return a candidate's name for a table, with a mark where it is pruned.

    Args:
        entry: of a document.
        several: the study has several compilers; recipes of the others than the first carry theirs already.
    """
    name = str(entry["name"] or titled(str(entry["compiler"]), str(entry["candidate_id"]), several))
    return f"{name} (pruned)" if "pruned" in entry else name


def titled(compiler: str, candidate_id: str, several: bool) -> str:
    """Return what a candidate without a name is called."""
    return f"{compiler}:{candidate_id}" if several else candidate_id


def chosen_for_all(candidate: Mapping[str, object]) -> dict[str, str]:
    """Return what a candidate's JSON form says of all layers together; see Candidate.for_all."""
    return {name: str(candidate[name]) for name in ("calibration", "clipping") if name in candidate}


def say_for_all(chosen: Mapping[str, str]) -> str:
    """Say it in a line."""
    return ", ".join(f"{name} {value}" for name, value in chosen.items())


def say_pruned(groups: list[PrunedGroup]) -> str:
    """Write what was cut: `stem 8 of 16, head 24 of 64`."""
    return ", ".join(f"{entry['group']} {entry['kept']} of {entry['channels']}" for entry in groups)
