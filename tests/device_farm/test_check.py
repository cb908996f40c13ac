"""The parsers on what boards print. `constructed` marks text that no board of ours has printed."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from device_farm.check import Finding, check_board, judge
from device_farm.local import LocalTransport
from device_farm.probe import (
    Probe,
    PythonProbe,
    probe_board,
    read_disk_free,
    read_glibc,
    read_machine,
    read_memory_available,
    read_probe,
    read_python,
    read_sections,
    read_temperature,
    read_throttled,
)
from device_farm.ssh import SSHTransport
from tests.boards import bare_python
from tests.sshd import free_port, running_sshd, with_mounts

# Recorded on an x86-64 virtual machine with Debian 12, which has neither cpufreq nor thermal zones (user name changed).
X86 = """\

==root
/home/me/.hil-orchestrator

==machine
x86_64

==glibc
glibc 2.36

==clock
1795260004

==disk
Filesystem     1024-blocks     Used Available Capacity Mounted on
/dev/vda         264212084 28939968  77450944      28% /

==writable
yes

==memory
MemTotal:       24684084 kB
MemFree:        20959380 kB
MemAvailable:   23583232 kB
Buffers:           47280 kB

==governor

==temperature

==throttled

==python
{"version": [3, 11, 7], "bits": 64, "implementation": "CPython", "runtimes": []}
"""

# Constructed from the documentation: a hot Raspberry Pi 4 with a 64-bit kernel and 32-bit programs.
PI = """\

==root
/home/pi/.hil-orchestrator

==machine
aarch64

==glibc
ldd (Debian GLIBC 2.31-13+rpt2+rpi1+deb11u11) 2.31

==clock
1795260004

==disk
Filesystem     1024-blocks     Used Available Capacity Mounted on
/dev/root         30358264 30108264    150000     100% /

==writable
/home/pi/.hil-orchestrator

==memory
MemTotal:         895000 kB
MemAvailable:     103584 kB

==governor
ondemand
ondemand
ondemand
ondemand

==temperature
81290

==throttled
throttled=0x50005

