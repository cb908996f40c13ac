"""Check the commands in a Markdown file's code blocks: each verb, option and make target must exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

BIN = Path(sys.executable).parent
BLOCK = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"--[a-z][a-z-]*")


def commands(text: str) -> list[list[str]]:
    """Return the commands of all shell blocks, split into words; in console blocks those after `$ `."""
    found = []
    for block in BLOCK.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        prompted = [line[2:] for line in lines if line.startswith("$ ")]
        found += [shlex.split(line, comments=True) for line in prompted or lines]
    return [words for words in found if words]


@cache
def help_of(verbs: tuple[str, ...]) -> str | None:
    """Return the help of a verb; None when there is no such verb."""
    done = subprocess.run([BIN / "orchestrator", *verbs, "--help"], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def problem(words: list[str]) -> str | None:
    """Say what is wrong with a command; None when nothing is, or when it is not one of ours."""
    name, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
    if name == "make":
        targets = [word for word in arguments if "=" not in word and not word.startswith("-")]
        done = subprocess.run(["make", "--dry-run", *targets], capture_output=True, text=True, check=False)
        return done.stderr.strip() if done.returncode else None
    if name != "orchestrator":
        return None
    verbs: list[str] = []
    for word in arguments:
        if word.startswith("-") or help_of((*verbs, word)) is None or help_of((*verbs, word)) == help_of(tuple(verbs)):
            break
        verbs.append(word)
    known = help_of(tuple(verbs)) or ""
    if arguments and not verbs and not arguments[0].startswith("-"):
        return f"no such verb: {arguments[0]}"
    if verbs and "Commands:" in known and not set(arguments) & {"--help"}:
        return f"no such verb: {' '.join(arguments)}"
    options = [word.split("=")[0] for word in arguments if OPTION.match(word)]
    unknown = sorted(set(options) - set(OPTION.findall(known)))
    return f"no such option: {', '.join(unknown)}" if unknown else None


def main(path: str) -> int:
    """Print every command with what is wrong with it, and return the exit code."""
    found = commands(Path(path).read_text())
    wrong = 0
    for words in found:
        what = problem(words)
        wrong += what is not None
        sys.stdout.write(f"{'ok' if what is None else 'WRONG'}  {shlex.join(words)}{f': {what}' if what else ''}\n")
    sys.stdout.write(f"{len(found)} commands, {wrong} wrong\n")
    return 1 if wrong or not found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
