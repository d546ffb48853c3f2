"""Downloads one image over HTTP into a file: resumes, takes a new URL when the old one expired,
never exceeds the size, and ends within its time whatever the server does."""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from ssl import SSLContext

from device.transfer import AnswerHead, Piece, Transfer, TransferBroken, parse_url

HEAD_SECONDS = 30.0
"""For the name, the connection, TLS and the head of the answer; then the attempt has failed."""
SILENCE_SECONDS = 10.0
"""Without a byte of the body; then the attempt has failed."""
WATCH_SECONDS = 0.1
"""While no byte comes: how soon the device notices that it is being stopped."""
MAX_FRUITLESS_ATTEMPTS = 8
"""Attempts in a row that may bring no byte that was not there before: with the waits between them,
about half a minute."""
MAX_REFUSED_URLS = 3
"""Presigned URLs in a row, each new, that may be refused."""
MAX_DIGEST_TRIES = 3
"""How often the image is fetched when its digest is wrong and the file was pieced together."""
FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.5, 30.0
"""Bounds of the wait before an attempt: the first, doubling to the longest; each wait is drawn from
0 to its bound."""
EXPIRED_STATUSES = frozenset({400, 401, 403})
"""What S3 answers to a presigned URL that expired (403), or whose session did (400
ExpiredToken)."""
GONE_STATUSES = frozenset({404, 410})
PLACE = re.compile(r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}|\*)")
"""Content-Range of a part (RFC 9110, 14.4)."""
LENGTH = re.compile(r"[0-9]{1,19}")

WRONG_SIZE = "wrong size"
WRONG_DIGEST = "wrong digest"
NO_DOWNLOAD = "download failed"


