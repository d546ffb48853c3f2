"""The reference agent: one device that takes firmware jobs as docs/device-contract.md says.

To make it the agent of a real board, copy the folder, with what it imports of `rollout`, and
replace:

- `flash.Flash`: its slots are partitions there, its memory a page of flash, and `boot` belongs to
  the boot loader; after `mark_for_trial` the board reboots, where `_install` calls `_boot`.
- `flash.self_test`: whatever proves that the image works, above all that it reaches AWS IoT.
- `mqtt.MqttSession`, for another MQTT client: give `Device` and `Claiming` classes with the methods
  of IotClient and ClaimClient.
- `claiming.Keyring`: the device's own key belongs into its secure element.
- `Faults` goes, and `die_at`; they serve tests only.

`rules.py`, `strict_json.py`, `download.py` and `transfer.py` stay as they are.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal, Protocol

from device.connection import (
    Connection,
    ConnectionConfig,
    ExecutionStatus,
    JobEnded,
    JobExecution,
    JobHandout,
    RequestRefused,
    VersionMismatch,
)
from device.download import NO_DOWNLOAD, Download, DownloadError, draw_wait
from device.flash import ExecutionKey, Flash, JobOutcome
from device.mqtt import NoAnswer, Stopped, Unreachable
from device.rules import (
    BAD_DOCUMENT,
    Accept,
    AlreadyInstalled,
    Decision,
    Fail,
    Reject,
    evaluate_document,
    load_keys,
)
from rollout.job_document import CONTRACT
from rollout.version import Version

Step = Literal["checking", "downloading", "installing", "rebooting", "self-test", "reporting"]
MAX_DETAIL = 1024
"""Characters in a value of statusDetails (UpdateJobExecution)."""
PROGRESS_PERCENT = 25
PROGRESS_SECONDS = 5.0
"""A download reports each quarter, at least these seconds apart: a short one only its start."""
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 60.0
"""Bounds of the wait before an unanswered request is made again: the first, doubling to the
longest; each wait is drawn from 0 to its bound."""
MAX_VERSION_CONFLICTS = 3
"""How often an update is made when the execution's version was another."""
DOCUMENT_TRIES = 3
"""How often a document is asked for that does not come although IoT answers otherwise."""
DOWNLOAD_SHARE = 0.9
"""Of the time that the job has left; the rest is for saying that it did not suffice."""
DEFAULT_JOB_SECONDS = 3600.0
"""What a job has left if IoT names no time."""


