"""Devices that could not go back are found before a way back needs them: all of them, a few calls a
run, whatever AWS refuses."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.clients import PAGE
from cloud.preflight import (
    FRESH_SECONDS,
    GROUPS_A_THING,
    LOOKED_A_RUN,
    MAX_CERTIFICATES,
    MAX_UNRETURNABLE,
    PREFLIGHT_BYTES,
    RECHECK_SECONDS,
    RECHECKED_A_RUN,
    Inspection,
    Inspector,
    Obstacle,
    Preflight,
    RingCheck,
    read_preflight,
)
from rollout.codec import canonical_json
from rollout.names import Names
from tests.fake_aws import Effect, FakeAws, page, refusal

NAMES = Names(fleet="iot-fleet", suffix="0123abcd", channel="stable")
IOT = "arn:aws:iot:us-east-1:123456789012"
KEY = "arn:aws:kms:us-east-1:123456789012:key/1"
ROOT = Path(__file__).parents[2]
START = 1_790_000_000.0
LISTS = {
    "list_things_in_thing_group",
    "list_thing_groups_for_thing",
    "list_thing_principals",
    "list_attached_policies",
}


class Registry(FakeAws):
    """Things, their groups, certificates and policies. A thing is in its ring's group, in the
    `crowded` number of others, and has one certificate with one policy, unless said otherwise."""

    def __init__(self, rings: dict[str, int]) -> None:
        super().__init__(NAMES, [KEY], now=START)
        self.rings = {r: [f"{r}-{n:06}" for n in range(size)] for r, size in rings.items()}
        self.release = list(rings)
        self.crowded: dict[str, int] = {}
        self.certificates: dict[str, int] = {}
        self.bare: set[str] = set()
        """Things whose certificates have no policy."""
        self.group_policies: set[str] = set()
        """Groups that have a policy, or lie below one that has."""
        self.gone: set[str] = set()
        self.cut_off: set[str] = set()
        """Things that left their ring for the quarantine group."""
        self.stale_tokens = False
        self.errors: dict[tuple[str, str], str] = {}
        """By thing and call: the code of AWS's refusal."""
        self.looked = Counter[str]()

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds

    def inspector(self) -> Inspector:
        channel = self.channel()
        groups = {ring: f"{IOT}:thinggroup/{NAMES.ring_group(ring)}" for ring in self.rings}
        return Inspector(channel.clients, NAMES, channel.bucket, ring_groups=groups, clock=self)

    def run(self, minutes: int = 1) -> Preflight:
        """So many runs, a minute apart; each a new process."""
        known = Preflight()
        for _ in range(minutes):
            known = self.inspector().work(self.release)
            self.now += 60
        return known

    def known(self) -> Preflight:
        return read_preflight(self.channel().bucket, NAMES)[0]

    def stuck(self) -> dict[str, Obstacle]:
        """Who could not go back, as AWS would find out."""
        found = {}
        for ring, things in self.rings.items():
            for thing in set(things) - self.gone:
                if self.crowded.get(thing, 0) + 1 >= 10:
                    found[thing] = Obstacle.GROUPS
                elif self.certificates.get(thing, 1) == 0:
                    found[thing] = Obstacle.CERTIFICATE
                elif thing in self.bare and NAMES.ring_group(ring) not in self.group_policies:
                    found[thing] = Obstacle.POLICY
        return found

    # The calls

    def do_list_things_in_thing_group(
        self, *, thingGroupName: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        groups = {NAMES.ring_group(ring): things for ring, things in self.rings.items()}
        if thingGroupName not in groups:
            raise refusal("ResourceNotFoundException", "ListThingsInThingGroup")
        if nextToken and self.stale_tokens:
            raise refusal("InvalidRequestException", "ListThingsInThingGroup")
        return page(groups[thingGroupName], "things", nextToken, size=maxResults)

    def do_list_thing_groups_for_thing(
        self, *, thingName: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        self.looked[thingName] += 1
        self.fail(thingName, "list_thing_groups_for_thing")
        if thingName in self.gone:
            raise refusal("ResourceNotFoundException", "ListThingGroupsForThing")
        own = NAMES.quarantine_group
        if thingName not in self.cut_off:
            own = NAMES.ring_group(thingName.split("-")[0])
        others = [f"other-{n}" for n in range(self.crowded.get(thingName, 0))]
        groups = [{"groupName": name} for name in (own, *others)]
        return page(groups, "thingGroups", nextToken, size=maxResults)

    def do_list_thing_principals(self, *, thingName: str, maxResults: int) -> Any:
        self.fail(thingName, "list_thing_principals")
        number = self.certificates.get(thingName, 1)
        return {"principals": [f"{IOT}:cert/{thingName}.{n}" for n in range(number)]}

    def do_list_attached_policies(self, *, target: str, recursive: bool, pageSize: int) -> Any:
        assert recursive, "else the groups above a group are not looked at"
        kind, _, name = target.removeprefix(f"{IOT}:").partition("/")
        thing = name.rpartition(".")[0]
        self.fail(thing, "list_attached_policies")
        has_one = thing not in self.bare if kind == "cert" else name in self.group_policies
        return {"policies": [{"policyName": "device"}] if has_one else []}

    def fail(self, thing: str, call: str) -> None:
        if code := self.errors.get((thing, call)):
            raise refusal(code, call)


def named(known: Preflight) -> dict[str, Obstacle]:
    return {one.thing: one.why for check in known.rings.values() for one in check.named}


# Everybody is looked at


@settings(max_examples=20)
@given(st.dictionaries(st.sampled_from("abc"), st.integers(0, 700), min_size=1), st.randoms())
def test_a_pass_comes_to_everybody_once_and_finds_who_could_not_go_back(
    sizes: dict[str, int], dice: random.Random
) -> None:
    aws = Registry(sizes)
    things = [thing for ring in aws.rings.values() for thing in ring]
    for thing in dice.sample(things, min(len(things), 9)):
        what = dice.choice(("crowded", "nearly", "none", "bare", "gone"))
        aws.crowded |= {thing: 9} if what == "crowded" else {thing: 8} if what == "nearly" else {}
        aws.certificates |= {thing: 0} if what == "none" else {}
        aws.bare |= {thing} if what == "bare" else set()
        aws.gone |= {thing} if what == "gone" else set()
    for _ in range(
        sum(math.ceil(size / PAGE) * math.ceil(PAGE / LOOKED_A_RUN) + 1 for size in sizes.values())
    ):
        aws.run()
    known = aws.known()
    assert named(known) == aws.stuck()
    assert sum(check.found for check in known.rings.values()) == len(aws.stuck())
    again = set(aws.stuck())
    assert {thing for thing in things if aws.looked[thing] != 1} <= again, "nobody else twice"
    assert set(aws.looked) == set(things)


def test_the_first_ring_of_the_release_comes_first_and_the_others_in_turn() -> None:
    aws = Registry({"staff": 40, "canary": 25, "broad": 60})
    aws.run(4)
    assert {thing.split("-")[0] for thing in aws.looked} == {"staff"}
    aws.run(3)
    assert {thing.split("-")[0] for thing in aws.looked} == {"staff", "canary"}
    aws.run(6)
    assert len(aws.looked) == 125


def test_a_ring_that_takes_longer_than_a_day_does_not_keep_the_others_waiting_for_ever() -> None:
    aws = Registry({"canary": 10, "broad": 400, "last": 10})
    aws.run(20)
    aws.now += FRESH_SECONDS  # canary is due again, and broad is not through
    while not aws.looked["last-000009"]:
        aws.run()
    assert (aws.looked["broad-000399"], aws.looked["canary-000000"]) == (1, 1)
    aws.run()
    assert aws.looked["canary-000000"] == 2, "now the first one is looked at again"


# What a run costs


def test_a_run_makes_few_calls_and_none_while_what_is_known_is_fresh() -> None:
    aws = Registry({"canary": 300, "broad": 3000})
    for _ in range(330 + 10):
        aws.made.clear()
        aws.run()
        made = Counter(aws.made)
        assert made["list_things_in_thing_group"] <= 1
        assert made["list_thing_principals"] <= LOOKED_A_RUN
        assert len(aws.made) <= 3 + 3 * LOOKED_A_RUN
    aws.made.clear()
    aws.run(60)
    assert aws.made == ["get_object"] * 60
    aws.now += FRESH_SECONDS
    aws.made.clear()
    aws.run()
    assert aws.made.count("list_thing_principals") == LOOKED_A_RUN, "a day later it begins again"


def test_a_fleet_in_which_nobody_could_go_back_costs_no_more_than_twice_that() -> None:
    aws = Registry({"canary": 500})
    aws.bare = set(aws.rings["canary"])
    for _ in range(120):
        aws.made.clear()
        aws.run()
        assert len(aws.made) <= 3 + 4 * (LOOKED_A_RUN + RECHECKED_A_RUN)
    (check,) = aws.known().rings.values()
    assert check.found == 500
    assert len(check.named) == MAX_UNRETURNABLE
    assert len(aws.objects[NAMES.keys.preflight]) < PREFLIGHT_BYTES / 10


def test_what_ten_rings_of_the_longest_names_can_hold_is_read_again() -> None:
    things = [f"{n}".ljust(128, "x") for n in range(PAGE)]
    full = Inspection(began_at=START, problem="x" * 400)
    for thing in things:
        full = full.add(thing, Obstacle.CERTIFICATE, START + 0.123456)
    check = RingCheck(finished=full, current=full, pending=tuple(things), token="t" * 4096)
    known = Preflight(rings={f"{n}".ljust(20, "r"): replace(check, pending=()) for n in range(9)})
    text = canonical_json(known.put("r" * 20, check))
    assert len(text) < PREFLIGHT_BYTES


# What counts


def test_a_group_that_is_free_is_enough_and_dynamic_groups_count() -> None:
    aws = Registry({"canary": 2})
    aws.crowded = {"canary-000000": GROUPS_A_THING - 2, "canary-000001": GROUPS_A_THING - 1}
    assert named(aws.run()) == {"canary-000001": Obstacle.GROUPS}


def test_one_certificate_with_a_policy_is_enough_and_so_is_a_policy_of_its_group() -> None:
    aws = Registry({"canary": 2, "broad": 1})
    aws.certificates = {"canary-000000": MAX_CERTIFICATES}
    aws.bare = {"canary-000000", "broad-000000"}
    aws.group_policies = {NAMES.ring_group("broad")}
    aws.run(2)
    assert named(aws.known()) == {"canary-000000": Obstacle.POLICY}
    aws.certificates = {"canary-000000": MAX_CERTIFICATES + 1}
    aws.now += FRESH_SECONDS
    assert named(aws.run()) == {}, "of so many certificates not all are looked at: nothing is told"


def test_who_is_mended_leaves_the_list_within_the_hour() -> None:
    aws = Registry({"canary": 30})
    aws.bare, aws.gone = {"canary-000003", "canary-000007"}, set()
    aws.run(4)
    aws.bare, aws.gone = set(), {"canary-000007"}
    assert len(named(aws.run())) == 2
    aws.now += RECHECK_SECONDS
    known = aws.run()
    assert named(known) == {}
    assert known.describe() == {}


def test_when_all_that_are_named_are_mended_the_others_are_named() -> None:
    aws = Registry({"canary": 100})
    aws.bare = set(aws.rings["canary"][:50])
    aws.run(11)
    assert aws.known().rings["canary"].found == 50
    aws.bare = set(aws.rings["canary"][20:50])
    aws.now += RECHECK_SECONDS
    aws.run(10 + 10)
    known = aws.known().rings["canary"]
    assert known.found == 30
    assert len({one.thing for one in known.named} & aws.bare) == MAX_UNRETURNABLE


# What goes wrong


@pytest.mark.parametrize("call", sorted(LISTS - {"list_things_in_thing_group"}))
@pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException"])
def test_a_device_in_error_is_skipped_and_told_and_the_others_are_looked_at(
    call: str, code: str
) -> None:
    aws = Registry({"canary": 30})
    aws.certificates = {"canary-000020": 0}
    aws.errors = {("canary-000004", call): code}
    aws.run(4)
    (check,) = aws.known().rings.values()
    assert check.finished
    assert (check.finished.looked, check.finished.skipped) == (30, 1)
    assert named(aws.known()) == {"canary-000020": Obstacle.CERTIFICATE}
    assert check.finished.problem == f"canary-000004 cannot be looked at ({code})"


def test_a_run_that_is_throttled_asks_no_more() -> None:
    aws = Registry({"canary": 30})

    def throttle(_number: int, name: str, effect: Effect) -> Any:
        if name == "list_thing_principals":
            raise refusal("ThrottlingException", name)
        return effect()

    aws.fault = throttle
    aws.run()
    assert aws.made.count("list_thing_principals") == 1


def test_a_slow_aws_does_not_hold_the_run_up() -> None:
    aws = Registry({"canary": 30})

    def wait(_number: int, _name: str, effect: Effect) -> Any:
        aws.sleep(8)
        return effect()

    aws.fault = wait
    before = aws.now
    aws.inspector().work(aws.release)
    assert aws.now - before < 60
    assert 1 <= len(aws.looked) < LOOKED_A_RUN


@pytest.mark.parametrize("call", sorted(LISTS))
def test_a_right_that_is_missing_means_that_nothing_is_known(call: str) -> None:
    aws = Registry({"canary": 30, "broad": 30})
    aws.crowded = {"broad-000001": 9} if call == "list_things_in_thing_group" else {}

    def refuse(_number: int, name: str, effect: Effect) -> Any:
        if name == call:
            raise refusal("AccessDeniedException", name)
        return effect()

    aws.fault = refuse
    aws.run(10)
    known = aws.known()
    assert named(known) == {}
    assert all(check.finished for check in known.rings.values()), "the other rings had their turn"
    assert "AccessDeniedException" in known.describe()["problems"][0]


def test_a_list_that_is_throttled_is_gone_on_with_from_where_it_was() -> None:
    aws = Registry({"canary": 600})
    aws.run(30)
    aws.fault = lambda _number, name, effect: _throttle_list(name, effect)
    aws.run(60)
    aws.fault = lambda _number, _name, effect: effect()
    aws.run(40)
    assert set(aws.looked.values()) == {1}
    assert len(aws.looked) == 600


def _throttle_list(name: str, effect: Effect) -> Any:
    if name == "list_things_in_thing_group":
        raise refusal("ThrottlingException", name)
    return effect()


def test_a_token_that_aws_does_not_take_any_more_is_told_and_stops_nothing() -> None:
    aws = Registry({"canary": 300, "broad": 20})
    aws.stale_tokens = True
    aws.run(40)
    check = aws.known().rings["canary"]
    assert check.finished
    assert check.finished.looked == PAGE
    assert "InvalidRequestException" in (check.finished.problem or "")
    assert aws.looked["broad-000019"] == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"rings":{"canary":1}}',
        b"7" * 5000,
        b'{"format":1,"rings":{}' + b" " * PREFLIGHT_BYTES + b"}",
    ],
    ids=["empty", "list", "open", "bytes", "nested", "shape", "digits", "large"],
)
def test_whatever_lies_there_it_is_found_out_anew(body: bytes) -> None:
    aws = Registry({"canary": 20})
    aws.crowded = {"canary-000011": 9}
    aws.objects[NAMES.keys.preflight] = body
    assert named(aws.run(3)) == {"canary-000011": Obstacle.GROUPS}


