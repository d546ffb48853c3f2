"""The sandbox's engine against a real MiniStack: small programs, made, updated, broken and
recovered."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.claim_provisioning import template_body
from components.stack_file import ROOT
from ops import local_aws
from sandbox import ministack, session
from sandbox.deploy import Deployment, deploy, read_outputs
from sandbox.instance import Instance, SandboxError

HEAD = "import json, os, pulumi\nimport pulumi_aws as aws\n"
THING = "thing = aws.iot.Thing('thing', name='thing', attributes={'site': 'here'})\n"
QUEUE = "queue = aws.sqs.Queue('queue', name='queue')\n"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "lambda.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)
POISON = {
    "AWS_ACCESS_KEY_ID": "AKIAREALLYREAL000000",
    "AWS_SECRET_ACCESS_KEY": "real",
    "AWS_SESSION_TOKEN": "real",
    "AWS_PROFILE": "production",
    "AWS_REGION": "eu-west-3",
    "AWS_DEFAULT_REGION": "eu-west-3",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
    "AWS_USE_FIPS_ENDPOINT": "true",
    "AWS_USE_DUALSTACK_ENDPOINT": "true",
    "AWS_CA_BUNDLE": "/nowhere",
    "AWS_MAX_ATTEMPTS": "none",
    "HTTP_PROXY": "http://127.0.0.1:1",
    "http_proxy": "http://127.0.0.1:1",
    "HTTPS_PROXY": "http://127.0.0.1:1",
    "ALL_PROXY": "http://127.0.0.1:1",
}
"""What a developer's shell may hold; none of it may change where the sandbox's calls go."""


CAME_IN = "20 devices have come in by claim, each with a key of its own"


class Program:
    """A Pulumi program in a folder of its own, and its deployments."""

    def __init__(self, root: Path, instance: Instance) -> None:
        self.root, self.instance = root, instance
        self.said: list[str] = []
        root.mkdir()
        (root / "Pulumi.yaml").write_text("name: small\nruntime: python\n")
        (root / "Pulumi.local.yaml").write_text("config:\n  aws:region: us-east-1\n")

    def deploy(self, text: str, **overrides: Any) -> Deployment:
        (self.root / "__main__.py").write_text(HEAD + text)
        settings = {f"small:{key}": value for key, value in overrides.items()}
        return deploy(self.instance, root=self.root, overrides=settings, say=self.said.append)

    def client(self, service: str) -> Any:
        return local_aws.client(service, self.instance.port, "us-east-1")


@pytest.fixture
def program(tmp_path: Path, instance: Instance) -> Program:
    return Program(tmp_path / "program", instance)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The AWS calls that deployments make, as `service.method`."""
    made: list[str] = []
    real = local_aws.client

    class Spy:
        def __init__(self, service: str, client: Any) -> None:
            self.service, self.client = service, client

        def __getattr__(self, name: str) -> Callable[..., Any]:
            made.append(f"{self.service}.{name}")
            method: Callable[..., Any] = getattr(self.client, name)
            return method

    monkeypatch.setattr(
        local_aws, "client", lambda service, port, region: Spy(service, real(service, port, region))
    )
    return made


def wait_until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, f"waited 10 s until {what}"
        time.sleep(0.02)


