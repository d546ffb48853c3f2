"""The roster of a way back: whom it must bring back, by name, and how far that has come.

A roster is a small object, `roster.json`, and up to SHEETS objects with names on them, all in the
channel's bucket. A name is always on the same sheet. Sheets are written before the roster that
counts them: what a run that is killed leaves behind is at worst found again.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import islice
from typing import Literal

from cloud.jobs import BEGAN
from rollout.observed import Job, Returning, Source

SHEETS = 16
"""Of 900,000 names 56,000 are on one sheet: 1 MB, written again every few seconds."""
ROSTER_BYTES = 1_048_576
SHEET_BYTES = 16_777_216
"""The most that is read of a roster, and of a sheet."""
NAMED = 20
"""Most refused things that are named."""
SETTLING_SECONDS = 60
"""How long after a job was seen to be over its list may still lack somebody whom its counts lack,
too: IoT's lists are late by seconds."""
LONGEST_PAUSE = 600
"""Seconds between two readings of a list that brought nothing new, at most."""
FIRST_RETRY = 30.0
LONGEST_RETRY = 4 * 3600.0
"""Seconds until a thing that AWS refuses is tried again, at first and at most."""
FIRST_CHECK = 600.0
LONGEST_CHECK = 4 * 3600.0
"""Seconds until those that are placed and not back are looked for again, at first and at most."""
LASTING = frozenset(
    {
        "AccessDeniedException",
        "InvalidRequestException",
        "ResourceNotFoundException",
        "UnauthorizedException",
    }
)
"""Error codes that another try will not change. A thing in ten groups is an
InvalidRequestException: AddThingToThingGroup has no LimitExceededException."""
PATIENCE = 3
"""Tries after which any other error counts as lasting, too."""

UNREADABLE = (
    *(AttributeError, EOFError, KeyError, OSError, OverflowError, RecursionError, TypeError),
    *(ValueError, zlib.error),
)
"""What reading bytes that are no sheet can raise."""

