"""Which stack a command means, and what it says when something is wrong with the way there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import botocore.exceptions as boto
import pytest

import ops.__main__
from ops.errors import explain
from ops.source import read_outputs
from sandbox.place import Place
from tests.unit.ops_cloud import error

OUTPUTS: dict[str, Any] = {
    "suffix": "0123abcd",
    "region": "eu-west-1",
    "bucketName": "b",
    "channelName": "stable",
    "fleetGroupName": "fleet-0123abcd",
    "signingKeyArns": ["arn:aws:kms:eu-west-1:111122223333:key/abc"],
    "iotEndpoint": "iot.example",
    "alarmNames": {},
    "ringGroupNames": {},
    "deviceNames": {},
}


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 1) -> str:
    assert ops.__main__.main(words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, "one line"
    return captured.err


def test_exactly_one_stack_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    ways = (
        "--stack NAME (asks the Pulumi CLI), --outputs FILE (a saved `pulumi stack output --json`),"
        " or --sandbox"
    )
    assert said(capsys, "status", code=2) == f"status: name exactly one stack: {ways}\n"
    both = said(capsys, "--sandbox", "halt", "--stack", "prod", "--yes", "--why", "x")
    assert both == f"halt: name exactly one stack: {ways}; you named stack and sandbox\n"


@pytest.mark.parametrize("words", [[], ["approve"], ["retry", "--sandbox"], ["reboot"], ["device"]])
def test_a_command_that_is_not_whole_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        ops.__main__.main(words)
    assert refused.value.code == 2
    assert "usage: python -m ops" in capsys.readouterr().err


def test_without_the_cli_the_other_way_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    told = said(capsys, "pause", "--stack", "prod", "--yes", "--why", "x")
    assert "--stack needs the Pulumi CLI" in told
    assert (
        "save `pulumi stack output --json -s prod` where it is installed and pass --outputs FILE"
        in told
    )


def pulumi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A Pulumi CLI that writes down how it was called."""
    command = folder / "pulumi"
    command.write_text(f'#!/bin/sh\necho "$PWD: $*" > {folder}/called\n{script}\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")


def test_the_cli_is_asked_for_the_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pulumi(tmp_path, monkeypatch, f"echo '{json.dumps({**OUTPUTS, 'suffix': None})}'")
    told = said(capsys, "status", "--stack", "o'prod", code=2)
    assert (
        "--stack 'o'\"'\"'prod': these are not the outputs of a deployed stack, they lack suffix:"
        " run `pulumi up`" in told
    )
    root = Path(ops.__main__.__file__).parents[1]
    assert (
        tmp_path / "called"
    ).read_text() == f"{root}: stack output --json --non-interactive -s o'prod\n"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (
            "echo 'error: no stack named prod found' >&2; exit 255",
            "failed: error: no stack named prod found",
        ),
        ("exit 1", "failed: it said nothing"),
        ("echo '{'", "is not JSON"),
        (
            "echo '{}'",
            (
                "they lack suffix, region, bucketName, channelName, fleetGroupName, iotEndpoint,"
                " signingKeyArns, alarmNames"
            ),
        ),
    ],
)
def test_what_the_cli_cannot_tell_is_passed_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str,
    told: str,
) -> None:
    pulumi(tmp_path, monkeypatch, script)
    assert told in said(capsys, "status", "--stack", "prod", code=2)


def test_saved_outputs_must_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot be read: No such file or directory" in said(
        capsys, "status", "--outputs", str(tmp_path / "no.json"), code=2
    )
    (tmp_path / "list.json").write_text("[]")
    assert "these are not the outputs of a deployed stack" in said(
        capsys, "device", "x", "--outputs", str(tmp_path / "list.json")
    )


def test_the_commands_that_are_shown_name_the_stack() -> None:
    assert (
        read_outputs(OUTPUTS, "--outputs out.json").command("resume")
        == "python -m ops resume --outputs out.json"
    )


def test_a_sandbox_that_does_not_run_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SANDBOX_DIR", str(tmp_path / "none"))
    assert f"no sandbox runs in {tmp_path}/none: run `make up` first" in said(
        capsys, "status", "--sandbox", code=2
    )
    place = Place(folder=tmp_path / "dead")
    place.create()
    place.write("outputs.json", json.dumps(OUTPUTS))
    monkeypatch.setenv("SANDBOX_DIR", str(place.folder))
    assert "no sandbox runs in" in said(capsys, "status", "--sandbox", code=2)
    monkeypatch.setenv("SANDBOX_PORT", "http")
    assert "SANDBOX_PORT is 'http': a port is a number from 1 to 65535" in said(
        capsys, "status", "--sandbox", code=2
    )


def test_credentials_that_are_not_there_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "out.json").write_text(json.dumps(OUTPUTS))
    told = said(capsys, "halt", "--outputs", str(tmp_path / "out.json"), "--yes", "--why", "x")
    assert (
        told
        == "halt: no AWS credentials: sign in, or set AWS_PROFILE (Unable to locate credentials)\n"
    )


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (
            error("AccessDeniedException", "DescribeJob", "User x is not"),
            "you need the permission iot:DescribeJob (User x is not)",
        ),
        (error("AccessDenied", "PutObject"), "you need the permission s3:PutObject (no)"),
        (
            error("ForbiddenException", "GetThingShadow"),
            "you need the permission iot:GetThingShadow (no)",
        ),
        (
            error("ExpiredToken", "GetObject", "it expired"),
            "the sign-in to AWS has ended: sign in again (GetObject: it expired)",
        ),
        (
            error("InvalidClientTokenId", "GetCallerIdentity"),
            "AWS does not know these credentials: check AWS_PROFILE",
        ),
        (error("NoSuchBucket", "GetObject"), "are these the outputs of a stack that still stands?"),
        (
            error("ThrottlingException", "ListJobs", "Rate exceeded"),
            "AWS answered ListJobs with ThrottlingException: Rate exceeded",
        ),
        (
            boto.EndpointConnectionError(endpoint_url="https://iot.x"),
            'cannot be reached: Could not connect to the endpoint URL: "https://iot.x"',
        ),
        (boto.ConnectTimeoutError(endpoint_url="https://iot.x"), "AWS cannot be reached"),
        (boto.UnauthorizedSSOTokenError(), "sign in again, for example with `aws sso login`"),
        (
            boto.ProfileNotFound(profile="prod"),
            "AWS cannot be asked: The config profile (prod) could not be found",
        ),
    ],
    ids=lambda value: (
        getattr(value, "operation_name", type(value).__name__)
        if isinstance(value, Exception)
        else ""
    ),
)
def test_an_error_of_aws_says_what_to_do(problem: Any, told: str) -> None:
    assert told in explain(problem)
    assert "\n" not in explain(problem)


def test_an_unreachable_aws_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    (tmp_path / "out.json").write_text(json.dumps(OUTPUTS))
    told = said(capsys, "status", "--outputs", str(tmp_path / "out.json"), code=2)
    assert "AWS cannot be reached: Could not connect to the endpoint URL" in told


def test_the_keyboard_ends_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ops.__main__, "open_source", interrupt)
    assert said(capsys, "halt", code=130) == "interrupted\n"