def test_of_two_runs_at_once_one_counts_and_nobody_is_left_out() -> None:
    aws = Registry({"canary": 50})
    aws.crowded = {"canary-000030": 9}
    is_other_running = False

    def overtake(_number: int, name: str, effect: Effect) -> Any:
        nonlocal is_other_running
        if name == "put_object" and not is_other_running:
            is_other_running = True
            aws.inspector().work(aws.release)
            is_other_running = False
        return effect()

    aws.fault = overtake
    aws.run(6)
    assert set(aws.looked) == set(aws.rings["canary"])
    assert named(aws.known()) == {"canary-000030": Obstacle.GROUPS}


def test_a_write_that_is_lost_costs_one_run() -> None:
    aws = Registry({"canary": 50})
    aws.fault = lambda number, name, effect: _lose(name, effect) if number < 40 else effect()
    with pytest.raises(type(refusal("x", "y"))):
        aws.run()
    aws.run(10)
    assert set(aws.looked) == set(aws.rings["canary"])


def _lose(name: str, effect: Effect) -> Any:
    if name == "put_object":
        raise refusal("SlowDown", name)
    return effect()


# A deployment that changes rings


def test_after_a_deployment_the_new_rings_are_looked_at_and_the_old_ones_forgotten() -> None:
    aws = Registry({"canary": 300, "broad": 40})
    aws.crowded = {"canary-000001": 9, "broad-000001": 9}
    aws.run(3)
    aws.rings["early"] = [f"early-{n:06}" for n in range(10)]
    del aws.rings["canary"]
    aws.release = ["early", "broad"]
    aws.run(6)
    known = aws.known()
    assert list(known.rings) == ["broad", "early"], "as they are stored"
    assert named(known) == {"broad-000001": Obstacle.GROUPS}
    assert aws.looked["early-000009"] == 1