@dataclass(frozen=True, kw_only=True)
class DeviceConfig(ConnectionConfig):
    """What one device is born with: how it connects, and what it is."""

    serial: str
    public_key_pem: str
    """The release public key (P-256); two PEM blocks while the signing key is rotated."""
    channel: str
    hardware: str
    initial_version: Version
    initial_sha256: str
    folder: Path
    """Its flash: slots and memory outlive the Device object."""
    download_ca_pem: str = ""
    """Of the root CAs that images may come under; S3's are Amazon Trust Services' five roots, not
    only the one of `ca_pem`. "" means the system's."""


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What a test may do to a device; nothing by default."""

    die_at: Step | None = None
    """The power is cut in this step: nothing more is written or sent. A new Device with the same
    folder is the next boot."""
    seconds_per_step: float = 0.0


class PowerCut(Exception):
    """Raised inside the agent because `Faults.die_at` says so."""


class IotClient(Protocol):
    """What the agent asks of AWS IoT; `connection.Connection` says what each method does."""

    def start(self) -> None: ...
    def interrupt(self) -> None: ...
    def close(self) -> None: ...
    def sleep(self, seconds: float) -> None: ...
    def find_next_job(self) -> JobExecution | None: ...
    def fetch_document(self, execution: JobExecution) -> JobHandout: ...
    def update_job(
        self,
        execution: JobExecution,
        status: ExecutionStatus,
        details: dict[str, str] | None = None,
    ) -> JobExecution: ...
    def update_shadow(self, reported: dict[str, Any]) -> None: ...


OpenConnection = Callable[[ConnectionConfig, Callable[[], None], Callable[[str], None]], IotClient]


class Device:
    """One device, with a thread of its own that sleeps until IoT says that its next job changed.

        config = DeviceConfig(
            ca_pem=Path("AmazonRootCA1.pem").read_text(),
            host="example-ats.iot.us-east-1.amazonaws.com",  # stack output iotEndpoint
            port=8883,
            thing="gateways-1a2b3c4d-0001",  # these three: claiming.py, for a device by claim
            certificate_pem=Path("device.crt").read_text(),
            private_key_pem=Path("device.key").read_text(),
            serial="0001",
            public_key_pem=Path("release.pub").read_text(),  # stack output signingPublicKey
            channel="stable",
            hardware="gateway-a1",
            initial_version=Version("2.0.0"),  # of the factory image
            initial_sha256="be3b79bf69b9f58bba61ee6f98cc32e2f97cb2f3d2b901f9695641274c9f2a87",
            folder=Path("/var/lib/ota"),
            download_ca_pem=Path("AmazonRootCAs.pem").read_text(),  # Amazon Trust Services' roots
        )
        device = Device(config, lambda serial, text: print(serial, text))
        device.start()  # returns at once; jobs are taken as they come
        ...
        device.stop()

    `on_progress(serial, text)` is called on the device's thread. `died` is set once a fault has
    cut its power.
    """

    def __init__(
        self,
        config: DeviceConfig,
        on_progress: Callable[[str, str], None] | None = None,
        *,
        faults: Faults = Faults(),
        connect: OpenConnection = Connection,
    ) -> None:
        self.config = config
        self.died = threading.Event()
        self._on_progress = on_progress
        self._faults = faults
        self._keys = load_keys(config.public_key_pem)
        self._tls = ssl.create_default_context(cadata=config.download_ca_pem or None)
        self._flash = Flash(config.folder, config.initial_version, config.initial_sha256)
        self._events: SimpleQueue[str | None] = SimpleQueue()
        """Trouble with the connection, as text; None says that IoT may have work."""
        self._last_trouble: str | None = None
        self._reported: dict[str, Any] | None = None
        self._ended: ExecutionKey | None = None
        """The execution that had ended when the device last wrote to it."""
        self._iot = connect(config, lambda: self._events.put(None), self._events.put)
        self._thread = threading.Thread(
            target=self._run, name=f"device {config.serial}", daemon=True
        )

    def start(self) -> None:
        """Boots, connects and takes jobs as they come; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Disconnects and waits for the thread to end. The job in hand is resumed by the next
        Device with this folder."""
        self._iot.interrupt()
        self._events.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        self._iot.start()
        try:
            self._boot()
            retry: float | None = None
            while True:
                if self._wait_for_work(None if retry is None else draw_wait(retry)):
                    retry = self._process_jobs(retry)
        except Stopped:
            pass
        except PowerCut:
            self.died.set()
        finally:
            self._iot.close()

    def _wait_for_work(self, timeout: float | None) -> bool:
        """Waits for events, or until it is time to try again; True where there may be work. The
        same trouble is notified once."""
        events: list[str | None] = []
        with contextlib.suppress(Empty):
            events.append(self._events.get(timeout=timeout))
        while not self._events.empty():
            events.append(self._events.get())
        for trouble in events:
            if trouble is not None and trouble != self._last_trouble:
                self._notify(trouble)
            self._last_trouble = trouble
        self._iot.sleep(0)  # raises Stopped
        return not events or None in events

    def _process_jobs(self, retry: float | None) -> float | None:
        """Takes jobs until there is none; returns the bound of the seconds until it tries again,
        None when nothing is left."""
        try:
            self._update_shadow()
            while self._process_next_job():
                pass
            return None
        except Unreachable as error:
            self._notify(f"no answer: {error}")
            return min(2 * retry, MAX_RETRY_SECONDS) if retry else FIRST_RETRY_SECONDS
        except RequestRefused as error:
            self._notify(f"refused: {error}")
            return MAX_RETRY_SECONDS

    def _process_next_job(self) -> bool:
        """Takes the next job to its end; False when there is none."""
        execution = self._iot.find_next_job()
        if execution is None:
            if self._flash.memory.outcome is not None:
                self._flash.remember(outcome=None)
            return False
        job = _CurrentJob(self._iot, execution)
        key = ExecutionKey(job_id=execution.job_id, execution=execution.number)
        try:
            if execution.is_queued:
                job.update("IN_PROGRESS")
            outcome = self._flash.memory.outcome
            if outcome is None or outcome.job != key:
                outcome = self._execute(job, key)
            self._enter("reporting")
            self._update_shadow()
            version = str(self._flash.memory.version)
            details = {"step": "done", "reason": outcome.reason, "version": version}
            if outcome.detail:
                details["detail"] = _printable(outcome.detail)
            job.update(outcome.status, details)
            detail = f" ({outcome.detail})" if outcome.detail else ""
            self._notify(f"{outcome.status}: {outcome.reason}{detail}")
        except JobEnded as ended:
            if self._ended == key:
                raise Unreachable(f"{key.job_id} has ended, and is still the next job") from ended
            self._ended = key
            self._notify(f"{execution.job_id} ended meanwhile: {ended.status}")
        return True

    def _execute(self, job: _CurrentJob, key: ExecutionKey) -> JobOutcome:
        self._enter("checking")
        handout = self._fetch_document(job)
        decision = self._evaluate(handout, job)
        if isinstance(decision, Fail):
            return JobOutcome(status="FAILED", reason=decision.reason, detail=decision.detail)
        if isinstance(decision, Reject):
            return JobOutcome(status="REJECTED", reason=decision.reason, detail=decision.detail)
        if isinstance(decision, AlreadyInstalled):
            sequence = max(self._flash.memory.sequence, decision.statement.sequence)
            self._flash.remember(sequence=sequence)
            return JobOutcome(status="SUCCEEDED", reason="already installed")
        try:
            return self._install(job, key, handout, decision)
        except DownloadError as error:
            return JobOutcome(status="FAILED", reason=error.reason, detail=error.detail)

    def _fetch_document(self, job: _CurrentJob) -> JobHandout:
        """The job's document; none of it if the answer with it does not come, again and again,
        while the answers without it do."""
        for _ in range(DOCUMENT_TRIES):
            try:
                return self._iot.fetch_document(job.execution)
            except NoAnswer:
                self._iot.find_next_job()  # raises Unreachable where nothing is answered
        return JobHandout(document=None, seconds_left=None)

    def _evaluate(self, handout: JobHandout, job: _CurrentJob) -> Decision:
        if handout.document is None:
            return Fail(BAD_DOCUMENT, "IoT's answer with the document cannot be read")
        job_id, memory = job.execution.job_id, self._flash.memory
        return evaluate_document(handout.document, job_id, memory, self._keys, self.config)

    def _install(
        self, job: _CurrentJob, key: ExecutionKey, handout: JobHandout, accepted: Accept
    ) -> JobOutcome:
        statement, left = accepted.statement, handout.seconds_left
        target = self._flash.accept(statement)
        self._enter("downloading")
        have = target.stat().st_size if target.exists() else 0
        progress = _DownloadProgress(job, statement.size, have)
        self._notify(f"{statement.version}: downloading")

        def on_bytes(have: int) -> None:
            if 2 * have >= statement.size:
                self._die_at("downloading")
            progress.advance(have)

        Download(
            target,
            statement.size,
            statement.sha256,
            seconds=DOWNLOAD_SHARE * (DEFAULT_JOB_SECONDS if left is None else left),
            tls=self._tls,
            renew_url=lambda: self._renew_url(job, handout.document),
            sleep=self._iot.sleep,
            on_bytes=on_bytes,
        ).run(accepted.url)
        self._enter("installing")
        running = str(self._flash.memory.version)
        job.update("IN_PROGRESS", {"step": "rebooting", "percent": "100", "version": running})
        self._flash.mark_for_trial(statement, key)
        self._enter("rebooting")
        self._notify(f"{statement.version}: rebooting")
        self._boot()
        outcome = self._flash.memory.outcome
        if outcome is None:
            raise RuntimeError("a trial boot ended without an outcome")
        return outcome

    def _renew_url(self, job: _CurrentJob, old: object) -> str:
        """A newly presigned URL for the job in hand; the release must be the one it was."""
        handout = self._fetch_document(job)
        decision, new = self._evaluate(handout, job), handout.document
        if (
            not isinstance(old, dict)
            or not isinstance(new, dict)
            or new.get("release") != old.get("release")
            or not isinstance(decision, Accept)
        ):
            raise DownloadError(NO_DOWNLOAD, "the job's document changed")
        return decision.url

    def _boot(self) -> None:
        self._flash.boot(self.config.hardware, during_trial=lambda: self._enter("self-test"))

    def _update_shadow(self) -> None:
        """Reports in the shadow what runs, unless that was the last thing it reported."""
        memory = self._flash.memory
        version, digest, sequence = str(memory.version), memory.sha256, memory.sequence
        firmware = {"version": version, "sha256": digest, "sequence": sequence}
        hardware = self.config.hardware
        reported = {"contract": CONTRACT, "firmware": firmware, "hardware": hardware}
        if reported != self._reported:
            self._iot.update_shadow(reported)
            self._notify(f"runs {memory.version}")
            self._reported = reported

    def _enter(self, step: Step) -> None:
        """Spends a step's time, and dies if it is the one; a download dies half-way."""
        if self._faults.seconds_per_step:
            self._iot.sleep(self._faults.seconds_per_step)
        if step != "downloading":
            self._die_at(step)

    def _die_at(self, step: Step) -> None:
        if self._faults.die_at == step:
            raise PowerCut(step)

    def _notify(self, text: str) -> None:
        if self._on_progress is not None:
            self._on_progress(self.config.serial, text)


