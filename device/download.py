"""Downloads one image over HTTP into a file: resumes, takes a new URL when the old one expired,
never exceeds the size."""

from __future__ import annotations

import hashlib
import os
import random
import re
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError

CHUNK_BYTES = 16_384
"""Read at once."""
READ_TIMEOUT_SECONDS = 10.0
"""Without a byte; then the attempt has failed."""
MAX_FRUITLESS_ATTEMPTS = 8
"""Attempts in a row that may bring no byte: with the waits between them, about 20 seconds."""
MAX_REFUSED_URLS = 3
"""Presigned URLs in a row, each new, that may be refused."""
MAX_DIGEST_TRIES = 3
"""How often the image is fetched when its digest is wrong and the file was pieced together."""
FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.2, 30.0
"""The wait doubles from the first to the longest, each drawn from its upper half."""
EXPIRED_STATUSES = frozenset({400, 401, 403})
"""What S3 answers to a presigned URL that expired (403), or whose session did (400
ExpiredToken)."""
GONE_STATUSES = frozenset({404, 410})

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


class Download:
    """One image on its way into `target`.

    `renew_url` asks IoT for a newly presigned URL; `sleep` waits so many seconds; `on_bytes` is
    called after each chunk with the number of bytes in the file. Whatever these three raise passes
    through, and the bytes on disk stay for the next time.
    """

    def __init__(
        self,
        target: Path,
        size: int,
        sha256: str,
        *,
        renew_url: Callable[[], str],
        sleep: Callable[[float], None],
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._target, self._size, self._sha256 = target, size, sha256
        self._renew_url, self._sleep, self._on_bytes = renew_url, sleep, on_bytes
        # no redirect, no proxy, no file: or ftp: address, whatever the document says
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.HTTPHandler,
            urllib.request.HTTPSHandler,
            urllib.request.HTTPErrorProcessor,
            urllib.request.HTTPDefaultErrorHandler,
        ):
            self._opener.add_handler(handler())
        self._in_one_piece = False
        """Whether the file came in one answer, with nothing left over from an earlier one."""

    def run(self, url: str) -> None:
        """Returns when the whole, verified image is in the file and on disk; raises DownloadError
        when it cannot be."""
        for _ in range(MAX_DIGEST_TRIES):
            self._fill(url)
            with self._target.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == self._sha256:
                    return
            self._target.unlink()
            if self._in_one_piece:
                break
        raise DownloadError(WRONG_DIGEST, f"of {self._size} bytes")

    def _fill(self, url: str) -> None:
        """Fills the file up to its size, in as many attempts as bring bytes."""
        fruitless, refused, failure = 0, 0, ""
        while (before := self._count_bytes()) < self._size:
            if fruitless == MAX_FRUITLESS_ATTEMPTS or refused == MAX_REFUSED_URLS:
                raise DownloadError(NO_DOWNLOAD, failure)
            if fruitless:
                wait = min(FIRST_WAIT_SECONDS * 2 ** (fruitless - 1), MAX_WAIT_SECONDS)
                self._sleep(wait * random.uniform(0.5, 1.0))
            try:
                self._fetch_rest(url, before)
            except HTTPError as error:
                error.close()
                failure = f"HTTP {error.code}"
                if error.code in GONE_STATUSES:
                    raise DownloadError(NO_DOWNLOAD, failure) from error
                if error.code == 416:
                    raise DownloadError(
                        WRONG_SIZE, f"the image ends before byte {before} of {self._size}"
                    ) from error
                if error.code in EXPIRED_STATUSES:
                    refused += 1
                    url = self._renew_url()
            except _Interrupted as error:
                failure = str(error)
            except (URLError, HTTPException, OSError) as error:
                failure = type(error).__name__
            if self._count_bytes() > before:
                fruitless, refused = 0, 0
            else:
                fruitless += 1

    def _fetch_rest(self, url: str, have: int) -> None:
        """One request for the bytes from `have` on."""
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        request = urllib.request.Request(url, headers=headers)
        with self._opener.open(request, timeout=READ_TIMEOUT_SECONDS) as answer:
            start, total = _read_extent(answer)
            if total is not None and total != self._size:
                raise DownloadError(WRONG_SIZE, f"{total} bytes instead of {self._size}")
            if start not in (0, have):
                raise _Interrupted(f"asked for byte {have}, got {start}")
            self._in_one_piece = start == 0
            self._write_body(answer, start)

    def _write_body(self, answer: HTTPResponse, start: int) -> None:
        """Writes the answer's body from `start` on; reads at most one byte more than there may
        be."""
        with self._target.open("r+b" if start else "wb") as file:
            file.seek(start)
            have = start
            while chunk := answer.read(min(CHUNK_BYTES, self._size + 1 - have)):
                have += len(chunk)
                if have > self._size:
                    raise DownloadError(WRONG_SIZE, f"more than {self._size} bytes")
                file.write(chunk)
                file.flush()
                self._on_bytes(have)
            os.fsync(file.fileno())
        if have < self._size:
            raise _Interrupted(f"cut off after {have} of {self._size} bytes")

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


def _read_extent(answer: HTTPResponse) -> tuple[int, int | None]:
    """Where the body starts in the image, and the image's whole size if the server says it."""
    if answer.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if match is None:
            raise _Interrupted("a part without its place")
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None
