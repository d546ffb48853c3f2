"""ENGINE=pulumi: the Pulumi CLI and the real AWS plugin deploy into the sandbox. Not yet run
anywhere.

State is a file backend inside the sandbox's folder; the stack file is a copy of Pulumi.local.yaml
with the provider's endpoints on loopback.
"""

from __future__ import annotations

import os
import shutil
import subprocess

import yaml

from components.stack_file import ROOT
from ops import local_aws
from sandbox import ministack
from sandbox.deploy import RESOURCES, STACK, STACK_FILE
from sandbox.instance import Instance, SandboxError
from sandbox.session import Sandbox, connect, picked_version

BACKEND = "pulumi"
"""Folder of the file backend; where it is, this engine deployed."""


def build(instance: Instance) -> Sandbox:
    """Deploys with the Pulumi CLI; raises SandboxError when it is not installed or says no."""
    if shutil.which("pulumi") is None:
        raise SandboxError(
            "ENGINE=pulumi needs the Pulumi CLI: https://www.pulumi.com/docs/iac/download-install/"
        )
    if version := picked_version(instance):
        raise SandboxError(
            f"ENGINE=pulumi releases what Pulumi.local.yaml says, and {version} was chosen: `make"
            " down` first"
        )
    if (instance.folder / RESOURCES).exists():
        raise SandboxError("this sandbox was deployed without ENGINE=pulumi: `make down` first")
    endpoint = local_aws.endpoint(ministack.start(instance).port)
    stack = yaml.safe_load((ROOT / STACK_FILE).read_text())
    config = stack["config"]
    config |= {"aws:accessKey": local_aws.ACCOUNT, "aws:secretKey": local_aws.SECRET}
    config["aws:endpoints"] = [
        dict.fromkeys(services, endpoint) for services in config["aws:endpoints"]
    ]
    instance.write(STACK_FILE, yaml.safe_dump(stack))
    _pulumi(instance, "stack", "select", "--create", STACK)
    file = str(instance.folder / STACK_FILE)
    up = ("up", "--yes", "--skip-preview", "--stack", STACK, "--config-file", file)
    _pulumi(instance, *up)
    outputs = _pulumi(instance, "stack", "output", "--json", "--show-secrets", "--stack", STACK)
    instance.write(local_aws.OUTPUTS_FILE, outputs)
    return connect(instance)


def _pulumi(instance: Instance, *words: str) -> str:
    backend = instance.folder / BACKEND
    backend.mkdir(exist_ok=True)
    own = {
        "PULUMI_BACKEND_URL": f"file://{backend}",
        "PULUMI_CONFIG_PASSPHRASE": "sandbox",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }
    command = ["pulumi", "--non-interactive", "--cwd", str(ROOT), *words]
    done = subprocess.run(
        command, env={**os.environ, **own}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SandboxError(f"pulumi {words[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