==python
{"version": [3, 9, 2], "bits": 32, "implementation": "CPython", "runtimes": ["tflite-runtime-2.14.0"]}
"""


class TestParsers:
    def test_a_recorded_board(self) -> None:
        assert read_probe(X86, 1795260000.0) == Probe(
            root="/home/me/.hil-orchestrator",
            machine="x86_64",
            glibc=(2, 36),
            clock_skew_s=4.0,
            disk_free_bytes=77450944 * 1024,
            unwritable=None,
            memory_available_bytes=23583232 * 1024,
            governors=(),
            helper=False,
            temperature_c=None,
            throttled=None,
            python=PythonProbe((3, 11, 7), 64, "CPython", ()),
        )

    def test_a_constructed_pi(self) -> None:
        probe = read_probe(PI, 1795260000.0)
        assert (probe.machine, probe.glibc, probe.governors) == ("armv7l", (2, 31), ("ondemand",))
        assert (probe.temperature_c, probe.throttled) == (81.29, 0x50005)
        assert probe.unwritable == "/home/pi/.hil-orchestrator"
        assert probe.python is not None
        assert probe.python.runtimes == ("tflite-runtime-2.14.0",)

    @pytest.mark.parametrize(
        ("text", "glibc"),
        [
            ("glibc 2.36", (2, 36)),  # recorded, getconf GNU_LIBC_VERSION
            ("ldd (Debian GLIBC 2.36-9+deb12u14) 2.36", (2, 36)),  # recorded
            ("ldd (Ubuntu GLIBC 2.35-0ubuntu3.8) 2.35", (2, 35)),  # constructed, as the others below
            ("ldd (GNU libc) 2.28", (2, 28)),
            ("ldd (Buildroot) 2.39", (2, 39)),
            ("musl libc (aarch64)", None),
            ("", None),
        ],
    )
    def test_glibc(self, text: str, glibc: tuple[int, int] | None) -> None:
        assert read_glibc(text) == glibc

    @pytest.mark.parametrize(
        ("uname", "bits", "machine"),
        [
            ("x86_64", 64, "x86_64"),
            ("aarch64", 64, "aarch64"),
            ("aarch64", 32, "armv7l"),
            ("aarch64", None, "aarch64"),
            ("armv7l", 32, "armv7l"),
            ("arm64", 64, "aarch64"),
            ("riscv64", 64, "riscv64"),
        ],
    )
    def test_machine(self, uname: str, bits: int | None, machine: str) -> None:
        assert read_machine(uname, bits) == machine

    def test_the_disk_of_a_full_board_and_of_a_name_with_blanks(self) -> None:
        full = (
            "Filesystem 1024-blocks Used Available Capacity Mounted on\ntmpfs 1024 1024 0 100% /mnt/x\n"  # constructed
        )
        assert read_disk_free(full) == 0
        assert read_disk_free(full.replace("/mnt/x", "/mnt/my 50% disk")) == 0
        assert read_disk_free("df: /x: No such file or directory") is None

    def test_what_a_board_does_not_say_is_none(self) -> None:
        assert read_memory_available("MemTotal: 1 kB\n") is None  # before Linux 3.14
        assert read_temperature("") is None
        assert read_temperature("44318\n46000\n-1\n") == 46.0
        assert read_throttled("VCHI initialization failed") is None  # constructed
        assert read_throttled("throttled=0x0") == 0
        assert read_throttled("50005\n") == 0x50005  # sysfs
        assert read_python("") is None
        assert read_python("sh: 1: python3: not found") is None
        assert read_sections("no sections") == {}


def one(probe: Probe, what: str) -> Finding:
    return next(finding for finding in judge(probe) if finding.what == what)


GOOD = read_probe(X86, 1795260000.0)


class TestJudging:
    def test_a_good_board_has_only_good_findings(self) -> None:
        assert {finding.level for finding in judge(GOOD)} == {"ok"}
        assert [finding.what for finding in judge(GOOD)] == [
            "architecture", "python", "glibc", "disk", "memory", "clock",
        ]  # fmt: skip

    def test_a_poor_board_is_told_what_to_do(self) -> None:
        findings = {finding.what: finding for finding in judge(read_probe(PI, 1795260000.0 + 7200))}
        assert findings["disk"] == Finding(
            "missing",
            "disk",
            "/home/pi/.hil-orchestrator is not writable",
            "sudo chown $USER /home/pi/.hil-orchestrator, or set 'root' in the inventory",
        )
        assert findings["memory"].level == "warning"
        assert findings["governor"].detail == "ondemand: the clock changes while it measures"
        assert findings["governor"].remedy is not None
        assert "performance" in findings["governor"].remedy
        assert findings["temperature"].detail == "81 degrees C: near the limit"
        assert findings["throttling"].detail == (
            "under-voltage now, throttled now, under-voltage since boot, throttled since boot (0x50005)"
        )
        assert findings["clock"].detail == "-7196 s against this computer"
        assert findings["clock"].level == "warning"
        assert all(finding.remedy for finding in findings.values() if finding.level != "ok")

    def test_the_disk_needs_less_once_a_runtime_is_there(self) -> None:
        tight = dataclasses.replace(GOOD, disk_free_bytes=100_000_000)
        assert one(tight, "disk").detail == "100 MB free for /home/me/.hil-orchestrator; 200 MB are needed"
        installed = PythonProbe((3, 11, 7), 64, "CPython", ("litert-2.3.0",))
        assert one(dataclasses.replace(tight, python=installed), "disk").level == "ok"
        full = dataclasses.replace(tight, python=installed, disk_free_bytes=1_000_000)
        assert one(full, "disk").level == "missing"

    @pytest.mark.parametrize(
        ("changes", "what", "words"),
        [
            ({"machine": "riscv64"}, "architecture", "riscv64: no runtime has wheels for it"),
            ({"machine": ""}, "architecture", "unknown"),
            ({"python": None}, "python", "none answered"),
            ({"python": PythonProbe((3, 7, 3), 64, "CPython", ())}, "python", "3.7.3: 3.8 or newer is needed"),
            ({"glibc": None}, "glibc", "none found"),
        ],
    )
    def test_what_makes_a_board_unfit(self, changes: dict[str, object], what: str, words: str) -> None:
        finding = one(dataclasses.replace(GOOD, **changes), what)  # type: ignore[arg-type]  # fields by name
        assert finding.level == "missing"
        assert words in finding.detail


BOTH_READ = """
import json
from device_farm.inventory import Inventory
from device_farm.local import LocalTransport
from device_farm.probe import probe_board
from profilers.agent import sensors

