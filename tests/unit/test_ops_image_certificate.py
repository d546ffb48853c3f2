"""The certificate that an agent verifies images with: it holds the image key, and names its use."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

import ops.main
import ops.stack
from cloud.signer import Signer
from ops.errors import OpsError
from ops.image_certificate import make_image_certificate
from rollout.names import StackOutput
from tests.unit.ops_cloud import OpsAws
from tests.unit.test_ops_stack import OUTPUTS

IMAGE_KEY = "arn:aws:kms:eu-west-1:111122223333:key/images"
NOW = datetime(2026, 12, 1, 2, tzinfo=UTC)


def der(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> OpsAws:
    made = OpsAws()
    made.image_key = IMAGE_KEY
    made.private_keys[IMAGE_KEY] = ec.generate_private_key(ec.SECP256R1())
    monkeypatch.setattr(ops.stack, "_connect", lambda _stack: made.channel().clients)
    return made


def saved(folder: Path, **more: object) -> str:
    file = folder / "outputs.json"
    file.write_text(json.dumps({**OUTPUTS, **more}))
    return str(file)


def test_it_verifies_what_the_controller_signs(
    aws: OpsAws, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = saved(tmp_path, **{StackOutput.IMAGE_KEY_ARN: IMAGE_KEY})
    assert ops.main.main(["image-certificate", "--outputs", outputs, "--days", "90"]) == 0
    said = capsys.readouterr()
    certificate = x509.load_pem_x509_certificate(said.out.encode())
    digest = "ab" * 32
    signature = base64.b64decode(
        Signer(aws.channel().clients, aws.keys, IMAGE_KEY).sign_image(digest)
    )
    held = certificate.public_key()
    assert isinstance(held, ec.EllipticCurvePublicKey)
    prehashed = ec.ECDSA(Prehashed(hashes.SHA256()))
    held.verify(signature, bytes.fromhex(digest), prehashed)
    with pytest.raises(InvalidSignature):
        held.verify(signature, bytes(32), prehashed)
    until = datetime.now(UTC) + timedelta(days=90)
    assert f"valid until {until:%Y-%m-%d}" in said.err
    assert IMAGE_KEY in said.err


def test_it_is_for_signing_code_and_nothing_else() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    made = make_image_certificate(der(key), "f" * 80, NOW, 3650)
    usage = made.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not usage.value.key_agreement
    extended = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(extended) == [ExtendedKeyUsageOID.CODE_SIGNING]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert (made.not_valid_before_utc, made.not_valid_after_utc) == (
        NOW - timedelta(days=1),
        NOW + timedelta(days=3650),
    )


def test_the_key_that_issues_it_is_none_that_anybody_has() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    first, second = (make_image_certificate(der(key), "images", NOW, 1) for _ in range(2))
    assert first.public_key() == second.public_key() == key.public_key()
    assert first.serial_number != second.serial_number
    assert first.subject != first.issuer
    for made in (first, second):
        assert made.signature_hash_algorithm is not None
        with pytest.raises(InvalidSignature):
            key.public_key().verify(
                made.signature, made.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256())
            )


def test_openssl_reads_it(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl")
    made = make_image_certificate(der(ec.generate_private_key(ec.SECP256R1())), "images", NOW, 1)
    file = tmp_path / "image.crt"
    file.write_bytes(made.public_bytes(Encoding.PEM))
    shown = subprocess.run(
        [openssl, "x509", "-in", file, "-noout", "-text"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Code Signing" in shown
    assert "Digital Signature" in shown
    assert "prime256v1" in shown


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(public_exponent=65_537, key_size=2048),
    ],
    ids=["P-384", "RSA"],
)
def test_another_kind_of_key_is_refused(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> None:
    with pytest.raises(OpsError, match="none of ECC_NIST_P256"):
        make_image_certificate(der(key), "images", NOW, 1)


def test_a_channel_that_signs_no_images_says_so(
    aws: OpsAws, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ops.main.main(["image-certificate", "--outputs", saved(tmp_path)]) == 1
    assert "rollout.documentExtra has no {imageSignature}" in capsys.readouterr().err


@pytest.mark.parametrize("days", ["0", "36501", "long"])
def test_how_long_it_is_valid_is_bounded(days: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ops.main.main(["image-certificate", "--sandbox", "--days", days])
    assert "--days" in capsys.readouterr().err
