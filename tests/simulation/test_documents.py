"""What the controller puts beside its own keys into job documents, for agents that are there
already."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from rollout.job_document import parse_statement
from rollout.names import ROLLBACK
from rollout.release import Manifest
from rollout.state import Phase
from tests.fake_aws import refusal
from tests.simulation.test_controller import once, release, run
from tests.simulation.test_decide import manifest
from tests.simulation.world import NAMES, World, firmware
from tests.simulation.world_aws import IMAGE_KEY, KEY, OTHER_KEY, WorldAws

EXTRA = {"update": {"at": "{url}", "version": "{version}", "bytes": "{size}", "token": "{release}"}}
SIGNED = {"afr_ota": {"files": [{"sig-sha256-ecdsa": "{imageSignature}", "filesize": "{size}"}]}}


def made(extra: dict[str, Any] | None = EXTRA, version: str = "1.1.0") -> WorldAws:
    """A fleet on the way to its first release, with these extra keys."""
    return WorldAws(World(manifest(version, document_extra=extra), 30))


def with_extra(version: str, extra: dict[str, Any] | None) -> Manifest:
    return manifest(version, document_extra=extra)


def jobs(aws: WorldAws, ring: str, version: str) -> list[str]:
    return [
        name
        for name, job in aws.world.jobs.items()
        if job.offer.ring == ring and str(job.offer.firmware.version) == version
    ]


def test_the_extra_keys_say_what_the_signed_statement_says() -> None:
    aws = made()
    once(aws)
    (job,) = jobs(aws, "canary", "1.1.0")
    document = aws.documents[job]
    claims = parse_statement(document["release"])
    assert document["update"] == {
        "at": document["url"],
        "version": str(claims.version),
        "bytes": claims.size,
        "token": document["release"],
    }
    assert type(document["update"]["bytes"]) is int


def test_a_way_back_and_what_joiners_get_carry_them_too() -> None:
    aws = made()
    run(aws, 25)
    assert aws.world.versions() == {"1.1.0"}
    aws.world.bad = {"1.2.0"}
    release(aws, with_extra("1.2.0", EXTRA))
    run(aws, 20)
    (back,) = jobs(aws, ROLLBACK, "1.1.0")
    assert aws.documents[back]["update"]["version"] == "1.1.0"
    kept = jobs(aws, "canary", "1.1.0")[-1]
    assert aws.documents[kept]["update"]["version"] == "1.1.0"


@pytest.mark.parametrize("is_refused", [False, True])
def test_the_newest_manifest_that_was_read_says_what_agents_read(is_refused: bool) -> None:
    """It says what the fleet's agents are, not what a release is."""
    aws = made(None)
    run(aws, 25)
    aws.world.bad = {"1.2.0"}
    release(aws, with_extra("1.2.0", EXTRA))
    run(aws, 1)
    if is_refused:
        aws.digest = "0" * 64  # a deployment that never got to its manifest
    run(aws, 20)
    (back,) = jobs(aws, ROLLBACK, "1.1.0")
    assert aws.documents[back]["update"]["version"] == "1.1.0"


def test_without_them_a_document_is_what_it_was() -> None:
    aws = made(None)
    once(aws)
    (job,) = jobs(aws, "canary", "1.1.0")
    assert list(aws.documents[job]) == ["operation", "release", "url"]
    assert "documentExtra" not in aws.state


def test_a_job_with_extra_keys_is_the_channel_s_own() -> None:
    """It is known again by its signed statement, also where the state has never heard of it."""
    aws = made(SIGNED)
    aws.image_key = IMAGE_KEY
    once(aws)
    (job,) = jobs(aws, "canary", "1.1.0")
    unknown = aws.channel().unknown_jobs([job], ())
    assert (unknown.foreign, [stray.job for stray in unknown.strays]) == (frozenset(), [job])
    forged = "0123abcd-stable-canary-1999999999"
    aws.documents[forged] = {**aws.documents[job], "afr_ota": {"files": []}}
    aws.world.jobs[forged] = replace(aws.world.jobs[job])
    assert aws.channel().unknown_jobs([forged], ()).foreign == {forged}


