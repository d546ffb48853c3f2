"""The reference device: one simulated device that takes firmware jobs as docs/device-contract.md
says.

Each device has one thread of its own, which sleeps until IoT says that the next job changed. The
rules are in judge.py, the download in download.py, slots, memory and boot loader in slots.py, the
connection in link.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal, Protocol

from rollout.document import Statement
from sandbox.download import NO_DOWNLOAD, Download, DownloadError
from sandbox.judge import AlreadyThere, Fail, Reject, judge, load_keys
from sandbox.link import (
    Endpoint,
    Execution,
    JobEnded,
    Link,
    Refused,
    Stopped,
    Unreachable,
    VersionMismatch,
)
from sandbox.slots import JobKey, Outcome, Slots

Step = Literal["checking", "downloading", "installing", "rebooting", "self-test", "reporting"]
MAX_DETAIL = 1024
"""Characters in a value of statusDetails (UpdateJobExecution)."""
QUARTER = 25
"""A download reports each quarter (percent), at least PROGRESS_SECONDS apart: a short one reports
its start only."""
PROGRESS_SECONDS = 5.0
FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0
"""Seconds until an unanswered request is made again, doubling."""
CONFLICTS = 3
"""How often an update is repeated because the execution's version was another."""


@dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """What one device is born with. PEM texts; `public_key_pem` may hold two keys while the signing
    key is rotated."""

    thing: str
    serial: str
    certificate_pem: str
    private_key_pem: str
    ca_pem: str
    host: str
    port: int
    public_key_pem: str
    channel: str
    hardware: str
    initial_version: str
    initial_sha256: str
    folder: Path
    """Its flash: slots and memory outlive the Device object."""


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What a test may do to a device; nothing by default."""

    die_at: Step | None = None
    """The power is cut in this step: nothing more is written or sent. A new Device with the same
    folder is the next boot."""
    seconds_per_step: float = 0.0


class Died(Exception):
    """The power was cut, because `Faults.die_at` says so."""


class Connection(Protocol):
    """What the device needs of sandbox.link.Link."""

    def start(self) -> None: ...
    def interrupt(self) -> None: ...
    def close(self) -> None: ...
    def sleep(self, seconds: float) -> None: ...
    def start_next(self) -> Execution | None: ...
    def document(self, execution: Execution) -> object: ...
    def update(
        self,
        execution: Execution,
        version: int,
        status: Literal["IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED"],
        details: dict[str, str],
    ) -> int: ...
    def report(self, reported: dict[str, Any]) -> None: ...


Connect = Callable[[Endpoint, Callable[[], None], Callable[[str], None]], Connection]


class Device:
    """One device. `on_progress(serial, text)` is called on the device's own thread.

    `died` is set once a fault has cut its power.
    """

    def __init__(
        self,
        config: DeviceConfig,
        on_progress: Callable[[str, str], None] | None = None,
        *,
        faults: Faults = Faults(),
        connect: Connect = Link,
    ) -> None:
        self.config = config
        self.died = threading.Event()
        self._on_progress = on_progress
        self._faults = faults
        self._keys = load_keys(config.public_key_pem)
        self._slots = Slots(config.folder, config.initial_version, config.initial_sha256)
        self._events: SimpleQueue[str | None] = SimpleQueue()
        """Trouble to tell, once; None says that IoT may have work."""
        self._trouble: str | None = None
        endpoint = Endpoint(
            thing=config.thing,
            certificate_pem=config.certificate_pem,
            private_key_pem=config.private_key_pem,
            ca_pem=config.ca_pem,
            host=config.host,
            port=config.port,
        )
        self._link = connect(endpoint, lambda: self._events.put(None), self._events.put)
        self._thread = threading.Thread(
            target=self._live, name=f"device {config.serial}", daemon=True
        )
        self._reported: dict[str, Any] | None = None

    def start(self) -> None:
        """Boots, connects and takes jobs as they come; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Disconnects and waits for the thread to end. What was in hand is resumed by the next
        Device with this folder."""
        self._link.interrupt()
        self._events.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _live(self) -> None:
        self._link.start()
        try:
            self._boot()
            retry: float | None = None
            while True:
                if self._called(retry):
                    retry = self._work(retry)
        except Stopped:
            pass
        except Died:
            self.died.set()
        finally:
            self._link.close()

    def _called(self, timeout: float | None) -> bool:
        """Waits for an event, or until it is time to try again; True where there may be work. Takes
        all events at once."""
        work = False
        try:
            while True:
                text = self._events.get(timeout=timeout)
                timeout = 0
                work = work or text is None
                if text is not None and text != self._trouble:
                    self._tell(text)
                self._trouble = text
                if self._events.empty():
                    break
        except Empty:
            work = True
        self._link.sleep(0)
        return work

    def _work(self, retry: float | None) -> float | None:
        """Does all that is to do; returns the seconds after which to try again, None when nothing
        is left."""
        try:
            self._publish()
            while self._take_next():
                pass
            return None
        except Unreachable as error:
            self._tell(f"no answer: {error}")
            return min(2 * retry, LONGEST_RETRY) if retry else FIRST_RETRY
        except Refused as error:
            self._tell(f"refused: {error}")
            return LONGEST_RETRY

    def _take_next(self) -> bool:
        """Takes the next job to its end; False when there is none."""
        execution = self._link.start_next()
        if execution is None:
            if self._slots.memory.outcome is not None:
                self._slots.remember(outcome=None)
            return False
        job = _Job(self._link, execution)
        key = JobKey(job_id=execution.job_id, execution=execution.number)
        try:
            outcome = self._slots.memory.outcome
            if outcome is None or outcome.job != key:
                outcome = self._perform(job, key)
            self._enter("reporting")
            self._publish()
            job.update(outcome.status, self._details(outcome))
            self._tell(
                f"{outcome.status}: {outcome.reason}"
                + (f" ({outcome.detail})" if outcome.detail else "")
            )
        except JobEnded as ended:
            self._tell(f"{execution.job_id} ended meanwhile: {ended.status}")
        return True

    def _perform(self, job: _Job, key: JobKey) -> Outcome:
        self._enter("checking")
        verdict = judge(job.execution.document, self._slots.memory, self._keys, self.config)
        if isinstance(verdict, Fail):
            return Outcome(status="FAILED", reason=verdict.reason, detail=verdict.detail)
        if isinstance(verdict, Reject):
            return Outcome(status="REJECTED", reason=verdict.reason, detail=verdict.detail)
        if isinstance(verdict, AlreadyThere):
            self._slots.remember(
                sequence=max(self._slots.memory.sequence, verdict.statement.sequence)
            )
            return Outcome(status="SUCCEEDED", reason="already installed")
        try:
            return self._install(job, key, verdict.statement, verdict.url)
        except DownloadError as error:
            return Outcome(status="FAILED", reason=error.reason, detail=error.detail)

    def _install(self, job: _Job, key: JobKey, statement: Statement, url: str) -> Outcome:
        target = self._slots.accept(statement)
        self._enter("downloading")
        progress = _Progress(job, statement, target.stat().st_size if target.exists() else 0)
        self._tell(f"{statement.version}: downloading")

        def on_bytes(have: int) -> None:
            if 2 * have >= statement.size:
                self._die("downloading")
            progress.at(have)

        Download(
            target,
            statement.size,
            statement.sha256,
            fresh_url=lambda: self._fresh_url(job),
            pause=self._link.sleep,
            on_bytes=on_bytes,
        ).run(url)
        self._enter("installing")
        self._die("installing")
        job.update(
            "IN_PROGRESS",
            {"step": "rebooting", "percent": "100", "version": self._slots.memory.version},
        )
        self._slots.try_out(statement, key)
        self._enter("rebooting")
        self._die("rebooting")
        self._tell(f"{statement.version}: rebooting")
        self._boot()
        outcome = self._slots.memory.outcome
        if outcome is None:
            raise RuntimeError("a trial boot ended without an outcome")
        return outcome

    def _fresh_url(self, job: _Job) -> str:
        """A newly presigned URL for the job in hand; everything else in the document must be as it
        was."""
        old, new = job.execution.document, self._link.document(job.execution)
        if (
            not isinstance(old, dict)
            or not isinstance(new, dict)
            or new.get("release") != old.get("release")
        ):
            raise DownloadError(NO_DOWNLOAD, "the job's document changed")
        verdict = judge(new, self._slots.memory, self._keys, self.config)
        if isinstance(verdict, Fail | Reject | AlreadyThere):
            raise DownloadError(NO_DOWNLOAD, "the job's document changed")
        return verdict.url

    def _boot(self) -> None:
        def during() -> None:
            self._enter("self-test")
            self._die("self-test")

        self._slots.boot(self.config.hardware, during)

    def _publish(self) -> None:
        """Reports in the shadow what runs, unless that was the last thing it reported."""
        memory = self._slots.memory
        firmware = {"version": memory.version, "sha256": memory.sha256, "sequence": memory.sequence}
        reported = {"firmware": firmware, "hardware": self.config.hardware}
        if reported != self._reported:
            self._link.report(reported)
            self._tell(f"runs {memory.version}")
            self._reported = reported

    def _details(self, outcome: Outcome) -> dict[str, str]:
        details = {"step": "done", "reason": outcome.reason, "version": self._slots.memory.version}
        return details | ({"detail": _one_line(outcome.detail)} if outcome.detail else {})

    def _enter(self, step: Step) -> None:
        """Spends a step's time and, in the steps that have no better moment, dies."""
        if self._faults.seconds_per_step:
            self._link.sleep(self._faults.seconds_per_step)
        if step in ("checking", "reporting"):
            self._die(step)

    def _die(self, step: Step) -> None:
        if self._faults.die_at == step:
            raise Died(step)

    def _tell(self, text: str) -> None:
        if self._on_progress is not None:
            self._on_progress(self.config.serial, text)