class DownloadError(Exception):
    """The image cannot be had, or is not the signed one: the job FAILED, for `reason`."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


class _Interrupted(Exception):
    """An attempt ended early; what it brought is kept."""


class _UrlExpired(_Interrupted):
    """Only another URL helps."""


def draw_wait(bound: float) -> float:
    """Seconds to wait, with full jitter: devices that failed together do not come back together."""
    return random.uniform(0.0, bound)


class Download:
    """One image on its way into `target`, in at most `seconds`.

    `tls` says whose certificates are believed. `renew_url` asks IoT for a newly presigned URL;
    `sleep` waits so many seconds, and is called with 0 all the time; `on_bytes` is called after
    each chunk with the number of bytes in the file. Whatever these three raise passes through, and
    the bytes on disk stay for the next time.
    """

    def __init__(
        self,
        target: Path,
        size: int,
        sha256: str,
        *,
        seconds: float,
        tls: SSLContext,
        renew_url: Callable[[], str],
        sleep: Callable[[float], None],
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._target, self._size, self._sha256 = target, size, sha256
        self._seconds, self._end, self._tls = seconds, time.monotonic() + seconds, tls
        self._renew_url, self._sleep, self._on_bytes = renew_url, sleep, on_bytes
        self._in_one_piece = False
        """Whether the file came in one answer, with nothing left over from an earlier one."""

    def run(self, url: str) -> None:
        """Returns when the whole, verified image is in the file and on disk; raises DownloadError
        when it cannot be."""
        for _ in range(MAX_DIGEST_TRIES):
            self._fill(url)
            with self._target.open("rb") as file:
                os.fsync(file.fileno())
                if hashlib.file_digest(file, "sha256").hexdigest() == self._sha256:
                    return
            self._target.unlink()
            if self._in_one_piece:
                break
        raise DownloadError(WRONG_DIGEST, f"of {self._size} bytes")

    def _fill(self, url: str) -> None:
        """Fills the file up to its size, in as many attempts as bring bytes. A server that begins
        anew each time brings bytes only beyond the furthest it came."""
        fruitless, refused, failure = 0, 0, ""
        furthest = have = self._count_bytes()
        while have < self._size:
            if fruitless == MAX_FRUITLESS_ATTEMPTS or refused == MAX_REFUSED_URLS:
                raise DownloadError(NO_DOWNLOAD, failure)
            if failure:
                self._wait(min(FIRST_WAIT_SECONDS * 2 ** max(fruitless - 1, 0), MAX_WAIT_SECONDS))
            try:
                self._fetch_rest(url, have)
            except _UrlExpired as error:
                failure = str(error)
                refused += 1
                url = self._renew_url()
            except (_Interrupted, TransferBroken, OSError) as error:
                failure = str(error)
            have = self._count_bytes()
            if have > furthest:
                fruitless, refused, furthest = 0, 0, have
            else:
                fruitless += 1

    def _fetch_rest(self, url: str, have: int) -> None:
        """One request for the bytes from `have` on."""
        address = parse_url(url)
        if address is None:
            raise DownloadError(NO_DOWNLOAD, "url is none that is fetched")
        transfer = Transfer(address, have, self._tls)
        try:
            start = self._read_place(self._take(transfer.take_head, HEAD_SECONDS), have)
            self._in_one_piece = start == 0
            self._write_body(transfer, start)
        finally:
            transfer.abandon()

    def _read_place(self, head: AnswerHead, have: int) -> int:
        """Where the answer's body starts in the image. Raises what else the answer means."""
        failure = f"HTTP {head.status}"
        if head.status in GONE_STATUSES:
            raise DownloadError(NO_DOWNLOAD, failure)
        if head.status in EXPIRED_STATUSES:
            raise _UrlExpired(failure)
        if head.status == 416:
            raise DownloadError(WRONG_SIZE, f"the image ends before byte {have} of {self._size}")
        if head.status == 206:
            place = PLACE.fullmatch(head.content_range)
            if place is None:
                raise _Interrupted("a part without its place")
            start, total = int(place[1]), None if place[2] == "*" else int(place[2])
        elif head.status == 200:
            is_known = LENGTH.fullmatch(head.content_length)
            start, total = 0, int(head.content_length) if is_known else None
        else:
            raise _Interrupted(failure)
        if total is not None and total != self._size:
            raise DownloadError(WRONG_SIZE, f"{total} bytes instead of {self._size}")
        if start not in (0, have):
            raise _Interrupted(f"asked for byte {have}, got {start}")
        return start

    def _write_body(self, transfer: Transfer, start: int) -> None:
        """Writes the answer's body from `start` on, never more than the size."""
        with self._target.open("r+b" if start else "wb") as file:
            file.seek(start)
            have = start
            while have < self._size and (chunk := self._take(transfer.take_bytes, SILENCE_SECONDS)):
                have += len(chunk)
                if have > self._size:
                    raise DownloadError(WRONG_SIZE, f"more than {self._size} bytes")
                file.write(chunk)
                file.flush()
                self._on_bytes(have)
        if have < self._size:
            raise _Interrupted(f"cut off after {have} of {self._size} bytes")

    def _take(self, take: Callable[[float], Piece | None], patience: float) -> Piece:
        """What a transfer brings next, within so many seconds."""
        silent_at = time.monotonic() + patience
        while True:
            self._wait(0.0)
            piece = take(WATCH_SECONDS)
            if piece is not None:
                return piece
            if time.monotonic() >= silent_at:
                raise _Interrupted(f"silent for {patience:.0f} s")

    def _wait(self, bound: float) -> None:
        """Waits at random up to the bound. Raises DownloadError when the time is over."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise DownloadError(NO_DOWNLOAD, f"not there after {self._seconds:.0f} s")
        self._sleep(min(draw_wait(bound), left))

    def _count_bytes(self) -> int:
        """How much of the image is in the file; a file that is too long is thrown away."""
        try:
            have = self._target.stat().st_size
        except FileNotFoundError:
            return 0
        if have > self._size:
            self._target.unlink()
            return 0
        return have
