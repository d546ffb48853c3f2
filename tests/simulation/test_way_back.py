"""Everybody exposed comes back, however many they are and whatever AWS says of some of them."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from cloud.roster import SETTLING_SECONDS, Mark, Refusal, Sheet, sheet_of
from cloud.way_back import BUSY_SECONDS, CHECKED_A_RUN, PAGES_A_SECOND
from rollout.names import CONTROLLER_SECONDS, PLACED_A_SECOND
from rollout.observed import Returning, Source
from tests.fake_aws import Effect, refusal
from tests.simulation.slow_aws import (
    GROUP,
    NAMES,
    OWN,
    QUOTAS,
    START,
    LargeRing,
    SlowAws,
    SlowJob,
    run_ticks,
)

CANARY = Source(job=NAMES.job("canary", 1_789_000_000), ring="canary")
BROAD = Source(job=NAMES.job("broad", 1_789_000_001), ring="broad")
KEYS = NAMES.keys
RUN = CONTROLLER_SECONDS - 10.0
"""How long a run of the controller works on a way back."""


def things(count: int, prefix: str = "sensor") -> list[str]:
    return [f"{prefix}-{number:06}" for number in range(count)]


def world(count: int = 10, status: str = "SUCCEEDED") -> SlowAws:
    """A job of the canary ring that is over, and that so many devices began."""
    names = things(count)
    aws = SlowAws(names)
    aws.rings["canary"] = set(names)
    aws.jobs[CANARY.job] = SlowJob(executions=dict.fromkeys(names, status))
    return aws


def work(
    aws: SlowAws,
    *sources: Source,
    waived: Sequence[str] = (),
    cut_off: Sequence[str] = (),
    seconds: float = RUN,
    own: str = OWN,
) -> Returning:
    until, nobody = aws.clock.now + seconds, {"waived": waived, "cut_off": cut_off}
    return aws.worker().work(GROUP, sources or (CANARY,), own, aws.shown(), **nobody, until=until)


def look(aws: SlowAws, *sources: Source) -> Returning:
    return aws.worker().look(GROUP, sources or (CANARY,), OWN)


def work_on(aws: SlowAws, *sources: Source, minutes: int, every: int = 1, **more: Any) -> Returning:
    """Runs every minute, or every few, each as long as it likes."""
    end, told = aws.clock.now + 60 * minutes, Returning()
    while aws.clock.now < end:
        told = work(aws, *sources, **more)
        aws.clock.now += 60 * every
    return told


# Who is exposed


def test_who_began_comes_back_and_nobody_else() -> None:
    statuses = ["IN_PROGRESS", "SUCCEEDED", "FAILED", "TIMED_OUT"]
    others = ["QUEUED", "REJECTED", "CANCELED", "REMOVED"]
    aws = SlowAws([*statuses, *others])
    executions = {status: status for status in (*statuses, *others)}
    aws.jobs[CANARY.job] = SlowJob(executions=executions, status="IN_PROGRESS")
    told = work_on(aws, minutes=2)
    assert aws.members == set(statuses)
    assert (told.exposed, told.placed, told.back, told.is_complete) == (4, 4, 4, False)
    aws.jobs[CANARY.job].status = "CANCELED"
    del executions["QUEUED"], executions["IN_PROGRESS"]
    told = work(aws)
    assert (told.exposed, told.remaining, told.is_complete) == (4, 0, True)
    assert aws.members == set(statuses)


def test_who_had_begun_a_job_that_was_cancelled_by_force_comes_back() -> None:
    aws = world(4, "CANCELED")
    job = aws.jobs[CANARY.job]
    job.cut_off, job.forced = {"sensor-000001", "sensor-000002", "sensor-000003"}, True
    told = work(aws)
    assert aws.members == {"sensor-000001", "sensor-000002", "sensor-000003"}
    assert not told.is_complete, "no count says how many of the cancelled had begun"
    aws.clock.now += SETTLING_SECONDS
    assert work(aws).is_complete


def test_who_was_cut_off_in_mid_update_by_itself_comes_back() -> None:
    """CancelJobExecution by force: the job's own cancel was not forced."""
    aws = SlowAws(["good", "cut-off", "late"])
    executions = {"good": "SUCCEEDED", "cut-off": "CANCELED", "late": "CANCELED"}
    aws.jobs[CANARY.job] = SlowJob(executions=executions, cut_off={"cut-off"})
    assert work_on(aws, minutes=2).is_complete
    assert aws.members == {"good", "cut-off"}


