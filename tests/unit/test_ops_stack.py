"""Which stack a command means, and what it says when something is wrong with the way there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import botocore.exceptions as boto
import pytest
from botocore.config import Config

import ops.main
import ops.stack
from ops import local_aws
from ops.errors import explain
from ops.stack import read_outputs
from rollout.names import StackOutput
from tests.fake_aws import refusal

OUTPUTS: dict[str, Any] = {
    StackOutput.FLEET_NAME: "fleet",
    StackOutput.SUFFIX: "0123abcd",
    StackOutput.REGION: "eu-west-1",
    StackOutput.BUCKET_NAME: "b",
    StackOutput.CHANNEL_NAME: "stable",
    StackOutput.FLEET_GROUP_NAME: "fleet-0123abcd",
    StackOutput.SIGNING_KEY_ARNS: ["arn:aws:kms:eu-west-1:111122223333:key/abc"],
    StackOutput.IOT_ENDPOINT: "iot.example",
    StackOutput.ALARM_NAMES: {},
    StackOutput.RING_GROUP_NAMES: {},
    StackOutput.DEVICE_NAMES: {},
    StackOutput.DASHBOARD_URL: "https://example.com",
}
"""What is needed, and one more."""


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 1) -> str:
    assert ops.main.main(words) == code
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
        ops.main.main(words)
    assert refused.value.code == 2
    assert "usage: python -m ops" in capsys.readouterr().err


def test_without_the_cli_the_other_way_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    message = said(capsys, "pause", "--stack", "prod", "--yes", "--why", "x")
    assert "--stack needs the Pulumi CLI" in message
    assert (
        "save `pulumi stack output --json -s prod` where it is installed and pass --outputs FILE"
        in message
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
    message = said(capsys, "status", "--stack", "o'prod", code=2)
    assert (
        "--stack 'o'\"'\"'prod': these are not the outputs of a deployed stack (suffix: missing):"
        " run `pulumi up`" in message
    )
    root = Path(ops.main.__file__).parents[1]
    assert (
        tmp_path / "called"
    ).read_text() == f"{root}: stack output --json --non-interactive -s o'prod\n"


@pytest.mark.parametrize(
    ("script", "message"),
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
                "fleetName: missing; suffix: missing; region: missing; bucketName: missing;"
                " channelName: missing; fleetGroupName: missing; iotEndpoint: missing;"
                " signingKeyArns: missing; alarmNames: missing"
            ),
        ),
    ],
)
def test_what_the_cli_cannot_tell_is_passed_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str,
    message: str,
) -> None:
    pulumi(tmp_path, monkeypatch, script)
    assert message in said(capsys, "status", "--stack", "prod", code=2)


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
    processes: list[Any] = [{"port": 9}, {"prot": 1}, []]  # port 9: nobody listens
    for process in processes:
        (tmp_path / local_aws.OUTPUTS_FILE).write_text(json.dumps(OUTPUTS))
        (tmp_path / local_aws.PROCESS_FILE).write_text(json.dumps(process))
        monkeypatch.setenv("SANDBOX_DIR", str(tmp_path))
        assert f"no sandbox runs in {tmp_path}: run" in said(capsys, "status", "--sandbox", code=2)


def test_credentials_that_are_not_there_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "out.json").write_text(json.dumps(OUTPUTS))
    message = said(capsys, "halt", "--outputs", str(tmp_path / "out.json"), "--yes", "--why", "x")
    assert (
        message
        == "halt: no AWS credentials: sign in, or set AWS_PROFILE (Unable to locate credentials)\n"
    )


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (
            refusal("AccessDeniedException", "DescribeJob", "User x is not"),
            "you need the permission iot:DescribeJob (User x is not)",
        ),
        (refusal("AccessDenied", "PutObject", "no"), "you need the permission s3:PutObject (no)"),
        (
            refusal("ForbiddenException", "GetThingShadow", "no"),
            "you need the permission iot:GetThingShadow (no)",
        ),
        (
            refusal("ExpiredToken", "GetObject", "it expired"),
            "the sign-in to AWS has ended: sign in again (GetObject: it expired)",
        ),
        (
            refusal("InvalidClientTokenId", "GetCallerIdentity"),
            "AWS does not know these credentials: check AWS_PROFILE",
        ),
        (
            refusal("NoSuchBucket", "GetObject"),
            "are these the outputs of a stack that still stands?",
        ),
        (
            refusal("ThrottlingException", "ListJobs", "Rate exceeded"),
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
def test_an_error_of_aws_says_what_to_do(problem: Any, message: str) -> None:
    assert message in explain(problem)
    assert "\n" not in explain(problem)


def test_an_unreachable_aws_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(ops.stack, "CONFIG", Config(retries={"total_max_attempts": 1}))
    (tmp_path / "out.json").write_text(json.dumps(OUTPUTS))
    message = said(capsys, "status", "--outputs", str(tmp_path / "out.json"), code=2)
    assert "AWS cannot be reached: Could not connect to the endpoint URL" in message


def test_the_keyboard_ends_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ops.stack, "open_stack", interrupt)
    assert said(capsys, "halt", code=130) == "interrupted\n"
