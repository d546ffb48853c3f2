"""The firmware channel: bucket, signing keys and roles, controller and monitoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pulumi
import pulumi_aws as aws

from components import limits, policies, tags
from components.arguments import Arguments, CommonArgs, read_arguments
from components.checks import Section, boolean
from components.context import Context, after, keep
from components.device_fleet import DeviceFleet, FleetReference
from components.location import find_location
from components.monitoring import Monitoring, MonitoringArgs
from components.rollout_controller import RolloutController, RolloutControllerArgs
from components.settings.agents import list_agent_risks
from components.settings.channel_settings import ChannelSettings, read_channel
from components.settings.common import CommonSettings, read_common
from components.settings.firmware import Image, S3Image, read_adopted, read_firmware
from components.settings.fleet import read_rings
from components.settings.rollout import list_abort_risks, pace_value, read_manifest
from rollout.codec import encode, sha256_hex
from rollout.document_extra import needs_image_signature
from rollout.names import CHANNELS_PREFIX, STATE_VERSIONS, ChannelKeys, Names, StackOutput
from rollout.release import Firmware, Gate, Pace, RolloutOptions
from rollout.version import Version

UNFINISHED_UPLOAD_DAYS = 7
OLD_MANIFEST_DAYS = 90
"""How long replaced manifests, orders and states are kept. Under `firmware/` nothing expires."""


@dataclass(frozen=True, kw_only=True)
class AdoptedFirmware(Arguments):
    """What the fleet's devices run already, before the channel's first release."""

    version: str | Version
    """What they run; the first release is above it, unless `allow_downgrade`."""
    image: str
    """As `image` of the channel: a file, or `s3://bucket/key`."""
    sha256: str
    """Of the image: 64 lower-case hexadecimal digits."""
    size: int | None = None
    """Bytes, of an image in S3 only."""


@dataclass(frozen=True, kw_only=True)
class FirmwareChannelArgs(CommonArgs, RolloutOptions):
    """What a channel releases, to which fleet, and how."""

    fleet: DeviceFleet | FleetReference
    """Whom it is for; a fleet follows one channel."""
    version: str | Version
    """The release's: above the last good one, unless `allow_downgrade`."""
    image: str
    """A file in the folder that the program runs in, at most 5 MB, or `s3://bucket/key`.

    See https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
    """
    sha256: str
    """Of the image: 64 lower-case hexadecimal digits."""
    size: int | None = None
    """Bytes, of an image in S3 only."""
    minimum_version: str | Version | None = None
    """The oldest version it may install over."""
    allow_downgrade: bool = False
    """Whether the release may be below the last good one."""
    adopted: AdoptedFirmware | None = None
    """The way back of the channel's first release, which devices run already; it has no effect
    later."""

    channel: str | None = None
    """The channel's name; by default the component's."""
    devices_per_minute: int | Pace = Pace.maximum_per_minute
    """How many devices a minute hear of the release, 1 to 1000, or a rate that grows.

    See https://docs.aws.amazon.com/iot/latest/apireference/API_JobExecutionsRolloutConfig.html
    """
    gates: Mapping[str, Gate] = field(default_factory=dict)
    """By ring: what it must show before the next one starts. What is left out is by default."""
    signing_keys: Sequence[str] = ("1",)
    """Names of the signing keys: the first signs, devices and controller still trust the others.

    See https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html
    """
    notifications: Sequence[str] = ()
    """E-mail addresses that alarms are sent to; each must confirm.

    See https://docs.aws.amazon.com/sns/latest/api/API_Subscribe.html
    """
    tls_only: bool = True
    """Whether bucket, queue and topic refuse requests without TLS; false in `dev` only."""


