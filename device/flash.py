"""A device's flash: two firmware slots, its memory, and the boot loader that tries a new image and
falls back.

Everything survives a power cut at any point: the memory is one file, replaced atomically. On a real
board the slots are partitions, the memory a page of flash, and `boot` is the boot loader's part.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rollout.codec import canonical_json, decode_text
from rollout.job_document import ReleaseStatement
from rollout.version import Version

Slot = Literal["a", "b"]
MAX_TRIAL_BOOTS = 3
"""A new image that did not confirm itself in this many boots is given up, whatever it died of."""
MAX_HEADER_BYTES = 4096
"""Of an image's first line."""
SELF_TEST_FAILED = "self-test failed"


@dataclass(frozen=True, kw_only=True)
class ExecutionKey:
    """One execution of one job; a retry of the same job has another execution number."""

    job_id: str
    execution: int


@dataclass(frozen=True, kw_only=True)
class Trial:
    """An image in the inactive slot that is to be booted and has not confirmed itself yet."""

    version: Version
    sha256: str
    job: ExecutionKey
    boots: int = 0


@dataclass(frozen=True, kw_only=True)
class JobOutcome:
    """How a job ended on this device; kept until IoT has answered the report of it."""

    status: Literal["SUCCEEDED", "FAILED", "REJECTED"]
    reason: str
    detail: str | None = None
    job: ExecutionKey | None = None
    """Set where the outcome must outlive a reboot."""


@dataclass(frozen=True, kw_only=True)
class DeviceMemory:
    """What a device knows after a power cut."""

    version: Version
    sha256: str
    active: Slot = "a"
    sequence: int = 0
    """The highest sequence accepted: signature, hardware and version rules passed."""
    incoming: str | None = None
    """SHA-256 of the image that the inactive slot is being filled with."""
    trial: Trial | None = None
    outcome: JobOutcome | None = None


class Flash:
    """The flash in one folder: `slot-a.bin`, `slot-b.bin`, `memory.json`. The factory image is
    known by name only."""

    def __init__(self, folder: Path, factory_version: Version, factory_sha256: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file = folder / "memory.json"
        if self._file.exists():
            self.memory = decode_text(DeviceMemory, self._file.read_bytes())
        else:
            self.memory = DeviceMemory(version=factory_version, sha256=factory_sha256)
            self.remember()

    def remember(self, **changes: Any) -> None:
        """Changes fields of the memory and stores it atomically: afterwards the file is the old one
        or the new one."""
        self.memory = replace(self.memory, **changes)
        write_atomically(self._file, canonical_json(self.memory))

    @property
    def inactive(self) -> Slot:
        return "b" if self.memory.active == "a" else "a"

    @property
    def inactive_path(self) -> Path:
        return self._folder / f"slot-{self.inactive}.bin"

    def accept(self, statement: ReleaseStatement) -> Path:
        """Remembers the sequence, before a byte is downloaded, and readies the inactive slot.

        What is in the slot stays if it is the beginning of this very image: a download resumes.
        """
        if self.memory.incoming != statement.sha256:
            self.inactive_path.unlink(missing_ok=True)
        self.remember(
            incoming=statement.sha256,
            sequence=max(self.memory.sequence, statement.sequence),
            outcome=None,
        )
        return self.inactive_path

    def mark_for_trial(self, statement: ReleaseStatement, job: ExecutionKey) -> None:
        """Lets the next boot try the verified image in the inactive slot."""
        self.remember(
            incoming=None, trial=Trial(version=statement.version, sha256=statement.sha256, job=job)
        )

    def boot(self, hardware: str, during_trial: Callable[[], None] = lambda: None) -> None:
        """Boots: a marked image is tried, and then confirmed or reverted. `during_trial` runs
        inside the trial boot."""
        trial = self.memory.trial
        if trial is None:
            return
        if trial.boots >= MAX_TRIAL_BOOTS:
            self._revert(trial.job, f"not confirmed in {trial.boots} boots")
            return
        self.remember(trial=replace(trial, boots=trial.boots + 1))
        during_trial()
        failure = self_test(self.inactive_path, hardware)
        if failure is not None:
            self._revert(trial.job, failure)
            return
        self.remember(
            active=self.inactive,
            version=trial.version,
            sha256=trial.sha256,
            trial=None,
            outcome=JobOutcome(status="SUCCEEDED", reason="installed", job=trial.job),
        )

    def _revert(self, job: ExecutionKey, detail: str) -> None:
        self.remember(
            trial=None,
            outcome=JobOutcome(status="FAILED", reason=SELF_TEST_FAILED, detail=detail, job=job),
        )


def write_atomically(file: Path, text: str) -> None:
    """Afterwards the file holds the old text or the new, whatever happens; only its owner reads
    it."""
    new = file.with_name(f"{file.name}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)
    handle = os.open(file.parent, os.O_RDONLY)  # the rename, too, must survive a power cut
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def self_test(image: Path, hardware: str) -> str | None:
    """The failure of a new image that runs, or None. The sample images say it in their first line,
    a JSON header; a real one tests that it reaches AWS IoT."""
    with image.open("rb") as file:
        line = file.readline(MAX_HEADER_BYTES)
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        return "the image has no header"
    if not isinstance(header, dict) or header.get("hardware") != hardware:
        return "the image was built for other hardware"
    if header.get("selfTest") != "pass":
        return "the image reports a failure"
    return None
