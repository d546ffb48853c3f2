"""ENGINE=pulumi: the Pulumi CLI and the real AWS plugin deploy into the sandbox. Not yet run
anywhere.

State is a file backend inside the sandbox's folder; the stack file is a copy of Pulumi.local.yaml
with the provider's endpoints on loopback.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import yaml

from sandbox import clients, ministack
from sandbox.deploy import OUTPUTS, RESOURCES, STACK
from sandbox.place import ROOT, Place, SandboxError
from sandbox.session import Sandbox, chosen, connect

BACKEND = "pulumi"
"""Folder of the file backend; where it is, this engine deployed."""


def build(place: Place) -> Sandbox:
    """Deploys with the Pulumi CLI; raises SandboxError when it is not installed or says no."""
    if shutil.which("pulumi") is None:
        raise SandboxError(
            "ENGINE=pulumi needs the Pulumi CLI: https://www.pulumi.com/docs/iac/download-install/"
        )
    if version := chosen(place):
        raise SandboxError(
            f"ENGINE=pulumi releases what Pulumi.local.yaml says, and {version} was chosen: `make"
            " down` first"
        )
    if (place.folder / RESOURCES).exists():
        raise SandboxError("this sandbox was deployed without ENGINE=pulumi: `make down` first")
    endpoint = clients.endpoint(ministack.start(place).port)
    stack = yaml.safe_load((ROOT / f"Pulumi.{STACK}.yaml").read_text())
    config = stack["config"]
    config |= {"aws:accessKey": clients.ACCOUNT, "aws:secretKey": clients.SECRET}
    config["aws:endpoints"] = [
        dict.fromkeys(services, endpoint) for services in config["aws:endpoints"]
    ]
    place.write(f"Pulumi.{STACK}.yaml", yaml.safe_dump(stack))
    _pulumi(place, "stack", "select", "--create", STACK)
    _pulumi(
        place,
        "up",
        "--yes",
        "--skip-preview",
        "--stack",
        STACK,
        "--config-file",
        str(place.folder / f"Pulumi.{STACK}.yaml"),
    )
    found = json.loads(
        _pulumi(place, "stack", "output", "--json", "--show-secrets", "--stack", STACK)
    )
    place.write(OUTPUTS, json.dumps(found))
    return connect(place)


def _pulumi(place: Place, *words: str) -> str:
    backend = place.folder / BACKEND
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
