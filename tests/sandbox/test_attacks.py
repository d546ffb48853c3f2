"""Attacks on the deployed stack, with the credentials that an attacker could have: every one is
refused, and harms nobody."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from device.agent import DeviceConfig
from device.connection import Connection
from ops.local_aws import ACCOUNT
from tests.sandbox.fleet import (
    CANARY,
    EVERYBODY,
    FACTORY,
    IMAGES,
    Clients,
    Fleet,
    everybody,
    wait_for,
)
from tests.sandbox.intruder import Intruder

THIEF, VICTIM = "0003", "0004"
"""The thief's device is switched off; what connects in its place has its certificate and its
key."""
DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedException", "403"})

ASKED = (
    "jobs/start-next",
    "jobs/get",
    "jobs/$next/get",
    "jobs/some-job/get",
    "jobs/some-job/update",
    "jobs/notify-next",
    "shadow/get",
    "shadow/update",
    "shadow/delete",
    "shadow/name/config/update",
    "shadow/update/delta",
)
"""What a device, or AWS in its place, publishes under $aws/things/<thing>/."""
HEARD = (
    "jobs/notify-next",
    "jobs/notify",
    "jobs/start-next/accepted",
    "jobs/+/get/accepted",
    "jobs/#",
    "shadow/update/accepted",
    "shadow/get/accepted",
    "shadow/#",
    "#",
)
"""What a device subscribes to there."""


@pytest.fixture(scope="module")
def thief(fleet: Fleet) -> DeviceConfig:
    fleet.disconnect(THIEF)
    return fleet.configs[THIEF]


@pytest.fixture(scope="module")
def administrator(fleet: Fleet) -> Clients:
    """Somebody with every right that an IAM policy can give. (The sandbox's root is above
    MiniStack's.)"""
    iam = fleet.client("iam")
    iam.create_user(UserName="administrator")
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
    iam.put_user_policy(UserName="administrator", PolicyName="everything", PolicyDocument=document)
    key = iam.create_access_key(UserName="administrator")["AccessKey"]
    return fleet.client_as(key["AccessKeyId"], key["SecretAccessKey"])


def connection(
    fleet: Fleet, config: DeviceConfig, client_id: str | None = None, will: str | None = None
) -> Intruder:
    """The device's own certificate, with a client id that may be another's."""
    identity = (config.certificate_pem, config.private_key_pem)
    return Intruder(
        fleet.instance.mqtt_port, config.ca_pem, client_id or config.thing, identity, will
    )


def denied(call: Callable[..., Any], **parameters: Any) -> bool:
    """Whether AWS says that the caller may not; any other mistake is the test's own."""
    try:
        call(**parameters)
    except ClientError as error:
        if error.response["Error"]["Code"] in DENIED:
            return True
        raise
    return False


def fetched(url: str, method: str = "GET", data: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of a plain HTTP request."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(
            urllib.request.Request(url, data=data, method=method), timeout=10
        ) as answer:
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


# MQTT


def test_a_device_reaches_no_other_devices_jobs_and_shadow(
    fleet: Fleet, thief: DeviceConfig
) -> None:
    others = [fleet.thing(serial) for serial in EVERYBODY if serial != THIEF]
    before = (
        fleet.sandbox.reported(),
        fleet.jobs(),
        fleet.executions(fleet.job("broad")),
    )
    forged = json.dumps(
        {"state": {"reported": {"firmware": {"version": "6.6.6"}}}, "status": "FAILED"}
    ).encode()
    with connection(fleet, thief) as me:
        assert me.connected()
        assert me.may_publish(f"$aws/things/{thief.thing}/shadow/get"), "its own it may"
        assert me.may_subscribe(f"$aws/things/{thief.thing}/jobs/notify-next"), "its own it may"
        job = fleet.job("broad")
        for other in others:
            for tail in (*ASKED, f"jobs/{job}/get", f"jobs/{job}/update"):
                assert not me.may_publish(f"$aws/things/{other}/{tail}", forged), (
                    f"{tail} of {other}"
                )
            for tail in HEARD:
                assert not me.may_subscribe(f"$aws/things/{other}/{tail}"), f"{tail} of {other}"
    assert before == (
        fleet.sandbox.reported(),
        fleet.jobs(),
        fleet.executions(fleet.job("broad")),
    )


def test_a_device_reaches_nothing_but_its_own_jobs_and_classic_shadow(
    fleet: Fleet, thief: DeviceConfig
) -> None:
    mine, job = f"$aws/things/{thief.thing}", fleet.job("broad")
    publish = [
        f"{mine}/shadow/delete",
        f"{mine}/shadow/name/config/update",
        f"{mine}/jobs/notify-next",
        f"{mine}/streams/1/get/json",
        f"$aws/events/job/{job}/canceled",
        f"$aws/events/job/{job}/deleted",
        "$aws/rules/any",
        "$aws/certificates/create/json",
        "$aws/provisioning-templates/any/provision/json",
        f"$aws/things/{thief.thing}x/shadow/get",
        "fleet/all",
        thief.thing,
    ]
    listen = [
        "#",
        "+/+",
        "$aws/#",
        "$aws/things/#",
        "$aws/things/+/jobs/#",
        "$aws/things/+/shadow/#",
        "$aws/events/#",
        f"$aws/events/job/{job}/+",
        "$share/thieves/#",
        "$share/thieves/$aws/things/+/jobs/notify-next",
        "fleet/all",
        f"{mine}/#",
    ]
    with connection(fleet, thief) as me:
        assert me.connected()
        assert [topic for topic in publish if me.may_publish(topic)] == []
        assert [topic_filter for topic_filter in listen if me.may_subscribe(topic_filter)] == []
        assert not me.may_publish(f"{mine}/shadow/get", retain=True), (
            "a retained message would outlive the device"
        )


def test_a_device_connects_as_itself_only(fleet: Fleet, thief: DeviceConfig) -> None:
    others = [fleet.thing(serial) for serial in EVERYBODY if serial != THIEF]
    for client_id in (*others, thief.thing[:-1], thief.thing + "x", "anything", "+", "#"):
        with connection(fleet, thief, client_id) as me:
            assert not me.connected(), client_id
    with connection(fleet, thief, will=f"$aws/things/{fleet.thing(VICTIM)}/shadow/update") as me:
        assert not me.connected(), "a last will on another's topic"
    with connection(fleet, thief) as me:
        assert me.connected(), "as itself it may"


def test_a_certificate_that_is_not_a_devices_opens_nothing(
    fleet: Fleet, thief: DeviceConfig
) -> None:
    iot, policy = fleet.client("iot"), fleet.sandbox.outputs["devicePolicyName"]
    victim = fleet.thing(VICTIM)

    def connects(made: dict[str, Any], client_id: str) -> bool:
        identity = (made["certificatePem"], made["keyPair"]["PrivateKey"])
        with Intruder(fleet.instance.mqtt_port, thief.ca_pem, client_id, identity) as intruder:
            return intruder.connected()

    loose = iot.create_keys_and_certificate(setAsActive=True)
    iot.attach_policy(policyName=policy, target=loose["certificateArn"])
    assert not connects(loose, victim), "attached to no thing"
    assert not connects(loose, "anything"), "attached to no thing"

    iot.attach_thing_principal(thingName=victim, principal=loose["certificateArn"])
    assert connects(loose, victim), (
        "attached to the thing: what is refused below is refused for its status alone"
    )
    for status in ("INACTIVE", "REVOKED"):
        iot.update_certificate(certificateId=loose["certificateId"], newStatus=status)
        assert not connects(loose, victim), status

    bare = iot.create_keys_and_certificate(setAsActive=True)
    iot.attach_thing_principal(thingName=victim, principal=bare["certificateArn"])
    assert not connects(bare, victim), "no policy"


def test_a_client_without_a_certificate_or_on_another_interface_finds_no_door(
    fleet: Fleet, thief: DeviceConfig
) -> None:
    for client_id in (thief.thing, "anything"):
        with Intruder(fleet.instance.mqtt_port, thief.ca_pem, client_id) as nobody:
            assert not nobody.connected()
    for port in (fleet.instance.port, fleet.instance.mqtt_port):
        with (
            socket.socket() as elsewhere
        ):  # 127.0.0.2 is this machine too, and is not the address that the sandbox listens on
            assert elsewhere.connect_ex(("127.0.0.2", port)) != 0


# Presigned URLs and the bucket


@pytest.fixture(scope="module")
def url(fleet: Fleet, thief: DeviceConfig) -> str:
    """The image's URL in a job document, as AWS presigned it for the thief's device."""
    fleet.ship("2.1.1")
    fleet.until("broad's job", lambda s: (p := s.proof("broad")) and p.seen)
    device = Connection(thief, lambda: None, lambda _: None)
    device.start()
    try:
        execution = device.find_next_job()
        assert execution is not None
        document = device.fetch_document(execution).document
    finally:
        device.close()
    assert isinstance(document, dict)
    fleet.connect(THIEF)
    fleet.proved("2.1.1")
    fleet.disconnect(THIEF)
    return str(document["url"])


def test_a_presigned_url_gives_its_image_and_nothing_else(fleet: Fleet, url: str) -> None:
    firmware = fleet.sandbox.manifest().firmware
    status, body = fetched(url)
    assert (status, len(body)) == (200, firmware.size)
    keys, bucket = fleet.sandbox.names.keys, fleet.sandbox.outputs["bucketName"]
    path = f"/{bucket}/{firmware.key}"
    assert path in url
    for other in (
        f"/{bucket}/{keys.state}",
        f"/{bucket}/{keys.manifest}",
        f"/{bucket}/{keys.orders}",
        f"/{bucket}/firmware/{FACTORY}/{'0' * 64}.bin",
        f"/{bucket}/firmware/../{keys.state}",
        f"/{bucket}/",
        f"/{bucket}",
        f"/{IMAGES}/2.1.0",
        "/",
    ):
        assert fetched(url.replace(path, other))[0] == 403, other
    for method, data in (("PUT", b"mine"), ("DELETE", None), ("POST", b""), ("HEAD", None)):
        assert fetched(url, method, data)[0] == 403, method
    longer = url.replace("X-Amz-Expires=", "X-Amz-Expires=1")
    assert longer != url
    assert fetched(longer)[0] == 403, "a longer life"
    assert fetched(url + "&versionId=null")[0] == 403, "another version"
    assert fetched(url) == (200, body), "nothing of this changed the image"


def test_without_a_signature_nothing_is_read_listed_or_written(fleet: Fleet, url: str) -> None:
    plain = url.partition("?")[0]
    bucket = f"{fleet.sandbox.endpoint}/{fleet.sandbox.outputs['bucketName']}"
    state = f"{bucket}/{fleet.sandbox.names.keys.state}"
    for address in (
        plain,
        bucket,
        f"{bucket}?list-type=2",
        f"{bucket}?versions",
        f"{bucket}?policy",
        state,
    ):
        assert fetched(address)[0] == 403, address
    for address in (plain, state):
        assert fetched(address, "PUT", b"mine")[0] == 403, address
        assert fetched(address, "DELETE")[0] == 403, address


def test_the_presigning_role_reads_images_only_and_its_urls_expire(
    fleet: Fleet, administrator: Clients, url: str
) -> None:
    names, bucket = fleet.sandbox.names, fleet.sandbox.outputs["bucketName"]
    keys, name = names.keys, names.presign_role
    role = f"arn:aws:iam::{ACCOUNT}:role/{name}"
    assert denied(administrator("sts").assume_role, RoleArn=role, RoleSessionName="me"), (
        "IoT alone may assume it"
    )

    presign = fleet.role(name)
    s3, image = presign("s3"), {"Bucket": bucket, "Key": fleet.sandbox.manifest().firmware.key}
    brief = s3.generate_presigned_url("get_object", Params=image, ExpiresIn=1)
    assert fetched(brief)[0] == 200
    status, body = wait_for(
        "the URL's end", lambda: (got := fetched(brief))[0] != 200 and got, seconds=5
    )
    assert (status, b"Request has expired" in body) == (403, True)

    for key in (keys.state, keys.manifest, keys.orders):
        assert denied(s3.get_object, Bucket=bucket, Key=key)
    assert denied(s3.list_objects_v2, Bucket=bucket)
    assert denied(s3.put_object, **image, Body=b"mine")
    assert denied(s3.delete_object, **image)
    assert denied(presign("kms").sign, **signature(fleet.sandbox.outputs["signingKeyArns"][0]))


# Keys and roles


def signature(key: str) -> dict[str, Any]:
    return {
        "KeyId": key,
        "Message": b"0" * 32,
        "MessageType": "DIGEST",
        "SigningAlgorithm": "ECDSA_SHA_256",
    }


@pytest.fixture(scope="module")
def controller(fleet: Fleet) -> Clients:
    return fleet.role(fleet.sandbox.outputs["controllerName"])


def test_nobody_signs_a_release_but_the_controller(
    fleet: Fleet, administrator: Clients, controller: Clients
) -> None:
    """On AWS the key's policy binds the account's root too; in MiniStack the root is above it,
    which only AWS can show."""
    key = fleet.sandbox.outputs["signingKeyArns"][0]
    assert controller("kms").sign(**signature(key))["Signature"]
    assert denied(administrator("kms").sign, **signature(key))
    assert denied(
        administrator("kms").create_grant,
        KeyId=key,
        GranteePrincipal=f"arn:aws:iam::{ACCOUNT}:root",
        Operations=["Sign"],
    )
    assert administrator("kms").get_public_key(KeyId=key)["PublicKey"]


def test_the_controllers_role_does_what_the_controller_does_and_no_more(
    fleet: Fleet, controller: Clients
) -> None:
    """Of CreateJob, MiniStack holds the job's id against the policy; only AWS holds its targets and
    iam:PassRole too."""
    outputs = fleet.sandbox.outputs
    names, bucket = fleet.sandbox.names, outputs["bucketName"]
    keys = names.keys
    s3, iot, kms = controller("s3"), controller("iot"), controller("kms")
    assert s3.get_object(Bucket=bucket, Key=keys.state)["Body"].read()
    fleet.client("s3").put_object(Bucket=bucket, Key="secrets/one", Body=b"secret")
    assert denied(s3.get_object, Bucket=bucket, Key="secrets/one")
    assert denied(s3.get_object, Bucket=IMAGES, Key="2.1.0")
    for key in (keys.manifest, keys.orders, fleet.sandbox.manifest().firmware.key):
        assert denied(s3.put_object, Bucket=bucket, Key=key, Body=b"mine"), key
    assert denied(s3.delete_object, Bucket=bucket, Key=keys.state)
    assert denied(s3.put_bucket_policy, Bucket=bucket, Policy="{}")

    other = fleet.client("kms").create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")[
        "KeyMetadata"
    ]["KeyId"]
    assert denied(kms.sign, **signature(other))
    assert denied(
        kms.put_key_policy, KeyId=outputs["signingKeyArns"][0], PolicyName="default", Policy="{}"
    )

    ring = outputs["ringGroupNames"]["canary"]
    target = f"arn:aws:iot:{fleet.region}:{ACCOUNT}:thinggroup/{ring}"
    assert denied(iot.create_job, jobId="another-stacks-job", targets=[target], document="{}")
    assert denied(iot.cancel_job, jobId="another-stacks-job")
    assert denied(iot.add_thing_to_thing_group, thingGroupName=ring, thingName=fleet.thing(VICTIM))
    assert denied(iot.delete_thing_group, thingGroupName=ring)
    assert denied(iot.create_thing_group, thingGroupName="mine")
    assert denied(iot.create_keys_and_certificate, setAsActive=True)

    presign = f"arn:aws:iam::{ACCOUNT}:role/{names.presign_role}"
    assert denied(controller("sts").assume_role, RoleArn=presign, RoleSessionName="me")
    assert denied(
        controller("lambda").update_function_configuration,
        FunctionName=outputs["controllerName"],
        Timeout=1,
    )
    assert denied(
        controller("sqs").receive_message,
        QueueUrl=f"{fleet.sandbox.endpoint}/{ACCOUNT}/{names.dead_letters}",
    )


