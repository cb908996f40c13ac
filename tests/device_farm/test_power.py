"""Power: commands of the user's, a unit that labgrid drives over HTTP, and plug-ins."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from device_farm import power
from device_farm.board_entry import BoardEntry
from device_farm.errors import PowerFailed
from device_farm.inventory import Inventory, InventoryError
from device_farm.power import switch_of, switch_power

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK0wmN/Cr3JXqmLW7u+g9pTh+wyqDHpSQEIQczXkVx9q"


def entry(**spec: Any) -> BoardEntry:
    return BoardEntry.model_validate({"name": "pi", "kind": "rpi4", "host": "10.0.0.7", "user": "pi", "host_key": KEY,
                                      "power": spec or None})


def script(log: Path, word: str) -> list[str]:
    return [sys.executable, "-c", "import sys; open(sys.argv[1], 'a').write(sys.argv[2])", str(log), word]


def test_commands_are_run_in_order_without_a_shell(tmp_path: Path) -> None:
    log, slept = tmp_path / "log; touch oops", list[float]()
    switch = switch_of(entry(on_command=script(log, "on "), off_command=script(log, "$(id) ")))
    assert switch is not None
    switch_power(switch, "cycle", slept.append)
    assert log.read_text() == "$(id) on "
    assert slept == [power.OFF_S]
    switch_power(switch, "off", slept.append)
    switch_power(switch, "on", slept.append)
    assert log.read_text() == "$(id) on $(id) on " and len(slept) == 1
    assert sorted(tmp_path.iterdir()) == [log]


@pytest.mark.parametrize(("command", "message"), [
    (["/no/such/program"], "pi: power: /no/such/program: No such file or directory; correct 'power' in the inventory"),
    ([sys.executable, "-c", "import sys; sys.exit('the relay is stuck')"], "ended with 1: the relay is stuck"),
])
def test_a_command_that_fails_is_named(command: list[str], message: str) -> None:
    switch = switch_of(entry(on_command=command, off_command=["true"]))
    assert switch is not None
    switch.off()
    with pytest.raises(PowerFailed) as caught:
        switch.on()
    assert message in str(caught.value)


def test_a_command_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "COMMAND_S", 0.2)
    switch = switch_of(entry(on_command=["sleep", "60"], off_command=["true"]))
    assert switch is not None
    began = time.monotonic()
    with pytest.raises(PowerFailed, match="did not end within"):
        switch.on()
    assert time.monotonic() - began < 5


def test_without_power_in_the_inventory_there_is_no_switch() -> None:
    assert switch_of(entry()) is None


class Unit(BaseHTTPRequestHandler):
    """A power distribution unit that takes /relay/INDEX/VALUE."""

    asked: list[str]
    broken = False

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(500 if self.broken else 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def unit() -> Iterator[tuple[str, type[Unit]]]:
    handler = type("Handler", (Unit,), {"asked": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/relay/{{index}}/{{value}}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_unit_that_labgrid_knows_is_switched(unit: tuple[str, type[Unit]]) -> None:
    url, handler = unit
    switch = switch_of(entry(labgrid="simplerest", host=url, index=3))
    assert switch is not None
    switch_power(switch, "cycle", lambda seconds: None)
    assert handler.asked == ["/relay/3/0", "/relay/3/1"]
    handler.broken = True
    with pytest.raises(PowerFailed, match=r"pi: power: labgrid simplerest at http.*, 3: HTTPError: 500"):
        switch.on()


def test_a_model_that_labgrid_does_not_know_is_refused() -> None:
    with pytest.raises(PowerFailed, match="labgrid has no such model"):
        switch_of(entry(labgrid="teapot", host="10.0.0.9", index=1))


class Relay:
    def __init__(self, board: str, options: dict[str, Any]) -> None:
        self.board, self.options, self.said = board, options, list[str]()
        if not options:
            raise ValueError("which pin?")

    def on(self) -> None:
        self.said.append("on")

    def off(self) -> None:
        self.said.append("off")


def test_a_plug_in_is_loaded_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("relay", f"{__name__}:Relay", power.GROUP)
    monkeypatch.setattr(power, "entry_points", lambda group: EntryPoints([point]) if group == power.GROUP else None)
    made = switch_of(entry(plugin="relay", options={"pin": 7}))
    assert isinstance(made, Relay) and (made.board, made.options) == ("pi", {"pin": 7})
    with pytest.raises(PowerFailed, match="the plug-in 'relay' fails: ValueError: which pin"):
        switch_of(entry(plugin="relay"))
    with pytest.raises(PowerFailed, match="no plug-in 'other' is installed; there are: relay"):
        switch_of(entry(plugin="other"))


@pytest.mark.parametrize(("spec", "message"), [
    ("{}", "boards.pi.power: expected one of: on_command and off_command, labgrid, plugin"),
    ("{on_command: [a]}", "on_command and off_command are needed both"),
    ("{on_command: reboot, off_command: [b]}", "boards.pi.power.on_command: expected a list, got 'reboot'"),
    ("{labgrid: gude24, host: pdu}", "labgrid needs host and index"),
    ("{labgrid: os.path, host: pdu, index: 1}", "expected small letters, digits and '_', got 'os.path'"),
    ("{labgrid: gude24, host: pdu, index: 1, outlet: 2}", "boards.pi.power.outlet: unknown key; "),
])
def test_mistakes_in_the_inventory_are_named(spec: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "inventory.yaml"
    path.write_text(f"schema: 1\nboards:\n  pi: {{kind: k, host: h, user: u, host_key: {KEY}, power: {spec}}}\n")
    with pytest.raises(InventoryError) as caught:
        Inventory.load(path)
    assert message in str(caught.value) and str(caught.value).startswith(f"{path}:3: ")