probe = probe_board(LocalTransport(), Inventory().find("local"))
print(json.dumps({"check": probe.throttled, "agent": sensors.throttled()}))
"""


class TestRealBoard:
    def test_the_probe_over_ssh_says_what_this_machine_is(self, tmp_path: Path) -> None:
        with running_sshd(tmp_path / "sshd") as server:
            entry = server.entry(python=sys.executable)
            transport = SSHTransport(entry)
            probe = probe_board(transport, entry)
            transport.close()
        assert probe.root == str(server.root)
        assert probe.machine == platform.machine()
        assert probe.glibc == tuple(int(part) for part in platform.libc_ver()[1].split("."))
        assert probe.clock_skew_s is not None
        assert abs(probe.clock_skew_s) < 30
        assert probe.disk_free_bytes is not None
        assert probe.memory_available_bytes is not None
        assert probe.unwritable is None
        assert probe.python is not None
        assert probe.python.version == sys.version_info[:3]

    def test_the_home_folder_is_expanded_on_the_board(self, tmp_path: Path) -> None:
        with running_sshd(tmp_path / "sshd") as server:
            entry = server.entry(root="~/.hil-test-of-the-probe", env={"HOME": str(server.root)})
            transport = SSHTransport(entry)
            assert probe_board(transport, entry).root == f"{server.root}/.hil-test-of-the-probe"
            assert list(server.root.iterdir()) == []
            transport.close()

    def test_a_board_without_a_runtime_is_sent_to_setup(self, tmp_path: Path) -> None:
        with running_sshd(tmp_path / "sshd") as server:
            entry = server.entry("pi", python=str(bare_python(tmp_path / "env")))
            transport = SSHTransport(entry)
            findings = {finding.what: finding for finding in check_board(transport, entry)}
            assert findings["connection"] == Finding("ok", "connection", transport.address)
            assert findings["runtime"] == Finding(
                "missing", "runtime", "litert-2.3.0 is not installed", "orchestrator devices setup pi"
            )
            assert list(server.root.iterdir()) == []
            (server.root / "runtimes" / "litert-2.3.0").mkdir(parents=True)
            broken = {finding.what: finding for finding in check_board(transport, entry)}["runtime"]
            transport.close()
        assert broken.level == "missing"
        assert broken.remedy == "orchestrator devices setup pi"

    def test_of_two_compilers_each_runtime_that_is_absent_has_its_own_remedy(self, tmp_path: Path) -> None:
        with running_sshd(tmp_path / "sshd") as server:
            entry = server.entry("pi", python=str(bare_python(tmp_path / "env")))
            transport = SSHTransport(entry)
            both = [f for f in check_board(transport, entry, compilers=("tflite", "tvm")) if f.what == "runtime"]
            one = [f for f in check_board(transport, entry, compilers=("tvm",)) if f.what == "runtime"]
            transport.close()
        setup = "orchestrator devices setup pi"
        tvm = Finding("missing", "runtime", "tvm-0.26.0 is not installed", f"{setup} --compiler tvm")
        assert both == [Finding("missing", "runtime", "litert-2.3.0 is not installed", setup), tvm]
        assert one == [tvm], "what is not needed and not there is not looked at"

    def test_a_full_disk_and_a_missing_python_are_found(self, tmp_path: Path) -> None:
        with running_sshd(tmp_path / "sshd", mounts='mount -t tmpfs -o size=1m tmpfs "$root"') as server:
            entry = server.entry(python="python9")
            transport = SSHTransport(entry)
            findings = {finding.what: finding for finding in check_board(transport, entry)}
            transport.close()
        assert findings["disk"].level == "missing"
        assert findings["disk"].detail.startswith("1 MB free for ")
        assert findings["python"].level == "missing"
        assert findings["runtime"].detail.startswith("no Python on the board")

    def test_a_wrong_clock_is_seen(self, tmp_path: Path) -> None:
        with running_sshd(tmp_path / "sshd") as server:
            entry = server.entry()
            transport = SSHTransport(entry)
            findings = check_board(transport, entry, clock=lambda: time.time() + 3600)
            transport.close()
        assert next(finding for finding in findings if finding.what == "clock").level == "warning"

    def test_an_unreachable_board_is_one_finding(self, tmp_path: Path) -> None:
        with running_sshd(tmp_path / "sshd") as server:
            entry = server.entry(port=free_port())
            (finding,) = check_board(SSHTransport(entry), entry)
        assert (finding.level, finding.what) == ("missing", "connection")
        assert "connection refused" in finding.detail

    def test_this_computer_needs_no_ssh(self, tmp_path: Path) -> None:
        with running_sshd(tmp_path / "sshd") as server:
            entry = server.entry(python=sys.executable, root=str(tmp_path))
        (tmp_path / "runtimes" / "litert-2.3.0").mkdir(parents=True)
        (tmp_path / "runtimes" / ".litert-2.3.0.part-00").mkdir()
        probe = probe_board(LocalTransport(), entry)
        assert probe.python is not None
        assert json.dumps(probe.python.runtimes) == '["litert-2.3.0"]'

    @pytest.mark.parametrize(
        ("sysfs", "vcgencmd", "bits"),
        [
            ("50005", None, 0x50005),
            (None, "throttled=0x50000", 0x50000),
            ("0", "throttled=0x50000", 0),  # one asks the firmware as the other does; the kernel's is cheaper
            ("", "throttled=0x4", 4),
            (None, "VCHI initialization failed", None),
            (None, None, None),
        ],
    )
    def test_throttling_is_what_the_agent_reads(
        self, tmp_path: Path, sysfs: str | None, vcgencmd: str | None, bits: int | None
    ) -> None:
        mounts = "true"
        if sysfs is not None:
            folder = "/sys/devices/platform/soc/soc:firmware"
            mounts = "mount -t tmpfs none /sys/devices/platform"
            mounts += f"; mkdir -p {folder}; echo {sysfs} >{folder}/get_throttled"
        if vcgencmd is not None:
            (tmp_path / "vcgencmd").write_text(f"#!/bin/sh\necho '{vcgencmd}'\n")
            (tmp_path / "vcgencmd").chmod(0o755)
        done = subprocess.run(
            with_mounts([sys.executable, "-c", BOTH_READ], mounts, tmp_path),
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        word = None if bits is None else f"{bits:#x}"
        assert json.loads(done.stdout) == {"check": bits, "agent": word}
