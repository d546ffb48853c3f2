"""The local AWS: one MiniStack process, detached, on loopback."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ops.local_aws import PROCESS_FILE
from sandbox.instance import Instance, SandboxError

LOG = "ministack.log"
START_SECONDS = 30.0
STOP_SECONDS = 5.0
FREE_SECONDS = 1.0
"""A process that was killed gives its ports back a moment after it is gone."""
LAUNCHER = str(Path(__file__).with_name("ministack_launcher.py"))
PASSED_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
"""All that MiniStack, and the functions it runs, see of the caller's environment."""


@dataclass(frozen=True, kw_only=True)
class MiniStackProcess:
    """A MiniStack that was started. `token` is this process's own: another start has another."""

    pid: int
    token: str
    port: int
    mqtt_port: int

    def is_alive(self) -> bool:
        """Whether it runs; a process that merely has its old id is not it."""
        return _mark(self.token) in command_line(self.pid)

    def is_healthy(self) -> bool:
        return self.health().get("iot_mtls") == "listening"

    def health(self) -> dict[str, Any]:
        """What MiniStack says of itself; empty when it does not answer."""
        try:
            answer: dict[str, Any] = json.loads(self._get("/_ministack/health"))
        except (OSError, http.client.HTTPException, ValueError):
            return {}
        return answer

    def certificate_authority(self) -> str:
        """The broker's root certificate (PEM)."""
        return self._get("/_ministack/iot/ca.pem").decode()

    def _get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()


_started: dict[int, subprocess.Popen[bytes]] = {}
"""By process id: those that this very process started, which must be waited for when they end."""


def start(instance: Instance) -> MiniStackProcess:
    """The MiniStack of this sandbox, started if it does not run. Raises SandboxError when it cannot
    be."""
    instance.create()
    process = find(instance)
    if process is None or not process.is_healthy():
        stop(instance)
        _check_free(instance.port, "SANDBOX_PORT")
        _check_free(instance.mqtt_port, "SANDBOX_MQTT_PORT")
        return _launch(instance)
    if (instance.port, instance.mqtt_port) != (process.port, process.mqtt_port):
        raise SandboxError(
            f"the sandbox in {instance.folder} already runs on the ports {process.port} and"
            f" {process.mqtt_port} (SANDBOX_PORT, SANDBOX_MQTT_PORT); `make down` ends it"
        )
    return process


def stop(instance: Instance) -> None:
    """Ends the MiniStack of this sandbox, if it runs, and the functions that it runs."""
    if process := find(instance):
        for how in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, how)
            deadline = time.monotonic() + STOP_SECONDS
            while (alive := process.is_alive()) and time.monotonic() < deadline:
                time.sleep(0.02)
            if not alive:
                break
        if child := _started.pop(process.pid, None):
            child.wait()
    (instance.folder / PROCESS_FILE).unlink(missing_ok=True)
    shutil.rmtree(instance.folder / "tmp", ignore_errors=True)


def find(instance: Instance) -> MiniStackProcess | None:
    """The MiniStack that was started for this sandbox, if its process lives."""
    try:
        process = MiniStackProcess(**instance.read(PROCESS_FILE))
    except TypeError:
        return None
    return process if process.is_alive() else None


def _launch(instance: Instance) -> MiniStackProcess:
    """Starts it detached: its own session, no terminal and no pipe of the caller's.

    The token stands in the command line as an -X option, which Python ignores, so that the process
    can be told from every other one.
    """
    folder, log = instance.folder, instance.folder / LOG
    for name in ("tmp", "home"):
        (folder / name).mkdir(exist_ok=True)
    token = uuid.uuid4().hex
    settings = {
        "AUTH": str(instance.auth).lower(),
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(instance.port),
        "IOT_MTLS_PORT": str(instance.mqtt_port),
        "LOG_LEVEL": "WARNING",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "DOCKER_HOST": f"unix://{folder / 'no-docker'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    passed = {name: os.environ[name] for name in PASSED_VARIABLES if name in os.environ}
    with log.open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-P", "-X", _mark(token), LAUNCHER],
            env={**passed, **settings},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    _started[child.pid] = child
    ports = {"port": instance.port, "mqtt_port": instance.mqtt_port}
    process = MiniStackProcess(pid=child.pid, token=token, **ports)
    instance.write(PROCESS_FILE, json.dumps(asdict(process)))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        mqtt = process.health().get("iot_mtls", "starting")
        if mqtt == "listening":
            return process
        if child.poll() is not None or mqtt != "starting":
            break
        time.sleep(0.05)
    stop(instance)
    text = log.read_text(errors="replace")
    said = [line.strip() for line in text.splitlines() if line.strip()] or ["it wrote nothing"]
    raise SandboxError(f"MiniStack did not start: {said[-1]} (its log is {log})")


def _mark(token: str) -> str:
    return f"iot-ota-sandbox={token}"


def command_line(pid: int) -> str:
    """The command line of a process; empty when it does not exist or has ended and was not yet
    waited for."""
    if Path("/proc/self").exists():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return ""
        return words.replace(b"\0", b" ").decode(errors="replace")
    command = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _check_free(port: int, variable: str) -> None:
    deadline = time.monotonic() + FREE_SECONDS
    while _is_taken(port):
        if time.monotonic() > deadline:
            other = port + 10_000 if port < 50_000 else port - 10_000
            raise SandboxError(
                f"port {port} is in use by another program; set {variable} to a free one, e.g."
                f" {variable}={other}"
            )
        time.sleep(0.05)


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            return True
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
