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

from cloud.clients import Clients
from functions import controller as module
from functions.controller import Controller, Setup
from rollout.job_document import parse_statement
from rollout.observed import Alarm
from rollout.release import AlarmGate, Manifest
from tests.fake_aws import no_fault, refusal
from tests.simulation.test_decide import GATE, manifest
from tests.simulation.world import NAMES, World, firmware
from tests.simulation.world_aws import KEY, OTHER_KEY, WorldAws

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
    return Controller(fake.setup(), Clients(fake.connect)).run(fake.world.now)


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
    assert aws.documents[job]["url"].endswith(
        f".s3.us-east-1.amazonaws.com/{firmware('1.2.0').key}}}"
    )
    run(aws, 25)
    assert aws.world.versions() == {"1.2.0"}


def test_an_idle_minute_writes_nothing_and_signs_nothing(aws: WorldAws) -> None:
    aws.made.clear()
    assert once(aws)["did"] == []
    assert not {"put_object", "sign", "create_job", "cancel_job", "update_job"} & set(aws.made)
    assert len(aws.made) < 20, f"a minute of doing nothing costs {len(aws.made)} calls"


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


def test_no_release_starts_without_a_way_back(aws: WorldAws) -> None:
    del aws.objects[firmware("1.1.0").key]
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
    del aws.objects[STATE]
    expect_standstill(aws, "lost-")


def test_an_old_state_put_back_starts_nothing(aws: WorldAws) -> None:
    old = aws.objects[STATE]
    release(aws, manifest("1.2.0"))
    run(aws, 25)
    aws.objects[STATE] = old
    expect_standstill(aws, "older-")


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
    run(aws, 10)
    assert aws.state["rollback"].get("doneAt"), "and the rollback ends when the device is mended"
    assert aws.metric("RollbackFailed") == 0


def test_a_device_that_is_gone_ends_its_exposure(aws: WorldAws) -> None:
    gone = exposed_in_canary(aws)[0]
    del aws.world.devices[gone]
    for members in aws.world.groups.values():
        members.discard(gone)
    answer = run(aws, 10)
    assert answer["unplaced"] == {}
    assert aws.metric("RollbackFailed") == 0
    assert aws.state["rollback"].get("doneAt"), "nothing is left of it to be brought back"


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
    run(aws, 10)
    assert aws.world.groups
    answer = Controller(aws.setup(), Clients(aws.connect)).end()
    assert all(job.status == "CANCELED" for job in aws.world.jobs.values())
    assert not aws.world.groups
    assert not any(job.startswith("ffffffff") for job in answer["jobs"])


def test_create_and_update_of_the_stack_wake_nobody(
    monkeypatch: pytest.MonkeyPatch, aws: WorldAws
) -> None:
    monkeypatch.setattr(Setup, "from_environment", lambda _env: aws.setup())
    monkeypatch.setattr(module, "clients", lambda: Clients(aws.connect))
    aws.made.clear()
    assert module.handler({"tf": {"action": "create"}}, None) == {"outcome": "deployed"}
    assert module.handler({"tf": {"action": "update"}}, None) == {"outcome": "deployed"}
    assert aws.made == []
    assert module.handler({"source": "aws.events"}, None)["outcome"] == "done"
    assert module.handler({"tf": {"action": "delete"}}, None)["outcome"] == "ended"


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
    "head_object",
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
    fake = WorldAws(World(manifest("1.1.0"), 30))
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
            yield before, list(range(0 if first else deeds[0], len(fake.made)))
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
                job.create.ring for job in fake.world.jobs.values() if job.status == "IN_PROGRESS"
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
