"""What every transport and channel must do. Subclass it and give the fixtures `transport` and `folder`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from device_farm.errors import ChannelClosed, ChannelStalled, FarmError, PushFailed
from device_farm.transport import Transport

WAIT_S = 10.0


class TransportContract:
    """`transport`: a Transport to a POSIX system; `folder`: an absolute path there that may be written."""

    def test_run_brings_exit_code_and_both_streams(self, transport: Transport) -> None:
        done = transport.run(["sh", "-c", "echo out; echo err >&2; exit 3"], WAIT_S)
        assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")

    def test_arguments_arrive_as_they_are(self, transport: Transport) -> None:
        arguments = ["two words", "*", "$HOME", "it's", 'a "b"', "back\\slash", "", "end;exit"]
        done = transport.run(["printf", "[%s]\\n", *arguments], WAIT_S)
        assert done.stdout == "".join(f"[{argument}]\n" for argument in arguments)

    def test_run_of_a_missing_command_is_127(self, transport: Transport) -> None:
        done = transport.run(["no-such-command-here"], WAIT_S)
        assert done.returncode == 127
        assert "no-such-command-here" in done.stderr

    def test_run_past_its_time_stalls(self, transport: Transport) -> None:
        started = time.monotonic()
        with pytest.raises(ChannelStalled, match="sleep"):
            transport.run(["sleep", "30"], 0.3)
        assert time.monotonic() - started < 10

    def test_run_reads_nothing_from_the_controller(self, transport: Transport) -> None:
        assert transport.run(["cat"], WAIT_S).stdout == ""

    def test_lines_go_out_and_back_in_order(self, transport: Transport) -> None:
        channel = transport.open(["cat"])
        for number in range(200):
            channel.send(b"line %d" % number)
        assert [channel.receive(WAIT_S) for _ in range(200)] == [b"line %d" % n for n in range(200)]
        channel.close()

    def test_a_line_may_be_long_or_empty(self, transport: Transport) -> None:
        channel = transport.open(["cat"])
        long = bytes(range(11, 256)) * 4000
        for line in (long, b"", b"end"):
            channel.send(line)
        assert [channel.receive(WAIT_S) for _ in range(3)] == [long, b"", b"end"]
        channel.close()

    def test_silence_is_a_stall_and_the_channel_lives_on(self, transport: Transport) -> None:
        channel = transport.open(["cat"])
        started = time.monotonic()
        with pytest.raises(ChannelStalled, match=r"0\.2 s"):
            channel.receive(0.2)
        assert 0.15 < time.monotonic() - started < 5
        channel.send(b"still here")
        assert channel.receive(WAIT_S) == b"still here"
        channel.close()

    def test_what_came_before_the_end_is_delivered_first(self, transport: Transport) -> None:
        channel = transport.open(["sh", "-c", "echo one; echo two"])
        assert [channel.receive(WAIT_S), channel.receive(WAIT_S)] == [b"one", b"two"]
        for _ in range(2):
            with pytest.raises(ChannelClosed):
                channel.receive(WAIT_S)
        channel.close()

    def test_the_end_says_what_standard_error_said(self, transport: Transport) -> None:
        channel = transport.open(["sh", "-c", "echo the disk is on fire >&2; exit 7"])
        with pytest.raises(ChannelClosed, match="the disk is on fire"):
            channel.receive(WAIT_S)
        assert channel.stderr_tail() == "the disk is on fire\n"
        channel.close()

    def test_sending_to_a_process_that_ended_fails(self, transport: Transport) -> None:
        channel = transport.open(["true"])
        with pytest.raises(ChannelClosed):
            channel.receive(WAIT_S)
        with pytest.raises(ChannelClosed):
            for _ in range(100):
                channel.send(b"x" * 1000)
                time.sleep(0.01)
        channel.close()

    def test_standard_error_keeps_its_end(self, transport: Transport) -> None:
        script = "i=0; while [ $i -lt 2000 ]; do echo error number $i >&2; i=$((i+1)); done; echo done; cat"
        channel = transport.open(["sh", "-c", script])
        assert channel.receive(WAIT_S) == b"done"
        deadline = time.monotonic() + WAIT_S
        while "number 1999\n" not in channel.stderr_tail() and time.monotonic() < deadline:
            time.sleep(0.02)
        tail = channel.stderr_tail()
        assert tail.endswith("error number 1999\n")
        assert len(tail) <= 4000
        assert tail.startswith("error number ")
        channel.close()

    def test_close_ends_the_process_and_may_be_repeated(self, transport: Transport) -> None:
        channel = transport.open(["sh", "-c", "echo $$; exec cat"])
        pid = channel.receive(WAIT_S).decode()
        assert transport.run(["kill", "-0", pid], WAIT_S).returncode == 0
        channel.close()
        channel.close()
        deadline = time.monotonic() + WAIT_S
        while transport.run(["kill", "-0", pid], WAIT_S).returncode == 0:
            assert time.monotonic() < deadline, "the process outlives its channel"
            time.sleep(0.05)
        with pytest.raises(ChannelClosed):
            channel.send(b"too late")

    def test_two_channels_do_not_mix(self, transport: Transport) -> None:
        first, second = transport.open(["cat"]), transport.open(["cat"])
        first.send(b"first")
        second.send(b"second")
        assert (second.receive(WAIT_S), first.receive(WAIT_S)) == (b"second", b"first")
        first.close()
        second.send(b"again")
        assert second.receive(WAIT_S) == b"again"
        second.close()

    def test_a_file_goes_there_and_back(self, transport: Transport, folder: str, tmp_path: Path) -> None:
        source, copy = tmp_path / "a.bin", tmp_path / "b.bin"
        source.write_bytes(bytes(range(256)) * 5000)
        there = f"{folder}/new folder/deeper/it's.bin"
        transport.push(source, there)
        transport.pull(there, copy)
        assert copy.read_bytes() == source.read_bytes()

    def test_push_replaces_and_leaves_nothing_else(self, transport: Transport, folder: str, tmp_path: Path) -> None:
        source = tmp_path / "a.bin"
        for content in (b"old and longer", b"new", b""):
            source.write_bytes(content)
            transport.push(source, f"{folder}/replaced/file")
            done = transport.run(["cat", f"{folder}/replaced/file"], WAIT_S)
            assert done.stdout.encode() == content
        assert transport.run(["ls", "-A", f"{folder}/replaced"], WAIT_S).stdout == "file\n"

    def test_push_below_a_file_fails_and_names_it(self, transport: Transport, folder: str, tmp_path: Path) -> None:
        source = tmp_path / "a.bin"
        source.write_bytes(b"x")
        transport.push(source, f"{folder}/plain")
        with pytest.raises(PushFailed, match="plain/below"):
            transport.push(source, f"{folder}/plain/below")

    def test_push_onto_a_folder_fails_and_leaves_no_copy(
            self, transport: Transport, folder: str, tmp_path: Path) -> None:
        source = tmp_path / "a.bin"
        source.write_bytes(b"x")
        transport.push(source, f"{folder}/outer/inner/file")
        with pytest.raises(PushFailed, match="outer/inner"):
            transport.push(source, f"{folder}/outer/inner")
        assert transport.run(["ls", "-A", f"{folder}/outer"], WAIT_S).stdout == "inner\n"

    def test_pull_of_nothing_fails_and_makes_nothing(self, transport: Transport, folder: str, tmp_path: Path) -> None:
        with pytest.raises(FarmError, match="not-there"):
            transport.pull(f"{folder}/not-there", tmp_path / "copy")
        assert list(tmp_path.iterdir()) in ([], [tmp_path / "board"])

    def test_close_may_be_repeated(self, transport: Transport) -> None:
        channel = transport.open(["cat"])
        transport.close()
        transport.close()
        with pytest.raises(ChannelClosed):
            channel.send(b"gone")
