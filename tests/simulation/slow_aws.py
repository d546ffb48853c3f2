"""AWS IoT with its quotas and its delays, on a clock of its own: what a way back meets there.

Calls that threads make at once take place one after the other, each at its thread's own time.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

import botocore.parsers
import botocore.session

from cloud.way_back import CALLS_AT_ONCE, WayBackWorker
from rollout.names import CONTROLLER_SECONDS, Names
from rollout.observed import Counts, Job, Returning, Source
from tests.fake_aws import Effect, FakeAws, VersionedObjects, moment, refusal

NAMES = Names(fleet="iot-fleet", suffix="0123abcd", channel="stable")
IOT = "arn:aws:iot:us-east-1:123456789012"
KEY = "arn:aws:kms:us-east-1:123456789012:key/1"
START = 1_790_000_000.0
GROUP = 1_790_000_000
OWN = NAMES.job("rollback", GROUP)

QUOTAS = {
    "add_thing_to_thing_group": 100.0,
    "describe_job": 10.0,
    "describe_thing": 100.0,
    "list_job_executions_for_job": 10.0,
    "list_things_in_thing_group": 25.0,
}
"""Calls a second of the account (Service Quotas); of DescribeThing an assumption."""
LATENCY = {"add_thing_to_thing_group": 0.12, "list_job_executions_for_job": 0.1}
ATTEMPTS = 5
"""Of botocore's standard retries, which wait up to 1, 2, 4, 8 seconds in between."""


class Quota:
    """A bucket of tokens that holds a second's worth."""

    def __init__(self, rate: float) -> None:
        self.rate, self.tokens, self.at = rate, rate, START

    def takes(self, now: float) -> bool:
        self.tokens = min(self.rate, self.tokens + max(0.0, now - self.at) * self.rate)
        self.at = max(self.at, now)
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class SimulatedClock:
    """`events` happen when the time of the main thread passes theirs."""

    def __init__(self) -> None:
        self.now = START
        self.events: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds

    def catch_up(self) -> None:
        while self.events and self.events[0][0] <= self.now:
            self.events.pop(0)[1]()


