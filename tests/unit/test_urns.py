"""Each stack's URNs, recorded: Pulumi deletes and makes anew what changes its URN, a bucket of
firmware included.

`python -m tests.unit.test_urns` records them anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.harness import STACKS, whole

FOLDER = Path(__file__).parent / "urns"

LOST = """{count} of stack {stack} lost their URN; Pulumi would delete them and make others instead:
{urns}
Give what took its place an alias (pulumi.ResourceOptions(aliases=[pulumi.Alias(...)])), or, if
the resource is to go, write into docs/ what becomes of deployed stacks. Then record the new URNs:
python -m tests.unit.test_urns"""
NEW = """{count} of stack {stack} are not recorded yet:
{urns}
Record them: python -m tests.unit.test_urns"""


def path(stack: str) -> Path:
    return FOLDER / f"{stack}.txt"


def complaint(stack: str, recorded: set[str], present: set[str]) -> str:
    """What to do about URNs that are lost or not recorded; empty when there are none."""
    if lost := sorted(recorded - present):
        return LOST.format(count=len(lost), stack=stack, urns="\n".join(lost))
    if new := sorted(present - recorded):
        return NEW.format(count=len(new), stack=stack, urns="\n".join(new))
    return ""


@pytest.mark.parametrize("stack", STACKS)
def test_no_urn_is_lost(stack: str) -> None:
    problem = complaint(stack, set(path(stack).read_text().split()), set(whole(stack).urns()))
    assert not problem, problem


def test_a_lost_urn_says_what_to_do() -> None:
    text = complaint("prod", {"urn:a", "urn:b"}, {"urn:b", "urn:c"})
    assert "urn:a" in text
    assert "aliases" in text
    assert "python -m tests.unit.test_urns" in text


def test_a_new_urn_asks_to_be_recorded() -> None:
    assert "urn:c\nRecord them" in complaint("prod", {"urn:b"}, {"urn:b", "urn:c"})
    assert complaint("prod", {"urn:b"}, {"urn:b"}) == ""


if __name__ == "__main__":
    for each in STACKS:
        path(each).write_text("".join(f"{urn}\n" for urn in whole(each).urns()))