Proof = Literal["nothing", "if-all-found", "everybody"]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How far the list of one job's devices has been read. It is read in passes, each page after
    page over as many runs as it takes, and again while the job changes. Times are seconds since
    1970."""

    statuses: tuple[str, ...] = ()
    """What this pass has still to list; empty when none is under way."""
    token: str | None = None
    """Of the next page."""
    began_at: float = 0.0
    found: int = 0
    """Devices that this pass found in the statuses it has finished."""
    found_here: int = 0
    """And in the one that it is reading."""
    expected: int = 0
    """Devices that the job counted when the pass began."""
    proves: Proof = "nothing"
    """Whether nobody can be missing after this pass."""
    over_since: float | None = None
    """When the job was first seen to be over."""
    seen: int | None = None
    """Devices that the last whole pass found."""
    idle: int = 0
    """Passes in a row that found nobody new, or failed."""
    next_at: float = 0.0
    """Not before this, unless the job is newly over."""
    is_final: bool = False
    """Nobody can be missing any more."""
    problem: str | None = None
    """Why the list could not be read, the last time."""

    @property
    def is_under_way(self) -> bool:
        return bool(self.statuses)

    def is_due(self, job: Job | None, now: float) -> bool:
        """Whether a source, as it is now (None: IoT does not know it), is to be read."""
        if self.is_final:
            return False
        if job is not None and job.is_over and self.over_since is None and not self.problem:
            return True
        if now < self.next_at:
            return False
        return (
            self.is_under_way or job is None or job.is_over or job.counts.began > (self.seen or 0)
        )

    def begin(self, job: Job, now: float) -> Reading:
        """A pass over the devices that a source exposed."""
        over_since = (self.over_since or now) if job.is_over else None
        proves: Proof = "nothing"
        if over_since is not None:
            # how many of the cancelled ones had begun, no count says
            certain = now >= over_since + SETTLING_SECONDS
            proves = "everybody" if certain else "nothing" if job.forced else "if-all-found"
        # by force a whole job's can be cancelled in mid-update, or a single one
        canceled = job.forced or (over_since is not None and job.counts.canceled)
        statuses = (*BEGAN, "CANCELED") if canceled else BEGAN
        return self.start(statuses, job.counts.began, now, proves, over_since)

    def start(
        self,
        statuses: tuple[str, ...],
        expected: int,
        now: float,
        proves: Proof = "nothing",
        over_since: float | None = None,
    ) -> Reading:
        return replace(
            self,
            statuses=statuses,
            token=None,
            began_at=now,
            found=0,
            found_here=0,
            expected=expected,
            proves=proves,
            over_since=over_since,
            problem=None,
        )

    def turn_page(self, found: int, token: str | None, now: float) -> Reading:
        """After a page with so many devices; without a token it was the last of its status."""
        here = self.found_here + found
        if token is not None:
            return replace(self, token=token, found_here=here, problem=None)
        after = replace(
            self, statuses=self.statuses[1:], token=None, found=self.found + here, found_here=0
        )
        return after if after.statuses else after._end(now)

    def _end(self, now: float) -> Reading:
        idle = 0 if self.found > (self.seen or 0) else self.idle + 1
        is_final = self.proves == "everybody" or (
            self.proves == "if-all-found" and self.found >= self.expected
        )
        # a list of 900,000 takes minutes: what reads it must not do nothing else
        pause = max(_pause(idle), 2 * (now - self.began_at))
        return replace(
            self,
            seen=self.found,
            idle=idle,
            is_final=is_final,
            next_at=now + pause,
            problem=None,
        )

    def fail(self, problem: str, now: float) -> Reading:
        """After a page that AWS refused; the pass goes on from there."""
        idle = self.idle + 1
        return replace(self, idle=idle, next_at=now + _pause(idle), problem=problem)

    def forget_token(self) -> Reading:
        """AWS does not take the token any more: the status is listed from its beginning."""
        return replace(self, token=None, found_here=0)

    def give_up(self) -> Reading:
        """The job was deleted while it was read."""
        return replace(self, statuses=(), token=None, next_at=0.0, is_final=False)


def _pause(idle: int) -> float:
    return min(2.0 ** min(idle + 1, 20), LONGEST_PAUSE)


class Mark(StrEnum):
    """What has become of a thing that must come back, and that AWS does not refuse."""

    OPEN = "open"
    PLACED = "placed"
    """It is in the way back's group."""
    BACK = "back"
    """The way back's present job has succeeded on it."""
    GONE = "gone"
    """There is no such thing any more."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """AWS would not have a thing in the group; it is tried again at growing distances."""

    code: str
    tries: int
    retry_at: float
    """Seconds since 1970."""

    @classmethod
    def after(cls, before: Mark | Refusal, code: str, now: float) -> Refusal:
        tries = before.tries + 1 if isinstance(before, Refusal) else 1
        pause = min(FIRST_RETRY * 2.0 ** min(tries - 1, 20), LONGEST_RETRY)
        return cls(code=code, tries=tries, retry_at=now + pause)

    @property
    def is_lasting(self) -> bool:
        return self.code in LASTING or self.tries >= PATIENCE


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What a sheet holds, counted. Who is waived is in none of the other counts of the things that
    are not placed."""

    exposed: int = 0
    open: int = 0
    placed: int = 0
    """In the group and not back."""
    back: int = 0
    gone: int = 0
    refused: int = 0
    passing: int = 0
    """Refused with an error that may pass."""
    waived: int = 0
    open_waived: int = 0
    """Placed and waived."""
    retry_at: float | None = None
    """When the next refused thing is tried again (seconds since 1970)."""
    check_at: float | None = None
    """When those placed are looked for again (seconds since 1970)."""
    refusals: dict[str, str] = field(default_factory=dict)
    """A few of the refused, by name, with AWS's error code."""


