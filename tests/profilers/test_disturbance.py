"""What disturbs a measurement: seen, thrown away, named, waited for; the governor is put back whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import device_farm.setup
from device_farm.errors import Unfit
from profilers.agent import session
from profilers.agent.cores import fastest
from profilers.agent.disturbance import Neighbours, Throttling
from profilers.agent.governor import Governor
from profilers.agent.protocol import Refusal
from profilers.agent.requests import Request
from profilers.measurement import Care
from profilers.runner import RuntimePlace
from recipes.artifact import Artifact
from tests.profilers.conftest import QUICK, Bench
from tests.profilers.scripted_runtime import scripted_runtime
from tests.profilers.tiny_model import examples

HELPER = Path(device_farm.setup.__file__).with_name("helper.sh")
CPU = "sys/devices/system/cpu"


def write(root: Path, files: dict[str, object]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")


class TestCores:
    def test_the_big_cores_the_last_ones_first(self, tmp_path: Path) -> None:
        """Constructed: four small cores and two big ones, as on an RK3399."""
        write(tmp_path, {f"{CPU}/cpu{core}/cpu_capacity": 485 if core < 4 else 1024 for core in range(6)})
        assert fastest(1, range(6), str(tmp_path)) == [5]
        assert fastest(2, range(6), str(tmp_path)) == [4, 5]
        assert fastest(3, range(6), str(tmp_path)) == [3, 4, 5]
        assert fastest(2, [0, 1], str(tmp_path)) == [0, 1]

    def test_without_capacities_the_frequency_tells(self, tmp_path: Path) -> None:
        write(tmp_path, {f"{CPU}/cpu{core}/cpufreq/cpuinfo_max_freq": 3_000_000 - core for core in range(2)})
        assert fastest(1, range(2), str(tmp_path)) == [0]
        assert fastest(1, range(4), "/nowhere") == [3]

    def test_a_session_is_pinned(self, bench: Bench, artifact: Artifact, golden: Path) -> None:
        cares = {Care(): None, Care("fastest"): (max(os.sched_getaffinity(0)),), Care((0,)): (0,)}
        for care, expected in cares.items():
            runner = bench.locked(care=care)
            assert runner.measure(artifact, golden, QUICK).measurement.conditions.cores == expected
            runner.close()


class TestThrottling:
    def test_the_firmwares_bits_of_now(self, tmp_path: Path) -> None:
        bits = "sys/devices/platform/soc/soc:firmware/get_throttled"
        write(tmp_path, {bits: "50000"})
        throttling = Throttling(root=str(tmp_path))
        assert throttling.since() == [], "what was since boot is over"
        write(tmp_path, {bits: "50005"})
        assert throttling.since() == ["under-voltage", "throttled"]

    def test_a_clock_below_its_maximum(self, tmp_path: Path) -> None:
        folder = f"{CPU}/cpu3/cpufreq"
        write(tmp_path, {f"{folder}/scaling_max_freq": 1_800_000, f"{folder}/scaling_governor": "performance",
                         f"{folder}/scaling_cur_freq": 1_000_000})
        assert Throttling([3], str(tmp_path), "aarch64").since() == ["clock at 1000 of 1800 MHz"]
        assert Throttling([2], str(tmp_path), "aarch64").since() == [], "another core"
        assert Throttling([3], str(tmp_path), "x86_64").since() == [], "a turbo is no promise"
        write(tmp_path, {f"{folder}/scaling_governor": "ondemand"})
        assert Throttling([3], str(tmp_path), "aarch64").since() == []

    def test_counters_of_x86(self, tmp_path: Path) -> None:
        counter = f"{CPU}/cpu0/thermal_throttle/core_throttle_count"
        write(tmp_path, {counter: 7})
        throttling = Throttling(root=str(tmp_path))
        assert throttling.since() == []
        write(tmp_path, {counter: 8})
        assert (throttling.since(), throttling.since()) == (["temperature limit"], [])

    @pytest.mark.parametrize(("groups", "stat"), [
        ("0::/a/b", "sys/fs/cgroup/a/b/cpu.stat"), ("0::/a/b", "sys/fs/cgroup/a/cpu.stat"),
        ("5:devices:/x\n3:cpu,cpuacct:/a/b\n0::/", "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.stat"),
        ("3:cpu,cpuacct:/a/b", "sys/fs/cgroup/cpu/a/cpu.stat"), ("1:cpu:/a", "sys/fs/cgroup/cpu/a/cpu.stat"),
    ])  # fmt: skip
    def test_quotas_of_both_kinds_of_groups(self, tmp_path: Path, groups: str, stat: str) -> None:
        write(tmp_path, {"proc/self/cgroup": groups, stat: "nr_periods 9\nnr_throttled 3"})
        throttling = Throttling(root=str(tmp_path))
        write(tmp_path, {stat: "nr_periods 12\nnr_throttled 4"})
        assert throttling.since() == ["CPU quota"]

    def test_nothing_is_known_of_a_system_without_proc(self) -> None:
        assert Throttling(root="/nowhere").since() == []


class Steady:
    """An interpreter whose runs take a millisecond."""

    def invoke(self) -> None:
        time.sleep(1e-3)


class TestSampling:
    SETTINGS = {"min_runs": 20, "max_runs": 100, "max_sampling_s": 0.2, "target_ci": 1e-9}

    def sampled(self, throttled: Callable[[], list[str]]) -> session.Sampled:
        return session.sample(Steady(), self.SETTINGS, time.perf_counter() + 5, throttled)

    def test_throttled_runs_are_thrown_away_and_repeated(self) -> None:
        looks = iter([["CPU quota"], [], ["heat"]])
        found = self.sampled(lambda: next(looks, []))
        assert found.throttled == ["CPU quota", "heat"] and not found.still_throttled
        assert found.discarded_runs >= 20
        assert len(found.wall_ns) == len(found.cpu_ns) == 100

    def test_what_stays_throttled_ends_and_says_so(self) -> None:
        began = time.monotonic()
        found = self.sampled(lambda: ["heat"])
        assert 0.5 < time.monotonic() - began < 2, "three times as long as undisturbed"
        assert found.still_throttled and found.throttled == ["heat"]
        assert 1 <= len(found.wall_ns) == len(found.cpu_ns) < 40, "the last ones"

    def test_undisturbed_nothing_is_thrown_away(self) -> None:
        found = self.sampled(list)
        assert (found.discarded_runs, found.throttled, found.still_throttled) == (0, [], False)
        assert len(found.wall_ns) == 100


def test_a_quota_is_noticed_and_its_stalls_thrown_away(bench: Bench) -> None:
    """A real control group: 25 ms of a core in 100. The artifact computes for 4 ms."""
    group = Path("/sys/fs/cgroup/cpu", f"hil-test-{os.getpid()}")
    version2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    if version2:
        group = Path("/sys/fs/cgroup", group.name)
    try:
        group.mkdir()
        old, new = {"cpu.cfs_quota_us": "25000", "cpu.cfs_period_us": "100000"}, {"cpu.max": "25000 100000"}
        for name, text in (new if version2 else old).items():
            (group / name).write_text(text)
    except OSError as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"no control group with a quota can be made here: {error}")
    wrapper = bench.folder / "python"
    wrapper.write_text(f"#!/bin/sh\necho $$ > {group}/cgroup.procs\nexec {sys.executable} \"$@\"\n")
    wrapper.chmod(0o755)
    try:
        script = bench.folder / "script.tflite"
        script.write_text("end = time.perf_counter() + 4e-3\nwhile time.perf_counter() < end:\n    pass\n")
        runner = bench.locked(runtime=RuntimePlace("litert", str(wrapper), scripted_runtime(bench.folder)))
        golden = examples(bench.folder, np.ones((1, 2), np.float32))
        settings = replace(QUICK, min_runs=40, max_runs=40, max_sampling_s=1.5)
        found = runner.measure(Artifact.of(script), golden, settings).measurement
        runner.close()
    finally:
        for _ in range(50):
            if not (group / "cgroup.procs").read_text():
                break
            time.sleep(0.1)
        group.rmdir()
    assert "CPU quota" in found.conditions.throttled
    assert found.conditions.discarded_runs > 0 and not found.conditions.still_throttled
    assert max(found.wall_ns) < 30e6, "a stall takes 75 ms"


class TestNeighbours:
    def test_who_uses_the_board_is_named(self) -> None:
        began = time.monotonic()
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as hog:
            time.sleep(0.3)
            neighbours = Neighbours()
            time.sleep(1.0)
            found = neighbours.so_far()
            hog.kill()
        assert time.monotonic() - began < 30
        assert found["others_cores"] > 0.2
        assert found["hog"].endswith(f"(pid {hog.pid})") or found["others_cores"] > 1.2, "others may be busier still"
        assert found["waited_s"] is None or found["waited_s"] < 5

    def test_waiting_for_a_core_is_felt(self, bench: Bench, artifact: Artifact, golden: Path) -> None:
        core = max(os.sched_getaffinity(0))
        runner = bench.locked(care=Care(cores=(core,)))
        hogs = [subprocess.Popen(["taskset", "-c", str(core), sys.executable, "-c", "while True: pass"])
                for _ in range(2)]
        try:
            time.sleep(0.3)
            found = runner.measure(artifact, golden, replace(QUICK, max_sampling_s=1.0, min_runs=10**6)).measurement
        finally:
            for hog in hogs:
                hog.kill()
                hog.wait()
            runner.close()
        if found.conditions.waited_s is None:
            pytest.skip("this kernel does not count waiting (CONFIG_SCHED_INFO)")
        assert found.conditions.waited_s > 0.3 * found.session_s

    def test_a_system_without_proc_says_nothing(self) -> None:
        assert Neighbours("/nowhere").so_far() == {"others_cores": None, "hog": None, "waited_s": None}


@pytest.fixture
def inside(bench: Bench) -> Iterator[Callable[[str], RuntimePlace]]:
    """Make a Python that sees folders of the test in place of the system's."""

    def place(mounts: str) -> RuntimePlace:
        unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
        wrapper = bench.folder / "python"
        wrapper.write_text(f"#!/bin/sh\nexec {' '.join(unshare)} sh -ec '{mounts}; exec {sys.executable} \"$@\"' sh "
                           '"$@"\n')
        wrapper.chmod(0o755)
        return RuntimePlace("litert", str(wrapper))

    yield place


