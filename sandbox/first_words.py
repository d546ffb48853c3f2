"""Who deploys, and what `up` says of it at once: before the modules are loaded that it needs, which
takes a second. Nothing but the standard library is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

ENGINE_VARIABLE = "ENGINE"


class Engine(StrEnum):
    """Who deploys the program into the sandbox: the values of ENGINE."""

    IN_PROCESS = ""
    PULUMI = "pulumi"


DEPLOYERS = {
    Engine.IN_PROCESS: "in this process, some seconds",
    Engine.PULUMI: "by the Pulumi CLI, a minute or two",
}


def find_first_words(arguments: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """What the command line has to say before it can do anything; None where it says all it has
    to say as fast."""
    engine = environment.get(ENGINE_VARIABLE, "")
    if list(arguments[:1]) != ["up"] or engine not in DEPLOYERS or {"-h", "--help"} & {*arguments}:
        return None
    how = DEPLOYERS[Engine(engine)]
    return f"Starting a local AWS (MiniStack), deploying the stack `local` into it ({how})."
