"""Deployments that go wrong: ended half way, over what somebody deleted by hand, without a right.
What is said, and that the stack is whole again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ops import local_aws
from rollout.names import StackOutput
from sandbox import ministack, session
from sandbox.instance import Instance
from tests.engine.cli import PULUMI, Checkout
from tests.sandbox.conftest import free_instance

pytestmark = pytest.mark.long
REGION = "us-east-1"
MADE = " created ("
"""In a line of the CLI: a resource is there."""
QUIET_SECONDS = 8.0
"""Nothing made for so long: the CLI waits for the slowest resource, and for nothing else."""
DELETED = (
    "fleet-ring-all",
    "channel-monitoring-no-heartbeat-alarm",
    "channel-controller-function",
)


class Desk:
    """A stack in a local AWS of its own, not deployed yet."""

    def __init__(self, instance: Instance, folder: Path, stack: str) -> None:
        self.stack = stack
        self.client: Callable[[str], Any] = partial(
            local_aws.client, port=instance.port, region=REGION
        )
        self.checkout = Checkout(folder, instance.port)
        self.checkout.add_stack(stack)

    def start(self) -> subprocess.Popen[str]:
        """`pulumi up`, in a session of its own. The CLI gives each plugin a process group."""
        return subprocess.Popen(
            [*PULUMI, "up", "--yes", "--skip-preview", "--stack", self.stack],
            cwd=self.checkout.folder,
            env=self.checkout.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def interrupt(self, made: int) -> None:
        """Ctrl-C once it has made so many resources."""
        printed = []
        with self.start() as running:
            for line in running.stdout or ():
                printed.append(line)
                if MADE in line and sum(MADE in one for one in printed) == made:
                    os.killpg(running.pid, signal.SIGINT)
        assert running.returncode > 0, "".join(printed)

    def kill(self) -> None:
        """The machine dies while the CLI waits for the slowest resource: every process at once."""
        with self.start() as running:
            die = partial(kill_session, running.pid)
            timer: threading.Timer | None = None
            for line in running.stdout or ():
                if MADE in line:
                    if timer:
                        timer.cancel()
                    timer = threading.Timer(QUIET_SECONDS, die)
                    timer.start()
        assert running.returncode == -signal.SIGKILL

    def is_whole(self) -> None:
        self.checkout.up(self.stack)
        self.checkout.changes_nothing(self.stack)


def kill_session(leader: int) -> None:
    """Plugins too: without their CLI they would stay for ever."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "-s", str(leader)], capture_output=True, text=True, check=True
    )
    for pid in listed.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("trouble")
    instance = free_instance(folder / "sandbox", auth=False)
    ministack.start(instance)
    try:
        yield Desk(instance, folder, "dev")
    finally:
        session.down(instance)


def test_after_a_machine_that_died_cancel_and_up_go_on(desk: Desk) -> None:
    desk.kill()
    words = ("up", "--yes", "--skip-preview", "--stack", desk.stack)
    assert "the stack is currently locked" in desk.checkout.pulumi(*words, fails=True)
    desk.checkout.pulumi("cancel", "--yes", "--stack", desk.stack)
    desk.is_whole()


def test_what_was_deleted_by_hand_is_named_and_made_again(desk: Desk) -> None:
    outputs = desk.checkout.outputs(desk.stack)
    ring = {"thingGroupName": outputs[StackOutput.RING_GROUP_NAMES]["all"]}
    alarm = outputs[StackOutput.ALARM_NAMES]["no-heartbeat"]
    desk.client("iot").delete_thing_group(**ring)
    desk.client("cloudwatch").delete_alarms(AlarmNames=[alarm])
    desk.client("lambda").delete_function(FunctionName=outputs[StackOutput.CONTROLLER_NAME])
    preview = desk.checkout.pulumi("preview", "--refresh", "--stack", desk.stack)
    for name in DELETED:
        assert f" {name} create" in preview
    desk.checkout.pulumi("refresh", "--yes", "--skip-preview", "--stack", desk.stack)
    desk.is_whole()
    assert len(desk.client("iot").list_things_in_thing_group(**ring)["things"]) == 3


def test_an_interrupted_deployment_is_finished_by_the_next(desk: Desk) -> None:
    desk.checkout.pulumi("destroy", "--yes", "--skip-preview", "--stack", desk.stack)
    for made in (5, 15, 25):
        desk.interrupt(made)
    desk.is_whole()


def test_without_a_right_it_says_which_and_goes_on_with_it(tmp_path: Path) -> None:
    instance = free_instance(tmp_path / "sandbox")
    ministack.start(instance)
    try:
        desk = Desk(instance, tmp_path, "local")
        iam, user = desk.client("iam"), {"UserName": "deployer"}
        iam.create_user(**user)
        key = iam.create_access_key(**user)["AccessKey"]
        desk.checkout.edit(
            "local",
            **{
                "aws:accessKey": f'"{key["AccessKeyId"]}"',
                "aws:secretKey": f'"{key["SecretAccessKey"]}"',
            },
        )

        def allow(*but: str) -> None:
            statements = [{"Effect": "Allow", "Action": "*", "Resource": "*"}]
            statements += [{"Effect": "Deny", "Action": one, "Resource": "*"} for one in but]
            document = json.dumps({"Version": "2012-10-17", "Statement": statements})
            iam.put_user_policy(**user, PolicyName="rights", PolicyDocument=document)

        allow("sqs:CreateQueue")
        words = ("up", "--yes", "--skip-preview", "--stack", "local")
        printed = desk.checkout.pulumi(*words, fails=True)
        told = printed.partition("Diagnostics:")[2]
        assert "channel-controller-dead-letters" in told
        assert "sqs:CreateQueue" in told.replace("sqs:createqueue", "sqs:CreateQueue")
        assert "Traceback" not in printed
        allow()
        desk.is_whole()
    finally:
        session.down(instance)
