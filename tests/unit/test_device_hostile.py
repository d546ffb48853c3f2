"""The whole device against servers and documents that mean it harm: the job FAILED with a reason
within its time, the device can be stopped at once, and the next job is taken."""

from __future__ import annotations

import hashlib
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from device import agent, download
from device.agent import Device
from device.download import Download, DownloadError
from rollout.version import Version
from tests.unit.device_fakes import (
    IMAGE,
    URL,
    FakeIot,
    config,
    document,
    factory_flash,
    new_host,
    run_until_idle,
    serve_bytes,
    serve_http,
    statement_of,
)

JOB_SECONDS = 1.0
Behaviour = Callable[[socket.socket], None]


@pytest.fixture(scope="module")
def http_server() -> Iterator[ThreadingHTTPServer]:
    with serve_http() as server:
        yield server


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of hundredths of a second; a silence is one after three tenths."""
    monkeypatch.setattr(agent, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(agent, "MAX_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(download, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(download, "MAX_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(download, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(download, "SILENCE_SECONDS", 0.3)


def say(*lines: str, body: bytes = b"") -> Behaviour:
    return lambda client: client.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def drip(head: bytes, drop: bytes) -> Behaviour:
    """Sends the head, and then the drop for ever, slowly enough never to be silent."""

    def behave(client: socket.socket) -> None:
        client.sendall(head)
        while True:
            client.sendall(drop)
            time.sleep(0.02)

    return behave


def flood(head: bytes, wave: bytes) -> Behaviour:
    def behave(client: socket.socket) -> None:
        client.sendall(head)
        while True:
            client.sendall(wave)

    return behave


def send_nothing(client: socket.socket) -> None:
    time.sleep(30)


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def begin_anew_with(*counts: int) -> Behaviour:
    """Ignores the range, and cuts the image off after so many bytes, in turn for ever."""
    lengths = itertools.cycle(counts)

    def behave(client: socket.socket) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(IMAGE)}\r\n\r\n".encode()
        client.sendall(head + IMAGE[: next(lengths)])

    return behave


OK = "HTTP/1.1 200 OK"
PART = "HTTP/1.1 206 Partial Content"
DIGITS = "9" * 5000
SMALL_DROPS = {
    "a head that never ends": drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "headers that never end": drip(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n"),
    "100 Continue for ever": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body that never ends": drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    "chunks that never end": drip(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"
    ),
    "nothing": send_nothing,
}
HOSTILE = SMALL_DROPS | {
    "a length of 5,000 digits": say(OK, f"Content-Length: {DIGITS}"),
    "a place of 5,000 digits": say(PART, f"Content-Range: bytes 0-{DIGITS}/{DIGITS}"),
    "a patience of 5,000 digits": say("HTTP/1.1 503 Slow Down", f"Retry-After: {DIGITS}"),
    "a chunk of 5,000 digits": say(OK, "Transfer-Encoding: chunked", "", "f" * 5000),
    "digits of another script": say(OK, "Content-Length: \u00b2\u00b2", body=IMAGE[:5]),
    "a negative length": say(OK, "Content-Length: -1"),
    "a status of 5,000 digits": say(f"HTTP/1.1 {DIGITS} OK"),
    "a status below all": say("HTTP/1.1 -1 OK"),
    "no HTTP": flood(b"", b"\x00\xff" * 500),
    "a thousand headers": say(OK, *[f"X-{number}: x" for number in range(1000)]),
    "a header of a megabyte": flood(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65_536),
    "bytes in headers that are no text": say(OK, "X\xff: \xfe\x80", "Content-Length: \xff"),
    "a flood": flood(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65_536),
    "a reset": reset,
    "the beginning, five bytes, six, five, six": begin_anew_with(5, 6),
    "a redirect to a file": say("HTTP/1.1 302 Found", "Location: file:///etc/passwd"),
}


@pytest.mark.parametrize("behave", HOSTILE.values(), ids=HOSTILE)
def test_the_job_fails_in_its_time_with_a_reason_and_the_next_is_taken(
    http_server: ThreadingHTTPServer, tmp_path: Path, behave: Behaviour
) -> None:
    iot, host = FakeIot(), new_host(http_server)
    with serve_bytes(behave) as url:
        hostile = iot.offer(statement_of(IMAGE), url)
        hostile["seconds"] = JOB_SECONDS
        after = iot.offer(statement_of(IMAGE, sequence=101), host.url)
        started = time.monotonic()
        run_until_idle(iot, tmp_path)
    assert time.monotonic() - started < JOB_SECONDS + 3.0
    end = next(update for update in iot.updates if update["status"] != "IN_PROGRESS")
    assert (end["job"], end["status"]) == (hostile["id"], "FAILED")
    assert end["details"]["reason"] in ("download failed", "wrong size", "wrong digest")
    assert after["status"] == "SUCCEEDED"
    assert factory_flash(tmp_path).memory.version == Version("2.1.0")


@pytest.mark.parametrize(
    "url",
    [
        "https://b\u00fccher.example/i",
        f"https://{'a' * 64}.example/i",
        f"https://{'.'.join(['a' * 60] * 6)}/i",
        f"https://firmware.example:{DIGITS}/i",
        "https://firmware.example/\u0661",
        "https://[::1/i",
        "https://firmware.example/\ud800",
        "https://firmware.example/" + "i" * 30_000,
        "\x00",
    ],
)
def test_a_url_that_nobody_can_fetch_fails_the_job_and_no_more(
    http_server: ThreadingHTTPServer, tmp_path: Path, url: str
) -> None:
    iot, host = FakeIot(), new_host(http_server)
    iot.offer(statement_of(IMAGE), url)
    after = iot.offer(statement_of(IMAGE, sequence=101), host.url)
    run_until_idle(iot, tmp_path)
    assert (iot.updates[0]["status"], iot.updates[0]["details"]["reason"]) == (
        "FAILED",
        "bad document",
    )
    assert after["status"] == "SUCCEEDED"


FLOOD = flood(b"HTTP/1.1 200 OK\r\n\r\n", IMAGE[:1024])


@pytest.mark.parametrize("behave", [*SMALL_DROPS.values(), FLOOD], ids=[*SMALL_DROPS, "a flood"])
def test_the_device_stops_at_once_wherever_its_download_is(
    tmp_path: Path, behave: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "HEAD_SECONDS", 60.0)
    monkeypatch.setattr(download, "SILENCE_SECONDS", 60.0)
    asked, iot = threading.Event(), FakeIot()

    def behave_once_asked(client: socket.socket) -> None:
        asked.set()
        behave(client)

    with serve_bytes(behave_once_asked) as url:
        huge = statement_of(IMAGE, version=Version("3.0.0"))
        job = iot.offer(replace(huge, size=10**9), url)
        device = Device(config(tmp_path), connect=iot.connect)
        device.start()
        assert asked.wait(5)
        time.sleep(0.3)
        started = time.monotonic()
        device.stop()
        assert time.monotonic() - started < 1.0
        assert job["status"] == "IN_PROGRESS", "the next life goes on with it"
        wait_until_no_thread("transfer")


def wait_until_no_thread(name: str) -> None:
    for _ in range(100):
        if not any(thread.name == name for thread in threading.enumerate()):
            return
        time.sleep(0.02)
    raise AssertionError(f"a thread {name} is left")


def new_certificate() -> tuple[str, str]:
    """A certificate for 127.0.0.1 that signs itself, and its key; PEM."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=True
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.public_bytes(Encoding.PEM).decode(), secret.decode()


