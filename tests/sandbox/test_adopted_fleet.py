"""A fleet that runs something already, with agents that read keys of their own, on the deployed
stack: its first release is bad, and whoever began it goes back to what was adopted."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from firmware.make_sample import image
from ops.image_certificate import image_certificate
from ops.stack import Access
from rollout.codec import sha256_hex
from rollout.names import ROLLBACK, Variable, image_key
from sandbox import session
from tests.sandbox.conftest import free_instance
from tests.sandbox.fleet import CANARY, FACTORY, HARDWARE, IMAGES, Fleet, refused, wait_for

BAD, GOOD = "2.1.0", "2.2.0"
EXTRA = {"agent": {"from": "{url}", "bytes": "{size}", "signature": "{imageSignature}"}}
FACTORY_IMAGE = image(FACTORY, HARDWARE, "pass")


class AdoptingFleet(Fleet):
    def ship(
        self,
        version: str,
        *,
        bad: bool = False,
        gates: Mapping[str, Any] | None = None,
        **rollout: Any,
    ) -> str:
        self.client("s3").put_object(
            Bucket=IMAGES, Key=FACTORY, Body=FACTORY_IMAGE, ChecksumAlgorithm="SHA256"
        )
        more = {**rollout, "documentExtra": EXTRA}
        return super().ship(version, bad=bad or version == BAD, gates=gates, **more)

    def _overrides(
        self, version: str, content: bytes, gates: Mapping[str, Any], rollout: dict[str, Any]
    ) -> dict[str, Any]:
        made = super()._overrides(version, content, gates, rollout)
        made["iot-ota:fleet"]["adopted"] = {
            "version": FACTORY,
            "image": f"s3://{IMAGES}/{FACTORY}",
            "sha256": sha256_hex(FACTORY_IMAGE),
            "size": len(FACTORY_IMAGE),
        }
        return made


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdoptingFleet]:
    """The stack with five devices on their factory firmware, and a bad first release."""
    instance = free_instance(tmp_path_factory.mktemp("adopted") / "sandbox")
    try:
        fleet = AdoptingFleet(instance)
        yield fleet
        fleet.disconnect()
    finally:
        session.down(instance)


def document_of(fleet: Fleet, job: str, serial: str) -> dict[str, Any]:
    """What IoT gives a device that asks for its job: the addresses are presigned."""
    answer = fleet.client("iot-jobs-data").describe_job_execution(
        jobId=job, thingName=fleet.thing(serial), includeJobDocument=True
    )
    return dict(json.loads(answer["execution"]["jobDocument"]))


def test_a_first_release_goes_back_to_what_was_adopted_by_documents_that_agents_read(
    fleet: AdoptingFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    state = fleet.until(
        "the factory firmware to be adopted",
        lambda s: s.is_adopted and [o for o in s.offers if o.seen],
    )
    assert {offer.ring for offer in state.offers} == {"canary"}, "nobody is offered what it runs"
    job = fleet.job("canary")
    given = wait_for("the execution", lambda: document_of(fleet, job, CANARY[0]))
    content = image(BAD, HARDWARE, "fail")
    with urllib.request.urlopen(given["agent"]["from"], timeout=10) as answer:
        assert answer.read() == content, "a second address, presigned like ours"
    assert given["agent"]["bytes"] == len(content)

    access = Access(stack=fleet.sandbox.stack, channel=fleet.sandbox.channel, caller="a test")
    image_certificate(access, 30)
    certificate = x509.load_pem_x509_certificate(capsys.readouterr().out.encode())
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(
        base64.b64decode(given["agent"]["signature"]),
        bytes.fromhex(sha256_hex(content)),
        ec.ECDSA(Prehashed(hashes.SHA256())),
    )

    fleet.connect()
    state = fleet.went_back(BAD)
    assert sha256_hex(content) in refused(state)
    assert set(fleet.runs().values()) == {FACTORY}
    assert fleet.brought_back(state) == CANARY
    assert {fleet.jobs()[name] for name in fleet.jobs() if "-canary-" in name} == {"CANCELED"}
    kept = fleet.client("iot").get_job_document(jobId=fleet.job(ROLLBACK))["document"]
    back = json.loads(kept)["agent"]
    assert image_key(FACTORY, sha256_hex(FACTORY_IMAGE)) in back["from"]
    assert back["bytes"] == len(FACTORY_IMAGE)
    key.verify(
        base64.b64decode(back["signature"]),
        bytes.fromhex(sha256_hex(FACTORY_IMAGE)),
        ec.ECDSA(Prehashed(hashes.SHA256())),
    )
    assert state.is_adopted
    assert [offer for offer in state.offers if offer.aim == "keep"] == []


def test_the_next_release_reaches_everybody_and_is_the_first_good_one(
    fleet: AdoptingFleet,
) -> None:
    fleet.connect()
    state = fleet.release(GOOD)
    assert set(fleet.runs().values()) == {GOOD}
    assert not state.is_adopted
    assert str(state.previous_good and state.previous_good.version) == FACTORY


def test_only_the_controller_signs_images(fleet: AdoptingFleet) -> None:
    function = fleet.sandbox.outputs["controllerName"]
    variables = fleet.client("lambda").get_function_configuration(FunctionName=function)
    key = variables["Environment"]["Variables"][Variable.IMAGE_KEY_ARN]
    assert key == fleet.sandbox.stack.image_key_arn
    assert key not in fleet.sandbox.stack.signing_key_arns
    policy = json.loads(
        fleet.client("kms").get_key_policy(KeyId=key, PolicyName="default")["Policy"]
    )
    signers = [s["Principal"] for s in policy["Statement"] if "kms:Sign" in s["Action"]]
    (signer,) = signers
    assert signer["AWS"].endswith(f"role/{function}")