# What lies in the bucket is tampered with


@contextmanager
def unguarded(fleet: Fleet, administrator: Clients) -> Iterator[Any]:
    """S3 while an administrator has taken the bucket's policy away."""
    s3, bucket = administrator("s3"), fleet.sandbox.outputs["bucketName"]
    policy = s3.get_bucket_policy(Bucket=bucket)["Policy"]
    s3.delete_bucket_policy(Bucket=bucket)
    try:
        yield s3
    finally:
        s3.put_bucket_policy(Bucket=bucket, Policy=policy)


def metric(fleet: Fleet, name: str) -> float:
    """The sum of one of the channel's metrics over the last ten minutes."""
    now = datetime.now(UTC)
    own = [
        {"Name": "Suffix", "Value": fleet.sandbox.outputs["suffix"]},
        {"Name": "Channel", "Value": fleet.sandbox.stack.channel_name},
    ]
    points = fleet.client("cloudwatch").get_metric_statistics(
        Namespace="IotOta",
        MetricName=name,
        Dimensions=own,
        Period=60,
        Statistics=["Sum"],
        StartTime=now - timedelta(minutes=10),
        EndTime=now + timedelta(minutes=1),
    )["Datapoints"]
    return float(sum(point["Sum"] for point in points))


def test_a_manifest_that_was_not_deployed_is_refused_and_alarmed(
    fleet: Fleet, administrator: Clients
) -> None:
    s3, stored = (
        administrator("s3"),
        {"Bucket": fleet.sandbox.outputs["bucketName"], "Key": fleet.sandbox.names.keys.manifest},
    )
    honest, jobs, alarmed = (
        s3.get_object(**stored)["Body"].read(),
        fleet.jobs(),
        metric(fleet, "ManifestRefused"),
    )
    version = json.dumps(str(fleet.sandbox.manifest().firmware.version)).encode()
    for forged in (
        honest.replace(version, b'"6.6.6"'),
        honest.replace(b'"rings"', b'"paused":false,"rings"'),
        b"{}",
        b"",
    ):
        assert forged != honest
        s3.put_object(**stored, Body=forged)
        answer = fleet.wake()
        assert (answer["kind"], answer["did"]) == ("refused", [])
        assert "its SHA-256 is not the one that this deployment announced" in answer["waiting"]
    assert fleet.jobs() == jobs
    assert metric(fleet, "ManifestRefused") >= alarmed + 4
    s3.put_object(**stored, Body=honest)
    fleet.waits("nothing")


