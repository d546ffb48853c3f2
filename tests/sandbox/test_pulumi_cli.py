"""ENGINE=pulumi, with a command that stands for the Pulumi CLI: what the sandbox tells it, and what
becomes of its answers. The real one is run by tests/engine."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.stack_file import ROOT, read_yaml
from sandbox import ministack, session
from sandbox.deploy import STACK_FILE, read_outputs
from sandbox.first_words import Engine
from sandbox.instance import Instance, SandboxError
from sandbox.pulumi_cli import deploy_by_cli, find_left_cli

STAND_IN = f"""#!{sys.executable}
import json, os, signal, sys, time
from pathlib import Path
folder, words = Path(sys.argv[2]), sys.argv[3:]
seen = {{name: value for name, value in os.environ.items() if name.startswith("PULUMI_")}}
with open(os.environ["CALLS"], "a") as calls:
    print(json.dumps({{"folder": str(folder), "words": words, "environment": seen}}), file=calls)
if words[:2] == ["stack", "init"]:
    path = folder / "Pulumi.local.yaml"
    path.write_text(json.dumps({{**json.loads(path.read_text()), "encryptionsalt": "v1:salt"}}))
elif words[:2] == ["stack", "output"]:
    print(json.dumps({{"made": "by the CLI"}}))
elif words[0] == "cancel":
    for lock in (folder / ".pulumi" / "locks").rglob("*.json"):
        lock.unlink()
elif words[0] == "up":
    print("@ updating...", flush=True)
    if "WAITS" in os.environ:
        lock = folder / ".pulumi" / "locks" / "organization" / "one.json"
        lock.parent.mkdir(parents=True)
        lock.write_text(json.dumps({{"pid": os.getpid()}}))
        signal.signal(signal.SIGINT, lambda *_: sys.exit(print("ended in order") or 255))
        Path(os.environ["WAITS"]).touch()
        time.sleep(60)
    if "FAILS" in os.environ:
        sys.exit("error: no")
"""
INIT = ["stack", "init", "local", "--no-select", "--non-interactive"]
UP = ["up", "--yes", "--skip-preview", "--suppress-outputs", "--stack", "local"]
OUTPUT = ["stack", "output", "--json", "--show-secrets", "--stack", "local", "--non-interactive"]
CANCEL = ["cancel", "--yes", "--stack", "local", "--non-interactive"]


class Cli:
    """The stand-in on the PATH, and what it was told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "calls"
        command = folder / "pulumi"
        command.write_text(STAND_IN)
        command.chmod(command.stat().st_mode | stat.S_IXUSR)

    def calls(self) -> list[dict[str, Any]]:
        """Since this was asked last."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    def words(self) -> list[list[str]]:
        return [call["words"] for call in self.calls()]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    folder = tmp_path / "bin"
    folder.mkdir()
    cli = Cli(folder)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(cli.log))
    return cli


@pytest.fixture
def said() -> list[str]:
    return []


def start_up(instance: Instance, **environment: str) -> subprocess.Popen[str]:
    """`make up`, without a terminal."""
    own = {
        "ENGINE": "pulumi",
        "SANDBOX_DIR": str(instance.folder),
        "SANDBOX_PORT": str(instance.port),
        "SANDBOX_MQTT_PORT": str(instance.mqtt_port),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "sandbox", "up"],
        cwd=ROOT,
        env={**os.environ, **own, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def changed_files() -> str:
    status = ["git", "status", "--porcelain", "Pulumi.yaml", STACK_FILE]
    return subprocess.run(status, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def test_the_cli_works_on_a_project_of_its_own(
    cli: Cli, instance: Instance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = changed_files()
    monkeypatch.setenv("PULUMI_STACK", "prod")
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://theirs")
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "plugins").mkdir(parents=True)
    deploy_by_cli(instance, overrides={"iot-ota:tags": {"serial": "0008", "word": "no"}})
    calls, folder = cli.calls(), instance.folder / "pulumi"
    assert [call["words"] for call in calls] == [INIT, UP, OUTPUT]
    for call in calls:
        assert call["folder"] == str(folder)
        assert call["environment"] == {
            "PULUMI_BACKEND_URL": f"file://{folder}",
            "PULUMI_CONFIG_PASSPHRASE": "sandbox",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }, "nothing of the caller's"
    assert (folder / "home" / "plugins").resolve() == tmp_path / "home" / "plugins"
    project, theirs = read_yaml(folder / "Pulumi.yaml"), read_yaml(ROOT / "Pulumi.yaml")
    python = {"toolchain": "pip", "virtualenv": sys.prefix}
    assert project == {
        **theirs,
        "main": str(ROOT),
        "runtime": {"name": "python", "options": python},
    }
    copy, original = read_yaml(folder / STACK_FILE), read_yaml(ROOT / STACK_FILE)["config"]
    [endpoints] = copy["config"].pop("aws:endpoints")
    assert set(endpoints.values()) == {f"http://127.0.0.1:{instance.port}"}
    assert set(endpoints) == set(original.pop("aws:endpoints")[0])
    assert copy["config"] == {**original, "iot-ota:tags": {"serial": "0008", "word": "no"}}
    assert copy["encryptionsalt"] == "v1:salt"
    assert read_outputs(instance) == {"made": "by the CLI"}
    assert changed_files() == before, "the repository is as it was"


def test_a_second_time_goes_on_from_the_first(
    cli: Cli, instance: Instance, said: list[str]
) -> None:
    deploy_by_cli(instance, say=said.append)
    cli.calls()
    deploy_by_cli(instance, say=said.append)
    assert cli.words() == [UP, OUTPUT]
    assert read_yaml(instance.folder / "pulumi" / STACK_FILE)["encryptionsalt"] == "v1:salt"
    assert said == []


def test_the_lock_of_a_run_that_was_killed_is_taken_away(cli: Cli, instance: Instance) -> None:
    deploy_by_cli(instance)
    cli.calls()
    locks = instance.folder / "pulumi" / ".pulumi" / "locks" / "organization"
    locks.mkdir(parents=True)
    (locks / "one.json").write_text("{}")
    deploy_by_cli(instance)
    assert cli.words() == [CANCEL, UP, OUTPUT]


def test_what_was_lost_is_built_from_empty(cli: Cli, instance: Instance, said: list[str]) -> None:
    deploy_by_cli(instance)
    cli.calls()
    (instance.folder / "pulumi" / "old").touch()
    ministack.stop(instance)
    deploy_by_cli(instance, say=said.append)
    assert said == ["the local AWS was stopped or emptied: the sandbox is rebuilt from empty"]
    assert cli.words() == [INIT, UP, OUTPUT]
    assert not (instance.folder / "pulumi" / "old").exists()
    running = ministack.find(instance)
    (instance.folder / "pulumi.json").unlink()
    deploy_by_cli(instance, say=said.append)
    assert said[1] == "what was deployed is not on record: the sandbox is rebuilt from empty"
    assert cli.words() == [INIT, UP, OUTPUT]
    assert ministack.find(instance) != running


def test_a_failure_is_the_clis_to_explain_and_the_next_run_goes_on(
    cli: Cli, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILS", "1")
    with pytest.raises(SandboxError, match="`pulumi up` failed, and says above why"):
        deploy_by_cli(instance)
    monkeypatch.delenv("FAILS")
    cli.calls()
    deploy_by_cli(instance)
    assert cli.words() == [UP, OUTPUT]


def test_the_two_deployers_do_not_mix(cli: Cli, instance: Instance, tmp_path: Path) -> None:
    session.check_engine(instance, Engine.PULUMI)
    session.check_engine(instance, Engine.IN_PROCESS)
    deploy_by_cli(instance)
    session.check_engine(instance, Engine.PULUMI)
    with pytest.raises(SandboxError, match="deployed with ENGINE=pulumi: set it again, or `make"):
        session.build(instance)
    session.down(instance)
    assert not instance.folder.exists()
    instance.create()
    instance.write("resources.json", "{}")
    with pytest.raises(SandboxError, match="without ENGINE=pulumi: go on without it, or `make"):
        session.build(instance, engine=Engine.PULUMI)


@pytest.fixture
def at_work(cli: Cli, instance: Instance, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`make up` while the CLI deploys."""
    mark = tmp_path / "deploys"
    with start_up(instance, WAITS=str(mark)) as up:
        end = time.monotonic() + 60
        while not mark.exists():
            assert up.poll() is None, up.communicate()
            assert time.monotonic() < end, "the CLI was not asked to deploy"
            time.sleep(0.05)
        yield up
        up.kill()


