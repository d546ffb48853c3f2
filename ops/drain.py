"""`drain`: before a stack is destroyed, what others made on top of it goes.

Things that were provisioned go with their certificates; of things that came otherwise only what
ties them to the stack. Killed in the middle, the same command goes on: the certificates of the
devices that it is at are written down first, because nothing else leads to one that no thing has.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar

from cloud.channel import Channel
from cloud.cut_off import certificate_id
from cloud.device_ties import INACTIVE, DeviceTies
from cloud.groups import group_things
from cloud.pace import CallPace
from cloud.way_back import Clock
from ops.command import Command, Subparsers, add_changing_command
from ops.errors import OpsError
from ops.ring_work import THREADS
from ops.stack import Stack
from ops.terminal import say
from ops.text import count_devices, format_duration
from rollout.codec import DecodeError, decode_text

Result = TypeVar("Result")

A_SECOND = 9.0
"""Devices, and of each one call of a kind: UpdateCertificate, DeleteCertificate, DeleteJob and
ListThingPrincipals take 10 a second of the whole account (Service Quotas)."""
BATCH = 200
"""Devices whose certificates are written down at once."""
PATIENCE_SECONDS = 120.0
"""How long AWS may take to detach a certificate ("several seconds", DetachThingPrincipal), or to
delete ten jobs."""
PAUSE_SECONDS = 2.0
JOURNAL_BYTES = 1_048_576


@dataclass(frozen=True, kw_only=True)
class DrainJournal:
    """`drain.json`: certificates that a drain is removing, by ARN."""

    certificates: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Census:
    """What others made on top of a stack."""

    provisioned: list[str]
    """Things that were made by claim: their names begin with the stack's."""
    foreign: list[str]
    """Things that came otherwise."""
    targets: list[str]
    """ARNs of whatever has the device policy, but for the declared devices' certificates."""
    jobs: list[str]
    rollback_groups: list[int]
    left: tuple[str, ...]
    """Certificates that an earlier drain was at."""

    @property
    def is_empty(self) -> bool:
        parts = (self.provisioned, self.foreign, self.targets, self.jobs, self.rollback_groups)
        return not (any(parts) or self.left)


def add_parser(commands: Subparsers) -> None:
    text = "Before `pulumi destroy`: let go of what the stack did not create"
    parser = add_changing_command(commands, "drain", text, _run)
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and stop")


def _run(command: Command, args: argparse.Namespace) -> None:
    Drain(command.channel, command.stack, time).run(command, is_dry=bool(args.dry_run))