def test_a_ring_whose_job_was_deleted_comes_back_as_a_whole() -> None:
    aws = world(600)
    del aws.jobs[CANARY.job]
    told = work_on(aws, minutes=2)
    assert aws.members == set(things(600))
    assert (told.exposed, told.remaining, told.is_complete) == (600, 0, True)


def test_a_job_that_is_being_deleted_counts_as_deleted() -> None:
    aws = world(3, "FAILED")
    aws.jobs[CANARY.job] = SlowJob(status="DELETION_IN_PROGRESS")
    assert work(aws).is_complete
    assert aws.members == set(things(3))


@pytest.mark.parametrize("call", range(1, 7))
def test_a_job_that_is_deleted_while_it_is_read_forgets_nobody(call: int) -> None:
    aws = world(700)
    lists = 0

    def delete(number: int, name: str, effect: Effect) -> Any:
        nonlocal lists
        if name == "list_job_executions_for_job":
            lists += 1
            if lists == call:
                aws.jobs.pop(CANARY.job, None)
        return effect()

    aws.fault = delete
    told = work(aws)
    assert aws.members == set(things(700))
    assert (told.exposed, told.is_complete) == (700, True)


def test_a_list_that_lost_somebody_to_a_deletion_is_not_believed() -> None:
    aws = world(50)
    job = aws.jobs[CANARY.job]
    job.hidden = {"sensor-000007"}
    assert not work(aws).is_complete
    aws.clock.now += SETTLING_SECONDS
    shown = aws.shown()
    job.status = "DELETION_IN_PROGRESS"
    until = aws.clock.now + RUN
    told = aws.worker().work(GROUP, (CANARY,), OWN, shown, waived=(), until=until)
    assert aws.members == set(things(50))
    assert told.is_complete


def test_a_ring_that_cannot_be_listed_is_told_and_nothing_is_complete() -> None:
    aws = world(3)
    del aws.jobs[CANARY.job], aws.rings["canary"]
    aws.jobs[BROAD.job] = SlowJob(executions={"sensor-000002": "FAILED"})
    told = work_on(aws, CANARY, BROAD, minutes=5)
    assert aws.members == {"sensor-000002"}
    assert not told.is_complete
    assert told.problems == (
        f"the devices of {CANARY.job}: their list cannot be read (ResourceNotFoundException)",
    )


def test_who_begins_while_the_cancel_takes_its_time_comes_back_too() -> None:
    """AWS cancels 1,000 executions a minute, and hands out the others meanwhile."""
    names = things(5000)
    aws = SlowAws(names)
    executions = dict.fromkeys(names, "QUEUED") | {names[0]: "FAILED"}
    aws.jobs[CANARY.job] = job = SlowJob(executions=executions, concurrent=True)
    exposed = {names[0]}
    for minute in range(5):
        told = work(aws)
        assert (told.exposed, told.is_complete) == (len(exposed), False)
        late = names[4990 - minute]
        executions[late] = "IN_PROGRESS"
        exposed.add(late)
        for name in names[1 + 1000 * minute : 1 + 1000 * (minute + 1)]:
            if executions[name] == "QUEUED":
                executions[name] = "CANCELED"
        aws.clock.now += 60
    told = work(aws)
    assert aws.members == exposed
    assert not told.is_complete, "five are still at it"
    job.concurrent = False
    executions.update(dict.fromkeys(exposed, "SUCCEEDED"))
    assert work(aws).is_complete
    assert aws.members == exposed


def test_a_list_that_is_late_is_read_again_until_it_has_everybody_whom_the_job_counts() -> None:
    aws = world(50)
    job = aws.jobs[CANARY.job]
    job.hidden = {"sensor-000007"}
    assert not work(aws).is_complete
    aws.clock.now += 10
    job.hidden = set()
    told = work(aws)
    assert told.is_complete
    assert aws.members == set(things(50))


def test_a_count_that_no_list_ever_meets_does_not_keep_a_way_back_open() -> None:
    aws = world(50)
    aws.jobs[CANARY.job].hidden = {"sensor-000007"}
    told = work_on(aws, minutes=3)
    assert (told.exposed, told.is_complete) == (49, True)


