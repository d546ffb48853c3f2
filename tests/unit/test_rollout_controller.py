"""RolloutController: the function, its rights, and what wakes it."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pulumi
import pytest

from components import function_code as packing
from components import policies
from components.function_code import function_code
from components.rollout_controller import stopped_jobs_sql
from rollout.codec import sha256_hex
from rollout.names import Names, Variable
from tests.unit.examples import IOT, LOCATION, MANIFEST, NAMES, RING_ARNS, TAGS, P, make_controller
from tests.unit.harness import ROOT, UNKNOWN, Graph, build

FUNCTION = f"arn:aws:lambda:us-east-1:123456789012:function:{P}-stable-controller"
QUEUE = f"arn:aws:sqs:us-east-1:123456789012:{P}-stable-controller-dead-letters"
BUCKET = f"arn:aws:s3:::{P}-firmware"
PRESIGN = "arn:aws:iam::123456789012:role/presign"
DIGEST = sha256_hex(MANIFEST.text())


@cache
def made(*, preview: bool = False, tls_only: bool = True) -> Graph:
    return build(
        lambda: {"functionName": make_controller(tls_only=tls_only).function_name}, preview=preview
    )


def key_arn() -> str:
    variables = made()["controller-function"].inputs["environment"]["variables"]
    [arn] = json.loads(variables["SIGNING_KEY_ARNS"])
    assert arn.startswith("arn:aws:kms:us-east-1:123456789012:key/")
    return str(arn)


@pytest.mark.parametrize("preview", [False, True])
def test_it_is_a_function_its_rights_and_three_wakes(preview: bool) -> None:
    assert made(preview=preview).children("controller") == [
        "controller-dead-letters",
        "controller-dead-letters-policy",
        "controller-failures",
        "controller-files",
        "controller-files-permission",
        "controller-function",
        "controller-jobs-end",
        "controller-log",
        "controller-rights",
        "controller-ring-broad",
        "controller-ring-canary",
        "controller-stopped-jobs",
        "controller-stopped-jobs-permission",
        "controller-tick",
        "controller-tick-permission",
        "controller-tick-target",
    ]


def test_the_function() -> None:
    inputs = dict(made()["controller-function"].inputs)
    assert "functions/controller.py" in inputs.pop("code")
    assert inputs == {
        "name": f"{P}-stable-controller",
        "description": "Rolls firmware out to the rings of the channel stable",
        "role": f"arn:aws:iam::123456789012:role/{P}-stable-controller",
        "runtime": "python3.13",
        "handler": "functions.controller.handler",
        "architectures": ["arm64"],
        "timeout": 300,
        "memorySize": 1024,
        "environment": {
            "variables": {
                "BUCKET": f"{P}-firmware",
                "CHANNEL": "stable",
                "DECLARED_DEVICES": "3",
                "DNS_SUFFIX": "amazonaws.com",
                "FLEET": "iot-fleet",
                "MANIFEST_SHA256": DIGEST,
                "PRESIGN_ROLE_ARN": PRESIGN,
                "RING_GROUP_ARNS": (
                    f'{{"broad": "{RING_ARNS["broad"]}", "canary": "{RING_ARNS["canary"]}"}}'
                ),
                "SIGNING_KEY_ARNS": json.dumps([key_arn()]),
                "SUFFIX": "0a1b2c3d",
            }
        },
        "tags": TAGS,
    }


@pytest.mark.parametrize(
    ("of_this_stack", "protect", "declared"),
    [(True, False, "3"), (True, True, None), (False, False, None)],
)
def test_it_counts_devices_where_they_would_lose_what_they_use(
    of_this_stack: bool, protect: bool, declared: str | None
) -> None:
    """A protected stack keeps it, and another stack's fleet stays."""
    graph = build(
        lambda: {
            "name": make_controller(of_this_stack=of_this_stack, protect=protect).function_name
        }
    )
    variables = graph["controller-function"].inputs["environment"]["variables"]
    assert variables.get("DECLARED_DEVICES") == declared


def test_a_preview_shows_the_manifest_that_the_function_will_take() -> None:
    variables = made(preview=True)["controller-function"].inputs["environment"]["variables"]
    assert variables["MANIFEST_SHA256"] == DIGEST
    assert variables["RING_GROUP_ARNS"] is not UNKNOWN


def test_its_rights_are_the_documents() -> None:
    log = f"arn:aws:logs:us-east-1:123456789012:log-group:/aws/lambda/{P}-stable-controller"
    document = policies.controller_policy(
        LOCATION, NAMES, BUCKET, log, QUEUE, PRESIGN, [key_arn()], RING_ARNS
    )
    assert made()["controller-rights"].inputs == {
        "name": "controller",
        "role": f"{P}-stable-controller",
        "policy": policies.to_json(document),
    }


