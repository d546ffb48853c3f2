"""The person at the terminal: told what will happen, asked for a reason and for consent."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterable

from ops.errors import OpsError
from rollout.names import ORDER_CHARACTERS


def say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)


def ask(question: str) -> str:
    """The person's answer. Raises OpsError where nobody can be asked."""
    if not sys.stdin.isatty():
        raise OpsError(
            "nobody is there to ask (no terminal): say --yes and --why TEXT; nothing was changed"
        )
    try:
        return input(question)
    except EOFError:
        return ""


def ask_consent(
    lines: Iterable[str], *, why: str | None, yes: bool, word: str | None = None
) -> str:
    """Says what will happen; the reason, on one line, once the person agreed, else OpsError. With
    a `word` they agree by typing that."""
    say(*lines)
    said = ask("Why? ") if why is None else why
    reason = "".join(c for c in " ".join(said.split()) if c.isprintable())
    if not reason:
        raise OpsError("a reason is needed, it is recorded: --why TEXT; nothing was changed")
    size = len(reason)
    if size > ORDER_CHARACTERS:
        raise OpsError(
            f"the reason has {size} characters, at most {ORDER_CHARACTERS}; nothing was changed"
        )
    question = f"Type {word} to do it: " if word else "Do it? [y/N] "
    agreed = (word,) if word else ("y", "yes", "Y", "YES", "Yes")
    if not yes and ask(question).strip() not in agreed:
        raise OpsError("not confirmed: nothing was changed")
    return reason


def user_name() -> str:
    """The operating system's name for the caller."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"
