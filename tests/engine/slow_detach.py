"""A local AWS that detaches a certificate from its thing as AWS does: it says yes at once, does it
seconds later (DetachThingPrincipal: "This call is asynchronous"), and until then refuses to delete
the two (DeleteThing, DeleteCertificate)."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

SECONDS = 5.0
DETACH = re.compile(r"/things/([^/?]+)/principals")
THING = re.compile(r"/things/([^/?]+)")
CERTIFICATE = re.compile(r"/certificates/([0-9a-f]{64})")
HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})

Answer = tuple[int, list[tuple[str, str]], bytes]


class SlowDetach(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, aws_port: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.aws_port = aws_port
        self.detaching: list[tuple[str, str]] = []
        """Thing and certificate, until it is done."""
        self.detached = self.refused = 0
        """Detaches, and deletes that came too early."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.aws_port, timeout=120)
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in HOP_BY_HOP]
        return answer.status, kept, content

    def answer(self, handler: Handler, body: bytes) -> Answer:
        path = unquote(handler.path.partition("?")[0])
        headers = {k: v for k, v in handler.headers.items() if k.lower() not in HOP_BY_HOP}
        request = (handler.command, handler.path, headers, body)
        if handler.command == "DELETE":
            if found := DETACH.fullmatch(path):
                certificate = handler.headers["x-amzn-principal"].rpartition("/")[2]
                entry = (found[1], certificate)
                self.detaching.append(entry)
                self.detached += 1

                def detach() -> None:
                    self.forward(*request)
                    self.detaching.remove(entry)

                threading.Timer(SECONDS, detach).start()
                return 200, [("content-type", "application/json")], b"{}"
            if (found := THING.fullmatch(path)) and any(t == found[1] for t, _ in self.detaching):
                why = f"Thing {found[1]} is still attached to one or more principals"
                return self.refuse(400, "InvalidRequestException", f"Cannot delete. {why}")
            found = CERTIFICATE.fullmatch(path)
            if found and any(c == found[1] for _, c in self.detaching):
                why = "Things must be detached before deletion"
                return self.refuse(409, "DeleteConflictException", why)
        return self.forward(*request)

    def wait(self) -> None:
        """Until all is detached."""
        while self.detaching:
            time.sleep(0.1)

    def refuse(self, status: int, code: str, message: str) -> Answer:
        self.refused += 1
        headers = [("content-type", "application/json"), ("x-amzn-errortype", code)]
        return status, headers, json.dumps({"message": message}).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SlowDetach

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        status, headers, content = self.server.answer(self, body)
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("content-length", str(len(content)))
        self._headers_buffer.append(b"\r\n" + content)  # type: ignore[attr-defined]
        self.flush_headers()  # in one write: the provider gives a body that comes apart up

    do_DELETE = do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = handle_any

    def log_message(self, *_words: object) -> None:
        """Nobody reads it."""


@contextmanager
def detaching_slowly(aws_port: int) -> Iterator[SlowDetach]:
    """Before the local AWS at this port."""
    server = SlowDetach(aws_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