def _one_line(text: str) -> str:
    """As statusDetails takes it: no control characters, of limited length."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:MAX_DETAIL])


class _Job:
    """The execution in hand and its version, which every update raises."""

    def __init__(self, link: Connection, execution: Execution) -> None:
        self.execution = execution
        self._link = link
        self._version = execution.version

    def update(
        self,
        status: Literal["IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED"],
        details: dict[str, str],
    ) -> None:
        """Raises JobEnded when the execution is over. Another version than expected is taken as it
        is found."""
        for _ in range(CONFLICTS):
            try:
                self._version = self._link.update(self.execution, self._version, status, details)
                return
            except VersionMismatch as now:
                self._version = now.version
        raise Unreachable("the execution's version keeps changing")


class _Progress:
    """Reports of one download: its start, and then quarters, not too often."""

    def __init__(self, job: _Job, statement: Statement, have: int) -> None:
        self._job, self._statement = job, statement
        self._report(self._percent(have))

    def at(self, have: int) -> None:
        percent = self._percent(have)
        if (
            percent // QUARTER > self._quarter
            and time.monotonic() >= self._not_before
            and percent < 100
        ):
            self._report(percent)

    def _report(self, percent: int) -> None:
        self._job.update("IN_PROGRESS", {"step": "downloading", "percent": str(percent)})
        self._quarter = percent // QUARTER
        self._not_before = time.monotonic() + PROGRESS_SECONDS

    def _percent(self, have: int) -> int:
        return min(100 * have // self._statement.size, 100)