def test_a_source_may_join_a_way_back_under_way() -> None:
    aws = world(5)
    assert work(aws).is_complete
    aws.things |= set(things(5, "late"))
    aws.jobs[BROAD.job] = SlowJob(executions=dict.fromkeys(things(5, "late"), "FAILED"))
    assert not look(aws, CANARY, BROAD).is_complete
    told = work(aws, CANARY, BROAD)
    assert (told.exposed, told.placed, told.is_complete) == (10, 10, True)


def test_a_page_token_that_aws_forgets_costs_a_list_and_no_device() -> None:
    aws = world(1000)
    is_forgotten = True

    def forget(number: int, name: str, effect: Effect) -> Any:
        nonlocal is_forgotten
        if is_forgotten and aws.lists.get((CANARY.job, "SUCCEEDED")):
            is_forgotten = False
            raise refusal("InvalidRequestException", name)
        return effect()

    aws.fault = forget
    told = work(aws)
    assert not is_forgotten
    assert (told.exposed, told.is_complete) == (1000, True)
    pages = aws.made.count("list_job_executions_for_job")
    assert pages == 3 + 4 + 1 + 1, "one of each empty status, four, the first again, the refused"


# Devices that AWS does not place


@pytest.mark.parametrize("code", ["AccessDeniedException", "InvalidRequestException"])
def test_one_device_that_aws_refuses_is_named_and_keeps_nobody_from_going(code: str) -> None:
    """A thing in ten groups already comes as an InvalidRequestException."""
    aws = world(20)
    aws.refused["sensor-000003"] = code
    told = work_on(aws, minutes=2)
    assert aws.members == set(things(20)) - {"sensor-000003"}
    assert (told.placed, told.refused, told.refusals) == (19, 1, {"sensor-000003": code})
    assert (told.is_complete, told.remaining) == (True, 1)


def test_a_refused_device_is_tried_again_at_growing_distances_and_goes_when_it_may() -> None:
    aws = world(1)
    aws.refused["sensor-000000"] = "AccessDeniedException"
    work_on(aws, minutes=24 * 60)
    tries = aws.made.count("add_thing_to_thing_group")
    assert 10 < tries < 20
    aws.refused.clear()
    told = work_on(aws, minutes=4 * 60 + 2)
    assert (told.refused, told.remaining, aws.members) == (0, 0, {"sensor-000000"})


def test_more_refused_devices_than_a_run_can_try_do_not_block_the_rest() -> None:
    """Each is due again after half a minute: before that is over the first sheet is not done."""
    names = things(20_000)
    aws = world(20_000)
    aws.refused = dict.fromkeys(names[:16_000], "AccessDeniedException")
    work_on(aws, minutes=5)
    assert aws.members == set(names[16_000:])
    told = look(aws)
    assert (told.refused, len(told.refusals)) == (16_000, 20)


def test_a_throttled_call_is_no_refusal_unless_it_lasts() -> None:
    aws = world(3)
    aws.refused["sensor-000000"] = "ThrottlingException"
    told = work(aws)
    assert (told.refused, told.unplaced, told.is_complete) == (0, 1, False)
    told = work_on(aws, minutes=4)
    assert (told.refusals, told.is_complete) == ({"sensor-000000": "ThrottlingException"}, True)


def test_a_thing_that_is_deleted_ends_its_exposure_before_and_after_it_was_placed() -> None:
    aws = world(4)
    aws.delete_thing("sensor-000000")
    aws.silent = {"sensor-000001", "sensor-000002"}
    told = work_on(aws, minutes=2)
    assert (told.gone, told.placed, told.back, told.remaining) == (1, 3, 1, 2)
    aws.delete_thing("sensor-000001")
    told = work(aws)
    assert (told.gone, told.placed, told.back, told.remaining) == (2, 2, 1, 1)
    assert told.is_complete


def test_a_dead_device_whose_execution_had_ended_is_gone_once_its_thing_is_deleted() -> None:
    """IoT counts it for ever: no count tells."""
    aws = world(2)
    aws.silent = {"sensor-000000"}
    work(aws)
    aws.jobs[OWN].executions["sensor-000000"] = "TIMED_OUT"
    assert work_on(aws, minutes=20).remaining == 1
    aws.things.discard("sensor-000000")
    told = work_on(aws, minutes=4 * 60 + 10)
    assert (told.gone, told.remaining) == (1, 0)


def test_thousands_that_are_silent_are_looked_for_again_a_part_at_a_time() -> None:
    count = 3 * CHECKED_A_RUN
    aws = world(count)
    aws.silent = set(things(count))
    work(aws)
    aws.made.clear()
    aws.things = set()
    aws.clock.now += 3600
    work(aws)
    assert aws.made.count("add_thing_to_thing_group") == CHECKED_A_RUN
    told = work_on(aws, minutes=3)
    assert (told.gone, told.remaining) == (count, 0)


