"""What the tests of the device share: a signing key, an example release, and an HTTP server of one
image that misbehaves on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from device.flash import Flash
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
