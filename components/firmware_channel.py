"""The firmware channel: the bucket with image and manifest, the roles and the key around it,
controller and monitoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pulumi
import pulumi_aws as aws

from components import documents
from components.monitoring import Monitoring, MonitoringArgs
from components.naming import Location, Names
from components.rollout_controller import RolloutController, RolloutControllerArgs
from components.settings import ROOT, Image
from rollout.release import Manifest, manifest_key, sha256

UNFINISHED_UPLOAD_DAYS = 7
OLD_MANIFEST_DAYS = 90
"""How long a replaced manifest, control.json or state.json is kept. Nothing under `firmware/` ever
expires."""


@dataclass(frozen=True, kw_only=True)
class FirmwareChannelArgs:
    names: pulumi.Input[Names]
    location: pulumi.Input[Location]
    manifest: Manifest
    image: Image
    signing_keys: Sequence[str]
    """Names of the signing keys: the first signs, devices and controller still believe the
    others."""
    ring_groups: pulumi.Input[Mapping[str, pulumi.Input[str]]]
    """Ring to thing group ARN."""
    devices: Sequence[pulumi.Resource]
    """What must outlive the jobs on destroy: the fleet."""
    log_retention_days: int
    notifications: Sequence[str]
    """E-mail addresses."""
    tags: Mapping[str, str]
    protect: bool = True
    """Whether bucket and key are protected, kept on destroy and never emptied."""
    tls_only: bool = True


class FirmwareChannel(pulumi.ComponentResource):
    """Everything between an image and the devices: `pulumi up` writes image and manifest, the
    controller does the rest."""

    bucket_name: pulumi.Output[str]
    signing_key_arns: list[pulumi.Output[str]]
    signing_public_key: pulumi.Output[str]
    """What devices verify a release with: a PEM block for each signing key."""
    controller: RolloutController
    monitoring: Monitoring

    def __init__(
        self, name: str, args: FirmwareChannelArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("iotota:index:FirmwareChannel", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        # for what holds images, memory and signatures; not for the component: protect is inherited,
        # by the artifact too
        kept = (
            pulumi.ResourceOptions(protect=True, retain_on_delete=True)
            if args.protect
            else pulumi.ResourceOptions()
        )
        self._kept = pulumi.ResourceOptions.merge(self._child, kept)
        self._names = pulumi.Output.from_input(args.names)
        role = self._controller_role()
        self._bucket = self._make_bucket(role)
        keys = [self._signing_key(key, role) for key in args.signing_keys]
        presign = self._presign_role()
        artifact = self._artifact()
        self.controller = self._controller(role, keys, presign, artifact)
        self.monitoring = self._monitoring()
        self._manifest([artifact, self.controller])
        self.bucket_name, self.signing_key_arns = self._bucket.bucket, [key.arn for key in keys]
        self.signing_public_key = pulumi.Output.all(*map(self._public_key, keys)).apply(
            lambda blocks: "".join(filter(None, blocks))
        )
        self.register_outputs(self.stack_outputs())

    def stack_outputs(self) -> dict[str, pulumi.Input[object]]:
        """What a stack exports of its channel."""
        manifest = self._args.manifest
        return {
            "bucketName": self.bucket_name,
            "channelName": manifest.channel,
            "controllerName": self.controller.function_name,
            "signingKeyArns": self.signing_key_arns,
            "signingPublicKey": self.signing_public_key,
            "dashboardUrl": self.monitoring.dashboard_url,
            "notificationsTopicArn": self.monitoring.topic_arn,
            "alarmNames": self.monitoring.alarm_names,
            "eventLogGroups": self.monitoring.event_log_groups,
            "release": {
                "version": manifest.firmware.version,
                "sha256": manifest.firmware.sha256,
                "size": manifest.firmware.size,
                "rings": [ring.name for ring in manifest.rings],
                "manifestSha256": sha256(manifest.text()),
            },
        }

    def _controller_role(self) -> aws.iam.Role:
        """Made here and first: the policies of bucket and key name it, and KMS takes no principal
        that is not there."""
        return aws.iam.Role(
            f"{self._name}-controller-role",
            name=self._names.apply(lambda names: names.controller),
            description="The rollout controller's function",
            assume_role_policy=documents.filled(
                documents.lambda_trust, location=self._args.location
            ),
            tags=self._args.tags,
            opts=self._child,
        )

    def _make_bucket(self, controller_role: aws.iam.Role) -> aws.s3.Bucket:
        name, args = f"{self._name}-bucket", self._args
        bucket = aws.s3.Bucket(
            name,
            bucket=self._names.apply(lambda names: names.bucket),
            force_destroy=not args.protect,
            tags=args.tags,
            opts=self._kept,
        )
        versioning = aws.s3.BucketVersioning(
            f"{name}-versioning",
            bucket=bucket.bucket,
            versioning_configuration={"status": "Enabled"},
            opts=self._kept,
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            f"{name}-encryption",
            bucket=bucket.bucket,
            rules=[{"apply_server_side_encryption_by_default": {"sse_algorithm": "AES256"}}],
            opts=self._kept,
        )
        aws.s3.BucketOwnershipControls(
            f"{name}-ownership",
            bucket=bucket.bucket,
            rule={"object_ownership": "BucketOwnerEnforced"},
            opts=self._kept,
        )
        access = aws.s3.BucketPublicAccessBlock(
            f"{name}-public-access",
            bucket=bucket.bucket,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=self._kept,
        )
        policy = documents.filled(
            documents.bucket_policy,
            bucket_arn=bucket.arn,
            channel=args.manifest.channel,
            controller_role_arn=controller_role.arn,
            tls_only=args.tls_only,
        )
        # S3 refuses to change a bucket's policy and its public access block at once
        # (OperationAborted)
        after = pulumi.ResourceOptions.merge(
            self._kept, pulumi.ResourceOptions(depends_on=[access])
        )
        aws.s3.BucketPolicy(f"{name}-policy", bucket=bucket.bucket, policy=policy, opts=after)
        self._lifecycle(f"{name}-lifecycle", bucket, versioning)
        return bucket

    def _lifecycle(
        self, name: str, bucket: aws.s3.Bucket, versioning: aws.s3.BucketVersioning
    ) -> None:
        aws.s3.BucketLifecycleConfiguration(
            name,
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
                    "filter": {"prefix": "channels/"},
                    "noncurrent_version_expiration": {"noncurrent_days": OLD_MANIFEST_DAYS},
                },
            ],
            # noncurrent versions are there once versioning is
            opts=pulumi.ResourceOptions.merge(
                self._child, pulumi.ResourceOptions(depends_on=[versioning])
            ),
        )

    def _signing_key(self, label: str, controller_role: aws.iam.Role) -> aws.kms.Key:
        key = aws.kms.Key(
            f"{self._name}-signing-key-{label}",
            description=f"Signs the releases of the channel {self._args.manifest.channel}",
            customer_master_key_spec="ECC_NIST_P256",
            key_usage="SIGN_VERIFY",
            deletion_window_in_days=30,  # the longest: devices trust the key
            policy=documents.filled(
                documents.signing_key_policy,
                location=self._args.location,
                controller_role_arn=controller_role.arn,
            ),
            tags=self._args.tags,
            opts=self._kept,
        )
        aws.kms.Alias(
            f"{self._name}-signing-alias-{label}",
            name=self._names.apply(partial(Names.signing_alias, key=label)),
            target_key_id=key.key_id,
            opts=self._child,
        )
        return key

    def _public_key(self, key: aws.kms.Key) -> pulumi.Output[str]:
        return aws.kms.get_public_key_output(
            key_id=key.arn, opts=pulumi.InvokeOutputOptions(parent=self)
        ).public_key_pem

    def _presign_role(self) -> aws.iam.Role:
        """What IoT Jobs assumes to presign the image's URL for a device."""
        role = aws.iam.Role(
            f"{self._name}-presign-role",
            name=self._names.apply(lambda names: names.presign_role),
            description="Presigns the URLs of firmware images for devices",
            assume_role_policy=documents.filled(
                documents.presign_trust, location=self._args.location, names=self._names
            ),
            tags=self._args.tags,
            opts=self._child,
        )
        aws.iam.RolePolicy(
            f"{self._name}-presign-rights",
            name="presign",
            role=role.name,
            policy=documents.filled(documents.presign_policy, bucket_arn=self._bucket.arn),
            opts=self._child,
        )
        return role

    def _artifact(self) -> aws.s3.BucketObjectv2 | aws.s3.ObjectCopy:
        """The image. Every release replaces the resource, and the object stays in the bucket: it is
        the way back."""
        name, image, key = (
            f"{self._name}-artifact",
            self._args.image,
            self._args.manifest.firmware.key,
        )
        # protect and retain_on_delete are inherited, and a protected artifact would stop the next
        # release
        replaced = pulumi.ResourceOptions.merge(
            self._child, pulumi.ResourceOptions(protect=False, retain_on_delete=True)
        )
        if image.path is None:
            return aws.s3.ObjectCopy(
                name,
                bucket=self._bucket.bucket,
                key=key,
                source=image.source,
                # what the controller compares with the manifest's digest
                checksum_algorithm="SHA256",
                tagging_directive="REPLACE",
                tags=self._args.tags,
                opts=replaced,
            )
        return aws.s3.BucketObjectv2(
            name,
            bucket=self._bucket.bucket,
            key=key,
            source=pulumi.FileAsset(str(ROOT / image.path)),
            checksum_algorithm="SHA256",
            content_type="application/octet-stream",
            tags=self._args.tags,
            opts=replaced,
        )

    def _controller(
        self,
        role: aws.iam.Role,
        keys: Sequence[aws.kms.Key],
        presign: aws.iam.Role,
        artifact: pulumi.Resource,
    ) -> RolloutController:
        args = self._args
        controller = RolloutControllerArgs(
            names=self._names,
            location=args.location,
            channel=args.manifest.channel,
            manifest_sha256=sha256(args.manifest.text()),
            role=role,
            bucket=self._bucket,
            presign_role_arn=presign.arn,
            signing_key_arns=[key.arn for key in keys],
            ring_groups=args.ring_groups,
            artifact=artifact,
            devices=args.devices,
            log_retention_days=args.log_retention_days,
            tags=args.tags,
            tls_only=args.tls_only,
        )
        return RolloutController(f"{self._name}-controller", controller, self._child)

    def _monitoring(self) -> Monitoring:
        args = self._args
        monitoring = MonitoringArgs(
            names=self._names,
            location=args.location,
            rings=tuple(ring.name for ring in args.manifest.rings),
            function_name=self.controller.function_name,
            function_log=self.controller.log_group_name,
            dead_letters_name=self.controller.dead_letters_name,
            log_retention_days=args.log_retention_days,
            notifications=args.notifications,
            tags=args.tags,
            tls_only=args.tls_only,
        )
        return Monitoring(f"{self._name}-monitoring", monitoring, self._child)

    def _manifest(self, after: Sequence[pulumi.Resource]) -> None:
        """The release itself: last, when its image is there and the controller has its digest and
        is listening."""
        aws.s3.BucketObjectv2(
            f"{self._name}-manifest",
            bucket=self._bucket.bucket,
            key=manifest_key(self._args.manifest.channel),
            content=self._args.manifest.text(),
            content_type="application/json",
            tags=self._args.tags,
            opts=pulumi.ResourceOptions.merge(
                self._child, pulumi.ResourceOptions(depends_on=list(after))
            ),
        )
