"""AWS IoT's registry and Jobs as documented, at their worst.

What the pages leave open is drawn: how many seconds a listing is late, when a join or a leave
reaches the jobs, which reason code IoT's own abort bears, in which order queued jobs come. What the
pages say is kept: `CancelJob` ends what is queued at a rate, and what is still queued goes on being
handed out; a job just made says for some seconds that it has settled with nobody in it; a thing is
in at most ten groups; a deleted thing's finished executions stay listed; a deleted job's id is
free.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from tests.histories.nasty_aws import NastyAws, moment_of, said_no

IOT_ARN = "arn:aws:iot:us-east-1:123456789012"
OPEN = frozenset({"QUEUED", "IN_PROGRESS"})
MOST_GROUPS = 10
ABORT_REASONS = ("ABORTED_BY_CRITERIA", "AWS_IOT_ABORT", "NOT_WANTED", "OPERATOR_HALT", None)
"""AWS documents "auto-populated values" and no value; two of these are words of our own."""


@dataclass(slots=True)
class IotExecution:
    thing: str
    number: int
    queued_at: float
    status: str = "QUEUED"
    started_at: float | None = None
    changed_at: float = 0.0
    was: str | None = None
    """The status before the last change: listings show it for some seconds."""


@dataclass(eq=False)
class IotJob:
    id: str
    group: str
    document: str
    request: dict[str, Any]
    created_at: float
    seen_from: float
    """When listings begin to show it."""
    counted_from: float
    """When DescribeJob begins to tell of its devices."""
    by_controller: bool
    status: str = "IN_PROGRESS"
    was: str = "IN_PROGRESS"
    changed_at: float = 0.0
    reason: str | None = None
    is_forced: bool = False
    cancels_from: float = 0.0
    gone_at: float | None = None
    to_notify: deque[str] = field(default_factory=deque)
    executions: dict[str, IotExecution] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    in_progress: set[str] = field(default_factory=set)
    queued: dict[str, None] = field(default_factory=dict)
    ever_began: set[str] = field(default_factory=set)
    cancel_budget: float = 0.0
    notify_budget: float = 0.0

    @property
    def is_live(self) -> bool:
        return self.status == "IN_PROGRESS"

    @property
    def is_busy(self) -> bool:
        """isConcurrent: rolling out, or cancelling."""
        return bool(self.to_notify) or (self.status == "CANCELED" and bool(self.queued))


@dataclass
class Weather:
    """How bad it gets: most seconds of each delay, and rates a minute."""

    list_lag: float = 8.0
    blind: float = 8.0
    """How long a new job says it has settled with nobody."""
    join: float = 30.0
    cancel_delay: float = 30.0
    cancel_per_minute: float = 1000.0
    delete: float = 90.0
    page: int = 250


class NastyIot(NastyAws):
    def __init__(self, *, bucket: str, now: float, seed: int, weather: Weather) -> None:
        super().__init__(bucket=bucket, now=now, seed=seed)
        self.weather = weather
        self.things: dict[str, set[str]] = {}
        """By name: the groups it is in."""
        self.groups: dict[str, dict[str, None]] = {}
        """By name: the things in it, in the order they came."""
        self.group_about: dict[str, tuple[Any, float]] = {}
        """By name: what it was made with, and when listings begin to show it."""
        self.parents: dict[str, str] = {}
        self.jobs: dict[str, IotJob] = {}
        self.ids_ever: dict[str, int] = {}
        """Every id that a job ever had, and how many jobs had it."""
        self.pending: dict[str, set[str]] = {}
        """By thing: ids of the jobs that it has still to do."""
        self.moves: list[tuple[float, str, str, bool]] = []
        """Joins (True) and leaves that the jobs have not heard of: when, group, thing."""

    def late(self, most: float) -> float:
        return self.now + self.random.uniform(0, most)

    # The registry

    def make_thing(self, thing: str) -> None:
        self.things.setdefault(thing, set())

    def delete_thing(self, thing: str) -> None:
        """Unfinished executions are REMOVED, finished ones stay listed."""
        for group in self.things.pop(thing, set()):
            self.groups[group].pop(thing, None)
        for job in self.jobs.values():
            execution = job.executions.get(thing)
            if execution and execution.status in OPEN:
                self._change(job, execution, "REMOVED")
            if thing in job.to_notify:
                job.to_notify.remove(thing)

    def make_group(self, group: str, parent: str | None = None) -> None:
        self.groups.setdefault(group, {})
        self.group_about.setdefault(group, ({}, self.now))
        if parent:
            self.parents[group] = parent

    def delete_group(self, group: str) -> None:
        for thing in list(self.groups[group]):
            self.leave(group, thing)
        del self.groups[group]
        del self.group_about[group]
        self.parents.pop(group, None)

    def join(self, group: str, thing: str) -> None:
        if thing in self.groups[group]:
            return
        self.groups[group][thing] = None
        self.things[thing].add(group)
        self.moves.append((self.late(self.weather.join), group, thing, True))

    def leave(self, group: str, thing: str) -> None:
        self.groups[group].pop(thing, None)
        self.things.get(thing, set()).discard(group)
        self.moves.append((self.late(self.weather.join), group, thing, False))

    def _group(self, group: str, operation: str) -> dict[str, None]:
        if group not in self.groups:
            raise said_no("ResourceNotFoundException", operation)
        return self.groups[group]

    def do_create_thing_group(
        self, *, thingGroupName: str, parentGroupName: str | None = None, **about: Any
    ) -> Any:
        there = self.group_about.get(thingGroupName)
        if there and there[0] != about:
            raise said_no("ResourceAlreadyExistsException", "CreateThingGroup")
        if not there:
            self.groups[thingGroupName] = {}
            self.group_about[thingGroupName] = (about, self.late(self.weather.list_lag))
        name = thingGroupName
        return {"thingGroupName": name, "thingGroupArn": group_arn(name), "thingGroupId": name}

    def do_delete_thing_group(self, *, thingGroupName: str, **_more: Any) -> Any:
        if thingGroupName in self.parents.values():
            raise said_no("InvalidRequestException", "DeleteThingGroup", "it has child groups")
        if thingGroupName in self.groups:
            self.delete_group(thingGroupName)
        return {}

    def do_describe_thing_group(self, *, thingGroupName: str) -> Any:
        self._group(thingGroupName, "DescribeThingGroup")
        return {"thingGroupName": thingGroupName, "thingGroupArn": group_arn(thingGroupName)}

    def do_list_thing_groups(
        self,
        *,
        namePrefixFilter: str = "",
        maxResults: int = 25,
        nextToken: str | None = None,
        **_more: Any,
    ) -> Any:
        found = [
            {"groupName": name, "groupArn": group_arn(name)}
            for name, (_, seen_from) in sorted(self.group_about.items())
            if name.startswith(namePrefixFilter) and self.now >= seen_from
        ]
        return self._page("thingGroups", found, maxResults, nextToken)

    def do_add_thing_to_thing_group(
        self,
        *,
        thingName: str | None = None,
        thingArn: str | None = None,
        thingGroupName: str | None = None,
        thingGroupArn: str | None = None,
        **_more: Any,
    ) -> Any:
        thing = thingName or str(thingArn).rsplit("/", 1)[1]
        group = thingGroupName or str(thingGroupArn).rsplit("/", 1)[1]
        members = self._group(group, "AddThingToThingGroup")
        if thing not in self.things:
            raise said_no("ResourceNotFoundException", "AddThingToThingGroup")
        if thing not in members and len(self.things[thing]) >= MOST_GROUPS:
            raise said_no("InvalidRequestException", "AddThingToThingGroup", "in 10 groups already")
        self.join(group, thing)
        return {}

    def do_remove_thing_from_thing_group(
        self, *, thingName: str, thingGroupName: str, **_more: Any
    ) -> Any:
        if thingName in self._group(thingGroupName, "RemoveThingFromThingGroup"):
            self.leave(thingGroupName, thingName)
        return {}

    def do_list_things_in_thing_group(
        self,
        *,
        thingGroupName: str,
        maxResults: int = 25,
        nextToken: str | None = None,
        **_more: Any,
    ) -> Any:
        found = list(self._group(thingGroupName, "ListThingsInThingGroup"))
        return self._page("things", found, maxResults, nextToken)

    def do_describe_thing(self, *, thingName: str) -> Any:
        if thingName not in self.things:
            raise said_no("ResourceNotFoundException", "DescribeThing")
        return {"thingName": thingName, "attributes": {}, "version": 1}

    def do_list_thing_groups_for_thing(
        self, *, thingName: str, maxResults: int = 25, nextToken: str | None = None
    ) -> Any:
        if thingName not in self.things:
            raise said_no("ResourceNotFoundException", "ListThingGroupsForThing")
        found = [{"groupName": name} for name in sorted(self.things[thingName])]
        return self._page("thingGroups", found, maxResults, nextToken)

    def do_list_thing_principals(self, *, thingName: str, **_more: Any) -> Any:
        if thingName not in self.things:
            raise said_no("ResourceNotFoundException", "ListThingPrincipals")
        return {"principals": [f"{IOT_ARN}:cert/{hashlib.sha256(thingName.encode()).hexdigest()}"]}

    def do_list_attached_policies(self, *, target: str, **_more: Any) -> Any:
        return {"policies": [{"policyName": "device", "policyArn": f"{IOT_ARN}:policy/device"}]}

    def _page(self, key: str, found: list[Any], most: int, token: str | None) -> Any:
        assert 1 <= most <= 250
        start, size = int(token or 0), min(most, self.weather.page)
        more = {"nextToken": str(start + size)} if start + size < len(found) else {}
        return {key: found[start : start + size], **more}

    # Jobs, as a caller sees them

    def create(
        self, job: str, group: str, document: str, request: dict[str, Any], mine: bool
    ) -> None:
        assert len(job) <= 64
        made = IotJob(
            id=job,
            group=group,
            document=document,
            request=request,
            created_at=self.now,
            seen_from=self.late(self.weather.list_lag),
            counted_from=self.late(self.weather.blind),
            by_controller=mine,
            changed_at=self.now,
            to_notify=deque(self.groups.get(group, {})),
        )
        self.random.shuffle(made.to_notify)
        self.jobs[job] = made
        self.ids_ever[job] = self.ids_ever.get(job, 0) + 1

    def do_create_job(
        self, *, jobId: str, targets: list[str], document: str, **request: Any
    ) -> Any:
        if jobId in self.jobs:
            raise said_no("ResourceAlreadyExistsException", "CreateJob")
        assert request.get("targetSelection") == "CONTINUOUS", "late joiners would get nothing"
        assert len(document) <= 32768
        (target,) = targets
        group = target.rsplit("/", 1)[1]
        if group not in self.groups:
            raise said_no("ResourceNotFoundException", "CreateJob", f"no group {group}")
        self.create(jobId, group, document, request, True)
        return {"jobId": jobId, "jobArn": f"{IOT_ARN}:job/{jobId}"}

    def _job(self, job: str, operation: str) -> IotJob:
        if job not in self.jobs:
            raise said_no("ResourceNotFoundException", operation)
        return self.jobs[job]

    def do_describe_job(self, *, jobId: str, **_more: Any) -> Any:
        job = self._job(jobId, "DescribeJob")
        is_told = self.now >= job.counted_from
        counts = job.counts if is_told else Counter[str]()
        names = {
            "QUEUED": "Queued",
            "IN_PROGRESS": "InProgress",
            "SUCCEEDED": "Succeeded",
            "FAILED": "Failed",
            "TIMED_OUT": "TimedOut",
            "REJECTED": "Rejected",
            "CANCELED": "Canceled",
            "REMOVED": "Removed",
        }
        answer: dict[str, Any] = {
            "jobId": jobId,
            "status": job.status,
            "targets": [group_arn(job.group)],
            "targetSelection": "CONTINUOUS",
            "isConcurrent": is_told and job.is_busy,
            "createdAt": moment_of(job.created_at),
            "jobProcessDetails": {
                f"numberOf{name}Things": counts[status] for status, name in names.items()
            },
            **{
                key: job.request[key]
                for key in ("abortConfig", "timeoutConfig", "jobExecutionsRolloutConfig")
                if key in job.request
            },
        }
        if job.reason is not None:
            answer |= {"reasonCode": job.reason, "comment": "a comment"}
        if job.is_forced:
            answer["forceCanceled"] = True
        return {"job": answer}

    def do_get_job_document(self, *, jobId: str, **_more: Any) -> Any:
        return {"document": self._job(jobId, "GetJobDocument").document}

    def do_list_jobs(
        self,
        *,
        status: str | None = None,
        maxResults: int = 25,
        nextToken: str | None = None,
        **_more: Any,
    ) -> Any:
        """Another stack's jobs are among them."""
        shown = [("ffffffff-stable-canary-1999999999", "IN_PROGRESS")]
        for name, job in self.jobs.items():
            if self.now >= job.seen_from:
                shown.append((name, job.status if self.now >= job.changed_at else job.was))
        found = [
            {"jobId": name, "status": seen, "targetSelection": "CONTINUOUS"}
            for name, seen in reversed(shown)
            if status in (None, seen)
        ]
        return self._page("jobs", found, maxResults, nextToken)

    def do_list_job_executions_for_job(
        self,
        *,
        jobId: str,
        status: str | None = None,
        maxResults: int = 25,
        nextToken: str | None = None,
    ) -> Any:
        job = self._job(jobId, "ListJobExecutionsForJob")
        found = []
        for execution in job.executions.values():
            late = self.now < execution.changed_at and execution.was is not None
            seen = execution.was if late else execution.status
            if status in (None, seen):
                found.append(
                    {
                        "thingArn": f"{IOT_ARN}:thing/{execution.thing}",
                        "jobExecutionSummary": summary_of(execution, seen),
                    }
                )
        return self._page("executionSummaries", found, maxResults, nextToken)

    def do_list_job_executions_for_thing(
        self, *, thingName: str, maxResults: int = 25, nextToken: str | None = None, **more: Any
    ) -> Any:
        found = [
            {"jobId": job.id, "jobExecutionSummary": summary_of(execution, execution.status)}
            for job in self.jobs.values()
            if (execution := job.executions.get(thingName))
            and more.get("status") in (None, execution.status)
        ]
        return self._page("executionSummaries", found, maxResults, nextToken)

    def do_describe_job_execution(self, *, jobId: str, thingName: str, **_more: Any) -> Any:
        execution = self._job(jobId, "DescribeJobExecution").executions.get(thingName)
        if execution is None:
            raise said_no("ResourceNotFoundException", "DescribeJobExecution")
        about = summary_of(execution, execution.status)
        return {"execution": {"jobId": jobId, "statusDetails": {"detailsMap": {}}, **about}}

    def do_update_job(self, *, jobId: str, **changes: Any) -> Any:
        job = self._job(jobId, "UpdateJob")
        if not job.is_live:
            raise said_no("InvalidRequestException", "UpdateJob", "the job is over")
        job.request |= changes
        return {}

    def do_cancel_job(
        self, *, jobId: str, reasonCode: str | None = None, comment: str = "", force: bool = False
    ) -> Any:
        job = self._job(jobId, "CancelJob")
        if not job.is_live:
            raise said_no("InvalidRequestException", "CancelJob", "the job is over")
        self.cancel(job, reasonCode, force=force)
        return {"jobId": jobId}

    def cancel(self, job: IotJob, reason: str | None, *, force: bool = False) -> None:
        job.was, job.status, job.reason = job.status, "CANCELED", reason
        job.changed_at = self.late(self.weather.list_lag)
        job.is_forced = force
        job.cancels_from = self.late(self.weather.cancel_delay)
        job.to_notify.clear()
        if force:
            for thing in list(job.in_progress):
                self._change(job, job.executions[thing], "CANCELED")

    def do_delete_job(self, *, jobId: str, force: bool = False, **_more: Any) -> Any:
        job = self._job(jobId, "DeleteJob")
        if job.status == "DELETION_IN_PROGRESS" or (job.is_live and not force):
            raise said_no("InvalidStateTransitionException", "DeleteJob")
        if sum(one.status == "DELETION_IN_PROGRESS" for one in self.jobs.values()) >= 10:
            raise said_no("LimitExceededException", "DeleteJob")
        job.was, job.status = job.status, "DELETION_IN_PROGRESS"
        job.changed_at = self.late(self.weather.list_lag)
        job.gone_at = self.late(self.weather.delete)
        job.to_notify.clear()
        for execution in list(job.executions.values()):
            if execution.status in OPEN:
                self._change(job, execution, "CANCELED")
        return {}

    # Jobs, as a device sees them

    def start_next(self, thing: str) -> tuple[IotJob, IotExecution] | None:
        """What is in progress, else one of the queued, in no promised order."""
        open_jobs = [self.jobs[name] for name in sorted(self.pending.get(thing, ()))]
        if not open_jobs:
            return None
        begun = [job for job in open_jobs if thing in job.in_progress]
        job = begun[0] if begun else self.random.choice(open_jobs)
        execution = job.executions[thing]
        if execution.status == "QUEUED":
            execution.started_at = self.now
            job.ever_began.add(thing)
            self._change(job, execution, "IN_PROGRESS")
        return job, execution

    def report(self, job: str, execution: IotExecution, status: str) -> bool:
        """The device's end of an execution; False where it is over already, or gone."""
        made = self.jobs.get(job)
        now = made.executions.get(execution.thing) if made else None
        if made is None or now is not execution or now.status != "IN_PROGRESS":
            return False
        self._change(made, now, status)
        return True

    # Time

    def pass_time(self, seconds: float) -> None:
        """IoT works on what it was asked to do."""
        self.now += seconds
        due = [move for move in self.moves if move[0] <= self.now]
        if due:
            self.moves = [move for move in self.moves if move[0] > self.now]
            for _, group, thing, is_join in due:
                self._move(group, thing, is_join)
        for job in list(self.jobs.values()):
            if job.gone_at is not None:
                if self.now >= job.gone_at:
                    del self.jobs[job.id]
            elif job.is_live:
                self._notify(job, seconds)
                self._time_out(job)
                self._abort(job)
            elif job.status == "CANCELED":
                self._cancel_queued(job, seconds)
                self._time_out(job)

    def _move(self, group: str, thing: str, is_join: bool) -> None:
        is_member = thing in self.groups.get(group, {})
        for job in self.jobs.values():
            if job.group != group:
                continue
            execution = job.executions.get(thing)
            if is_join and is_member and job.is_live and thing not in job.to_notify:
                if execution is None or execution.status not in OPEN:
                    self._queue(job, thing)
            elif not is_join and not is_member:
                if thing in job.to_notify:
                    job.to_notify.remove(thing)
                if execution and execution.status == "QUEUED":
                    self._change(job, execution, "REMOVED")

    def _queue(self, job: IotJob, thing: str) -> None:
        earlier = job.executions.get(thing)
        if earlier:
            job.counts[earlier.status] -= 1
        number = earlier.number + 1 if earlier else 1
        job.executions[thing] = IotExecution(thing=thing, number=number, queued_at=self.now)
        job.counts["QUEUED"] += 1
        job.queued[thing] = None
        self.pending.setdefault(thing, set()).add(job.id)

    def _change(self, job: IotJob, execution: IotExecution, status: str) -> None:
        thing = execution.thing
        job.counts[execution.status] -= 1
        job.counts[status] += 1
        execution.was, execution.status = execution.status, status
        execution.changed_at = self.late(self.weather.list_lag)
        job.queued.pop(thing, None)
        if status == "IN_PROGRESS":
            job.in_progress.add(thing)
        else:
            job.in_progress.discard(thing)
        if status not in OPEN:
            self.pending.get(thing, set()).discard(job.id)

    def _notify(self, job: IotJob, seconds: float) -> None:
        if not job.to_notify:
            return
        config = job.request.get("jobExecutionsRolloutConfig", {})
        rate = config.get("maximumPerMinute", 1000)
        exponential = config.get("exponentialRate")
        if exponential:
            per = exponential["rateIncreaseCriteria"]
            notified, succeeded = len(job.executions), job.counts["SUCCEEDED"]
            steps = (
                notified // per["numberOfNotifiedThings"]
                if "numberOfNotifiedThings" in per
                else succeeded // per["numberOfSucceededThings"]
            )
            base, factor = exponential["baseRatePerMinute"], exponential["incrementFactor"]
            rate = min(rate, base * factor ** min(steps, 40))
        job.notify_budget = min(job.notify_budget + rate * seconds / 60, rate)
        while job.to_notify and job.notify_budget >= 1:
            thing = job.to_notify.popleft()
            if thing in self.groups.get(job.group, {}) and thing not in job.executions:
                self._queue(job, thing)
                job.notify_budget -= 1

    def _cancel_queued(self, job: IotJob, seconds: float) -> None:
        if not job.queued or self.now < job.cancels_from:
            return
        job.cancel_budget += self.weather.cancel_per_minute * seconds / 60
        while job.queued and job.cancel_budget >= 1:
            self._change(job, job.executions[next(reversed(job.queued))], "CANCELED")
            job.cancel_budget -= 1

    def _time_out(self, job: IotJob) -> None:
        minutes = job.request.get("timeoutConfig", {}).get("inProgressTimeoutInMinutes")
        for thing in list(job.in_progress) if minutes else ():
            execution = job.executions[thing]
            if execution.started_at is not None and self.now >= execution.started_at + minutes * 60:
                self._change(job, execution, "TIMED_OUT")

    def _abort(self, job: IotJob) -> None:
        """IoT's own brake, which bears no reason that anybody documents."""
        done = sum(job.counts[s] for s in ("SUCCEEDED", "FAILED", "TIMED_OUT", "REJECTED"))
        for criterion in job.request.get("abortConfig", {}).get("criteriaList", ()):
            share = 100 * job.counts[criterion["failureType"]]
            if (
                done >= criterion["minNumberOfExecutedThings"]
                and share >= criterion["thresholdPercentage"] * done
                and share > 0
            ):
                self.cancel(job, self.random.choice(ABORT_REASONS))
                return


def group_arn(group: str) -> str:
    return f"{IOT_ARN}:thinggroup/{group}"


def summary_of(execution: IotExecution, status: str | None) -> dict[str, Any]:
    summary = {
        "status": status,
        "queuedAt": moment_of(execution.queued_at),
        "lastUpdatedAt": moment_of(execution.changed_at),
        "executionNumber": execution.number,
    }
    if execution.started_at is not None and status != "QUEUED":
        summary["startedAt"] = moment_of(execution.started_at)
    return summary
