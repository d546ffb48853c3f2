"""A list of serials as a manufacturer has it, a CSV file: read as a whole, with every mistake."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from rollout.codec import show_value
from rollout.names import ATTRIBUTE_VALUE, SERIAL_NAME
from rollout.serial import Serial

SERIAL_COLUMN, RING_COLUMN = "serial", "ring"


@dataclass(frozen=True, kw_only=True, slots=True)  # there may be a million
class SerialLine:
    """What a line of the list says of a serial. An empty cell takes away what the record has; a
    column that the list does not have leaves it."""

    line: int
    """Its number in the file."""
    serial: str
    ring: str | None = None
    """Empty: the one that the serial's hash says. None: the list has no such column."""
    attributes: dict[str, str] = field(default_factory=dict)
    """By key; empty: the fleet's own."""

    def apply(self, there: Serial | None) -> Serial:
        """The record that the list wants, over the one that is there."""
        record = there or Serial(serial=self.serial)
        ring = record.ring if self.ring is None else self.ring or None
        attributes = {**record.attributes, **self.attributes}
        kept = {key: value for key, value in sorted(attributes.items()) if value}
        return replace(record, ring=ring, attributes=kept)

    def find_conflict(self, there: Serial | None) -> str | None:
        """Why the record may not become what the list wants: a thing stays in its ring, whatever
        its serial's record says."""
        if there is None or there.claim is None or self.apply(there).ring == there.ring:
            return None
        return (
            f"line {self.line}: ring: {self.serial} is claimed, its thing {there.claim.thing} stays"
            f" where it is: write {show_value(there.ring or '')} here, and move the thing with"
            " `ops rings`"
        )


@dataclass(frozen=True, kw_only=True)
class SerialList:
    """The lines that can be read, and what is wrong with the others, with their numbers."""

    lines: tuple[SerialLine, ...]
    mistakes: tuple[str, ...]


def read_serial_list(
    text: str, *, rings: Collection[str], attributes: Collection[str]
) -> SerialList:
    """The list in a CSV text (RFC 4180): a column `serial`, one `ring` or none, and each other one
    is the key of an attribute. `rings` and `attributes` are those of the fleet."""
    mistakes: list[str] = []
    lines: list[SerialLine] = []
    seen: dict[str, int] = {}
    rows = _read_rows(text, mistakes)
    first, header = next(rows, (1, []))
    mistakes += _check_header(first, header, attributes)
    if header.count(SERIAL_COLUMN) != 1:
        return SerialList(lines=(), mistakes=tuple(mistakes))
    for number, cells in rows:
        if len(cells) != len(header):
            says = f"it has {len(cells)} cells, the first line {len(header)}"
            mistakes.append(f"line {number}: {says}: put a text with a comma in double quotes")
            continue
        row = dict(zip(header, cells, strict=True))
        wrong = [f"line {number}: {one}" for one in _check_row(row, rings)]
        serial, ring = row.pop(SERIAL_COLUMN), row.pop(RING_COLUMN, None)
        if (there := seen.setdefault(serial, number)) != number:
            wrong.append(f"line {number}: serial {serial} stands in line {there} already")
        if not wrong:
            lines.append(SerialLine(line=number, serial=serial, ring=ring, attributes=row))
        mistakes += wrong
    if not lines and not mistakes:
        mistakes.append("it has no serial: a line each, below the names of the columns")
    return SerialList(lines=tuple(lines), mistakes=tuple(mistakes))


def _read_rows(text: str, mistakes: list[str]) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold something, each with the number of the line where it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            mistakes.append(f"line {number}: it is no CSV ({error})")
            return
        if any(cells):
            yield number, cells


def _check_header(number: int, header: Sequence[str], attributes: Collection[str]) -> Iterator[str]:
    where = f"line {number}: "
    if SERIAL_COLUMN not in header:
        says = "the first line names the columns, separated by commas, and one is serial"
        yield f"{where}no column {SERIAL_COLUMN}: {says}"
    for name, count in Counter(header).items():
        if count > 1:
            yield f"{where}column {show_value(name)} stands there {count} times"
        elif name not in (SERIAL_COLUMN, RING_COLUMN, *attributes):
            known = ", ".join(sorted(attributes)) or "none"
            yield (
                f"{where}column {show_value(name)} is no attribute of the fleet, which are {known}:"
                " add it to fleet.attributes in the stack file, or take the column out"
            )


def _check_row(row: dict[str, str], rings: Collection[str]) -> Iterator[str]:
    for name, value in row.items():
        if name == SERIAL_COLUMN:
            if not re.fullmatch(SERIAL_NAME, value):
                yield f"serial {show_value(value)} is not 1 to 98 letters, digits, - and _"
        elif name == RING_COLUMN:
            if value and value not in rings:
                yield f"ring {show_value(value)} is none of the fleet's: {', '.join(sorted(rings))}"
        elif value and not re.fullmatch(ATTRIBUTE_VALUE, value):
            allowed = "1 to 800 letters, digits and _.,@/:#=[]- without spaces"
            yield f"{name} {show_value(value)} is not {allowed}"