def test_a_device_that_somebody_takes_out_of_the_group_is_put_in_again() -> None:
    aws = world(2)
    aws.silent = {"sensor-000000"}
    work(aws)
    assert aws.members is not None
    aws.members.discard("sensor-000000")
    aws.jobs[OWN].executions["sensor-000000"] = "REMOVED"
    aws.silent.clear()
    work(aws)
    assert work(aws).remaining == 0
    assert "sensor-000000" in aws.members


def test_a_waived_device_is_not_placed_and_need_not_come_back() -> None:
    aws = world(4)
    aws.silent = {"sensor-000001"}
    told = work_on(aws, minutes=2, waived=["sensor-000000"])
    assert (told.exposed, told.waived, told.open_waived, told.remaining) == (4, 1, 0, 1)
    assert told.is_complete
    told = work(aws, waived=["sensor-000000", "sensor-000001", "a-stranger"])
    assert (told.waived, told.open_waived, told.remaining) == (1, 1, 0)
    assert aws.members == set(things(4)) - {"sensor-000000"}
    told = work_on(aws, minutes=2)
    assert (told.waived, told.open_waived, told.remaining) == (0, 0, 1)


def test_a_device_that_is_cut_off_is_put_into_no_group_until_it_is_restored() -> None:
    aws = world(3)
    thing = "sensor-000001"
    aws.silent = {thing}
    assert work(aws).placed == 3
    aws.members = (aws.members or set()) - {thing}
    aws.jobs[OWN].executions[thing] = "CANCELED"
    told = work_on(aws, minutes=10 * 60, every=10, cut_off=[thing])
    assert thing not in aws.members, "not even when those placed are looked for again"
    assert (told.back, told.waived, told.open_waived, told.remaining) == (2, 1, 0, 0)
    assert told.is_complete
    aws.jobs[OWN].executions.pop(thing)
    told = work_on(aws, minutes=2)
    assert thing in aws.members
    assert (told.waived, told.remaining) == (0, 1)


def test_a_group_that_is_missing_costs_a_few_calls_and_no_device() -> None:
    aws = world(2000)
    aws.members = None
    told = work(aws)
    name = NAMES.rollback_group(GROUP)
    assert (told.unplaced, told.refused) == (2000, 0)
    assert told.problems == (f"there is no thing group {name}",)
    assert aws.made.count("describe_thing") < 20
    aws.members = set()
    told = work_on(aws, minutes=2)
    assert (told.placed, told.problems) == (2000, ())


def test_a_group_that_somebody_gave_a_child_is_told_and_fails_nothing() -> None:
    aws = world(1)
    aws.has_child = True
    groups = aws.channel().rollback_groups
    told = groups.delete(GROUP)
    assert told is not None
    assert NAMES.rollback_group(GROUP) in told
    assert "child" in told
    aws.has_child = False
    assert groups.delete(GROUP) is None


# Who is back


def test_back_is_whom_the_way_backs_own_job_succeeded_on_by_name() -> None:
    aws = world(10)
    aws.silent = set(things(10))
    aws.jobs[OWN].executions["a-stranger"] = "SUCCEEDED"
    assert work(aws).back == 0
    own = aws.jobs[OWN].executions
    for number, thing in enumerate(things(10)):
        own[thing] = "SUCCEEDED" if number else "REJECTED"
    told = work(aws)
    assert (told.back, told.remaining, told.is_complete) == (9, 1, True)


def test_another_job_for_the_same_group_must_succeed_on_everybody() -> None:
    aws = world(10)
    assert work_on(aws, minutes=2).back == 10
    again = NAMES.job("rollback", GROUP + 1)
    told = work(aws, own=again)
    assert (told.placed, told.back, told.remaining) == (10, 0, 10)
    assert aws.worker().look(GROUP, (CANARY,), OWN).back == 0
    aws.jobs[again] = SlowJob(executions=dict.fromkeys(things(10), "SUCCEEDED"))
    assert work(aws, own=again).remaining == 0


def test_a_proof_that_the_list_does_not_show_yet_is_looked_for_again() -> None:
    aws = world(10)
    aws.jobs[OWN].hidden = {"sensor-000004"}
    assert work_on(aws, minutes=2).remaining == 1
    aws.jobs[OWN].hidden = set()
    assert work_on(aws, minutes=2).remaining == 0