def test_its_log_is_kept_for_as_long_as_the_stack_says() -> None:
    expected = {"name": f"/aws/lambda/{P}-stable-controller", "retentionInDays": 7, "tags": TAGS}
    assert made()["controller-log"].inputs == expected


def test_a_failed_run_is_not_repeated_but_kept() -> None:
    graph = made()
    assert graph["controller-failures"].inputs == {
        "functionName": f"{P}-stable-controller",
        "maximumEventAgeInSeconds": 300,
        "maximumRetryAttempts": 0,
        "destinationConfig": {"onFailure": {"destination": QUEUE}},
    }
    assert graph["controller-dead-letters"].inputs == {
        "name": f"{P}-stable-controller-dead-letters",
        "messageRetentionSeconds": 86_400,
        "sqsManagedSseEnabled": True,
        "tags": TAGS,
    }


@pytest.mark.parametrize("tls_only", [True, False])
def test_the_queue_takes_letters_from_the_controller(tls_only: bool) -> None:
    role = f"arn:aws:iam::123456789012:role/{P}-stable-controller"
    expected = policies.to_json(policies.dead_letters_policy(QUEUE, role, tls_only))
    assert made(tls_only=tls_only)["controller-dead-letters-policy"].inputs["policy"] == expected


def test_exactly_two_files_wake_it() -> None:
    assert made()["controller-files"].inputs == {
        "bucket": f"{P}-firmware",
        "lambdaFunctions": [
            {
                "id": what,
                "events": ["s3:ObjectCreated:*"],
                "filterPrefix": f"channels/stable/{file}",
                "filterSuffix": file,
                "lambdaFunctionArn": FUNCTION,
            }
            for what, file in (("manifest", "release.json"), ("orders", "control.json"))
        ],
    }


def test_a_cancelled_or_deleted_job_wakes_it() -> None:
    assert made()["controller-stopped-jobs"].inputs == {
        "name": "iot_fleet_0a1b2c3d_job_cancelled",
        "description": "A job of the channel was cancelled or deleted",
        "enabled": True,
        "sqlVersion": "2016-03-23",
        "sql": stopped_jobs_sql("0a1b2c3d-stable-"),
        "lambdas": [{"functionArn": FUNCTION}],
        "tags": TAGS,
    }


def test_the_rule_selects_the_channels_jobs_only() -> None:
    assert (
        stopped_jobs_sql("0a1b2c3d-stable-")
        == "SELECT * FROM '$aws/events/job/+/+' WHERE regexp_matches(jobId, '^0a1b2c3d-stable-') "
        "AND (topic(5) = 'canceled' OR topic(5) = 'deleted')"
    )


def test_a_minute_wakes_it() -> None:
    graph = made()
    assert graph["controller-tick"].inputs == {
        "name": f"{P}-stable-tick",
        "description": "Wakes the controller of the channel stable",
        "scheduleExpression": "rate(1 minute)",
        "tags": TAGS,
    }
    assert graph["controller-tick-target"].inputs == {
        "rule": f"{P}-stable-tick",
        "targetId": "controller",
        "arn": FUNCTION,
        "retryPolicy": {"maximumEventAgeInSeconds": 60, "maximumRetryAttempts": 0},
    }


def test_only_these_three_may_call_it_and_only_for_this_stack() -> None:
    common = {
        "action": "lambda:InvokeFunction",
        "function": f"{P}-stable-controller",
        "sourceAccount": "123456789012",
    }
    assert {permission.name: permission.inputs for permission in made().of("Permission")} == {
        "controller-files-permission": {
            **common,
            "statementId": "files",
            "principal": "s3.amazonaws.com",
            "sourceArn": BUCKET,
        },
        "controller-stopped-jobs-permission": {
            **common,
            "statementId": "stopped-jobs",
            "principal": "iot.amazonaws.com",
            "sourceArn": f"{IOT}:rule/iot_fleet_0a1b2c3d_job_cancelled",
        },
        "controller-tick-permission": {
            **common,
            "statementId": "tick",
            "principal": "events.amazonaws.com",
            "sourceArn": f"arn:aws:events:us-east-1:123456789012:rule/{P}-stable-tick",
        },
    }


