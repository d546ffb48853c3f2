"""An account with devices that leave: certificates, policies, a registry of serials, on top of the
nastiest IoT there is. Detaching takes effect seconds later, and until then AWS refuses what needs
it (DetachThingPrincipal: "This call is asynchronous"); lists come in short pages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from cloud.clients import Clients
from cloud.cut_off import Quarantine
from cloud.serial_table import SerialTable
from ops.stack import Stack
from rollout.names import Names
from rollout.serial import Claim, Serial, SerialStatus
from tests.histories.nasty_aws import KEYS, Line, said_no
from tests.histories.nasty_iot import IOT_ARN, NastyIot, Weather
from tests.unit import ops_cloud

NAMES = Names(fleet="fleet", suffix="0123abcd", channel="stable")
P = NAMES.fleet_group
POLICY, THEIRS = NAMES.device_policy, "sensor-topics"
THING, DECLARED, FOREIGN = NAMES.thing("a-7"), NAMES.thing("0001"), "Pump_12"
CANARY, BROAD = NAMES.ring_group("canary"), NAMES.ring_group("broad")
JOB = NAMES.job("broad", 100)
DETACH_SECONDS = 5.0
NOW = ops_cloud.NOW


@dataclass
class Certificate:
    status: str = "ACTIVE"
    policies: list[str] = field(default_factory=lambda: [POLICY, THEIRS])
    things: list[str] = field(default_factory=list)
    """Who has it; a name is gone only once AWS has detached it."""
    pem: str = ""


def certificate_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def arn_of(certificate: str) -> str:
    return f"{IOT_ARN}:cert/{certificate}"


class LeavingAws(NastyIot):
    """A fleet of one provisioned, one declared and one foreign device, all in a ring and busy."""

    def __init__(self) -> None:
        weather = Weather(page=2, list_lag=0, blind=0, join=0)
        super().__init__(bucket=NAMES.bucket, now=NOW, seed=1, weather=weather)
        self.certificates: dict[str, Certificate] = {}
        self.attributes: dict[str, dict[str, str]] = {}
        self.types: dict[str, str] = {}
        self.detaching: list[tuple[float, str, str]] = []
        """When, certificate, thing."""
        self.connected: set[str] = set()
        self.serials: dict[str, dict[str, Any]] = {}
        self.policies = {POLICY, THEIRS}
        self.make_group(P)
        for group in (CANARY, BROAD):
            self.make_group(group, P)
        self.make_group(NAMES.quarantine_group)
        for thing, serial in ((THING, "a-7"), (DECLARED, "0001"), (FOREIGN, "P12")):
            self.add_device(thing, serial)
        self.create(JOB, BROAD, "{}", {"targetSelection": "CONTINUOUS"}, mine=True)
        self.pass_time(60)

    @property
    def stack(self) -> Stack:
        return replace(
            ops_cloud.STACK,
            region="us-east-1",
            signing_key_arns=tuple(KEYS),
            device_names={"0001": DECLARED},
            device_certificates={"0001": "pem of 0001"},
            thing_type_name=NAMES.thing_type("device"),
            serials_table_name=NAMES.serials_table,
        )

    def add_device(self, thing: str, serial: str, ring: str = BROAD) -> str:
        """The id of its certificate."""
        self.make_thing(thing)
        self.attributes[thing] = {"serial": serial, "hardware": "gateway-a1"}
        self.types[thing] = NAMES.thing_type("device")
        certificate = certificate_id(thing)
        self.certificates[certificate] = Certificate(things=[thing], pem=f"pem of {serial}")
        self.join(ring, thing)
        self.connected.add(thing)
        return certificate

    def register(self, serial: str, thing: str) -> None:
        """As the hook claims it."""
        claim = Claim(thing=thing, certificate=certificate_id(thing), key="k", by="f", at=NOW)
        self.table().put(Serial(serial=serial, status=SerialStatus.CLAIMED, claim=claim), None)

    def line(self) -> Line:
        return Line(aws=self)

    def clients(self) -> Clients:
        return Clients(self.line().connect)

    def table(self) -> SerialTable:
        return SerialTable(self.clients(), NAMES.serials_table)

    def quarantine(self) -> Quarantine:
        channel = self.stack.channel(self.clients())
        return Quarantine(channel.bucket, NAMES)

    def ties_of(self, thing: str) -> dict[str, Any]:
        """All that the device has."""
        stored = self.table().get(self.attributes.get(thing, {}).get("serial", ""))
        return {
            "certificates": {
                name: (one.status, sorted(one.policies))
                for name, one in self.certificates.items()
                if thing in one.things
            },
            "groups": sorted(self.things.get(thing, ())),
            "serial": stored.record.status if stored else None,
        }

    def settle(self) -> None:
        """AWS detaches what it was told to, some seconds ago."""
        for at, certificate, thing in [one for one in self.detaching if one[0] <= self.now]:
            self.detaching.remove((at, certificate, thing))
            found = self.certificates.get(certificate)
            if found and thing in found.things:
                found.things.remove(thing)

    def _certificate(self, arn_or_id: str, operation: str) -> Certificate:
        self.settle()
        found = self.certificates.get(arn_or_id.rpartition("/")[2])
        if found is None:
            raise said_no("ResourceNotFoundException", operation)
        return found

    # S3 and STS

    def do_get_caller_identity(self) -> Any:
        account = next(iter(KEYS)).split(":")[4]
        return {"Account": account, "Arn": f"arn:aws:iam::{account}:user/olga"}

    def do_delete_object(self, *, Bucket: str, Key: str, **more: Any) -> Any:
        found = self.get(Key)
        if found is None or found.etag != more["IfMatch"]:
            raise said_no("PreconditionFailed", "DeleteObject")
        return super().do_delete_object(Bucket=Bucket, Key=Key)

    def do_list_objects_v2(self, *, Bucket: str, Prefix: str = "", **more: Any) -> Any:
        start = int(more.get("ContinuationToken", 0))
        keys = [key for key in sorted(self.objects) if key.startswith(Prefix) and self.get(key)]
        rest = {"NextContinuationToken": str(start + 1)} if len(keys) > start + 1 else {}
        return {"Contents": [{"Key": key} for key in keys[start : start + 1]], **rest}

    # The registry of serials

    def do_get_item(self, *, TableName: str, Key: Any, ConsistentRead: bool) -> Any:
        assert TableName == NAMES.serials_table
        assert ConsistentRead
        item = self.serials.get(Key["serial"]["S"])
        return {"Item": item} if item else {}

    def do_put_item(self, *, TableName: str, Item: Any, **condition: Any) -> Any:
        assert TableName == NAMES.serials_table
        assert "ConditionExpression" in condition, "a write without a condition loses words"
        there = self.serials.get(Item["serial"]["S"])
        wanted = condition.get("ExpressionAttributeValues", {}).get(":revision")
        if (there["revision"] if there else None) != wanted:
            raise said_no("ConditionalCheckFailedException", "PutItem")
        self.serials[Item["serial"]["S"]] = Item
        return {}

    # Things

    def do_describe_thing(self, *, thingName: str) -> Any:
        found = super().do_describe_thing(thingName=thingName)
        kind = {"thingTypeName": self.types[thingName]} if thingName in self.types else {}
        return {**found, "attributes": self.attributes.get(thingName, {}), **kind}

    def do_list_things(self, *, maxResults: int = 25, nextToken: str = "", **only: Any) -> Any:
        found = [
            {"thingName": thing, "attributes": self.attributes.get(thing, {})}
            for thing in sorted(self.things)
            if only.get("thingTypeName") in (None, self.types.get(thing))
            and self.attributes.get(thing, {}).get(only.get("attributeName", ""))
            == only.get("attributeValue")
        ]
        return self._page("things", found, maxResults, nextToken)

    def do_update_thing(self, *, thingName: str, removeThingType: bool) -> Any:
        assert removeThingType
        self.types.pop(thingName)
        return {}

    def do_delete_thing(self, *, thingName: str) -> Any:
        self.settle()
        if any(thingName in one.things for one in self.certificates.values()):
            why = f"Cannot delete. Thing {thingName} is still attached to one or more principals"
            raise said_no("InvalidRequestException", "DeleteThing", why)
        self.delete_thing(thingName)
        self.types.pop(thingName, None)
        return {}

    def do_list_thing_principals(
        self,
        *,
        thingName: str,
        maxResults: int = 25,
        nextToken: str | None = None,
        **_more: Any,
    ) -> Any:
        self.settle()
        if thingName not in self.things:
            raise said_no("ResourceNotFoundException", "ListThingPrincipals")
        gone = {name for _, name, thing in self.detaching if thing == thingName}
        found = [
            arn_of(name)
            for name, one in self.certificates.items()
            if thingName in one.things and name not in gone
        ]
        return self._page("principals", found, maxResults, nextToken)

    def do_list_principal_things(
        self, *, principal: str, maxResults: int = 25, nextToken: str | None = None
    ) -> Any:
        found = self._certificate(principal, "ListPrincipalThings").things
        return self._page("things", found, maxResults, nextToken)

    def do_detach_thing_principal(self, *, thingName: str, principal: str) -> Any:
        self._certificate(principal, "DetachThingPrincipal")
        entry = (self.now + DETACH_SECONDS, principal.rpartition("/")[2], thingName)
        self.detaching.append(entry)
        return {}

    # Certificates and policies

    def do_describe_certificate(self, *, certificateId: str) -> Any:
        found = self._certificate(certificateId, "DescribeCertificate")
        about = {"certificateId": certificateId, "status": found.status}
        return {"certificateDescription": {**about, "certificatePem": found.pem}}

    def do_update_certificate(self, *, certificateId: str, newStatus: str) -> Any:
        self._certificate(certificateId, "UpdateCertificate").status = newStatus
        return {}

    def do_delete_certificate(self, *, certificateId: str, forceDelete: bool = False) -> Any:
        found = self._certificate(certificateId, "DeleteCertificate")
        if found.status == "ACTIVE":
            raise said_no("CertificateStateException", "DeleteCertificate")
        if found.things:
            why = f"Things must be detached before deletion (arn: {arn_of(certificateId)})"
            raise said_no("DeleteConflictException", "DeleteCertificate", why)
        if found.policies and not forceDelete:
            raise said_no("DeleteConflictException", "DeleteCertificate", "it has policies")
        del self.certificates[certificateId]
        return {}

    def do_list_attached_policies(
        self, *, target: str, marker: str | None = None, pageSize: int = 25, **_more: Any
    ) -> Any:
        found = [
            {"policyName": name} for name in self._certificate(target, "ListPolicies").policies
        ]
        return marked(self._page("policies", found, pageSize, marker))

    def do_list_targets_for_policy(
        self, *, policyName: str, marker: str | None = None, pageSize: int = 25
    ) -> Any:
        if policyName not in self.policies:
            raise said_no("ResourceNotFoundException", "ListTargetsForPolicy")
        found = [
            arn_of(name) for name, one in self.certificates.items() if policyName in one.policies
        ]
        return marked(self._page("targets", found, pageSize, marker))

    def do_attach_policy(self, *, policyName: str, target: str) -> Any:
        if policyName not in self.policies:
            raise said_no("ResourceNotFoundException", "AttachPolicy")
        held = self._certificate(target, "AttachPolicy").policies
        if policyName not in held:
            held.append(policyName)
        return {}

    def do_detach_policy(self, *, policyName: str, target: str) -> Any:
        held = self._certificate(target, "DetachPolicy").policies
        if policyName in held:
            held.remove(policyName)
        return {}

    # Executions and connections

    def do_cancel_job_execution(self, *, jobId: str, thingName: str, force: bool = False) -> Any:
        job = self._job(jobId, "CancelJobExecution")
        execution = job.executions.get(thingName)
        if execution is None:
            raise said_no("ResourceNotFoundException", "CancelJobExecution")
        wanted = ("QUEUED", "IN_PROGRESS") if force else ("QUEUED",)
        if execution.status not in wanted:
            raise said_no("InvalidStateTransitionException", "CancelJobExecution")
        self._change(job, execution, "CANCELED")
        return {}

    def do_delete_connection(self, *, clientId: str, cleanSession: bool) -> Any:
        assert cleanSession, "what was queued for it must not be waiting when it is let in again"
        if clientId not in self.connected:
            raise said_no("ResourceNotFoundException", "DeleteConnection")
        self.connected.discard(clientId)
        return {}

    def open_executions(self, thing: str) -> Iterator[str]:
        for job in self.jobs.values():
            execution = job.executions.get(thing)
            if execution and execution.status in ("QUEUED", "IN_PROGRESS"):
                yield job.id


def marked(page: dict[str, Any]) -> dict[str, Any]:
    """Policies' lists call their tokens otherwise."""
    token = page.pop("nextToken", None)
    return {**page, **({"nextMarker": token} if token else {})}
