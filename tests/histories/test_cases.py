"""What must go right where it once went wrong: each case step by step, on the nasty AWS, through
the controller's real entry. What is asked is what a user can see: jobs, devices, alarms, words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from rollout.names import ROLLBACK
from rollout.release import Abort, AlarmGate, FailureLimit, Gate, Window
from tests.histories.nasty_aws import AwsCall, CallEffect, Killed, said_no
from tests.histories.nasty_iot import Weather
from tests.histories.oracle import Oracle
from tests.histories.scripts import finish
from tests.histories.stage import (
    FACTORY,
    FIELD_ALARM,
    STACK,
    Stage,
    claims_of,
    has_order,
    image_digest,
)

QUICK = Gate(soak_minutes=1.0, success_percent=90.0)
HELD_BY_ALARM = Gate(soak_minutes=1.0, success_percent=90.0, alarms=(AlarmGate(name=FIELD_ALARM),))
NO_BRAKE = (Abort(on="FAILED", percent=100.0, minimum=1_000_000),)
PASSED: WeakKeyDictionary[Stage, set[str]] = WeakKeyDictionary()
"""By stage: rings that passed the release of its test; state.json keeps the last ten decisions."""
HALVES = (("canary", 50.0), ("broad", 50.0))
NEEDS_APPROVAL = Gate(soak_minutes=1.0, success_percent=90.0, approval=True)


def slow(stage: Stage, ring: str, seconds: float = 600.0) -> None:
    """The devices of a ring take so long to install."""
    for device in stage.in_ring(ring):
        device.seconds = seconds


def fast(stage: Stage) -> None:
    for device in stage.present():
        device.seconds = 30.0


def out(stage: Stage, ring: str, version: str) -> None:
    """Minutes pass until the release is offered to the ring and its devices have begun."""
    stage.until(
        lambda: version in stage.live(ring) and bool(stage.jobs(ring, live=True)[-1].in_progress),
        60,
    )


def jobs_of(stage: Stage, version: str, ring: str | None = None) -> list[str]:
    """Ids of the jobs ever seen that offer a version."""
    return [job.id for job in stage.jobs(ring) if claims_of(job).get("version") == version]


def offers(stage: Stage, version: str) -> set[str]:
    """Rings in which a live job offers a version."""
    return {
        (STACK.split_job(job.id) or ("",))[0]
        for job in stage.jobs(live=True)
        if claims_of(job).get("version") == version
    }


def unproved(stage: Stage, version: str) -> set[str]:
    """Rings to which a live job offers a version that it has not proved there."""
    passed = PASSED.setdefault(stage, set())
    for event in stage.state["decisions"]:
        if event["what"] == "passed" and event.get("version") == version:
            passed.add(event["ring"])
    return offers(stage, version) - passed


def quietly(stage: Stage, count: int, every: float = 60.0) -> None:
    """Minutes in which no run raises anything."""
    for _ in range(round(count * 60 / every)):
        stage.tick(every)
        run = stage.run()
        assert run.error is None, f"a run raised {run.error!r}"


# The stack file changes while a release is out


def test_a_ring_that_is_out_is_judged_though_another_was_put_before_it() -> None:
    stage = Stage(seed=1, devices=40)
    slow(stage, "early")
    stage.release("1.1.0", ail="bad", on="early")
    out(stage, "early", "1.1.0")
    stage.change(
        rings=(("canary", 20.0), ("pilot", 5.0), ("early", 25.0), ("broad", 50.0)),
        gates={"pilot": NEEDS_APPROVAL},
    )
    stage.until(lambda: image_digest("1.1.0") in stage.refused(), 30)
    stage.until(lambda: stage.versions() == {"1.0.0"}, 60)


def test_no_second_ring_starts_because_rings_change_places() -> None:
    stage = Stage(seed=2, devices=40)
    slow(stage, "canary")
    stage.release("1.1.0")
    out(stage, "canary", "1.1.0")
    stage.change(rings=(("early", 30.0), ("canary", 20.0), ("broad", 50.0)))
    for _ in range(5):
        quietly(stage, 1)
        assert offers(stage, "1.1.0") == {"canary"}
    fast(stage)
    stage.until(lambda: stage.last_good == "1.1.0", 120)


def test_devices_of_a_ring_that_is_gone_go_back_with_the_others() -> None:
    stage = Stage(seed=3, devices=40)
    slow(stage, "early")
    stage.release("1.1.0", ail="bad", on="early")
    out(stage, "early", "1.1.0")
    assert stage.versions("canary") == {"1.1.0"}
    stage.change(rings=(("early", 50.0), ("broad", 50.0)))
    quietly(stage, 30)
    assert image_digest("1.1.0") in stage.refused()
    stage.until(lambda: stage.versions() == {"1.0.0"}, 60)
    assert not stage.iot.metric("RollbackFailed")


def test_a_ring_that_is_out_may_be_removed_and_put_back() -> None:
    stage = Stage(seed=4, devices=40)
    slow(stage, "canary")
    stage.release("1.1.0")
    out(stage, "canary", "1.1.0")
    stage.change(rings=(("early", 50.0), ("broad", 50.0)))
    quietly(stage, 1)
    stage.change(rings=(("canary", 20.0), ("early", 30.0), ("broad", 50.0)))
    fast(stage)
    for _ in range(90):
        quietly(stage, 1)
        assert stage.waiting != "halted", stage.show()
        assert len(unproved(stage, "1.1.0")) <= 1, "two rings unproved at once"
    assert stage.last_good == "1.1.0"
    assert stage.versions() == {"1.1.0"}


def test_other_rings_with_a_release_that_cannot_be_taken_stop_nothing() -> None:
    stage = Stage(seed=5, devices=40)
    slow(stage, "canary")
    stage.release("1.1.0")
    out(stage, "canary", "1.1.0")
    stage.release("0.5.0", rings=(("alpha", 50.0), ("omega", 50.0)))
    quietly(stage, 30)
    assert stage.is_loud
    fast(stage)
    stage.release("1.2.0")
    quietly(stage, 60)
    assert stage.last_good == "1.2.0", stage.show()
    assert stage.versions() == {"1.2.0"}


def test_a_deployment_that_stopped_half_way_keeps_nobody_from_going_back() -> None:
    stage = Stage(seed=6, devices=40)
    slow(stage, "early")
    stage.release("1.1.0", ail="bad", on="early")
    out(stage, "early", "1.1.0")
    stage.change(rings=(("early", 50.0), ("broad", 50.0)), stop_early=True)
    quietly(stage, 60)
    assert image_digest("1.1.0") in stage.refused()
    assert stage.versions() == {"1.0.0"}, stage.show()


def test_two_releases_reverted_at_once_take_every_ring_back_to_the_last_good_one() -> None:
    stage = Stage(seed=7, devices=40)
    stage.redden()
    stage.release("2.0.0", gates={"early": HELD_BY_ALARM})
    stage.until(lambda: stage.versions("canary") == {"2.0.0"} and stage.waiting == "alarms", 30)
    stage.release("3.0.0", gate=HELD_BY_ALARM)
    quietly(stage, 3)
    stage.revert(2)
    stage.until(lambda: stage.versions() == {"1.0.0"} and stage.waiting == "nothing", 90)
    assert not stage.is_loud
    assert stage.refused() == set()


def test_the_last_good_image_under_a_new_version_is_no_candidate() -> None:
    stage = Stage(seed=8, devices=40)
    stage.release("1.1.0", image="1.0.0", ail="bad")
    for _ in range(30):
        quietly(stage, 1)
        assert image_digest("1.0.0") not in stage.refused()
        assert offers(stage, "1.1.0") == set()
    stage.release("1.2.0")
    stage.until(lambda: stage.versions() == {"1.2.0"}, 90)


# Ways back


def test_the_way_back_has_its_image_though_one_image_lies_there_under_two_versions() -> None:
    stage = Stage(seed=35, devices=40)
    slow(stage, "early", 300.0)
    stage.release("1.1.0", ail="silent")
    out(stage, "early", "1.1.0")
    stage.release("1.2.0", image="1.0.0")
    stage.until(lambda: stage.versions() == {"1.0.0"}, 60)
    assert not any(job.counts["FAILED"] for job in stage.jobs())


def test_a_release_without_a_way_back_is_offered_no_more_once_it_failed() -> None:
    stage = Stage(seed=9, devices=40)
    stage.release("1.1.0", ail="bad", on="early", rollback="forbidden")
    stage.until(lambda: image_digest("1.1.0") in stage.refused(), 60)
    quietly(stage, 2)
    assert offers(stage, "1.1.0") == set()
    stage.join_device("7000001")
    stage.join_device("7000002")
    quietly(stage, 20)
    assert {stage.devices[STACK.thing(s)].version for s in ("7000001", "7000002")} & {
        "1.1.0"
    } == set()
    assert stage.is_loud


def test_the_first_release_ever_is_offered_no_more_once_it_failed() -> None:
    stage = Stage(seed=9, devices=40, first=None)
    stage.release("1.0.0", ail="bad", on="early")
    stage.until(lambda: image_digest("1.0.0") in stage.refused(), 60)
    quietly(stage, 2)
    assert offers(stage, "1.0.0") == set()
    assert stage.is_loud


def test_an_order_takes_back_a_release_that_was_superseded_a_minute_ago() -> None:
    stage = Stage(seed=10, devices=40)
    slow(stage, "early")
    stage.release("1.1.0", ail="silent")
    out(stage, "early", "1.1.0")
    digest = image_digest("1.1.0")
    stage.release("1.2.0", gate=NEEDS_APPROVAL)
    quietly(stage, 1)
    stage.roll_back(digest)
    quietly(stage, 2)
    assert digest in stage.refused()
    assert offers(stage, "1.1.0") == set()
    stage.until(lambda: "1.1.0" not in stage.versions(), 90)


def test_an_order_against_the_last_good_release_is_obeyed_at_once_or_never() -> None:
    stage = Stage(seed=11, devices=40)
    stage.release("1.1.0")
    stage.until(lambda: stage.last_good == "1.1.0", 90)
    digest = image_digest("1.1.0")
    slow(stage, "canary", 300.0)
    stage.release("1.2.0", ail="bad")
    stage.roll_back(digest)
    quietly(stage, 2)
    was_refused = digest in stage.refused()
    for _ in range(90):
        quietly(stage, 1)
        assert (digest in stage.refused()) == was_refused, "an old order was obeyed later"
    stage.resume()
    stage.release("1.3.0", ail="bad")
    quietly(stage, 90)
    assert image_digest("1.3.0") in stage.refused(), stage.show()
    assert "1.3.0" not in stage.versions()
    if was_refused:
        assert "1.1.0" not in stage.versions()


def test_a_good_release_whose_jobs_somebody_ended_is_taken_back_under_the_halt() -> None:
    stage = Stage(seed=40, devices=20, rings=HALVES)
    stage.release("1.1.0", ail="silent")
    stage.until(lambda: stage.last_good == "1.1.0", 60)
    for job in stage.jobs(live=True):
        stage.iot.cancel(job, None)
    quietly(stage, 3)
    assert stage.waiting == "halted"
    stage.roll_back()
    quietly(stage, 30)
    assert stage.waiting == "halted"
    assert stage.versions() == {"1.0.0"}


def test_whoever_begins_a_bad_release_while_its_cancel_takes_hours_comes_back() -> None:
    watched = Gate(alarms=(AlarmGate(name=FIELD_ALARM, action="rollback"),), soak_minutes=600.0)
    stage = Stage(
        seed=12, devices=2500, rings=(("broad", 100.0),), weather=Weather(cancel_per_minute=20.0)
    )
    stage.release("1.1.0", ail="silent", gate=watched)
    stage.go_offline(0.8, seed=1)
    stage.minutes(20)
    stage.redden()
    quietly(stage, 5)
    assert image_digest("1.1.0") in stage.refused()
    for number in range(12):
        for device in stage.present()[number::12]:
            device.is_online = True
        quietly(stage, 10, every=300.0)
    stage.until(lambda: stage.versions() == {"1.0.0"}, 600, every=300.0)
    assert not stage.iot.metric("RollbackFailed")


def test_a_device_that_rejects_the_way_back_stays_an_open_case() -> None:
    stage = Stage(seed=13, devices=40)
    slow(stage, "early")
    stage.release("1.1.0", ail="silent")
    out(stage, "early", "1.1.0")
    lost = stage.in_ring("canary")[0]
    lost.hardware = "other"
    stage.roll_back()
    quietly(stage, 75)
    assert stage.versions() == {"1.0.0", "1.1.0"}
    assert stage.iot.metric("RollbackFailed")
    fast(stage)
    stage.release("1.2.0")
    stage.until(lambda: stage.last_good == "1.2.0", 120)
    quietly(stage, 10)
    assert lost.version == "1.1.0"
    assert stage.iot.metric("RollbackFailed"), "its exposure was forgotten"
    if has_order("waived"):
        stage.waive(lost.name)
        quietly(stage, 10)
        assert not stage.is_loud


def test_a_device_that_died_keeps_no_way_back_open() -> None:
    stage = Stage(seed=14, devices=40)
    slow(stage, "early")
    stage.release("1.1.0", ail="silent")
    out(stage, "early", "1.1.0")
    dead = stage.in_ring("canary")[0]
    dead.is_online = False
    stage.roll_back()
    quietly(stage, 10)
    stage.iot.delete_thing(dead.name)
    quietly(stage, 80)
    assert not stage.iot.metric("RollbackFailed"), stage.show()
    fast(stage)
    stage.release("1.2.0")
    stage.until(lambda: stage.versions() == {"1.2.0"}, 120)


def test_a_silent_device_is_loud_and_does_not_block_the_next_release() -> None:
    stage = Stage(seed=14, devices=60)
    slow(stage, "early")
    stage.release("1.1.0", ail="silent")
    out(stage, "early", "1.1.0")
    silent = stage.in_ring("canary")[0]
    silent.is_online = False
    stage.roll_back()
    quietly(stage, 80)
    assert stage.iot.metric("RollbackFailed")
    fast(stage)
    stage.release("1.2.0", gate=Gate(soak_minutes=1.0, coverage_percent=80.0))
    stage.until(lambda: stage.last_good == "1.2.0", 120)


def test_whom_a_deleted_job_exposed_is_not_forgotten() -> None:
    stage = Stage(seed=15, devices=40)
    stage.release("1.1.0", ail="silent", gate=NEEDS_APPROVAL)
    stage.until(lambda: stage.versions("canary") == {"1.1.0"}, 30)
    quietly(stage, 2)
    (job,) = (job for job in stage.jobs("canary", live=True) if job.id in jobs_of(stage, "1.1.0"))
    stage.iot.do_delete_job(jobId=job.id, force=True)
    quietly(stage, 5)
    stage.roll_back(image_digest("1.1.0"))
    stage.until(lambda: stage.versions() == {"1.0.0"}, 120)


def test_whom_a_job_exposed_that_was_deleted_in_mid_update_is_not_forgotten() -> None:
    stage = Stage(seed=38, devices=40)
    slow(stage, "canary")
    stage.release("1.1.0", ail="silent")
    out(stage, "canary", "1.1.0")
    quietly(stage, 2)
    stage.pause()
    stage.release("1.2.0")
    quietly(stage, 1)
    stage.iot.do_delete_job(jobId=jobs_of(stage, "1.1.0")[-1], force=True)
    stage.run()
    quietly(stage, 15)
    assert stage.versions("canary") == {"1.1.0"}
    stage.revert(back=2)
    stage.resume()
    stage.until(lambda: stage.versions() == {"1.0.0"}, 120)


@pytest.mark.parametrize("is_forced", [False, True])
def test_a_job_ended_in_mid_update_is_no_evidence_of_those_that_had_yet_to_answer(
    is_forced: bool,
) -> None:
    stage = Stage(seed=39, devices=40, rings=(("broad", 100.0),))
    things = sorted(stage.devices)
    for thing in things[4:]:
        stage.devices[thing].seconds = 900.0
    for thing in things[:4]:
        stage.devices[thing].seconds = 30.0
    gate = Gate(soak_minutes=1.0, failure_limit=FailureLimit(percent=10.0))
    stage.release("1.1.0", gate=gate)
    stage.strike(image_digest("1.1.0"), "bad", frozenset(things[:4]))
    stage.until(lambda: stage.jobs("broad", live=True)[-1].counts["FAILED"] == 4, 10)
    job = stage.jobs("broad", live=True)[-1]
    if is_forced:
        stage.iot.cancel(job, "BY_HAND", force=True)
        quietly(stage, 2)
    stage.iot.do_delete_job(jobId=job.id, force=True)
    stage.run()
    quietly(stage, 3)
    assert job.id not in stage.iot.jobs
    assert not stage.refused()
    assert stage.find_halt()


def test_a_deleted_job_of_a_ring_that_is_gone_does_not_wait_in_silence() -> None:
    stage = Stage(seed=37, devices=20, rings=HALVES)
    stage.release("1.1.0", ail="silent", gate=NEEDS_APPROVAL)
    stage.until(lambda: stage.versions("canary") == {"1.1.0"}, 30)
    stage.iot.do_delete_job(jobId=jobs_of(stage, "1.1.0")[-1], force=True)
    stage.change(rings=(("early", 50.0), ("broad", 50.0)))
    stage.tick(300)
    stage.roll_back(image_digest("1.1.0"))
    quietly(stage, 5)
    stage.resume()
    quietly(stage, 120)
    assert stage.waiting == "nothing" or stage.is_loud, stage.show()
    assert stage.versions() == {"1.0.0"} or stage.is_loud, stage.show()


def test_one_device_in_ten_groups_keeps_nobody_else_from_going_back() -> None:
    stage = Stage(seed=16, devices=40)
    stage.release("1.1.0", ail="silent", gate=NEEDS_APPROVAL)
    stage.until(lambda: stage.versions("canary") == {"1.1.0"}, 30)
    stuck = stage.in_ring("canary")[0]
    stage.fill_groups(stage.present().index(stuck))
    stage.roll_back()
    quietly(stage, 90)
    assert [d.name for d in stage.present() if d.version == "1.1.0"] == [stuck.name]
    assert stage.iot.metric("RollbackFailed")
    stage.empty_groups()
    stage.until(lambda: stage.versions() == {"1.0.0"}, 180)


@pytest.mark.parametrize("is_earlier", [True, False])
def test_a_way_back_goes_on_whatever_job_somebody_cancels(is_earlier: bool) -> None:
    stage = Stage(seed=17, devices=40)
    stage.release("1.1.0", ail="silent", gate=NEEDS_APPROVAL)
    stage.until(lambda: stage.versions("canary") == {"1.1.0"}, 30)
    slow(stage, "canary", 900.0)
    (keeps,) = stage.jobs("broad", live=True)
    if is_earlier:
        stage.iot.cancel(keeps, "TIDYING_UP")
    stage.roll_back()
    quietly(stage, 2)
    if not is_earlier:
        stage.iot.cancel(keeps, "TIDYING_UP")
    quietly(stage, 60)
    assert stage.versions() == {"1.0.0"}, stage.show()


def test_a_ring_that_can_neither_pass_nor_fail_calls_a_person_at_once() -> None:
    gate = Gate(success_percent=95.0, failure_limit=FailureLimit(percent=10.0))
    stage = Stage(seed=18, devices=50, rings=(("canary", 100.0),))
    stage.release("1.1.0", gate=gate)
    digest = image_digest("1.1.0")
    unlucky = frozenset(device.name for device in stage.present()[:3])
    stage.strike(digest, "bad", unlucky)
    stage.until(lambda: stage.versions() == {"1.0.0", "1.1.0"} and not stage.is_busy, 30)
    job = stage.jobs("canary")[-1]
    assert (job.counts["FAILED"], job.counts["SUCCEEDED"]) == (3, 47)
    quietly(stage, 3)
    assert digest not in stage.refused()
    assert stage.is_loud, stage.show()


def late_failures(failing: int) -> Stage:
    """A ring of 40 passes on half of its devices; later so many of the others come and fail."""
    loose = Gate(coverage_percent=50.0, success_percent=80.0)
    stage = Stage(seed=19, devices=80, rings=HALVES)
    sleepers = stage.in_ring("canary")[:failing]
    for device in sleepers:
        device.is_online = False
    slow(stage, "broad", 1500.0)
    stage.release("1.1.0", gate=loose)
    stage.strike(image_digest("1.1.0"), "bad", frozenset(d.name for d in sleepers))
    out(stage, "broad", "1.1.0")
    stage.come_online()
    return stage


def test_failures_after_a_ring_has_passed_stop_the_release_when_they_are_evidence() -> None:
    stage = late_failures(19)
    stage.until(lambda: image_digest("1.1.0") in stage.refused(), 15)
    stage.until(lambda: stage.versions() == {"1.0.0"}, 90)


def test_failures_after_a_ring_has_passed_are_told_when_they_are_no_evidence() -> None:
    stage = late_failures(6)
    quietly(stage, 10)
    assert image_digest("1.1.0") not in stage.refused()
    assert stage.iot.rung & {"Held", "ReleaseFailed", "RollbackFailed"}, stage.show()


# Orders and halts


def test_devices_that_fail_while_a_halt_stands_are_judged() -> None:
    stage = Stage(seed=20, devices=40)
    slow(stage, "canary")
    stage.release("1.1.0", ail="bad")
    out(stage, "canary", "1.1.0")
    stage.halt()
    quietly(stage, 20)
    stage.resume()
    quietly(stage, 10)
    assert image_digest("1.1.0") in stage.refused(), stage.show()
    assert len(jobs_of(stage, "1.1.0")) == 1


def shut_pause(stage: Stage) -> None:
    stage.pause()


def shut_image(stage: Stage) -> None:
    stage.lose_image(for_good=True)


def shut_alarm(stage: Stage) -> None:
    stage.redden()


def shut_window(stage: Stage) -> None:
    stage.change(window=Window(cron="0 0 1 1 *", minutes=1))


def shut_manifest(stage: Stage) -> None:
    stage.change(paused=False, in_progress_timeout_minutes=77, stop_early=True)


@pytest.mark.parametrize("shut", [shut_pause, shut_image, shut_alarm, shut_window, shut_manifest])
def test_a_retry_goes_through_the_same_door_as_every_start(shut: Callable[[Stage], None]) -> None:
    stage = Stage(seed=21, devices=40)
    slow(stage, "canary", 3000.0)
    stage.release("1.1.0", gate=HELD_BY_ALARM)
    out(stage, "canary", "1.1.0")
    shut(stage)
    quietly(stage, 2)
    stage.retry("canary")
    quietly(stage, 5)
    assert len(jobs_of(stage, "1.1.0")) == 1, "it started though the door was shut"


def test_an_image_that_is_gone_for_a_while_condemns_nothing() -> None:
    stage = Stage(seed=22, devices=40)
    stage.release("1.1.0")
    out(stage, "canary", "1.1.0")
    stage.lose_image()
    stage.retry("canary")
    quietly(stage, 20)
    assert image_digest("1.1.0") not in stage.refused(), stage.show()
    stage.restore_images()
    quietly(stage, 2)
    if stage.last_good != "1.1.0":
        stage.resume()
        stage.retry("canary")
    stage.until(lambda: stage.last_good == "1.1.0", 120)


def test_an_image_that_somebody_changed_condemns_nothing() -> None:
    stage = Stage(seed=22, devices=40)
    stage.release("1.1.0")
    out(stage, "canary", "1.1.0")
    stage.overwrite_image()
    quietly(stage, 30)
    assert image_digest("1.1.0") not in stage.refused(), stage.show()


def test_an_id_is_never_used_twice() -> None:
    stage = Stage(seed=23, devices=20, rings=HALVES)
    stage.release("1.1.0")
    made: list[str] = []

    def die_after_create(call: AwsCall, effect: CallEffect) -> Any:
        answer = effect()
        if call.operation == "CreateJob":
            made.append(call.parameters["jobId"])
            raise Killed
        return answer

    stage.run(die_after_create)
    (job,) = made
    stage.iot.do_delete_job(jobId=job, force=True)
    stage.tick(300)
    assert job not in stage.iot.jobs
    quietly(stage, 5)
    assert stage.iot.ids_ever[job] == 1, "the id of a deleted job was taken again"


def test_a_job_that_somebody_deleted_is_a_halt() -> None:
    stage = Stage(seed=36, devices=20, rings=HALVES)
    stage.release("1.1.0")
    stage.run()
    (job,) = jobs_of(stage, "1.1.0")
    stage.iot.do_delete_job(jobId=job, force=True)
    stage.tick(300)
    quietly(stage, 3)
    assert stage.iot.ids_ever[job] == 1
    assert jobs_of(stage, "1.1.0") == []
    assert stage.waiting == "halted", stage.show()
    assert stage.is_loud


def test_a_stack_that_was_destroyed_goes_on_when_it_is_up_again() -> None:
    stage = Stage(seed=24, devices=40)
    slow(stage, "canary")
    stage.release("1.1.0")
    out(stage, "canary", "1.1.0")
    stage.destroy()
    assert stage.jobs(live=True) == []
    stage.tick(1200)
    fast(stage)
    stage.up()
    for _ in range(90):
        quietly(stage, 1)
        assert stage.waiting != "halted", stage.show()
    assert stage.last_good == "1.1.0"
    assert stage.versions() == {"1.1.0"}


# Runs that overlap


def test_a_job_made_with_a_lost_answer_does_not_outlive_its_release() -> None:
    stage = Stage(seed=25, devices=20, rings=HALVES)
    stage.release("1.1.0")

    def overtaken(call: AwsCall, effect: CallEffect) -> Any:
        if call.operation == "CreateJob" and "1.2.0" not in seen:
            seen.append("1.2.0")
            stage.release("1.2.0")
            stage.run()  # it no longer wants this job, which is not there yet
            effect()  # made, and the answer is lost: botocore asks again
            raise said_no("ResourceAlreadyExistsException", "CreateJob")
        return effect()

    seen: list[str] = []
    stage.run(overtaken)
    assert seen
    assert offers(stage, "1.1.0") == set()


def test_a_manifest_that_was_replaced_while_a_run_read_is_not_offered() -> None:
    stage = Stage(seed=26, devices=20, rings=HALVES)
    stage.release("1.1.0")

    def overtaken(call: AwsCall, effect: CallEffect) -> Any:
        is_state = call.parameters.get("Key") == STACK.keys.state
        if call.operation == "GetObject" and is_state and not seen:
            seen.append("1.2.0")
            stage.release("1.2.0")
            stage.run()
        return effect()

    seen: list[str] = []
    stage.run(overtaken)
    assert seen
    assert offers(stage, "1.1.0") == set()
    quietly(stage, 2)
    assert jobs_of(stage, "1.1.0") == []
    assert offers(stage, "1.2.0") == {"canary"}


def test_of_two_runs_that_recover_a_forged_state_one_wins() -> None:
    place = 0
    while True:
        stage = Stage(seed=27, devices=6, rings=(("canary", 100.0),))
        stage.release("1.1.0", gate=NEEDS_APPROVAL)
        stage.minutes(5)
        stage.forge_state()
        stage.minutes(1)
        stage.resume()
        stage.tick(60)
        reached: list[int] = []

        def overtaken(call: AwsCall, effect: CallEffect) -> Any:
            if call.number == place and not reached:  # noqa: B023 (called in this turn only)
                reached.append(place)  # noqa: B023
                stage.iot.now += 5  # noqa: B023
                stage.run()  # noqa: B023
            return effect()

        stage.run(overtaken)
        if not reached:
            break
        stage.tick(60)
        stage.run()
        known = str(stage.state)
        for job in stage.jobs(live=True):
            sequence = (STACK.split_job(job.id) or ("", 0))[1]
            assert str(sequence) in known, f"overtaken at call {place}: nobody knows {job.id}"
        place += 1
    assert place > 5


def test_an_older_state_that_is_put_back_is_noticed_and_no_soak_is_won_by_it() -> None:
    gate = Gate(coverage_percent=100.0, success_percent=100.0, soak_minutes=10.0)
    stage = Stage(seed=28, devices=20, rings=HALVES)
    fast(stage)
    stage.release("1.1.0", gate=gate)
    stage.until(lambda: stage.waiting == "soak", 20)
    healthy = len(stage.iot.objects[STACK.keys.state])
    began = stage.now
    stage.minutes(2)
    serial = next(str(n) for n in range(800, 900) if stage.ring_of_serial(str(n)) == "canary")
    stage.join_device(serial, 240.0)
    stage.until(lambda: len(stage.iot.objects[STACK.keys.state]) > healthy, 5)
    stage.until(lambda: stage.devices[STACK.thing(serial)].version == "1.1.0", 15)
    mended = stage.now
    back = len(stage.iot.objects[STACK.keys.state]) - healthy
    stage.replay_state(back)
    while stage.now < mended + 9 * 60:
        stage.minutes(1)
        assert "1.1.0" not in stage.live("broad"), f"passed {stage.now - began:.0f} s after"
    assert stage.is_loud, "the replay was not noticed"


def test_a_ring_does_not_pass_on_counts_that_iot_has_not_made_yet() -> None:
    stage = Stage(
        seed=29,
        devices=40,
        weather=Weather(blind=300.0),
        gate=Gate(soak_minutes=0.0, success_percent=90.0),
    )
    for ring in ("canary", "early", "broad"):
        slow(stage, ring, 900.0)
    stage.release("1.1.0")
    stage.approve("canary")
    for _ in range(30):
        stage.tick(20)
        stage.run()
        assert offers(stage, "1.1.0") <= {"canary"}, stage.show()


# What AWS does that nobody documents


@pytest.mark.parametrize("reason", [None, "NOT_WANTED", "OPERATOR_HALT", "ABORTED"])
def test_what_iots_own_brake_stopped_is_judged_by_its_counts(reason: str | None) -> None:
    stage = Stage(seed=30, devices=60)
    slow(stage, "canary", 150.0)
    stage.release("1.1.0", ail="bad", abort=NO_BRAKE)
    out(stage, "canary", "1.1.0")
    stage.tick(300)
    stage.iot.cancel(stage.jobs("canary")[-1], reason)
    stage.tick(60)
    quietly(stage, 40)
    assert image_digest("1.1.0") in stage.refused(), stage.show()
    assert stage.versions() == {"1.0.0"}


@pytest.mark.parametrize("reason", [None, "NOT_WANTED", "STACK_DESTROYED", "TIDYING_UP"])
def test_a_job_that_somebody_cancelled_is_a_halt_whatever_the_reason(reason: str | None) -> None:
    stage = Stage(seed=31, devices=40)
    slow(stage, "canary")
    stage.release("1.1.0")
    out(stage, "canary", "1.1.0")
    stage.iot.cancel(stage.jobs("canary")[-1], reason)
    quietly(stage, 3)
    assert stage.waiting == "halted", stage.show()
    assert stage.is_loud
    fast(stage)
    stage.resume()
    stage.until(lambda: stage.last_good == "1.1.0", 120)


def test_a_job_that_the_adversary_made_neither_halts_nor_counts() -> None:
    stage = Stage(seed=32, devices=20)
    sequence = stage.state["sequence"]
    for number, forged in enumerate((2**63, int(stage.now) + 3600, sequence + 1)):
        stage.forge_job("canary", forged, of=None if number else -1)
    stage.forge_job("nowhere", sequence + 2, of=-1)
    quietly(stage, 5)
    assert stage.waiting != "halted", stage.show()
    assert not [job for job in stage.iot.jobs.values() if job.id in stage.forged and job.is_live]
    stage.release("1.1.0")
    stage.until(lambda: stage.last_good == "1.1.0", 90)
    assert stage.state["sequence"] < stage.now + 1000


def test_a_lost_state_keeps_what_signed_documents_prove() -> None:
    stage = Stage(seed=33, devices=40)
    stage.release("1.1.0", ail="bad")
    stage.until(lambda: image_digest("1.1.0") in stage.refused(), 30)
    stage.until(lambda: stage.versions() == {"1.0.0"}, 60)
    before = stage.state["sequence"]
    stage.lose_state()
    quietly(stage, 2)
    assert stage.is_loud
    stage.resume()
    quietly(stage, 30)
    assert image_digest("1.1.0") in stage.refused()
    assert len(jobs_of(stage, "1.1.0")) == 1, "a refused release is offered again"
    assert stage.versions() == {"1.0.0"}
    assert stage.state["sequence"] >= before


def test_the_first_up_without_devices_alarms_nobody() -> None:
    stage = Stage(seed=34, devices=0, first=None)
    stage.release("1.0.0")
    quietly(stage, 30)
    assert not stage.is_loud, stage.show()
    assert stage.last_good is None


def test_a_bad_first_release_goes_back_to_what_the_fleet_ran() -> None:
    stage = Stage(seed=35, devices=40, first=None, adopts=True, watch=Oracle)
    stage.release("1.0.0", ail="bad", share=0.7)
    stage.until(lambda: image_digest("1.0.0") in stage.refused(), 90)
    assert "1.0.0" in stage.versions()
    stage.until(lambda: stage.versions() == {FACTORY}, 60)
    assert offers(stage, FACTORY) <= {ROLLBACK}, "no ring is given it"
    finish(stage)
