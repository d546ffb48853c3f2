"""`make up`, `release`, `status` and `down` with ENGINE=pulumi and the real CLI: all that they do
without it, with the CLI's own progress in sight, and nothing written into the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.stack_file import ROOT
from sandbox import session
from sandbox.instance import Instance
from tests.sandbox.conftest import free_instance

pytestmark = pytest.mark.long
COMMAND_SECONDS = 400.0


class Desk:
    """A person at the repository, with a sandbox on free ports."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance

    def run(self, *words: str, engine: str = "pulumi") -> subprocess.CompletedProcess[str]:
        own = {
            "ENGINE": engine,
            "SANDBOX_DIR": str(self.instance.folder),
            "SANDBOX_PORT": str(self.instance.port),
            "SANDBOX_MQTT_PORT": str(self.instance.mqtt_port),
        }
        return subprocess.run(
            [sys.executable, "-m", "sandbox", *words],
            cwd=ROOT,
            env={**os.environ, **own},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(free_instance(tmp_path / "sandbox"))
    yield desk
    session.down(desk.instance)


def stack_files() -> dict[str, str]:
    return {path.name: path.read_text() for path in ROOT.glob("Pulumi*.yaml")}


def test_the_sandbox_lives_its_life_with_the_cli(desk: Desk) -> None:
    before = stack_files()
    up = desk.run("up")
    assert up.returncode == 0, up.stdout + up.stderr
    assert up.stdout.startswith(
        "Starting a local AWS (MiniStack), deploying the stack `local` into"
    )
    assert "Updating (local):" in up.stdout, "the CLI's own words"
    assert " created (" in up.stdout, "resource by resource"
    assert "PRIVATE KEY" not in up.stdout
    assert up.stdout.endswith("every device runs 2.1.0, and it is the last good release\n")
    other = desk.run("up", engine="")
    assert (other.returncode, other.stderr) == (
        1,
        "this sandbox was deployed with ENGINE=pulumi: set it again, or `make down` first\n",
    )
    good = desk.run("release", "2.2.0")
    assert good.returncode == 0, good.stdout + good.stderr
    assert good.stdout.endswith("every device runs 2.2.0, and it is the last good release\n")
    again = desk.run("up")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Keeping 2.2.0, which `release` chose" in again.stdout
    assert " changes. " not in again.stdout, "a second time changes nothing"
    bad = desk.run("release", "2.3.0")
    assert (bad.returncode, bad.stderr) == (1, "")
    assert "2.3.0 was stopped and rolled back to 2.2.0\n" in bad.stdout
    status = json.loads(desk.run("status", "--json").stdout)
    assert {device["version"] for device in status["devices"]} == {"2.2.0"}
    assert len(status["devices"]) == 20
    assert desk.run("down").stdout == "The sandbox is gone.\n"
    assert not desk.instance.folder.exists()
    assert stack_files() == before, "the committed files are as they were"
