"""What the controller sees in AWS: manifest, orders, jobs, groups, alarms, images."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

from botocore.exceptions import ClientError

from functions.aws import Clients, Setup, error_code, get_object, pages
from rollout.codec import DecodeError, decode_text
from rollout.document import alarm_name, rollback_group
from rollout.observed import LIVE, Alarm, Job, Observed
from rollout.release import Firmware, Manifest, control_key, manifest_key, sha256
from rollout.rings import RESERVED
from rollout.state import Control, Order, State

EXPOSED = ("IN_PROGRESS", "SUCCEEDED", "FAILED", "TIMED_OUT")
PAGE = 250
ALARMS_A_CALL = 100


class View:
    def __init__(self, setup: Setup, clients: Clients) -> None:
        self.setup, self.clients, self.names = setup, clients, setup.names
        self._exposed: dict[str, set[str]] = {}

    def manifest(self) -> tuple[Manifest | None, str | None]:
        """The manifest, only if it is byte for byte the one that `pulumi up` announced; else None
        and why."""
        found = get_object(self.clients, self.setup.bucket, manifest_key(self.names.channel))
        if found is None:
            return None, "there is no manifest yet"
        if sha256(found[0]) != self.setup.manifest_sha256:
            return None, "its SHA-256 is not the one that this deployment announced"
        try:
            return Manifest.parse(found[0]), None
        except DecodeError as error:
            return None, str(error)

    def control(self) -> Control:
        """control.json. One that cannot be read is a halt, since an operator's word is in there."""
        found = get_object(self.clients, self.setup.bucket, control_key(self.names.channel))
        if found is None:
            return Control()
        try:
            return decode_text(Control, found[0])
        except DecodeError as error:
            return Control(
                halted=Order(
                    by="the controller", at=0.0, why=f"control.json is unreadable: {error}"
                )
            )

    def live_jobs(self) -> dict[str, Job]:
        """The channel's jobs that are not over, by id; without their counts."""
        found: dict[str, Job] = {}
        for status in sorted(LIVE):
            for item in pages(self.clients.iot.list_jobs, "jobs", status=status, maxResults=PAGE):
                if self.names.sequence(item["jobId"]) is not None:
                    found[item["jobId"]] = Job(status=item["status"])
        return found

    def sequences(self) -> list[int]:
        """The sequences of all jobs of the channel that IoT still knows, ended ones too. Reads the
        whole account's list."""
        jobs = pages(self.clients.iot.list_jobs, "jobs", maxResults=PAGE)
        return [
            sequence
            for item in jobs
            if (sequence := self.names.sequence(item["jobId"])) is not None
        ]

    def rollback_groups(self) -> frozenset[int]:
        prefix = rollback_group(self.setup.fleet_group, self.names.channel, 0).removesuffix("0")
        groups = pages(
            self.clients.iot.list_thing_groups,
            "thingGroups",
            namePrefixFilter=prefix,
            maxResults=PAGE,
        )
        tails = [item["groupName"].removeprefix(prefix) for item in groups]
        return frozenset(int(tail) for tail in tails if tail.isdigit())

    def observe(
        self,
        state: State,
        manifest: Manifest | None,
        problem: str | None,
        control: Control,
        live: Mapping[str, Job],
        groups: frozenset[int],
    ) -> Observed:
        """Everything else that the decision needs, for this state."""
        good, candidate, rollback = state.last_good, state.candidate, state.rollback
        plans = [plan for plan in (manifest, candidate and candidate.manifest) if plan]
        alarms = {gate.name for plan in plans for ring in plan.rings for gate in ring.gate.alarms}
        wanted = manifest.firmware if manifest and manifest.firmware != good else None
        members, exposed = set[str](), set[str]()
        if rollback and rollback.done_at is None:
            exposed = self.exposed(rollback.exposing)
            members = (
                self.members(rollback.offer.sequence)
                if rollback.offer.sequence in groups
                else members
            )
        return Observed(
            jobs={**live, **self._known_jobs(state)},
            alarms=self._alarms(sorted(alarms)),
            control=control,
            manifest_problem=problem,
            image_problem=self._image_problem(wanted) if wanted else None,
            good_image_problem=self._image_problem(good) if good and wanted else None,
            groups=groups,
            enrolled=len(members),
            unenrolled=len(exposed - members),
        )

    def _known_jobs(self, state: State) -> dict[str, Job]:
        """The jobs that the state names, whatever has become of them."""
        offers = [(ring, offer.sequence) for ring, offer in state.stable.items()]
        if state.candidate:
            offers += [
                (ring, progress.offer.sequence) for ring, progress in state.candidate.rings.items()
            ]
        names = [self.names.job(ring, sequence) for ring, sequence in offers]
        if state.rollback:
            names += [
                self.names.job(RESERVED, state.rollback.offer.sequence),
                *state.rollback.exposing,
            ]
        return {name: job for name in dict.fromkeys(names) if (job := self._job(name))}

    def _job(self, name: str) -> Job | None:
        try:
            answer = self.clients.iot.describe_job(jobId=name)["job"]
        except ClientError as error:
            if error_code(error) == "ResourceNotFoundException":
                return None
            raise
        return Job.of(answer)

    def _alarms(self, names: list[str]) -> dict[str, Alarm]:
        full = {alarm_name(self.setup.fleet_group, name): name for name in names}
        found: dict[str, Alarm] = {}
        for start in range(0, len(full), ALARMS_A_CALL):
            asked = sorted(full)[start : start + ALARMS_A_CALL]
            answer = self.clients.cloudwatch.describe_alarms(
                AlarmNames=asked,
                AlarmTypes=["MetricAlarm", "CompositeAlarm"],
                MaxRecords=ALARMS_A_CALL,
            )
            for alarm in [*answer.get("MetricAlarms", []), *answer.get("CompositeAlarms", [])]:
                since = alarm.get("StateTransitionedTimestamp") or alarm["StateUpdatedTimestamp"]
                found[full[alarm["AlarmName"]]] = Alarm(
                    state=alarm["StateValue"], since=since.timestamp()
                )
        return found

    def _image_problem(self, firmware: Firmware) -> str | None:
        """Whether the artifact lies in the bucket with the promised size and SHA-256 (S3 keeps the
        checksum of the object)."""
        place = f"s3://{self.setup.bucket}/{firmware.key}"
        try:
            head = self.clients.s3.head_object(
                Bucket=self.setup.bucket, Key=firmware.key, ChecksumMode="ENABLED"
            )
        except ClientError as error:
            if error_code(error) in ("404", "NoSuchKey"):
                return f"the image {place} is missing"
            raise
        checksum = head.get("ChecksumSHA256")
        if head["ContentLength"] != firmware.size:
            return f"the image {place} has {head['ContentLength']} bytes, not {firmware.size}"
        if checksum is None or head.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
            return f"the image {place} was stored without a SHA-256 of the whole object"
        if base64.b64decode(checksum).hex() != firmware.sha256:
            return f"the image {place} has another SHA-256 than the release"
        return None

    def exposed(self, jobs: Iterable[str]) -> set[str]:
        """The things that began, or ended, one of these jobs; each job is listed once a run."""
        things: set[str] = set()
        for job in jobs:
            if job not in self._exposed:
                self._exposed[job] = set().union(
                    *(self._executions(job, status) for status in EXPOSED)
                )
            things |= self._exposed[job]
        return things

    def _executions(self, job: str, status: str) -> set[str]:
        call = self.clients.iot.list_job_executions_for_job
        try:
            found = list(
                pages(call, "executionSummaries", jobId=job, status=status, maxResults=PAGE)
            )
        except ClientError as error:
            if (
                error_code(error) == "ResourceNotFoundException"
            ):  # killed before CreateJob, or deleted by hand
                return set()
            raise
        return {item["thingArn"].rsplit("/", 1)[1] for item in found}

    def members(self, sequence: int) -> set[str]:
        """The things in a rollback's group."""
        call = self.clients.iot.list_things_in_thing_group
        return set(
            pages(
                call, "things", thingGroupName=self.setup.rollback_group(sequence), maxResults=PAGE
            )
        )