def run(
    instance: Instance, *words: str, env: dict[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """The command line, its output through a pipe."""
    own = {
        "SANDBOX_DIR": str(instance.folder),
        "SANDBOX_PORT": str(instance.port),
        "SANDBOX_MQTT_PORT": str(instance.mqtt_port),
    }
    return subprocess.run(
        [sys.executable, "-m", "sandbox", *words],
        cwd=ROOT,
        env={**os.environ, **own, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


# Deployments


def test_what_did_not_change_costs_one_call_that_asks_for_the_token(
    program: Program, calls: list[str]
) -> None:
    text = (
        THING
        + QUEUE
        + "pulumi.export('arn', thing.arn)\npulumi.export('key', pulumi.Output.secret('word'))\n"
    )
    first = program.deploy(text)
    calls.clear()
    second = program.deploy(text)
    assert (first.created, first.updated, first.unchanged) == (2, 0, 0)
    assert (second.created, second.updated, second.unchanged) == (0, 0, 2)
    assert calls == ["ssm.get_parameter"]
    assert second.outputs == first.outputs == read_outputs(program.instance)
    assert first.outputs == {"arn": "arn:aws:iot:us-east-1:000000000000:thing/thing", "key": "word"}


def test_changed_inputs_are_updated_in_place(program: Program) -> None:
    text = (
        "n = pulumi.Config().require('n')\nthing = aws.iot.Thing('thing', name='thing',"
        " attributes={'n': n})\ngroup = aws.iot.ThingGroup('group', name='group',"
        " properties={'description': 'group ' + n})\npolicy = aws.iot.Policy('policy',"
        " name='policy', policy=json.dumps({'Version': '2012-10-17', 'Statement': [\n    {'Effect':"
        " 'Allow', 'Action': 'iot:Connect', 'Resource':"
        " f'arn:aws:iot:us-east-1:000000000000:client/{n}'}]}))\nqueue = aws.sqs.Queue('queue',"
        " name='queue', message_retention_seconds=60 + int(n))\nbucket = aws.s3.Bucket('bucket',"
        " bucket='bucket-of-objects')\naws.s3.BucketObjectv2('object', bucket=bucket.bucket,"
        " key='key', content='content ' + n)\npulumi.export('queue', queue.url)\n"
    )
    program.deploy(text, n="1")
    made = program.deploy(text, n="2")
    assert (made.created, made.updated, made.unchanged, made.rebuilt) == (0, 5, 1, None)
    iot = program.client("iot")
    assert iot.describe_thing(thingName="thing")["attributes"] == {"n": "2"}
    assert (
        iot.describe_thing_group(thingGroupName="group")["thingGroupProperties"][
            "thingGroupDescription"
        ]
        == "group 2"
    )
    assert "client/2" in iot.get_policy(policyName="policy")["policyDocument"]
    assert len(iot.list_policy_versions(policyName="policy")["policyVersions"]) == 1
    queue = program.client("sqs").get_queue_attributes(
        QueueUrl=made.outputs["queue"], AttributeNames=["All"]
    )
    assert queue["Attributes"]["MessageRetentionPeriod"] == "62"
    assert (
        program.client("s3").get_object(Bucket="bucket-of-objects", Key="key")["Body"].read()
        == b"content 2"
    )


CLAIM = """
aws.dynamodb.Table("table", name="table", attributes=[{{"name": "serial", "type": "S"}}],
    hash_key="serial", billing_mode="PAY_PER_REQUEST", point_in_time_recovery={{"enabled": {on}}},
    server_side_encryption={{"enabled": True}}, deletion_protection_enabled={on}, tags={{}})
certificate = aws.iot.Certificate("certificate", active={on}, csr={csr!r})
template = aws.iot.ProvisioningTemplate("template", name="template", enabled={on},
    provisioning_role_arn="arn:aws:iam::000000000000:role/role", template_body={body!r})
pulumi.export("certificate", certificate.certificate_pem)
"""


def test_what_lets_devices_in_is_changed_in_place(program: Program) -> None:
    """A claim certificate that were made anew would be another one than the devices have."""
    csr = (ROOT / "csr" / "claim-example.csr").read_text()
    bodies = [json.dumps(template_body(keys, ["policy"])) for keys in ([], ["site"])]
    first = program.deploy(CLAIM.format(on=True, csr=csr, body=bodies[0]))
    second = program.deploy(CLAIM.format(on=False, csr=csr, body=bodies[1]))
    assert (first.created, second.created, second.updated) == (3, 0, 3)
    assert second.outputs == first.outputs
    iot, dynamodb = program.client("iot"), program.client("dynamodb")
    [certificate] = iot.list_certificates()["certificates"]
    assert certificate["status"] == "INACTIVE"
    template = iot.describe_provisioning_template(templateName="template")
    assert (template["enabled"], template["templateBody"]) == (False, bodies[1])
    assert not dynamodb.describe_table(TableName="table")["Table"]["DeletionProtectionEnabled"]
    backups = dynamodb.describe_continuous_backups(TableName="table")
    recovery = backups["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]
    assert recovery["PointInTimeRecoveryStatus"] == "DISABLED"


def test_an_object_under_a_new_key_leaves_the_one_before(program: Program) -> None:
    text = (
        "bucket = aws.s3.Bucket('bucket',"
        " bucket='bucket-of-objects')\naws.s3.BucketObjectv2('artifact', bucket=bucket.bucket,"
        " key=pulumi.Config().require('key'), content='image',\n                     "
        " checksum_algorithm='SHA256')\n"
    )
    program.deploy(text, key="firmware/1")
    made = program.deploy(text, key="firmware/2")
    assert (made.created, made.updated, made.rebuilt) == (0, 1, None)
    listed = program.client("s3").list_objects_v2(Bucket="bucket-of-objects")["Contents"]
    assert [item["Key"] for item in listed] == ["firmware/1", "firmware/2"]
    head = program.client("s3").head_object(
        Bucket="bucket-of-objects", Key="firmware/2", ChecksumMode="ENABLED"
    )
    assert head["ChecksumSHA256"]


def test_a_replaced_resource_means_a_rebuild_that_is_announced(program: Program) -> None:
    program.deploy(THING + QUEUE)
    made = program.deploy(THING.replace("name='thing'", "name='other'") + QUEUE)
    assert program.said == [
        "thing must be replaced (name changed): the sandbox is rebuilt from empty"
    ]
    assert (made.created, made.rebuilt) == (2, "thing must be replaced (name changed)")
    assert [thing["thingName"] for thing in program.client("iot").list_things()["things"]] == [
        "other"
    ]


def test_a_resource_that_left_the_program_means_a_rebuild(program: Program) -> None:
    program.deploy(THING + QUEUE)
    program.deploy(THING)
    assert program.said == ["queue is no longer in the program: the sandbox is rebuilt from empty"]
    assert program.client("sqs").list_queues().get("QueueUrls", []) == []


def test_a_resource_that_vanished_means_a_rebuild_when_it_is_to_change(program: Program) -> None:
    program.deploy(THING + QUEUE)
    program.client("iot").delete_thing(thingName="thing")
    program.deploy(THING.replace("here", "there") + QUEUE)
    assert program.said == [
        "thing or what it needs has vanished (ResourceNotFoundException): the sandbox is rebuilt"
        " from empty"
    ]
    assert program.client("iot").describe_thing(thingName="thing")["attributes"] == {
        "site": "there"
    }


def test_an_emptied_or_restarted_local_aws_is_deployed_anew_without_the_old_devices(
    program: Program,
) -> None:
    program.deploy(THING)
    device = program.instance.folder / "devices" / "0001"
    device.mkdir(parents=True)
    ministack.stop(program.instance)
    made = program.deploy(THING)
    assert program.said == [
        "the local AWS was stopped or emptied: the sandbox is rebuilt from empty"
    ]
    assert made.created == 1
    assert not device.exists()


def test_a_lost_or_cut_off_record_means_a_rebuild(program: Program) -> None:
    program.deploy(THING)
    record = program.instance.folder / "resources.json"
    record.write_text(record.read_text()[:40])
    assert program.deploy(THING).created == 1
    assert program.said == ["what was deployed is not on record: the sandbox is rebuilt from empty"]


def test_a_deployment_killed_half_way_goes_on(program: Program) -> None:
    killed = program.root / "killed"
    text = (
        THING
        + f"def die(_):\n    if not os.path.exists({str(killed)!r}):\n"
        + f"        open({str(killed)!r}, 'w').close()\n        os.kill(os.getpid(), 9)\n    return"
        " 'there'\n"
        + "aws.iot.Thing('second', name='second', attributes={'site': thing.arn.apply(die)})\n"
    )
    (program.root / "__main__.py").write_text(HEAD + text)
    instance = (
        f"Instance(folder=Path({str(program.instance.folder)!r}), port={program.instance.port},"
        f" mqtt_port={program.instance.mqtt_port})"
    )
    script = (
        "from pathlib import Path; from sandbox.deploy import deploy; from sandbox.instance import"
        f" Instance; deploy({instance}, root=Path({str(program.root)!r}))"
    )
    dead = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, timeout=60)
    assert dead.returncode == -signal.SIGKILL
    made = program.deploy(text)
    assert (made.created, made.unchanged, made.rebuilt) == (1, 1, None)


def test_something_made_but_not_recorded_means_a_rebuild(program: Program) -> None:
    program.deploy(THING)
    program.client("iam").create_role(RoleName="role", AssumeRolePolicyDocument=TRUST)
    program.deploy(THING + f"aws.iam.Role('role', name='role', assume_role_policy='{TRUST}')\n")
    assert program.said == [
        "role exists and is not on record (EntityAlreadyExists): the sandbox is rebuilt from empty"
    ]


CANNOT_BE_MADE = {
    "aws.kinesis.Stream('stream', shard_count=1)": (
        "aws:kinesis/stream:Stream 'stream': the sandbox has no handler for this type"
    ),
    "aws.s3.Bucket('bucket', bucket='bucket', acl='private')": (
        "aws:s3/bucket:Bucket 'bucket': the sandbox does not know the input acl"
    ),
    "aws.cloudwatch.EventRule('rule', name='rule', tags={}, force_destroy=True)": (
        "aws:cloudwatch/eventRule:EventRule 'rule': Parameter validation failed: Unknown parameter"
        ' in input: "ForceDestroy", must be one of: Name, ScheduleExpression, EventPattern, State,'
        " Description, RoleArn, Tags, EventBusName"
    ),
    "aws.sqs.Queue('unnamed')": (
        "aws:sqs/queue:Queue 'unnamed': 'name' is in neither the inputs nor AWS's answer"
    ),
    "aws.get_availability_zones()": (
        "aws:index/getAvailabilityZones:getAvailabilityZones: the sandbox has no handler for this"
        " function"
    ),
    "aws.iot.Thing.get('found', 'found')": (
        "aws:iot/thing:Thing 'found': the sandbox makes everything itself: there is nothing to read"
        " or import"
    ),
    "aws.kms.Alias('alias', name='alias/none', target_key_id='none')": (
        "aws:kms/alias:Alias 'alias': An error occurred (NotFoundException) when calling the"
        " CreateAlias operation: Key none not found"
    ),
    "raise pulumi.RunError('two mistakes')": "two mistakes",
}


def test_what_cannot_be_made_is_one_line_that_names_it(
    program: Program, capfd: pytest.CaptureFixture[str]
) -> None:
    for text, message in CANNOT_BE_MADE.items():
        with pytest.raises(SandboxError) as error:
            program.deploy(f"{text}\n" + THING)
        assert str(error.value) == message
        assert capfd.readouterr() == ("", ""), "nothing else is printed"
    assert program.deploy(THING).created <= 1, "the next deployment goes on"


def test_a_function_runs_with_its_roles_rights_and_no_more(program: Program) -> None:
    code = (
        "import boto3\\ndef handler(event, _):\\n   "
        " boto3.client('sqs').send_message(QueueUrl=event['url'], MessageBody='x')\\n"
    )
    text = (
        QUEUE
        + f"role = aws.iam.Role('role', name='role', assume_role_policy='{TRUST}')\n"
        + "other = aws.sqs.Queue('other', name='other')\n"
        + "aws.iam.RolePolicy('rights', name='rights', role=role.name,"
        " policy=pulumi.Output.json_dumps({\n"
        + "    'Version': '2012-10-17',\n"
        + "    'Statement': [{'Effect': 'Allow', 'Action': 'sqs:SendMessage', 'Resource':"
        " queue.arn}]}))\n"
        + "aws.lambda_.Function('function', name='function', role=role.arn, handler='main.handler',"
        " runtime='python3.13',\n"
        + f"    code=pulumi.AssetArchive({{'main.py': pulumi.StringAsset('''{code}''')}}))\n"
        + "pulumi.export('urls', [queue.url, other.url])\n"
    )
    urls = program.deploy(text).outputs["urls"]

    def error(url: str) -> str:
        answer = program.client("lambda").invoke(
            FunctionName="function", Payload=json.dumps({"url": url})
        )
        return str((json.loads(answer["Payload"].read()) or {}).get("errorMessage", ""))

    assert error(urls[0]) == ""
    assert "is not authorized to perform: sqs:SendMessage" in error(urls[1])


# MiniStack


def test_a_start_finds_the_one_that_runs(instance: Instance) -> None:
    assert ministack.start(instance) == ministack.start(instance)


def test_it_listens_on_loopback_and_writes_only_into_its_folder(instance: Instance) -> None:
    before = set(Path("/tmp").glob("ministack*"))
    running = ministack.start(instance)
    assert running.health()["auth"] == "enabled"
    assert set(Path("/tmp").glob("ministack*")) == before
    assert instance.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("variable", ["SANDBOX_PORT", "SANDBOX_MQTT_PORT"])
def test_a_port_in_use_is_one_line_with_the_variable_that_changes_it(
    instance: Instance, variable: str
) -> None:
    port = instance.port if variable == "SANDBOX_PORT" else instance.mqtt_port
    with socket.create_server(("127.0.0.1", port)):
        done = run(instance, "up")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert f"port {port} is in use" in done.stderr
    assert f"{variable}=" in done.stderr


def test_a_process_that_has_the_old_id_is_not_touched(instance: Instance) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
    ) as other:
        instance.create()
        record = {
            "pid": other.pid,
            "token": "0" * 32,
            "port": instance.port,
            "mqtt_port": instance.mqtt_port,
        }
        instance.write("ministack.json", json.dumps(record))
        assert ministack.find(instance) is None
        assert ministack.start(instance).pid != other.pid
        session.down(instance)
        assert other.poll() is None
        other.communicate(b"\n")


def test_a_killed_ministack_is_said_and_the_next_deployment_recovers(program: Program) -> None:
    program.deploy(THING)
    os.kill(ministack.start(program.instance).pid, signal.SIGKILL)
    wait_until(lambda: ministack.find(program.instance) is None, "it is gone")
    with pytest.raises(SandboxError, match="MiniStack has stopped: run `make up`"):
        session.connect(program.instance)
    assert program.deploy(THING).created == 1


def test_other_ports_than_the_running_ones_are_refused(instance: Instance) -> None:
    ministack.start(instance)
    with pytest.raises(
        SandboxError, match=f"already runs on the ports {instance.port} and {instance.mqtt_port}"
    ):
        ministack.start(
            Instance(folder=instance.folder, port=instance.port + 1, mqtt_port=instance.mqtt_port)
        )


def test_a_poisoned_environment_changes_nothing(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in POISON.items():
        monkeypatch.setenv(name, value)
    local_aws._session.cache_clear()
    local_aws._client.cache_clear()
    text = (
        "me = aws.get_caller_identity()\npulumi.export('account', me.account_id)\n" + THING + QUEUE
    )
    assert program.deploy(text).outputs == {"account": "000000000000"}
    for service in ("s3", "sts", "lambda", "iot-data"):
        client = program.client(service)
        assert client.meta.endpoint_url == f"http://127.0.0.1:{program.instance.port}"
        assert client.meta.region_name == "us-east-1"
    environment = Path(f"/proc/{ministack.start(program.instance).pid}/environ").read_text()
    assert not [name for name in POISON if f"{name}=" in environment]


# The end


def test_down_leaves_nothing_whatever_the_state(program: Program) -> None:
    instance = program.instance
    assert session.down(instance) is False, "nothing was there"
    program.deploy(THING)
    running = ministack.start(instance)
    assert session.down(instance) is True
    assert not instance.folder.exists()
    assert ministack.command_line(running.pid) == ""
    program.deploy(THING)
    os.kill(ministack.start(instance).pid, signal.SIGKILL)
    assert session.down(instance) is True, "MiniStack was dead"
    assert not instance.folder.exists()
    instance.create()
    (instance.folder / "resources.json").write_text("{")
    (instance.folder / ".outputs.json.half").write_text("{")
    assert session.down(instance) is True, "half-written"
    assert not instance.folder.exists()


def test_down_ends_the_functions_that_ministack_runs(program: Program) -> None:
    program.deploy(
        "role = aws.iam.Role('role', name='role',"
        f" assume_role_policy='{TRUST}')\naws.lambda_.Function('function', name='function',"
        " role=role.arn, handler='main.handler', runtime='python3.13',\n   "
        " code=pulumi.AssetArchive({'main.py': pulumi.StringAsset('import os\\ndef handler(e, c):"
        " return os.getpid()')}))\n"
    )
    answer = program.client("lambda").invoke(FunctionName="function")
    worker = int(answer["Payload"].read())
    assert ministack.command_line(worker)
    session.down(program.instance)
    wait_until(lambda: not ministack.command_line(worker), "the function's process is gone")


def test_commands_take_turns(instance: Instance) -> None:
    with instance.locked("python -m sandbox up"):
        done = run(instance, "up")
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"python -m sandbox up (process {os.getpid()}) is using the sandbox in {instance.folder}"
    )


def test_down_ends_a_command_that_is_at_work(instance: Instance) -> None:
    own = {
        "SANDBOX_DIR": str(instance.folder),
        "SANDBOX_PORT": str(instance.port),
        "SANDBOX_MQTT_PORT": str(instance.mqtt_port),
    }
    command = [sys.executable, "-m", "sandbox", "up"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **own},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as up:
        wait_until(lambda: ministack.find(instance) is not None, "MiniStack runs")
        assert session.down(instance) is True
        assert up.wait(10) == 130
        assert up.stderr is not None
        assert (
            up.stderr.read()
            == b"interrupted; the sandbox stays: `make up` goes on, `make down` ends it\n"
        )
    assert not instance.folder.exists()


def test_commands_without_a_sandbox_say_what_to_run(instance: Instance) -> None:
    for words in (["status"], ["release", "2.2.0"]):
        done = run(instance, *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"nothing is deployed in {instance.folder}: run `make up` first\n"
    assert run(instance, "down").stdout == "There is no sandbox.\n"
    assert not instance.folder.exists()


def test_the_pulumi_engine_says_that_it_needs_the_cli(instance: Instance) -> None:
    done = run(instance, "up", env={"ENGINE": "pulumi", "PATH": "/nowhere"})
    assert (done.returncode, done.stderr.partition(":")[0]) == (
        1,
        "ENGINE=pulumi needs the Pulumi CLI",
    )


# The whole


def test_up_updates_every_device_and_holds_nobodys_pipe(instance: Instance) -> None:
    up = run(
        instance, "up", env=POISON
    )  # returns although MiniStack stays: nothing of it has this pipe
    assert (up.returncode, up.stderr) == (0, "")
    assert up.stdout.endswith("every device runs 2.1.0, and it is the last good release\n")
    assert "20 serials are new in the registry" in up.stdout
    assert " 0001 is registered as iot-fleet-" in up.stdout
    assert CAME_IN in up.stdout
    folders = sorted((instance.folder / "devices").iterdir())
    assert len(folders) == 20
    assert [list(folder.glob("claim.*")) for folder in folders] == [[]] * 20, "it is thrown away"
    keys = [(folder / "device.key").read_text() for folder in folders]
    assert len(set(keys)) == 20
    status = run(instance, "status", "--json")
    report = json.loads(status.stdout)
    assert {device["version"] for device in report["devices"]} == {"2.1.0"}
    assert len(report["devices"]) == 20
    assert report["status"]["lastGood"]["version"] == "2.1.0"
    assert "PRIVATE KEY" not in status.stdout
    again = run(instance, "up")
    assert (again.returncode, again.stderr) == (0, "")
    assert " 0 resources created, 0 updated, " in again.stdout
    assert CAME_IN not in again.stdout, "they are in"
    assert [(folder / "device.key").read_text() for folder in folders] == keys
    unknown = run(instance, "release", "9.9.9")
    assert (unknown.returncode, unknown.stderr) == (
        1,
        "there is no sample image firmware/9.9.9.bin; there are 2.0.0, 2.1.0, 2.2.0, 2.3.0\n",
    )
    assert run(instance, "down").stdout == "The sandbox is gone.\n"
    assert not instance.folder.exists()
