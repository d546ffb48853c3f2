"""The shapes that docs/existing-agents.md shows are those that the agents read: validators in our
own words, from aws-iot-device-client 2e20e21 (source/jobs) and Jobs-for-AWS-IoT-embedded-sdk
f092329 (source/otaJobParser)."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.settings import read
from components.stack_file import ROOT
from rollout.job_document import OPERATION, artifact_url, job_document
from tests.unit.test_settings import VALID, texts

PAGE = (ROOT / "docs/existing-agents.md").read_text()
EXAMPLES: dict[str, Any] = {
    name: yaml.safe_load(text)["documentExtra"]
    for name, text in re.findall(r"<!-- example: ([\w-]+) -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
}
PRESIGNED = (
    "https://b.s3.us-east-1.amazonaws.com/firmware/2.1.0/ab.bin?versionId=v&X-Amz-Signature=1"
)
SIGNATURE = base64.b64encode(bytes(72)).decode()


class Unread(Exception):
    """The agent does not take the document."""


def document(extra: dict[str, Any]) -> dict[str, Any]:
    """What a device is given: checked as a stack file's, filled in, its URL presigned."""
    values = copy.deepcopy(VALID) | {"fleet": {**VALID["fleet"], "devices": 0}}
    values["rollout"] = {"documentExtra": extra}
    values["firmware"] = {
        "version": "2.1.0",
        "image": "s3://images/2.1.0.bin",
        "sha256": "ab" * 32,
        "size": 1_843_200,
    }
    manifest = read(texts(values)).manifest
    url = artifact_url("b", "us-east-1", "amazonaws.com", manifest.firmware.key, "v")
    made = job_document("a.b.c", url, manifest.firmware, manifest.document_extra, SIGNATURE)
    return dict(json.loads(re.sub(r"\$\{aws:iot:s3-presigned-url-v2:[^}]+\}", PRESIGNED, made)))


# AWS IoT Device Client


@dataclass(frozen=True)
class Step:
    """What the client runs: the file in its folder of handlers, and what it gives to it."""

    handler: str
    arguments: list[str]


def text(found: dict[str, Any], key: str) -> str:
    value = found.get(key)
    return value if isinstance(value, str) else ""


def read_by_device_client(job: dict[str, Any]) -> list[Step]:
    """PlainJobDocument::LoadFromJobDocument and Validate, then JobEngine's handler steps; raises
    Unread where the client answers REJECTED."""
    if not text(job, "version"):
        if not text(job, "operation"):
            raise Unread("no steps")
        return [_handler({**job, "handler": job["operation"]}, "")]
    if job["version"] != "1.0":
        raise Unread("a version of the schema that its README does not have")
    steps = job.get("steps")
    if not isinstance(steps, list) or not steps:
        raise Unread("no steps")
    return [_action(step["action"]) for step in steps if "action" in step]


def _action(action: dict[str, Any]) -> Step:
    if not text(action, "name"):
        raise Unread("a step without name")
    if action.get("type") != "runHandler":  # runCommand is not shown
        raise Unread("another type of step")
    return _handler(action.get("input", {}), text(action, "runAsUser"))


def _handler(given: dict[str, Any], user: str) -> Step:
    if not text(given, "handler"):
        raise Unread("no handler")
    if given.get("path") != "default":
        raise Unread("not in the folder of handlers")
    arguments = given.get("args", [])
    if not all(isinstance(one, str) for one in arguments):
        raise Unread("an argument that is no text")
    return Step(given["handler"], [user, *arguments])


GIVEN = [PRESIGNED, "ab" * 32, "2.1.0", "gateway-a1"]


def test_the_new_schema_runs_the_handler_with_the_image_s_address_and_digest() -> None:
    job = document(EXAMPLES["device-client-new"])
    assert read_by_device_client(job) == [Step("install-firmware.sh", ["root", *GIVEN])]


def test_the_old_schema_runs_the_handler_that_is_called_like_our_operation() -> None:
    job = document(EXAMPLES["device-client-old"])
    assert read_by_device_client(job) == [Step(OPERATION, ["", *GIVEN])]


@pytest.mark.parametrize(
    "change",
    [
        lambda extra: extra["steps"][0]["action"].pop("name"),
        lambda extra: extra["steps"][0]["action"].update(type="runScript"),
        lambda extra: extra["steps"][0]["action"]["input"].update(args=["{size}"]),
        lambda extra: extra.update(version="2.0"),
        lambda extra: extra.update(steps=[]),
    ],
    ids=["no name", "other type", "a number", "other version", "no steps"],
)
def test_what_the_client_would_reject_is_told_apart(
    change: Callable[[dict[str, Any]], object],
) -> None:
    extra = copy.deepcopy(EXAMPLES["device-client-new"])
    change(extra)
    with pytest.raises(Unread):
        read_by_device_client(document(extra))


