"""A device's connection to AWS IoT: MQTT 5 over mutual TLS, with the SDK's jobs and shadow clients.

Every call here is made by the device's own thread and waits for the answer there; the SDK's threads
only pass events on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from typing import Any, Literal

from awscrt import mqtt5
from awscrt.mqtt_request_response import (
    ClientOptions,
    SubscriptionStatusEvent,
    SubscriptionStatusEventType,
)
from awsiot import (
    ServiceStreamOptions,
    V2ServiceException,
    iotjobs,
    iotshadow,
    mqtt5_client_builder,
)

ExecutionStatus = Literal["IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED"]
"""What a device may set; the other statuses are IoT's."""

REQUEST_TIMEOUT_SECONDS = 10
"""Without an answer; then the device asks again."""
STOP_TIMEOUT_SECONDS = 5.0
KEEP_ALIVE_SECONDS = 60
RECONNECT_MILLISECONDS = (250, 20_000)
REQUEST_SUBSCRIPTIONS = 10
"""Response topics subscribed at once; a job in hand needs five (start-next, update, get, two of the
shadow)."""
ENDED_CODES = frozenset({"InvalidStateTransition", "TerminalStateReached", "ResourceNotFound"})
"""Answers that say: this execution is over, or gone with its job."""
RETRY_CODES = frozenset({"RequestThrottled", "InternalError"})


class Unreachable(Exception):
    """No answer, or none yet: ask again later."""


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
    """A job execution as IoT hands it out (JobExecutionData)."""

    job_id: str
    number: int
    version: int
    document: object


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
        self._jobs = iotjobs.IotJobsClientV2(self._client, options)
        self._shadow = iotshadow.IotShadowClientV2(
            self._client, ClientOptions(2, 1, REQUEST_TIMEOUT_SECONDS)
        )
        self._stream = self._jobs.create_next_job_execution_changed_stream(
            iotjobs.NextJobExecutionChangedSubscriptionRequest(thing_name=config.thing),
            ServiceStreamOptions(lambda _: on_ready(), self._on_subscription),
        )

    def start(self) -> None:
        self._client.start()
        self._stream.open()

    def interrupt(self) -> None:
        """Makes the device's thread, and every call it makes from now on, raise Stopped."""
        if not self._stopping.done():
            self._stopping.set_result(None)

    def close(self) -> None:
        """Disconnects and lets the SDK's clients go."""
        self.interrupt()
        self._client.stop()
        self._stopped.wait(STOP_TIMEOUT_SECONDS)
        del self._stream, self._jobs, self._shadow, self._client

    def sleep(self, seconds: float) -> None:
        """Waits; raises Stopped if the device is stopped meanwhile."""
        if wait([self._stopping], timeout=seconds).done:
            raise Stopped

    def start_next_job(self) -> JobExecution | None:
        """Takes the next job: the one in progress if there is one, else the oldest queued, which
        then is IN_PROGRESS."""
        request = iotjobs.StartNextPendingJobExecutionRequest(thing_name=self._thing)
        answer = self._wait_for(self._jobs.start_next_pending_job_execution(request))
        execution = answer.execution
        if execution is None or execution.job_id is None:
            return None
        return JobExecution(
            job_id=execution.job_id,
            number=execution.execution_number,
            version=execution.version_number,
            document=execution.job_document,
        )

    def fetch_document(self, execution: JobExecution) -> object:
        """The execution's job document once more, with a newly presigned URL."""
        request = iotjobs.DescribeJobExecutionRequest(
            thing_name=self._thing,
            job_id=execution.job_id,
            execution_number=execution.number,
            include_job_document=True,
        )
        return self._wait_for(self._jobs.describe_job_execution(request)).execution.job_document

    def update_job(
        self, execution: JobExecution, status: ExecutionStatus, details: Mapping[str, str]
    ) -> JobExecution:
        """Sets the status if the execution still has its version; returns it with the new one."""
        request = iotjobs.UpdateJobExecutionRequest(
            thing_name=self._thing,
            job_id=execution.job_id,
            execution_number=execution.number,
            expected_version=execution.version,
            status=status,
            status_details=dict(details),
            include_job_execution_state=True,
        )
        state = self._wait_for(self._jobs.update_job_execution(request)).execution_state
        version = execution.version + 1 if state is None else state.version_number
        return replace(execution, version=version)

    def update_shadow(self, reported: Mapping[str, Any]) -> None:
        """Writes the reported state of the classic shadow."""
        request = iotshadow.UpdateShadowRequest(
            thing_name=self._thing,
            state=iotshadow.ShadowState(reported=dict(reported), reported_is_nullable=False),
        )
        self._wait_for(self._shadow.update_shadow(request))

    def _wait_for(self, future: Future[Any]) -> Any:
        """The SDK's answer, or what its error means. The SDK ends a request by itself; the time
        here is for the case that it does not."""
        seconds = REQUEST_TIMEOUT_SECONDS + STOP_TIMEOUT_SECONDS
        done = wait((future, self._stopping), timeout=seconds, return_when=FIRST_COMPLETED).done
        if self._stopping in done:
            raise Stopped
        if future not in done:
            raise Unreachable("no answer")
        error = future.exception()
        if isinstance(error, V2ServiceException):
            raise _to_exception(error)
        return future.result()

    def _on_subscription(self, event: SubscriptionStatusEvent) -> None:
        if event.type == SubscriptionStatusEventType.SUBSCRIPTION_ESTABLISHED:
            self._on_ready()
        elif event.type == SubscriptionStatusEventType.SUBSCRIPTION_HALTED:
            self._on_trouble(f"may not subscribe to notify-next: {event.error}")


def _to_exception(error: V2ServiceException) -> Exception:
    """What an error answer means for the device."""
    answer = error.modeled_error
    if answer is None:
        return Unreachable(str(error.inner_error))
    status = getattr(getattr(answer, "execution_state", None), "status", None)
    if answer.code == "VersionMismatch" and status in ("QUEUED", "IN_PROGRESS"):
        return VersionMismatch(answer.execution_state.version_number)
    if answer.code == "VersionMismatch" or answer.code in ENDED_CODES:
        return JobEnded(status or answer.code)
    if answer.code in RETRY_CODES or answer.code in (429, 500):
        return Unreachable(f"{answer.code}: {answer.message}")
    return RequestRefused(f"{answer.code}: {answer.message}")
