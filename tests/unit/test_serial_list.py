"""A list of serials is read as a whole, or refused with everything that is wrong with it."""

from __future__ import annotations

import csv
import io
import re

from hypothesis import given
from hypothesis import strategies as st

from rollout.names import SERIAL_NAME
from rollout.serial import Claim, Serial, SerialStatus
from rollout.serial_list import SerialLine, SerialList, read_serial_list

RINGS, KEYS = ("canary", "broad"), ("line", "site")
CLAIM = Claim(thing="fleet-0001", certificate="c", key="k", by="b", at=1.0)

cells = st.text(max_size=20)
serials = st.from_regex(re.compile(SERIAL_NAME, re.ASCII), fullmatch=True)
values = st.sampled_from(["", "lab", "plant-7"])
rows = st.tuples(serials, st.sampled_from(["", *RINGS]), values)


def read(text: str) -> SerialList:
    return read_serial_list(text, rings=RINGS, attributes=KEYS)


def written(*rows: tuple[str, ...]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


def test_what_a_list_says() -> None:
    found = read(
        'serial, ring,site\r\n\r\n0001,,lab\r\n"0002","broad",\r\n ,,\r\n0003,canary,x\r\n'
    )
    assert found.mistakes == ()
    assert found.lines == (
        SerialLine(line=3, serial="0001", ring="", attributes={"site": "lab"}),
        SerialLine(line=4, serial="0002", ring="broad", attributes={"site": ""}),
        SerialLine(line=6, serial="0003", ring="canary", attributes={"site": "x"}),
    )
    assert read("serial\n0001\n").lines == (SerialLine(line=2, serial="0001"),)


def test_every_mistake_is_told_with_its_line() -> None:
    text = written(
        ("serial", "ring", "site", "colour"),
        ("0001", "canary", "lab", "red"),
        ("00 02", "early", "a b", ""),
        ("0001", "", "", ""),
        ("0003", "canary"),
        ("0004", "", "x" * 801, ""),
    )
    assert list(read(text).mistakes) == [
        'line 1: column "colour" is no attribute of the fleet, which are line, site: add it to'
        " fleet.attributes in the stack file, or take the column out",
        'line 3: serial "00 02" is not 1 to 98 letters, digits, - and _',
        'line 3: ring "early" is none of the fleet\'s: broad, canary',
        'line 3: site "a b" is not 1 to 800 letters, digits and _.,@/:#=[]- without spaces',
        "line 4: serial 0001 stands in line 2 already",
        "line 5: it has 2 cells, the first line 4: put a text with a comma in double quotes",
        f'line 6: site "{"x" * 56}... is not 1 to 800 letters, digits and _.,@/:#=[]- without'
        " spaces",
    ]


def test_a_list_without_its_columns_is_no_list() -> None:
    lacks = (
        "line 1: no column serial: the first line names the columns, separated by commas, and one"
        " is serial"
    )
    assert read("").mistakes == (lacks,)
    assert read("serial;ring\n0001;canary\n").mistakes[0] == lacks
    assert read("serial\n\n").mistakes == (
        "it has no serial: a line each, below the names of the columns",
    )
    assert read("serial,ring,ring\n0001,,\n").mistakes == (
        'line 1: column "ring" stands there 2 times',
    )
    assert read("serial,serial\n1,2\n").mistakes == (
        'line 1: column "serial" stands there 2 times',
    )
    assert read('serial\n"0001" x\n').mistakes[0].startswith("line 2: it is no CSV (")


@given(st.lists(rows, unique_by=lambda row: row[0], min_size=1))
def test_a_right_list_is_read_row_by_row(given_rows: list[tuple[str, str, str]]) -> None:
    found = read(written(("serial", "ring", "site"), *given_rows))
    assert found.mistakes == ()
    assert [(one.serial, one.ring, one.attributes["site"]) for one in found.lines] == given_rows


@given(st.text() | st.lists(st.lists(cells)).map(lambda found: written(*map(tuple, found))))
def test_whatever_a_file_holds_gives_lines_or_mistakes(text: str) -> None:
    found = read(text)
    assert found.lines or found.mistakes
    assert len({line.serial for line in found.lines}) == len(found.lines)


@given(rows, rows)
def test_applying_a_line_twice_changes_nothing_more(
    first: tuple[str, str, str], second: tuple[str, str, str]
) -> None:
    def line(row: tuple[str, str, str]) -> SerialLine:
        return SerialLine(line=2, serial="0001", ring=row[1], attributes={"site": row[2]})

    record = line(first).apply(None)
    changed = line(second).apply(record)
    assert line(second).apply(changed) == changed
    assert (changed.ring or "", changed.attributes.get("site", "")) == second[1:]


def test_a_column_that_is_not_there_leaves_what_is() -> None:
    there = Serial(serial="0001", ring="canary", attributes={"line": "3", "site": "lab"})
    assert SerialLine(line=2, serial="0001").apply(there) == there
    emptied = SerialLine(line=2, serial="0001", ring="", attributes={"site": ""}).apply(there)
    assert (emptied.ring, emptied.attributes) == (None, {"line": "3"})


def test_the_ring_of_a_thing_that_is_there_is_not_changed_by_a_list() -> None:
    line = SerialLine(line=7, serial="0001", ring="canary")
    told = (
        'line 7: ring: 0001 is claimed, its thing fleet-0001 stays where it is: write "" here, and'
        " move the thing with `ops rings`"
    )
    assert line.find_conflict(None) is None
    for status in SerialStatus:
        record = Serial(serial="0001", status=status)
        assert line.find_conflict(record) is None
        has_thing = Serial(serial="0001", status=status, claim=CLAIM)
        assert line.find_conflict(has_thing) == told
        assert SerialLine(line=7, serial="0001", ring="").find_conflict(has_thing) is None
