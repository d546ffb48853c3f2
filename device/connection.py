"""A device's connection to AWS IoT, with the requests and answers of docs/device-contract.md.

Every call here is made by the device's own thread and waits for the answer there.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from device.mqtt import Endpoint, MqttSession, Unreachable, Unreadable

ExecutionStatus = Literal["IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED"]
"""What a device may set; the other statuses are IoT's."""

JOB_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
ENDED_CODES = frozenset({"InvalidStateTransition", "TerminalStateReached", "ResourceNotFound"})
"""Answers that say: this execution is over, or gone with its job."""
RETRY_CODES = frozenset({"RequestThrottled", "InternalError", 429, 500})
"""The shadow's codes are numbers."""


class RequestRefused(Exception):
    """IoT will not have this request, now or later."""


class JobEnded(Exception):
    """The execution is terminal or deleted: cancelled, timed out, removed. `status` as far as
    known."""

    def __init__(self, status: str) -> None:
        self.status = status
        super().__init__(status)


class VersionMismatch(Exception):
    """The execution has another version than expected, and is still in progress."""

    def __init__(self, version: int) -> None:
        self.version = version
        super().__init__(str(version))


@dataclass(frozen=True, kw_only=True)
class JobExecution:
    """A job execution as IoT names it (JobExecution), without its document."""

    job_id: str
    number: int
    version: int
    is_queued: bool
    """Nobody has begun it yet."""


@dataclass(frozen=True, kw_only=True)
class JobHandout:
    """What IoT hands out for an execution in progress."""

    document: object
    """Its job document; None if it is not there, or cannot be read."""
    seconds_left: float | None
    """Until IoT ends the execution as TIMED_OUT, about; None if IoT names no time."""


@dataclass(frozen=True, kw_only=True)
class ConnectionConfig(Endpoint):
    """Where and as whom a device connects; PEM texts. The client id is the thing name, as the
    device policy demands."""

    thing: str
    certificate_pem: str
    private_key_pem: str


class Connection(MqttSession):
    """A device's connection; the SDK reconnects by itself. Both callbacks run on the SDK's threads.

    `on_ready` is called after every subscribe to notify-next and for every message there,
    `on_trouble` with a short text when a connection attempt or the subscription failed.
    """

    def __init__(
        self,
        config: ConnectionConfig,
        on_ready: Callable[[], None],
        on_trouble: Callable[[str], None],
    ) -> None:
        self._thing = config.thing
        identity = (config.certificate_pem, config.private_key_pem)
        super().__init__(config, config.thing, *identity, on_trouble=on_trouble)
        self.listen(f"$aws/things/{self._thing}/jobs/notify-next", on_ready)

    def find_next_job(self) -> JobExecution | None:
        """The next job, as it is: the one in progress if there is one, else the oldest queued. It
        changes nothing, so it is asked after every connection."""
        try:
            found = self._ask("jobs/$next/get", {"includeJobDocument": False}).get("execution")
        except JobEnded as error:  # there is no such thing
            raise RequestRefused(str(error)) from error
        if not found:
            return None
        execution = found if isinstance(found, dict) else {}
        job, status = execution.get("jobId"), execution.get("status")
        number, version = execution.get("executionNumber"), execution.get("versionNumber")
        if (
            not (isinstance(job, str) and JOB_NAME.fullmatch(job))
            or not (isinstance(number, int) and isinstance(version, int))
            or status not in ("QUEUED", "IN_PROGRESS")
        ):
            raise Unreadable("an execution that is none")
        return JobExecution(
            job_id=job, number=number, version=version, is_queued=status == "QUEUED"
        )

    def fetch_document(self, execution: JobExecution) -> JobHandout:
        """The execution's job document, with a newly presigned URL. Without a document if IoT's
        answer to this cannot be read."""
        request = {"executionNumber": execution.number, "includeJobDocument": True}
        try:
            answer = self._ask(f"jobs/{execution.job_id}/get", request)
        except Unreadable:
            return JobHandout(document=None, seconds_left=None)
        found = answer.get("execution")
        found = found if isinstance(found, dict) else {}
        left = found.get("approximateSecondsBeforeTimedOut")
        return JobHandout(
            document=found.get("jobDocument"),
            seconds_left=left if isinstance(left, int | float) else None,
        )

    def update_job(
        self,
        execution: JobExecution,
        status: ExecutionStatus,
        details: Mapping[str, str] | None = None,
    ) -> JobExecution:
        """Sets the status if the execution still has its version; returns it with the new one."""
        request = {
            "executionNumber": execution.number,
            "expectedVersion": execution.version,
            "includeJobExecutionState": True,
            "status": status,
        } | ({"statusDetails": dict(details)} if details else {})
        answer = self._ask(f"jobs/{execution.job_id}/update", request)
        version = _execution_state(answer).get("versionNumber")
        if not isinstance(version, int):
            version = execution.version + 1
        return replace(execution, version=version, is_queued=False)

    def update_shadow(self, reported: Mapping[str, Any]) -> None:
        """Writes the reported state of the classic shadow."""
        self._ask("shadow/update", {"state": {"reported": dict(reported)}})

    def _ask(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Publishes a request and waits for its answer. Raises what an error in it means."""
        topic = f"$aws/things/{self._thing}/{operation}"
        answer = self.ask(topic, request, token=str(uuid.uuid4()))
        if not answer.is_accepted:
            raise _to_exception(answer.body)
        return answer.body


def _execution_state(answer: Mapping[str, Any]) -> dict[str, Any]:
    state = answer.get("executionState")
    return state if isinstance(state, dict) else {}


def _to_exception(answer: Mapping[str, Any]) -> Exception:
    """What an error answer means for the device."""
    code, state = answer.get("code"), _execution_state(answer)
    status, version = state.get("status"), state.get("versionNumber")
    if code == "VersionMismatch" and status in ("QUEUED", "IN_PROGRESS"):
        return VersionMismatch(version if isinstance(version, int) else 0)
    if code == "VersionMismatch" or code in ENDED_CODES:
        return JobEnded(str(status or code))
    if code in RETRY_CODES:
        return Unreachable(f"{code}: {answer.get('message')}")
    return RequestRefused(f"{code}: {answer.get('message')}")
