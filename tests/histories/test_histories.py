"""A part of the random histories, within the suite's time; `make histories` plays ten thousand."""

from __future__ import annotations

import pytest

from cloud.cloudwatch import CloudWatch
from cloud.jobs import Jobs
from rollout.release import FailureLimit
from tests.histories.oracle import Broken, Oracle, is_evidence
from tests.histories.scripts import draw, finish, judge
from tests.histories.stage import Stage

SEEDS = range(1, 13)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_oracle_finds_nothing_in_a_random_history(seed: int) -> None:
    found = judge(seed)
    assert found is None, found


def test_a_script_plays_the_same_history_again() -> None:
    history = draw(3)
    first, again = history.play(), Stage(seed=3, watch=Oracle, **history.setting)
    for step in history.steps:
        getattr(again, step.name)(**step.how)
    finish(again)
    assert again.iot.ids_ever == first.iot.ids_ever
    assert again.state == first.state


@pytest.mark.parametrize(
    ("part", "method", "words"),
    [
        (Jobs, "cancel", "is live though its image is refused"),
        (CloudWatch, "put", "in silence"),
    ],
)
def test_the_oracle_objects_to_a_controller_without_a_part_of_its_work(
    monkeypatch: pytest.MonkeyPatch, part: type, method: str, words: str
) -> None:
    monkeypatch.setattr(part, method, lambda *_seen, **_more: None)
    stage = Stage(seed=4, devices=24, watch=Oracle)
    stage.release("1.1.0", ail="bad", on="canary")
    with pytest.raises(Broken, match=words):
        finish(stage)


@pytest.mark.parametrize(
    ("percent", "began", "least"),
    [(2.0, 2, 2), (2.0, 1000, 38), (5.0, 100, 15), (10.0, 5, 4), (10.0, 3000, 444)],
)
def test_the_oracle_knows_evidence_as_the_papers_have_it(
    percent: float, began: int, least: int
) -> None:
    limit = FailureLimit(percent=percent)
    assert is_evidence(limit, began, least)
    assert not is_evidence(limit, began, least - 1)
