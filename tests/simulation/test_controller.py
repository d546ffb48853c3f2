"""The controller against AWS that answers badly: every call in turn fails, loses its answer, or is
overtaken by another run."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jwt
import pytest
from botocore.exceptions import ReadTimeoutError

from cloud.bucket import ImageCheck
from cloud.clients import Clients
from cloud.cut_off import CutOff, Holding
from functions import controller as module
from functions.controller import Controller, Setup
from rollout.codec import canonical_json
from rollout.job_document import parse_statement
from rollout.names import FOREIGN_A_RUN
from rollout.observed import Alarm, Counts
from rollout.orders import Order
from rollout.release import AlarmGate, Manifest
from rollout.state import Offer, Phase
from tests.fake_aws import Effect, no_fault, refusal
from tests.simulation.test_decide import GATE, manifest
from tests.simulation.world import NAMES, SimJob, World, firmware
from tests.simulation.world_aws import KEY, OTHER_KEY, WorldAws, WorldClock

STATE = NAMES.keys.state
ORDER = {"by": "alice", "at": 0.0, "why": "a test"}


@pytest.fixture
def aws() -> WorldAws:
    """A fleet of 30 on 1.1.0, its last good release, brought there by the controller itself."""
    fake = WorldAws(World(manifest("1.1.0"), 30))
    run(fake, 25)
    assert fake.world.versions() == {"1.1.0"}
    return fake


def once(fake: WorldAws) -> dict[str, Any]:
    return fake.controller().run(fake.world.now)


def run(fake: WorldAws, minutes: int) -> dict[str, Any]:
    for _ in range(minutes):
        once(fake)
        fake.world.tick()
    return once(fake)


def release(fake: WorldAws, new: Manifest) -> None:
    fake.world.manifest = new
    fake.publish(new)


# What it does when nothing goes wrong


def test_it_offers_a_signed_release_ring_by_ring(aws: WorldAws) -> None:
    release(aws, manifest("1.2.0"))
    assert once(aws)["outcome"] == "done"
    sequence = aws.state["sequence"]
    job = NAMES.job("canary", sequence)
    claims = parse_statement(aws.documents[job]["release"])
    assert (str(claims.version), claims.sequence, claims.downgrade) == (
        "1.2.0",
        sequence,
        False,
    )
    key = firmware("1.2.0").key
    version = aws.objects.version(key)
    assert aws.documents[job]["url"].endswith(
        f".s3.us-east-1.amazonaws.com/{key}%3FversionId%3D{version}}}"
    ), "an image that is put there later reaches nobody"
    run(aws, 25)
    assert aws.world.versions() == {"1.2.0"}


def test_an_idle_minute_writes_nothing_and_signs_nothing(aws: WorldAws) -> None:
    aws.made.clear()
    assert once(aws)["did"] == []
    assert not {"put_object", "sign", "create_job", "cancel_job", "update_job"} & set(aws.made)
    assert len(aws.made) < 20, f"a minute of doing nothing costs {len(aws.made)} calls"


def test_releases_that_were_superseded_cost_no_calls(aws: WorldAws) -> None:
    release(aws, manifest("1.2.0", gate=replace(GATE, soak_minutes=600)))
    run(aws, 5)
    aws.made.clear()
    once(aws)
    before, state = len(aws.made), aws.channel().state()
    assert state is not None
    left = [
        Offer(
            ring="broad",
            sequence=number,
            firmware=firmware(f"1.1.{number}"),
            aim="prove",
            phase=Phase.ENDED,
            made_at=0.0,
            seen=True,
            final=Counts(succeeded=1),
        )
        for number in range(1, 1000)
    ]
    aws.write_state(replace(state.state, offers=(*left, *state.state.offers)))
    aws.made.clear()
    assert once(aws)["outcome"] == "done"
    assert len(aws.state["offers"]) > 1000, "whom they exposed is not forgotten"
    assert len(aws.made) <= before + 2, "the state is written once more"


def test_every_run_gives_a_heartbeat_and_counts(aws: WorldAws) -> None:
    assert aws.metric("Heartbeat") == 1
    assert aws.metric("ReleaseFailed") == aws.metric("Held") == aws.metric("ManifestRefused") == 0
    ring = [d for d in aws.metrics if d["Dimensions"][-1] == {"Name": "Ring", "Value": "canary"}]
    assert {d["MetricName"]: d["Value"] for d in ring}["DevicesSucceeded"] == len(
        aws.world.in_ring("canary")
    )


def test_the_alarms_of_the_stack_are_found_by_their_short_names(aws: WorldAws) -> None:
    gate = replace(
        GATE, alarms=(AlarmGate(name="stack:controller-errors"), AlarmGate(name="shop-errors"))
    )
    release(aws, manifest("1.2.0", gate=gate))
    aws.world.alarms = {
        "iot-fleet-0123abcd-controller-errors": Alarm(state="OK", since=0),
        "shop-errors": Alarm(state="ALARM", since=0),
    }
    assert "shop-errors" in run(aws, 5)["waiting"]
    aws.world.alarms["shop-errors"] = Alarm(state="OK", since=0)
    run(aws, 25)
    assert aws.world.versions() == {"1.2.0"}


# What it refuses


def test_a_manifest_that_was_not_announced_is_refused_and_nothing_is_signed(aws: WorldAws) -> None:
    announced = aws.digest
    release(aws, manifest("1.2.0"))
    aws.digest = announced
    aws.made.clear()
    run(aws, 5)
    assert "create_job" not in aws.made
    assert aws.metric("ManifestRefused") == 1


@pytest.mark.parametrize("image", [None, b"tampered"])
def test_an_image_that_is_missing_or_another_is_not_released(
    aws: WorldAws, image: bytes | None
) -> None:
    release(aws, manifest("1.2.0"))
    del aws.objects[firmware("1.2.0").key]
    if image:
        aws.objects[firmware("1.2.0").key] = image
    assert run(aws, 5)["kind"] == "image"
    assert aws.metric("ManifestRefused") == 1
    assert aws.world.versions() == {"1.1.0"}


def test_an_image_is_checked_as_the_version_that_a_job_names(aws: WorldAws) -> None:
    good = firmware("1.1.0")
    bucket, version = aws.channel().bucket, aws.objects.version(good.key)
    assert bucket.check_image(good) == ImageCheck(problem=None, version=version)
    aws.objects[good.key] = b"tampered"
    now = bucket.check_image(good)
    assert now.problem
    assert "another SHA-256" in now.problem
    assert now.version != version
    assert bucket.check_image(good, version) == ImageCheck(problem=None, version=version)
    del aws.objects[good.key]
    assert bucket.check_image(good).version is None
    assert bucket.check_image(good, version).problem is None
    gone = bucket.check_image(good, "v0").problem
    assert gone
    assert gone.endswith("(version v0) is missing")


def test_no_release_starts_without_a_way_back(aws: WorldAws) -> None:
    aws.objects.lose(firmware("1.1.0").key)
    release(aws, manifest("1.2.0"))
    assert "no way back" in run(aws, 5)["waiting"]
    assert aws.world.versions() == {"1.1.0"}


def forged(state: dict[str, Any]) -> None:
    state["lastGood"]["sha256"] = "f" * 64


def replayed(state: dict[str, Any]) -> None:
    state["sequence"] += 1


@pytest.mark.parametrize("change", [forged, replayed])
def test_a_state_that_somebody_changed_is_not_believed(
    aws: WorldAws, change: Callable[[dict[str, Any]], None]
) -> None:
    document = json.loads(aws.objects[STATE])
    change(document["state"])
    aws.objects[STATE] = json.dumps(document).encode()
    expect_standstill(aws, "invalid-")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"state": {}, "jws": "a.b.c"}',
        b'{"state": {}, "jws": 1}',
        b"\xff",
    ],
)
def test_a_state_that_cannot_be_read_is_not_believed(aws: WorldAws, body: bytes) -> None:
    aws.objects[STATE] = body
    expect_standstill(aws, "invalid-")


def test_a_lost_state_starts_nothing(aws: WorldAws) -> None:
    aws.objects.lose(STATE)
    expect_standstill(aws, "lost-")


def test_a_deleted_state_starts_nothing_though_no_job_is_left(aws: WorldAws) -> None:
    del aws.objects[STATE]
    aws.world.deleted |= set(aws.world.jobs)
    release(aws, manifest("1.5.0"))
    assert run(aws, 5)["halt"].startswith("lost-v")
    assert aws.world.versions() == {"1.1.0"}


def test_an_old_state_whose_successors_are_gone_starts_nothing(aws: WorldAws) -> None:
    keep, old = list(aws.objects.versions[STATE]), aws.objects[STATE]
    release(aws, manifest("1.2.0"))
    run(aws, 25)
    aws.objects[STATE] = old
    aws.objects.versions[STATE] = keep
    expect_standstill(aws, "older-")


def test_an_old_state_put_back_starts_nothing(aws: WorldAws) -> None:
    old = aws.objects[STATE]
    release(aws, manifest("1.2.0"))
    run(aws, 25)
    aws.objects[STATE] = old
    expect_standstill(aws, "replayed-")


def test_an_old_state_of_the_same_sequence_put_back_starts_nothing(aws: WorldAws) -> None:
    """A soak that broke since would count as unbroken."""
    release(aws, manifest("1.2.0"))
    once(aws)
    early, sequence = aws.objects[STATE], aws.state["sequence"]
    while aws.state["waiting"]["kind"] != "soak":
        aws.world.tick()
        once(aws)
    assert aws.state["sequence"] == sequence
    assert aws.objects[STATE] != early
    aws.objects[STATE] = early
    expect_standstill(aws, "replayed-")


def test_what_earlier_states_and_signed_jobs_prove_outlives_a_lost_state(aws: WorldAws) -> None:
    aws.world.bad = {"1.2.0"}
    release(aws, manifest("1.2.0"))
    run(aws, 25)
    refused, sequence = refused_digests(aws), aws.state["sequence"]
    assert refused
    aws.objects[STATE] = b"{}"
    aws.objects[STATE] = b'{"state": {}, "jws": "a..b"}'
    answer = once(aws)
    assert answer["outcome"] == "distrusted"
    aws.write_orders(resume={"halt": answer["halt"], "order": ORDER})
    once(aws)
    assert refused_digests(aws) == refused
    assert aws.state["sequence"] >= sequence
    assert aws.state["lastGood"]["version"] == "1.1.0"
    run(aws, 25)
    assert aws.world.versions() == {"1.1.0"}, "what was refused is not offered again"


def test_a_state_is_recovered_only_in_place_of_the_one_that_was_distrusted(aws: WorldAws) -> None:
    aws.objects[STATE] = b"{}"
    halt = once(aws)["halt"]
    aws.write_orders(resume={"halt": halt, "order": ORDER})

    def other_run_first(_number: int, name: str, effect: Callable[[], Any]) -> Any:
        if name == "put_object" and not calls:
            calls.append(name)
            aws.fault = no_fault
            assert once(aws)["outcome"] == "done"
            aws.fault = other_run_first
        return effect()

    calls: list[str] = []
    aws.fault = other_run_first
    assert once(aws)["outcome"] == "lost", "the faster run's state stands"
    assert once(aws)["outcome"] == "done"


# Jobs under the channel's name that others made


def refused_digests(aws: WorldAws) -> set[str]:
    return {sha for sha, one in aws.state["releases"].items() if one["standing"] == "refused"}


def forge(aws: WorldAws, job: str, document: str = "{}") -> None:
    """Somebody makes a job for the canary."""
    original = next(iter(aws.world.jobs.values()))
    aws.world.jobs[job] = SimJob(original.offer, None, None)
    aws.documents[job] = json.loads(document)


FORGED = {
    "a number that no clock reaches": lambda aws: (NAMES.job("canary", 2**63), "{}"),
    "an hour ahead": lambda aws: (NAMES.job("canary", int(aws.world.now) + 3600), "{}"),
    "an unknown ring": lambda aws: (NAMES.job("attic", 1_999_999_999), "{}"),
    "no number": lambda aws: (f"{NAMES.job_prefix}canary", "{}"),
    "a number written otherwise": lambda aws: (f"{NAMES.job_prefix}canary-0001999999999", "{}"),
    "brackets": lambda aws: (NAMES.job("canary", 1_999_999_999), "[]"),
    "a document signed for another job": lambda aws: (
        NAMES.job("canary", 1_999_999_999),
        aws.sign_document(NAMES.job("canary", 1_999_999_998)),
    ),
    "a document signed for another ring": lambda aws: (
        NAMES.job("early", 1_999_999_999),
        aws.sign_document(NAMES.job("canary", 1_999_999_999)),
    ),
    "another channel's document": lambda aws: (
        NAMES.job("canary", 1_999_999_999),
        aws.sign_document(NAMES.job("canary", 1_999_999_999), channel="beta"),
    ),
}


@pytest.mark.parametrize("make", FORGED.values(), ids=FORGED)
def test_a_job_that_somebody_forged_is_cancelled_and_leaves_no_trace(
    aws: WorldAws, make: Callable[[WorldAws], tuple[str, str]]
) -> None:
    job, document = make(aws)
    forge(aws, job, document)
    sequence = aws.state["sequence"]
    assert aws.channel().unknown_jobs([job], ()).foreign == {job}
    answer = once(aws)
    assert (answer["outcome"], answer["foreign"]) == ("done", [job])
    assert aws.metric("Forged") == 1
    assert aws.world.jobs[job].status == "CANCELED"
    assert aws.state["sequence"] == sequence
    release(aws, manifest("1.2.0"))
    run(aws, 25)
    assert aws.world.versions() == {"1.2.0"}
    assert aws.state["sequence"] < 1_999_999_998


def test_a_flood_of_forged_jobs_is_worked_off(aws: WorldAws) -> None:
    for number in range(3 * FOREIGN_A_RUN):
        forge(aws, NAMES.job("canary", 2**62 + number))
    aws.made.clear()
    assert once(aws)["outcome"] == "done"
    assert aws.made.count("get_job_document") == FOREIGN_A_RUN
    run(aws, 3)
    assert max(NAMES.job_sequence(job) or 0 for job in aws.channel().jobs.live()) < 2**61


def test_a_signed_job_is_the_channels_own(aws: WorldAws) -> None:
    live = aws.channel().jobs.live()
    assert live
    assert not aws.channel().unknown_jobs(live, ()).foreign
    assert all(aws.channel().is_ours(job) for job in live)
    assert not aws.channel().is_ours(NAMES.job("canary", 5)), "there is no such job"


def test_a_state_that_the_key_before_signed_is_believed_while_that_key_is_known(
    aws: WorldAws,
) -> None:
    release(aws, manifest("1.2.0"))
    aws.keys = [OTHER_KEY, KEY]
    assert once(aws)["outcome"] == "done"
    assert (
        jwt.get_unverified_header(
            aws.documents[NAMES.job("canary", aws.state["sequence"])]["release"]
        )["kid"]
        == OTHER_KEY
    )
    aws.keys = [OTHER_KEY]
    run(aws, 25)
    assert aws.world.versions() == {"1.2.0"}
    aws.keys = [KEY]
    assert once(aws)["outcome"] == "distrusted", "signed by a key that is no longer the channel's"


def expect_standstill(aws: WorldAws, halt: str) -> None:
    """Nothing is made, cancelled or written until a person resumes by name; then a new release
    finds its way."""
    release(aws, manifest("1.5.0"))
    aws.made.clear()
    answer = run(aws, 5)
    assert answer["outcome"] == "distrusted"
    assert answer["halt"].startswith(halt)
    assert not {"put_object", "create_job", "cancel_job", "update_job", "delete_thing_group"} & set(
        aws.made
    )
    assert aws.metric("Held") == aws.metric("Heartbeat") == aws.metric("ManifestRefused") == 1
    aws.write_orders(resume={"halt": "lost-1", "order": ORDER})
    assert run(aws, 2)["outcome"] == "distrusted", "the word for another halt counts for nothing"
    highest = max(d.sequence for d in aws.world.devices.values())
    aws.write_orders(resume={"halt": answer["halt"], "order": ORDER})
    run(aws, 30)
    assert aws.world.versions() == {"1.5.0"}
    assert aws.state["sequence"] > highest, "devices would refuse a sequence that they have seen"


def test_an_unreadable_control_file_is_a_halt(aws: WorldAws) -> None:
    release(aws, manifest("1.2.0"))
    aws.objects["channels/stable/control.json"] = b"pause!"
    assert run(aws, 5)["kind"] == "halted"
    assert aws.world.versions() == {"1.1.0"}


# A way back for each device by itself


def exposed_in_canary(aws: WorldAws) -> list[str]:
    """Runs a release that is bad on every device until it is stopped; whom it exposed."""
    aws.world.bad = {"1.2.0"}
    release(aws, manifest("1.2.0"))
    while not aws.world.groups:
        aws.world.tick()
        once(aws)
    return sorted(device.name for device in aws.world.in_ring("canary"))


@pytest.mark.parametrize("code", ["AccessDeniedException", "InvalidRequestException"])
def test_a_device_that_cannot_join_the_way_back_is_told_and_keeps_nobody_from_it(
    aws: WorldAws, code: str
) -> None:
    stuck = sorted(device.name for device in aws.world.in_ring("canary"))[0]
    aws.refused = {stuck: code}
    exposed = exposed_in_canary(aws)
    answer = once(aws)
    assert answer["unplaced"] == {stuck: code}, "named in the log"
    assert aws.metric("RollbackFailed") == 1, "and alarmed at once"
    run(aws, 10)
    (members,) = aws.world.groups.values()
    assert members == set(exposed) - {stuck}, "everybody else is on the way back"
    assert any("-rollback-" in name for name in aws.world.jobs), "which has its job"
    run(aws, 70)
    assert aws.state["waiting"]["kind"] == "rollback-failed", "an hour later a person is needed"
    aws.refused = {}
    run(aws, 4 * 60)
    assert aws.state["wayBack"].get("doneAt"), "and the rollback ends when the device is mended"
    assert aws.metric("RollbackFailed") == 0


def test_a_device_that_is_gone_ends_its_exposure(aws: WorldAws) -> None:
    gone = exposed_in_canary(aws)[0]
    del aws.world.devices[gone]
    for members in aws.world.groups.values():
        members.discard(gone)
    answer = run(aws, 20)
    assert answer["unplaced"] == {}
    assert aws.metric("RollbackFailed") == 0
    assert aws.state["wayBack"].get("doneAt"), "nothing is left of it to be brought back"


def test_a_device_that_is_cut_off_is_not_waited_for_and_joins_no_way_back(aws: WorldAws) -> None:
    exposed = exposed_in_canary(aws)
    thief = exposed[0]
    record = CutOff(thing=thief, order=Order(by="olga", at=0.0, why="stolen"), held=Holding())
    aws.objects[NAMES.keys.quarantined(thief)] = canonical_json(record).encode()
    for members in aws.world.groups.values():
        members.discard(thief)
    aws.world.devices[thief].online = False
    run(aws, 20)
    assert thief not in {name for members in aws.world.groups.values() for name in members}
    assert aws.metric("RollbackFailed") == 0
    assert aws.state["wayBack"].get("doneAt"), "the others are back"


def test_who_may_not_look_a_device_up_takes_it_for_one_that_is_there(aws: WorldAws) -> None:
    stuck = sorted(device.name for device in aws.world.in_ring("canary"))[0]
    aws.refused = {stuck: "InvalidRequestException"}
    exposed = exposed_in_canary(aws)
    aws.denied = {"DescribeThing"}
    assert run(aws, 5)["outcome"] == "done"
    (members,) = aws.world.groups.values()
    assert members == set(exposed) - {stuck}
    assert aws.metric("RollbackFailed") == 1


def test_an_action_that_aws_refuses_keeps_no_other_from_being_done(aws: WorldAws) -> None:
    aws.world.bad_on = {"1.2.0": {device.name for device in aws.world.in_ring("early")}}
    release(aws, manifest("1.2.0"))
    aws.denied = {"CreateThingGroup"}  # the way back of the exposed cannot be made
    for _ in range(20):
        aws.world.tick()
        answer = once(aws)
        if answer["outcome"] == "failed":
            break
    assert any("CreateThingGroup" in text for text in answer["failed"])
    assert any("cancelled" in text for text in answer["did"]), "the bad release is stopped"
    assert any("created" in text for text in answer["did"]), "whole rings are on their way back"
    assert aws.metric("Heartbeat") == 1
    aws.denied = set()
    run(aws, 25)
    assert aws.world.versions() == {"1.1.0"}


def test_a_run_that_could_not_do_everything_is_a_failed_invocation(
    monkeypatch: pytest.MonkeyPatch, aws: WorldAws
) -> None:
    monkeypatch.setattr(Setup, "from_environment", lambda _env: aws.setup())
    monkeypatch.setattr(module, "clients", lambda: Clients(aws.connect))
    release(aws, manifest("1.2.0"))
    aws.denied = {"CreateJob"}
    with pytest.raises(RuntimeError, match=r"not everything could be done: Create: .*CreateJob"):
        module.handler({"source": "aws.events"}, None)


# The stack goes away


def test_destroy_ends_jobs_and_rollback_groups_and_leaves_other_stacks_alone(aws: WorldAws) -> None:
    aws.world.bad = {"1.2.0"}
    release(aws, manifest("1.2.0"))
    while not aws.world.groups:
        run(aws, 1)
    answer = aws.controller().end()
    assert all(job.status == "CANCELED" for job in aws.world.jobs.values())
    assert not aws.world.groups
    assert not any(job.startswith("ffffffff") for job in answer["jobs"])


def from_stack(action: str) -> dict[str, Any]:
    """As the provider says it: what the call before was given stands beside the action."""
    return {"tf": {"action": action, "prev_input": {} if action == "delete" else None}}


def respond(aws: WorldAws, event: Any) -> dict[str, Any]:
    return module.respond(event, aws.controller())


def test_create_and_update_of_the_stack_wake_nobody(aws: WorldAws) -> None:
    aws.made.clear()
    assert respond(aws, from_stack("create")) == {"outcome": "deployed"}
    assert respond(aws, from_stack("update")) == {"outcome": "deployed"}
    assert aws.made == []


def test_where_the_tick_is_gone_a_destroy_ends_the_jobs_at_once(aws: WorldAws) -> None:
    aws.rules.clear()
    aws.made.clear()
    assert respond(aws, from_stack("delete"))["outcome"] == "ended"
    assert aws.made.count("describe_rule") == 1
    assert aws.jobs()
    assert all(job.status == "CANCELED" for job in aws.jobs().values())


def test_a_destroy_waits_until_the_tick_is_gone(aws: WorldAws) -> None:
    def go_late(_number: int, name: str, effect: Effect) -> Any:
        if name == "describe_rule" and aws.made.count(name) == 5:
            aws.rules.clear()
        return effect()

    aws.made.clear()
    aws.fault, clock = go_late, WorldClock(aws.world)
    controller = Controller(aws.setup(), Clients(aws.connect), clock=clock)
    assert module.respond(from_stack("delete"), controller)["outcome"] == "ended"
    assert clock.time() == aws.world.now + 20


@pytest.mark.parametrize(
    ("more_things", "more_targets", "said"),
    [
        (2, 0, "2 in its thing groups, and 0 certificates have the policy"),
        (0, 3, "0 in its thing groups, and 3 certificates have the policy"),
        (-1, 1, "0 in its thing groups, and 1 certificates have the policy"),
    ],
)
def test_a_stack_that_others_devices_use_does_not_go(
    aws: WorldAws, more_things: int, more_targets: int, said: str
) -> None:
    """AWS would refuse to delete what they hold, and the stack would be half gone."""
    things = len(aws.world.devices)
    aws.declared = things - more_things
    aws.policy_targets = [f"cert/{n}" for n in range(aws.declared + more_targets)]
    aws.rules.clear()
    with pytest.raises(RuntimeError, match=f"{said}.*`python -m ops drain`"):
        respond(aws, from_stack("delete"))
    assert all(job.status == "IN_PROGRESS" for job in aws.jobs().values()), "nothing was ended"


def test_a_stack_goes_with_the_devices_that_it_declares(aws: WorldAws) -> None:
    aws.declared = len(aws.world.devices)
    aws.policy_targets = [f"cert/{n}" for n in range(aws.declared)]
    aws.rules.clear()
    assert respond(aws, from_stack("delete"))["outcome"] == "ended"


def test_of_very_many_devices_not_all_are_counted(
    monkeypatch: pytest.MonkeyPatch, aws: WorldAws
) -> None:
    monkeypatch.setattr(module, "MAX_COUNTED", 5)
    aws.declared, aws.policy_targets = 0, []
    aws.rules.clear()
    with pytest.raises(RuntimeError, match="at least 5 in its thing groups"):
        respond(aws, from_stack("delete"))


LEFT = "pilot"
"""A ring that is in the settings no more."""


def ring_leaves(aws: WorldAws, ring: str = LEFT) -> dict[str, Any]:
    event = from_stack("delete") | {"ring": ring}
    return respond(aws, event)


def test_a_ring_leaves_when_nobody_is_in_its_group(aws: WorldAws) -> None:
    assert respond(aws, from_stack("create") | {"ring": LEFT}) == {"outcome": "deployed"}
    aws.made.clear()
    assert ring_leaves(aws) == {"outcome": "left"}
    assert aws.made == ["list_things_in_thing_group"]


def test_a_ring_does_not_leave_with_devices_in_its_group(aws: WorldAws) -> None:
    aws.world.devices["d0001"].ring = LEFT
    clock = WorldClock(aws.world)
    controller = Controller(aws.setup(), Clients(aws.connect), clock=clock)
    with pytest.raises(RuntimeError, match=r"group .*-pilot there are still d0001: put them into"):
        module.respond(from_stack("delete") | {"ring": LEFT}, controller)
    assert clock.time() == aws.world.now + 20, "so long AWS may list whom the stack has just moved"
    assert any(job.status == "IN_PROGRESS" for job in aws.jobs().values())


def test_only_a_few_of_the_devices_in_the_way_are_named(
    monkeypatch: pytest.MonkeyPatch, aws: WorldAws
) -> None:
    monkeypatch.setattr(module, "MAX_NAMED", 1)
    aws.world.devices["d0001"].ring = aws.world.devices["d0002"].ring = LEFT
    with pytest.raises(RuntimeError, match="still d0001 and others: put"):
        ring_leaves(aws)


def test_a_ring_waits_for_whom_the_stack_has_just_moved(aws: WorldAws) -> None:
    device = aws.world.devices["d0001"]
    home, device.ring = device.ring, LEFT

    def move_late(_number: int, name: str, effect: Effect) -> Any:
        if aws.made.count(name) == 3:
            device.ring = home
        return effect()

    aws.made.clear()
    aws.fault = move_late
    assert ring_leaves(aws) == {"outcome": "left"}
    assert aws.made == ["list_things_in_thing_group"] * 3


def test_where_the_whole_stack_goes_a_ring_goes_with_it(aws: WorldAws) -> None:
    """Its function knows the ring still. Whoever else may call it learns nothing, and breaks
    nothing."""
    aws.made.clear()
    for ring in aws.setup().ring_groups:
        assert ring_leaves(aws, ring) == {"outcome": "left"}
    assert aws.made == []


@pytest.mark.parametrize(
    "error",
    [
        None,
        refusal("AccessDeniedException", "DescribeRule"),
        refusal("ThrottlingException", "DescribeRule"),
        refusal("InternalException", "DescribeRule"),
        refusal("NoSuchKey", "DescribeRule"),
        refusal("404", "DescribeRule"),
        ReadTimeoutError(endpoint_url="https://events.us-east-1.amazonaws.com"),
    ],
)
def test_a_destroy_while_the_tick_may_be_there_does_nothing_and_is_told(
    aws: WorldAws, error: Exception | None
) -> None:
    def fail(_number: int, name: str, effect: Effect) -> Any:
        if name == "describe_rule" and error:
            raise error
        return effect()

    aws.fault = fail
    aws.made.clear()
    assert respond(aws, from_stack("delete"))["outcome"] == "forged"
    assert aws.made == [*["describe_rule"] * 5, "put_metric_data"]
    assert aws.metric("Forged") == 1


def test_a_change_of_the_stack_that_is_no_destroy_does_nothing_even_without_a_tick(
    aws: WorldAws,
) -> None:
    aws.rules.clear()
    aws.made.clear()
    changes: list[Any] = [None, 5, "delete", [], ["delete"], {}, {"action": None}, {"action": {}}]
    for change in changes:
        assert respond(aws, {"tf": change}) == {"outcome": "deployed"}
    assert aws.made == []


@pytest.mark.parametrize("event", [None, [], "delete", 5, {}, {"action": "delete"}])
def test_any_other_event_is_a_reason_to_look(aws: WorldAws, event: Any) -> None:
    assert respond(aws, event)["outcome"] == "done"


def end(aws: WorldAws) -> dict[str, Any]:
    return aws.controller().end()


def test_the_state_says_that_the_stack_ends_before_its_jobs_do(aws: WorldAws) -> None:
    aws.made.clear()
    answer = end(aws)
    assert (answer["outcome"], answer["failed"]) == ("ended", [])
    assert aws.state["ended"]
    assert aws.made.index("put_object") < aws.made.index("cancel_job")
    aws.made.clear()
    assert "forgotten" not in end(aws)
    assert "put_object" not in aws.made, "it says so already"


def test_a_stack_that_is_made_again_over_what_was_kept_goes_on(aws: WorldAws) -> None:
    release(aws, manifest("1.2.0"))
    once(aws)
    end(aws)
    answer = once(aws)
    assert (answer["outcome"], answer["kind"]) != ("done", "halted")
    run(aws, 25)
    assert aws.world.versions() == {"1.2.0"}
    assert not aws.state["ended"]


@pytest.mark.parametrize(
    "break_it",
    [
        lambda aws: aws.objects.update({STATE: b"[" * 100_000}),
        lambda aws: aws.objects.pop(STATE),
        lambda aws: aws.denied.add("GetObject"),
        lambda aws: aws.denied.add("PutObject"),
        lambda aws: aws.denied.add("Sign"),
    ],
)
def test_jobs_end_with_the_stack_though_the_state_cannot_say_so(
    aws: WorldAws, break_it: Callable[[WorldAws], Any]
) -> None:
    break_it(aws)
    answer = end(aws)
    assert answer["forgotten"]
    assert all(job.status == "CANCELED" for job in aws.world.jobs.values())


def test_a_job_that_cannot_be_ended_keeps_no_other_from_it_and_fails_the_destroy(
    aws: WorldAws,
) -> None:
    def refuse_first(_number: int, name: str, effect: Callable[[], Any]) -> Any:
        if name == "cancel_job" and not refused:
            refused.append(name)
            raise refusal("ThrottlingException", "CancelJob")
        return effect()

    refused: list[str] = []
    aws.fault = refuse_first
    aws.rules.clear()
    with pytest.raises(RuntimeError, match="not everything could be done"):
        respond(aws, from_stack("delete"))
    assert len(aws.channel().jobs.live()) == 1


# Faults at every call

Fault = Callable[[str, Callable[[], Any]], Any]


class Killed(BaseException):
    """The function was killed: nothing after this call happens."""


def killed_before(_name: str, _effect: Callable[[], Any]) -> Any:
    raise Killed


def killed_after(_name: str, effect: Callable[[], Any]) -> Any:
    effect()
    raise Killed


def throttled(name: str, _effect: Callable[[], Any]) -> Any:
    raise refusal("ThrottlingException", name)


def denied(name: str, _effect: Callable[[], Any]) -> Any:
    raise refusal("AccessDeniedException", name)


def answer_lost(_name: str, effect: Callable[[], Any]) -> Any:
    effect()
    raise ReadTimeoutError(endpoint_url="https://iot.us-east-1.amazonaws.com")


def overtaken(fake: WorldAws) -> Fault:
    """Another run does all its work just before this call."""

    def fault(_name: str, effect: Callable[[], Any]) -> Any:
        mine, fake.fault = fake.fault, no_fault
        once(fake)
        fake.fault = mine
        return effect()

    return fault


def good(fake: WorldAws) -> None:
    release(fake, manifest("1.2.0"))


def bad(fake: WorldAws) -> None:
    fake.world.bad_on = {"1.2.0": {d.name for d in fake.world.in_ring("early")}}
    release(fake, manifest("1.2.0"))


STORIES: dict[str, tuple[Callable[[WorldAws], None], set[str]]] = {
    "good": (good, {"1.2.0"}),
    "bad": (bad, {"1.1.0"}),
}
FAULTS: list[tuple[str, Callable[[WorldAws], Fault]]] = [
    *(
        (fault.__name__, lambda _fake, f=fault: f)
        for fault in (killed_before, killed_after, throttled, denied, answer_lost)
    ),
    ("overtaken", overtaken),
]


LOOKS = {
    "get_object",
    "get_job_document",
    "head_object",
    "list_object_versions",
    "verify",
    "list_jobs",
    "describe_job",
    "list_thing_groups",
    "list_things_in_thing_group",
    "list_job_executions_for_job",
    "describe_alarms",
}


def snapshot(fake: WorldAws) -> WorldAws:
    return copy.deepcopy(fake, {id(key): key for key in fake.private_keys.values()})


def moments(story: str) -> Iterator[tuple[WorldAws, list[int]]]:
    """The minutes of a story in which the controller does something, and the numbers of the calls
    to put at fault.

    A look that fails before anything was done leaves the run without effect in any minute, so those
    are tried in one.
    """
    fake = WorldAws(World(manifest("1.1.0"), 14))
    run(fake, 25)
    STORIES[story][0](fake)
    first = True
    for _ in range(25):
        before = snapshot(fake)
        fake.made.clear()
        once(fake)
        deeds = [
            number
            for number, name in enumerate(fake.made)
            if name not in LOOKS and name != "put_metric_data"
        ]
        if deeds:
            start = 0 if first else deeds[0]
            # of the same call many times over, the first and the last
            names = [None, *fake.made, None]
            ends = [n for n in range(len(fake.made)) if len(set(names[n : n + 3])) > 1]
            yield before, [number for number in ends if number >= start]
            first = False
        fake.world.tick()


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize(("name", "make"), FAULTS)
def test_a_fault_at_any_call_ends_where_no_fault_would_have(
    story: str, name: str, make: Callable[[WorldAws], Fault]
) -> None:
    versions, tried = STORIES[story][1], 0
    for before, calls in moments(story):
        for call in calls:
            fake = snapshot(before)
            struck = faulty_run(fake, make(fake), call)
            settle(fake)
            where = f"{name} at call {call}, {struck}"
            assert struck, where
            assert fake.world.versions() == versions, where
            assert fake.state["waiting"]["kind"] in ("nothing", "refused"), where
            live = [
                job.offer.ring for job in fake.world.jobs.values() if job.status == "IN_PROGRESS"
            ]
            assert len(set(live)) == len(live), f"one live job a ring, but {live}: {where}"
            tried += 1
    assert tried > 40


def settle(fake: WorldAws) -> None:
    """Minutes pass until the controller has nothing left to do, 40 at most."""
    for _ in range(40):
        fake.world.tick()
        answer = once(fake)
        if answer["kind"] in ("nothing", "refused") and answer["did"] == []:
            return


def faulty_run(fake: WorldAws, fault: Fault, at: int) -> str | None:
    """One run with the fault at its call number `at`; the name of the call that was struck."""
    fake.made.clear()
    struck: list[str] = []

    def around(number: int, name: str, effect: Callable[[], Any]) -> Any:
        if number != at or struck:
            return effect()
        struck.append(name)
        return fault(name, effect)

    fake.fault = around
    try:
        once(fake)
    except (Killed, Exception):
        assert struck, "a run fails only where it was made to fail"
    fake.fault = no_fault
    return struck[0] if struck else None


# Who could not go back


def test_a_device_that_could_not_go_back_is_named_in_the_log_before_it_must(aws: WorldAws) -> None:
    stuck = aws.world.in_ring("canary")[0].name
    aws.refused = {stuck: "InvalidRequestException"}
    del aws.objects[NAMES.keys.preflight]
    answer = run(aws, len(aws.world.devices))
    assert answer["outcome"] == "done"
    assert answer["preflight"] == {"found": 1, "named": {stuck: "ten-groups"}}
    assert aws.metric("Held") == 0, "no alarm of its own"


def test_nothing_is_looked_at_while_devices_are_on_their_way_back(aws: WorldAws) -> None:
    aws.refused = dict.fromkeys(aws.world.devices, "InvalidRequestException")
    aws.world.bad = {"1.2.0"}
    release(aws, manifest("1.2.0"))
    run(aws, 10)
    assert aws.state["wayBack"]
    del aws.objects[NAMES.keys.preflight]
    aws.made.clear()
    assert once(aws)["preflight"] == {}
    assert not {"list_thing_principals", "list_thing_groups_for_thing"} & set(aws.made)


@pytest.mark.parametrize("call", ["list_thing_principals", "put_object", "get_object"])
def test_a_look_ahead_that_fails_fails_no_run(aws: WorldAws, call: str) -> None:
    """The bucket refuses this one object: the role has not been deployed yet."""
    del aws.objects[NAMES.keys.preflight]
    before = aws.fault

    def refuse(number: int, name: str, effect: Effect) -> Any:
        if name == call and aws.made.count("put_metric_data") > 0:
            raise refusal("AccessDeniedException", name)
        return before(number, name, effect)

    aws.made.clear()
    aws.fault = refuse
    answer = once(aws)
    assert (answer["outcome"], answer["failed"]) == ("done", [])
    assert "AccessDeniedException" in answer["preflight"]["problems"][0]


def test_a_ring_whose_group_is_gone_stops_nothing_else(aws: WorldAws) -> None:
    """A job cannot be made, and then the function is deployed without its ring, the manifest not
    yet."""
    aws.denied = {"CreateJob"}
    release(aws, manifest("1.2.0"))
    once(aws)
    aws.denied = set()
    setup = aws.setup()
    groups = {ring: arn for ring, arn in setup.ring_groups.items() if ring != "canary"}
    aws.world.tick()
    for _ in range(3):
        controller = Controller(replace(setup, ring_groups=groups), Clients(aws.connect))
        answer = controller.run(aws.world.now)
        assert (answer["outcome"], answer["kind"]) == ("done", "refused")
        assert "no thing group" in answer["waiting"]
        assert aws.metric("Heartbeat") == aws.metric("Held") == 1
        aws.world.tick()
    run(aws, 25)
    assert aws.world.versions() == {"1.2.0"}, "the deployment that follows mends it"


def test_a_job_that_aws_does_not_show_keeps_no_other_from_being_judged(aws: WorldAws) -> None:
    release(aws, manifest("1.2.0"))
    once(aws)
    kept = next(name for name in aws.world.jobs if "-broad-" in name)

    def hide(_number: int, name: str, effect: Callable[[], Any]) -> Any:
        if name == "describe_job":
            answer = effect()
            if answer["job"].get("jobId", kept) == kept and hidden:
                hidden.pop()
                raise refusal("ThrottlingException", "DescribeJob")
            return answer
        return effect()

    hidden = [1]
    aws.fault = hide
    answer = once(aws)
    assert answer["outcome"] == "failed", "it is told"
    assert "DescribeJob" in answer["failed"][0]
    assert aws.state.get("halt") is None, "what is not shown was not ended"
    aws.fault = no_fault
    run(aws, 25)
    assert aws.world.versions() == {"1.2.0"}


def test_orders_against_digests_that_nobody_released_do_not_fill_the_memory(aws: WorldAws) -> None:
    known = set(aws.state["releases"])
    for number in range(20):
        order = {**ORDER, "at": float(number)}
        aws.write_orders(rollback={"sha256": f"{number:064x}", "order": order})
        once(aws)
    assert set(aws.state["releases"]) == known
    assert aws.state["decisions"][-1]["what"] == "order-refused"


def test_a_run_that_others_write_over_again_and_again_gives_way(aws: WorldAws) -> None:
    def write_first(_number: int, name: str, effect: Effect) -> Any:
        if name == "list_object_versions":
            mine, aws.fault = aws.fault, no_fault
            stored = aws.channel().state()
            assert stored is not None
            aws.write_state(stored.state)
            aws.fault = mine
        return effect()

    aws.fault = write_first
    assert once(aws)["outcome"] == "lost"
    aws.fault = no_fault
    assert once(aws)["outcome"] == "done"
