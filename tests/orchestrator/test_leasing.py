"""Controllers that share a board: one waits, one is stopped and wakes up, and who may use a reserved board."""

from __future__ import annotations

import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from device_farm.leases import Lease, Wanted
from orchestrator.schemas.files import schema_of
from orchestrator.store.store import Store
from profilers.agent_build import build_agent
from tests.orchestrator.made import run
from tests.orchestrator.searches import Quick, quick_model
from tests.profilers.tiny_model import dense, examples

HERE = f"local@{socket.gethostname()}"
ME = f"{getpass.getuser()}@{socket.gethostname()}"


@contextmanager
def controller(name: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.orchestrator.stopped_controller", name, str(folder / "store"),
         str(folder / "root"), str(folder / "agent.pyz"), str(folder / "lock"), str(folder / "dense.tflite"),
         str(folder / "golden.npz")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            pipe.close()


def told(child: subprocess.Popen[str], seconds: float) -> None:
    assert child.stdin is not None
    child.stdin.write(f"{seconds}\n")
    child.stdin.flush()


def answer(child: subprocess.Popen[str]) -> dict[str, Any]:
    assert child.stdout is not None
    found: dict[str, Any] = json.loads(child.stdout.readline())
    return found


def test_a_controller_that_was_stopped_measures_nothing_when_it_wakes(tmp_path: Path) -> None:
    Store.open(tmp_path / "store").close()
    build_agent(tmp_path / "agent.pyz")
    dense(tmp_path, np.ones((3, 4), np.float32))
    examples(tmp_path, np.zeros((3, 4), np.float32)).rename(tmp_path / "golden.npz")
    with controller("one", tmp_path) as one, controller("two", tmp_path) as two:
        told(one, 0.2)
        first = answer(one)
        told(one, 8.0)
        time.sleep(1.0)
        one.send_signal(signal.SIGSTOP)
        told(two, 3.0)
        second = answer(two)  # one's agent was measuring: it is ended once the lease is over
        assert second["token"] > first["token"]
        assert any("leased by one for the test" in notice for notice in second["notices"])
        told(two, 4.0)
        time.sleep(0.5)
        one.send_signal(signal.SIGCONT)
        busy = answer(two)
        assert busy["token"] == second["token"] and busy["notices"] == []
        assert two.stdin is not None
        two.stdin.close()  # it gives the board back
        late = answer(one)
        assert late["token"] > second["token"], "under a new lease"
        assert any("no longer leased to one" in notice or "is older than" in notice for notice in late["notices"])


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    return quick_model(tmp_path_factory, tmp_path_factory.mktemp("quick"))


@contextmanager
def held(store: Store, owner: str = "ben@lab") -> Iterator[Lease]:
    lease = store.leases.take(store.leases.ask(Wanted((HERE,), owner, "nightly (pid 7)")))
    assert lease is not None
    yield lease
    store.leases.release(lease)


def test_a_search_waits_for_the_board_and_says_why(quick: Quick) -> None:
    with Store.open(quick.store) as store:
        with held(store):
            refused = quick.search("--measurements", "2", "--baselines", "needed", "--wait", "0s", study="impatient")
            assert refused.code == 3
            assert f"waited for 0 s (--wait): {HERE} leased by ben@lab for nightly (pid 7) since " in refused.stderr
        with held(store) as lease:
            timer = threading.Timer(6.0, store.leases.release, [lease])
            timer.start()
            waited = quick.search("--measurements", "2", "--baselines", "needed", study="patient")
            timer.join()
        assert waited.code in (0, 1), waited.stderr
        assert f"waiting: {HERE} leased by ben@lab for nightly (pid 7) since " in waited.stderr
        events = [(event.what, event.who) for event in store.leases.events(HERE, 2)]
        assert events == [("leased", ME), ("released", ME)]


def test_a_reserved_board_is_its_owners(quick: Quick) -> None:
    with Store.open(quick.store) as store:
        store.leases.reserve(store.leases.ask(Wanted((HERE,), "ben@lab", "heat sinks")), 600)
        refused = quick.search("--measurements", "2", "--baselines", "needed", "--wait", "0s", study="reserved")
        assert refused.code == 3 and f"{HERE} reserved by ben@lab until 20" in refused.stderr
        assert "(heat sinks)" in refused.stderr
        store.leases.unreserve(HERE)
        store.leases.reserve(store.leases.ask(Wanted((HERE,), ME, "")), 600)
        allowed = quick.search("--measurements", "2", "--baselines", "needed", "--wait", "0s", study="own")
        assert allowed.code in (0, 1), allowed.stderr


def document(words: list[str], folder: Path) -> dict[str, Any]:
    done = run("devices", *words, "--store", "store", "--format", "json", cwd=folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(found, schema_of(f"devices-{words[0]}"))
    return found


def test_reserving_listing_and_releasing_by_hand(tmp_path: Path) -> None:
    (tmp_path / "me").mkdir()
    kept = document(["reserve", "local", "--for", "2h", "--purpose", "new fan"], tmp_path)
    assert (kept["device"], kept["owner"], kept["purpose"]) == ("local", ME, "new fan")
    with Store.open(tmp_path / "store") as store, held(store, ME):
        store.leases.ask(Wanted((HERE,), "ben@lab", "nightly", 5))
        [local] = [one for one in document(["list"], tmp_path)["devices"] if one["name"] == "local"]
        assert local["lease"]["owner"] == ME and local["lease"]["purpose"] == "nightly (pid 7)"
        assert local["reservation"]["purpose"] == "new fan"
        assert local["waiting"] == [{"owner": "ben@lab", "purpose": "nightly", "priority": 5}]
        shown = run("devices", "list", "--store", "store", cwd=tmp_path).stdout
        assert f"local: leased by {ME} for nightly (pid 7) since " in shown
        assert "local: ben@lab waits with priority 5, for nightly" in shown.replace("\n       ", " ")
        late = run("devices", "reserve", "local", "--store", "store", "--wait", "0s", cwd=tmp_path)
        assert late.returncode == 3 and f"{HERE} leased by {ME}" in late.stderr
    assert document(["release", "local"], tmp_path) == {"schema": 1, "device": "local", "owner": ME}
    again = run("devices", "release", "local", "--store", "store", cwd=tmp_path)
    assert again.returncode == 2 and "local is not reserved" in again.stderr
    events = document(["history", "local"], tmp_path)["events"]
    assert [event["what"] for event in events] == ["reserved", "leased", "released", "freed"]
    last = run("devices", "history", "local", "--store", "store", "--limit", "1", cwd=tmp_path).stdout
    assert last.endswith(f"freed by {ME}: new fan\n")


def test_another_persons_reservation_is_ended_only_by_force(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        store.leases.reserve(store.leases.ask(Wanted((HERE,), "ben@lab", "")), 600)
    refused = run("devices", "release", "local", "--store", "store", cwd=tmp_path)
    assert refused.returncode == 2 and "reserved by ben@lab until 20" in refused.stderr
    assert f"you are {ME}; --force ends it all the same" in refused.stderr.replace("\n", " ")
    assert run("devices", "release", "local", "--store", "store", "--force", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(("words", "message"), [
    (["reserve", "nobody"], "no board and no kind 'nobody'"),
    (["reserve", "local", "--for", "soon"], "--for: expected a positive time"),
    (["reserve", "local", "--wait", "-1s"], "--wait: expected a positive time"),
    (["release", "nobody"], "no board and no kind 'nobody'"),
    (["history", "local", "--limit", "0"], "--limit: expected at least 1, got 0"),
])
def test_bad_input_is_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    done = run("devices", *words, "--store", "store", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and "Traceback" not in done.stderr