class Sheet:
    """Names, each with its mark."""

    def __init__(self, job: str) -> None:
        self.job = job
        """The job on which those with the mark BACK have succeeded."""
        self.marks: dict[str, Mark | Refusal] = {}
        self.checks = 0
        """How often those placed were looked for again."""
        self.check_at: float | None = None
        self.checked_to = ""
        """The last name that a check under way has come to."""

    def add(self, things: Iterable[str]) -> bool:
        """Whether one of them was not here yet."""
        before = len(self.marks)
        for thing in things:
            self.marks.setdefault(thing, Mark.OPEN)
        return len(self.marks) > before

    def prove(self, things: Iterable[str]) -> bool:
        """Marks those of the things that are here as back; whether there was a new one."""
        found = [thing for thing in things if self.marks.get(thing, Mark.BACK) is not Mark.BACK]
        self.marks.update(dict.fromkeys(found, Mark.BACK))
        return bool(found)

    def follow(self, job: str) -> None:
        """From now on this job must succeed: on nobody so far."""
        if job != self.job:
            self.job = job
            back = [thing for thing, mark in self.marks.items() if mark is Mark.BACK]
            self.marks.update(dict.fromkeys(back, Mark.PLACED))

    def take_out(self, things: Iterable[str]) -> None:
        """Somebody took them out of the group: whether they are to be in it is asked anew."""
        for thing in things:
            if self.marks.get(thing) is Mark.PLACED:
                self.marks[thing] = Mark.OPEN

    def with_mark(self, mark: Mark) -> Iterator[str]:
        return (thing for thing, its in self.marks.items() if its is mark)

    def due_again(self, now: float) -> Iterator[str]:
        """Refused things whose next try is due."""
        return (
            thing
            for thing, mark in self.marks.items()
            if isinstance(mark, Refusal) and mark.retry_at <= now
        )

    def choose_checks(self, most: int, now: float) -> list[str]:
        """Those placed that are looked for next; a check takes as many runs as it needs."""
        if self.check_at is None or self.check_at > now:
            return []
        placed = sorted(thing for thing in self.with_mark(Mark.PLACED) if thing > self.checked_to)
        chosen = placed[:most]
        if len(chosen) < len(placed):
            self.checked_to = chosen[-1] if chosen else self.checked_to
            return chosen
        self.checks, self.checked_to = self.checks + 1, ""
        self.check_at = now + min(FIRST_CHECK * 2.0 ** min(self.checks, 20), LONGEST_CHECK)
        return chosen

    def tally(self, waived: Collection[str]) -> Tally:
        counts = Counter(mark for mark in self.marks.values() if isinstance(mark, Mark))
        refusals = {t: mark for t, mark in self.marks.items() if isinstance(mark, Refusal)}
        ours = [self.marks[thing] for thing in waived if thing in self.marks]
        wanted = {t: mark for t, mark in refusals.items() if t not in waived}
        lasting = {t: mark.code for t, mark in wanted.items() if mark.is_lasting}
        named = dict(sorted(islice(lasting.items(), NAMED)))
        return Tally(
            exposed=len(self.marks),
            open=counts[Mark.OPEN] - ours.count(Mark.OPEN),
            placed=counts[Mark.PLACED],
            back=counts[Mark.BACK],
            gone=counts[Mark.GONE],
            refused=len(lasting),
            passing=len(wanted) - len(lasting),
            waived=sum(mark is Mark.OPEN or isinstance(mark, Refusal) for mark in ours),
            open_waived=ours.count(Mark.PLACED),
            retry_at=min((mark.retry_at for mark in wanted.values()), default=None),
            check_at=self.check_at if counts[Mark.PLACED] else None,
            refusals=named,
        )

    def encode(self) -> bytes:
        groups = {mark.value: "\n".join(self.with_mark(mark)) for mark in Mark}
        refused = {
            thing: [mark.code, mark.tries, mark.retry_at]
            for thing, mark in self.marks.items()
            if isinstance(mark, Refusal)
        }
        about = {
            "job": self.job,
            "checks": self.checks,
            "checkAt": self.check_at,
            "checkedTo": self.checked_to,
        }
        text = json.dumps({**about, **groups, "refused": refused})
        return gzip.compress(text.encode(), compresslevel=1, mtime=0)

    @classmethod
    def decode(cls, body: bytes) -> Sheet:
        """Raises ValueError where this is no sheet."""
        try:
            data = json.loads(gzip.decompress(body))
            sheet = cls(str(data["job"]))
            for mark in Mark:
                sheet.marks.update(dict.fromkeys(filter(None, data[mark.value].split("\n")), mark))
            for thing, (code, tries, retry_at) in data["refused"].items():
                refusal = Refusal(code=str(code), tries=int(tries), retry_at=float(retry_at))
                sheet.marks[thing] = refusal
            sheet.checks, sheet.checked_to = int(data["checks"]), str(data["checkedTo"])
            sheet.check_at = None if data["checkAt"] is None else float(data["checkAt"])
        except UNREADABLE as error:
            raise ValueError(f"no sheet of a roster: {error}") from error
        return sheet