class FirmwareChannel(pulumi.ComponentResource):
    """Everything between an image and the devices: `pulumi up` writes image and manifest, the
    controller does the rest.

    image, sha256 = "firmware/2.1.0.bin", "65b53e..."
    args = FirmwareChannelArgs(fleet=fleet, version="2.1.0", image=image, sha256=sha256)
    channel = FirmwareChannel("stable", args)
    """

    bucket_name: pulumi.Output[str]
    signing_key_arns: list[pulumi.Output[str]]
    signing_public_key: pulumi.Output[str]
    """What devices verify a release with: a PEM block for each signing key."""
    controller: RolloutController
    monitoring: Monitoring

    def __init__(
        self, name: str, args: FirmwareChannelArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Raises ArgumentsError with every mistake in `args`. Paths are from the current folder."""
        fleet = args.fleet.reference if isinstance(args.fleet, DeviceFleet) else args.fleet
        values = {"channel": name} | encode(args) | {"fleet": encode(fleet)}
        if isinstance(args.devices_per_minute, Pace):
            values["devicesPerMinute"] = pace_value(args.devices_per_minute)
        common, settings = read_arguments("FirmwareChannel", name, values, read_channel_values)
        super().__init__("iotota:index:FirmwareChannel", name, None, opts)
        self._name, self._settings, self._common = name, settings, common
        self._manifest = manifest = settings.manifest
        for risk in [*list_abort_risks(manifest), *list_agent_risks(manifest)]:
            pulumi.log.warn(risk, self)
        self._child = pulumi.ResourceOptions(parent=self)
        # for what holds images, memory and keys, and what guards them; the artifact must not
        # inherit it
        self._kept = keep(self._child, common.protect)
        suffix = pulumi.Output.from_input(fleet.suffix)
        self._context = context = Context(
            names=suffix.apply(
                lambda suffix: Names(fleet=fleet.name, suffix=suffix, channel=manifest.channel)
            ),
            location=find_location(self),
            tags=tags.tags(common.environment, fleet.name, common.tags),
            log_retention_days=common.log_retention_days,
            protect=common.protect,
            tls_only=settings.tls_only,
        )
        # first: the policies of bucket and key name it, and KMS takes no principal that is missing.
        # Kept with them: IAM and KMS know a role by an id of its own, so that to another one of the
        # same name the key's policy gives nothing
        # (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html)
        role = aws.iam.Role(
            f"{name}-controller-role",
            name=context.names.controller,
            description="The rollout controller's function",
            assume_role_policy=policies.fill_in(policies.lambda_trust, location=context.location),
            tags=context.tags,
            opts=self._kept,
        )
        self._bucket = self._make_bucket(role)
        keys = [self._make_signing_key(key, role) for key in settings.signing_keys]
        self._image_key = self._make_image_key(role)
        presign_role = self._make_presign_role()
        artifact = self._make_artifact(f"{name}-artifact", settings.image, manifest.firmware)
        images: list[pulumi.Resource] = [artifact]
        adopted = settings.adopted
        if adopted and adopted.firmware.key != manifest.firmware.key:
            label = f"{name}-adopted-artifact"
            images.append(self._make_artifact(label, adopted.image, adopted.firmware))
        own = args.fleet if isinstance(args.fleet, DeviceFleet) else None
        self.controller = RolloutController(
            f"{name}-controller",
            RolloutControllerArgs(
                context=self._context,
                manifest=manifest,
                artifact=artifact,
                bucket=self._bucket,
                role=role,
                presign_role=presign_role,
                signing_keys=keys,
                image_key=self._image_key,
                ring_group_arns=self._find_ring_groups(fleet),
                fleet=own,
                devices=own.device_resources if own else (),
                declared_devices=len(own.device_names) if own else 0,
            ),
            self._child,
        )
        self.monitoring = Monitoring(
            f"{name}-monitoring",
            MonitoringArgs(
                context=self._context,
                controller=self.controller,
                rings=[ring.name for ring in manifest.rings],
                notifications=settings.notifications,
                provisioned=fleet.provisioned,
            ),
            self._child,
        )
        # the release itself: last, when its image and the adopted one are there and the controller
        # knows its digest
        aws.s3.BucketObjectv2(
            f"{name}-manifest",
            bucket=self._bucket.bucket,
            key=ChannelKeys(manifest.channel).manifest,
            content=manifest.text(),
            content_type="application/json",
            tags=self._context.tags,
            opts=after(self._child, *images, self.controller),
        )
        self.bucket_name, self.signing_key_arns = self._bucket.bucket, [key.arn for key in keys]
        options = pulumi.InvokeOutputOptions(parent=self)
        blocks = [aws.kms.get_public_key_output(key_id=key.arn, opts=options) for key in keys]
        self.signing_public_key = pulumi.Output.all(
            *(block.public_key_pem for block in blocks)
        ).apply(lambda blocks: "".join(filter(None, blocks)))
        self.register_outputs(self.stack_outputs())

    def stack_outputs(self) -> dict[str, pulumi.Input[object]]:
        """What a stack exports of its channel."""
        manifest, image_key = self._manifest, self._image_key
        return {
            **({StackOutput.IMAGE_KEY_ARN: image_key.arn} if image_key else {}),
            StackOutput.BUCKET_NAME: self.bucket_name,
            StackOutput.CHANNEL_NAME: manifest.channel,
            StackOutput.CONTROLLER_NAME: self.controller.function_name,
            StackOutput.SIGNING_KEY_ARNS: self.signing_key_arns,
            StackOutput.SIGNING_PUBLIC_KEY: self.signing_public_key,
            StackOutput.DASHBOARD_URL: self.monitoring.dashboard_url,
            StackOutput.NOTIFICATIONS_TOPIC_ARN: self.monitoring.topic_arn,
            StackOutput.ALARM_NAMES: self.monitoring.alarm_names,
            StackOutput.RELEASE: {
                "version": str(manifest.firmware.version),
                "sha256": manifest.firmware.sha256,
                "size": manifest.firmware.size,
                "rings": [ring.name for ring in manifest.rings],
                "manifestSha256": sha256_hex(manifest.text()),
            },
        }

    def _find_ring_groups(
        self, fleet: FleetReference
    ) -> pulumi.Input[Mapping[str, pulumi.Input[str]]]:
        """ARNs of the rings' thing groups: what the fleet says, or what its names say."""
        if fleet.ring_group_arns is not None:
            return fleet.ring_group_arns
        rings = [ring.name for ring in self._manifest.rings]
        return pulumi.Output.all(self._context.names, self._context.location).apply(
            lambda found: {
                ring: found[1].arn("iot", f"thinggroup/{found[0].ring_group(ring)}")
                for ring in rings
            }
        )

    def _make_bucket(self, controller_role: aws.iam.Role) -> aws.s3.Bucket:
        name, child, kept = f"{self._name}-bucket", self._child, self._kept
        bucket = aws.s3.Bucket(
            name,
            bucket=self._context.names.bucket,
            force_destroy=not self._common.protect,
            tags=self._context.tags,
            opts=kept,
        )
        versioning = aws.s3.BucketVersioning(
            f"{name}-versioning",
            bucket=bucket.bucket,
            versioning_configuration={"status": "Enabled"},
            opts=kept,
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            f"{name}-encryption",
            bucket=bucket.bucket,
            rules=[{"apply_server_side_encryption_by_default": {"sse_algorithm": "AES256"}}],
            opts=kept,
        )
        aws.s3.BucketOwnershipControls(
            f"{name}-ownership",
            bucket=bucket.bucket,
            rule={"object_ownership": "BucketOwnerEnforced"},
            opts=kept,
        )
        access = aws.s3.BucketPublicAccessBlock(
            f"{name}-public-access",
            bucket=bucket.bucket,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=kept,
        )
        aws.s3.BucketPolicy(
            f"{name}-policy",
            bucket=bucket.bucket,
            policy=policies.fill_in(
                policies.bucket_policy,
                bucket_arn=bucket.arn,
                channel=self._manifest.channel,
                controller_role_arn=controller_role.arn,
                tls_only=self._context.tls_only,
                protect=self._common.protect,
            ),
            # S3 refuses to change policy and public access block at once (OperationAborted), and
            # the policy may forbid what turns versions on
            opts=after(kept, access, versioning),
        )
        aws.s3.BucketLifecycleConfiguration(
            f"{name}-lifecycle",
            bucket=bucket.bucket,
            rules=[
                {
                    "id": "unfinished-uploads",
                    "status": "Enabled",
                    "filter": {"prefix": ""},
                    "abort_incomplete_multipart_upload": {
                        "days_after_initiation": UNFINISHED_UPLOAD_DAYS
                    },
                },
                {
                    "id": "old-manifests",
                    "status": "Enabled",
                    "filter": {"prefix": CHANNELS_PREFIX},
                    "noncurrent_version_expiration": {
                        "noncurrent_days": OLD_MANIFEST_DAYS,
                        # the newest stay: the controller looks for its state's predecessors
                        "newer_noncurrent_versions": STATE_VERSIONS,
                    },
                },
            ],
            opts=after(child, versioning),  # noncurrent versions are there once versioning is
        )
        return bucket

    def _make_signing_key(self, label: str, controller_role: aws.iam.Role) -> aws.kms.Key:
        return self._make_key(
            f"signing-key-{label}",
            f"Signs the releases of the channel {self._manifest.channel}",
            f"signing-alias-{label}",
            self._context.names.apply(partial(Names.signing_alias, key=label)),
            controller_role,
        )

    def _make_image_key(self, controller_role: aws.iam.Role) -> aws.kms.Key | None:
        """Signs images, where job documents hold such signatures. None of the signing keys: what a
        device takes for an image's signature must never be one over a release."""
        if not needs_image_signature(self._manifest.document_extra):
            return None
        return self._make_key(
            "image-key",
            f"Signs the images of the channel {self._manifest.channel} for agents that ask for it",
            "image-alias",
            self._context.names.apply(lambda names: names.image_alias),
            controller_role,
        )

    def _make_key(
        self,
        name: str,
        description: str,
        alias: str,
        alias_name: pulumi.Output[str],
        controller_role: aws.iam.Role,
    ) -> aws.kms.Key:
        key = aws.kms.Key(
            f"{self._name}-{name}",
            description=description,
            customer_master_key_spec="ECC_NIST_P256",
            key_usage="SIGN_VERIFY",
            deletion_window_in_days=30,  # the longest: devices trust the key
            policy=policies.fill_in(
                policies.signing_key_policy,
                location=self._context.location,
                controller_role_arn=controller_role.arn,
            ),
            tags=self._context.tags,
            opts=self._kept,
        )
        aws.kms.Alias(
            f"{self._name}-{alias}",
            name=alias_name,
            target_key_id=key.key_id,
            opts=self._kept,
        )
        return key

    def _make_presign_role(self) -> aws.iam.Role:
        """What IoT Jobs assumes to presign the image's URL for a device."""
        context = self._context
        trust = policies.fill_in(
            policies.presign_trust, location=context.location, names=context.names
        )
        role = aws.iam.Role(
            f"{self._name}-presign-role",
            name=context.names.presign_role,
            description="Presigns the URLs of firmware images for devices",
            assume_role_policy=trust,
            tags=context.tags,
            opts=self._child,
        )
        aws.iam.RolePolicy(
            f"{self._name}-presign-rights",
            name="presign",
            role=role.name,
            policy=policies.fill_in(policies.presign_policy, bucket_arn=self._bucket.arn),
            opts=self._child,
        )
        return role

    def _make_artifact(
        self, name: str, image: Image, firmware: Firmware
    ) -> aws.s3.BucketObjectv2 | aws.s3.ObjectCopy:
        """An image. Every release replaces the resource, the object stays: it is the way back."""
        bucket, key = self._bucket.bucket, firmware.key
        # both are inherited, and a protected artifact would stop the next release
        replaced = pulumi.ResourceOptions(protect=False, retain_on_delete=True)
        options = pulumi.ResourceOptions.merge(self._child, replaced)
        checksum = "SHA256"  # what the controller compares with the manifest's digest
        if isinstance(image, S3Image):
            return aws.s3.ObjectCopy(
                name,
                bucket=bucket,
                key=key,
                source=image.source,
                checksum_algorithm=checksum,
                tagging_directive="REPLACE",
                tags=self._context.tags,
                opts=options,
            )
        return aws.s3.BucketObjectv2(
            name,
            bucket=bucket,
            key=key,
            source=pulumi.FileAsset(str(image.path)),
            checksum_algorithm=checksum,
            content_type="application/octet-stream",
            tags=self._context.tags,
            opts=options,
        )


def read_channel_values(section: Section) -> tuple[CommonSettings, ChannelSettings]:
    """What FirmwareChannelArgs says, as plain values by camelCase keys."""
    common = read_common(section)
    fleet = section.subsection("fleet", "a DeviceFleet or a FleetReference")
    fleet.require("name", limits.FLEET_NAME)
    rings = read_rings(fleet)
    if isinstance(fleet.get("suffix"), str | None):
        fleet.require("suffix", limits.SUFFIX)
    if isinstance(arns := fleet.get("ringGroupArns"), dict):
        for name in {ring.name for ring in rings} - set(arns):
            key = f"ringGroupArns.{name}"
            fleet.add_mistake(key, "each ring has a thing group", "add its ARN", "missing")
    hardware = fleet.require("hardware", limits.HARDWARE)
    sizes = fleet.subsection("ringSizes").read_map(limits.RING, limits.RING_SIZE)
    fleet.read("provisioned", boolean(False), False)
    firmware, image = read_firmware(section, hardware, Path.cwd())
    adopted = read_adopted(section, firmware, Path.cwd())
    is_right = section.has_no_mistakes_at("fleet")
    before = adopted.firmware if adopted else None
    manifest = read_manifest(section, firmware, rings, sizes if is_right else None, before)
    fleet.refuse_unknown_keys()
    return common, read_channel(section, common.environment, manifest, image, adopted)
