"""What the tests of the device share: a signing key, an example release, an IoT Jobs in memory, and
HTTP servers that misbehave on demand."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from device.agent import Device, DeviceConfig, Faults
from device.connection import (
    ConnectionConfig,
    ExecutionStatus,
    JobEnded,
    JobExecution,
    JobHandout,
    VersionMismatch,
)
from device.flash import Flash
from device.mqtt import Stopped
from rollout.job_document import OPERATION, ReleaseStatement
from rollout.jws import compact_jws, signing_input
from rollout.version import Version

KEY = ec.generate_private_key(ec.SECP256R1())
URL = "https://firmware.example/image"


def pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def signed(payload: object, key: ec.EllipticCurvePrivateKey = KEY) -> str:
    text = signing_input("iotota-release+jws", "key", payload)
    return compact_jws(text, key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))


def document(payload: object, **changes: Any) -> dict[str, Any]:
    return {"operation": OPERATION, "release": signed(payload), "url": URL} | changes


STATEMENT = ReleaseStatement(
    contract=1,
    job="job",
    channel="stable",
    hardware="gateway-a1",
    version=Version("2.1.0"),
    sha256="a" * 64,
    size=10,
    sequence=100,
)
IMAGE = (
    b'{"hardware": "gateway-a1", "selfTest": "pass", "version": "2.1.0"}\n'
    + bytes(range(256)) * 400
)
BAD_IMAGE = IMAGE.replace(b'"pass"', b'"fail"')


def factory_flash(folder: Path) -> Flash:
    return Flash(folder, Version("v2.0.0"), "0" * 64)


@dataclass
class FakeIot:
    """The jobs and the shadow of one thing. `errors` is raised by the next calls, after the call
    has taken effect."""

    jobs: list[dict[str, Any]] = field(default_factory=list)
    updates: list[dict[str, Any]] = field(default_factory=list)
    shadow: list[dict[str, Any]] = field(default_factory=list)
    errors: list[tuple[str, Exception | None]] = field(default_factory=list)
    on_update: Callable[[dict[str, Any], dict[str, str]], None] = lambda job, details: None
    idle: threading.Event = field(default_factory=threading.Event)
    """Set when the device asked for work and there was none."""

    def offer(
        self, statement: ReleaseStatement, url: str, job_id: str | None = None, number: int = 1
    ) -> dict[str, Any]:
        job_id = job_id or f"job-{len(self.jobs)}"
        job = {
            "id": job_id,
            "number": number,
            "version": 1,
            "status": "QUEUED",
            "document": document(replace(statement, job=job_id), url=url),
            "seconds": 300.0,
        }
        self.jobs.append(job)
        return job

    def connect(
        self,
        config: ConnectionConfig,
        on_ready: Callable[[], None],
        on_trouble: Callable[[str], None],
    ) -> FakeIotClient:
        return FakeIotClient(self, on_ready)

    def raise_error(self, call: str) -> None:
        if self.errors and self.errors[0][0] == call:
            _, error = self.errors.pop(0)
            if error is not None:
                raise error


class FakeIotClient:
    def __init__(self, iot: FakeIot, on_ready: Callable[[], None]) -> None:
        self._iot, self.start = iot, on_ready
        self._stopped = threading.Event()

    def interrupt(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        self._stopped.set()

    def sleep(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise Stopped

    def find_next_job(self) -> JobExecution | None:
        pending = [job for job in self._iot.jobs if job["status"] in ("QUEUED", "IN_PROGRESS")]
        pending.sort(key=lambda job: job["status"])
        self._iot.raise_error("find_next_job")
        if not pending:
            self._iot.idle.set()
            return None
        job = pending[0]
        return JobExecution(
            job_id=job["id"],
            number=job["number"],
            version=job["version"],
            is_queued=job["status"] == "QUEUED",
        )

    def fetch_document(self, execution: JobExecution) -> JobHandout:
        self._iot.raise_error("fetch_document")
        job = self._job(execution)
        assert job["status"] == "IN_PROGRESS", "IoT has no time that is left for others"
        return JobHandout(document=job["document"], seconds_left=job["seconds"])

    def update_job(
        self,
        execution: JobExecution,
        status: ExecutionStatus,
        details: dict[str, str] | None = None,
    ) -> JobExecution:
        job = self._job(execution)
        if details is not None:
            self._iot.on_update(job, details)
        if job["status"] not in ("QUEUED", "IN_PROGRESS"):
            raise JobEnded(job["status"])
        if job["version"] != execution.version:
            raise VersionMismatch(job["version"])
        job |= {"status": status, "version": execution.version + 1}
        if details is not None:
            self._iot.updates.append(
                {"job": job["id"], "number": job["number"], "status": status, "details": details}
            )
        self._iot.raise_error("update_job")
        return replace(execution, version=job["version"], is_queued=False)

    def update_shadow(self, reported: dict[str, Any]) -> None:
        self._iot.shadow.append(reported)
        self._iot.raise_error("update_shadow")

    def _job(self, execution: JobExecution) -> dict[str, Any]:
        return next(
            job
            for job in self._iot.jobs
            if (job["id"], job["number"]) == (execution.job_id, execution.number)
        )


def config(folder: Path) -> DeviceConfig:
    return DeviceConfig(
        thing="fleet-1",
        serial="1",
        certificate_pem="",
        private_key_pem="",
        ca_pem="",
        host="",
        port=0,
        public_key_pem=pem(KEY),
        channel="stable",
        hardware="gateway-a1",
        initial_version=Version("2.0.0"),
        initial_sha256="0" * 64,
        folder=folder,
    )


def run_until_idle(
    iot: FakeIot, folder: Path, faults: Faults | None = None, download_ca_pem: str = ""
) -> list[str]:
    """One life of the device: until it has no work, or dies. Returns its notices."""
    notices: list[str] = []
    iot.idle.clear()
    device = Device(
        replace(config(folder), download_ca_pem=download_ca_pem),
        lambda serial, text: notices.append(text),
        faults=faults or Faults(),
        connect=iot.connect,
    )
    device.start()
    try:
        for _ in range(1000):
            if iot.idle.wait(0.01) or device.died.is_set():
                return notices
        raise AssertionError(f"neither idle nor dead: {notices}")
    finally:
        device.stop()


def statement_of(content: bytes, **changes: Any) -> ReleaseStatement:
    return replace(
        STATEMENT, sha256=hashlib.sha256(content).hexdigest(), size=len(content), **changes
    )


@dataclass
class ImageHost:
    """An HTTP server of one image; `script` holds what it does with the next requests, and then it
    behaves."""

    content: bytes = IMAGE
    script: list[Callable[[ImageHost, BaseHTTPRequestHandler], None]] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    """The Range header of each request."""
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.ranges.append(request.headers["Range"])
        (self.script.pop(0) if self.script else ImageHost.serve_image)(self, request)

    def serve_image(self, request: BaseHTTPRequestHandler) -> None:
        start, total = int((request.headers["Range"] or "bytes=0-")[6:-1]), len(self.content)
        if start >= total:
            send(request, 416, b"")
        elif request.headers["Range"]:
            content_range = {"Content-Range": f"bytes {start}-{total - 1}/{total}"}
            send(request, 206, self.content[start:], content_range)
        else:
            send(request, 200, self.content)


def send(
    request: BaseHTTPRequestHandler,
    code: int,
    body: bytes,
    headers: dict[str, str] | None = None,
    cut: int | None = None,
) -> None:
    request.send_response(code)
    for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body[:cut])


def refuse(code: int) -> Callable[[ImageHost, BaseHTTPRequestHandler], None]:
    return lambda host, request: send(request, code, b"no")


def cut_at(count: int) -> Callable[[ImageHost, BaseHTTPRequestHandler], None]:
    """Promises everything that was asked for and closes after so many bytes of it."""

    def answer(host: ImageHost, request: BaseHTTPRequestHandler) -> None:
        start = int((request.headers["Range"] or "bytes=0-")[6:-1])
        total = len(host.content)
        headers = {"Content-Range": f"bytes {start}-{total - 1}/{total}"} if start else {}
        send(request, 206 if start else 200, host.content[start:], headers, cut=count)

    return answer


def ignore_range(host: ImageHost, request: BaseHTTPRequestHandler) -> None:
    send(request, 200, host.content)


def send_other_range(host: ImageHost, request: BaseHTTPRequestHandler) -> None:
    total = len(host.content)
    send(request, 206, host.content[5:], {"Content-Range": f"bytes 5-{total - 1}/{total}"})


def omit_range(host: ImageHost, request: BaseHTTPRequestHandler) -> None:
    send(request, 206, host.content)


def never_end(host: ImageHost, request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(b"x" * 65_536)
    except OSError:
        pass


def redirect(host: ImageHost, request: BaseHTTPRequestHandler) -> None:
    send(request, 302, b"", {"Location": host.url + "?elsewhere"})


@contextmanager
def serve_http() -> Iterator[ThreadingHTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.server.host.answer(self)  # type: ignore[attr-defined]

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def new_host(http_server: ThreadingHTTPServer) -> ImageHost:
    host = ImageHost(url=f"http://127.0.0.1:{http_server.server_port}/image")
    http_server.host = host  # type: ignore[attr-defined]
    return host


@contextmanager
def serve_bytes(
    behave: Callable[[socket.socket], None], *, reads_request: bool = True
) -> Iterator[str]:
    """The URL of a server that reads a request and then does as it likes with the connection."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                if reads_request:
                    self.request.recv(65_536)
                behave(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/image"
        server.shutdown()