def test_an_image_tampered_with_after_the_offer_reaches_nobody(
    fleet: Fleet, administrator: Clients
) -> None:
    """A job names the version of the object that the controller checked."""
    fleet.disconnect()
    digest = fleet.ship("2.2.0")
    fleet.until("canary's job", lambda s: (p := s.proof("canary")) and p.seen)
    job, firmware = fleet.job("canary"), fleet.sandbox.manifest().firmware
    image = {"Bucket": fleet.sandbox.outputs["bucketName"], "Key": firmware.key}
    content = administrator("s3").get_object(**image)["Body"].read()
    administrator("s3").put_object(**image, Body=content[:-1] + b"!", ChecksumAlgorithm="SHA256")
    fleet.connect()
    fleet.proved("2.2.0")
    assert fleet.executions(job) == dict.fromkeys(CANARY, "SUCCEEDED")
    assert fleet.runs() == everybody("2.2.0"), "the later ring, too"
    assert fleet.state.standing(digest) == "good"
    administrator("s3").put_object(**image, Body=content, ChecksumAlgorithm="SHA256")
    fleet.no_ring_has_two_jobs()


def test_an_image_tampered_with_before_the_offer_is_offered_to_nobody(
    fleet: Fleet, administrator: Clients
) -> None:
    with fleet.controller_down():
        fleet.ship("2.3.0")
        jobs, firmware = fleet.jobs(), fleet.sandbox.manifest().firmware
        image = {"Bucket": fleet.sandbox.outputs["bucketName"], "Key": firmware.key}
        content = administrator("s3").get_object(**image)["Body"].read()
        administrator("s3").put_object(
            **image, Body=content[:-1] + b"!", ChecksumAlgorithm="SHA256"
        )
    answer = fleet.wake()
    assert (answer["kind"], answer["did"]) == ("image", [])
    assert "has another SHA-256 than the release" in answer["waiting"]
    administrator("s3").delete_object(**image)
    assert "is missing" in fleet.wake()["waiting"]
    assert fleet.jobs() == jobs
    administrator("s3").put_object(**image, Body=content, ChecksumAlgorithm="SHA256")
    fleet.proved("2.3.0")
    assert fleet.runs() == everybody("2.3.0")