def test_only_a_server_under_the_downloads_authority_is_believed(tmp_path: Path) -> None:
    certificate, key = new_certificate()
    (tmp_path / "server.pem").write_text(certificate + key)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.pem")

    def answer_over_tls(client: socket.socket) -> None:
        with tls.wrap_socket(client, server_side=True) as secure:
            secure.recv(65_536)
            say(OK, f"Content-Length: {len(IMAGE)}", body=IMAGE)(secure)

    for authority, end in (("", "FAILED"), (certificate, "SUCCEEDED")):
        iot = FakeIot()
        with serve_bytes(answer_over_tls, reads_request=False) as url:
            job = iot.offer(statement_of(IMAGE), url.replace("http:", "https:"))
            run_until_idle(iot, tmp_path / end, download_ca_pem=authority)
        assert job["status"] == end
        if end == "FAILED":
            assert iot.updates[-1]["details"]["detail"] == "SSLCertVerificationError"


HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            ["Content-Length", "Content-Range", "Transfer-Encoding", "Content-Encoding", "X", ""]
        ),
        st.one_of(
            st.integers().map(str),
            st.tuples(st.integers(), st.integers(), st.integers()).map(
                lambda n: f"bytes {n[0]}-{n[1]}/{n[2]}"
            ),
            st.sampled_from([f"bytes 0-1/{len(IMAGE)}", str(len(IMAGE)), "chunked", "gzip"]),
            st.text(),
        ),
    ),
    max_size=4,
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    status=st.sampled_from([*range(199, 208), 301, 400, 403, 404, 416, 500, 503, 999]),
    headers=HEADERS,
    body=st.one_of(st.binary(max_size=200), st.just(IMAGE), st.just(IMAGE + b"!")),
    have=st.integers(0, 200),
)
@example(status=206, headers=[("Content-Range", "bytes 0-1/*")], body=IMAGE, have=100)
def test_whatever_is_answered_the_image_is_the_signed_one_or_none(
    tmp_path_factory: pytest.TempPathFactory,
    status: int,
    headers: list[tuple[str, str]],
    body: bytes,
    have: int,
) -> None:
    target = tmp_path_factory.mktemp("slot") / "slot-b.bin"
    target.write_bytes(IMAGE[:have])
    head = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers)]
    answer = "\r\n".join([*head, "", ""]).encode("utf-8", "replace") + body
    started = time.monotonic()
    with serve_bytes(lambda client: client.sendall(answer)) as url:
        try:
            Download(
                target,
                len(IMAGE),
                hashlib.sha256(IMAGE).hexdigest(),
                seconds=JOB_SECONDS,
                tls=ssl.create_default_context(),
                renew_url=lambda: url,
                sleep=time.sleep,
            ).run(url)
            assert target.read_bytes() == IMAGE
        except DownloadError:
            assert not target.exists() or target.stat().st_size <= len(IMAGE)
    assert time.monotonic() - started < JOB_SECONDS + 1.0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.one_of(
        JSON,
        st.fixed_dictionaries(
            {"operation": st.just("install-firmware"), "release": JSON, "url": JSON}
        ),
        st.fixed_dictionaries({"url": JSON | st.just(URL)}).map(
            lambda more: document(statement_of(IMAGE), **more)
        ),
    )
)
def test_no_document_ends_the_device(
    tmp_path_factory: pytest.TempPathFactory, anything: object
) -> None:
    iot = FakeIot()
    job = iot.offer(statement_of(IMAGE), URL)
    job["document"] = anything
    run_until_idle(iot, tmp_path_factory.mktemp("device"))
    assert job["status"] == "FAILED"
    assert len(iot.updates[-1]["details"]["detail"]) <= 1024
