"""A device's flash: two firmware slots, its memory, and the boot loader that tries a new image and
falls back.

Everything survives the device's death at any point: memory is one file, replaced atomically.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rollout.codec import canonical, decode_text
from rollout.document import Statement
from rollout.release import Version

Slot = Literal["a", "b"]
MAX_TRIAL_BOOTS = 3
"""A new image that did not confirm itself in this many boots is given up, whatever it died of."""
MAX_HEADER = 4096
"""Bytes of an image's first line."""
SELF_TEST_FAILED = "self-test failed"


@dataclass(frozen=True, kw_only=True)
class JobKey:
    """One execution of one job; a retry of the same job has another execution number."""

    job_id: str
    execution: int


@dataclass(frozen=True, kw_only=True)
class Trial:
    """An image in the inactive slot that is to be booted and has not confirmed itself yet."""

    version: str
    sha256: str
    job: JobKey
    boots: int = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended on this device; kept until IoT has been told."""

    status: Literal["SUCCEEDED", "FAILED", "REJECTED"]
    reason: str
    detail: str | None = None
    job: JobKey | None = None
    """Set where the outcome must outlive a reboot."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a device knows after a power cut."""

    version: str
    sha256: str
    active: Slot = "a"
    sequence: int = 0
    """The highest sequence accepted: signature, hardware and version rules passed."""
    incoming: str | None = None
    """SHA-256 of the image that the inactive slot is being filled with."""
    trial: Trial | None = None
    outcome: Outcome | None = None


class Slots:
    """The flash in one folder: `slot-a.bin`, `slot-b.bin`, `memory.json`. The factory image is
    known by name only."""

    def __init__(self, folder: Path, factory_version: str, factory_sha256: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file = folder / "memory.json"
        if self._file.exists():
            self.memory = decode_text(Memory, self._file.read_bytes())
        else:
            self.memory = Memory(version=Version(factory_version).text, sha256=factory_sha256)
            self.remember()

    def remember(self, **changes: Any) -> None:
        """Changes fields of the memory and stores it atomically: afterwards the file is the old one
        or the new one."""
        self.memory = replace(self.memory, **changes)
        new = self._file.with_suffix(".new")
        with new.open("w") as file:
            file.write(canonical(self.memory))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._file)
        sync_folder(self._folder)

    def path(self, slot: Slot) -> Path:
        return self._folder / f"slot-{slot}.bin"

    @property
    def inactive(self) -> Slot:
        return "b" if self.memory.active == "a" else "a"

    def accept(self, statement: Statement) -> Path:
        """Remembers the sequence, before a byte is downloaded, and readies the inactive slot.

        What is in the slot stays if it is the beginning of this very image: a download resumes.
        """
        target = self.path(self.inactive)
        if self.memory.incoming != statement.sha256:
            target.unlink(missing_ok=True)
        self.remember(
            incoming=statement.sha256,
            sequence=max(self.memory.sequence, statement.sequence),
            outcome=None,
        )
        return target

    def try_out(self, statement: Statement, job: JobKey) -> None:
        """Marks the verified image in the inactive slot for the next boot."""
        self.remember(
            incoming=None, trial=Trial(version=statement.version, sha256=statement.sha256, job=job)
        )

    def boot(self, hardware: str, during: Callable[[], None] = lambda: None) -> None:
        """Boots: a marked image is tried, and then confirmed or reverted. `during` runs inside the
        trial boot."""
        trial = self.memory.trial
        if trial is None:
            return
        if trial.boots >= MAX_TRIAL_BOOTS:
            self._revert(trial.job, f"not confirmed in {trial.boots} boots")
            return
        self.remember(trial=replace(trial, boots=trial.boots + 1))
        during()
        mistake = self_test(self.path(self.inactive), hardware)
        if mistake is not None:
            self._revert(trial.job, mistake)
            return
        self.remember(
            active=self.inactive,
            version=trial.version,
            sha256=trial.sha256,
            trial=None,
            outcome=Outcome(status="SUCCEEDED", reason="installed", job=trial.job),
        )

    def _revert(self, job: JobKey, detail: str) -> None:
        self.remember(
            trial=None,
            outcome=Outcome(status="FAILED", reason=SELF_TEST_FAILED, detail=detail, job=job),
        )


def self_test(image: Path, hardware: str) -> str | None:
    """What is wrong with an image once it runs, or None. The image's first line is a JSON header
    that says."""
    with image.open("rb") as file:
        line = file.readline(MAX_HEADER)
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        return "the image has no header"
    if not isinstance(header, dict) or header.get("hardware") != hardware:
        return "the image was built for other hardware"
    if header.get("selfTest") != "pass":
        return "the image reports a failure"
    return None


def sync_folder(folder: Path) -> None:
    """Makes a rename or a new file in the folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
