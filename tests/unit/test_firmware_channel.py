"""FirmwareChannel: bucket, image, manifest, key, and what survives."""

from __future__ import annotations

import json
from functools import cache

import pulumi
import pulumi_aws as aws
import pytest

from components import documents
from components.firmware_channel import FirmwareChannel, FirmwareChannelArgs
from components.settings import Image
from rollout.release import Manifest, sha256
from tests.unit.examples import (
    FIRMWARE,
    LOCAL_IMAGE,
    LOCATION,
    MANIFEST,
    NAMES,
    RING_ARNS,
    S3_IMAGE,
    TAGS,
    P,
)
from tests.unit.harness import PUBLIC_KEY, UNKNOWN, Graph, build

BUCKET = f"{P}-firmware"
CONTROLLER = f"arn:aws:iam::123456789012:role/{P}-stable-controller"
KEPT = [
    "channel-bucket",
    "channel-bucket-encryption",
    "channel-bucket-ownership",
    "channel-bucket-policy",
    "channel-bucket-public-access",
    "channel-bucket-versioning",
    "channel-signing-key-1",
]


@cache
def made(
    *,
    preview: bool = False,
    protect: bool = True,
    image: Image = LOCAL_IMAGE,
    opts: pulumi.ResourceOptions | None = None,
    tls_only: bool = True,
    signing_keys: tuple[str, ...] = ("1",),
) -> Graph:
    def program() -> object:
        args = FirmwareChannelArgs(
            names=NAMES,
            location=LOCATION,
            manifest=MANIFEST,
            image=image,
            signing_keys=signing_keys,
            ring_groups=RING_ARNS,
            devices=[aws.iot.Thing("device", name="device")],
            log_retention_days=7,
            notifications=["ops@example.com"],
            tags=TAGS,
            protect=protect,
            tls_only=tls_only,
        )
        return FirmwareChannel("channel", args, opts).stack_outputs()

    return build(program, preview=preview)


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize("image", [LOCAL_IMAGE, S3_IMAGE])
def test_a_channel_is_bucket_image_manifest_key_roles_controller_and_monitoring(
    preview: bool, image: Image
) -> None:
    assert made(preview=preview, image=image).children("channel") == sorted(
        [
            *KEPT,
            "channel-artifact",
            "channel-bucket-lifecycle",
            "channel-controller",
            "channel-controller-role",
            "channel-manifest",
            "channel-monitoring",
            "channel-presign-rights",
            "channel-presign-role",
            "channel-signing-alias-1",
        ]
    )


def test_the_bucket_is_private_versioned_and_encrypted() -> None:
    graph = made()
    assert {name: graph[name].inputs for name in KEPT if name.startswith("channel-bucket")} == {
        "channel-bucket": {"bucket": BUCKET, "forceDestroy": False, "tags": TAGS},
        "channel-bucket-versioning": {
            "bucket": BUCKET,
            "versioningConfiguration": {"status": "Enabled"},
        },
        "channel-bucket-encryption": {
            "bucket": BUCKET,
            "rules": [{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}}],
        },
        "channel-bucket-ownership": {
            "bucket": BUCKET,
            "rule": {"objectOwnership": "BucketOwnerEnforced"},
        },
        "channel-bucket-public-access": {
            "bucket": BUCKET,
            "blockPublicAcls": True,
            "blockPublicPolicy": True,
            "ignorePublicAcls": True,
            "restrictPublicBuckets": True,
        },
        "channel-bucket-policy": {
            "bucket": BUCKET,
            "policy": documents.text(
                documents.bucket_policy(
                    f"arn:aws:s3:::{BUCKET}", "stable", CONTROLLER, tls_only=True
                )
            ),
        },
    }


def test_without_tls_the_policy_says_so() -> None:
    policy = documents.bucket_policy(f"arn:aws:s3:::{BUCKET}", "stable", CONTROLLER, tls_only=False)
    assert made(tls_only=False)["channel-bucket-policy"].document("policy") == policy


def test_nothing_under_firmware_expires() -> None:
    rules = made()["channel-bucket-lifecycle"].inputs["rules"]
    assert rules == [
        {
            "id": "unfinished-uploads",
            "status": "Enabled",
            "filter": {"prefix": ""},
            "abortIncompleteMultipartUpload": {"daysAfterInitiation": 7},
        },
        {
            "id": "old-manifests",
            "status": "Enabled",
            "filter": {"prefix": "channels/"},
            "noncurrentVersionExpiration": {"noncurrentDays": 90},
        },
    ]


