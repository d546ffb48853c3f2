"""What a release will do, from its manifest alone: when rings start, whom a bad one reaches, costs,
limits.

It runs the simulation, and with it the very `decide` that runs in AWS. Times are in minutes from
the first run of the controller, money in US dollars.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from rollout.document import (
    MAX_DOCUMENT,
    RELEASE_TYPE,
    artifact_url,
    job_document,
    jws,
    signing_input,
    statement,
)
from rollout.release import Abort, AlarmGate, Manifest, Pace, RingPlan
from rollout.rings import RESERVED
from rollout.simulation import DAY, ENROLLED_A_RUN, START, Executed, Fleet, Simulation, sizes
from rollout.window import parse_time

MONTH_MINUTES = 730 * 60
MESSAGES_AN_UPDATE, MESSAGES_OTHERWISE = 16, 5
"""What the reference device sends and receives for one execution, at most: notify-next, start-next
and its answer, five reports of progress and the result with their answers, the shadow; without an
installation three fewer calls."""
WRITES_AN_UPDATE = 7
"""Requests of a device to the jobs data plane for one update: start-next, five reports, the
result."""
RUN_SECONDS, RUN_GIGABYTES = 2.0, 0.25
"""A run of the controller: assumed seconds, and the function's memory."""
LAMBDA_SECONDS = 300
"""The controller function's time-out."""
RING_METRICS, CHANNEL_METRICS, ALARMS = 6, 5, 7
"""CloudWatch metrics of a ring and of a channel, and alarms of a stack."""
FRIDAY_EVENING = START + 4 * 86_400 + 10 * 3600
"""Friday, 18:00 UTC."""
HEALTH = "device-health"
"""An alarm of somebody's own on what devices do after an update, in the scenarios."""


# Prices


@dataclass(frozen=True, kw_only=True)
class Price:
    """A list price in US dollars without free tiers, taxes and discounts, and where it was read."""

    what: str
    usd: float
    per: int
    unit: str
    source: str

    def of(self, quantity: float) -> float:
        return quantity * self.usd / self.per


PRICES = {
    "action": Price(
        what="IoT Jobs remote actions",
        usd=0.003,
        per=1,
        unit="execution",
        source=(
            "aws.amazon.com/iot-device-management/pricing, example for the first 250,000 a month,"
            " read 2026-09-20"
        ),
    ),
    "message": Price(
        what="IoT Core messages",
        usd=1.0,
        per=1_000_000,
        unit="message",
        source="aws.amazon.com/iot-core/pricing, example for Europe (Ireland), read 2026-09-20",
    ),
    "registry": Price(
        what="shadow and registry operations",
        usd=1.25,
        per=1_000_000,
        unit="operation",
        source="aws.amazon.com/iot-core/pricing, example for Canada (Central), read 2026-09-20",
    ),
    "get": Price(
        what="S3 GET",
        usd=0.0004,
        per=1000,
        unit="request",
        source="c3x.dev/blog/s3-request-fees-explained, S3 Standard",
    ),
    "transfer": Price(
        what="transfer to the internet",
        usd=0.09,
        per=10**9,
        unit="byte",
        source="finopsforge.com/reduce-aws-data-transfer-costs, the first 10 TB a month",
    ),
    "sign": Price(
        what="KMS signatures and checks (ECC)",
        usd=0.15,
        per=10_000,
        unit="request",
        source=(
            "factualminds.com/blog/aws-kms-pricing-keys-requests-multi-region, us-east-1, June 2026"
        ),
    ),
    "key": Price(what="KMS key", usd=1.0, per=1, unit="month", source="aws.amazon.com/kms/pricing"),
    "run": Price(
        what="Lambda requests",
        usd=0.2,
        per=1_000_000,
        unit="request",
        source="aws.amazon.com/lambda/pricing, US East (N. Virginia)",
    ),
    "compute": Price(
        what="Lambda compute",
        usd=0.00001667,
        per=1,
        unit="GB-second",
        source="aws.amazon.com/lambda/pricing, US East (N. Virginia)",
    ),
    "metric": Price(
        what="CloudWatch metrics",
        usd=0.30,
        per=1,
        unit="month",
        source="github.com/api-evangelist/cloudwatch, us-east-1, May 2026",
    ),
    "alarm": Price(
        what="CloudWatch alarms",
        usd=0.10,
        per=1,
        unit="month",
        source="github.com/api-evangelist/cloudwatch, us-east-1, May 2026",
    ),
    "request": Price(
        what="CloudWatch requests",
        usd=0.01,
        per=1000,
        unit="request",
        source="github.com/api-evangelist/cloudwatch, us-east-1, May 2026",
    ),
}
"""List prices, us-east-1 unless the source says otherwise, to be checked against the account's own
before money depends on them. What has no price here (log ingestion, topic rules, storage) is not in
the sums."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One item of a bill."""

    what: str
    quantity: float
    unit: str
    usd: float