@pytest.mark.parametrize("preview", [False, True])
def test_a_destroy_stops_the_wakes_then_ends_the_jobs_then_removes_the_rest(preview: bool) -> None:
    graph = made(preview=preview)
    assert graph["controller-jobs-end"].inputs == {
        "functionName": f"{P}-stable-controller",
        "lifecycleScope": "CRUD",
        "input": "{}",
    }
    outlive = {
        "role",
        "bucket",
        "device",
        "controller-rights",
        "controller-function",
        "controller-log",
        "controller-failures",
    }
    assert outlive <= graph.before("controller-jobs-end"), (
        "the controller needs them to end the jobs"
    )
    for wake in (
        "controller-files",
        "controller-stopped-jobs",
        "controller-tick",
        "controller-tick-target",
    ):
        assert "controller-jobs-end" in graph.before(wake), (
            f"{wake} would wake the controller after it ended the jobs"
        )


@pytest.mark.parametrize("preview", [False, True])
def test_a_ring_that_leaves_asks_the_controller_before_its_group_goes(preview: bool) -> None:
    """AWS deletes a group whoever is in it. A function that does not know the ring any more is
    there before, and after."""
    graph = made(preview=preview)
    for ring in ("canary", "broad"):
        guard = graph[f"controller-ring-{ring}"]
        assert guard.inputs == {
            "functionName": f"{P}-stable-controller",
            "lifecycleScope": "CRUD",
            "input": json.dumps({"ring": ring}),
        }
        assert {"device", "controller-function", "controller-rights"} <= graph.before(guard.name)


def test_a_channel_guards_no_groups_of_another_stack() -> None:
    graph = build(lambda: {"name": make_controller(of_this_stack=False).function_name})
    assert [r.name for r in graph.of("Invocation")] == ["controller-jobs-end"]


def test_the_rule_that_a_destroy_removes_first_is_the_one_that_the_function_asks_for() -> None:
    """It knows the rule by name, from its environment."""
    graph = made()
    variables = graph["controller-function"].inputs["environment"]["variables"]
    names = Names(
        fleet=variables["FLEET"], suffix=variables["SUFFIX"], channel=variables["CHANNEL"]
    )
    assert graph["controller-tick"].inputs["name"] == names.tick
    assert "eventBusName" not in graph["controller-tick"].inputs, "it asks the default bus"


def test_the_function_hears_of_a_manifest_when_its_image_is_there() -> None:
    assert {"artifact", "controller-rights", "controller-log"} <= made().before(
        "controller-function"
    )


def test_s3_finds_its_permission() -> None:
    assert "controller-files-permission" in made().before("controller-files")


def test_the_package_is_the_entry_point_what_it_reads_aws_with_and_the_domain() -> None:
    assert sorted(function_code().assets) == sorted(
        path.relative_to(ROOT).as_posix()
        for folder in ("cloud", "functions", "rollout")
        for path in (ROOT / folder).glob("*.py")
    )


def test_the_package_runs_by_itself(tmp_path: Path) -> None:
    """What is left out of it must not be missed: the function is imported from the package
    alone."""
    for name, asset in function_code().assets.items():
        assert isinstance(asset, pulumi.FileAsset)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(Path(asset.path).read_text())
    code = "import functions.controller as c; c.handler({'tf': {'action': 'create'}}, None)"
    environment = dict.fromkeys(Variable, "x") | {
        Variable.DECLARED_DEVICES: "3",
        Variable.RING_GROUP_ARNS: "{}",
        Variable.SIGNING_KEY_ARNS: '["arn"]',
        Variable.REGION: "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == '{"outcome": "deployed"}', done.stderr
    hook = "import functions.provisioning as p; print(p.handler.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", hook], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.strip() == "handler", done.stderr


def test_the_package_does_not_change_when_python_leaves_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "functions/controller.py",
        "functions/__init__.py",
        "rollout/b.py",
        "rollout/a.py",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(packing, "ROOT", tmp_path)
    before = packed(function_code())
    assert list(before) == [
        "functions/__init__.py",
        "functions/controller.py",
        "rollout/a.py",
        "rollout/b.py",
    ]
    for folder in ("functions", "rollout"):
        (tmp_path / folder / "__pycache__").mkdir()
        (tmp_path / folder / "__pycache__" / "a.cpython-313.pyc").write_bytes(b"\0")
        (tmp_path / folder / "a.pyc").write_bytes(b"\0")
    assert packed(function_code()) == before


def packed(archive: pulumi.AssetArchive) -> dict[str, str]:
    return {
        name: Path(asset.path).read_text()
        for name, asset in archive.assets.items()
        if isinstance(asset, pulumi.FileAsset)
    }
