"""ENGINE=pulumi: the Pulumi CLI and the real AWS provider deploy into the sandbox.

The CLI works on a project of its own in the sandbox's folder, beside its state: a Pulumi.yaml whose
program is the repository's, and a copy of the stack file with this sandbox's endpoints. So it
writes nothing into the repository. Its progress is what the user sees: it has the terminal.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.stack_file import ROOT, read_yaml, to_yaml
from ops import local_aws
from sandbox import ministack
from sandbox.deploy import (
    STACK,
    STACK_FILE,
    Say,
    empty,
    explain_loss,
    mark_as_begun,
    read_token,
)
from sandbox.handlers.registry import Aws
from sandbox.instance import Instance, SandboxError

PROJECT_FOLDER = "pulumi"
"""In the sandbox's folder: project, stack file and state of the CLI."""
LOCKS = Path(".pulumi") / "locks"
"""In the project's folder, in the state: a file while the CLI changes a stack."""
MARK = "pulumi.json"
"""In the sandbox's folder, where the CLI deployed: the `token` of the MiniStack that it is in."""
END_CLI_SECONDS = 5.0
"""Told to end, the CLI waits for the calls under way; told twice, it does not."""
NO_DOWNLOADS = "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"
CLI_HOME, PLUGINS = "home", "plugins"
"""In the project's folder: what the CLI else keeps in ~/.pulumi, and there a link to the plugins
that the user has."""


def has_deployed(instance: Instance) -> bool:
    """Whether the CLI made what is in this sandbox."""
    return (instance.folder / MARK).exists()


