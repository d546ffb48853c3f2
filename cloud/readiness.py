"""What a thing lacks before a release can reach its device, and bring it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from botocore.exceptions import ClientError

from cloud.clients import AWS_ERRORS, PAGE, is_missing
from cloud.cut_off import certificate_id
from cloud.device_ties import ACTIVE
from cloud.iot_calls import IotCalls, error_name
from cloud.preflight import GROUPS_A_THING, MAX_CERTIFICATES
from cloud.shadows import read_reported
from rollout.job_document import CONTRACT


class Gap(StrEnum):
    """Something that a thing lacks."""

    ROOM = "no-room"
    CERTIFICATE = "no-certificate"
    INACTIVE = "no-active-certificate"
    POLICY = "no-policy"
    HARDWARE = "other-hardware"
    WAY_BACK = "no-room-to-go-back"
    OUR_POLICY = "not-our-policy"
    REPORT = "no-report"
    CONTRACT = "other-contract"


SHUT_OUT = frozenset({Gap.ROOM, Gap.CERTIFICATE, Gap.INACTIVE, Gap.POLICY, Gap.HARDWARE})
"""What keeps a thing out of a ring: its device could never finish a job, and its ring would wait
for it, or it would fail the ring."""


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """What a thing lacks, and the principals that the device policy would have to be attached
    to."""

    gaps: tuple[Gap, ...]
    without_policy: tuple[str, ...] = ()
    """ARNs of its certificates, or ids of Cognito identities."""


class ReadinessCheck:
    """Looks at things one by one; each costs about six calls."""

    def __init__(self, calls: IotCalls, *, device_policy: str, hardware: str) -> None:
        self._calls, self._device_policy, self._hardware = calls, device_policy, hardware

    def look(self, thing: str, group_arns: Sequence[str]) -> Readiness:
        """What a thing in these groups, none of them a ring's, lacks. Raises AWS_ERRORS."""
        gaps: list[Gap] = []
        if len(group_arns) >= GROUPS_A_THING:
            gaps.append(Gap.ROOM)
        elif len(group_arns) == GROUPS_A_THING - 1:
            gaps.append(Gap.WAY_BACK)
        answer = self._calls.call("list_thing_principals", thingName=thing, maxResults=PAGE)
        principals = answer.get("principals", ())
        if not principals:
            return Readiness(gaps=(*gaps, Gap.CERTIFICATE, *self._read_shadow(thing)))
        looked_at = principals[:MAX_CERTIFICATES]
        policies = {one: self._policies(one) for one in looked_at}
        if not any(map(self._is_usable, looked_at)) and len(looked_at) == len(principals):
            gaps.append(Gap.INACTIVE)
        without = tuple(one for one in looked_at if self._device_policy not in policies[one])
        if without:
            has_any = any(policies.values()) or any(map(self._policies, group_arns))
            gaps.append(Gap.OUR_POLICY if has_any else Gap.POLICY)
        gaps += self._read_shadow(thing)
        return Readiness(gaps=tuple(gaps), without_policy=without)

    def mend(self, readiness: Readiness) -> str | None:
        """Attaches the device policy where it is missing; why not, where AWS refuses it: ten
        policies are attached already."""
        for principal in readiness.without_policy:
            try:
                self._calls.call("attach_policy", policyName=self._device_policy, target=principal)
            except AWS_ERRORS as error:
                return f"AWS does not attach {self._device_policy} ({error_name(error)})"
        return None

    def _policies(self, target: str) -> set[str]:
        answer = self._calls.call(
            "list_attached_policies", target=target, recursive=True, pageSize=PAGE
        )
        return {one["policyName"] for one in answer.get("policies", ())}

    def _is_usable(self, principal: str) -> bool:
        certificate = certificate_id(principal)
        if not certificate:
            return True  # a Cognito identity
        answer: dict[str, Any] = self._calls.call("describe_certificate", certificateId=certificate)
        return bool(answer["certificateDescription"]["status"] == ACTIVE)

    def _read_shadow(self, thing: str) -> list[Gap]:
        try:
            answer = self._calls.call("get_thing_shadow", thingName=thing)
        except ClientError as error:
            if not is_missing(error):
                raise
            return [Gap.REPORT]
        reported = read_reported(answer["payload"].read())
        if reported is None:
            return [Gap.REPORT]
        gaps = [] if reported.contract == CONTRACT else [Gap.CONTRACT]
        return gaps if reported.hardware == self._hardware else [*gaps, Gap.HARDWARE]
