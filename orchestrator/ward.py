"""Boards that have failed: kept out of other searches, brought back by degrees, left to a person at last."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from device_farm.board_entry import BoardEntry
from device_farm.errors import BoardBusy, FarmError, LeaseLost, Unfit
from device_farm.health import Quarantine
from device_farm.power import switch_of, switch_power
from orchestrator.leasing import leased_name
from orchestrator.store.lease_book import BY_ITSELF, LeaseBook
from profilers.measurement import Measurement

READINGS = 5
"""Of a board's reference, before its history says anything."""
SLOWER = 1.25
"""Than the median of its history, and slower than all of it: a board that is ill."""
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

    def judge(self, board: str, found: Measurement) -> None:
        """Compare how long a board took for its reference with how long it has taken before.

        A board that shares its host with others is only spoken of: it is slow when they are busy.

        Raises:
            Unfit: it is slower than ever; the reading is not kept.
        """
        name, entry = leased_name(self.boards[board]), self.boards[board]
        before = self.book.readings(name, found)
        usual_s = statistics.median(before) if before else 0.0
        if len(before) < READINGS or found.median_s <= max(max(before), SLOWER * usual_s):
            self.book.add_reading(name, found)
            return
        said = (f"{board} takes {found.median_s * 1e3:.3g} ms for the reference (float32), which took it "
                f"{min(before) * 1e3:.3g} to {max(before) * 1e3:.3g} ms the last {len(before)} times")
        if entry.shares_host == "allowed":
            self.notice(said)
            return
        raise Unfit(f"{said}: see its clock, heat and power supply; where it is to be so from now on: orchestrator "
                    f"devices check {board}")

    def watches(self, board: str) -> bool:
        """Tell whether a board's history is kept: the built-in ones are what this computer is."""
        return self.boards[board].transport == "ssh"

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
