"""What ties a device to the stack and to AWS IoT: its certificates, their policies, its thing
groups, its jobs, its connection. Each call may be repeated: what is so already stays so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from botocore.exceptions import ClientError

from cloud.clients import Clients, attempt, error_code, is_missing, list_all
from cloud.cut_off import HeldPrincipal, Holding
from cloud.groups import groups_of_thing
from cloud.jobs import Jobs
from cloud.serial_table import SerialTable
from rollout.names import Names
from rollout.orders import Order
from rollout.rings import SERIAL_ATTRIBUTE
from rollout.serial import SerialStatus

OPEN = frozenset({"QUEUED", "IN_PROGRESS"})
"""Statuses of executions that a device has still to do."""
ACTIVE, INACTIVE = "ACTIVE", "INACTIVE"
"""Statuses of certificates (CertificateStatus) that IoT lets connect, and does not."""


class DeviceTies:
    """Looks at a stack's devices, one at a time, and cuts and mends what ties them."""

    def __init__(self, clients: Clients, names: Names, serials: SerialTable | None) -> None:
        """Without `serials` the stack has no registry."""
        self._clients, self._names, self._serials = clients, names, serials
        self._jobs = Jobs(clients, names)

    # Look

    def look(self, thing: str) -> Holding | None:
        """What the device has now; None where there is no such thing."""
        about = self.describe(thing)
        groups = groups_of_thing(self._clients, thing)
        if about is None or groups is None:
            return None
        serial = about.get("attributes", {}).get(SERIAL_ATTRIBUTE)
        stored = self._serials.get(serial) if serial and self._serials else None
        return Holding(
            serial=serial,
            serial_status=stored.record.status if stored else None,
            groups=tuple(sorted(filter(self.is_of_stack, groups))),
            principals=tuple(self.principals(thing)),
            began=tuple(
                dict.fromkeys(one.job for one in self._jobs.of_thing(thing) if one.started_at)
            ),
        )

    def describe(self, thing: str) -> Mapping[str, Any] | None:
        """DescribeThing; None where there is no such thing."""
        return self._ask("describe_thing", thingName=thing)

    def is_of_stack(self, group: str) -> bool:
        """Whether it is one of the stack's groups that give a device firmware: its name tells."""
        own = self._names.fleet_group
        is_named = group == own or group.startswith(f"{own}-")
        return is_named and group != self._names.quarantine_group

    def principal_arns(self, thing: str) -> list[str]:
        return self._list("list_thing_principals", "principals", thingName=thing)

    def principals(self, thing: str) -> list[HeldPrincipal]:
        return [self.principal(arn) for arn in self.principal_arns(thing)]

    def certificates(self, thing: str) -> tuple[HeldPrincipal, ...]:
        """Those of its principals that are certificates and are there."""
        found = (one for one in self.principals(thing) if one.certificate and one.status)
        return tuple(sorted(found, key=lambda one: one.arn))

    def deactivate(self, thing: str) -> list[str]:
        """Makes its active certificates inactive; their ids."""
        active = [one.certificate for one in self.certificates(thing) if one.status == ACTIVE]
        return [one for one in active if one and self.set_status(one, INACTIVE)]

    def principal(self, arn: str) -> HeldPrincipal:
        """As it is now; a certificate that is gone has no status."""
        held, answer = HeldPrincipal(arn=arn), None
        if held.certificate:
            answer = self._ask("describe_certificate", certificateId=held.certificate)
        status = answer["certificateDescription"]["status"] if answer else None
        return replace(held, status=status, policies=tuple(self.policies(arn)))

    def policies(self, principal: str) -> list[str]:
        """Names of those attached to a certificate, or another principal."""
        found = self._list("list_attached_policies", "policies", target=principal)
        return [policy["policyName"] for policy in found]

    def holders(self, principal: str) -> list[str]:
        """The things that have it, by name."""
        return self._list("list_principal_things", "things", principal=principal)

    def policy_targets(self) -> Iterator[str]:
        """ARNs of whatever has the stack's device policy, page after page."""
        policy = self._names.device_policy
        return list_all(self._clients.iot, "list_targets_for_policy", "targets", policyName=policy)

    def count_policy_targets(self, most: int) -> int:
        """Up to so many; none where AWS does not let the caller ask. A local AWS (MiniStack) judges
        the call by `*`, AWS by the policy."""
        try:
            return sum(1 for _ in islice(self.policy_targets(), most))
        except ClientError as error:
            if error_code(error) not in ("AccessDeniedException", "UnauthorizedException"):
                raise
            return 0

    def things_of_type(self, thing_type: str) -> Iterator[str]:
        things = list_all(self._clients.iot, "list_things", "things", thingTypeName=thing_type)
        return (item["thingName"] for item in things)

    def pem(self, certificate: str) -> str:
        """Nothing where there is none."""
        answer = self._ask("describe_certificate", certificateId=certificate)
        return str(answer["certificateDescription"]["certificatePem"]) if answer else ""

    def find_things(self, serial: str) -> list[str]:
        """The things whose attribute `serial` says so, by name: of fleets that came otherwise,
        too."""
        attribute = {"attributeName": SERIAL_ATTRIBUTE, "attributeValue": serial}
        return [item["thingName"] for item in self._list("list_things", "things", **attribute)]

    # Certificates and the connection

    def set_status(self, certificate: str, status: str) -> bool:
        """Whether there is such a certificate."""
        return self._does("update_certificate", certificateId=certificate, newStatus=status)

    def delete_certificate(self, certificate: str) -> bool:
        """Whether it is gone, with its policies: AWS refuses it while a thing has it, some seconds
        after that was detached, too."""
        call = partial(
            self._clients.iot.delete_certificate, certificateId=certificate, forceDelete=True
        )
        return _is_gone(call, "DeleteConflictException", "CertificateStateException")

    def detach_principal(self, thing: str, principal: str) -> None:
        """AWS does it seconds later (DetachThingPrincipal)."""
        self._does("detach_thing_principal", thingName=thing, principal=principal)

    def delete_thing(self, thing: str) -> bool:
        """Whether it is gone: AWS refuses it while it has a principal, some seconds after that was
        detached, too."""
        call = partial(self._clients.iot.delete_thing, thingName=thing)
        return _is_gone(call, "InvalidRequestException")

    def remove_type(self, thing: str) -> None:
        self._does("update_thing", thingName=thing, removeThingType=True)

    def detach_policy(self, principal: str) -> None:
        """The stack's own."""
        policy = self._names.device_policy
        self._does("detach_policy", policyName=policy, target=principal)

    def attach_policy(self, policy: str, principal: str) -> bool:
        """Whether there are the two."""
        return self._does("attach_policy", policyName=policy, target=principal)

    def detach_policies(self, principal: str) -> None:
        """All that are attached now."""
        for policy in list(self.policies(principal)):
            self._does("detach_policy", policyName=policy, target=principal)

    def end_connection(self, thing: str) -> str | None:
        """Closes the device's connection, and forgets its session. Devices connect under their
        thing's name: the device policy lets them under no other. What there was to say, where AWS
        did not close one."""
        try:
            self._clients.iot_data.delete_connection(clientId=thing, cleanSession=True)
        except ClientError as error:
            if is_missing(error):
                return "it was not connected"
            if error_code(error) == "InvalidRequestException":  # any thing's name is a valid one
                said = error.response.get("Error", {}).get("Message", "")
                return f"this AWS does not end connections ({said}): its certificates must do"
            raise
        return None

    # Groups

    def groups(self, thing: str) -> set[str]:
        return groups_of_thing(self._clients, thing) or set()

    def join(self, group: str, thing: str) -> bool:
        """Whether there are the two."""
        return self._does("add_thing_to_thing_group", thingGroupName=group, thingName=thing)

    def leave(self, group: str, thing: str) -> None:
        self._does("remove_thing_from_thing_group", thingGroupName=group, thingName=thing)

    # Jobs

    def cancel_executions(self, thing: str) -> list[str]:
        """Ends what the channel's jobs still want of the device, also what it has begun; the jobs
        whose executions were ended."""
        return [
            one.job
            for one in self._jobs.of_thing(thing)
            if one.status in OPEN
            and attempt(
                self._clients.iot.cancel_job_execution,
                jobId=one.job,
                thingName=thing,
                force=True,
            )
        ]

    # The registry

    def block(self, serial: str, order: Order) -> None:
        """Nobody may claim the serial, where the registry knows it."""
        if self._serials:
            self._serials.change(
                serial, lambda now: now if now.status is SerialStatus.BLOCKED else now.block(order)
            )

    def unblock(self, serial: str, order: Order) -> None:
        """The serial is what it was before it was blocked."""
        if self._serials:
            self._serials.change(
                serial,
                lambda now: now.unblock(order) if now.status is SerialStatus.BLOCKED else now,
            )

    # Calls

    def _ask(self, operation: str, **parameters: Any) -> Mapping[str, Any] | None:
        """The answer; None where there is no such thing."""
        try:
            answer: Mapping[str, Any] = getattr(self._clients.iot, operation)(**parameters)
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        return answer

    def _does(self, operation: str, **parameters: Any) -> bool:
        """Makes a call; False where what it is for is not there."""
        return self._ask(operation, **parameters) is not None

    def _list(self, operation: str, key: str, **parameters: Any) -> list[Any]:
        """Every item of a list; none where what it is of is not there."""
        try:
            return list(list_all(self._clients.iot, operation, key, **parameters))
        except ClientError as error:
            if is_missing(error):
                return []
            raise


def _is_gone(delete: Callable[[], object], *not_yet: str) -> bool:
    """Whether a delete went through, or had before; False where AWS answers that something must be
    over first."""
    try:
        delete()
    except ClientError as error:
        if is_missing(error):
            return True
        if error_code(error) in not_yet:
            return False
        raise
    return True
