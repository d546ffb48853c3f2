"""docs/device-contract.md and its schemas against the code: what a firmware engineer reads there is
what happens."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from device import agent, connection, download, flash, mqtt, rules, strict_json, transfer
from device.rules import load_keys, read_statement, verify_signature
from rollout.codec import camel_case, canonical_json, encode
from rollout.job_document import (
    CONTRACT,
    MAX_DOCUMENT,
    MAX_REFUSES,
    OPERATION,
    ReleaseStatement,
    artifact_url,
    job_document,
)
from rollout.jws import RELEASE_TYPE, STATE_TYPE, b64url_decode, der_signature

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "device-contract.md").read_text()
SCHEMAS = DOCS / "schemas"
EXAMPLES = SCHEMAS / "examples"
NAMES = ["job-document", "release-statement", "status-details", "shadow"]


def schema(name: str) -> Any:
    return json.loads((SCHEMAS / f"{name}.json").read_text())


def example(name: str) -> Any:
    return json.loads((EXAMPLES / name).read_text())


def is_valid(name: str, message: object) -> bool:
    return bool(jsonschema.Draft202012Validator(schema(name)).is_valid(message))


def test_every_schema_is_one_and_has_an_example_that_fits() -> None:
    assert sorted(path.stem for path in SCHEMAS.glob("*.json")) == sorted(NAMES)
    for name in NAMES:
        jsonschema.Draft202012Validator.check_schema(schema(name))
        found = sorted(EXAMPLES.glob(f"{name}*.json"))
        assert found
        for path in found:
            jsonschema.validate(json.loads(path.read_text()), schema(name))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("job-document", {"operation": "reboot"}),
        ("job-document", {"release": "a.b.c"}),
        ("job-document", {"url": "http://firmware.example/image"}),
        ("release-statement", {"sha256": "A" * 64}),
        ("release-statement", {"size": 0}),
        ("release-statement", {"sequence": "1"}),
        ("release-statement", {"version": "v2.1.0"}),
        ("release-statement", {"contract": 0}),
        ("release-statement", {"job": "a job"}),
        ("release-statement", {"crit": ["channel", "channel"]}),
        ("release-statement", {"refuses": ["2.1.0"]}),
        ("status-details", {"step": "thinking"}),
        ("status-details", {"percent": "101"}),
        ("status-details", {"percent": 50}),
        ("status-details", {"detail": "two\nlines"}),
        ("status-details", {"own": "x" * 1025}),
        ("status-details", {"a key": "x"}),
        ("status-details", {f"own{number}": "x" for number in range(9)}),
        ("status-details", {"step": "done"}),
        (
            "shadow",
            {"state": {"reported": {"contract": 1, "firmware": {}, "hardware": "gateway-a1"}}},
        ),
    ],
)
def test_what_a_schema_refuses(name: str, change: dict[str, Any]) -> None:
    message = json.loads(
        min(EXAMPLES.glob(f"{name}*.json"), key=lambda path: "end" in path.stem).read_text()
    )
    assert is_valid(name, message)
    assert not is_valid(name, message | change)


def test_the_statement_schema_names_exactly_the_statement_s_fields() -> None:
    statement = schema("release-statement")
    fields = {
        camel_case(field.name): field.default is dataclasses.MISSING
        for field in dataclasses.fields(ReleaseStatement)
    }
    assert set(statement["properties"]) == set(fields)
    assert set(statement["required"]) == {name for name, required in fields.items() if required}


def test_the_controller_s_job_document_fits_its_schema() -> None:
    key = "firmware/2.1.0+build 1/aa.bin"
    text = job_document(
        example("job-document.json")["release"],
        artifact_url("bucket", "us-east-1", "amazonaws.com", key),
    )
    jsonschema.validate(json.loads(text), schema("job-document"))


def test_the_worked_vector_verifies_and_says_what_is_written() -> None:
    keys = load_keys((EXAMPLES / "public-key.txt").read_text())
    payload = verify_signature(example("job-document.json")["release"], keys)
    assert isinstance(payload, bytes)
    statement = read_statement(payload)
    assert isinstance(statement, ReleaseStatement)
    assert encode(statement) == example("release-statement.json")
    image = (EXAMPLES / "image.bin").read_bytes()
    assert (statement.size, statement.sha256) == (len(image), hashlib.sha256(image).hexdigest())


def test_the_worked_vector_s_steps_are_as_written() -> None:
    token = example("job-document.json")["release"]
    hashed, _, signature = token.rpartition(".")
    header, payload = hashed.split(".")
    raw = b64url_decode(signature)
    key = load_keys((EXAMPLES / "public-key.txt").read_text())[0]
    steps = {
        "header": b64url_decode(header).decode(),
        "payload": b64url_decode(payload).decode(),
        "characters that are hashed": str(len(hashed)),
        "their SHA-256": hashlib.sha256(hashed.encode()).hexdigest(),
        "R": raw[:32].hex(),
        "S": raw[32:].hex(),
        "key, X": f"{key.public_numbers().x:064x}",
        "key, Y": f"{key.public_numbers().y:064x}",
    }
    assert {row[0]: row[1].strip("`") for row in read_table("| Step | Value |")} == steps
    assert steps["payload"] == canonical_json(example("release-statement.json"))
    key.verify(der_signature(raw), hashed.encode(), ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        key.verify(der_signature(raw), hashed.encode() + b"A", ec.ECDSA(hashes.SHA256()))


def test_the_rules_table_has_every_reason_of_the_code_in_its_order() -> None:
    reasons = [row[3].strip("`") for row in read_table("| # | If | Then | `reason` |") if row[3]]
    assert reasons == [
        rules.BAD_DOCUMENT,
        rules.BAD_SIGNATURE,
        rules.BAD_STATEMENT,
        rules.NOT_UNDERSTOOD,
        rules.BAD_STATEMENT,
        rules.OTHER_JOB,
        rules.OTHER_CHANNEL,
        rules.OTHER_HARDWARE,
        "already installed",
        rules.STALE_SEQUENCE,
        rules.BELOW_MINIMUM,
        rules.NEWER_RUNNING,
        download.NO_DOWNLOAD,
        download.WRONG_SIZE,
        download.WRONG_DIGEST,
        flash.SELF_TEST_FAILED,
        "installed",
    ]


def test_names_and_numbers_in_the_text_are_those_of_the_code() -> None:
    for text in (
        f"`{RELEASE_TYPE}`",
        f"`{STATE_TYPE}`",
        f'"operation": "{OPERATION}"',
        f"At most {MAX_DOCUMENT:,} characters",
        f"in {flash.MAX_TRIAL_BOOTS} boots",
        f"up to {flash.MAX_TRIAL_BOOTS} boots",
        f"after {download.MAX_REFUSED_URLS} refused URLs in a row",
        f"after {download.MAX_FRUITLESS_ATTEMPTS} attempts in a row",
        f"no answer in {mqtt.REQUEST_TIMEOUT_SECONDS} s",
        f"This is version {CONTRACT} of the contract",
        f"at most {MAX_REFUSES} of them",
        f"takes URLs of {transfer.MAX_URL:,} characters",
        f"{download.HEAD_SECONDS:.0f} seconds for",
        f"{download.SILENCE_SECONDS:.0f} seconds without a byte",
        f"of more than {strict_json.MAX_DIGITS} digits",
        f"more than {strict_json.MAX_JSON_DEPTH} deep",
        f"more than {strict_json.MAX_JSON_BYTES:,} bytes",
    ):
        assert text in " ".join(TEXT.split()), f"the contract does not say {text}"
    for code in (
        *connection.ENDED_CODES - {"TerminalStateReached"},
        *map(str, connection.RETRY_CODES),
        "VersionMismatch",
    ):
        assert any(
            f"`{code}`" in row[0] for row in read_table("| `code` | What the device does |")
        ), code


def test_the_waits_are_those_of_the_code() -> None:
    reconnect = tuple(millis / 1000 for millis in mqtt.RECONNECT_MILLISECONDS)
    retry = (agent.FIRST_RETRY_SECONDS, agent.MAX_RETRY_SECONDS)
    attempt = (download.FIRST_WAIT_SECONDS, download.MAX_WAIT_SECONDS)
    bounds = [reconnect, retry, (agent.MAX_RETRY_SECONDS, agent.MAX_RETRY_SECONDS), attempt]
    rows = read_table("| Before | First bound | Longest bound |")
    assert [row[1:] for row in rows] == [[f"{bound:g} s" for bound in pair] for pair in bounds]


def test_a_device_understands_the_keys_that_the_contract_says() -> None:
    rows = read_table("| Key | Meaning |")
    listed = {key for row in rows for key in re.findall(r"`(\w+)`", row[0])}
    assert listed == set(schema("release-statement")["properties"])
    assert listed - rules.UNDERSTOOD == {"refuses"}


def test_every_link_in_the_contract_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (DOCS / target).exists(), target
    for name in re.findall(r"`([\w-]+\.(?:txt|bin|json))`", TEXT):
        assert (EXAMPLES / name).exists(), name


def read_table(head: str) -> list[list[str]]:
    """The rows of the table with this head."""
    lines = TEXT.splitlines()
    first = lines.index(head) + 2
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows
