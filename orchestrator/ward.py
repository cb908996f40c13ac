"""Boards that have failed: kept out of other searches, brought back by degrees, left to a person at last."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from device_farm.board_entry import BoardEntry
from device_farm.errors import BoardBusy, FarmError, LeaseLost
from device_farm.health import Quarantine
from device_farm.power import switch_of, switch_power
from orchestrator.leasing import leased_name
from orchestrator.store.lease_book import BY_ITSELF, LeaseBook

NOBODYS = (BoardBusy, LeaseLost)
"""Errors that say nothing of the board's health."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ward:
    """Keeps the record of a search's boards, and switches their power.

    Args:
        book: where quarantines are written.
        boards: of the search, by name.
        notice: takes what a person should know.
    """

    book: LeaseBook
    boards: Mapping[str, BoardEntry]
    notice: Callable[[str], None]

    def admit(self, board: str, error: BaseException) -> Quarantine | None:
        """Put a board into quarantine, unless the error is nobody's; return what was written."""
        if not isinstance(error, FarmError) or isinstance(error, NOBODYS):
            return None
        kept = self.book.quarantine(leased_name(self.boards[board]), str(error))
        if kept.waits_for_person:
            self.notice(f"{board} has failed {kept.failures} times in a day: it waits for a person; when it is mended: "
                        f"orchestrator devices check {board}")
        return kept

    def discharge(self, board: str) -> None:
        """Let a board serve again."""
        self.book.restore(leased_name(self.boards[board]), BY_ITSELF)

    def cycle(self, board: str) -> bool:
        """Power-cycle a board; False where it has no switch, or that fails."""
        entry = self.boards[board]
        try:
            switch = switch_of(entry)
            if switch is None:
                return False
            self.notice(f"{board} does not come back: its power is switched off and on")
            switch_power(switch, "cycle")
        except FarmError as error:
            self.notice(str(error))
            return False
        self.book.note(leased_name(entry), "power cycle", "", "it did not come back")
        return True