@pytest.mark.parametrize("preview", [False, True])
def test_with_protect_bucket_and_key_are_protected_and_kept(preview: bool) -> None:
    graph = made(preview=preview)
    assert sorted(resource.name for resource in graph if resource.protect) == KEPT
    assert sorted(resource.name for resource in graph if resource.retain_on_delete) == sorted(
        [*KEPT, "channel-artifact"]
    )
    assert graph["channel-bucket"].inputs["forceDestroy"] is False, (
        "a protected bucket is never emptied"
    )


def test_without_protect_the_bucket_goes_with_the_stack() -> None:
    graph = made(protect=False)
    assert [resource for resource in graph if resource.protect] == []
    assert graph["channel-bucket"].inputs["forceDestroy"] is True


def test_protect_is_the_default() -> None:
    assert FirmwareChannelArgs.protect is True
    assert FirmwareChannelArgs.tls_only is True


@pytest.mark.parametrize("image", [LOCAL_IMAGE, S3_IMAGE])
@pytest.mark.parametrize("protect", [True, False])
def test_a_protected_component_leaves_its_artifact_replaceable(image: Image, protect: bool) -> None:
    graph = made(
        image=image,
        protect=protect,
        opts=pulumi.ResourceOptions(protect=True, retain_on_delete=True),
    )
    artifact = graph["channel-artifact"]
    assert artifact.protect is False, "the next release replaces it"
    assert artifact.retain_on_delete is True, "an older image is the way back"
    assert graph["channel-bucket"].protect is True


@pytest.mark.parametrize("preview", [False, True])
def test_an_image_of_the_repository_is_uploaded_under_its_digest(preview: bool) -> None:
    graph = made(preview=preview)
    assert graph["channel-artifact"].inputs == {
        "bucket": BUCKET,
        "key": f"firmware/2.1.0/{'ab' * 32}.bin",
        "source": "firmware/2.1.0.bin",
        "checksumAlgorithm": "SHA256",
        "contentType": "application/octet-stream",
        "tags": TAGS,
    }
    assert graph.of("ObjectCopy") == []


@pytest.mark.parametrize("preview", [False, True])
def test_an_image_in_s3_is_copied(preview: bool) -> None:
    graph = made(preview=preview, image=S3_IMAGE)
    assert graph["channel-artifact"].inputs == {
        "bucket": BUCKET,
        "key": f"firmware/2.1.0/{'ab' * 32}.bin",
        "source": "images/gateway-a1/2.1.0.bin",
        "checksumAlgorithm": "SHA256",
        "taggingDirective": "REPLACE",
        "tags": TAGS,
    }
    assert [item.name for item in graph.of("BucketObjectv2")] == ["channel-manifest"]


@pytest.mark.parametrize("preview", [False, True])
def test_the_manifest_is_known_before_anything_is_made(preview: bool) -> None:
    manifest = made(preview=preview)["channel-manifest"]
    assert manifest.inputs == {
        "bucket": BUCKET,
        "key": "channels/stable/release.json",
        "content": MANIFEST.text(),
        "contentType": "application/json",
        "tags": TAGS,
    }
    assert Manifest.parse(manifest.inputs["content"]) == MANIFEST


@pytest.mark.parametrize("preview", [False, True])
def test_the_manifest_comes_last(preview: bool) -> None:
    """The image is there, the function has the manifest's digest and its rights, and S3 will wake
    it."""
    graph = made(preview=preview)
    needed = {"channel-artifact", *graph.children("channel-controller")}
    assert needed <= graph.before("channel-manifest")
    variables = graph["channel-controller-function"].inputs["environment"]["variables"]
    assert variables["MANIFEST_SHA256"] == sha256(MANIFEST.text())


def test_the_signing_key() -> None:
    graph = made()
    assert graph["channel-signing-key-1"].inputs == {
        "description": "Signs the releases of the channel stable",
        "customerMasterKeySpec": "ECC_NIST_P256",
        "keyUsage": "SIGN_VERIFY",
        "deletionWindowInDays": 30,
        "policy": documents.text(documents.signing_key_policy(LOCATION, CONTROLLER)),
        "tags": TAGS,
    }
    alias = graph["channel-signing-alias-1"].inputs
    assert alias == {
        "name": f"alias/{P}-stable-signing-1",
        "targetKeyId": graph.exports["signingKeyArns"].value[0].rsplit("/", 1)[1],
    }


