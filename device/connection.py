"""A device's connection to AWS IoT: MQTT 5 over mutual TLS, with requests and answers as
docs/device-contract.md has them.

Every call here is made by the device's own thread and waits for the answer there; the SDK's threads
only pass events on. Answers are read strictly: the SDK's typed clients would read them leniently,
and leave out the time that a job has left.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from typing import Any, Literal

from awscrt import mqtt5
from awscrt.exceptions import AwsCrtError
from awscrt.mqtt_request_response import (
    Client,
    ClientOptions,
    RequestOptions,
    Response,
    ResponsePath,
    StreamingOperationOptions,
    SubscriptionStatusEvent,
    SubscriptionStatusEventType,
)
from awsiot import mqtt5_client_builder

from device.strict_json import StrictJsonError, read_strict_json

ExecutionStatus = Literal["IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED"]
"""What a device may set; the other statuses are IoT's."""

REQUEST_TIMEOUT_SECONDS = 10
"""Without an answer; then the device asks again."""
STOP_TIMEOUT_SECONDS = 5.0
KEEP_ALIVE_SECONDS = 60
RECONNECT_MILLISECONDS = (250, 60_000)
"""Bounds of the wait before a new connection: the first, doubling to the longest; each wait is
drawn from 0 to its bound."""
REQUEST_SUBSCRIPTIONS = 10
"""Answer topics subscribed at once; a job in hand needs eight, two for each of `$next`, its
document, its updates and the shadow."""
JOB_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
ENDED_CODES = frozenset({"InvalidStateTransition", "TerminalStateReached", "ResourceNotFound"})
"""Answers that say: this execution is over, or gone with its job."""
RETRY_CODES = frozenset({"RequestThrottled", "InternalError", 429, 500})
"""The shadow's codes are numbers."""


class Unreachable(Exception):
    """No answer, or none yet: ask again later."""


class NoAnswer(Unreachable):
    """The request went out, as far as known, and nothing came back."""


class Unreadable(Unreachable):
    """The answer is no JSON that a device reads."""


class RequestRefused(Exception):
    """IoT will not have this request, now or later."""


class Stopped(Exception):
    """The device is being stopped."""


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
class ConnectionConfig:
    """Where and as whom a device connects; PEM texts. The client id is the thing name, as the
    device policy demands."""

    thing: str
    certificate_pem: str
    private_key_pem: str
    ca_pem: str
    """Of the root CA that signed the endpoint's certificate; "" means the system's."""
    host: str
    port: int
    """8883, or 443 (ALPN) where only that is let through."""


class Connection:
    """One connection; the SDK reconnects by itself. Both callbacks run on the SDK's threads.

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
        self._stopping: Future[None] = Future()
        self._stopped = threading.Event()
        self._on_ready, self._on_trouble = on_ready, on_trouble
        self._client = mqtt5_client_builder.mtls_from_bytes(
            config.certificate_pem.encode(),
            config.private_key_pem.encode(),
            endpoint=config.host,
            port=config.port,
            ca_bytes=config.ca_pem.encode() or None,
            client_id=config.thing,
            keep_alive_interval_sec=KEEP_ALIVE_SECONDS,
            min_reconnect_delay_ms=RECONNECT_MILLISECONDS[0],
            max_reconnect_delay_ms=RECONNECT_MILLISECONDS[1],
            retry_jitter_mode=mqtt5.ExponentialBackoffJitterMode.FULL,
            on_lifecycle_connection_failure=lambda data: on_trouble(
                f"cannot connect: {data.exception}"
            ),
            on_lifecycle_stopped=lambda _: self._stopped.set(),
        )
        options = ClientOptions(REQUEST_SUBSCRIPTIONS, 1, REQUEST_TIMEOUT_SECONDS)
        self._requests = Client(self._client, options)
        self._notices = self._requests.create_stream(
            StreamingOperationOptions(
                f"$aws/things/{self._thing}/jobs/notify-next",
                self._on_subscription,
                lambda _: on_ready(),
            )
        )

    def start(self) -> None:
        self._client.start()
        self._notices.open()

    def interrupt(self) -> None:
        """Makes the device's thread, and every call it makes from now on, raise Stopped."""
        if not self._stopping.done():
            self._stopping.set_result(None)

    def close(self) -> None:
        """Disconnects and lets the SDK's clients go."""
        self.interrupt()
        self._client.stop()
        self._stopped.wait(STOP_TIMEOUT_SECONDS)
        del self._notices, self._requests, self._client

    def sleep(self, seconds: float) -> None:
        """Waits; raises Stopped if the device is stopped meanwhile."""
        if wait([self._stopping], timeout=seconds).done:
            raise Stopped

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
        token, topic = str(uuid.uuid4()), f"$aws/things/{self._thing}/{operation}"
        answers = [f"{topic}/accepted", f"{topic}/rejected"]
        options = RequestOptions(
            answers,
            [ResponsePath(answer, "clientToken") for answer in answers],
            topic,
            json.dumps({**request, "clientToken": token}).encode(),
            token,
        )
        response = self._wait_for(self._requests.make_request(options))
        try:
            answer = read_strict_json(response.payload or b"")
        except StrictJsonError as error:
            raise Unreadable(str(error)) from error
        if not isinstance(answer, dict):
            raise Unreadable("not an object")
        if response.topic.endswith("/rejected"):
            raise _to_exception(answer)
        return answer

    def _wait_for(self, future: Future[Response]) -> Response:
        """The SDK's answer. The SDK ends a request by itself; the time here is for the case that it
        does not."""
        seconds = REQUEST_TIMEOUT_SECONDS + STOP_TIMEOUT_SECONDS
        done = wait((future, self._stopping), timeout=seconds, return_when=FIRST_COMPLETED).done
        if self._stopping in done:
            raise Stopped
        if future not in done:
            raise NoAnswer("no answer")
        try:
            return future.result()
        except AwsCrtError as error:
            raise NoAnswer(str(error)) from error

    def _on_subscription(self, event: SubscriptionStatusEvent) -> None:
        if event.type == SubscriptionStatusEventType.SUBSCRIPTION_ESTABLISHED:
            self._on_ready()
        elif event.type == SubscriptionStatusEventType.SUBSCRIPTION_HALTED:
            self._on_trouble(f"may not subscribe to notify-next: {event.error}")


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
