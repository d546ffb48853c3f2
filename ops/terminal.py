"""The person at the terminal: told what will happen, asked for a reason and for consent."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterable

from ops.errors import OpsError

LONGEST_WHY = 500
"""Characters of a reason: it stands in control.json, in the controller's decisions and in a job's
comment (2028)."""


class Terminal:
    """Standard input and output."""

    def say(self, *lines: str) -> None:
        print(*lines, sep="\n", flush=True)

    def ask(self, question: str) -> str:
        """An answer of the person's. Raises OpsError where nobody can be asked."""
        if not sys.stdin.isatty():
            raise OpsError(
                "nobody is there to be asked (no terminal): say --yes and --why TEXT; nothing was"
                " changed"
            )
        try:
            return input(question)
        except EOFError:
            return ""

    def user(self) -> str:
        """The operating system's name for the caller."""
        try:
            return getpass.getuser()
        except (KeyError, OSError, ImportError):
            return "unknown"


def consent(terminal: Terminal, lines: Iterable[str], *, why: str | None, yes: bool) -> str:
    """Says what will happen, and returns the reason once the person agreed. Raises OpsError when
    they did not."""
    terminal.say(*lines)
    reason = reason_of(terminal.ask("Why? ") if why is None else why)
    if not yes and terminal.ask("Do it? [y/N] ").strip().lower() not in ("y", "yes"):
        raise OpsError("not confirmed: nothing was changed")
    return reason


def reason_of(text: str) -> str:
    """The reason on one line. Raises OpsError when there is none, or too much of it."""
    reason = "".join(c for c in " ".join(text.split()) if c.isprintable())
    if not reason:
        raise OpsError("a reason is needed, it is recorded: --why TEXT; nothing was changed")
    if len(reason) > LONGEST_WHY:
        raise OpsError(
            f"the reason has {len(reason)} characters, at most {LONGEST_WHY} are recorded; nothing"
            " was changed"
        )
    return reason