# Signatures of images


def verify(aws: WorldAws, document: dict[str, Any], version: str) -> None:
    """As an agent does, with the public key in its certificate. Raises InvalidSignature."""
    signature = base64.b64decode(document["afr_ota"]["files"][0]["sig-sha256-ecdsa"], validate=True)
    aws.private_keys[IMAGE_KEY].public_key().verify(
        signature,
        bytes.fromhex(firmware(version).sha256),
        ec.ECDSA(Prehashed(hashes.SHA256())),
    )


def test_every_offer_holds_the_signature_of_its_own_image() -> None:
    aws = made(SIGNED)
    aws.image_key = IMAGE_KEY
    run(aws, 25)
    aws.world.bad = {"1.2.0"}
    release(aws, with_extra("1.2.0", SIGNED))
    run(aws, 20)
    (back,) = jobs(aws, ROLLBACK, "1.1.0")
    (bad,) = jobs(aws, "canary", "1.2.0")
    verify(aws, aws.documents[back], "1.1.0")
    verify(aws, aws.documents[bad], "1.2.0")
    with pytest.raises(InvalidSignature):
        verify(aws, aws.documents[bad], "1.1.0")


def test_the_image_key_signs_images_and_the_channel_s_key_everything_else() -> None:
    aws = made(SIGNED)
    aws.image_key = IMAGE_KEY
    once(aws)
    (job,) = jobs(aws, "canary", "1.1.0")
    signature = base64.b64decode(aws.documents[job]["afr_ota"]["files"][0]["sig-sha256-ecdsa"])
    for key in (KEY, OTHER_KEY):
        with pytest.raises(InvalidSignature):
            aws.private_keys[key].public_key().verify(
                signature,
                bytes.fromhex(firmware("1.1.0").sha256),
                ec.ECDSA(Prehashed(hashes.SHA256())),
            )


def test_where_nobody_asks_for_a_signature_none_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aws = made(EXTRA)
    aws.image_key = IMAGE_KEY
    signed: list[str] = []
    real = WorldAws.do_sign

    def sign(self: WorldAws, **how: Any) -> Any:
        signed.append(how["KeyId"])
        return real(self, **how)

    monkeypatch.setattr(WorldAws, "do_sign", sign)
    run(aws, 5)
    assert set(signed) == {KEY}


def test_a_signature_that_cannot_be_made_keeps_back_that_offer_only() -> None:
    """Between two deployments the function may have no key yet; the next run makes the job."""
    aws = made(SIGNED)
    answer = once(aws)
    assert answer["outcome"] == "failed"
    assert "{imageSignature}, and there is no key" in answer["failed"][0]
    assert jobs(aws, "canary", "1.1.0") == []
    assert aws.state["offers"][0]["phase"] == Phase.MAKING
    aws.image_key = IMAGE_KEY
    assert once(aws)["outcome"] == "done"
    (job,) = jobs(aws, "canary", "1.1.0")
    verify(aws, aws.documents[job], "1.1.0")
    assert NAMES.job_sequence(job) == aws.state["offers"][0]["sequence"]


def test_kms_that_refuses_to_sign_the_image_is_told_and_asked_again() -> None:
    aws = made(SIGNED)
    aws.image_key = IMAGE_KEY
    refuse = {"on": True}

    def fault(_number: int, name: str, effect: Any) -> Any:
        if name == "sign" and refuse["on"] and aws.made.count("sign") == 2:
            raise refusal("DisabledException", "Sign")
        return effect()

    aws.fault = fault
    answer = once(aws)
    assert "DisabledException" in json.dumps(answer["failed"])
    assert jobs(aws, "canary", "1.1.0") == []
    refuse["on"] = False
    assert once(aws)["outcome"] == "done"
    assert len(jobs(aws, "canary", "1.1.0")) == 1