def test_rings_that_the_release_does_not_name_are_looked_at_too() -> None:
    aws = Registry({"canary": 10, "broad": 10})
    aws.release = []
    aws.run(3)
    assert len(aws.looked) == 20


def test_the_page_of_limits_says_how_long_a_pass_takes() -> None:
    row = next(
        row
        for row in (ROOT / "docs/limits.md").read_text().splitlines()
        if row.startswith("| looking for devices that could not go back |")
    )
    assert f"{LOOKED_A_RUN} devices a minute" in row
    for devices, told, hours in (
        ("10,000", "17 hours", 17),
        ("100,000", "seven days", 7 * 24),
        ("1,000,000", "70 days", 70 * 24),
    ):
        assert re.search(rf"over {devices} (takes )?{told}", row)
        taken = int(devices.replace(",", "")) / LOOKED_A_RUN / 60
        assert taken == pytest.approx(hours, rel=0.02)


def test_a_device_that_was_cut_off_is_found_no_more() -> None:
    """It has no policy and no ring: nobody is to mend that."""
    registry = Registry({"canary": 3})
    thing = registry.rings["canary"][0]
    registry.bare = {thing}
    assert registry.run().describe()["named"] == {thing: "no-policy"}
    registry.cut_off = {thing}
    registry.rings["canary"].remove(thing)
    registry.now += RECHECK_SECONDS
    assert registry.run().describe() == {}
