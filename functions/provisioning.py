"""The pre-provisioning hook: AWS IoT asks it whether a device may have the thing of its serial.

AWS IoT waits five seconds. Whatever is not allowed is refused, counted and logged by a fixed
reason; the log never holds a certificate.

See https://docs.aws.amazon.com/iot/latest/developerguide/pre-provisioning-hook.html
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import boto3

from cloud.bucket import Overtaken
from cloud.clients import QUICK_CONFIG, Clients
from cloud.groups import groups_of_thing
from cloud.serial_table import SerialTable, StoredSerial
from rollout.claim_rules import (
    CERTIFICATE_ID,
    ClaimRefusal,
    ClaimRefusedError,
    ClaimRequest,
    ClaimRules,
    choose_ring,
    fill_template,
    judge_claim,
    read_claim,
)
from rollout.names import (
    METRIC_NAMESPACE,
    FleetNames,
    HookVariable,
    ProvisioningMetric,
    TemplateParameter,
)
from rollout.rings import Share
from rollout.serial import Serial, SerialStatus

CLAIM_WRITES = 4
"""How often a claim is judged anew because somebody else wrote the serial's record."""
SHOWN_SERIAL = 98
"""Characters of what a device calls its serial that are logged: the longest that there is."""


def handler(event: Any, _context: Any) -> dict[str, Any]:
    """Lambda's entry. Raises what AWS raises: to AWS IoT that is a refusal, to the alarm an
    error."""
    return ProvisioningHook(read_rules(os.environ), clients()).answer(event, time.time())


@cache
def clients() -> Clients:
    """Made once for as long as Lambda keeps the function warm."""
    session = boto3.Session()
    return Clients(lambda service: session.client(service, config=QUICK_CONFIG))


def read_rules(environment: Mapping[str, str]) -> ClaimRules:
    names = FleetNames(
        fleet=environment[HookVariable.FLEET], suffix=environment[HookVariable.SUFFIX]
    )
    rings = json.loads(environment[HookVariable.RINGS])
    return ClaimRules(
        names=names,
        rings=tuple(Share(name=ring["name"], percent=ring["percent"]) for ring in rings),
        thing_type=environment[HookVariable.THING_TYPE],
        hardware=environment[HookVariable.HARDWARE],
        initial_version=environment[HookVariable.INITIAL_VERSION],
        attributes=json.loads(environment[HookVariable.ATTRIBUTES]),
        claim_certificates=frozenset(json.loads(environment[HookVariable.CLAIM_CERTIFICATES])),
    )


class ProvisioningHook:
    """Answers one request."""

    def __init__(self, rules: ClaimRules, clients: Clients) -> None:
        self._rules, self._clients = rules, clients
        self._table = SerialTable(clients, rules.names.serials_table)

    def answer(self, event: Any, now: float) -> dict[str, Any]:
        """What AWS IoT is told. Raises Overtaken where the serial's record is written again and
        again."""
        try:
            request = read_claim(event, self._rules.claim_certificates)
            record, group = self._claim(request, now)
        except ClaimRefusedError as refused:
            print(json.dumps(describe(event, self._rules, refused.reason, now)))
            return {"allowProvisioning": False}
        print(json.dumps(describe(event, self._rules, None, now)))
        return {
            "allowProvisioning": True,
            "parameterOverrides": fill_template(record, self._rules, group),
        }

    def _claim(self, request: ClaimRequest, now: float) -> tuple[Serial, str]:
        """The serial's record with the claim in it, as the registry has it then, and the thing
        group of the device's ring. Raises ClaimRefusedError."""
        thing = self._rules.names.thing(request.serial)
        for _ in range(CLAIM_WRITES):
            stored = self._table.get(request.serial)
            record = judge_claim(stored.record if stored else None, request, thing, now)
            group = choose_ring(record, self._rules, self._find_groups(stored, thing))
            if stored is None or record == stored.record:
                return record, group
            try:
                self._table.put(record, stored.revision)
            except Overtaken:
                continue
            return record, group
        raise Overtaken(request.serial)

    def _find_groups(self, stored: StoredSerial | None, thing: str) -> set[str]:
        """Those that the thing is in; a serial that nobody had has none."""
        if stored is None or stored.record.status is SerialStatus.UNCLAIMED:
            return set()
        return groups_of_thing(self._clients, thing) or set()


def describe(
    event: Any, rules: ClaimRules, reason: ClaimRefusal | None, now: float
) -> dict[str, Any]:
    """A line for the log that CloudWatch also counts.

    See https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    event = event if isinstance(event, dict) else {}
    parameters = event.get("parameters")
    serial = parameters.get(TemplateParameter.SERIAL) if isinstance(parameters, dict) else None
    counts = {ProvisioningMetric.ALLOWED: reason is None, ProvisioningMetric.REFUSED: bool(reason)}
    metrics = [{"Name": metric.value, "Unit": "Count"} for metric in counts]
    return {
        "_aws": {
            "Timestamp": int(now * 1000),
            "CloudWatchMetrics": [
                {"Namespace": METRIC_NAMESPACE, "Dimensions": [["Suffix"]], "Metrics": metrics}
            ],
        },
        "Suffix": rules.names.suffix,
        **{metric.value: int(count) for metric, count in counts.items()},
        "outcome": "refused" if reason else "allowed",
        "reason": reason.value if reason else "",
        "serial": serial[:SHOWN_SERIAL] if isinstance(serial, str) else "",
        "claimCertificate": _certificate_id(event.get("claimCertificateId")),
        "certificate": _certificate_id(event.get("certificateId")),
    }


def _certificate_id(value: Any) -> str:
    """What is no id is not logged: whoever sent it could have put anything there."""
    return value if isinstance(value, str) and CERTIFICATE_ID.fullmatch(value) else ""
