"""Bringing exposed devices back: finds out who they are, and puts them into the way back's group.

`look` costs one call. `work` does what is due until its time is over, in rounds of some seconds,
each of which ends with what was done in the bucket: a run that is killed loses one round. One run
works at a time; the others go on judging and cancelling meanwhile. A device whom AWS refuses is
remembered with AWS's error, tried again at growing distances, and keeps nobody else from going.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, islice
from typing import Protocol

from botocore.exceptions import ClientError

from cloud.bucket import Bucket, Overtaken
from cloud.clients import AWS_ERRORS, MISSING, Clients, error_code
from cloud.groups import RollbackGroups, is_thing, member_page
from cloud.jobs import Jobs
from cloud.roster import (
    FIRST_CHECK,
    ROSTER_BYTES,
    SHEET_BYTES,
    SHEETS,
    Mark,
    Reading,
    Refusal,
    Roster,
    Sheet,
    due_tallies,
    earliest,
    sheet_of,
)
from rollout.codec import DecodeError, canonical_json, decode_text
from rollout.names import PLACED_A_SECOND, Names
from rollout.observed import Job, Returning, Source

ROUND_SECONDS = 15.0
"""What a killed run loses, at most."""
FIRST_ROUND_SECONDS = 2.0
"""How long the first round reads a list: nobody is known yet who could be placed."""
BUSY_SECONDS = 60.0
"""After so long without a word of the run that works, another may."""
CALLS_AT_ONCE = 16
"""Connections that the clients keep (cloud.clients.CONFIG)."""
PAGES_A_SECOND = 8
"""ListJobExecutionsForJob takes 10 a second of the whole account (Service Quotas)."""
BEHIND_SECONDS = 0.5
"""A round may make good what the one before it was late."""
CHECKED_A_RUN = 1000
"""Things in the group, and not back, that a run looks for again: that a thing is there, and in the
group, AddThingToThingGroup tells and mends in one call."""
MEMBERS = ("members of the ring",)
"""What is listed of a source whose job was deleted."""

Outcome = Mark | str | None
"""Of a try to place a thing: its mark, AWS's error code, or None where it was not tried."""