# Runs


def test_when_nothing_changes_a_run_costs_one_call() -> None:
    aws = world(300)
    aws.silent = {"sensor-000000"}
    work_on(aws, minutes=15)
    aws.made.clear()
    told = work(aws)
    assert aws.made == ["get_object"]
    assert look(aws) == told
    assert aws.made == ["get_object"] * 2


def test_one_dead_device_of_many_costs_a_few_calls_a_day() -> None:
    aws = world(2000)
    aws.silent = {"sensor-000000"}
    work_on(aws, minutes=10)
    aws.made.clear()
    work_on(aws, minutes=24 * 60)
    assert len(aws.made) - 24 * 60 < 100, "beside one look a minute"


def test_one_run_works_and_the_others_do_nothing() -> None:
    aws = world(3000)
    others: list[list[str]] = []

    def meanwhile() -> None:
        before = len(aws.made)
        work(aws)
        others.append(aws.made[before:])

    aws.clock.events = [(START + 5.0, meanwhile), (START + 20.0, meanwhile)]
    told = work(aws)
    assert others == [["get_object"], ["get_object"]]
    assert told.placed == 3000


def test_a_killed_run_loses_a_round_and_another_goes_on_after_a_minute() -> None:
    aws = world(6000)

    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    aws.clock.events = [(START + 40.0, kill)]
    with pytest.raises(Killed):
        work(aws)
    killed_at = aws.clock.now
    kept = look(aws).placed
    assert aws.members is not None
    assert 0 < len(aws.members) - kept <= 16 * PLACED_A_SECOND
    assert work(aws).placed == kept, "it may be at work still"
    aws.clock.now = killed_at + BUSY_SECONDS
    aws.made.clear()
    assert work_on(aws, minutes=2).placed == 6000
    assert aws.made.count("add_thing_to_thing_group") <= 6000 - kept


def test_a_run_that_is_overtaken_stops_and_loses_nobody() -> None:
    aws = world(6000)

    def overtake() -> None:
        aws.clock.now += 2 * BUSY_SECONDS  # it hung so long
        assert work(aws, seconds=30.0).placed > 1000

    aws.clock.events = [(START + 20.0, overtake)]
    work(aws)
    assert work_on(aws, minutes=3).placed == 6000


@pytest.mark.parametrize("call", range(60))
def test_a_call_that_fails_once_loses_nobody(call: int) -> None:
    aws = world(40)
    aws.is_enforced = False

    def fail(number: int, name: str, effect: Effect) -> Any:
        if number == call:
            raise refusal("InternalFailure", name)
        return effect()

    aws.fault = fail
    for _ in range(2):
        with suppress(ClientError):  # the bucket's are the caller's to meet
            work(aws)
        aws.clock.now += 2 * BUSY_SECONDS
    told = work_on(aws, minutes=3)
    assert (told.exposed, told.remaining, told.is_complete) == (40, 0, True)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[" * 100_000, b'{"format": 2}', b'{"busyUntil": "x"}', gzip.compress(b"{}")],
    ids=["empty", "cut", "deep", "newer", "wrong", "packed"],
)
def test_a_roster_or_a_sheet_that_cannot_be_read_is_made_anew(body: bytes) -> None:
    aws = world(30)
    aws.silent = set(things(30))
    work(aws)
    aws.objects[KEYS.roster(GROUP)] = body
    told = work_on(aws, minutes=1)
    assert (told.exposed, told.placed, told.is_complete) == (30, 30, True)
    aws.clock.now += 3600
    number = sheet_of("sensor-000000")
    aws.objects[KEYS.roster_sheet(GROUP, number)] = body
    told = work_on(aws, minutes=3)
    assert (told.exposed, told.placed, told.is_complete) == (30, 30, True)


def test_a_roster_that_is_deleted_is_made_anew() -> None:
    aws = world(30)
    work(aws)
    del aws.objects[KEYS.roster(GROUP)]
    told = work(aws)
    assert (told.exposed, told.remaining, told.is_complete) == (30, 0, True)


# Sheets


MARKS = st.one_of(
    st.sampled_from(Mark),
    st.builds(
        Refusal,
        code=st.sampled_from(["AccessDeniedException", "ThrottlingException"]),
        tries=st.integers(1, 40),
        retry_at=st.floats(0, 2e9),
    ),
)
NAMES_OF_THINGS = st.from_regex(r"[a-zA-Z0-9:_-]{1,128}", fullmatch=True)


