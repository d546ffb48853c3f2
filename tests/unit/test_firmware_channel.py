"""FirmwareChannel: bucket, image, manifest, key, and what survives."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import fields, replace
from functools import cache
from typing import Any

import pulumi
import pytest

from components import policies
from components.arguments import ArgumentsError
from components.device_fleet import DeviceFleet, Provisioning
from components.firmware_channel import (
    AdoptedFirmware,
    FirmwareChannel,
    FirmwareChannelArgs,
)
from components.settings.fleet import ClaimCertificate
from components.settings.rollout import pace_value
from rollout.codec import sha256_hex
from rollout.release import Abort, Approval, FailureLimit, Gate, Manifest, Pace, Window
from tests.unit.examples import (
    FIRMWARE,
    FLEET,
    LOCATION,
    MANIFEST,
    NAMES,
    RING_ARNS,
    SUFFIX,
    TAGS,
    P,
    channel_args,
    fleet_args,
)
from tests.unit.harness import PUBLIC_KEY, ROOT, UNKNOWN, Graph, build

BUCKET = f"{P}-firmware"
CONTROLLER = f"arn:aws:iam::123456789012:role/{P}-stable-controller"
KEPT = [
    "channel-bucket",
    "channel-bucket-encryption",
    "channel-bucket-ownership",
    "channel-bucket-policy",
    "channel-bucket-public-access",
    "channel-bucket-versioning",
    "channel-controller-role",
    "channel-signing-alias-1",
    "channel-signing-key-1",
]


@cache
def made(
    *,
    preview: bool = False,
    protect: bool = True,
    in_s3: bool = False,
    opts: pulumi.ResourceOptions | None = None,
    tls_only: bool = True,
    signing_keys: tuple[str, ...] = ("1",),
) -> Graph:
    def program() -> object:
        args = channel_args(
            in_s3=in_s3, protect=protect, tls_only=tls_only, signing_keys=signing_keys
        )
        return FirmwareChannel("channel", args, opts).stack_outputs()

    return build(program, preview=preview)


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize("in_s3", [False, True])
def test_a_channel_is_bucket_image_manifest_key_roles_controller_and_monitoring(
    preview: bool, in_s3: bool
) -> None:
    assert made(preview=preview, in_s3=in_s3).children("channel") == sorted(
        [
            *KEPT,
            "channel-artifact",
            "channel-bucket-lifecycle",
            "channel-controller",
            "channel-manifest",
            "channel-monitoring",
            "channel-presign-rights",
            "channel-presign-role",
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
            "policy": policies.to_json(
                policies.bucket_policy(
                    f"arn:aws:s3:::{BUCKET}", "stable", CONTROLLER, tls_only=True, protect=True
                )
            ),
        },
    }


def test_without_tls_the_policy_says_so() -> None:
    policy = policies.bucket_policy(
        f"arn:aws:s3:::{BUCKET}", "stable", CONTROLLER, tls_only=False, protect=True
    )
    assert made(tls_only=False)["channel-bucket-policy"].document("policy") == policy


@pytest.mark.parametrize("protect", [True, False])
def test_versions_are_kept_where_the_stack_is_protected(protect: bool) -> None:
    graph = made(protect=protect)
    sids = [s["Sid"] for s in graph["channel-bucket-policy"].document("policy")["Statement"]]
    assert ("NobodyRemovesAVersion" in sids) == protect
    assert "channel-bucket-versioning" in graph.before("channel-bucket-policy"), (
        "the policy may forbid to turn them on"
    )


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
            "noncurrentVersionExpiration": {"noncurrentDays": 90, "newerNoncurrentVersions": 20},
        },
    ]


@pytest.mark.parametrize("preview", [False, True])
def test_with_protect_bucket_keys_role_and_log_are_protected_and_kept(preview: bool) -> None:
    graph = made(preview=preview)
    kept = sorted([*KEPT, "channel-controller-log"])
    assert sorted(resource.name for resource in graph if resource.protect) == kept
    assert sorted(resource.name for resource in graph if resource.retain_on_delete) == sorted(
        [*kept, "channel-artifact"]
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


@pytest.mark.parametrize("in_s3", [False, True])
@pytest.mark.parametrize("protect", [True, False])
def test_a_protected_component_leaves_its_artifact_replaceable(in_s3: bool, protect: bool) -> None:
    graph = made(
        in_s3=in_s3,
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
        "key": f"firmware/2.1.0/{FIRMWARE.sha256}.bin",
        "source": "firmware/2.1.0.bin",
        "checksumAlgorithm": "SHA256",
        "contentType": "application/octet-stream",
        "tags": TAGS,
    }
    assert graph.of("ObjectCopy") == []


@pytest.mark.parametrize("preview", [False, True])
def test_an_image_in_s3_is_copied(preview: bool) -> None:
    graph = made(preview=preview, in_s3=True)
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
    assert variables["MANIFEST_SHA256"] == sha256_hex(MANIFEST.text())


def test_the_signing_key() -> None:
    graph = made()
    assert graph["channel-signing-key-1"].inputs == {
        "description": "Signs the releases of the channel stable",
        "customerMasterKeySpec": "ECC_NIST_P256",
        "keyUsage": "SIGN_VERIFY",
        "deletionWindowInDays": 30,
        "policy": policies.to_json(policies.signing_key_policy(LOCATION, CONTROLLER)),
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
    assert {role.name: role.inputs for role in graph.of("Role")} == {
        "channel-controller-role": {
            "name": f"{P}-stable-controller",
            "description": "The rollout controller's function",
            "assumeRolePolicy": policies.to_json(policies.lambda_trust(LOCATION)),
            "tags": TAGS,
        },
        "channel-presign-role": {
            "name": f"{P}-stable-presign",
            "description": "Presigns the URLs of firmware images for devices",
            "assumeRolePolicy": policies.to_json(policies.presign_trust(LOCATION, NAMES)),
            "tags": TAGS,
        },
    }
    assert graph["channel-presign-rights"].inputs == {
        "name": "presign",
        "role": f"{P}-stable-presign",
        "policy": policies.to_json(policies.presign_policy(f"arn:aws:s3:::{BUCKET}")),
    }


@pytest.mark.parametrize("preview", [False, True])
def test_the_fleet_outlives_the_jobs(preview: bool) -> None:
    def program() -> None:
        fleet = DeviceFleet("fleet", fleet_args())
        gates = dict.fromkeys(("canary", "broad"), Gate(failure_limit=FailureLimit(devices=1)))
        FirmwareChannel("channel", channel_args(fleet=fleet, gates=gates))

    graph = build(program, preview=preview)
    names = [*graph.children("fleet"), *graph.children("fleet-logs")]
    made = {name for name in names if graph[name].custom}
    assert made <= graph.before("channel-controller-jobs-end")


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
                "forged",
            )
        },
        "release": {
            "version": "2.1.0",
            "sha256": FIRMWARE.sha256,
            "size": FIRMWARE.size,
            "rings": ["canary", "broad"],
            "manifestSha256": sha256_hex(MANIFEST.text()),
        },
    }
    assert exports["signingKeyArns"][0].startswith("arn:aws:kms:us-east-1:123456789012:key/")


def test_a_preview_shows_what_is_released_and_does_not_ask_for_a_key_that_is_not_there() -> None:
    graph = made(preview=True)
    assert graph.exports["release"].value["manifestSha256"] == sha256_hex(MANIFEST.text())
    assert graph.exports["signingPublicKey"].value is UNKNOWN
    assert "aws:kms/getPublicKey:getPublicKey" not in graph.lookups
    assert json.loads(graph["channel-manifest"].inputs["content"])["firmware"]["version"] == "2.1.0"


# The fleet of another stack, and what is asked of the arguments
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preview", [False, True])
def test_the_release_to_a_fleet_whose_names_are_not_known_yet_is_known(preview: bool) -> None:
    """The fleet is in another stack, or made in this very deployment."""

    def program() -> object:
        suffix: Any = pulumi.UNKNOWN if preview else SUFFIX
        later: pulumi.Output[str] = pulumi.Output.from_input(suffix)
        fleet = replace(FLEET, suffix=later, ring_group_arns=None)
        return FirmwareChannel("channel", channel_args(fleet=fleet)).stack_outputs()

    graph = build(program, preview=preview)
    manifest = graph["channel-manifest"].inputs
    assert manifest["content"] == MANIFEST.text()
    assert manifest["key"] == "channels/stable/release.json"
    assert manifest["bucket"] == (UNKNOWN if preview else BUCKET)
    variables = graph["channel-controller-function"].inputs["environment"]["variables"]
    assert variables["MANIFEST_SHA256"] == sha256_hex(MANIFEST.text())
    assert variables["RING_GROUP_ARNS"] == (
        UNKNOWN if preview else json.dumps(RING_ARNS, sort_keys=True)
    )


def test_every_argument_of_a_release_is_in_the_manifest() -> None:
    gate = Gate(failure_limit=FailureLimit(percent=5.0), soak_minutes=1.5, approval=True)
    pace = Pace(base_per_minute=10, maximum_per_minute=500)
    args = channel_args(
        minimum_version="2.0.0",
        allow_downgrade=True,
        channel="beta",
        devices_per_minute=pace,
        abort=[Abort(on="FAILED", percent=1.5, minimum=3)],
        in_progress_timeout_minutes=20,
        presigned_url_seconds=900,
        gates={"canary": gate},
        rollback="forbidden",
        paused=True,
        halted=True,
        approvals=[Approval(ring="canary", sha256="f" * 64)],
        start_at="2026-12-01T02:00:00Z",
        window=Window(cron="0 2 * * *", minutes=240),
        document_extra={"job": ["{url}", 1, None]},
    )
    graph = build(lambda: FirmwareChannel("channel", args).stack_outputs())
    made = Manifest.parse(graph["channel-manifest"].inputs["content"])
    own = {"fleet", "version", "image", "sha256", "size", "minimum_version", "allow_downgrade"}
    others = {field.name for field in fields(FirmwareChannelArgs)} - own
    assert (str(made.firmware.minimum_version), made.firmware.allow_downgrade) == ("2.0.0", True)
    assert [ring.gate for ring in made.rings] == [gate, Gate()]
    assert made.pace == pace
    for name in others & {field.name for field in fields(Manifest)}:
        given, found = getattr(args, name), getattr(made, name)
        assert (tuple(given) if isinstance(given, list) else given) == found, name


def test_a_pace_is_written_as_a_stack_file_writes_it() -> None:
    assert pace_value(Pace(base_per_minute=10, maximum_per_minute=500)) == {
        "base": 10,
        "maximum": 500,
        "factor": 2.0,
        "increaseAfter": 100,
        "increaseOn": "succeeded",
    }


def test_its_mistakes_are_listed_at_once_and_nothing_is_made() -> None:
    made = []
    args = FirmwareChannelArgs(
        fleet=replace(FLEET, hardware="a b", suffix="x", ring_group_arns={"canary": "arn"}),
        version="2.1",
        image="firmware/2.9.0.bin",
        sha256="abc",
        gates={"canary": Gate(minimum_succeeded=0)},
        devices_per_minute=Pace(base_per_minute=600, maximum_per_minute=500),
        notifications=["nobody"],
        tls_only=False,
    )
    with pytest.raises(ArgumentsError) as raised:
        build(lambda: made.append(FirmwareChannel("Stable", args)))
    assert sorted(mistake.split(": ")[0] for mistake in raised.value.mistakes) == [
        "Stable.channel",
        "Stable.devicesPerMinute.base",
        "Stable.fleet.hardware",
        "Stable.fleet.ringGroupArns.broad",
        "Stable.fleet.suffix",
        "Stable.gates.canary.minimumSucceeded",
        "Stable.image",
        "Stable.notifications[0]",
        "Stable.sha256",
        "Stable.tlsOnly",
        "Stable.version",
    ]
    for mistake in raised.value.mistakes:
        assert re.fullmatch(r"Stable\.[^;]+: .+; .+; .+", mistake), (
            "key: value; what is allowed; the fix, as in a stack file"
        )
    assert made == []


def test_a_gate_may_not_ask_for_more_than_the_ring_has_declared() -> None:
    def program() -> None:
        fleet = DeviceFleet("fleet", fleet_args())
        FirmwareChannel(
            "channel", channel_args(fleet=fleet, gates={"canary": Gate(minimum_succeeded=2)})
        )

    with pytest.raises(ArgumentsError, match="the ring has 1 declared device: it could never pass"):
        build(program)


@pytest.mark.parametrize("devices", [0, 2])
def test_devices_that_are_declared_beside_those_that_come_in_are_not_taken_for_others(
    devices: int,
) -> None:
    claims = [ClaimCertificate(name="a", csr="csr/claim-example.csr")]
    args = fleet_args(devices=devices, provisioning=Provisioning(claims=claims))

    def program() -> None:
        FirmwareChannel("channel", channel_args(fleet=DeviceFleet("fleet", args), protect=False))

    function = build(program)["channel-controller-function"]
    assert function.inputs["environment"]["variables"]["DECLARED_DEVICES"] == str(devices)


def test_what_is_no_fleet_is_a_mistake() -> None:
    with pytest.raises(ArgumentsError, match=r"channel\.fleet: \"gateways\"; must be an object"):
        build(lambda: FirmwareChannel("channel", channel_args(fleet="gateways")))


def test_arguments_can_be_made_of_plain_values() -> None:
    """As another language, or a stack file, has them."""
    values = {
        "version": "2.1.0",
        "image": "firmware/2.1.0.bin",
        "sha256": FIRMWARE.sha256,
        "gates": {"canary": {"soakMinutes": 5}},
        "window": None,
    }
    args = FirmwareChannelArgs.from_values(values, fleet=FLEET)
    graph = build(lambda: FirmwareChannel("stable", args).stack_outputs())
    made = Manifest.parse(graph["stable-manifest"].inputs["content"])
    assert made.rings[0].gate == Gate(soak_minutes=5.0)
    with pytest.raises(ArgumentsError, match=r"stable\.version: missing"):
        build(lambda: FirmwareChannel("stable", FirmwareChannelArgs.from_values({}, fleet=FLEET)))


def test_a_preview_warns_of_a_brake_that_acts_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", lambda text, resource: told.append(text))
    gates = {ring: Gate(failure_limit=FailureLimit(percent=5.0)) for ring in ("canary", "broad")}
    risky = channel_args(abort=[Abort(on="FAILED", percent=10.0, minimum=10)], gates=gates)
    build(lambda: FirmwareChannel("channel", risky).stack_outputs(), preview=True)
    assert len(told) == 2, "of each ring"
    assert "10 % FAILED of at least 10: IoT may stop a release that keeps to the limit" in told[0]
    told.clear()
    build(lambda: FirmwareChannel("channel", channel_args(gates=gates)).stack_outputs())
    assert told == [], "the default is a brake, not a judge"


@pytest.mark.parametrize("preview", [False, True])
def test_a_preview_warns_of_what_existing_agents_do_not_check(
    preview: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", lambda text, resource: told.append(text))
    args = channel_args(document_extra={"afr_ota": {"files": []}})
    build(lambda: FirmwareChannel("channel", args).stack_outputs(), preview=preview)
    assert len(told) == 1
    assert told[0].startswith("rollout.documentExtra is for FreeRTOS OTA: ")


@pytest.mark.parametrize("preview", [False, True])
def test_images_are_signed_by_a_key_of_their_own_only_where_that_is_asked_for(
    preview: bool,
) -> None:
    args = channel_args(document_extra={"sig": "{imageSignature}"}, protect=True)
    graph = build(lambda: FirmwareChannel("channel", args).stack_outputs(), preview=preview)
    names = graph.children("channel")
    assert sorted(set(names) - set(made(preview=preview).children("channel"))) == [
        "channel-image-alias",
        "channel-image-key",
    ]
    key = graph["channel-image-key"]
    assert (key.protect, key.retain_on_delete) == (True, True)
    assert graph["channel-image-alias"].retain_on_delete
    assert key.inputs["customerMasterKeySpec"] == "ECC_NIST_P256"
    if preview:
        return
    assert key.inputs["policy"] == graph["channel-signing-key-1"].inputs["policy"]
    assert graph["channel-image-alias"].inputs["name"] == f"alias/{P}-stable-image"
    arn, signing = graph.exports["imageKeyArn"].value, graph.exports["signingKeyArns"].value
    assert arn not in signing
    signs = [
        s["Resource"]
        for s in graph["channel-controller-rights"].document("policy")["Statement"]
        if "kms:Sign" in s["Action"]
    ]
    assert signs == [[*signing, arn]]
    verifies = [
        s["Resource"]
        for s in graph["channel-controller-rights"].document("policy")["Statement"]
        if "kms:Verify" in s["Action"]
    ]
    assert verifies == [signing], "what it signs is no release and no state"
    variables = graph["channel-controller-function"].inputs["environment"]["variables"]
    assert variables["IMAGE_KEY_ARN"] == arn


def test_without_a_signature_in_the_document_there_is_no_such_key() -> None:
    args = channel_args(document_extra={"url": 0, "braces": "{{imageSignature}}"})
    with pytest.raises(ArgumentsError, match=r"documentExtra\.url"):
        build(lambda: FirmwareChannel("channel", args))
    graph = build(
        lambda: FirmwareChannel(
            "channel", channel_args(document_extra={"braces": "{{imageSignature}}"})
        ).stack_outputs()
    )
    assert "imageKeyArn" not in graph.exports
    assert "channel-image-key" not in graph.children("channel")
    variables = graph["channel-controller-function"].inputs["environment"]["variables"]
    assert "IMAGE_KEY_ARN" not in variables


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize("in_s3", [False, True])
def test_the_adopted_image_is_put_beside_the_released_one_and_stays(
    preview: bool, in_s3: bool
) -> None:
    adopted = AdoptedFirmware(
        version="2.0.0",
        image="s3://images/gateway-a1/2.0.0.bin" if in_s3 else "firmware/2.0.0.bin",
        sha256="cd" * 32 if in_s3 else file_digest("firmware/2.0.0.bin"),
        size=77 if in_s3 else None,
    )
    args = channel_args(adopted=adopted, protect=True)
    graph = build(lambda: FirmwareChannel("channel", args).stack_outputs(), preview=preview)
    image = graph["channel-adopted-artifact"]
    assert image.inputs["key"] == f"firmware/2.0.0/{adopted.sha256}.bin"
    assert (image.protect, image.retain_on_delete) == (False, True)
    assert image.type.endswith("ObjectCopy" if in_s3 else "BucketObjectv2")
    assert "channel-adopted-artifact" in graph.before("channel-manifest")
    told = Manifest.parse(graph["channel-manifest"].inputs["content"]).adopted
    assert told is not None
    assert told.key == image.inputs["key"]


def test_a_release_of_the_adopted_image_is_one_object() -> None:
    adopted = AdoptedFirmware(version="2.1.0", image="firmware/2.1.0.bin", sha256=FIRMWARE.sha256)
    args = channel_args(adopted=adopted)
    graph = build(lambda: FirmwareChannel("channel", args).stack_outputs())
    assert "channel-adopted-artifact" not in graph.children("channel")
    made = Manifest.parse(graph["channel-manifest"].inputs["content"])
    assert made.adopted == FIRMWARE


def file_digest(name: str) -> str:
    return hashlib.sha256((ROOT / name).read_bytes()).hexdigest()