def bill(quantities: Mapping[str, float]) -> tuple[Line, ...]:
    """Quantities by the name of their price."""
    lines = ((PRICES[name], quantity) for name, quantity in quantities.items())
    return tuple(
        Line(what=p.what, quantity=quantity, unit=p.unit, usd=p.of(quantity))
        for p, quantity in lines
    )


def total(lines: Iterable[Line]) -> float:
    return sum(line.usd for line in lines)


def standing(rings: int) -> tuple[Line, ...]:
    """What a stack costs a month while nothing is released: the controller looks every minute."""
    return bill(
        {
            "run": MONTH_MINUTES,
            "compute": MONTH_MINUTES * RUN_SECONDS * RUN_GIGABYTES,
            "sign": MONTH_MINUTES,
            "key": 1,
            "metric": RING_METRICS * rings + CHANNEL_METRICS,
            "alarm": ALARMS,
            "request": MONTH_MINUTES,
        }
    )


# One simulated release


@dataclass(frozen=True, kw_only=True)
class RingCourse:
    """A ring in one release."""

    name: str
    size: int
    started: int | None
    passed: int | None
    exposed: int
    """Devices that began the new firmware."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """How one simulated release went."""

    end: Literal["good", "stopped", "waiting"]
    released: int | None
    """When the last ring passed; without a controller, when the last device had ended."""
    waiting: str
    """What the channel waits for at the end."""
    rings: tuple[RingCourse, ...]
    devices: int
    exposed: int
    stopped: int | None
    """When it was stopped."""
    stopped_why: str | None
    back: int | None
    """When the last exposed device that answers ran the last good release again; None where some
    never do."""
    confirmed: int | None
    """When the controller had seen every exposed device back."""
    bricked: int
    """Devices that do not answer any more: only hands bring them back."""
    left: int
    """Devices that still run the new firmware at the end."""
    executions: int
    returns: int
    """Of these, for the way back."""
    bill: tuple[Line, ...]
    usd: float
    returns_usd: float
    """Of this, for the way back."""
    most_begun: int
    """Devices that began in the busiest minute."""
    most_jobs: int


def course(sim: Simulation) -> Course:
    """What a simulation that has run came to."""
    stops = [event for event in sim.events if event.what in ("failed", "rollback")]
    released = sim.released if sim.controller or sim.first_abort is not None else sim.minute
    stopped = _minute(sim, stops[0].at) if stops else (None if sim.controller else sim.first_abort)
    back_jobs = [job for job in sim.jobs.values() if not job.new and stopped is not None]
    returns = sum(job.executions for job in back_jobs)
    executions = sum(job.executions for job in sim.jobs.values())
    returning = sum(job.ended["install"] + job.ended["late"] for job in back_jobs)
    lines = _release_bill(sim, executions, sim.downloads, sim.enrolled)
    returned = _release_bill(sim, returns, returning, sim.enrolled)
    cohorts = [cohort for job in sim.jobs.values() for cohort in job.cohorts]
    return Course(
        end="stopped" if stopped is not None else "waiting" if released is None else "good",
        released=released,
        waiting=sim.state.waiting.text if sim.controller else "nobody watches",
        rings=tuple(
            RingCourse(
                name=r.name,
                size=r.size,
                started=r.started,
                passed=r.passed,
                exposed=exposed_in(sim, r.name),
            )
            for r in sim.rings.values()
        ),
        devices=sum(ring.size for ring in sim.rings.values()),
        exposed=sim.exposed,
        stopped=stopped,
        stopped_why=stops[0].why if stops else None,
        back=_back(sim, stopped),
        confirmed=next((_minute(sim, e.at) for e in sim.events if e.what == "rolled-back"), None),
        bricked=sum(cohort.devices for cohort in cohorts if cohort.result == "silent"),
        left=sim.updated,
        executions=executions,
        returns=returns,
        bill=lines,
        usd=total(lines),
        returns_usd=total(returned),
        most_begun=sim.most_begun,
        most_jobs=sim.most_jobs,
    )


def exposed_in(sim: Simulation, ring: str) -> int:
    return sum(job.exposed for job in sim.jobs.values() if job.ring == ring and job.new)


def _minute(sim: Simulation, at: float) -> int:
    return int(at - sim.start) // 60


def _back(sim: Simulation, stopped: int | None) -> int | None:
    """When nobody who answers ran the new firmware any more. Devices whose self-test fails go back
    by themselves."""
    if stopped is None or sim.updated:
        return None
    changes = [
        later.minute for earlier, later in pairwise(sim.points) if earlier.updated != later.updated
    ]
    reverts = [c.end for job in sim.jobs.values() for c in job.cohorts if c.result == "fail"]
    return max([stopped, *changes, *reverts])


def _release_bill(
    sim: Simulation, executions: int, installs: int, enrolled: int
) -> tuple[Line, ...]:
    size = sim.manifest.firmware.size
    return bill(
        {
            "action": executions,
            "message": (
                installs * MESSAGES_AN_UPDATE + max(executions - installs, 0) * MESSAGES_OTHERWISE
            ),
            "registry": installs + enrolled,
            "get": installs,
            "transfer": installs * size,
            "sign": sim.creations + sim.writes,
        }
    )


# What a bad release can reach


def bound(sim: Simulation, ring: str) -> int:
    """The most devices that a release which turns out bad in `ring` can have reached before it is
    stopped.

    Where every device there fails or falls silent: the ones needed for a verdict, and all that the
    rate allows until their results are in, the controller has looked (every minute) and the cancel
    is through. Where only some do, or where devices are offline and take up what is queued all at
    once: the ring. Rings before it had passed, whole.
    """
    manifest, fleet = sim.manifest, sim.fleet
    before = 0
    for plan in manifest.rings:
        size = sim.rings[plan.name].size
        if plan.name != ring:
            before += size
            continue
        everywhere = (
            fleet.failing + fleet.silent + fleet.rejecting >= 1 - 1e-9
            and not fleet.offline
            and ring not in fleet.spared
        )
        return before + (min(size, _until_verdict(sim, plan)) if everywhere else size)
    raise KeyError(ring)


def _until_verdict(sim: Simulation, ring: RingPlan) -> int:
    manifest, fleet = sim.manifest, sim.fleet
    patience = manifest.in_progress_timeout_minutes
    result_in = patience if fleet.silent else min(fleet.update_minutes[1], patience)
    window = result_in + fleet.cancel_minutes
    reached = notified = ring.gate.failure_limit.minimum - 1
    for _ in range(window):
        rate = _rate(
            manifest.pace,
            manifest.pace.maximum_per_minute if fleet.rejecting else notified,
            bool(fleet.rejecting),
        )
        reached, notified = reached + rate, notified + rate
    return reached + (fleet.joins_per_day * (window + 1) // DAY + 1 if fleet.joins_per_day else 0)


def _rate(pace: Pace, notified: int, unknown: bool) -> int:
    """Devices a minute while none succeeds; the highest rate where how many were notified is not
    known."""
    if pace.base_per_minute is None or (unknown and pace.increase_on == "notified"):
        return pace.maximum_per_minute
    steps = min(notified // pace.increase_after, 80) if pace.increase_on == "notified" else 0
    return min(pace.maximum_per_minute, int(pace.base_per_minute * pace.factor**steps))


# Limits


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A limit of AWS's, or of one setting against another, and how near this release comes."""

    what: str
    value: float
    limit: float
    kept: bool
    source: str