# FreeRTOS OTA


def read_by_freertos(job: dict[str, Any]) -> list[dict[str, Any]]:
    """otaParser_parseJobDocFile over HTTP, file by file; raises Unread where it gives none."""
    if "afr_ota" not in job:
        raise Unread("no OTA job")
    ota = job["afr_ota"]
    if "HTTP" not in ota.get("protocols", []):
        raise Unread("not over HTTP")
    files = ota.get("files", [])
    if not 1 <= len(files) <= 10:
        raise Unread("its index has one digit")
    for file in files:
        for key in ("filesize", "fileid", *(["fileType"] if "fileType" in file else [])):
            value = file.get(key)
            if not re.fullmatch(r"\d+", json.dumps(value)) or not 0 <= value < 2**32:
                raise Unread(f"{key} is no whole number of 32 bits")
        for key in ("filepath", "certfile", "sig-sha256-ecdsa", "auth_scheme", "update_data_url"):
            if key not in file or '"' in json.dumps(file[key])[1:-1]:
                raise Unread(f"{key} is missing, or escaped: the parser takes texts as they stand")
        if not file["update_data_url"]:
            raise Unread("no address")
    return list(files)


def test_the_parser_of_freertos_finds_every_field() -> None:
    assert read_by_freertos(document(EXAMPLES["freertos-ota"])) == [
        {
            "filesize": 1_843_200,
            "fileid": 0,
            "filepath": "firmware.bin",
            "certfile": "image.crt",
            "sig-sha256-ecdsa": SIGNATURE,
            "auth_scheme": "aws.s3.presigned",
            "update_data_url": PRESIGNED,
            "fileType": 0,
        }
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [("filesize", "{size} bytes"), ("fileid", -1), ("update_data_url", ""), ("certfile", None)],
)
def test_what_the_parser_would_not_take_is_told_apart(key: str, value: Any) -> None:
    extra = copy.deepcopy(EXAMPLES["freertos-ota"])
    extra["afr_ota"]["files"][0][key] = value
    if value is None:
        del extra["afr_ota"]["files"][0][key]
    with pytest.raises((Unread, TypeError)):
        read_by_freertos(document(extra))


def test_the_page_shows_one_of_each() -> None:
    assert set(EXAMPLES) == {"device-client-new", "device-client-old", "freertos-ota"}


# The handler that the page shows


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A Linux device: what it is, what it runs, and a curl that fetches from a file."""
    (tmp_path / "hardware").write_text("gateway-a1\n")
    (tmp_path / "version").write_text("2.0.0\n")
    handler = re.search(r"```sh\n(#!/bin/sh\n# install-firmware.*?)```", PAGE, re.DOTALL)
    assert handler
    for name, script in (
        ("install-firmware.sh", handler[1]),
        ("install", f'#!/bin/sh\ncp "$1" {tmp_path}/image && echo "$2" > {tmp_path}/version\n'),
        (
            "curl",
            '#!/bin/sh\nfor last; do :; done\nwhile [ "$1" != --output ]; do shift; done\n'
            'cp "$last" "$2"\n',
        ),
    ):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o700)
    (tmp_path / "served").write_bytes(b"an image")
    return tmp_path


def run_handler(device: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    arguments = {
        "user": "root",
        "url": str(device / "served"),
        "sha256": hashlib.sha256(b"an image").hexdigest(),
        "version": "2.1.0",
        "hardware": "gateway-a1",
    } | changes
    sha256sum = shutil.which("sha256sum")
    assert sha256sum, "a Linux device has it"
    return subprocess.run(
        [device / "install-firmware.sh", *arguments.values()],
        env={"PATH": f"{device}{os.pathsep}/usr/bin{os.pathsep}/bin", "DEVICE": str(device)},
        capture_output=True,
        text=True,
    )


def test_the_handler_installs_what_has_the_right_digest(device: Path) -> None:
    done = run_handler(device)
    assert (done.returncode, done.stderr) == (0, "")
    assert (device / "image").read_bytes() == b"an image"
    assert (device / "version").read_text() == "2.1.0\n"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sha256": "0" * 64}, "other SHA-256"),
        ({"hardware": "gateway-b2"}, "for gateway-b2"),
        ({"url": "/nowhere"}, "nowhere"),
    ],
)
def test_the_handler_fails_rather_than_install_what_is_not_meant(
    device: Path, changes: dict[str, str], says: str
) -> None:
    done = run_handler(device, **changes)
    assert done.returncode != 0
    assert says in done.stderr
    assert not (device / "image").exists()


def test_a_job_that_comes_again_is_done_at_once(device: Path) -> None:
    (device / "version").write_text("2.1.0\n")
    done = run_handler(device, url="/nowhere")
    assert done.returncode == 0
    assert not (device / "image").exists()