class SimulatedThreads(Executor):
    def __init__(self, clock: SimulatedClock) -> None:
        self.clock, self.free_at = clock, [clock.now] * CALLS_AT_ONCE

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Runs it at once, at the time of the first thread that is free."""
        before = self.clock.now
        free = min(range(len(self.free_at)), key=lambda thread: self.free_at[thread])
        self.clock.now = max(before, self.free_at[free])
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        self.free_at[free], self.clock.now = self.clock.now, before
        return done

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any], **_: Any) -> Iterator[Any]:
        """The main thread waits for all, those submitted before included."""
        done = [self.submit(fn, *args) for args in zip(*iterables, strict=True)]
        self.clock.now = max(self.clock.now, *self.free_at)
        self.clock.catch_up()
        return (each.result() for each in done)


@dataclass
class SlowJob:
    """`executions` are statuses by thing; of those CANCELED only `cut_off` had begun."""

    executions: dict[str, str] = field(default_factory=dict)
    status: Any = "CANCELED"
    concurrent: bool = False
    forced: bool = False
    cut_off: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    """Things that the list does not show yet, and the counts do."""

    def had_begun(self, thing: str) -> bool:
        return self.executions[thing] not in ("QUEUED", "CANCELED") or thing in self.cut_off


class SlowAws(FakeAws):
    """Things are all that exist; `refused` are those that AWS will not have in one more group, with
    its error. Members answer the way back's job unless they are `silent`."""

    def __init__(self, things: Iterable[str]) -> None:
        super().__init__(NAMES, [KEY], now=START)
        self.clock = SimulatedClock()
        self.things = set(things)
        self.jobs: dict[str, SlowJob] = {OWN: SlowJob(status="IN_PROGRESS")}
        self.rings: dict[str, set[str]] = {}
        self.members: set[str] | None = set()
        self.has_child = False
        self.refused: dict[str, str] = {}
        self.silent: set[str] = set()
        self.page_size = 250
        self.dice = random.Random(1)
        self.quotas = {name: Quota(rate) for name, rate in QUOTAS.items()}
        self.is_enforced = True
        self.throttled = Counter[str]()
        self.lists: dict[tuple[str, str], list[str]] = {}
        self.fault = self.meet_quota

    def meet_quota(self, number: int, name: str, effect: Effect) -> Any:
        """What botocore makes of a quota: it waits and tries again, and gives up."""
        quota = self.quotas.get(name)
        for attempt in range(ATTEMPTS):
            self.clock.sleep(LATENCY.get(name, 0.05))
            if quota is None or not self.is_enforced or quota.takes(self.clock.now):
                return effect()
            self.throttled[name] += 1
            self.clock.sleep(self.dice.random() * 2**attempt)
        raise refusal("ThrottlingException", name)

    def worker(self) -> WayBackWorker:
        channel = self.channel()
        return WayBackWorker(
            channel.clients,
            NAMES,
            channel.bucket,
            ring_groups={ring: f"{IOT}:thinggroup/{NAMES.ring_group(ring)}" for ring in self.rings},
            clock=self.clock,
            pool=lambda: SimulatedThreads(self.clock),
        )

    def shown(self) -> dict[str, Job]:
        """Every job as DescribeJob shows it now."""
        return {name: self.show(job) for name, job in self.jobs.items()}

    def show(self, job: SlowJob) -> Job:
        found = Counter(job.executions.values())
        counts = Counts(**{status.lower(): number for status, number in found.items()})
        return Job(status=job.status, counts=counts, settled=not job.concurrent, forced=job.forced)

    def put_into_group(self, thing: str) -> None:
        assert self.members is not None
        own = self.jobs[OWN].executions
        if thing not in self.members or own.get(thing) == "REMOVED":
            own[thing] = "QUEUED" if thing in self.silent else "SUCCEEDED"
        self.members.add(thing)

    def delete_thing(self, thing: str) -> None:
        """What had not ended becomes REMOVED."""
        self.things.discard(thing)
        for job in self.jobs.values():
            if job.executions.get(thing) in ("QUEUED", "IN_PROGRESS"):
                job.executions[thing] = "REMOVED"

    # The calls

    def do_add_thing_to_thing_group(self, *, thingGroupName: str, thingName: str) -> Any:
        assert thingGroupName == NAMES.rollback_group(GROUP)
        if thingName not in self.things or self.members is None:
            raise refusal("ResourceNotFoundException", "AddThingToThingGroup")
        if thingName in self.refused:
            raise refusal(self.refused[thingName], "AddThingToThingGroup")
        self.put_into_group(thingName)
        return {}

    def do_delete_thing_group(self, *, thingGroupName: str) -> Any:
        if self.has_child:
            message = "Cannot delete thing group which has child groups"
            raise refusal("InvalidRequestException", "DeleteThingGroup", message)
        self.members = None
        return {}

    def do_describe_thing(self, *, thingName: str) -> Any:
        if thingName not in self.things:
            raise refusal("ResourceNotFoundException", "DescribeThing")
        return {"thingName": thingName}

    def do_describe_job(self, *, jobId: str) -> Any:
        job = self.jobs.get(jobId)
        if job is None:
            raise refusal("ResourceNotFoundException", "DescribeJob")
        return {
            "job": {
                "status": job.status,
                "isConcurrent": job.concurrent,
                "forceCanceled": job.forced,
                "jobProcessDetails": {},
            }
        }

    def do_list_job_executions_for_job(
        self, *, jobId: str, status: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        job = self.jobs.get(jobId)
        if job is None:
            raise refusal("ResourceNotFoundException", "ListJobExecutionsForJob")
        if nextToken is None:
            self.lists[jobId, status] = [
                thing
                for thing, now in job.executions.items()
                if now == status and thing not in job.hidden
            ]
        shown, token = self.page(self.lists[jobId, status], nextToken)
        items = [
            {
                "thingArn": f"{IOT}:thing/{thing}",
                "jobExecutionSummary": {
                    "status": status,
                    "executionNumber": 1,
                    **({"startedAt": moment(START)} if job.had_begun(thing) else {}),
                },
            }
            for thing in shown
        ]
        return {"executionSummaries": items, **token}

    def do_list_things_in_thing_group(
        self, *, thingGroupName: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        groups = {NAMES.ring_group(ring): things for ring, things in self.rings.items()}
        if thingGroupName not in groups:
            raise refusal("ResourceNotFoundException", "ListThingsInThingGroup")
        shown, token = self.page(sorted(groups[thingGroupName]), nextToken)
        return {"things": shown, **token}

    def page(self, items: list[str], token: str | None) -> tuple[list[str], dict[str, str]]:
        start, size = int(token or 0), self.page_size
        more = {"nextToken": str(start + size)} if start + size < len(items) else {}
        return items[start : start + size], more


def run_ticks(aws: SlowAws, *sources: Source) -> Returning:
    """The controller as it wakes: every minute, until everybody is placed. A run looks and decides
    for five seconds first, and works until ten are left; those that come meanwhile find it at
    work."""
    told, tick = Returning(), START
    while not told.is_complete:
        aws.clock.now = max(aws.clock.now, tick) + 5
        until = tick + CONTROLLER_SECONDS - 10
        told = aws.worker().work(GROUP, sources, OWN, aws.shown(), waived=(), until=until)
        tick += 60 * max(1, math.ceil((aws.clock.now - tick) / 60))
    return told


class NewestObjects(VersionedObjects):
    """A bucket that forgets earlier versions: what is measured is not the fake's memory."""

    def _keep(self, key: str, body: bytes | None) -> None:
        super()._keep(key, body)
        self.versions[key] = self.versions[key][-1:]


class LargeRing(SlowAws):
    """So many devices, all exposed by one job and all silent, that are worked out when they are
    asked for; what IoT's list says of them is read by botocore's own parser."""

    def __init__(self, devices: int, source: str) -> None:
        super().__init__(())
        self.objects = NewestObjects()
        self.devices, self.source, self.placed = devices, source, 0
        model = botocore.session.get_session().get_service_model("iot")
        self.shape = model.operation_model("ListJobExecutionsForJob").output_shape
        self.parser = botocore.parsers.create_parser("rest-json")

    def shown(self) -> dict[str, Job]:
        counts = Counts(succeeded=self.devices)
        return {OWN: Job(status="IN_PROGRESS"), self.source: Job(status="CANCELED", counts=counts)}

    def do_describe_job(self, *, jobId: str) -> Any:
        return {"job": {"status": "CANCELED"}}

    def do_add_thing_to_thing_group(self, *, thingGroupName: str, thingName: str) -> Any:
        self.placed += 1
        return {}

    def do_list_job_executions_for_job(
        self, *, jobId: str, status: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        start = int(nextToken or 0)
        end = min(start + maxResults, self.devices if status == "SUCCEEDED" else 0)
        summary = {"status": status, "executionNumber": 1}
        summary |= dict.fromkeys(("queuedAt", "startedAt", "lastUpdatedAt"), START)
        items = [
            {"thingArn": f"{IOT}:thing/{random_name(number)}", "jobExecutionSummary": summary}
            for number in range(start, end)
        ]
        more = {"nextToken": str(end)} if start < end < self.devices else {}
        body = json.dumps({"executionSummaries": items, **more}).encode()
        answer = {"status_code": 200, "headers": {}, "body": body}
        return self.parser.parse(answer, self.shape)


def random_name(number: int) -> str:
    """36 characters that compress as little as a UUID."""
    return f"dev-{hashlib.sha256(b'%d' % number).hexdigest()[:32]}"