class Clock(Protocol):
    """What tells the time (seconds since 1970) and waits; the module `time` is one."""

    def time(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


def threads() -> Executor:
    return ThreadPoolExecutor(CALLS_AT_ONCE)


class WayBackWorker:
    """The ways back of one channel.

    worker = WayBackWorker(clients, names, bucket, ring_groups={"canary": "arn:..."})
    worker.work(7, sources, own_job, jobs, waived=[], until=time.time() + 280)
    """

    def __init__(
        self,
        clients: Clients,
        names: Names,
        bucket: Bucket,
        *,
        ring_groups: Mapping[str, str],
        clock: Clock = time,
        pool: Callable[[], Executor] = threads,
    ) -> None:
        """`ring_groups` are the ARNs of the rings' thing groups."""
        self.clients, self.names, self.bucket = clients, names, bucket
        self.ring_groups, self.clock, self.pool = ring_groups, clock, pool
        self.jobs, self.groups = Jobs(clients, names), RollbackGroups(clients, names)

    def look(self, group: int, sources: Sequence[Source], own_job: str) -> Returning:
        """What is known of the way back whose group has this sequence. One call."""
        return self.roster(group)[0].returning(sources, own_job)

    def work(
        self,
        group: int,
        sources: Sequence[Source],
        own_job: str,
        jobs: Mapping[str, Job],
        *,
        waived: Sequence[str],
        cut_off: Sequence[str] = (),
        until: float,
    ) -> Returning:
        """Reads lists and places devices until the time (seconds since 1970), or until nothing is
        due; nothing where another run is at it.

        `jobs` are the sources and the way back's own job as DescribeJob shows them: of a source
        that is not among them, and that IoT does not know, everybody in the ring is taken for
        exposed. So a source is a job that was once seen. The way back's job should be there, and
        its group must be. Who is waived need not come back; who is cut off is waived, too, and was
        taken out of the group.
        """
        roster, etag, is_legible = self.roster(group)
        nobody = frozenset(waived), frozenset(cut_off)
        shift = Shift(self, group, sources, own_job, jobs, *nobody, roster, etag)
        if roster.busy_until <= self.clock.time() and (shift.is_due() or not is_legible):
            try:
                shift.work(until, afresh=not is_legible)
            except Overtaken:  # another run has gone on meanwhile, from what was stored
                return self.look(group, sources, own_job)
        return shift.roster.returning(sources, own_job)

    def roster(self, group: int) -> tuple[Roster, str | None, bool]:
        """The roster, its ETag, and whether it could be read: one that could not is made anew."""
        found = self.bucket.get(self.names.keys.roster(group), ROSTER_BYTES)
        if found is None:
            return Roster(), None, True
        try:
            return decode_text(Roster, found.body), found.place.etag, True
        except DecodeError:
            return Roster(), found.place.etag, False


class Shift:
    """One run's work on a way back, from the moment that no other run may."""

    def __init__(
        self,
        worker: WayBackWorker,
        group: int,
        sources: Sequence[Source],
        own_job: str,
        jobs: Mapping[str, Job],
        waived: frozenset[str],
        cut_off: frozenset[str],
        roster: Roster,
        etag: str | None,
    ) -> None:
        self._worker, self._group, self._clock = worker, group, worker.clock
        self._sources, self._own_job = sources, own_job
        self._jobs = {name: job for name, job in jobs.items() if not job.is_leaving}
        self._waived, self._cut_off = waived | cut_off, cut_off
        self.roster, self._etag = roster, etag
        self._sheets: dict[int, Sheet] = {}
        self._sheet_etags: dict[int, str | None] = {}
        self._changed: set[int] = set()
        """Sheets that are not stored yet."""
        self._uncounted: set[int] = set()
        """Sheets whose tally may be another: changed, or loaded, since a run that was killed may
        have stored a sheet and not the roster."""
        self._is_group_missing = False
        self._has_checked = False
        self._next_place_at = 0.0

    # What is due

    def is_due(self) -> bool:
        now, roster = self._clock.time(), self.roster
        return (
            self._needs_a_count()
            or self._choose_reading(now) is not None
            or bool(due_tallies(roster, now))
            or self._is_check_due(now)
        )

    def _needs_a_count(self) -> bool:
        """Whether the sheets were counted for another job, or for other waived things."""
        return self.roster.job != self._own_job or self._waived != set(self.roster.waived)

    def _choose_reading(self, now: float) -> tuple[Source | None, Reading] | None:
        """The list to be read next; without a source it is that of the way back's own job."""
        for source in self._sources:
            reading = self.roster.reading(source.job)
            if reading.is_due(self._jobs.get(source.job), now):
                return source, reading
        reading = self.roster.reading(self._own_job)
        return (None, reading) if self._is_proof_due(reading, now) else None

    def _is_proof_due(self, reading: Reading, now: float) -> bool:
        """Whether more devices have succeeded than are known to be back, and it is time to see who;
        at once where they may be the last. A list that changes while its pages are read can name
        one twice and another not at all, so how many it named says nothing."""
        own = self._jobs.get(self._own_job)
        succeeded = own.counts.succeeded if own else 0
        if reading.is_under_way:
            return now >= reading.next_at
        if succeeded <= self.roster.total("back"):
            return False
        known = self.roster.returning(self._sources, self._own_job)
        missing = known.exposed - known.gone - known.waived - known.open_waived
        are_last = succeeded >= missing and succeeded > reading.expected
        return now >= reading.next_at or are_last

    def _is_check_due(self, now: float) -> bool:
        """Whether those placed and not back are to be looked for again: everybody was tried, and
        it is time, or some have left the way back's job."""
        if self._has_checked or self.roster.total("open") or not self.roster.total("placed"):
            return False
        times = (tally.check_at for tally in self.roster.tallies.values())
        return self._have_left() or earliest(times) <= now

    def _have_left(self) -> bool:
        own = self._jobs.get(self._own_job)
        return own is not None and own.counts.removed > self.roster.removed

    # Work

    def work(self, until: float, *, afresh: bool) -> None:
        """Raises Overtaken where another run has taken over."""
        self._store(busy=True)  # from here on no other run works
        if afresh:
            self._follow(range(SHEETS))
        elif self._needs_a_count():
            self._follow(map(int, self.roster.tallies))
        with self._worker.pool() as pool:
            while self._clock.time() < until and self.is_due():
                if not self._work_a_round(pool, until):
                    break
                self._store(busy=True, pool=pool)
        self._store(busy=False)

    def _follow(self, numbers: Iterable[int]) -> None:
        """Counts these sheets anew, for the present job and for who is waived now."""
        for number in numbers:
            sheet = self._sheet(number)
            sheet.take_out(self._cut_off)
            if sheet.marks:
                self._changed.add(number)
        if self.roster.job != self._own_job:
            self.roster = replace(self.roster, removed=0)
        self.roster = replace(self.roster, job=self._own_job, waived=tuple(sorted(self._waived)))
        self._count()

    def _work_a_round(self, pool: Executor, until: float) -> bool:
        """Places what a round can, and reads a list beside that; whether there was anything."""
        start = self._clock.time()
        end = min(start + ROUND_SECONDS, until)
        things = self._choose_things(start, int((end - start) * PLACED_A_SECOND) + 1)
        chosen = self._choose_reading(start)
        if chosen is None and not things:
            return False
        if not self.roster.total("exposed"):
            end = min(start + FIRST_ROUND_SECONDS, until)
        listing = pool.submit(self._read, *chosen, end) if chosen else None
        first = max(start - BEHIND_SECONDS, self._next_place_at or start)
        times = [first + index / PLACED_A_SECOND for index in range(len(things))]
        self._next_place_at = first + len(things) / PLACED_A_SECOND
        outcomes = list(pool.map(lambda thing, at: self._place(thing, at, end), things, times))
        self._settle(dict(zip(things, outcomes, strict=True)))
        if chosen and listing:
            self._take_in(chosen[0], *listing.result())
        return True

    # Placing

    def _choose_things(self, now: float, most: int) -> list[str]:
        """Who is placed next: everybody is tried once before anybody is tried again."""
        due = due_tallies(self.roster, now)
        fresh = (self._sheet(int(n)).with_mark(Mark.OPEN) for n, t in due.items() if t.open)
        again = (self._sheet(int(n)).due_again(now) for n in due)
        things = chain.from_iterable(chain(fresh, again))
        chosen = list(islice((thing for thing in things if thing not in self._waived), most))
        return chosen if chosen or not self._is_check_due(now) else self._choose_checks(now)

    def _choose_checks(self, now: float) -> list[str]:
        self._has_checked = True
        have_left = self._have_left()
        if have_left:
            self.roster = replace(self.roster, removed=self._jobs[self._own_job].counts.removed)
        chosen: list[str] = []
        for number, tally in self.roster.tallies.items():
            if tally.placed and (have_left or earliest([tally.check_at]) <= now):
                sheet = self._sheet(int(number))
                sheet.check_at = now
                chosen += sheet.choose_checks(CHECKED_A_RUN - len(chosen), now)
                self._changed.add(int(number))
        return chosen

    def _place(self, thing: str, at: float, end: float) -> Outcome:
        """Tries one thing, at its time."""
        self._sleep_until(at)
        if self._clock.time() > end + BEHIND_SECONDS or self._is_group_missing:
            return None
        code = self._worker.groups.add(self._group, thing)
        if code is None:
            return Mark.PLACED
        if code not in MISSING:
            return code
        try:
            if not is_thing(self._worker.clients, thing):
                return Mark.GONE
        except AWS_ERRORS:
            return code
        self._is_group_missing = True
        return None

    def _settle(self, outcomes: Mapping[str, Outcome]) -> None:
        now = self._clock.time()
        for thing, outcome in outcomes.items():
            if outcome is None:
                continue
            sheet = self._sheet(sheet_of(thing))
            before = sheet.marks[thing]
            if isinstance(outcome, Mark):
                sheet.marks[thing] = outcome
                sheet.check_at = sheet.check_at or now + FIRST_CHECK
            elif before is not Mark.PLACED:
                sheet.marks[thing] = Refusal.after(before, outcome, now)
            if sheet.marks[thing] is not before:
                self._changed.add(sheet_of(thing))
        name = self._worker.names.rollback_group(self._group)
        problem = f"there is no thing group {name}" if self._is_group_missing else None
        self.roster = replace(self.roster, problem=problem)

    # Reading

    def _read(
        self, source: Source | None, reading: Reading, end: float
    ) -> tuple[Reading, list[str]]:
        """Reads pages until the end; the names on them."""
        job = source.job if source else self._own_job
        found: list[str] = []
        try:
            if not reading.is_under_way or self._was_deleted(source, reading):
                reading = self._begin(source, reading)
            is_members = reading.statuses == MEMBERS
            while reading.is_under_way and self._clock.time() < end:
                started = self._clock.time()
                things, token = self._page(source, reading)
                found += things
                reading = reading.turn_page(len(things), token, self._clock.time())
                if reading.is_under_way:
                    self._sleep_until(started + 1 / PAGES_A_SECOND)
            if reading.is_final and not is_members and self._find(job) is None:
                self._jobs.pop(job, None)
                reading = reading.give_up()  # deleted meanwhile: its list was not whole
        except AWS_ERRORS as error:
            reading = self._read_no_further(job, reading, error)
        return reading, found

    def _read_no_further(self, job: str, reading: Reading, error: Exception) -> Reading:
        code = error_code(error) if isinstance(error, ClientError) else type(error).__name__
        if code in MISSING and reading.statuses != MEMBERS:
            self._jobs.pop(job, None)
            return reading.give_up()
        if code == "InvalidRequestException" and reading.token:
            return reading.forget_token()
        return reading.fail(f"their list cannot be read ({code})", self._clock.time())

    def _was_deleted(self, source: Source | None, reading: Reading) -> bool:
        return source is not None and reading.statuses != MEMBERS and source.job not in self._jobs

    def _begin(self, source: Source | None, reading: Reading) -> Reading:
        now = self._clock.time()
        if source is None:
            return reading.start(("SUCCEEDED",), self._jobs[self._own_job].counts.succeeded, now)
        job = self._jobs.get(source.job) or self._find(source.job)
        if job is None:
            return reading.start(MEMBERS, 0, now, proves="everybody")
        self._jobs[source.job] = job
        return reading.begin(job, now)

    def _find(self, name: str) -> Job | None:
        """The job as it is now; None where it is deleted, or about to be."""
        job = self._worker.jobs.get(name)
        return job if job and not job.is_leaving else None

    def _page(self, source: Source | None, reading: Reading) -> tuple[list[str], str | None]:
        worker = self._worker
        if source and reading.statuses == MEMBERS:
            arn = worker.ring_groups.get(source.ring)
            group = arn.rsplit("/", 1)[1] if arn else worker.names.ring_group(source.ring)
            return member_page(worker.clients, group, reading.token)
        job = source.job if source else self._own_job
        return worker.jobs.execution_page(job, reading.statuses[0], reading.token)

    def _take_in(self, source: Source | None, reading: Reading, things: list[str]) -> None:
        """Puts what was read on the sheets."""
        job = source.job if source else self._own_job
        self.roster = replace(self.roster, readings={**self.roster.readings, job: reading})
        by_sheet: dict[int, list[str]] = {}
        for thing in things:
            by_sheet.setdefault(sheet_of(thing), []).append(thing)
        for number, names in by_sheet.items():
            sheet = self._sheet(number)
            if sheet.add(names) if source else sheet.prove(names):
                self._changed.add(number)

    # What is stored

    def _sheet(self, number: int) -> Sheet:
        if number not in self._sheets:
            key = self._worker.names.keys.roster_sheet(self._group, number)
            found = self._worker.bucket.get(key, SHEET_BYTES)
            self._sheet_etags[number] = found.place.etag if found else None
            sheet = Sheet(self._own_job)
            if found:
                try:
                    sheet = Sheet.decode(found.body)
                except ValueError:  # whoever was on it is found again
                    self.roster = replace(self.roster, readings={})
                    self._changed.add(number)
            sheet.follow(self._own_job)
            self._sheets[number] = sheet
            self._uncounted.add(number)
        return self._sheets[number]

    def _count(self) -> None:
        counted = {
            str(number): self._sheets[number].tally(self._waived)
            for number in sorted(self._uncounted | self._changed)
        }
        self._uncounted.clear()
        self.roster = replace(self.roster, tallies={**self.roster.tallies, **counted})

    def _store(self, *, busy: bool, pool: Executor | None = None) -> None:
        """Stores what changed: sheets first. Raises Overtaken where another run did."""
        self._count()
        changed = sorted(self._changed)
        list(pool.map(self._store_sheet, changed) if pool else map(self._store_sheet, changed))
        self._changed.clear()
        until = self._clock.time() + BUSY_SECONDS if busy else 0.0
        self.roster = replace(self.roster, busy_until=until)
        key = self._worker.names.keys.roster(self._group)
        text = canonical_json(self.roster)
        self._etag = self._worker.bucket.replace(key, text, self._etag).etag

    def _store_sheet(self, number: int) -> None:
        key = self._worker.names.keys.roster_sheet(self._group, number)
        body, etag = self._sheets[number].encode(), self._sheet_etags[number]
        self._sheet_etags[number] = self._worker.bucket.replace(key, body, etag).etag

    def _sleep_until(self, at: float) -> None:
        wait = at - self._clock.time()
        if wait > 0:
            self._clock.sleep(wait)
