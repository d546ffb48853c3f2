"""The file that names things, and rings for some of them."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ops.errors import OpsError
from rollout.rings import Thing

THING_NAME = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
"""ThingName of AWS IoT."""
TOLD_MISTAKES = 20
"""Mistakes in a file that are told."""


@dataclass(frozen=True, kw_only=True)
class NamedThing:
    """A thing that somebody wants in a ring."""

    name: str
    ring: str | None = None
    """None: the one that the rule says."""
    known: Thing | None = None
    """What AWS said of it, where it was asked already."""


def read_things_file(path: str, rings: Collection[str]) -> list[NamedThing]:
    """The rows of a CSV file with a column `thing` and, if at all, a column `ring`. Raises OpsError
    that tells every mistake."""
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = set(reader.fieldnames or ())
            if "thing" not in columns or not columns <= {"thing", "ring"}:
                raise OpsError(
                    f"{path}: the first line must name the columns: `thing`, or `thing,ring`;"
                    f" it names {', '.join(sorted(columns)) or 'nothing'}"
                )
            rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise OpsError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise OpsError(f"{path} is no CSV file in UTF-8: {error}") from error
    mistakes: list[str] = []
    found: dict[str, NamedThing] = {}
    for line, row in rows:
        name, ring = (row["thing"] or "").strip(), (row.get("ring") or "").strip() or None
        if None in row or not THING_NAME.fullmatch(name):
            mistakes.append(
                f"line {line}: `{name}` is no thing's name: 1 to 128 letters, digits and :_-"
            )
        elif ring and ring not in rings:
            mistakes.append(f"line {line}: there is no ring `{ring}`: {', '.join(rings)}")
        elif name in found:
            mistakes.append(f"line {line}: {name} stands there twice")
        else:
            found[name] = NamedThing(name=name, ring=ring)
    if mistakes:
        more = len(mistakes) - TOLD_MISTAKES
        shown = [*mistakes[:TOLD_MISTAKES], *([f"and {more} more"] if more > 0 else [])]
        raise OpsError("\n  ".join([f"{path} has {len(mistakes)} mistakes:", *shown]))
    return list(found.values())
