"""The device's download against an HTTP server that cuts, refuses, lies or never ends."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from device.download import Download, DownloadError
from tests.unit.device_fakes import (
    BAD_IMAGE,
    IMAGE,
    ImageHost,
    cut_at,
    ignore_range,
    never_end,
    new_host,
    omit_range,
    redirect,
    refuse,
    send,
    send_other_range,
    serve_http,
)


@pytest.fixture(scope="module")
def http_server() -> Iterator[ThreadingHTTPServer]:
    with serve_http() as server:
        yield server


@pytest.fixture
def host(http_server: ThreadingHTTPServer) -> ImageHost:
    return new_host(http_server)


@dataclass
class ExampleDownload:
    """A download of IMAGE from the host, with the waits counted instead of waited."""

    host: ImageHost
    target: Path
    waits: list[float] = field(default_factory=list)
    renewals: int = 0
    seconds: float = 60.0

    def run(self) -> None:
        def renew_url() -> str:
            self.renewals += 1
            return self.host.url

        digest = hashlib.sha256(IMAGE).hexdigest()
        Download(
            self.target,
            len(IMAGE),
            digest,
            seconds=self.seconds,
            tls=ssl.create_default_context(),
            renew_url=renew_url,
            sleep=lambda seconds: self.waits.append(seconds) if seconds else None,
        ).run(self.host.url)
        assert self.target.read_bytes() == IMAGE

    def failure_reason(self) -> str:
        with pytest.raises(DownloadError) as error:
            self.run()
        return error.value.reason


@pytest.fixture
def example(host: ImageHost, tmp_path: Path) -> ExampleDownload:
    return ExampleDownload(host, tmp_path / "slot-b.bin")


def test_a_download_in_one_go(example: ExampleDownload) -> None:
    example.run()
    assert (example.host.ranges, example.waits, example.renewals) == ([None], [], 0)


def test_a_truncated_answer_is_resumed_where_it_ended(example: ExampleDownload) -> None:
    example.host.script = [cut_at(1000), cut_at(500)]
    example.run()
    assert example.host.ranges == [None, "bytes=1000-", "bytes=1500-"]


def test_what_an_earlier_life_left_is_kept(example: ExampleDownload) -> None:
    example.target.write_bytes(IMAGE[:70_000])
    example.run()
    assert example.host.ranges == ["bytes=70000-"]


def test_what_an_earlier_life_completed_is_not_fetched_again(example: ExampleDownload) -> None:
    example.target.write_bytes(IMAGE)
    example.run()
    assert example.host.ranges == []


def test_a_server_that_ignores_the_range_begins_anew(example: ExampleDownload) -> None:
    example.target.write_bytes(b"?" * 500)
    example.host.script = [ignore_range]
    example.run()


@pytest.mark.parametrize("behaviour", [send_other_range, omit_range])
def test_a_part_from_another_place_is_not_taken(example: ExampleDownload, behaviour: Any) -> None:
    example.target.write_bytes(IMAGE[:500])
    example.host.script = [behaviour]
    example.run()
    assert example.host.ranges == ["bytes=500-", "bytes=500-"]


@pytest.mark.parametrize("code", [400, 401, 403])
def test_an_ended_url_is_replaced_by_a_fresh_one_and_the_download_goes_on(
    example: ExampleDownload, code: int
) -> None:
    example.host.script = [cut_at(1000), refuse(code)]
    example.run()
    assert example.renewals == 1
    assert example.host.ranges == [None, "bytes=1000-", "bytes=1000-"]


def test_urls_that_are_refused_again_and_again_fail(example: ExampleDownload) -> None:
    example.host.script = [refuse(403)] * 10
    assert example.failure_reason() == "download failed"
    assert len(example.host.ranges) == 3


@pytest.mark.parametrize("code", [404, 410])
def test_an_image_that_is_gone_fails_at_once(example: ExampleDownload, code: int) -> None:
    example.host.script = [refuse(code)]
    assert example.failure_reason() == "download failed"
    assert example.waits == []


def test_a_server_in_trouble_is_asked_again_with_growing_waits_and_then_given_up(
    example: ExampleDownload,
) -> None:
    example.host.script = [refuse(503)] * 20
    assert example.failure_reason() == "download failed"
    assert len(example.host.ranges) == 8
    assert len(example.waits) == 7
    assert all(0 <= wait <= 0.5 * 2**n for n, wait in enumerate(example.waits))


def test_trouble_is_forgotten_once_bytes_come(example: ExampleDownload) -> None:
    example.host.script = [*[refuse(503)] * 7, cut_at(10), *[refuse(503)] * 7]
    example.run()


def test_a_server_that_begins_anew_and_cuts_off_brings_bytes_only_beyond_the_furthest(
    example: ExampleDownload,
) -> None:
    def begin_anew(count: int) -> Any:
        return lambda host, request: send(request, 200, host.content, cut=count)

    example.host.script = [begin_anew(5), begin_anew(6)] * 20
    assert example.failure_reason() == "download failed"
    assert len(example.host.ranges) == 2 + 8, "five, six, and eight that brought nothing new"
    example.host.script = [begin_anew(count) for count in range(7, 17)]
    example.run()


def test_no_server_fails(example: ExampleDownload) -> None:
    example.host.url = "http://127.0.0.1:9/image"
    assert example.failure_reason() == "download failed"
    assert len(example.waits) == 7


@pytest.mark.parametrize("content", [IMAGE[:-1], IMAGE + b"!"])
def test_an_image_of_another_size_fails_before_it_is_read(
    example: ExampleDownload, content: bytes
) -> None:
    example.host.content = content
    assert example.failure_reason() == "wrong size"
    assert not example.target.exists()


def test_a_shorter_image_is_noticed_by_a_resumed_download(example: ExampleDownload) -> None:
    example.target.write_bytes(IMAGE[:1000])
    example.host.content = IMAGE[:1000]
    assert example.failure_reason() == "wrong size"


def test_an_endless_answer_is_cut_at_the_size(example: ExampleDownload) -> None:
    example.host.script = [never_end]
    assert example.failure_reason() == "wrong size"
    assert example.target.stat().st_size <= len(IMAGE)


def test_another_image_of_the_same_size_fails_after_one_whole_answer(
    example: ExampleDownload,
) -> None:
    example.host.content = BAD_IMAGE
    assert example.failure_reason() == "wrong digest"
    assert len(example.host.ranges) == 1
    assert not example.target.exists()


def test_bytes_gone_bad_on_flash_are_fetched_again(example: ExampleDownload) -> None:
    example.target.write_bytes(b"?" * 1000)
    example.run()
    assert example.host.ranges == ["bytes=1000-", None]


def test_a_wrong_image_that_always_comes_in_pieces_fails_in_the_end(
    example: ExampleDownload,
) -> None:
    example.host.content = BAD_IMAGE
    example.host.script = [cut_at(1000), cut_at(100_000)] * 20
    assert example.failure_reason() == "wrong digest"


def test_a_redirect_is_not_followed(example: ExampleDownload) -> None:
    example.host.script = [redirect] * 8
    assert example.failure_reason() == "download failed"
    assert len(example.host.ranges) == 8