def test_during_a_rotation_the_first_key_signs_and_the_other_is_still_believed() -> None:
    graph = made(signing_keys=("2", "1"))
    arns = graph.exports["signingKeyArns"].value
    assert len(set(arns)) == 2
    assert graph.exports["signingPublicKey"].value.count("BEGIN PUBLIC KEY") == 2, (
        "devices get both"
    )
    rights = {
        action: s["Resource"]
        for s in graph["channel-controller-rights"].document("policy")["Statement"]
        for action in s["Action"]
    }
    assert rights["kms:Sign"] == [arns[0]]
    assert rights["kms:Verify"] == sorted(arns)
    variables = graph["channel-controller-function"].inputs["environment"]["variables"]
    assert json.loads(variables["SIGNING_KEY_ARNS"]) == arns


def test_the_controllers_role_is_there_before_the_policies_that_name_it() -> None:
    graph = made()
    for named in ("channel-signing-key-1", "channel-bucket-policy"):
        assert "channel-controller-role" in graph.before(named)
    assert {"channel-signing-key-1", "channel-presign-role"} <= graph.before(
        "channel-controller-rights"
    )
    assert "channel-controller-rights" in graph.before("channel-controller-function")


def test_the_roles_trust_one_service_each() -> None:
    graph = made()
    assert {
        role.name: role.inputs
        for role in graph.of("Role")
        if role.name != "channel-monitoring-event-log-role"
    } == {
        "channel-controller-role": {
            "name": f"{P}-stable-controller",
            "description": "The rollout controller's function",
            "assumeRolePolicy": documents.text(documents.lambda_trust(LOCATION)),
            "tags": TAGS,
        },
        "channel-presign-role": {
            "name": f"{P}-stable-presign",
            "description": "Presigns the URLs of firmware images for devices",
            "assumeRolePolicy": documents.text(documents.presign_trust(LOCATION, NAMES)),
            "tags": TAGS,
        },
    }
    assert graph["channel-presign-rights"].inputs == {
        "name": "presign",
        "role": f"{P}-stable-presign",
        "policy": documents.text(documents.presign_policy(f"arn:aws:s3:::{BUCKET}")),
    }


def test_the_fleet_outlives_the_jobs() -> None:
    assert "device" in made().before("channel-controller-jobs-end")


def test_a_stack_exports_its_channel() -> None:
    exports = {name: export.value for name, export in made().exports.items()}
    assert exports == {
        "bucketName": BUCKET,
        "channelName": "stable",
        "controllerName": f"{P}-stable-controller",
        "signingKeyArns": exports["signingKeyArns"],
        "signingPublicKey": PUBLIC_KEY,
        "dashboardUrl": (
            f"https://us-east-1.console.aws.amazon.com/cloudwatch/home?region=us-east-1#dashboards/dashboard/{P}"
        ),
        "notificationsTopicArn": f"arn:aws:sns:us-east-1:123456789012:{P}-notifications",
        "alarmNames": {
            short: f"{P}-{short}"
            for short in (
                "ring-failing",
                "no-heartbeat",
                "controller-errors",
                "dead-letters",
                "refused-manifest",
                "rollback-failed",
                "person-needed",
            )
        },
        "eventLogGroups": {
            events: f"/iot-ota/{P}/{events}"
            for events in ("job-events", "device-registry-events", "thing-group-events")
        },
        "release": {
            "version": "2.1.0",
            "sha256": FIRMWARE.sha256,
            "size": 65_600,
            "rings": ["canary", "broad"],
            "manifestSha256": sha256(MANIFEST.text()),
        },
    }
    assert exports["signingKeyArns"][0].startswith("arn:aws:kms:us-east-1:123456789012:key/")


def test_a_preview_shows_what_is_released_and_does_not_ask_for_a_key_that_is_not_there() -> None:
    graph = made(preview=True)
    assert graph.exports["release"].value["manifestSha256"] == sha256(MANIFEST.text())
    assert graph.exports["signingPublicKey"].value is UNKNOWN
    assert "aws:kms/getPublicKey:getPublicKey" not in graph.lookups
    assert json.loads(graph["channel-manifest"].inputs["content"])["firmware"]["version"] == "2.1.0"