def test_up_shows_what_the_cli_shows_and_ends_it_in_order(
    at_work: subprocess.Popen[str], instance: Instance
) -> None:
    assert at_work.stdout is not None
    assert at_work.stdout.readline().startswith("Starting a local AWS (MiniStack), deploying the")
    assert at_work.stdout.readline() == "@ updating...\n", "while it deploys"
    at_work.send_signal(signal.SIGINT)
    out, trouble = at_work.communicate(timeout=20)
    assert (out, at_work.returncode) == ("ended in order\n", 130)
    assert trouble == "interrupted; the sandbox stays: `make up` goes on, `make down` ends it\n"
    assert ministack.find(instance) is not None


def test_down_ends_the_cli_too(at_work: subprocess.Popen[str], instance: Instance) -> None:
    assert session.down(instance) is True
    assert at_work.communicate(timeout=20)[0].endswith("ended in order\n")
    assert at_work.returncode == 130
    assert not instance.folder.exists()


def test_a_cli_that_outlived_its_command_is_waited_for_or_ended(
    at_work: subprocess.Popen[str], instance: Instance
) -> None:
    at_work.kill()
    at_work.wait()
    left = find_left_cli(instance)
    assert left is not None
    with pytest.raises(SandboxError, match=rf"\(process {left}\) of a command that was killed"):
        deploy_by_cli(instance)
    assert session.down(instance) is True
    assert not instance.folder.exists()
    assert not ministack.command_line(left)


def test_the_first_words_come_before_what_takes_time() -> None:
    code = (
        "import os, sys; from sandbox.first_words import find_first_words as words\n"
        "print(words(['up'], os.environ))\n"
        "assert not {'boto3', 'pulumi', 'rich'} & {*sys.modules}, 'loaded already'"
    )
    for engine, how in (("", "in this process"), ("pulumi", "by the Pulumi CLI")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "ENGINE": engine},
            capture_output=True,
            text=True,
            check=True,
        )
        assert how in done.stdout
