"""One GET in a thread of its own. Whatever the server does, and however slowly, who waits for it
turns away at once.

The URL comes from a document in which it is not signed, and nothing in an answer is to be trusted:
no redirect is followed, no proxy asked, no number believed before its length is known.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from ipaddress import ip_address
from queue import Empty, Queue, SimpleQueue
from ssl import SSLContext
from typing import TypeVar

URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[!-\"$-~]*)"
)
"""In ASCII, with a path and without a user or a fragment: what a presigned URL looks like."""
LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
MAX_URL = 8192
"""Characters. One that S3 presigned for a role has about 2,000; AWS names no limit to the session
token in it."""
SOCKET_SECONDS = 10.0
"""For the connection, for TLS, and for each read."""
CHUNK_BYTES = 16_384
"""Read at once."""
QUEUED_CHUNKS = 4
"""Read ahead of whoever takes them."""
Piece = TypeVar("Piece")


@dataclass(frozen=True, kw_only=True)
class ImageAddress:
    """A URL that this device fetches, in its parts."""

    is_secure: bool
    host: str
    port: int
    path: str
    """With the query."""


@dataclass(frozen=True, kw_only=True)
class AnswerHead:
    """What a server answered, before the body; headers are its own text, "" where there is none."""

    status: int
    content_range: str
    content_length: str


class TransferBroken(Exception):
    """The transfer ended before the answer did; the text is the kind of trouble."""


def parse_url(url: str) -> ImageAddress | None:
    """None for every URL that is not fetched. HTTPS everywhere; plain HTTP on the loopback
    interface only, which is where the sandbox's S3 is."""
    found = URL.fullmatch(url) if len(url) <= MAX_URL else None
    if found is None:
        return None
    is_secure, host = found["scheme"] == "https", found["host"].strip("[]")
    port = int(found["port"] or (443 if is_secure else 80))
    try:
        is_loopback = ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
        if host != found["host"] or not all(LABEL.fullmatch(part) for part in host.split(".")):
            return None
    if not 1 <= port <= 65_535 or not (is_secure or is_loopback):
        return None
    return ImageAddress(is_secure=is_secure, host=host, port=port, path=found["path"])


class Transfer:
    """A request for the bytes of an image from `start` on; it begins at once.

    `take_head` and `take_bytes` return None if nothing is there yet after so many seconds, and
    raise TransferBroken. The thread ends when the answer does, or soon after `abandon`: it may
    still wait for a name or a connection, as long as the system lets it and SOCKET_SECONDS.
    """

    def __init__(self, address: ImageAddress, start: int, tls: SSLContext) -> None:
        self._address, self._start = address, start
        self._connection = (
            HTTPSConnection(address.host, address.port, timeout=SOCKET_SECONDS, context=tls)
            if address.is_secure
            else HTTPConnection(address.host, address.port, timeout=SOCKET_SECONDS)
        )
        self._head: SimpleQueue[AnswerHead | TransferBroken] = SimpleQueue()
        self._body: Queue[bytes | TransferBroken] = Queue(QUEUED_CHUNKS)
        self._socket: socket.socket | None = None
        self._abandoned = threading.Event()
        threading.Thread(target=self._run, name="transfer", daemon=True).start()

    def take_head(self, seconds: float) -> AnswerHead | None:
        """What the server answered; once."""
        return _take(self._head, seconds)

    def take_bytes(self, seconds: float) -> bytes | None:
        """The next piece of the body; b"" after the last."""
        return _take(self._body, seconds)

    def abandon(self) -> None:
        """Ends the transfer, wherever it is; returns at once."""
        self._abandoned.set()
        while not self._body.empty():  # the thread may be waiting for room
            self._body.get_nowait()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # not SSLSocket's own, which takes the TLS away from under the thread that reads
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            self._connection.connect()
            self._socket = self._connection.sock
            if not self._abandoned.is_set():
                self._fetch()
        except Exception as error:  # of the name, TLS, HTTP or the socket: the server's doing
            self._head.put(TransferBroken(type(error).__name__))
            self._put(TransferBroken(type(error).__name__))
        finally:
            self._connection.close()

    def _fetch(self) -> None:
        headers = {"Accept-Encoding": "identity", "Connection": "close"}
        if self._start:
            headers["Range"] = f"bytes={self._start}-"
        self._connection.request("GET", self._address.path, headers=headers)
        with self._connection.getresponse() as answer:
            self._head.put(
                AnswerHead(
                    status=answer.status,
                    content_range=str(answer.headers.get("Content-Range", "")),
                    content_length=str(answer.headers.get("Content-Length", "")),
                )
            )
            while (chunk := answer.read1(CHUNK_BYTES)) and not self._abandoned.is_set():
                self._put(chunk)
            self._put(b"")

    def _put(self, piece: bytes | TransferBroken) -> None:
        if not self._abandoned.is_set():
            self._body.put(piece)


def _take(
    queue: Queue[Piece | TransferBroken] | SimpleQueue[Piece | TransferBroken], seconds: float
) -> Piece | None:
    try:
        piece = queue.get(timeout=seconds)
    except Empty:
        return None
    if isinstance(piece, TransferBroken):
        raise piece
    return piece