@given(st.dictionaries(NAMES_OF_THINGS, MARKS), st.sets(NAMES_OF_THINGS))
def test_a_sheet_is_read_as_it_was_written_and_counts_everybody_once(
    marks: dict[str, Any], strangers: set[str]
) -> None:
    sheet = Sheet("a-job")
    sheet.marks.update(marks)
    again = Sheet.decode(sheet.encode())
    assert (again.marks, again.job, again.check_at) == (marks, "a-job", None)
    tally = again.tally({*strangers, *list(marks)[::2]})
    counted = tally.open + tally.placed + tally.back + tally.gone
    assert counted + tally.refused + tally.passing + tally.waived == len(marks) == tally.exposed


# Histories


@given(st.data())
def test_in_any_history_nobody_is_forgotten(data: st.DataObject) -> None:
    """Never complete while somebody is left out, and in the end everybody is somewhere."""
    names = things(data.draw(st.integers(1, 12)))
    aws = SlowAws(names)
    aws.is_enforced = False
    aws.page_size = data.draw(st.integers(1, 3))
    aws.rings["canary"] = set(names)
    executions = dict.fromkeys(names, "QUEUED")
    aws.jobs[CANARY.job] = job = SlowJob(executions=executions, concurrent=True)
    exposed: set[str] = set()
    waived: list[str] = []
    for _ in range(data.draw(st.integers(0, 12))):
        thing = data.draw(st.sampled_from(names))
        match data.draw(st.integers(0, 8)):
            case 0 | 1 | 2 if executions.get(thing) in ("QUEUED", "IN_PROGRESS"):
                exposed.add(thing)
                moves = ["IN_PROGRESS", "SUCCEEDED", "FAILED", "TIMED_OUT"]
                executions[thing] = data.draw(st.sampled_from(moves))
            case 3:
                aws.delete_thing(thing)
            case 4:
                aws.refused[thing] = data.draw(
                    st.sampled_from(["AccessDeniedException", "ThrottlingException"])
                )
            case 5:
                aws.refused.clear()
            case 6:
                waived.append(thing)
            case 7 if CANARY.job in aws.jobs and data.draw(st.booleans()):
                del aws.jobs[CANARY.job]
            case _:
                aws.silent ^= {thing}
        fails_at = len(aws.made) + data.draw(st.integers(0, 200))

        def fail(number: int, name: str, effect: Effect, at: int = fails_at) -> Any:
            if number == at:
                raise refusal("InternalFailure", name)
            return effect()

        aws.fault = fail
        with suppress(ClientError):
            told = work(aws, waived=waived)
            assert not told.is_complete or CANARY.job not in aws.jobs
        aws.clock.now += data.draw(st.sampled_from([1, 60, 3600]))
    aws.fault = lambda number, name, effect: effect()
    aws.silent.clear()
    own = aws.jobs[OWN].executions
    own.update({t: "SUCCEEDED" for t, status in own.items() if status == "QUEUED"})
    for thing, status in executions.items():
        ends = {"QUEUED": "CANCELED", "IN_PROGRESS": "FAILED"}
        executions[thing] = ends.get(status, status)
    job.concurrent = False
    aws.refused.clear()
    told = work_on(aws, waived=waived, minutes=48 * 60, every=4 * 60)
    assert (told.is_complete, told.remaining, told.refused) == (True, 0, 0)
    assert aws.members is not None
    assert exposed & aws.things <= aws.members | set(waived)
    if CANARY.job not in aws.jobs:
        assert told.exposed == len(names)


# How fast


def test_a_large_ring_is_placed_at_nine_tenths_of_what_aws_takes() -> None:
    """`make bench` does it with 900,000."""
    aws = LargeRing(20_000, BROAD.job)
    told = run_ticks(aws, BROAD)
    assert (told.placed, told.refused, aws.placed) == (20_000, 0, 20_000)
    quota = QUOTAS["add_thing_to_thing_group"]
    assert 20_000 / (aws.clock.now - START) >= 0.9 * quota
    assert aws.throttled.total() < 200


def test_a_list_is_read_slower_than_aws_allows() -> None:
    aws = LargeRing(5_000, BROAD.job)
    aws.quotas["list_job_executions_for_job"].rate = PAGES_A_SECOND + 1.0
    work(aws, BROAD, seconds=60.0)
    assert aws.throttled["list_job_executions_for_job"] == 0
