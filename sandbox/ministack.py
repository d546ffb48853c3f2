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
from typing import IO, Any

from sandbox.place import Place, SandboxError

RECORD, LOG = "ministack.json", "ministack.log"
START_SECONDS = 30.0
STOP_SECONDS = 5.0
FREE_SECONDS = 1.0
"""A process that was killed gives its ports back a moment after it is gone."""
CLOSED = str(Path(__file__).with_name("closed.py"))
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
"""All that MiniStack, and the functions it runs, see of the caller's environment."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A MiniStack that runs. `token` is this process's own: another start has another."""

    pid: int
    token: str
    port: int
    mqtt_port: int


_started: dict[int, subprocess.Popen[bytes]] = {}
"""By process id: those that this very process started, which must be waited for when they end."""


def start(place: Place) -> Running:
    """The running MiniStack of this place, started if it does not run. Raises SandboxError when it
    cannot be."""
    place.create()
    current = running(place)
    if current and healthy(current):
        _check_ports(place, current)
        return current
    stop(place)
    _check_free("127.0.0.1", place.port, "SANDBOX_PORT")
    _check_free("127.0.0.1", place.mqtt_port, "SANDBOX_MQTT_PORT")
    return _launch(place)


def stop(place: Place) -> bool:
    """Ends the MiniStack of this place and the functions it runs; True if there was one."""
    current = running(place)
    if current:
        for how in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(current.pid, how)
            if _gone(current):
                break
        if child := _started.pop(current.pid, None):
            child.wait()
    (place.folder / RECORD).unlink(missing_ok=True)
    shutil.rmtree(place.folder / "tmp", ignore_errors=True)
    return current is not None


def running(place: Place) -> Running | None:
    """The MiniStack that this place started, if its process lives. A process that merely has its
    old id is not it."""
    data = place.read(RECORD)
    try:
        current = Running(**data)
    except TypeError:
        return None
    return current if _is_ours(current) else None


def healthy(current: Running) -> bool:
    return health(current).get("iot_mtls") == "listening"


def health(current: Running) -> dict[str, Any]:
    """What MiniStack says of itself; empty when it does not answer."""
    try:
        answer: dict[str, Any] = json.loads(get(current, "/_ministack/health"))
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    return answer


def certificate_authority(current: Running) -> str:
    """The broker's root certificate (PEM)."""
    return get(current, "/_ministack/iot/ca.pem").decode()


def get(current: Running, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", current.port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def _launch(place: Place) -> Running:
    for name in ("tmp", "home"):
        (place.folder / name).mkdir(exist_ok=True)
    token = uuid.uuid4().hex
    with (place.folder / LOG).open("wb") as log:
        process = _spawn(place, token, log)
    _started[process.pid] = process
    current = Running(pid=process.pid, token=token, port=place.port, mqtt_port=place.mqtt_port)
    place.write(RECORD, json.dumps(asdict(current)))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        state = health(current).get("iot_mtls", "starting")
        if state == "listening":
            return current
        if process.poll() is not None or state != "starting":
            break
        time.sleep(0.05)
    stop(place)
    raise SandboxError(
        f"MiniStack did not start: {_last_line(place.folder / LOG)} (its log is"
        f" {place.folder / LOG})"
    )


def _spawn(place: Place, token: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Detached: its own session, no terminal and no pipe of the caller's.

    The token stands in the command line as an -X option, which Python ignores, so that the process
    can be told from every other one.
    """
    settings = {
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(place.port),
        "IOT_MTLS_PORT": str(place.mqtt_port),
        "LOG_LEVEL": "WARNING",
        "HOME": str(place.folder / "home"),
        "TMPDIR": str(place.folder / "tmp"),
        "DOCKER_HOST": f"unix://{place.folder / 'no-docker'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-P", "-X", _mark(token), CLOSED],
        env={**passed, **settings},
        cwd=place.folder,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def _mark(token: str) -> str:
    return f"iot-ota-sandbox={token}"


def _is_ours(current: Running) -> bool:
    return _mark(current.token) in command_line(current.pid)


def command_line(pid: int) -> str:
    """The command line of a process; empty when it does not exist or has ended and was not yet
    waited for."""
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        pass
    if Path("/proc/self").exists():
        return ""
    shown = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout


def _gone(current: Running) -> bool:
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        if not _is_ours(current):
            return True
        time.sleep(0.02)
    return False


def _check_ports(place: Place, current: Running) -> None:
    if (place.port, place.mqtt_port) != (current.port, current.mqtt_port):
        raise SandboxError(
            f"the sandbox in {place.folder} already runs on the ports {current.port} and"
            f" {current.mqtt_port} (SANDBOX_PORT, SANDBOX_MQTT_PORT); `make down` ends it"
        )


def _check_free(host: str, port: int, variable: str) -> None:
    deadline = time.monotonic() + FREE_SECONDS
    while _taken(host, port):
        if time.monotonic() > deadline:
            other = port + 10_000 if port < 50_000 else port - 10_000
            raise SandboxError(
                f"port {port} is in use by another program; set {variable} to a free one, e.g."
                f" {variable}={other}"
            )
        time.sleep(0.05)


def _taken(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            return True
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _last_line(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it wrote nothing"