def limits(manifest: Manifest, fleet: Fleet, courses: Iterable[Course]) -> tuple[Limit, ...]:
    """Every limit that a release meets while it runs; what single settings may hold is checked when
    the stack is read."""
    ran = list(courses)
    longest = max(len(ring.name) for ring in manifest.rings)
    name = "s" * 8 + f"-{manifest.channel}-{'r' * max(longest, len(RESERVED))}-" + "9" * 10
    writes = max(course.most_begun for course in ran) * WRITES_AN_UPDATE / 60
    patience = manifest.in_progress_timeout_minutes
    found = [
        (
            "devices reached a minute",
            manifest.pace.maximum_per_minute,
            1000,
            "CreateJob maximumPerMinute; quota L-026DF298",
        ),
        (
            "minutes until a silent device times out",
            patience,
            10_080,
            "CreateJob inProgressTimeoutInMinutes",
        ),
        (
            "longest update, of the time-out's minutes",
            fleet.update_minutes[1],
            patience,
            "the stack file; updates are assumed",
        ),
        (
            "seconds that a presigned URL lives",
            manifest.presigned_url_seconds,
            3600,
            "CreateJob expiresInSec",
        ),
        (
            "characters of the job document",
            document_size(manifest),
            MAX_DOCUMENT,
            "CreateJob document",
        ),
        ("characters of the longest job id", len(name), 64, "CreateJob jobId"),
        ("targets of a job", 1, 100, "CreateJob targets; AssociateTargetsWithJob"),
        (
            "jobs of the channel at once",
            max(course.most_jobs for course in ran),
            500,
            "concurrent jobs; quota L-FBF5CD89",
        ),
        (
            "thing groups of a device: ring and rollback",
            2,
            10,
            "thing groups per thing, 2020 limits page",
        ),
        (
            "seconds to enrol a run's devices for a rollback",
            ENROLLED_A_RUN / 100,
            LAMBDA_SECONDS,
            "AddThingToThingGroup 100/s",
        ),
        (
            "device requests a second in the busiest minute",
            round(writes, 1),
            200,
            "jobs data plane writes, 2020 limits page",
        ),
    ]
    return tuple(
        Limit(what=what, value=value, limit=limit, kept=value <= limit, source=source)
        for what, value, limit, source in found
    )


