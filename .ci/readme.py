"""Run the commands of Markdown files' shell blocks, in order, in a folder and a home of their own.

A comment on the line before a block says what is different:

    <!-- ci: skip REASON -->    its verbs, options and make targets must exist, but nothing is run
    <!-- ci: with OPTIONS -->   each 'orchestrator search' in it is run with these options too

--look-up treats every block as skipped. The options in the first column of a table are those of search. Blocks whose
language or comment is not known are errors, and so are commands outside blocks, which nobody would check.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[1]
SHELL, OTHER = "sh", ("text", "yaml", "python", "json")
COMMENT = re.compile(r"<!-- ci: (?P<what>\w+) (?P<rest>.+) -->")
OPTION = re.compile(r"--[a-z][a-z-]*")
REMARK = re.compile(r"\s+# .*$")
STRAY = re.compile(r" {4,}(?:\.venv/bin/|orchestrator |make )")
ROW = re.compile(r"^\| (`--.+?) \|", re.MULTILINE)
LIMIT_S = 120.0
FOUND_NOTHING = 1
"""Exit code of a search whose goal is not met: a short one need not meet it."""


class Unknown(Exception):
    """A file that the check does not understand: where, and what is wrong."""


@dataclass(frozen=True, slots=True)
class Block:
    """A shell block."""

    line: int
    lines: tuple[str, ...]
    """Its commands, continued lines joined."""
    skipped: bool
    extra: str
    """Options for each search."""


def blocks(text: str) -> Iterator[Block]:
    """Yield the shell blocks. Raises Unknown."""
    language: str | None = None
    before, start, body = "", 0, [""]
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare.startswith("```") and language is None:
            language, start, body = bare[3:], number, []
            if language not in (SHELL, *OTHER):
                raise Unknown(f"line {number}: a block of {language or 'no language'}; known are {SHELL} (is run), "
                              f"{', '.join(OTHER)}")
            skipped, extra = _asked(before, number)
        elif bare == "```":
            if language == SHELL:
                commands = [c.strip() for c in "\n".join(body).replace("\\\n", " ").splitlines()]
                yield Block(start, tuple(c for c in commands if shlex.split(c, comments=True)), skipped, extra)
            language = None
        elif language is not None:
            body.append(line)
        elif STRAY.match(line):
            raise Unknown(f"line {number}: a command outside a ```{SHELL} block: {bare}")
        before = bare
    if language is not None:
        raise Unknown(f"line {start}: this block has no end")


def _asked(before: str, number: int) -> tuple[bool, str]:
    """Read the comment on the line before a block: is it skipped, which options are added?"""
    if not before.startswith("<!--"):
        return False, ""
    found = COMMENT.fullmatch(before)
    if found is None or found["what"] not in ("skip", "with"):
        raise Unknown(f"line {number}: expected '<!-- ci: skip REASON -->' or '<!-- ci: with OPTIONS -->', "
                      f"got {before}")
    return found["what"] == "skip", found["rest"] if found["what"] == "with" else ""


@cache
def help_of(verbs: tuple[str, ...]) -> str | None:
    """Return the help of a verb; None when there is no such verb."""
    done = subprocess.run([BIN / "orchestrator", *verbs, "--help"], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def look_up(command: str) -> str | None:
    """Say what is wrong with a command; None when nothing is, or when it is not one of ours."""
    name, *arguments = shlex.split(command.removeprefix("sudo "), comments=True)
    if name == "make":
        targets = [word for word in arguments if "=" not in word and not word.startswith("-")]
        done = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stderr.strip() if done.returncode else None
    if name.removeprefix(".venv/bin/") != "orchestrator":
        return None
    verbs: list[str] = []
    for word in arguments:
        if word.startswith("-") or help_of((*verbs, word)) is None or help_of((*verbs, word)) == help_of(tuple(verbs)):
            break
        verbs.append(word)
    known = help_of(tuple(verbs)) or ""
    if not verbs or "Commands:" in known:
        return f"no such verb: {' '.join(arguments)}"
    options = [word.split("=")[0] for word in arguments if OPTION.match(word)]
    unknown = sorted(set(options) - set(OPTION.findall(known)))
    return f"no such option: {', '.join(unknown)}" if unknown else None


def run(command: str, extra: str, folder: Path) -> str | None:
    """Run a command; say what is wrong when it fails."""
    words = shlex.split(command, comments=True)
    search = words[0].removeprefix(".venv/bin/") == "orchestrator" and words[1:2] == ["search"]
    line = REMARK.sub("", command) + (f" {extra}" if search and extra else "")
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line], cwd=folder, env=_environment(folder), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=LIMIT_S)
    except subprocess.TimeoutExpired as error:
        return f"{line!r} did not end within {LIMIT_S:g} s:\n{error.output}"
    if done.returncode == 0 or (search and done.returncode == FOUND_NOTHING):
        return None
    return f"{line!r} ended with {done.returncode}:\n{done.stdout}"


def _environment(home: Path) -> dict[str, str]:
    """Return what a newcomer's shell has: nothing of ours, nothing of an earlier study."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ORCHESTRATOR_", "XDG_"))}
    return {**kept, "HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}"}


def check(file: Path, folder: Path, only_look_up: bool) -> int:
    """Check a file's commands in `folder` and print each. Returns how many are wrong."""
    text, wrong, ran = file.read_text(), 0, 0
    for option in () if only_look_up else OPTION.findall("\n".join(ROW.findall(text))):
        what = look_up(f"orchestrator search {option}")
        wrong += what is not None
        sys.stdout.write(f"{file}: WRONG  in a table: {what}\n" if what else "")
    for block in blocks(text):
        for command in block.lines:
            started = time.monotonic()
            what = look_up(command)
            if what is None and not (block.skipped or only_look_up):
                what, ran = run(command, block.extra, folder), ran + 1
                done = f"ran {time.monotonic() - started:5.1f} s"
            else:
                done = "looked up  "
            wrong += what is not None
            shown = REMARK.sub("", command)
            said = f"{done}  {shown}" if what is None else f"WRONG        {shown}: {what}"
            sys.stdout.write(f"{file}:{block.line:<4} {said}\n")
            sys.stdout.flush()
    if not ran and not only_look_up:
        raise Unknown("nothing in it was run")
    return wrong


def main() -> int:
    """Print every command with what is wrong with it, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--look-up", action="store_true", help="run nothing")
    options = parser.parse_args()
    wrong = 0
    for file in options.files:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / ".venv").symlink_to(BIN.parent)
            try:
                wrong += check(file, Path(folder), options.look_up)
            except Unknown as error:
                sys.stdout.write(f"{file}: WRONG, {error}\n")
                wrong += 1
    sys.stdout.write(f"{wrong} wrong\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
