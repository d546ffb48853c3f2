"""One device: what it runs, its jobs, and why."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import ClientError

from ops.channel import PAGE, Channel, Memory
from ops.errors import OpsError, code
from ops.status import reason
from ops.words import clean
from rollout.document import rollback_group
from rollout.rings import RESERVED
from rollout.state import State

SHOWN_JOBS = 10
"""Executions that are shown, the newest ones."""


def device_report(channel: Channel, name: str) -> dict[str, Any]:
    """What is known of a thing, or of the declared device with this serial. Raises OpsError when
    there is no such thing."""
    stack = channel.stack
    thing = stack.devices.get(name, name)
    groups = _groups(channel, thing, name)
    rings = [ring for ring, group in stack.ring_groups.items() if group in groups]
    prefix = rollback_group(stack.fleet_group, stack.channel, 0).removesuffix("0")
    rollbacks = sorted(
        int(group.removeprefix(prefix)) for group in groups if group.startswith(prefix)
    )
    memory = channel.memory(channel.live_jobs())
    report = {
        "thing": thing,
        "ring": rings[0] if rings else None,
        "reported": _shadow(channel, thing),
        "shouldRun": _should_run(memory, rings[0] if rings else None, rollbacks),
        "rollbacks": rollbacks,
        "jobs": _jobs(channel, thing),
    }
    return {**report, "why": _why(report, memory)}


def _groups(channel: Channel, thing: str, name: str) -> set[str]:
    try:
        answer = channel.client("iot").list_thing_groups_for_thing(thingName=thing, maxResults=100)
    except ClientError as error:
        if code(error) != "ResourceNotFoundException":
            raise
        known = (
            f"; the stack's declared devices are {', '.join(sorted(channel.stack.devices))}"
            if channel.stack.devices
            else ""
        )
        raise OpsError(f"there is no thing {name} in {channel.stack.region}{known}") from error
    return {group["groupName"] for group in answer["thingGroups"]}


def _shadow(channel: Channel, thing: str) -> dict[str, Any] | None:
    """What the device says that it runs; None before its first report."""
    try:
        answer = channel.client("iot-data").get_thing_shadow(thingName=thing)
    except ClientError as error:
        if code(error) == "ResourceNotFoundException":
            return None
        raise
    document = json.loads(answer["payload"].read())
    reported = document.get("state", {}).get("reported", {})
    firmware = reported.get("firmware") if isinstance(reported, dict) else None
    if not isinstance(firmware, dict):
        return None
    at = (
        document.get("metadata", {})
        .get("reported", {})
        .get("firmware", {})
        .get("version", {})
        .get("timestamp")
    )
    return {
        "version": clean(str(firmware.get("version"))),
        "sha256": clean(str(firmware.get("sha256"))),
        "sequence": firmware.get("sequence"),
        "hardware": clean(str(reported.get("hardware"))),
        "at": at,
    }


def _should_run(memory: Memory, ring: str | None, rollbacks: list[int]) -> dict[str, Any] | None:
    """The newest offer that is meant for the device."""
    state = memory.state
    if state is None or ring is None:
        return None
    progress = state.candidate.rings.get(ring) if state.candidate else None
    offer = progress.offer if progress else state.stable.get(ring)
    back = (
        state.rollback.offer
        if state.rollback and state.rollback.offer.sequence in rollbacks
        else None
    )
    if back and (offer is None or back.sequence > offer.sequence):
        offer = back
    return (
        {
            "version": offer.firmware.version,
            "sha256": offer.firmware.sha256,
            "sequence": offer.sequence,
        }
        if offer
        else None
    )


def _jobs(channel: Channel, thing: str) -> list[dict[str, Any]]:
    """The channel's jobs of the device, the newest offer first."""
    call = channel.client("iot").list_job_executions_for_thing
    found = channel.pages(call, "executionSummaries", thingName=thing, maxResults=PAGE)
    mine = [item for item in found if channel.names.sequence(item["jobId"]) is not None]
    mine.sort(key=lambda item: item["jobExecutionSummary"]["executionNumber"], reverse=True)
    mine.sort(key=lambda item: channel.names.sequence(item["jobId"]) or 0, reverse=True)
    return [_job(channel, thing, item) for item in mine[:SHOWN_JOBS]]


def _job(channel: Channel, thing: str, item: dict[str, Any]) -> dict[str, Any]:
    summary, name = item["jobExecutionSummary"], str(item["jobId"])
    details = channel.details(name, thing, summary["executionNumber"])
    times = {
        key: summary[key].timestamp() if key in summary else None
        for key in ("queuedAt", "startedAt", "lastUpdatedAt")
    }
    status = str(summary["status"])
    over = status in ("FAILED", "TIMED_OUT", "REJECTED", "SUCCEEDED") and (
        status != "SUCCEEDED" or "reason" in details
    )
    return {
        "job": name,
        "ring": name.removeprefix(channel.names.prefix).rsplit("-", 1)[0],
        "sequence": channel.names.sequence(name),
        "description": clean((channel.describe(name) or {}).get("description", "")),
        "status": status,
        **times,
        "details": details,
        "why": reason(status, details) if over else None,
    }


def _why(report: dict[str, Any], memory: Memory) -> list[str]:
    """What the figures mean, in sentences."""
    runs, should, ring = report["reported"], report["shouldRun"], report["ring"]
    said = [] if ring else ["it is in no ring of this stack, so no release reaches it"]
    if runs is None:
        said.append("it has never reported what it runs")
    if memory.distrusted:
        said.append(f"what it should run cannot be told: {clean(memory.distrusted.why)}")
    elif should and runs:
        same = should["sha256"] == runs["sha256"]
        said.append(f"it runs {runs['version']}, as it should" if same else _differs(report))
    state = memory.state or State()
    for sequence in report["rollbacks"]:
        rollback = (
            state.rollback if state.rollback and state.rollback.offer.sequence == sequence else None
        )
        what = (
            f" to {rollback.offer.firmware.version}, after {rollback.failed} failed"
            if rollback
            else ""
        )
        does = "brought" if rollback and rollback.done_at is not None else "brings"
        said.append(
            f"it was exposed to a release that was taken back; {RESERVED}-{sequence} {does} it"
            f" back{what}"
        )
    return said


def _differs(report: dict[str, Any]) -> str:
    runs, should = report["reported"], report["shouldRun"]
    job = next((job for job in report["jobs"] if job["sequence"] == should["sequence"]), None)
    if job is None:
        return (
            f"it runs {runs['version']}, it should run {should['version']}; AWS has not given it"
            " that job"
        )
    words = {
        "QUEUED": "it has not taken the job: it is offline, or busy with another",
        "IN_PROGRESS": f"it is at it (step {job['details'].get('step', 'unknown')})",
        "CANCELED": "its job was cancelled before it began",
    }
    said = words.get(job["status"], job["why"] or job["status"].lower())
    return f"it runs {runs['version']}, it should run {should['version']}: {said}"
