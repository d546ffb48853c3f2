"""A job that goes out in batches, as the sandbox's local AWS tells its devices."""

from __future__ import annotations

from typing import Any

from ministack.services import iot

from ops.local_aws import ACCOUNT
from sandbox.ministack_launcher import release_batch

REGION, JOB = "us-east-1", "fleet-stable-broad-1"
THINGS = [f"thing-{number}" for number in range(7)]


def test_every_device_of_a_later_batch_is_told() -> None:
    """The whole way is seen by `make bench`: a batch a minute is too slow for a test."""
    with iot.request_scope(ACCOUNT, REGION):
        iot._things.update({name: {"thingName": name} for name in THINGS})
        job: dict[str, Any] = {
            "jobId": JOB,
            "status": "IN_PROGRESS",
            "targetSelection": "CONTINUOUS",
            "targets": [f"arn:aws:iot:{REGION}:{ACCOUNT}:thing/{name}" for name in THINGS],
            "jobExecutionsRolloutConfig": {"maximumPerMinute": 3},
            "rolloutQueue": THINGS,
        }
        iot._jobs[JOB] = job
        told = [release_batch(job) for _ in range(3)]
        made = {thing: iot._job_executions[thing, JOB] for thing in THINGS}
    assert told == [
        [(name, None) for name in batch] for batch in (THINGS[:3], THINGS[3:6], THINGS[6:])
    ]
    assert job["rolloutQueue"] == []
    assert {one["status"] for one in made.values()} == {"QUEUED"}
