"""Whoever must come back: the way back that is open, and devices whose firmware is neither good nor
being proved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cloud.channel import Channel
from cloud.cut_off import CutOff
from cloud.way_back import WayBackWorker
from rollout.go_back import Fate, count_left_behind, find_fate
from rollout.ledger import Run, open_exposures
from rollout.names import ROLLBACK
from rollout.observed import Counts, Job, Observed, Returning, Source
from rollout.release import Firmware
from rollout.state import Offer, Standing, State
from rollout.version import Version


@dataclass(frozen=True, kw_only=True)
class ExposureReport:
    """Devices on firmware that is neither good nor being proved: those that one version was
    offered to, and that share a fate."""

    version: Version
    sha256: str
    standing: Standing | None = None
    """What has become of the release."""
    rings: tuple[str, ...]
    jobs: tuple[str, ...]
    devices: int | None = None
    """That began it; those that are back already, too. None where a job was deleted: then it may be
    everybody in the ring."""
    fate: Fate
    then: str
    """What will happen to them, in words."""


@dataclass(frozen=True, kw_only=True)
class WayBackReport:
    """The last way back, and how far it has come."""

    group: int
    """The sequence in the name of its thing group."""
    group_name: str
    failed: str
    """The versions that failed, or were taken back."""
    reason: str
    to: Firmware | None = None
    """What its devices return to."""
    started_at: float
    done_at: float | None = None
    sources: tuple[Source, ...]
    """The jobs whose devices were exposed."""
    job: str | None = None
    job_status: str | None = None
    counts: Counts | None = None
    """Devices of its present job."""
    returning: Returning | None = None
    """Who is exposed, placed and back; None once it is done."""
    left_behind: int = 0
    """Devices that it could not bring back so far."""
    cut_off: tuple[str, ...] = ()
    """Devices in quarantine that were exposed: it does not wait for them."""


# The way back


def own_job(channel: Channel, state: State) -> str | None:
    """The id of the way back's present job."""
    offer = state.returning()
    return channel.names.job(ROLLBACK, offer.sequence) if offer else None


def look_back(channel: Channel, state: State, jobs: Mapping[str, Job]) -> Observed:
    """What the controller sees of the way back that is open: one read, beside the jobs."""
    back = state.open_way_back
    if back is None:
        return Observed(jobs=jobs)
    worker = WayBackWorker(channel.clients, channel.names, channel.bucket, ring_groups={})
    own = own_job(channel, state) or ""
    return Observed(jobs=jobs, returning=worker.look(back.group, back.sources, own))


def report_way_back(
    channel: Channel,
    state: State,
    jobs: Mapping[str, Job],
    now: float,
    cut_off: Iterable[CutOff] = (),
) -> WayBackReport | None:
    """`cut_off` are devices in quarantine."""
    back, own, offer = state.way_back, own_job(channel, state), state.returning()
    if back is None:
        return None
    job = jobs.get(own) if own else None
    observed = look_back(channel, state, jobs)
    exposing = {source.job for source in back.sources}
    return WayBackReport(
        group=back.group,
        group_name=channel.names.rollback_group(back.group),
        failed=back.failed,
        reason=back.reason,
        to=offer.firmware if offer else state.last_good,
        started_at=back.started_at,
        done_at=back.done_at,
        sources=back.sources,
        job=own,
        job_status=job.status if job else None,
        counts=job.counts if job else None,
        returning=observed.returning if back.is_open else None,
        left_behind=count_left_behind(state, observed, channel.names, now),
        cut_off=tuple(
            record.thing for record in cut_off if exposing.intersection(record.held.began)
        ),
    )


# Exposures


def began(offer: Offer, job: Job | None) -> int | None:
    """Devices that began an offer; None where that cannot be told: its job was deleted."""
    if job:
        return job.counts.began + (job.counts.canceled if job.is_abrupt else 0)
    return offer.final.began + offer.final.canceled if offer.final else None


def report_exposures(run: Run, jobs: Mapping[str, Job]) -> Iterator[ExposureReport]:
    """By version and fate, the newest offer last."""
    fates: dict[tuple[str, Fate], list[Offer]] = {}
    for offer in open_exposures(run.state):
        fates.setdefault((offer.sha256, _find_fate(run, offer)), []).append(offer)
    for (sha256, fate), offers in fates.items():
        numbers = [began(offer, jobs.get(run.job_id(offer))) for offer in offers]
        known = [number for number in numbers if number is not None]
        if any(numbers) or len(known) < len(numbers):
            yield ExposureReport(
                version=offers[-1].firmware.version,
                sha256=sha256,
                standing=run.state.standing(sha256),
                rings=tuple(dict.fromkeys(offer.ring for offer in offers)),
                jobs=tuple(run.job_id(offer) for offer in offers),
                devices=sum(known) if len(known) == len(numbers) else None,
                fate=fate,
                then=_describe_fate(run, fate),
            )


def _find_fate(run: Run, offer: Offer) -> Fate:
    """A way back that has taken them up takes them along whatever comes."""
    back = run.state.way_back
    is_taken = back is not None and back.is_open and offer.sequence in _sequences(run, back.sources)
    return Fate.RETURNS if is_taken else find_fate(run, offer)


def _sequences(run: Run, sources: tuple[Source, ...]) -> set[int | None]:
    return {run.names.job_sequence(source.job) for source in sources}


def _describe_fate(run: Run, fate: Fate) -> str:
    good, candidate, manifest = run.state.last_good, run.state.candidate, run.manifest
    release = candidate or manifest
    new = release.firmware.version if release else None
    match fate:
        case Fate.RETURNS:
            return f"they return to {good.version}" if good else "they return"
        case Fate.OVERTAKEN:
            return f"{new} was offered to them since: it stays, or takes them back when it fails"
        case Fate.WAITS:
            return f"they wait for {new}" if new else "they wait until the manifest can be read"
    return "THEY STAY: there is no way back; a newer release must reach them"