def sheet_of(thing: str) -> int:
    """The number of the sheet that a thing's name is on."""
    return zlib.crc32(thing.encode()) % SHEETS


@dataclass(frozen=True, kw_only=True)
class Roster:
    """`roster.json`: the readings, and what is on the sheets."""

    format: Literal[1] = 1
    job: str = ""
    """The way back's present job: who is back, is back by this one."""
    busy_until: float = 0.0
    """Until when one run alone works on this (seconds since 1970); it renews that while it does."""
    readings: dict[str, Reading] = field(default_factory=dict)
    """By job: the sources, and the way back's own."""
    tallies: dict[str, Tally] = field(default_factory=dict)
    """By the number of the sheet."""
    waived: tuple[str, ...] = ()
    """Who was waived when the sheets were counted."""
    removed: int = 0
    """Devices that had left the way back's own job when those placed were last looked for: their
    things are deleted, or somebody took them out of the group."""
    problem: str | None = None
    """Why nobody can be placed."""

    def reading(self, job: str) -> Reading:
        return self.readings.get(job, Reading())

    def total(self, count: str) -> int:
        """Of one of the counts of a Tally."""
        return sum(getattr(tally, count) for tally in self.tallies.values())

    def has_read_all(self, sources: Sequence[Source]) -> bool:
        return all(self.reading(source.job).is_final for source in sources)

    def returning(self, sources: Sequence[Source], own_job: str) -> Returning:
        """What the roster says about a way back from these sources by this job."""
        is_own = own_job == self.job
        refusals = {
            thing: code for tally in self.tallies.values() for thing, code in tally.refusals.items()
        }
        readings = {job: self.reading(job).problem for job in (*_jobs(sources), own_job)}
        problems = [f"the devices of {job}: {why}" for job, why in readings.items() if why]
        is_placed = self.total("open") == self.total("passing") == 0
        return Returning(
            exposed=self.total("exposed"),
            placed=self.total("placed") + self.total("back"),
            back=self.total("back") if is_own else 0,
            refused=self.total("refused"),
            refusals=dict(sorted(refusals.items())[:NAMED]),
            gone=self.total("gone"),
            waived=self.total("waived"),
            open_waived=self.total("open_waived"),
            problems=(*problems, *([self.problem] if self.problem else [])),
            is_complete=is_placed and self.has_read_all(sources),
        )


def _jobs(sources: Iterable[Source]) -> list[str]:
    return [source.job for source in sources]


def earliest(times: Iterable[float | None]) -> float:
    """The first of the times that are known; infinity where none is."""
    return min((at for at in times if at is not None), default=math.inf)


def due_tallies(roster: Roster, now: float) -> Mapping[str, Tally]:
    """The sheets with things to be placed, or to be tried again."""
    return {
        number: tally
        for number, tally in roster.tallies.items()
        if tally.open or earliest([tally.retry_at]) <= now
    }