@dataclass
class Drain:
    channel: Channel
    stack: Stack
    clock: Clock
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ties: DeviceTies = self.stack.ties(self.channel.clients)
        self._pace = CallPace(A_SECOND, self.clock)

    def run(self, command: Command, *, is_dry: bool) -> None:
        census = self.count()
        if census.is_empty:
            say("Nothing uses the stack but what it made itself. `pulumi destroy` can go on.")
            return
        if is_dry:
            say(self.stack.title, *(f"  {line}" for line in self._describe(census)))
            say("Nothing was changed.")
            return
        order = command.ask_order(self._describe(census), word=self.stack.fleet_group_name)
        # else the controller offers its release to who is left, and misses its jobs
        command.write_order(
            order,
            lambda now, new: replace(now, halted=now.halted or new),
            replace_unreadable=True,
        )
        self.drain(census)
        if self.problems:
            named = "; ".join(self.problems[:5])
            raise OpsError(
                f"{len(self.problems)} could not be let go ({named}): the same command goes on"
            )
        say("Nothing uses the stack any more but what it made itself: `pulumi destroy`.")

    # Look

    def count(self) -> Census:
        names = self.channel.names
        sequences = sorted(self.channel.rollback_groups.sequences())
        groups = [names.fleet_group, *self.stack.ring_group_names.values()]
        groups += [names.quarantine_group, *map(names.rollback_group, sequences)]
        things = {t: None for group in groups for t in group_things(self.channel.clients, group)}
        if self.stack.thing_type_name:
            things |= dict.fromkeys(self._ties.things_of_type(self.stack.thing_type_name))
        declared = set(self.stack.device_names.values())
        others = [thing for thing in things if thing not in declared]
        own = self._own_certificates()
        return Census(
            provisioned=[thing for thing in others if self._is_provisioned(thing)],
            foreign=[thing for thing in others if not self._is_provisioned(thing)],
            targets=[arn for arn in self._ties.policy_targets() if arn not in own],
            jobs=[
                job
                for job, status in self.channel.jobs.statuses().items()
                if status != "DELETION_IN_PROGRESS"
            ],
            rollback_groups=sequences,
            left=self._journal()[0].certificates,
        )

    def _describe(self, census: Census) -> Iterator[str]:
        """What a drain does, in numbers."""
        gone, stay = len(census.provisioned), len(census.foreign)
        if gone:
            took = format_duration(gone / A_SECOND)
            yield f"REMOVES {count_devices(gone)} that were provisioned (their names begin with the"
            yield f"stack's), with their certificates, about {took}. They cannot connect any more."
        if stay:
            yield f"Takes {count_devices(stay)} that came otherwise out of the stack's groups, and"
            yield "policy and thing type of the stack from them; things and certificates stay."
        if census.targets:
            yield f"Detaches the device policy from all of its {len(census.targets)} other holders."
        if census.left:
            yield f"Removes {len(census.left)} certificates that an earlier drain was at."
        jobs, groups = len(census.jobs), len(census.rollback_groups)
        yield f"Deletes {jobs} jobs of the channel and {groups} groups of ways back."
        yield "Halts the channel first. Declared devices stay: `pulumi destroy` removes them."
        if self.stack.serials_table_name:
            yield "Who claims a certificate meanwhile comes in: make every claim inactive before."

    def _is_provisioned(self, thing: str) -> bool:
        """Nobody else's thing has the stack's random suffix in its name."""
        return thing.startswith(f"{self.stack.fleet_group_name}-")

    def _own_certificates(self) -> set[str]:
        """ARNs of the declared devices' certificates. What somebody else attached to their things
        is none of them."""
        own = set()
        for serial, thing in self.stack.device_names.items():
            pem = self.stack.device_certificates.get(serial, "").strip()
            for arn in self._ties.principal_arns(thing):
                if pem and self._ties.pem(arn.rpartition("/")[2]).strip() == pem:
                    own.add(arn)
        return own

    # Let go

    def drain(self, census: Census) -> None:
        self._each("jobs", census.jobs, self._delete_job)
        for sequence in census.rollback_groups:
            problem = self.channel.rollback_groups.delete(sequence)
            self.problems += [problem] if problem else []
        devices, gone, left = iter(census.provisioned), 0, census.left
        while batch := list(islice(devices, BATCH)):
            left = self._remove(batch, left)
            gone += len(batch)
            say(f"  {gone} of {len(census.provisioned)} provisioned devices: done")
        # who had them may have been in any batch
        left = self._until_gone(left, self._delete_certificate)
        self._write_journal(left)
        self.problems += [f"{arn} is still attached to a thing" for arn in left]
        self._each("things that stay", census.foreign, self._let_go)
        own = self._own_certificates()
        others = [arn for arn in self._ties.policy_targets() if arn not in own]
        self._each("other holders of the device policy", others, self._ties.detach_policy)

    def _remove(self, things: list[str], left: tuple[str, ...]) -> tuple[str, ...]:
        """A batch of provisioned things, and their certificates; the certificates that are still
        to be removed."""
        with ThreadPoolExecutor(THREADS) as pool:
            held = list(pool.map(self._at_pace(self._own), things))
            certificates = tuple(dict.fromkeys(arn for arns in held for arn in arns))
            self._write_journal((*left, *certificates))
            list(pool.map(self._at_pace(self._detach), certificates))
        left = (*left, *self._until_gone(certificates, self._delete_certificate))
        stuck = self._until_gone(things, self._ties.delete_thing)
        self.problems += [f"thing {thing} still has a certificate" for thing in stuck]
        self._write_journal(left)
        return left

    def _own(self, thing: str) -> list[str]:
        """ARNs of the certificates that go with the thing; what a thing has that stays is only
        taken from this one."""
        own = []
        for arn in self._ties.principal_arns(thing):
            if certificate_id(arn) and all(map(self._is_provisioned, self._ties.holders(arn))):
                own.append(arn)
            else:
                self._ties.detach_principal(thing, arn)
        return own

    def _detach(self, arn: str) -> None:
        self._ties.set_status(certificate_id(arn), INACTIVE)
        for thing in self._ties.holders(arn):
            self._ties.detach_principal(thing, arn)

    def _delete_certificate(self, arn: str) -> bool:
        """Once no thing has it."""
        if self._ties.holders(arn):
            return False
        # a drain that was killed had not come to it
        self._ties.set_status(certificate_id(arn), INACTIVE)
        return self._ties.delete_certificate(certificate_id(arn))

    def _until_gone(self, names: Iterable[str], delete: Callable[[str], bool]) -> tuple[str, ...]:
        """Deletes each once AWS has detached it; those that it did not in PATIENCE_SECONDS."""
        end, left = self.clock.time() + PATIENCE_SECONDS, tuple(names)
        with ThreadPoolExecutor(THREADS) as pool:
            while True:
                gone = list(pool.map(self._at_pace(delete), left))
                left = tuple(name for name, is_gone in zip(left, gone, strict=True) if not is_gone)
                if not left or self.clock.time() >= end:
                    return left
                self.clock.sleep(PAUSE_SECONDS)

    def _let_go(self, thing: str) -> None:
        """A thing that stays: out of the stack's groups, without its policy and its type."""
        ties, quarantine = self._ties, self.channel.names.quarantine_group
        for group in sorted(ties.groups(thing)):
            if ties.is_of_stack(group) or group == quarantine:
                ties.leave(group, thing)
        for arn in ties.principal_arns(thing):
            if self.channel.names.device_policy in ties.policies(arn):
                ties.detach_policy(arn)
        about = ties.describe(thing)
        if about and about.get("thingTypeName") == self.stack.thing_type_name:
            ties.remove_type(thing)

    def _delete_job(self, job: str) -> None:
        end = self.clock.time() + PATIENCE_SECONDS
        while not self.channel.jobs.delete(job):
            if self.clock.time() >= end:
                self.problems.append(f"job {job}: AWS is deleting ten others")
                return
            self.clock.sleep(PAUSE_SECONDS)

    def _each(self, what: str, names: list[str], act: Callable[[str], object]) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self._at_pace(act), names))
        if names:
            say(f"  {len(names)} {what}: done")

    def _at_pace(self, act: Callable[[str], Result]) -> Callable[[str], Result]:
        def acts(name: str) -> Result:
            self._pace.wait()
            return act(name)

        return acts

    # What is written down

    def _journal(self) -> tuple[DrainJournal, str | None]:
        found = self.channel.bucket.get(self.channel.names.keys.drain, JOURNAL_BYTES)
        if found is None:
            return DrainJournal(), None
        try:
            return decode_text(DrainJournal, found.body), found.place.etag
        except DecodeError as error:
            raise OpsError(f"drain.json cannot be read ({error}): remove it by hand") from error

    def _write_journal(self, certificates: tuple[str, ...]) -> None:
        before, etag = self._journal()
        if before.certificates != certificates:
            text = json.dumps({"certificates": certificates})
            self.channel.bucket.replace(self.channel.names.keys.drain, text, etag)
