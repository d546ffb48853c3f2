"""The Pulumi CLI as a person runs it, in a checkout of its own, against a local AWS."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

from components.stack_file import ROOT
from ops import local_aws

PROGRAM = (
    "Pulumi.yaml",
    "__main__.py",
    "cloud",
    "components",
    "csr",
    "firmware",
    "functions",
    "rollout",
)
"""What a deployment reads of the repository, beside stack files and the Python environment."""
TO_THE_LOCAL_AWS = re.compile(r"^  aws:(?!region).*\n(?:   .*\n)*", re.MULTILINE)
"""In Pulumi.local.yaml: the provider's credentials and endpoints."""
HTTP_PORT = "127.0.0.1:4566"
PULUMI = ("pulumi", "--non-interactive", "--color", "never")
COMMAND_SECONDS = 400.0


class Checkout:
    """The program and its stack files in a folder that tests may write, with state of its own.

    `said` collects all that the CLI printed.
    """

    def __init__(self, folder: Path, port: int, account: str = local_aws.ACCOUNT) -> None:
        self.folder, self.port, self.account = folder / "checkout", port, account
        self.state, self.passphrase = folder / "state", secrets.token_hex(16)
        self.said: list[str] = []
        self.folder.mkdir(parents=True)
        self.state.mkdir()
        for name in PROGRAM:
            source, copy = ROOT / name, self.folder / name
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy)
        (self.folder / ".venv").symlink_to((ROOT / ".venv").resolve())

    def add_stack(self, stack: str) -> None:
        """`pulumi stack init`, with the committed stack file led to the local AWS."""
        text = (ROOT / f"Pulumi.{stack}.yaml").read_text()
        if stack != "local":
            local = (ROOT / "Pulumi.local.yaml").read_text()
            text += "".join(TO_THE_LOCAL_AWS.findall(local))
        self.stack_file(stack).write_text(
            text.replace(HTTP_PORT, f"127.0.0.1:{self.port}").replace(
                f'"{local_aws.ACCOUNT}"', f'"{self.account}"'
            )
        )
        self.pulumi("stack", "init", stack)

    def stack_file(self, stack: str) -> Path:
        return self.folder / f"Pulumi.{stack}.yaml"

    def edit(self, stack: str, **changes: str) -> None:
        """Changes lines of the stack file, as a person does: `version='"2.2.0"'`."""
        text = self.stack_file(stack).read_text()
        for key, value in changes.items():
            text, found = re.subn(rf"(?m)^( +{key}: ).*$", rf"\g<1>{value}", text)
            assert found == 1, f"{key} stands {found} times in {stack}'s stack file"
        self.stack_file(stack).write_text(text)

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PULUMI_BACKEND_URL": f"file://{self.state}",
            "PULUMI_CONFIG_PASSPHRASE": self.passphrase,
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }

    def pulumi(self, *words: str, fails: bool = False, unsaid: bool = False) -> str:
        """What the CLI printed; it must succeed, or fail if that is what it should do. `unsaid`:
        its output is for programs, and may hold secrets."""
        done = subprocess.run(
            [*PULUMI, *words],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        printed = done.stdout + done.stderr
        if not unsaid:
            self.said.append(printed)
        assert bool(done.returncode) == fails, (
            f"pulumi {' '.join(words)}: {done.returncode}\n{printed}"
        )
        return done.stdout if unsaid else printed

    def up(self, stack: str) -> str:
        return self.pulumi("up", "--yes", "--skip-preview", "--stack", stack)

    def changes_nothing(self, stack: str) -> None:
        """A preview and a refresh find nothing that differs."""
        self.pulumi("preview", "--diff", "--expect-no-changes", "--stack", stack)
        self.pulumi("refresh", "--yes", "--skip-preview", "--expect-no-changes", "--stack", stack)

    def outputs(self, stack: str) -> dict[str, Any]:
        """The stack's, secret ones in plain text."""
        words = ("stack", "output", "--json", "--show-secrets", "--stack", stack)
        found: dict[str, Any] = json.loads(self.pulumi(*words, unsaid=True))
        return found

    def resources(self, stack: str) -> list[dict[str, Any]]:
        """What the state holds, secrets encrypted."""
        exported = json.loads(self.pulumi("stack", "export", "--stack", stack))
        found: list[dict[str, Any]] = exported["deployment"].get("resources", [])
        return found
