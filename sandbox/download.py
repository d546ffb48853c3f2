"""Downloads one image over HTTP into a file: resumes, takes a fresh URL when the old one ended,
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

CHUNK = 16_384
"""Bytes read at once."""
TIMEOUT = 10.0
"""Seconds without a byte before an attempt has failed."""
ATTEMPTS = 8
"""Attempts in a row that may bring no byte: with the waits between them, about 20 seconds."""
REFUSALS = 3
"""Presigned URLs in a row, each fresh, that may be refused."""
WHOLE_TRIES = 3
"""How often the image is fetched when its digest is wrong and the file was pieced together."""
FIRST_WAIT, LONGEST_WAIT = 0.2, 30.0
"""Seconds: the wait doubles from the first to the longest, each drawn from its upper half."""
URL_ENDED = frozenset({400, 401, 403})
"""What S3 answers to a presigned URL that expired (403), or whose session did (400
ExpiredToken)."""
GONE = frozenset({404, 410})

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


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS, no redirect, no proxy, no file: or ftp: address, whatever the document
    says."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler,
    ):
        opener.add_handler(handler())
    return opener


class Download:
    """One image on its way into `target`.

    `fresh_url` asks IoT for a new presigned URL; `pause` waits that many seconds; `on_bytes` is
    told how many bytes are in the file after each chunk. Whatever these three raise passes through,
    and the bytes on disk stay for the next time.
    """

    def __init__(
        self,
        target: Path,
        size: int,
        sha256: str,
        *,
        fresh_url: Callable[[], str],
        pause: Callable[[float], None],
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._target, self._size, self._sha256 = target, size, sha256
        self._fresh_url, self._pause, self._on_bytes = fresh_url, pause, on_bytes
        self._opener = _opener()
        self._whole = False
        """Whether the file came in one answer, with nothing left over from an earlier one."""

    def run(self, url: str) -> None:
        """Returns when the whole, verified image is in the file and on disk; raises DownloadError
        when it cannot be."""
        for _ in range(WHOLE_TRIES):
            self._fill(url)
            if self._digest() == self._sha256:
                return
            self._target.unlink()
            if self._whole:
                break
        raise DownloadError(WRONG_DIGEST, f"of {self._size} bytes")

    def _fill(self, url: str) -> None:
        """Fills the file up to its size, in as many attempts as bring bytes."""
        fruitless, refused, why = 0, 0, ""
        while (before := self._have()) < self._size:
            if fruitless == ATTEMPTS or refused == REFUSALS:
                raise DownloadError(NO_DOWNLOAD, why)
            if fruitless:
                self._pause(
                    min(FIRST_WAIT * 2 ** (fruitless - 1), LONGEST_WAIT) * random.uniform(0.5, 1.0)
                )
            try:
                self._attempt(url)
            except HTTPError as error:
                why = self._answered(error)
                if error.code in URL_ENDED:
                    refused += 1
                    url = self._fresh_url()
            except _Interrupted as error:
                why = str(error)
            except (URLError, HTTPException, OSError) as error:
                why = type(error).__name__
            fruitless, refused = (0, 0) if self._have() > before else (fruitless + 1, refused)

    def _answered(self, error: HTTPError) -> str:
        error.close()
        if error.code in GONE:
            raise DownloadError(NO_DOWNLOAD, f"HTTP {error.code}")
        if error.code == 416:
            raise DownloadError(
                WRONG_SIZE, f"the image ends before byte {self._have()} of {self._size}"
            )
        return f"HTTP {error.code}"

    def _attempt(self, url: str) -> None:
        have = self._have()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with self._opener.open(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT
        ) as answer:
            start, total = _extent(answer)
            if total is not None and total != self._size:
                raise DownloadError(WRONG_SIZE, f"{total} bytes instead of {self._size}")
            if start not in (0, have):
                raise _Interrupted(f"asked for byte {have}, got {start}")
            self._whole = start == 0
            self._receive(answer, start)

    def _receive(self, answer: HTTPResponse, start: int) -> None:
        """Writes the answer's body from `start` on; reads at most one byte more than there may
        be."""
        with self._target.open("r+b" if start else "wb") as file:
            file.seek(start)
            have = start
            while chunk := answer.read(min(CHUNK, self._size + 1 - have)):
                have += len(chunk)
                if have > self._size:
                    raise DownloadError(WRONG_SIZE, f"more than {self._size} bytes")
                file.write(chunk)
                file.flush()
                self._on_bytes(have)
            os.fsync(file.fileno())
        if have < self._size:
            raise _Interrupted(f"cut off after {have} of {self._size} bytes")

    def _have(self) -> int:
        try:
            have = self._target.stat().st_size
        except FileNotFoundError:
            return 0
        if have > self._size:
            self._target.unlink()
            return 0
        return have

    def _digest(self) -> str:
        with self._target.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _extent(answer: HTTPResponse) -> tuple[int, int | None]:
    """Where the body starts in the image, and the image's whole size if the server says it."""
    if answer.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if match is None:
            raise _Interrupted("a part without its place")
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None