def _printable(text: str) -> str:
    """As statusDetails takes it: no control characters, of limited length."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:MAX_DETAIL])


class _CurrentJob:
    """The execution in hand and its version, which every update raises."""

    def __init__(self, iot: IotClient, execution: JobExecution) -> None:
        self._iot, self.execution = iot, execution

    def update(self, status: ExecutionStatus, details: dict[str, str] | None = None) -> None:
        """Raises JobEnded when the execution is over. Another version than expected is taken as it
        is found."""
        for _ in range(MAX_VERSION_CONFLICTS):
            try:
                self.execution = self._iot.update_job(self.execution, status, details)
                return
            except VersionMismatch as mismatch:
                self.execution = replace(self.execution, version=mismatch.version)
        raise Unreachable("the execution's version keeps changing")


class _DownloadProgress:
    """Reports of one download: its start, and then quarters, not too often. Sizes are bytes."""

    def __init__(self, job: _CurrentJob, size: int, have: int) -> None:
        self._job, self._size = job, size
        self._report(self._to_percent(have))

    def advance(self, have: int) -> None:
        percent = self._to_percent(have)
        is_due = time.monotonic() >= self._not_before and percent < 100
        if is_due and percent // PROGRESS_PERCENT > self._quarter:
            self._report(percent)

    def _report(self, percent: int) -> None:
        self._job.update("IN_PROGRESS", {"step": "downloading", "percent": str(percent)})
        self._quarter = percent // PROGRESS_PERCENT
        self._not_before = time.monotonic() + PROGRESS_SECONDS

    def _to_percent(self, have: int) -> int:
        return min(100 * have // self._size, 100)
