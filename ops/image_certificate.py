"""`image-certificate`: the certificate that an agent verifies signatures of images with.

AWS issues none for a key in KMS, and the key itself signs nothing but images' digests, so a key
issues it that is made for that and thrown away. An agent that keeps the certificate as `certfile`
takes the public key out of it; who issued it proves nothing, and need not.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ops.command import Subparsers
from ops.errors import OpsError
from ops.stack import Access, add_stack_arguments, open_access

DEFAULT_DAYS, MAX_DAYS = 3650, 36_500
"""For how long a certificate is valid; our own numbers. It goes into firmware, and a device whose
certificate has ended may take no update any more."""
EARLY_DAYS = 1
"""So long before now it begins: clocks of devices are slow."""


def add_parser(commands: Subparsers) -> None:
    text = "Print the certificate (PEM) that agents verify images with"
    parser = commands.add_parser(
        "image-certificate", help=text, description=f"{text}: for `certfile` of FreeRTOS OTA."
    )
    add_stack_arguments(parser)
    help_days = f"for how long it is valid, 1 to {MAX_DAYS} ({DEFAULT_DAYS})"
    parser.add_argument("--days", type=_parse_days, default=DEFAULT_DAYS, help=help_days)
    parser.set_defaults(run=lambda args: image_certificate(open_access(args), args.days))


def _parse_days(text: str) -> int:
    days = int(text)
    if not 1 <= days <= MAX_DAYS:
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to {MAX_DAYS}")
    return days


def image_certificate(access: Access, days: int) -> None:
    """Prints the certificate, and beside it what it is. Raises OpsError where the channel signs no
    images."""
    stack = access.stack
    if stack.image_key_arn is None:
        raise OpsError(
            "this channel signs no images: rollout.documentExtra has no {imageSignature} (see"
            " docs/existing-agents.md)"
        )
    answer = access.channel.clients.kms.get_public_key(KeyId=stack.image_key_arn)
    name = f"{stack.fleet_group_name} {stack.channel_name} images"
    now = datetime.now(UTC)
    made = make_image_certificate(bytes(answer["PublicKey"]), name, now, days)
    print(made.public_bytes(Encoding.PEM).decode(), end="")
    print(
        f"The public key of {stack.image_key_arn}, valid until"
        f" {made.not_valid_after_utc:%Y-%m-%d}, issued by a key that is thrown away.",
        file=sys.stderr,
    )


def make_image_certificate(
    public_key: bytes, name: str, now: datetime, days: int
) -> x509.Certificate:
    """A certificate for signing code that holds this public key (DER, as KMS answers it), P-256.

    `name` is its subject's common name: at most 64 characters (RFC 5280, ub-common-name) are taken.
    Each call makes another one, for the same key.
    """
    held = load_der_public_key(public_key)
    if not isinstance(held, ec.EllipticCurvePublicKey) or not isinstance(held.curve, ec.SECP256R1):
        raise OpsError("the image key is none of ECC_NIST_P256")
    issuer = ec.generate_private_key(ec.SECP256R1())

    def named(common_name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])

    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(f"thrown away, for {name}"))
        .public_key(held)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=EARLY_DAYS))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(held), critical=False)
        .sign(issuer, SHA256())
    )
