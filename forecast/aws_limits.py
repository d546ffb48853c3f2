"""The limits, of AWS or of one setting against another, that a release meets while it runs; what a
single setting may hold is checked when the stack file is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from forecast.assumptions import Assumptions
from forecast.course import Course
from rollout.job_document import MAX_DOCUMENT, longest_document
from rollout.names import PLACED_A_SECOND, ROLLBACK, Names
from rollout.release import Manifest

WRITES_AN_UPDATE = 7
"""Requests of a device to the jobs data plane that write: it begins, five reports, the result."""
HIGHEST_SEQUENCE = 10**10 - 1


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A limit, and how near this release comes."""

    what: str
    value: float
    limit: float
    kept: bool
    source: str


@dataclass(frozen=True, kw_only=True)
class ProvisioningStep:
    """What each device that comes in by claim asks of AWS, and how long all of them take."""

    what: str
    calls: int
    """A device, where no answer is lost."""
    calls_a_second: int
    """Of the whole account in its region, as long as nobody has it raised."""
    quota: str
    """Its name and code in Service Quotas."""
    minutes: int
    """For all devices, one after the other at that rate."""


PROVISIONING_QUOTAS = (
    ("connect: by claim, then as itself", 2, 500, "Connect requests, device gateway"),
    (
        *("CreateCertificateFromCsr: its certificate", 1, 20),
        "Fleet Provisioning CreateCertificateFromCsr MQTT API TPS (L-83161BB8)",
    ),
    (
        *("RegisterThing: its thing, ring, policies", 1, 10),
        "Fleet Provisioning RegisterThing MQTT API TPS (L-B2BBBD8C)",
    ),
)
"""What, calls a device, calls a second (defaults of Service Quotas, 2024), quota."""


def list_provisioning(devices: int) -> tuple[ProvisioningStep, ...]:
    """What AWS allows so many devices that come in by claim.

    >>> list_provisioning(100_000)[-1].minutes
    167
    """
    return tuple(
        ProvisioningStep(
            what=what,
            calls=calls,
            calls_a_second=rate,
            quota=quota,
            minutes=ceil(devices * calls / rate / 60),
        )
        for what, calls, rate, quota in PROVISIONING_QUOTAS
    )


def check_limits(
    manifest: Manifest, assumptions: Assumptions, courses: Sequence[Course]
) -> tuple[Limit, ...]:
    """Every limit, over all the courses that the release may take."""
    rate, timeout = manifest.pace.maximum_per_minute, manifest.in_progress_timeout_minutes
    update, url_seconds = assumptions.update_minutes[1], manifest.presigned_url_seconds
    names = Names(fleet="", suffix="s" * 8, channel=manifest.channel)
    longest_ring = max(*(ring.name for ring in manifest.rings), ROLLBACK, key=len)
    job_id = len(names.job(longest_ring, HIGHEST_SEQUENCE))
    document = len(longest_document(manifest.channel, manifest.firmware, manifest.document_extra))
    jobs = max(course.most_jobs for course in courses)
    writes = round(max(course.most_begun for course in courses) * WRITES_AN_UPDATE / 60, 1)
    found = [
        ("devices reached a minute", rate, 1000, "CreateJob maximumPerMinute; quota L-026DF298"),
        ("minutes until a silent device times out", timeout, 10_080, "CreateJob timeoutConfig"),
        ("longest update, of the time-out's minutes", update, timeout, "inProgressTimeoutMinutes"),
        ("seconds that a presigned URL lives", url_seconds, 3600, "CreateJob expiresInSec"),
        ("characters of the job document", document, MAX_DOCUMENT, "CreateJob document"),
        ("characters of the longest job id", job_id, 64, "CreateJob jobId"),
        ("targets of a job", 1, 100, "CreateJob targets; AssociateTargetsWithJob"),
        ("jobs of the channel at once", jobs, 500, "concurrent jobs; quota L-FBF5CD89"),
        ("groups of a device: ring, rollback", 2, 10, "thing groups per thing, 2020 limits page"),
        ("devices a second put into a way back", PLACED_A_SECOND, 100, "AddThingToThingGroup"),
        (
            "device requests a second in the busiest minute",
            *(writes, 200, "jobs data plane writes, 2020 limits page"),
        ),
    ]
    return tuple(
        Limit(what=what, value=value, limit=limit, kept=value <= limit, source=source)
        for what, value, limit, source in found
    )