def find_left_cli(instance: Instance) -> int | None:
    """The process of a CLI that still deploys, though the command that began it was killed: the CLI
    writes its process into the lock that it takes."""
    folder = instance.folder / PROJECT_FOLDER
    for lock in (folder / LOCKS).rglob("*.json"):
        try:
            process = int(json.loads(lock.read_text())["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # of one that ended meanwhile
        if str(folder) in ministack.command_line(process):
            return process
    return None


def end_left_cli(instance: Instance) -> None:
    """Ends it, in order if it can be: what it deploys is thrown away."""
    for how in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
        process = find_left_cli(instance)
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, how)
        deadline = time.monotonic() + END_CLI_SECONDS
        while find_left_cli(instance) and time.monotonic() < deadline:
            time.sleep(0.1)


def check_cli() -> None:
    """Raises SandboxError when the Pulumi CLI is not installed."""
    if shutil.which("pulumi") is None:
        raise SandboxError(
            "ENGINE=pulumi needs the Pulumi CLI: https://www.pulumi.com/docs/iac/download-install/"
        )


def deploy_by_cli(
    instance: Instance,
    *,
    root: Path = ROOT,
    overrides: Mapping[str, Any] | None = None,
    say: Say = print,
) -> None:
    """Makes the sandbox what the program and `Pulumi.local.yaml` say, as `sandbox.deploy.deploy`
    does; the CLI shows its progress.

    Raises SandboxError when the CLI is not installed, or says no; the next call goes on from there.
    Raises StackFileError, and KeyboardInterrupt once the CLI has ended in order.
    """
    check_cli()
    if left := find_left_cli(instance):
        raise SandboxError(
            f"the Pulumi CLI (process {left}) of a command that was killed still deploys: wait for"
            " it, or `make down` first"
        )
    process = ministack.start(instance)
    aws = Aws(port=process.port, region="us-east-1")  # TOKEN is in one region, whatever the stack's
    recorded = (instance.read(MARK) or {}).get("token")
    found = read_token(aws)
    if why := explain_loss(found, recorded, process.token):
        process, recorded = empty(instance, aws, why, say), None
    folder = instance.folder / PROJECT_FOLDER
    if recorded is None:
        shutil.rmtree(folder, ignore_errors=True)
    _write_project(folder, root, local_aws.endpoint(process.port), overrides or {})
    if recorded is None:
        _ask(folder, "stack", "init", STACK, "--no-select")
        instance.write(MARK, json.dumps({"token": process.token}))
        mark_as_begun(instance, aws, process.token)
    if any(path.is_file() for path in (folder / LOCKS).rglob("*")):
        # of a run that was killed: this command alone uses the sandbox
        _ask(folder, "cancel", "--yes", "--stack", STACK)
    _show(folder, "up", "--yes", "--skip-preview", "--suppress-outputs", "--stack", STACK)
    outputs = _ask(folder, "stack", "output", "--json", "--show-secrets", "--stack", STACK)
    instance.write(local_aws.OUTPUTS_FILE, outputs)


def _write_project(folder: Path, root: Path, endpoint: str, overrides: Mapping[str, Any]) -> None:
    """Pulumi.yaml and the stack file. What the CLI itself wrote into its copy, a salt, stays."""
    folder.mkdir(exist_ok=True)
    project = read_yaml(root / "Pulumi.yaml")
    python = {"toolchain": "pip", "virtualenv": sys.prefix}
    project |= {"main": str(root), "runtime": {"name": "python", "options": python}}
    (folder / "Pulumi.yaml").write_text(to_yaml(project), encoding="utf-8")
    config = read_yaml(root / STACK_FILE)["config"]
    config |= {"aws:accessKey": local_aws.ACCOUNT, "aws:secretKey": local_aws.SECRET, **overrides}
    config["aws:endpoints"] = [
        dict.fromkeys(services, endpoint) for services in config["aws:endpoints"]
    ]
    file = folder / STACK_FILE
    old = read_yaml(file) if file.exists() else {}
    file.write_text(to_yaml({**old, "config": config}), encoding="utf-8")


def _begin_pulumi(folder: Path, words: tuple[str, ...], **options: Any) -> subprocess.Popen[str]:
    """The CLI, which hears of the caller's own Pulumi settings (a backend, a stack, a passphrase)
    only where the plugins are."""
    plugins = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi") / PLUGINS
    (folder / CLI_HOME).mkdir(exist_ok=True)
    if plugins.is_dir() and not (folder / CLI_HOME / PLUGINS).exists():
        (folder / CLI_HOME / PLUGINS).symlink_to(plugins.absolute())
    foreign = [name for name in os.environ if name.startswith("PULUMI_") and name != NO_DOWNLOADS]
    own = {
        "PULUMI_BACKEND_URL": folder.as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": "sandbox",
        "PULUMI_HOME": str(folder / CLI_HOME),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }
    return subprocess.Popen(
        ["pulumi", "--cwd", str(folder), *words],
        env={**{name: os.environ[name] for name in os.environ.keys() - foreign}, **own},
        text=True,
        **options,
    )


def _ask(folder: Path, *words: str) -> str:
    """What the CLI answers."""
    pipe = subprocess.PIPE
    with _begin_pulumi(
        folder, (*words, "--non-interactive"), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
    ) as asked:
        answer, trouble = asked.communicate()
    if asked.returncode:
        raise SandboxError(f"`pulumi {' '.join(words[:2])}` failed:\n{answer}{trouble}".rstrip())
    return answer


def _show(folder: Path, *words: str) -> None:
    """Runs the CLI in the user's sight, to its end in order whatever the user presses.

    A terminal sends Ctrl-C to the CLI too, which ends once the calls under way have been answered.
    Without a terminal, and on SIGTERM, it is told here.
    """
    is_told = sys.stdin.isatty()
    stopped: list[int] = []

    def stop(number: int, _frame: object) -> None:
        stopped.append(number)
        if number != signal.SIGINT or not is_told:
            shown.send_signal(signal.SIGINT)

    shown = _begin_pulumi(folder, words, process_group=None if is_told else 0)
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        shown.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped:
        raise KeyboardInterrupt
    if shown.returncode:
        raise SandboxError(
            "`pulumi up` failed, and says above why: `make up` goes on from there, `make down` ends"
            " the sandbox"
        )