class TestCoolDown:
    def test_a_hot_board_is_waited_for(self, bench: Bench, inside: Callable[[str], RuntimePlace], artifact: Artifact,
                                       golden: Path) -> None:
        thermal = bench.folder / "thermal"
        write(thermal, {"thermal_zone0/temp": 75_000, "thermal_zone0/type": "cpu-thermal"})
        runtime = inside(f"mount --bind {thermal} /sys/class/thermal")
        hot = bench.locked(runtime=runtime, care=Care(cool_below_c=60, cool_down_s=2), heartbeat_timeout_s=1.9)
        with pytest.raises(Unfit, match=r"at 75 degrees C after 2 s of rest, expected 60 or less; give it a heat sink"):
            hot.measure(artifact, golden, QUICK)
        hot.close()
        runner = bench.locked(runtime=runtime, care=Care(cool_below_c=60, cool_down_s=30))
        cooling = subprocess.Popen(["sh", "-c", f"sleep 1.5; echo 59000 > {thermal}/thermal_zone0/temp"])
        found = runner.measure(artifact, golden, QUICK).measurement
        cooling.wait()
        runner.close()
        assert 1 < found.conditions.cooled_s < 10
        assert found.before.temperature_c == 59


class TestGovernor:
    @pytest.fixture
    def governors(self, bench: Bench) -> Path:
        folder = bench.folder / "cpufreq"
        write(folder, {"policy0/scaling_governor": "ondemand", "policy4/scaling_governor": "schedutil"})
        (bench.folder / "sbin").mkdir()
        shutil.copy(HELPER, bench.folder / "sbin" / "hil-orchestrator-helper")
        return folder

    MOUNTS = ("mount --bind {0}/cpufreq /sys/devices/system/cpu/cpufreq; mount --bind {0}/sbin /usr/local/sbin")

    def names(self, folder: Path) -> list[str]:
        return [path.read_text().strip() for path in sorted(folder.glob("*/scaling_governor"))]

    def test_it_is_held_with_the_lock_and_put_back(self, bench: Bench, governors: Path,
                                                   inside: Callable[[str], RuntimePlace]) -> None:
        runner = bench.runner(runtime=inside(self.MOUNTS.format(bench.folder)))
        assert self.names(governors) == ["ondemand", "schedutil"]
        for token in (1, 2):
            runner.acquire(token, "the tests")
            assert self.names(governors) == ["performance", "performance"]
        runner.release()
        assert self.names(governors) == ["ondemand", "schedutil"]
        runner.acquire(3, "the tests")
        runner.close()
        self.await_names(governors, ["ondemand", "schedutil"])
        assert runner.warnings == ()

    def test_a_killed_agent_leaves_nothing_behind(self, bench: Bench, governors: Path, artifact: Artifact,
                                                  inside: Callable[[str], RuntimePlace], golden: Path) -> None:
        runner = bench.locked(runtime=inside(self.MOUNTS.format(bench.folder)))
        assert self.names(governors) == ["performance", "performance"]
        [agent] = [int(pid) for pid in subprocess.run(
            ["pgrep", "-f", f"agent-.*--lock-file {bench.folder}/lock"], capture_output=True, text=True,
            check=True).stdout.split() if "--zygote" not in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(agent, signal.SIGKILL)
        self.await_names(governors, ["ondemand", "schedutil"])
        runner.close()

    def await_names(self, folder: Path, expected: list[str]) -> None:
        deadline = time.monotonic() + 10
        while self.names(folder) != expected and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self.names(folder) == expected

    def test_a_helper_that_fails_is_said_and_nothing_else(self, bench: Bench, governors: Path, artifact: Artifact,
                                                          inside: Callable[[str], RuntimePlace], golden: Path) -> None:
        shutil.rmtree(governors / "policy0")
        shutil.rmtree(governors / "policy4")
        runner = bench.locked(runtime=inside(self.MOUNTS.format(bench.folder)))
        assert runner.warnings == ("bench: /usr/local/sbin/hil-orchestrator-helper hold: there is no scaling_governor "
                                   "here",)
        runner.measure(artifact, golden, QUICK)
        runner.close()

    def test_the_helper_knows_two_words(self) -> None:
        for arguments in ([], ["restore"], ["hold", "x"], ["status;id"], ["--help"]):
            done = subprocess.run([HELPER, *arguments], capture_output=True, text=True, check=False,
                                  stdin=subprocess.DEVNULL)
            assert (done.returncode, done.stdout) == (2, "")
            assert done.stderr == "usage: hil-orchestrator-helper hold | status\n"

    def test_under_sudo_only_hold_is_allowed(self, bench: Bench, governors: Path) -> None:
        """A user without rights, the rule of the documentation, and the real sudo."""
        if os.geteuid() != 0:
            pytest.skip("writes a rule of sudo, in a mount namespace of root's")
        if shutil.which("sudo") is None:
            pytest.skip("this test needs sudo: apt-get install sudo")
        os.chown(bench.folder / "sbin" / "hil-orchestrator-helper", 0, 0)
        rule = bench.folder / "rule"
        rule.write_text("nobody ALL=(root) NOPASSWD: /usr/local/sbin/hil-orchestrator-helper hold\n")
        mounts = (f"{self.MOUNTS.format(bench.folder)}; mount -t tmpfs -o mode=755 tmpfs /etc/sudoers.d; "
                  f"cp {rule} /etc/sudoers.d/hil-orchestrator; chmod 440 /etc/sudoers.d/hil-orchestrator")
        sudo = "setpriv --reuid=nobody --regid=nogroup --clear-groups sudo -n /usr/local/sbin/hil-orchestrator-helper"
        with subprocess.Popen(["unshare", "--mount", "sh", "-ec", f"{mounts}; exec {sudo} hold"], text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
            assert held.stdout is not None and held.stdin is not None
            assert held.stdout.readline() == "held\n"
            assert self.names(governors) == ["performance", "performance"]
            held.stdin.close()
            assert held.wait(10) == 0
        assert self.names(governors) == ["ondemand", "schedutil"]
        refused = subprocess.run(["unshare", "--mount", "sh", "-ec", f"{mounts}; exec {sudo} status"], text=True,
                                 capture_output=True, check=False, stdin=subprocess.DEVNULL)
        assert refused.returncode != 0 and "password is required" in refused.stderr

    def test_sudo_is_asked_where_the_user_is_not_root(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setenv("PATH", str(tmp_path))
        write(tmp_path, {"helper": "", "sudo": '#!/bin/sh\n[ "$1 $2 $3" = "-n %s hold" ] && echo held && /bin/cat'
                         % (tmp_path / "helper")})
        (tmp_path / "sudo").chmod(0o755)
        governor = Governor(str(tmp_path / "helper"))
        governor.hold()
        assert governor.complaint is None
        governor.release()
        refused = Governor(str(tmp_path / "helper"))
        write(tmp_path, {"sudo": "#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1"})
        refused.hold()
        assert refused.complaint == f"sudo -n {tmp_path}/helper hold: sudo: a password is required"


@pytest.mark.parametrize("care", [None, {"cores": "2"}, {"cores": [-1]}, {"cores": [True]}, {"cores": [0.5]},
                                  {"cool_below_c": "60"}, {"cool_down_s": True}])
def test_a_request_that_cares_wrongly_is_refused(care: object) -> None:
    request = Request({"care": care}, "measure", 1)
    with pytest.raises(Refusal, match="measure: `care"):
        request.care()
