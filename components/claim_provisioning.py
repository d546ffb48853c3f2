"""Provisioning by claim: the registry of serials, the claim certificates, the template and its
hook.

See https://docs.aws.amazon.com/iot/latest/developerguide/provision-wo-cert.html#claim-based
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from components import policies
from components.context import Context, after, keep
from components.function_code import function_code
from components.settings.fleet import ClaimCertificate, FleetSettings
from rollout.codec import encode
from rollout.names import OWN_ATTRIBUTES, FleetNames, HookVariable, TemplateParameter

HOOK_SECONDS = 4
"""The hook's time-out: AWS IoT waits five seconds."""
HOOK_MEGABYTES = 512
"""Lambda gives processor time by memory, and a first call must load boto3 within those seconds."""
HOOK_PAYLOAD = "2020-04-01"
"""payloadVersion of ProvisioningHook: the only one."""


@dataclass(frozen=True, kw_only=True)
class ClaimProvisioningArgs:
    context: Context[FleetNames]
    fleet: FleetSettings
    thing_type: aws.iot.ThingType
    policy: aws.iot.Policy
    """What every device may do."""
    rings: Sequence[aws.iot.ThingGroup]


class ClaimProvisioning(pulumi.ComponentResource):
    """A table of serials, claim certificates with their policy, and a provisioning template whose
    hook allows a serial once: resources that do not grow with the number of devices."""

    table_name: pulumi.Output[str]
    template_name: pulumi.Output[str]
    certificates: dict[str, pulumi.Output[str]]
    """Claim to certificate, PEM."""

    def __init__(
        self, name: str, args: ClaimProvisioningArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("iotota:index:ClaimProvisioning", name, None, opts)
        self._name, self._args, self._context = name, args, args.context
        self._child = pulumi.ResourceOptions(parent=self)
        self._kept = keep(self._child, self._context.protect)
        context, claims = self._context, args.fleet.claims
        table = aws.dynamodb.Table(
            f"{name}-serials",
            name=context.names.serials_table,
            attributes=[{"name": "serial", "type": "S"}],
            hash_key="serial",
            billing_mode="PAY_PER_REQUEST",  # a factory is idle, and then it is not
            point_in_time_recovery={"enabled": True},
            server_side_encryption={"enabled": True},
            deletion_protection_enabled=context.protect,
            tags=context.tags,
            opts=self._kept,  # who has which serial
        )
        policy = aws.iot.Policy(
            f"{name}-policy",
            name=context.names.claim_policy,
            policy=policies.fill_in(
                policies.claim_policy, location=context.location, names=context.names
            ),
            tags=context.tags,
            opts=self._kept,
        )
        certificates = {claim.name: self._make_certificate(claim, policy) for claim in claims}
        active = [certificates[claim.name].id for claim in claims if claim.active]
        template = self._make_template(self._make_hook(table, active))
        self.table_name, self.template_name = table.name, template.name
        # the provider marks it secret for the key's sake; a certificate is public
        self.certificates = {
            claim: pulumi.Output.unsecret(certificate.certificate_pem)
            for claim, certificate in certificates.items()
        }
        self.register_outputs({"tableName": self.table_name, "templateName": self.template_name})

    def _make_certificate(
        self, claim: ClaimCertificate, policy: aws.iot.Policy
    ) -> aws.iot.Certificate:
        """Of a key that the stack never sees."""
        label = f"{self._name}-claim-{claim.name}"
        certificate = aws.iot.Certificate(
            f"{label}-certificate",
            active=claim.active,
            csr=claim.csr,
            # devices wait with it in boxes: only one that is out of use may go
            opts=self._kept if claim.active else self._child,
        )
        aws.iot.PolicyAttachment(
            f"{label}-policy", policy=policy.name, target=certificate.arn, opts=self._child
        )
        return certificate

    def _make_hook(
        self, table: aws.dynamodb.Table, claims: Sequence[pulumi.Output[str]]
    ) -> aws.lambda_.Function:
        name, context, fleet = f"{self._name}-hook", self._context, self._args.fleet
        log_group = aws.cloudwatch.LogGroup(
            f"{name}-log",
            name=context.names.provisioning_hook_log,
            retention_in_days=context.log_retention_days,
            tags=context.tags,
            opts=self._kept,  # who came in, and who tried
        )
        role = aws.iam.Role(
            f"{name}-role",
            name=context.names.provisioning_hook,
            description="The pre-provisioning hook's function",
            assume_role_policy=policies.fill_in(policies.lambda_trust, location=context.location),
            tags=context.tags,
            opts=self._child,
        )
        rights = aws.iam.RolePolicy(
            f"{name}-rights",
            name="hook",
            role=role.name,
            policy=policies.fill_in(
                policies.hook_policy,
                location=context.location,
                names=context.names,
                table_arn=table.arn,
                log_group_arn=log_group.arn,
            ),
            opts=self._child,
        )
        variables: dict[str, pulumi.Input[str]] = {
            HookVariable.ATTRIBUTES: json.dumps(dict(sorted(fleet.attributes.items()))),
            HookVariable.CLAIM_CERTIFICATES: pulumi.Output.json_dumps(claims),
            HookVariable.FLEET: context.names.fleet,
            HookVariable.HARDWARE: fleet.hardware,
            HookVariable.INITIAL_VERSION: str(fleet.initial_version),
            HookVariable.RINGS: json.dumps(encode(fleet.rings)),
            HookVariable.SUFFIX: context.names.suffix,
            HookVariable.THING_TYPE: self._args.thing_type.name,
        }
        return aws.lambda_.Function(
            f"{name}-function",
            name=context.names.provisioning_hook,
            description=f"Says which devices the fleet {fleet.name} takes in",
            role=role.arn,
            runtime="python3.13",
            handler="functions.provisioning.handler",
            architectures=["arm64"],
            code=function_code(),
            timeout=HOOK_SECONDS,
            memory_size=HOOK_MEGABYTES,
            environment={"variables": variables},
            tags=context.tags,
            opts=after(self._child, log_group, rights),
        )

    def _make_template(self, hook: aws.lambda_.Function) -> aws.iot.ProvisioningTemplate:
        name, args, context = self._name, self._args, self._context
        names, location, fleet = context.names, context.location, args.fleet
        role = aws.iam.Role(
            f"{name}-role",
            name=names.provisioning_role,
            description=f"Registers devices of the fleet {fleet.name}",
            assume_role_policy=policies.fill_in(
                policies.provisioning_trust, location=location, names=names
            ),
            tags=context.tags,
            opts=self._child,
        )
        policy_names = [args.policy.name, *fleet.device_policies]
        rights = aws.iam.RolePolicy(
            f"{name}-rights",
            name="provisioning",
            role=role.name,
            policy=policies.fill_in(
                policies.provisioning_policy,
                location=location,
                names=names,
                ring_arns=[ring.arn for ring in args.rings],
                thing_type_arn=args.thing_type.arn,
                policy_names=policy_names,
            ),
            opts=self._child,
        )
        permission = aws.lambda_.Permission(
            f"{name}-hook-permission",
            statement_id="template",
            action="lambda:InvokeFunction",
            function=hook.name,
            principal="iot.amazonaws.com",
            source_arn=pulumi.Output.all(location, names).apply(
                lambda found: policies.template_arn(*found)
            ),
            source_account=location.account,
            opts=self._child,
        )
        return aws.iot.ProvisioningTemplate(
            f"{name}-template",
            name=names.provisioning_template,
            description=f"Registers devices of the fleet {fleet.name} that come by claim",
            enabled=True,
            provisioning_role_arn=role.arn,
            pre_provisioning_hook={"target_arn": hook.arn, "payload_version": HOOK_PAYLOAD},
            template_body=policies.fill_in(
                template_body, attributes=sorted(fleet.attributes), policy_names=policy_names
            ),
            tags=context.tags,
            # IoT tries the permission when the template is made
            opts=after(self._child, permission, rights),
        )


def template_body(attributes: Sequence[str], policy_names: Sequence[str]) -> dict[str, Any]:
    """What a device becomes; at most 10,240 characters (CreateProvisioningTemplate). AWS keeps five
    versions of it, so it holds names of parameters and of policies only: all values come from the
    hook, and no release changes it.

    Where the thing is there, because a device comes again: its attributes are merged, for others
    may have given it more; so are its groups, for it is in others, and in its ring unless the
    registration before broke off (the hook answers the ring that it is in). Its certificates stay.

    See https://docs.aws.amazon.com/iot/latest/developerguide/provision-template.html
    """
    own = (TemplateParameter.HARDWARE, TemplateParameter.INITIAL_VERSION, TemplateParameter.SERIAL)
    payload = {
        **{key: _refer(parameter) for key, parameter in zip(OWN_ATTRIBUTES, own, strict=True)},
        **{key: _refer(TemplateParameter.attribute(key)) for key in attributes},
    }
    thing = {
        "ThingName": _refer(TemplateParameter.THING),
        "ThingTypeName": _refer(TemplateParameter.THING_TYPE),
        "ThingGroups": [_refer(TemplateParameter.RING_GROUP)],
        "AttributePayload": payload,
    }
    overriding = {"AttributePayload": "MERGE", "ThingGroups": "MERGE", "ThingTypeName": "REPLACE"}
    certificate = {"CertificateId": _refer(TemplateParameter.CERTIFICATE), "Status": "Active"}
    parameters = [
        *(each for each in TemplateParameter if each is not TemplateParameter.CERTIFICATE),
        *map(TemplateParameter.attribute, attributes),
    ]
    return {
        "Parameters": {name: {"Type": "String"} for name in parameters},
        "Resources": {
            "thing": {**_resource("Thing", thing), "OverrideSettings": overriding},
            "certificate": _resource("Certificate", certificate),
            **{
                f"policy{number}": _resource("Policy", {"PolicyName": name})
                for number, name in enumerate(policy_names, start=1)
            },
        },
    }


def _refer(parameter: str) -> dict[str, str]:
    return {"Ref": str(parameter)}


def _resource(kind: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"Type": f"AWS::IoT::{kind}", "Properties": dict(properties)}
