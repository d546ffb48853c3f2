"""The reference device against a local AWS with IoT and IAM policies enforced: real MQTT, jobs,
presigned URLs, shadows."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from device.agent import Device, DeviceConfig, Faults
from rollout.job_document import ReleaseStatement, artifact_url, job_document
from rollout.jws import compact_jws, signing_input
from rollout.version import Version

REGION = "us-east-1"
ACCOUNT = "000000000000"
CHANNEL, HARDWARE = "stable", "gateway-a1"
FACTORY = ("2.0.0", "0" * 64)


def image(version: str, self_test: str = "pass", size: int = 65_536) -> bytes:
    header = (
        json.dumps({"hardware": HARDWARE, "selfTest": self_test, "version": version}).encode()
        + b"\n"
    )
    return header + bytes(range(256)) * (size // 256)


def wait_for(what: str, true: Callable[[], Any], seconds: float = 20.0) -> Any:
    end = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.05)
    return value


class LocalAws:
    """A MiniStack with one channel: bucket, presign role, signing key, device policy."""

    def __init__(self, port: int, mqtt_port: int, folder: Path) -> None:
        self.mqtt_port, self.folder = mqtt_port, folder
        endpoint = f"http://localhost:{port}"
        with urllib.request.urlopen(f"{endpoint}/_ministack/iot/ca.pem") as answer:
            self.ca_pem = answer.read().decode()

        def client(service: str) -> Any:
            return boto3.client(
                service,
                endpoint_url=endpoint,
                region_name=REGION,
                aws_access_key_id=ACCOUNT,
                aws_secret_access_key="any",
            )

        self.iot, self.s3, self.kms, self.data = (
            client("iot"),
            client("s3"),
            client("kms"),
            client("iot-data"),
        )
        self.s3.create_bucket(Bucket="firmware")
        self._presign_role(client("iam"))
        self.key = self.create_key()
        self.public_key_pem = pem(self.kms.get_public_key(KeyId=self.key)["PublicKey"])
        self.iot.create_policy(policyName="device", policyDocument=json.dumps(device_policy()))
        self.sequence = 0

    def _presign_role(self, iam: Any) -> None:
        trust = {
            "Effect": "Allow",
            "Principal": {"Service": "iot.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
        read = {
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::firmware/firmware/*",
        }
        role = iam.create_role(RoleName="presign", AssumeRolePolicyDocument=policy(trust))["Role"]
        iam.put_role_policy(RoleName="presign", PolicyName="read", PolicyDocument=policy(read))
        self.presign_role = role["Arn"]

    def create_key(self) -> str:
        made = self.kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
        return str(made["KeyMetadata"]["KeyId"])

    def create_device(self, serial: str) -> DeviceConfig:
        """A thing with a certificate, and its device as it leaves the factory."""
        thing = f"fleet-{serial}"
        self.iot.create_thing(thingName=thing)
        made = self.iot.create_keys_and_certificate(setAsActive=True)
        self.iot.attach_policy(policyName="device", target=made["certificateArn"])
        self.iot.attach_thing_principal(thingName=thing, principal=made["certificateArn"])
        return DeviceConfig(
            thing=thing,
            serial=serial,
            certificate_pem=made["certificatePem"],
            private_key_pem=made["keyPair"]["PrivateKey"],
            ca_pem=self.ca_pem,
            host="localhost",
            port=self.mqtt_port,
            public_key_pem=self.public_key_pem,
            channel=CHANNEL,
            hardware=HARDWARE,
            initial_version=Version(FACTORY[0]),
            initial_sha256=FACTORY[1],
            folder=self.folder / serial,
        )

    def release(
        self,
        devices: list[DeviceConfig],
        content: bytes,
        stored: bytes | None = None,
        version: str = "2.1.0",
        **changes: Any,
    ) -> str:
        """Offers an image to the devices; `stored` is what really lies in S3. Returns the job's
        id."""
        self.sequence += 1
        job = self.new_job_id()
        statement = replace(
            ReleaseStatement(
                contract=1,
                job=job,
                channel=CHANNEL,
                hardware=HARDWARE,
                version=Version(version),
                sequence=self.sequence,
                sha256=hashlib.sha256(content).hexdigest(),
                size=len(content),
            ),
            **changes,
        )
        key = f"firmware/{statement.version}/{statement.sha256}.bin"
        self.s3.put_object(Bucket="firmware", Key=key, Body=content if stored is None else stored)
        signed = signing_input("iotota-release+jws", self.key, statement)
        signature = self.kms.sign(
            KeyId=self.key, Message=signed.encode(), SigningAlgorithm="ECDSA_SHA_256"
        )["Signature"]
        return self.job(
            devices,
            job_document(
                compact_jws(signed, signature),
                artifact_url("firmware", REGION, "amazonaws.com", key),
            ),
            job,
        )

    def new_job_id(self) -> str:
        return f"job-{self.sequence}-{len(self.iot.list_jobs()['jobs'])}"

    def job(self, devices: list[DeviceConfig], document: str, job: str | None = None) -> str:
        job = job or self.new_job_id()
        self.iot.create_job(
            jobId=job,
            targets=[f"arn:aws:iot:{REGION}:{ACCOUNT}:thing/{device.thing}" for device in devices],
            document=document,
            presignedUrlConfig={"roleArn": self.presign_role, "expiresInSec": 60},
            timeoutConfig={"inProgressTimeoutInMinutes": 5},
        )
        return job

    def execution(self, job: str, device: DeviceConfig) -> dict[str, Any]:
        found = self.iot.describe_job_execution(jobId=job, thingName=device.thing)["execution"]
        return {"status": found["status"], **found.get("statusDetails", {}).get("detailsMap", {})}

    def wait_until_ended(self, job: str, device: DeviceConfig) -> dict[str, Any]:
        """The execution, once it is terminal."""
        wait_for(
            f"{device.thing} to end {job}",
            lambda: self.execution(job, device)["status"] not in ("QUEUED", "IN_PROGRESS"),
        )
        return self.execution(job, device)

    def shadow(self, device: DeviceConfig) -> Any:
        return json.load(self.data.get_thing_shadow(thingName=device.thing)["payload"])["state"][
            "reported"
        ]


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def device_policy() -> dict[str, Any]:
    arn, mine = f"arn:aws:iot:{REGION}:{ACCOUNT}", "$aws/things/${iot:Connection.Thing.ThingName}"
    filters = [f"{mine}/jobs/*", f"{mine}/shadow/update/*"]
    publish = [
        f"{mine}/jobs/*/get",
        f"{mine}/jobs/*/update",
        f"{mine}/shadow/update",
    ]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "iot:Connect",
                "Resource": f"{arn}:client/${{iot:Connection.Thing.ThingName}}",
            },
            {
                "Effect": "Allow",
                "Action": "iot:Publish",
                "Resource": [f"{arn}:topic/{topic}" for topic in publish],
            },
            {
                "Effect": "Allow",
                "Action": "iot:Subscribe",
                "Resource": [f"{arn}:topicfilter/{topic}" for topic in filters],
            },
            {
                "Effect": "Allow",
                "Action": "iot:Receive",
                "Resource": [f"{arn}:topic/{topic}" for topic in filters],
            },
        ],
    }


def pem(der: bytes) -> str:
    lines = base64.encodebytes(der).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{lines}-----END PUBLIC KEY-----\n"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    port, mqtt_port, folder = free_port(), free_port(), tmp_path_factory.mktemp("devices")
    environment = os.environ | {
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_PORT": str(mqtt_port),
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",
    }
    with (folder / "ministack.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "ministack"], env=environment, stdout=log, stderr=log, cwd=folder
        )
        try:
            wait_for("MiniStack", lambda: is_up(port))
            yield LocalAws(port, mqtt_port, folder)
        finally:
            server.terminate()
            server.wait()


def is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://localhost:{port}/_ministack/health") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture
def run() -> Iterator[Callable[..., Device]]:
    """Starts devices; stops them all at the end."""
    devices: list[Device] = []

    def start(config: DeviceConfig, **arguments: Any) -> Device:
        devices.append(Device(config, **arguments))
        devices[-1].start()
        return devices[-1]

    yield start
    for device in devices:
        device.stop()


def test_twenty_devices_install_a_release_and_say_so(
    aws: LocalAws, run: Callable[..., Device]
) -> None:
    fleet = [aws.create_device(f"many-{number:02}") for number in range(20)]
    devices = [run(config) for config in fleet]
    for config in fleet:
        wait_for(
            "the factory image in the shadow",
            functools.partial(has_reported, aws, config, FACTORY[0]),
        )
    started = time.monotonic()
    content = image("2.1.0")
    job = aws.release(fleet, content)
    ends = [aws.wait_until_ended(job, config) for config in fleet]
    took = time.monotonic() - started
    assert {end["status"] for end in ends} == {"SUCCEEDED"}
    assert ends[0] == {
        "status": "SUCCEEDED",
        "step": "done",
        "reason": "installed",
        "version": "2.1.0",
    }
    firmware = {
        "version": "2.1.0",
        "sha256": hashlib.sha256(content).hexdigest(),
        "sequence": aws.sequence,
    }
    assert [aws.shadow(config) for config in fleet] == [
        {"contract": 1, "firmware": firmware, "hardware": HARDWARE}
    ] * 20
    assert took < 10, f"20 devices took {took:.1f} s"
    for device in devices:
        device.stop()
    assert not [
        thread for thread in threading.enumerate() if thread.name.startswith("device many-")
    ]


def has_reported(aws: LocalAws, config: DeviceConfig, version: str) -> bool:
    try:
        return bool(aws.shadow(config)["firmware"]["version"] == version)
    except aws.data.exceptions.ResourceNotFoundException:
        return False


def test_a_job_queued_while_the_device_was_away_is_found(
    aws: LocalAws, run: Callable[..., Device]
) -> None:
    config = aws.create_device("away")
    job = aws.release([config], image("2.1.0"))
    run(config)
    assert aws.wait_until_ended(job, config)["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    "step", ["checking", "downloading", "installing", "rebooting", "self-test", "reporting"]
)
def test_a_device_that_dies_in_mid_update_returns_and_ends_it(
    aws: LocalAws, run: Callable[..., Device], step: Any
) -> None:
    config = aws.create_device(f"dies-{step}")
    job = aws.release([config], image("2.1.0"))
    device = run(config, faults=Faults(die_at=step))
    assert device.died.wait(20)
    device.stop()
    assert aws.execution(job, config)["status"] == "IN_PROGRESS"
    run(config)
    assert aws.wait_until_ended(job, config)["status"] == "SUCCEEDED"
    assert aws.shadow(config)["firmware"]["version"] == "2.1.0"


def test_a_bad_image_reverts_itself_and_the_way_back_is_open(
    aws: LocalAws, run: Callable[..., Device]
) -> None:
    config = aws.create_device("bad-image")
    run(config)
    good = image("2.1.0")
    assert aws.wait_until_ended(aws.release([config], good), config)["status"] == "SUCCEEDED"
    end = aws.wait_until_ended(
        aws.release([config], image("2.3.0", "fail"), version="2.3.0"), config
    )
    assert (end["status"], end["reason"], end["version"]) == ("FAILED", "self-test failed", "2.1.0")
    assert aws.shadow(config)["firmware"]["version"] == "2.1.0"
    way_back = aws.wait_until_ended(aws.release([config], good, downgrade=True), config)
    assert (way_back["status"], way_back["reason"]) == ("SUCCEEDED", "already installed")
    assert aws.shadow(config)["firmware"]["sequence"] == aws.sequence


def test_a_rollback_installs_the_older_image_and_its_document_is_refused_when_replayed(
    aws: LocalAws, run: Callable[..., Device]
) -> None:
    config = aws.create_device("rollback")
    run(config)
    for version, downgrade in (("2.2.0", False), ("2.1.0", True), ("2.4.0", False)):
        job = aws.release([config], image(version), version=version, downgrade=downgrade)
        assert aws.wait_until_ended(job, config)["status"] == "SUCCEEDED"
        if downgrade:
            rollback = aws.iot.get_job_document(jobId=job)["document"]
    end = aws.wait_until_ended(aws.job([config], rollback), config)
    assert (end["status"], end["reason"]) == ("FAILED", "other job")
    stale = aws.release([config], image("2.1.0"), sequence=1, downgrade=True)
    end = aws.wait_until_ended(stale, config)
    assert (end["status"], end["reason"]) == ("REJECTED", "stale sequence")
    assert aws.shadow(config)["firmware"]["version"] == "2.4.0"


def test_an_image_tampered_with_or_truncated_in_s3_is_refused(
    aws: LocalAws, run: Callable[..., Device]
) -> None:
    config = aws.create_device("tampered")
    run(config)
    content = image("2.1.0")
    for stored, reason in (
        (content[:-1] + b"!", "wrong digest"),
        (content[:-1], "wrong size"),
        (content + b"!", "wrong size"),
    ):
        end = aws.wait_until_ended(aws.release([config], content, stored), config)
        assert (end["status"], end["reason"], end["version"]) == ("FAILED", reason, FACTORY[0])


def test_a_release_for_others_or_by_others_is_refused(
    aws: LocalAws, run: Callable[..., Device]
) -> None:
    config = aws.create_device("refuses")
    run(config)
    content = image("2.1.0")
    assert (
        aws.wait_until_ended(aws.release([config], content, hardware="gateway-b2"), config)[
            "status"
        ]
        == "REJECTED"
    )
    assert (
        aws.wait_until_ended(aws.release([config], content, channel="beta"), config)["reason"]
        == "other channel"
    )
    channel_key, aws.key = aws.key, aws.create_key()
    try:
        end = aws.wait_until_ended(aws.release([config], content), config)
    finally:
        aws.key = channel_key
    assert (end["status"], end["reason"]) == ("FAILED", "bad signature")


@pytest.mark.parametrize("change", [{"contract": 2}, {"crit": ("channel", "refuses")}])
def test_a_statement_that_the_device_cannot_read_is_rejected(
    aws: LocalAws, run: Callable[..., Device], change: dict[str, Any]
) -> None:
    config = aws.create_device(f"older-{'-'.join(change)}")
    run(config)
    end = aws.wait_until_ended(aws.release([config], image("2.1.0"), **change), config)
    assert (end["status"], end["reason"]) == ("REJECTED", "contract not understood")


@pytest.mark.parametrize(
    "document",
    ["7", '"text"', "[]", '{"a": 1, "a": 2}', "[" * 20 + "]" * 20, "[" * 900 + "]" * 900],
    ids=["a number", "a text", "a list", "a key twice", "deep", "deeper"],
)
def test_a_document_that_is_none_fails_and_the_next_job_is_taken(
    aws: LocalAws, run: Callable[..., Device], document: str
) -> None:
    config = aws.create_device(f"reads-{len(document)}")
    run(config)
    bad = aws.job([config], document)
    good = aws.release([config], image("2.1.0"))
    wait_for("the bad one's end", lambda: aws.execution(bad, config)["status"] == "FAILED", 60)
    assert aws.execution(bad, config)["reason"] == "bad document"
    assert aws.wait_until_ended(good, config)["status"] == "SUCCEEDED"


def test_a_job_cancelled_in_mid_update_is_dropped_and_the_next_one_taken(
    aws: LocalAws, run: Callable[..., Device]
) -> None:
    config = aws.create_device("cancelled")
    notices: list[str] = []
    run(
        config,
        faults=Faults(seconds_per_step=0.3),
        on_progress=lambda _, text: notices.append(text),
    )
    job = aws.release([config], image("2.1.0"))
    wait_for(
        "the download to begin", lambda: aws.execution(job, config).get("step") == "downloading"
    )
    aws.iot.cancel_job(jobId=job, force=True)
    after = aws.release([config], image("2.2.0"), version="2.2.0")
    assert aws.wait_until_ended(after, config)["status"] == "SUCCEEDED"
    assert aws.execution(job, config)["status"] == "CANCELED"
    assert f"{job} ended meanwhile: CANCELED" in notices
    assert not any("2.1.0: rebooting" in text for text in notices)


def test_a_lost_connection_comes_back_and_the_job_made_meanwhile_is_found(
    aws: LocalAws, run: Callable[..., Device]
) -> None:
    config = aws.create_device("lost")
    with Cable(aws.mqtt_port) as cable:
        run(replace(config, port=cable.port))
        wait_for("the first connection", lambda: has_reported(aws, config, FACTORY[0]))
        cable.pull()
        job = aws.release([config], image("2.1.0"))
        time.sleep(0.5)
        assert aws.execution(job, config)["status"] == "QUEUED"
        cable.plug()
        assert aws.wait_until_ended(job, config)["status"] == "SUCCEEDED"


class Cable:
    """A TCP relay to the broker that can be pulled out."""

    def __init__(self, broker_port: int) -> None:
        self._broker_port = broker_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._plugged = True
        self._ends: list[socket.socket] = []

    def __enter__(self) -> Cable:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def plug(self) -> None:
        self._plugged = True

    def pull(self) -> None:
        self._plugged = False
        for end in self._ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                end.close()
        self._ends.clear()

    def _accept(self) -> None:
        while True:
            try:
                device_end, _ = self._listener.accept()
            except OSError:
                return
            if not self._plugged:
                device_end.close()
                continue
            broker_end = socket.create_connection(("127.0.0.1", self._broker_port))
            self._ends += [device_end, broker_end]
            for source, sink in ((device_end, broker_end), (broker_end, device_end)):
                threading.Thread(target=_relay, args=(source, sink), daemon=True).start()


def _relay(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        sink.close()
