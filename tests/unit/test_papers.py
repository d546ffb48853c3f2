"""The papers: what they link to, name and list is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from rollout.claim_rules import ClaimRefusal
from rollout.state import MOVES, RING_MOVES

ROOT = Path(__file__).parents[2]
DOCS, DECISIONS = ROOT / "docs", ROOT / "docs" / "decisions"
PAGES = sorted(
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob(".github/*.md")]
)
FENCED = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCED.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module, or something that a module holds: a class's field too."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return part in getattr(found, "__annotations__", {})
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{name(page)} links to {link}, which is not there"
        if anchor:
            assert anchor in anchors(target), f"{name(page)} links to {link}: no such heading"


def test_the_index_lists_every_page_and_says_when_to_read_it() -> None:
    index = (DOCS / "README.md").read_text()
    rows = re.findall(r"^\| \[[^]]+\]\(([^)]+)\) \| Read when: .+ \|$", index, re.MULTILINE)
    pages = {page.name for page in DOCS.glob("*.md")} - {"README.md"}
    assert pages <= set(rows), f"the index lacks {sorted(pages - set(rows))}"


def test_every_decision_is_listed_and_has_its_parts() -> None:
    pages = sorted(page.name for page in DECISIONS.glob("[0-9]*.md"))
    listed = re.findall(r"^\| \[\d{4}\]\(([^)]+)\)", (DECISIONS / "README.md").read_text(), re.M)
    assert listed == pages
    for number, page in enumerate(pages, start=1):
        text = (DECISIONS / page).read_text()
        assert text.startswith(f"# {number:04d}. "), f"{page}: the number is the file's"
        assert re.findall(r"^(?:Status|## \w+)", text, re.MULTILINE) == [
            "Status",
            "## Context",
            "## Decision",
            "## Rejected",
            "## Consequences",
        ], page


def test_the_glossary_names_what_is_in_the_code() -> None:
    rows = [
        row.split(" | ")
        for row in (DOCS / "glossary.md").read_text().splitlines()
        if row.count("|") >= 8 and not row.startswith("|---")
    ]
    terms = [row[0].removeprefix("| ") for row in rows if row[0] != "| Term"]
    assert len(terms) == len(set(terms)), "a word stands there twice"
    for row in rows:
        for dotted in re.findall(r"`([a-z_]+(?:\.\w+)*)`", row[2]):
            assert exists(dotted), f"{row[0]}: {dotted} is not in the code"


def test_the_change_guides_name_files_that_are_there() -> None:
    guides = prose(ROOT / "CONTRIBUTING.md")
    named = set(re.findall(r"`([\w.-]+/(?:[\w./-]*(?:\.\w+|/))?)`", guides))
    assert len(named) > 20
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_every_reason_of_a_refused_claim_says_what_to_do() -> None:
    rows = re.findall(r"^\| (`[^|]+) \|", (DOCS / "operations.md").read_text(), re.MULTILINE)
    told = {word for row in rows for word in re.findall(r"`([a-z-]+)`", row)}
    assert {reason.value for reason in ClaimRefusal} <= told


def drawn_moves(mark: str) -> dict[str, set[str]]:
    """The moves that docs/architecture.md draws between these marks; one from a state with others
    in it is a move from each of them."""
    drawing = (DOCS / "architecture.md").read_text().split(f"<!-- {mark} -->")[1]
    lines = drawing.split(f"<!-- /{mark} -->")[0].splitlines()
    moves: dict[str, set[str]] = {}
    inside: dict[str, set[str]] = {}
    outer = None
    for line in lines:
        if match := re.fullmatch(r' *state ".+" as (\w+) \{', line):
            outer = match[1]
        elif line.strip() == "}":
            outer = None
        elif match := re.fullmatch(r" *(\w+) --> (\w+) : .+", line):
            moves.setdefault(match[1], set()).add(match[2])
            if outer:
                inside.setdefault(outer, set()).update(match.groups())
    for name, members in inside.items():
        for target in moves.pop(name):
            for member in members:
                moves.setdefault(member, set()).add(target)
    return moves


def test_the_drawn_moves_of_an_offer_are_the_code_s() -> None:
    there = {phase.value: {to.value for to in moves} for phase, moves in MOVES.items() if moves}
    assert drawn_moves("offer") == there


def test_the_drawn_moves_of_a_ring_are_the_code_s() -> None:
    there = {p.name.lower(): {to.name.lower() for to in moves} for p, moves in RING_MOVES.items()}
    assert drawn_moves("ring") == there