def test_jobs_that_somebody_makes_under_the_channels_name_are_cancelled_and_stop_nothing(
    fleet: Fleet, administrator: Clients
) -> None:
    names, iot = fleet.sandbox.names, administrator("iot")
    target = iot.describe_thing_group(thingGroupName=names.ring_group("canary"))["thingGroupArn"]
    sequence, now = fleet.state.sequence, int(datetime.now(UTC).timestamp())
    document = fleet.client("iot").get_job_document(jobId=fleet.job("broad"))["document"]
    real = json.dumps({"release": json.loads(document)["release"]})
    forged = {
        names.job("canary", 2**63 - 1): "{}",
        names.job("canary", now + 3600): real,
        names.job("attic", now + 1): "[]",
        f"{names.job_prefix}canary": real,
        names.job("canary", now + 2): '{"release": "a.b.c"}',
    }
    for job, document in forged.items():
        continuous = {"targets": [target], "targetSelection": "CONTINUOUS"}
        iot.create_job(jobId=job, document=document, **continuous)
    answer = fleet.wake()
    assert (answer["outcome"], answer["sequence"]) == ("done", sequence)
    assert {iot.describe_job(jobId=job)["job"]["status"] for job in forged} == {"CANCELED"}
    fleet.waits("nothing")


def test_who_may_call_the_function_cannot_end_the_stacks_jobs(
    fleet: Fleet, administrator: Clients
) -> None:
    """Nor wait until they can: the tick's rule is there for as long as the stack."""
    name, before = fleet.sandbox.outputs["controllerName"], fleet.jobs()
    alarmed = metric(fleet, "Forged")
    event = json.dumps({"tf": {"action": "delete", "prev_input": {}}})
    answer = administrator("lambda").invoke(FunctionName=name, Payload=event)
    assert "FunctionError" not in answer
    assert json.load(answer["Payload"])["outcome"] == "forged"
    assert fleet.jobs() == before
    assert metric(fleet, "Forged") > alarmed


def test_hostile_orders_are_a_halt_that_the_operator_ends(
    fleet: Fleet, administrator: Clients
) -> None:
    orders = {"Bucket": fleet.sandbox.outputs["bucketName"], "Key": fleet.sandbox.names.keys.orders}
    for body in (b"[" * 100_000, b'{"schema": ' + b"9" * 5_000 + b"}", b"x" * 2_000_000):
        administrator("s3").put_object(**orders, Body=body)
        answer = fleet.wake()
        assert (answer["outcome"], answer["kind"]) == ("done", "halted")
        assert "control.json is unreadable" in answer["waiting"]
    assert "unreadable" in fleet.ops("halt")
    fleet.ops("resume")
    fleet.waits("nothing")


def test_a_state_that_the_controller_did_not_write_stops_everything_until_resume(
    fleet: Fleet, administrator: Clients
) -> None:
    stored = {"Bucket": fleet.sandbox.outputs["bucketName"], "Key": fleet.sandbox.names.keys.state}
    s3 = administrator("s3")
    versions = s3.list_object_versions(Bucket=stored["Bucket"], Prefix=stored["Key"])["Versions"]
    oldest = min(versions, key=lambda version: version["LastModified"])["VersionId"]
    assert denied(s3.put_object, **stored, Body=b"{}")
    assert denied(s3.delete_object, **stored)
    assert denied(s3.delete_object, **stored, VersionId=oldest)

    honest, jobs = s3.get_object(**stored)["Body"].read(), fleet.jobs()
    old = s3.get_object(**stored, VersionId=oldest)["Body"].read()
    envelope = json.loads(honest)
    unsigned = json.dumps(envelope | {"jws": "a.b.c"}).encode()
    forged = json.dumps(
        envelope | {"state": envelope["state"] | {"refused": {"0" * 64: "no"}}}
    ).encode()
    for name, body in {
        "invalid": forged,
        "invalid ": unsigned,
        "invalid  ": b"",
        "lost": None,
        "replayed": old,
        "replayed ": honest,
    }.items():
        with unguarded(fleet, administrator):
            put = s3.delete_object(**stored) if body is None else s3.put_object(**stored, Body=body)
        answer = fleet.wake()
        assert (answer["outcome"], answer["halt"].split("-")[0]) == ("distrusted", name.strip())
        with unguarded(fleet, administrator):
            s3.delete_object(**stored, VersionId=put["VersionId"])
    assert s3.get_object(**stored)["Body"].read() == honest
    assert fleet.wake()["outcome"] == "done", "with the honest state in its place it goes on"

    with unguarded(fleet, administrator):
        s3.put_object(**stored, Body=old)
    fleet.ship("2.4.0")
    answer = fleet.wake()
    assert (answer["outcome"], fleet.jobs()) == (
        "distrusted",
        jobs,
    ), "nothing is started from an older state"
    assert answer["halt"] in fleet.ops("resume")
    fleet.proved("2.4.0")
    assert fleet.runs() == everybody("2.4.0")
    fleet.no_ring_has_two_jobs()
