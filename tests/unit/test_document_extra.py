"""Keys beside ours in a job document: filled in exactly, bounded, and trusted by no device of
ours."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.document_extra import (
    EXTRA_PLACEHOLDERS,
    fill_extra,
    find_wrong_brace,
    list_texts,
    needs_image_signature,
)
from rollout.job_document import (
    MAX_DOCUMENT,
    artifact_url,
    count_substitutions,
    job_document,
    longest_document,
    release_statement,
)
from rollout.jws import RELEASE_TYPE, signing_input
from rollout.release import Firmware
from rollout.version import Version

FIRMWARE = Firmware(version=Version("2.1.0"), sha256="ab" * 32, size=65_536, hardware="gateway-a1")
VALUES: dict[str, str | int] = {
    "release": "a.b.c",
    "url": "https://b/k",
    "version": "2.1.0",
    "sha256": "ab" * 32,
    "size": 65_536,
    "imageSignature": "MEUC",
}
plain = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"]), max_size=20)
leaves = st.none() | st.booleans() | st.integers() | plain
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3)
)


@pytest.mark.parametrize(
    ("given", "filled"),
    [
        ("{size}", 65_536),
        ("{size} bytes", "65536 bytes"),
        (" {size}", " 65536"),
        ("{version}", "2.1.0"),
        ("{version}-{sha256}", f"2.1.0-{'ab' * 32}"),
        ("{{size}}", "{size}"),
        ("{{{size}}}", "{65536}"),
        ('{{"url": "{url}"}}', '{"url": "https://b/k"}'),
        ("{imageSignature}", "MEUC"),
        (["{release}", 7, None, True, 1.5], ["a.b.c", 7, None, True, 1.5]),
        ({"{size}": {"deep": ["{size}"]}}, {"{size}": {"deep": [65_536]}}),
    ],
)
def test_a_placeholder_becomes_its_value_and_alone_keeps_its_kind(given: Any, filled: Any) -> None:
    found = fill_extra(given, VALUES)
    assert found == filled
    assert type(found) is type(filled)


@given(values)
def test_what_holds_no_brace_stays_as_it_is(value: Any) -> None:
    assert fill_extra(value, VALUES) == value
    assert all(find_wrong_brace(one.text) is None for one in list_texts(value))


@given(plain, st.sampled_from(EXTRA_PLACEHOLDERS), plain)
def test_any_text_can_be_written(before: str, name: str, after: str) -> None:
    text = f"{before}{{{name}}}{after}"
    escaped = text.replace("{", "{{").replace("}", "}}")
    assert find_wrong_brace(escaped) is None
    assert fill_extra(escaped, VALUES) == text
    assert str(fill_extra(text, VALUES)) == f"{before}{VALUES[name]}{after}"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{sha}", "{sha}"),
        ("{}", "{}"),
        ("{ size }", "{ size }"),
        ("a { b", "{"),
        ("a } b", "}"),
        ("{size}}", "}"),
        ("{{size}", "}"),
        ("{size:>10}", "{size:>10}"),
        ("{aws:iot:s3-presigned-url:https://x}", "{aws:iot:s3-presigned-url:https://x}"),
        ("{size} {{ok}}", None),
    ],
)
def test_a_brace_that_means_nothing_is_found(text: str, wrong: str | None) -> None:
    assert find_wrong_brace(text) == wrong


def test_places_are_told_as_a_person_finds_them() -> None:
    extra = {"steps": [{"action": {"input": {"args": ["{url}", 1, "x"]}}}], "v": "1.0"}
    assert [one.place for one in list_texts(extra)] == [
        "steps[0].action.input.args[0]",
        "steps[0].action.input.args[2]",
        "v",
    ]


@pytest.mark.parametrize(
    ("extra", "needs"),
    [
        (None, False),
        ({}, False),
        ({"a": ["{size}"]}, False),
        ({"a": "{{imageSignature}}"}, False),
        ({"imageSignature": "x"}, False),
        ({"a": [{"b": "s={imageSignature}"}]}, True),
    ],
)
def test_a_signature_is_made_only_where_it_is_asked_for(extra: Any, needs: bool) -> None:
    assert needs_image_signature(extra) is needs


def test_the_document_holds_the_extra_keys_beside_ours() -> None:
    url = artifact_url("b", "us-east-1", "amazonaws.com", "firmware/k.bin", "v1")
    extra = {
        "version": "1.0",
        "job": {"from": "{url}", "bytes": "{size}", "sig": "{imageSignature}"},
    }
    document = json.loads(job_document("a.b.c", url, FIRMWARE, extra, "MEUC"))
    own = json.loads(job_document("a.b.c", url))
    presigned = own["url"]
    assert presigned == (
        "${aws:iot:s3-presigned-url-v2:https://b.s3.us-east-1.amazonaws.com/firmware/k.bin%3FversionId%3Dv1}"
    )
    assert document == {
        **own,
        "version": "1.0",
        "job": {"from": presigned, "bytes": 65_536, "sig": "MEUC"},
    }
    assert count_substitutions(json.dumps(document)) == 2


@given(
    sequence=st.integers(1, 10**10),
    refuses=st.integers(0, 200),
    region=st.sampled_from(["us-east-1", "us-gov-west-1", "ap-southeast-2"]),
    version=st.sampled_from(["0.0.1", "2.1.0-rc.1", "1.0.0-" + "x" * 58]),
    texts=st.lists(
        st.sampled_from([f"{{{name}}}" for name in EXTRA_PLACEHOLDERS]), max_size=2, unique=True
    ),
)
def test_no_document_is_longer_than_the_longest_one(
    sequence: int, refuses: int, region: str, version: str, texts: list[str]
) -> None:
    extra = {"list": texts} if texts else None
    released = Firmware(
        version=Version(version), sha256="0" * 64, size=5 * 1024**3, hardware="gateway-a1"
    )
    statement = release_statement(
        "stable",
        released,
        sequence,
        downgrade=True,
        job="0a1b2c3d-stable-canary-1764000000",
        refuses=[f"{number:064x}" for number in range(refuses)],
    )
    key = f"arn:aws:kms:{region}:123456789012:key/{'0' * 36}"
    jws = f"{signing_input(RELEASE_TYPE, key, statement)}.{'A' * 86}"
    url = artifact_url(
        "iot-fleet-0a1b2c3d-firmware", region, "amazonaws.com", released.key, "v" * 32
    )
    document = job_document(jws, url, released, extra, "M" * 96)
    assert len(document) <= len(longest_document("stable", FIRMWARE, extra)) <= MAX_DOCUMENT