def document_size(manifest: Manifest) -> int:
    """Characters of the release's job document, with names as long as they get."""
    signature = b"\x30\x44" + (b"\x02\x20" + b"\x7f" * 32) * 2
    claims = statement(manifest.channel, manifest.firmware, 10**10 - 1, downgrade=True)
    key = "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/" + "0" * 36
    url = artifact_url("b" * 63, "us-gov-west-1", "amazonaws.com", manifest.firmware.key)
    return len(job_document(jws(signing_input(RELEASE_TYPE, key, claims), signature), url))


# The plan

How = Literal["fails", "falls silent", "is ordered back"]


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A release that turns out bad in one ring: every device there and after it that takes it
    fails, or falls silent.

    Or, without a ring, one that was released and that a person orders back.
    """

    ring: str | None
    how: How
    bound: int
    course: Course


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a release will do."""

    version: str
    channel: str
    assumed: Fleet
    good: Course
    bad: tuple[Bad, ...]
    limits: tuple[Limit, ...]
    standing: tuple[Line, ...]


def begins(manifest: Manifest) -> int:
    """When the plan begins, in seconds since 1970: at the start time where the manifest has one,
    else on some Monday morning."""
    return (
        max(START, int(parse_time(manifest.start_at).timestamp())) if manifest.start_at else START
    )


def plan(manifest: Manifest, fleet: Fleet) -> tuple[Plan, Simulation, Simulation]:
    """The plan of a release, and the two simulations that its plot shows: good, and bad from the
    first ring on."""
    good, sims = simulate(manifest, fleet), _bad_simulations(manifest, fleet)
    well = course(good)
    bad = [
        Bad(ring=ring, how=how, bound=bound(sim, ring), course=course(sim))
        for (ring, how), sim in sims.items()
    ]
    if well.end == "good":
        late = course(simulate(manifest, replace(fleet, taken_back_after=0)))
        bad.append(Bad(ring=None, how="is ordered back", bound=late.devices, course=late))
    made = Plan(
        version=manifest.firmware.version,
        channel=manifest.channel,
        assumed=fleet,
        good=well,
        bad=tuple(bad),
        limits=limits(manifest, fleet, [well, *(one.course for one in bad)]),
        standing=standing(len(manifest.rings)),
    )
    return made, good, next(iter(sims.values()))


def _bad_simulations(manifest: Manifest, fleet: Fleet) -> dict[tuple[str, How], Simulation]:
    found: dict[tuple[str, How], Simulation] = {}
    for index, ring in enumerate(manifest.rings):
        spared = tuple(before.name for before in manifest.rings[:index])
        bad = 1.0 - fleet.rejecting
        found[ring.name, "fails"] = worse(
            manifest, replace(fleet, spared=spared, failing=bad, silent=0.0)
        )
        found[ring.name, "falls silent"] = worse(
            manifest, replace(fleet, spared=spared, failing=0.0, silent=bad)
        )
    return found


