"""The channel's jobs in AWS IoT Jobs, and their executions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from botocore.exceptions import ClientError

from cloud.clients import AWS_ERRORS, PAGE, Clients, attempt, error_code, is_missing, list_all
from rollout.names import Names
from rollout.observed import DISARMED, LIVE, Job

BEGAN = ("IN_PROGRESS", "SUCCEEDED", "FAILED", "TIMED_OUT")
"""Statuses of executions that a device began and did not reject. In this order a device that goes
on while they are listed one after the other is not missed."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One job on one device (JobExecutionSummary). Times are seconds since 1970."""

    job: str
    thing: str
    number: int
    status: str
    queued_at: float | None
    started_at: float | None
    last_updated_at: float | None


class Jobs:
    def __init__(self, clients: Clients, names: Names) -> None:
        self._clients, self._names = clients, names

    def live(self) -> dict[str, Job]:
        """The jobs under the channel's prefix that are not over, by id, the oldest first; without
        their counts. Others may have made some of them."""
        items = (item for status in sorted(LIVE) for item in self._list(status=status))
        return {
            item["jobId"]: Job(status=item["status"]) for item in sorted(items, key=_created_at)
        }

    def statuses(self) -> dict[str, str]:
        """By id, the oldest first: the status of every job under the channel's prefix that IoT
        still knows, ended ones too. Reads the whole account's list."""
        items = sorted(self._list(), key=_created_at)
        return {item["jobId"]: item["status"] for item in items}

    def _list(self, **only: str) -> Iterator[Any]:
        items = list_all(self._clients.iot, "list_jobs", "jobs", **only)
        return (item for item in items if item["jobId"].startswith(self._names.job_prefix))

    def get(self, job: str) -> Job | None:
        """The job with its counts; None where IoT does not know it."""
        try:
            return Job.from_answer(self._clients.iot.describe_job(jobId=job)["job"])
        except ClientError as error:
            if is_missing(error):
                return None
            raise

    def document(self, job: str) -> str | None:
        """The job's document as it was made; None where IoT does not know the job."""
        try:
            return str(self._clients.iot.get_job_document(jobId=job)["document"])
        except ClientError as error:
            if is_missing(error):
                return None
            raise

    def get_all(self, jobs: Iterable[str]) -> dict[str, Job]:
        """Those of the jobs that IoT knows, by id, with their counts."""
        return {name: job for name in dict.fromkeys(jobs) if (job := self.get(name))}

    def get_each(self, jobs: Iterable[str]) -> tuple[dict[str, Job], dict[str, str]]:
        """As `get_all`, each by itself; beside them, those that AWS would not show, and why."""
        found: dict[str, Job] = {}
        unread: dict[str, str] = {}
        for name in jobs:
            try:
                job = self.get(name)
            except AWS_ERRORS as error:
                unread[name] = str(error)
                continue
            if job:
                found[name] = job
        return found, unread

    def create(self, job: str, request: dict[str, Any]) -> bool:
        """CreateJob; False where the id is taken already."""
        try:
            self._clients.iot.create_job(jobId=job, **request)
        except ClientError as error:
            if error_code(error) != "ResourceAlreadyExistsException":
                raise
            return False
        return True

    def cancel(self, job: str, reason_code: str, comment: str, *, force: bool = False) -> bool:
        """CancelJob; False where the job had ended already. Unless forced, what a device has begun
        goes on."""
        return attempt(
            self._clients.iot.cancel_job,
            jobId=job,
            reasonCode=reason_code,
            comment=comment,
            **({"force": True} if force else {}),
        )

    def delete(self, job: str) -> bool:
        """DeleteJob, by force; AWS takes its time. False where it cannot take any more: ten are
        being deleted."""
        try:
            attempt(self._clients.iot.delete_job, jobId=job, force=True)
        except ClientError as error:
            if error_code(error) != "LimitExceededException":
                raise
            return False
        return True

    def disarm(self, job: str) -> None:
        """Sets abort criteria that never fire: UpdateJob cannot take them away."""
        criteria = [
            {
                "failureType": kind,
                "action": "CANCEL",
                "thresholdPercentage": 100.0,
                "minNumberOfExecutedThings": DISARMED,
            }
            for kind in ("FAILED", "TIMED_OUT")
        ]
        attempt(self._clients.iot.update_job, jobId=job, abortConfig={"criteriaList": criteria})

    # Executions

    def execution_page(
        self, job: str, status: str, token: str | None
    ) -> tuple[list[str], str | None]:
        """One page of a job's executions in this status, as the names of their things, and the
        token of the next page. Of cancelled ones, those that a device had begun."""
        answer = self._clients.iot.list_job_executions_for_job(
            jobId=job, status=status, maxResults=PAGE, **({"nextToken": token} if token else {})
        )
        things = [
            item["thingArn"].rsplit("/", 1)[1]
            for item in answer["executionSummaries"]
            if status != "CANCELED" or "startedAt" in item["jobExecutionSummary"]
        ]
        return things, answer.get("nextToken")

    def sample(self, job: str, status: str, most: int) -> list[Execution]:
        """At most `most` executions of a job that are in this status."""
        return list(islice(self._executions(job, status), most))

    def _executions(self, job: str, status: str) -> Iterator[Execution]:
        """None where IoT does not know the job: its CreateJob was never made, or it is deleted."""
        items = list_all(
            self._clients.iot,
            "list_job_executions_for_job",
            "executionSummaries",
            jobId=job,
            status=status,
        )
        try:
            for item in items:
                thing = item["thingArn"].rsplit("/", 1)[1]
                yield _execution(job, thing, item["jobExecutionSummary"])
        except ClientError as error:
            if not is_missing(error):
                raise

    def of_thing(self, thing: str) -> list[Execution]:
        """The device's executions of the channel's jobs."""
        items = list_all(
            self._clients.iot,
            "list_job_executions_for_thing",
            "executionSummaries",
            thingName=thing,
        )
        return [
            _execution(item["jobId"], thing, item["jobExecutionSummary"])
            for item in items
            if self._names.split_job(item["jobId"])
        ]

    def status_details(self, execution: Execution) -> dict[str, str]:
        """What the device said of its execution, as it said it; empty where it said nothing."""
        try:
            answer = self._clients.iot.describe_job_execution(
                jobId=execution.job, thingName=execution.thing, executionNumber=execution.number
            )
        except ClientError as error:
            if is_missing(error):
                return {}
            raise
        details = (answer["execution"].get("statusDetails") or {}).get("detailsMap") or {}
        return {key: str(value) for key, value in details.items()}


def _created_at(item: dict[str, Any]) -> float:
    at: datetime | None = item.get("createdAt")
    return at.timestamp() if at else 0.0


def _execution(job: str, thing: str, summary: dict[str, Any]) -> Execution:
    def seconds(key: str) -> float | None:
        at: datetime | None = summary.get(key)
        return at.timestamp() if at else None

    return Execution(
        job=job,
        thing=thing,
        number=summary["executionNumber"],
        status=summary["status"],
        queued_at=seconds("queuedAt"),
        started_at=seconds("startedAt"),
        last_updated_at=seconds("lastUpdatedAt"),
    )