def simulate(
    manifest: Manifest, fleet: Fleet, *, start: int | None = None, controller: bool = True
) -> Simulation:
    return Simulation(
        manifest, fleet, start=begins(manifest) if start is None else start, controller=controller
    ).run()


def worse(
    manifest: Manifest, fleet: Fleet, *, start: int | None = None, controller: bool = True
) -> Simulation:
    """Under both readings of what IoT counts as executed: the course that exposes more."""
    readings: tuple[Executed, ...] = (
        ("finished", "ended") if fleet.rejecting else ("finished",)
    )  # else they are one
    sims = [
        simulate(manifest, replace(fleet, executed=reading), start=start, controller=controller)
        for reading in readings
    ]
    return max(sims, key=lambda sim: sim.exposed)


# Scenarios


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A release and a fleet to show what the settings do."""

    name: str
    fleet: Fleet
    start: int = START
    watched: bool = False
    """Whether every ring's gate has the alarm `device-health`, set to roll back."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A scenario under this stack's settings and under the public recipe's."""

    name: str
    bad: bool
    """Whether this release should not be on any device."""
    ours: Course
    recipe: Course


def scenarios(manifest: Manifest, fleet: Fleet) -> tuple[Scenario, ...]:
    first = (manifest.rings[0].name,)
    slow = replace(fleet, alarm=HEALTH, alarm_after=8 * 60)
    weekend = replace(fleet, offline=0.8, back_from=62 * 60, back_until=63 * 60)
    return (
        Scenario(name="good", fleet=fleet),
        Scenario(
            name="bad from the start: every self-test fails", fleet=replace(fleet, failing=1.0)
        ),
        Scenario(name="bad in 5 % of the devices", fleet=replace(fleet, failing=0.05)),
        Scenario(
            name="bad in 20 %, none of them in the first ring",
            fleet=replace(fleet, failing=0.2, spared=first),
        ),
        Scenario(
            name="silent bricks: every device begins and dies", fleet=replace(fleet, silent=1.0)
        ),
        Scenario(
            name="good, 30 % offline, back over three days", fleet=replace(fleet, offline=0.3)
        ),
        Scenario(name="defect shows 8 h after installing, no alarm sees it", fleet=slow),
        Scenario(name="the same, an alarm sees it and rolls back", fleet=slow, watched=True),
        Scenario(
            name="good, on Friday, 80 % offline until Monday", fleet=weekend, start=FRIDAY_EVENING
        ),
        Scenario(
            name="bad from the start, on Friday, 80 % offline until Monday",
            fleet=replace(weekend, failing=1.0),
            start=FRIDAY_EVENING,
        ),
    )


def recipe(manifest: Manifest) -> Manifest:
    """The public recipe's settings: one job for all devices, 10 a minute, stopped by IoT at 25 %
    FAILED of at least 3."""
    return replace(
        manifest,
        rings=(RingPlan(name="all", percent=100.0),),
        pace=Pace(maximum_per_minute=10),
        abort=(Abort(on="FAILED", percent=25.0, minimum=3),),
        start_at=None,
        window=None,
    )


def compare(manifest: Manifest, fleet: Fleet) -> tuple[Comparison, ...]:
    """Every scenario under the manifest's settings and the recipe's. The recipe's devices are taken
    to be as good as ours."""
    found, alone, devices = [], recipe(manifest), sum(sizes(manifest, fleet).values())
    for one in scenarios(manifest, fleet):
        ours = worse(watched(manifest) if one.watched else manifest, one.fleet, start=one.start)
        theirs = worse(
            alone,
            replace(one.fleet, sizes=None, devices=devices),
            start=one.start,
            controller=False,
        )
        bad = bool(one.fleet.failing or one.fleet.silent) or one.fleet.alarm_after is not None
        found.append(Comparison(name=one.name, bad=bad, ours=course(ours), recipe=course(theirs)))
    return tuple(found)


def watched(manifest: Manifest) -> Manifest:
    """The manifest with an alarm on the devices' health in every gate, set to roll back."""
    alarm = AlarmGate(name=HEALTH, action="rollback")
    rings = tuple(
        replace(ring, gate=replace(ring.gate, alarms=(*ring.gate.alarms, alarm)))
        for ring in manifest.rings
    )
    return replace(manifest, rings=rings)
