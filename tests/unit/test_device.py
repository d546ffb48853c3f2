"""The reference device without a network: its rules, its download, its flash, and what it tells an
IoT that misbehaves."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollout.codec import canonical
from rollout.document import OPERATION, Statement, b64url, jws, signing_input
from rollout.release import Version
from sandbox import device as device_module
from sandbox.device import Device, DeviceConfig, Faults
from sandbox.download import Download, DownloadError
from sandbox.judge import Accept, AlreadyThere, Fail, Reject, judge, load_keys
from sandbox.link import (
    Endpoint,
    Execution,
    JobEnded,
    Refused,
    Stopped,
    Unreachable,
    VersionMismatch,
)
from sandbox.slots import MAX_TRIAL_BOOTS, JobKey, Memory, Slots

KEY, OTHER_KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
URL = "https://firmware.example/image"


def pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def signed(
    payload: object, key: ec.EllipticCurvePrivateKey = KEY, kind: Any = "iotota-release+jws"
) -> str:
    text = signing_input(kind, "key", payload)
    return jws(text, key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))


def document(payload: object, **changes: Any) -> dict[str, Any]:
    return {"operation": OPERATION, "release": signed(payload), "url": URL} | changes


STATEMENT = Statement(
    channel="stable", hardware="gateway-a1", version="2.1.0", sha256="a" * 64, size=10, sequence=100
)
MEMORY = Memory(version="2.0.0", sha256="0" * 64, sequence=50)
KEYS = load_keys(pem(KEY))


@dataclass(frozen=True)
class Build:
    channel: str = "stable"
    hardware: str = "gateway-a1"


def verdict(statement: Statement = STATEMENT, memory: Memory = MEMORY) -> Any:
    return judge(document(statement), memory, KEYS, Build())


# The rules


def test_a_genuine_newer_release_is_accepted() -> None:
    assert verdict() == Accept(STATEMENT, URL)


@pytest.mark.parametrize(
    ("statement", "memory", "expected"),
    [
        (replace(STATEMENT, channel="beta"), MEMORY, (Fail, "other channel")),
        (replace(STATEMENT, hardware="gateway-b2"), MEMORY, (Reject, "other hardware")),
        (replace(STATEMENT, sequence=49), MEMORY, (Reject, "stale sequence")),
        (replace(STATEMENT, minimum_version="2.0.1"), MEMORY, (Reject, "below minimum version")),
        (STATEMENT, replace(MEMORY, version="2.2.0"), (Reject, "newer version running")),
        (replace(STATEMENT, sha256="A" * 64), MEMORY, (Fail, "bad statement")),
        (replace(STATEMENT, size=0), MEMORY, (Fail, "bad statement")),
        (replace(STATEMENT, sequence=0), MEMORY, (Fail, "bad statement")),
        (replace(STATEMENT, sequence=2**63), MEMORY, (Fail, "bad statement")),
        (replace(STATEMENT, version="2.1"), MEMORY, (Fail, "bad statement")),
        (replace(STATEMENT, minimum_version="two"), MEMORY, (Fail, "bad statement")),
        # what several rules refuse, the first one names
        (replace(STATEMENT, hardware="gateway-b2", sequence=1), MEMORY, (Reject, "other hardware")),
        (
            replace(STATEMENT, sequence=1, minimum_version="9.0.0"),
            MEMORY,
            (Reject, "stale sequence"),
        ),
    ],
)
def test_what_is_refused_and_why(
    statement: Statement, memory: Memory, expected: tuple[type, str]
) -> None:
    got = verdict(statement, memory)
    assert (type(got), got.reason) == expected


def test_what_already_runs_has_succeeded_even_under_an_old_sequence() -> None:
    running = replace(MEMORY, version="2.1.0", sha256="a" * 64, sequence=200)
    assert verdict(memory=running) == AlreadyThere(STATEMENT)


def test_the_same_sequence_is_accepted_again_so_that_an_update_can_be_resumed() -> None:
    assert verdict(memory=replace(MEMORY, sequence=100)) == Accept(STATEMENT, URL)


def test_the_same_version_with_another_digest_is_another_image() -> None:
    assert isinstance(verdict(memory=replace(MEMORY, version="2.1.0")), Accept)


def test_a_rollback_installs_an_older_version() -> None:
    back = replace(STATEMENT, downgrade=True)
    assert verdict(back, replace(MEMORY, version="3.0.0")) == Accept(back, URL)


VERSIONS = st.sampled_from(["1.0.0", "2.0.0", "2.1.0-rc.1", "2.1.0", "2.1.0+build", "3.0.0"])
DIGESTS = st.sampled_from(["0" * 64, "a" * 64, "b" * 64])
STATEMENTS = st.builds(
    Statement,
    channel=st.sampled_from(["stable", "beta"]),
    hardware=st.sampled_from(["gateway-a1", "gateway-b2"]),
    version=VERSIONS,
    sha256=DIGESTS,
    size=st.integers(1, 100),
    sequence=st.integers(1, 10),
    minimum_version=st.none() | VERSIONS,
    downgrade=st.booleans(),
)
MEMORIES = st.builds(Memory, version=VERSIONS, sha256=DIGESTS, sequence=st.integers(0, 10))


@given(STATEMENTS, MEMORIES)
def test_nothing_is_accepted_that_breaks_a_rule(statement: Statement, memory: Memory) -> None:
    got = verdict(statement, memory)
    for_us = (statement.channel, statement.hardware) == ("stable", "gateway-a1")
    running = Version(memory.version)
    may_install = (
        statement.sequence >= memory.sequence
        and running >= Version(statement.minimum_version or "0.0.0-0")
        and (statement.downgrade or running <= Version(statement.version))
    )
    same = (statement.version, statement.sha256) == (memory.version, memory.sha256)
    assert isinstance(got, AlreadyThere) == (for_us and same)
    assert isinstance(got, Accept) == (for_us and not same and may_install)
    assert isinstance(got, Fail) == (statement.channel != "stable")


@given(st.lists(STATEMENTS, min_size=2, max_size=6), MEMORIES)
def test_a_replayed_document_never_installs_again_after_a_higher_sequence(
    offers: list[Statement], memory: Memory
) -> None:
    for offer in offers:
        if isinstance(verdict(offer, memory), Accept):
            memory = replace(
                memory,
                version=offer.version,
                sha256=offer.sha256,
                sequence=max(memory.sequence, offer.sequence),
            )
    for offer in offers:
        if offer.sequence < memory.sequence:
            assert not isinstance(verdict(offer, memory), Accept)


# The signature


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
)


@given(JSON)
def test_any_document_of_others_fails_and_breaks_nothing(anything: object) -> None:
    assert isinstance(judge(anything, MEMORY, KEYS, Build()), Fail)


@given(
    st.fixed_dictionaries(
        {"operation": st.just(OPERATION), "release": st.text(), "url": st.just(URL)}
    )
)
def test_any_token_of_others_fails(anything: object) -> None:
    assert isinstance(judge(anything, MEMORY, KEYS, Build()), Fail)


@given(JSON)
def test_a_signed_payload_that_is_no_statement_fails(payload: object) -> None:
    got = judge(document(payload), MEMORY, KEYS, Build())
    assert isinstance(got, Fail)
    assert got.reason == "bad statement"


def test_a_statement_with_a_key_the_device_does_not_know_is_refused() -> None:
    more = json.loads(canonical(STATEMENT)) | {"onlyOnSundays": True}
    assert judge(document(more), MEMORY, KEYS, Build()) == Fail(
        "bad statement", _unknown("onlyOnSundays")
    )


def _unknown(key: str) -> str:
    known = "channel, downgrade, hardware, minimumVersion, sequence, sha256, size, version"
    return f"{key}: unknown; known are {known}"


@given(st.data())
def test_one_changed_character_of_the_token_is_refused(data: st.DataObject) -> None:
    token = document(STATEMENT)["release"]
    # the last character's low bits are padding, and decode to the same signature
    place = data.draw(st.integers(0, len(token) - 2))
    letter = data.draw(st.sampled_from("Aa0-_.").filter(lambda other: other != token[place]))
    assert isinstance(
        judge(
            document(STATEMENT, release=token[:place] + letter + token[place + 1 :]),
            MEMORY,
            KEYS,
            Build(),
        ),
        Fail,
    )


def forged(header: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    text = f"{b64url(canonical(header).encode())}.{b64url(canonical(STATEMENT).encode())}"
    return f"{text}.{b64url(sign(text.encode()))}"


def raw(key: ec.EllipticCurvePrivateKey) -> Callable[[bytes], bytes]:
    def sign(data: bytes) -> bytes:
        token = jws("", key.sign(data, ec.ECDSA(hashes.SHA256())))
        return base64.urlsafe_b64decode(token[1:] + "==")

    return sign


@pytest.mark.parametrize(
    "token",
    [
        forged({"alg": "none", "typ": "iotota-release+jws"}, lambda _: b""),
        forged({"alg": "none", "typ": "iotota-release+jws"}, lambda _: b"\0" * 64),
        forged(
            {"alg": "HS256", "typ": "iotota-release+jws"},
            lambda data: hmac.digest(pem(KEY).encode(), data, "sha256"),
        ),
        forged(
            {"alg": "HS256", "typ": "iotota-release+jws"},
            lambda data: 2 * hmac.digest(pem(KEY).encode(), data, "sha256"),
        ),
        forged({"alg": "ES384", "typ": "iotota-release+jws"}, raw(KEY)),
        forged({"typ": "iotota-release+jws"}, raw(KEY)),
        forged({"alg": "ES256"}, raw(KEY)),
        forged({"alg": "ES256", "typ": "JWT"}, raw(KEY)),
        forged({"alg": "ES256", "typ": "iotota-state+jws"}, raw(KEY)),
        forged({"alg": "ES256", "typ": "iotota-release+jws", "crit": ["exp"]}, raw(KEY)),
        forged({"alg": "ES256", "typ": "iotota-release+jws"}, raw(OTHER_KEY)),
        forged({"alg": "ES256", "typ": "iotota-release+jws"}, lambda _: b"\0" * 64),
        b64url(b"[" * 9_000) + ".AA." + "A" * 86,
    ],
)
def test_forgeries_are_refused(token: str) -> None:
    got = judge(document(STATEMENT, release=token), MEMORY, KEYS, Build())
    assert isinstance(got, Fail)
    assert got.reason == "bad signature"


def test_the_forger_of_these_tests_makes_good_tokens_when_it_wants_to() -> None:
    token = forged({"alg": "ES256", "typ": "iotota-release+jws"}, raw(KEY))
    assert isinstance(judge(document(STATEMENT, release=token), MEMORY, KEYS, Build()), Accept)


def test_while_a_key_is_rotated_both_are_accepted() -> None:
    both = load_keys(pem(OTHER_KEY) + pem(KEY))
    for key in (KEY, OTHER_KEY):
        assert isinstance(
            judge(document(STATEMENT, release=signed(STATEMENT, key)), MEMORY, both, Build()),
            Accept,
        )
    after = load_keys(pem(OTHER_KEY))
    assert isinstance(judge(document(STATEMENT), MEMORY, after, Build()), Fail)


def test_only_p256_keys_are_taken() -> None:
    with pytest.raises(ValueError, match="P-256"):
        load_keys(pem(ec.generate_private_key(ec.SECP384R1())))
    with pytest.raises(ValueError, match="no public key"):
        load_keys("")


@pytest.mark.parametrize(
    "url",
    [
        "http://firmware.example/i",
        "file:///etc/passwd",
        "ftp://localhost/i",
        "https://",
        "http://[::1",
        "",
        "${aws:iot:s3-presigned-url-v2:https://b.s3.us-east-1.amazonaws.com/k}",
        "http://localhost.example/i",
    ],
)
def test_addresses_that_are_not_fetched(url: str) -> None:
    assert judge(document(STATEMENT, url=url), MEMORY, KEYS, Build()) == Fail(
        "bad document", "url is not https"
    )


@pytest.mark.parametrize(
    "url", ["http://localhost:4566/b/k", "http://127.0.0.1/k", "http://[::1]:80/k", URL]
)
def test_addresses_that_are_fetched(url: str) -> None:
    assert judge(document(STATEMENT, url=url), MEMORY, KEYS, Build()) == Accept(STATEMENT, url)


# The download


IMAGE = (
    b'{"hardware": "gateway-a1", "selfTest": "pass", "version": "2.1.0"}\n'
    + bytes(range(256)) * 400
)
BAD_IMAGE = IMAGE.replace(b'"pass"', b'"fail"')


@dataclass
class Shop:
    """An HTTP server of one image; `script` holds what it does with the next requests, and then it
    behaves."""

    content: bytes = IMAGE
    script: list[Callable[[Shop, BaseHTTPRequestHandler], None]] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.headers["Range"])
        (self.script.pop(0) if self.script else Shop.behave)(self, request)

    def behave(self, request: BaseHTTPRequestHandler) -> None:
        start = int((request.headers["Range"] or "bytes=0-")[6:-1])
        if start >= len(self.content):
            send(request, 416, b"")
        elif request.headers["Range"]:
            send(
                request,
                206,
                self.content[start:],
                {"Content-Range": f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"},
            )
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


def refuse(code: int) -> Callable[[Shop, BaseHTTPRequestHandler], None]:
    return lambda shop, request: send(request, code, b"no")


def cut_at(count: int) -> Callable[[Shop, BaseHTTPRequestHandler], None]:
    """Promises everything that was asked for and closes after so many bytes of it."""

    def answer(shop: Shop, request: BaseHTTPRequestHandler) -> None:
        start = int((request.headers["Range"] or "bytes=0-")[6:-1])
        total = len(shop.content)
        place = {"Content-Range": f"bytes {start}-{total - 1}/{total}"} if start else {}
        send(request, 206 if start else 200, shop.content[start:], place, cut=count)

    return answer


def ignore_range(shop: Shop, request: BaseHTTPRequestHandler) -> None:
    send(request, 200, shop.content)


def wrong_place(shop: Shop, request: BaseHTTPRequestHandler) -> None:
    send(
        request,
        206,
        shop.content[5:],
        {"Content-Range": f"bytes 5-{len(shop.content) - 1}/{len(shop.content)}"},
    )


def placeless(shop: Shop, request: BaseHTTPRequestHandler) -> None:
    send(request, 206, shop.content)


def endless(shop: Shop, request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(b"x" * 65_536)
    except OSError:
        pass


def redirect(shop: Shop, request: BaseHTTPRequestHandler) -> None:
    send(request, 302, b"", {"Location": shop.url + "?elsewhere"})


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.server.shop.answer(self)  # type: ignore[attr-defined]

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def shop(server: ThreadingHTTPServer) -> Shop:
    return open_shop(server)


def open_shop(server: ThreadingHTTPServer) -> Shop:
    shop = Shop(url=f"http://127.0.0.1:{server.server_port}/image")
    server.shop = shop  # type: ignore[attr-defined]
    return shop


@dataclass
class Fetch:
    """A download of IMAGE from the shop, with the waits counted instead of waited."""

    shop: Shop
    target: Path
    waits: list[float] = field(default_factory=list)
    fresh: int = 0

    def run(self) -> None:
        def fresh_url() -> str:
            self.fresh += 1
            return self.shop.url

        digest = hashlib.sha256(IMAGE).hexdigest()
        Download(self.target, len(IMAGE), digest, fresh_url=fresh_url, pause=self.waits.append).run(
            self.shop.url
        )
        assert self.target.read_bytes() == IMAGE

    def fails(self) -> str:
        with pytest.raises(DownloadError) as error:
            self.run()
        return error.value.reason


@pytest.fixture
def fetch(shop: Shop, tmp_path: Path) -> Fetch:
    return Fetch(shop, tmp_path / "slot-b.bin")


def test_a_download_in_one_go(fetch: Fetch) -> None:
    fetch.run()
    assert (fetch.shop.asked, fetch.waits, fetch.fresh) == ([None], [], 0)


def test_a_truncated_answer_is_resumed_where_it_ended(fetch: Fetch) -> None:
    fetch.shop.script = [cut_at(1000), cut_at(500)]
    fetch.run()
    assert fetch.shop.asked == [None, "bytes=1000-", "bytes=1500-"]


def test_what_an_earlier_life_left_is_kept(fetch: Fetch) -> None:
    fetch.target.write_bytes(IMAGE[:70_000])
    fetch.run()
    assert fetch.shop.asked == ["bytes=70000-"]


def test_what_an_earlier_life_completed_is_not_fetched_again(fetch: Fetch) -> None:
    fetch.target.write_bytes(IMAGE)
    fetch.run()
    assert fetch.shop.asked == []


def test_a_server_that_ignores_the_range_begins_anew(fetch: Fetch) -> None:
    fetch.target.write_bytes(b"?" * 500)
    fetch.shop.script = [ignore_range]
    fetch.run()


@pytest.mark.parametrize("behaviour", [wrong_place, placeless])
def test_a_part_from_another_place_is_not_taken(fetch: Fetch, behaviour: Any) -> None:
    fetch.target.write_bytes(IMAGE[:500])
    fetch.shop.script = [behaviour]
    fetch.run()
    assert fetch.shop.asked == ["bytes=500-", "bytes=500-"]


@pytest.mark.parametrize("code", [400, 401, 403])
def test_an_ended_url_is_replaced_by_a_fresh_one_and_the_download_goes_on(
    fetch: Fetch, code: int
) -> None:
    fetch.shop.script = [cut_at(1000), refuse(code)]
    fetch.run()
    assert fetch.fresh == 1
    assert fetch.shop.asked == [None, "bytes=1000-", "bytes=1000-"]


def test_urls_that_are_refused_again_and_again_fail(fetch: Fetch) -> None:
    fetch.shop.script = [refuse(403)] * 10
    assert fetch.fails() == "download failed"
    assert len(fetch.shop.asked) == 3


@pytest.mark.parametrize("code", [404, 410])
def test_an_image_that_is_gone_fails_at_once(fetch: Fetch, code: int) -> None:
    fetch.shop.script = [refuse(code)]
    assert fetch.fails() == "download failed"
    assert fetch.waits == []


def test_a_server_in_trouble_is_asked_again_with_growing_waits_and_then_given_up(
    fetch: Fetch,
) -> None:
    fetch.shop.script = [refuse(503)] * 20
    assert fetch.fails() == "download failed"
    assert len(fetch.shop.asked) == 8
    assert all(0.2 * 2**n / 2 <= wait <= 0.2 * 2**n for n, wait in enumerate(fetch.waits))


def test_trouble_is_forgotten_once_bytes_come(fetch: Fetch) -> None:
    fetch.shop.script = [*[refuse(503)] * 7, cut_at(10), *[refuse(503)] * 7]
    fetch.run()


def test_no_server_fails(fetch: Fetch) -> None:
    fetch.shop.url = "http://127.0.0.1:9/image"
    assert fetch.fails() == "download failed"
    assert len(fetch.waits) == 7


@pytest.mark.parametrize("content", [IMAGE[:-1], IMAGE + b"!"])
def test_an_image_of_another_size_fails_before_it_is_read(fetch: Fetch, content: bytes) -> None:
    fetch.shop.content = content
    assert fetch.fails() == "wrong size"
    assert not fetch.target.exists()


def test_a_shorter_image_is_noticed_by_a_resumed_download(fetch: Fetch) -> None:
    fetch.target.write_bytes(IMAGE[:1000])
    fetch.shop.content = IMAGE[:1000]
    assert fetch.fails() == "wrong size"


def test_an_endless_answer_is_cut_at_the_size(fetch: Fetch) -> None:
    fetch.shop.script = [endless]
    assert fetch.fails() == "wrong size"
    assert fetch.target.stat().st_size <= len(IMAGE)


def test_another_image_of_the_same_size_fails_after_one_whole_answer(fetch: Fetch) -> None:
    fetch.shop.content = BAD_IMAGE
    assert fetch.fails() == "wrong digest"
    assert len(fetch.shop.asked) == 1
    assert not fetch.target.exists()


def test_bytes_gone_bad_on_flash_are_fetched_again(fetch: Fetch) -> None:
    fetch.target.write_bytes(b"?" * 1000)
    fetch.run()
    assert fetch.shop.asked == ["bytes=1000-", None]


def test_a_wrong_image_that_always_comes_in_pieces_fails_in_the_end(fetch: Fetch) -> None:
    fetch.shop.content = BAD_IMAGE
    fetch.shop.script = [cut_at(1000), cut_at(100_000)] * 20
    assert fetch.fails() == "wrong digest"


def test_a_redirect_is_not_followed(fetch: Fetch) -> None:
    fetch.shop.script = [redirect] * 8
    assert fetch.fails() == "download failed"
    assert len(fetch.shop.asked) == 8


# The flash


def test_an_image_that_never_confirms_itself_is_given_up(tmp_path: Path) -> None:
    slots = factory(tmp_path)
    slots.accept(STATEMENT).write_bytes(IMAGE)
    slots.try_out(STATEMENT, JobKey(job_id="j", execution=1))

    def power_cut() -> None:
        raise OSError("power cut")

    for _ in range(MAX_TRIAL_BOOTS):
        with pytest.raises(OSError, match="power cut"):
            factory(tmp_path).boot("gateway-a1", power_cut)
    slots = factory(tmp_path)
    slots.boot("gateway-a1")
    assert slots.memory.version == "2.0.0"
    assert slots.memory.outcome is not None
    assert (slots.memory.outcome.status, slots.memory.outcome.detail) == (
        "FAILED",
        "not confirmed in 3 boots",
    )


@pytest.mark.parametrize(
    "content",
    [BAD_IMAGE, b"", b"\x00" * 9000, b"[" * 4000, b"[]\n", IMAGE.replace(b"a1", b"b2"), b"7\n"],
)
def test_a_bad_image_leaves_the_old_one_running(tmp_path: Path, content: bytes) -> None:
    slots = factory(tmp_path)
    slots.accept(STATEMENT).write_bytes(content)
    slots.try_out(STATEMENT, JobKey(job_id="j", execution=1))
    slots.boot("gateway-a1")
    assert (slots.memory.version, slots.memory.active, slots.memory.trial) == ("2.0.0", "a", None)


def test_the_slots_take_turns(tmp_path: Path) -> None:
    slots = factory(tmp_path)
    for active, sequence in (("b", 1), ("a", 2), ("b", 3)):
        statement = replace(STATEMENT, sequence=sequence, sha256=str(sequence) * 64)
        slots.accept(statement).write_bytes(IMAGE)
        slots.try_out(statement, JobKey(job_id="j", execution=1))
        slots.boot("gateway-a1")
        assert slots.memory == factory(tmp_path).memory
        assert (slots.memory.active, slots.memory.sha256) == (active, statement.sha256)


def test_the_beginning_of_another_image_is_thrown_away(tmp_path: Path) -> None:
    slots = factory(tmp_path)
    slots.accept(STATEMENT).write_bytes(b"beginning")
    assert slots.accept(STATEMENT).exists()
    assert not slots.accept(replace(STATEMENT, sha256="b" * 64)).exists()


def factory(folder: Path) -> Slots:
    return Slots(folder, "v2.0.0", "0" * 64)


# The whole device, against an IoT Jobs in memory


@dataclass
class FakeIot:
    """The jobs and the shadow of one thing. `trouble` is raised by the next calls, after the call
    has taken effect."""

    jobs: list[dict[str, Any]] = field(default_factory=list)
    updates: list[dict[str, Any]] = field(default_factory=list)
    shadow: list[dict[str, Any]] = field(default_factory=list)
    trouble: list[tuple[str, Exception | None]] = field(default_factory=list)
    on_update: Callable[[dict[str, Any], dict[str, str]], None] = lambda job, details: None
    idle: threading.Event = field(default_factory=threading.Event)
    """Set when the device asked for work and there was none."""

    def offer(
        self, statement: Statement, url: str, job_id: str | None = None, number: int = 1
    ) -> dict[str, Any]:
        job = {
            "id": job_id or f"job-{len(self.jobs)}",
            "number": number,
            "version": 1,
            "status": "QUEUED",
            "document": document(statement, url=url),
        }
        self.jobs.append(job)
        return job

    def connect(
        self, endpoint: Endpoint, on_ready: Callable[[], None], on_trouble: Callable[[str], None]
    ) -> FakeLink:
        return FakeLink(self, on_ready)

    def misbehave(self, call: str) -> None:
        if self.trouble and self.trouble[0][0] == call:
            _, error = self.trouble.pop(0)
            if error is not None:
                raise error


class FakeLink:
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

    def start_next(self) -> Execution | None:
        pending = [job for job in self._iot.jobs if job["status"] in ("QUEUED", "IN_PROGRESS")]
        pending.sort(key=lambda job: job["status"])
        self._iot.misbehave("start_next")
        if not pending:
            self._iot.idle.set()
            return None
        job = pending[0]
        if job["status"] == "QUEUED":
            job |= {"status": "IN_PROGRESS", "version": job["version"] + 1}
        return Execution(
            job_id=job["id"], number=job["number"], version=job["version"], document=job["document"]
        )

    def document(self, execution: Execution) -> object:
        self._iot.misbehave("document")
        return self._job(execution)["document"]

    def update(
        self, execution: Execution, version: int, status: Any, details: dict[str, str]
    ) -> int:
        job = self._job(execution)
        self._iot.on_update(job, details)
        if job["status"] != "IN_PROGRESS":
            raise JobEnded(job["status"])
        if job["version"] != version:
            raise VersionMismatch(job["version"])
        job |= {"status": status, "version": version + 1}
        self._iot.updates.append(
            {"job": job["id"], "number": job["number"], "status": status, "details": details}
        )
        self._iot.misbehave("update")
        return version + 1

    def report(self, reported: dict[str, Any]) -> None:
        self._iot.shadow.append(reported)
        self._iot.misbehave("report")

    def _job(self, execution: Execution) -> dict[str, Any]:
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
        initial_version="2.0.0",
        initial_sha256="0" * 64,
        folder=folder,
    )


def live(iot: FakeIot, folder: Path, faults: Faults | None = None) -> list[str]:
    """One life of the device: until it has no work, or dies. Returns what it said."""
    said: list[str] = []
    iot.idle.clear()
    device = Device(
        config(folder),
        lambda serial, text: said.append(text),
        faults=faults or Faults(),
        connect=iot.connect,
    )
    device.start()
    try:
        for _ in range(1000):
            if iot.idle.wait(0.01) or device.died.is_set():
                return said
        raise AssertionError(f"neither idle nor dead: {said}")
    finally:
        device.stop()


def offered(content: bytes, **changes: Any) -> Statement:
    return replace(
        STATEMENT, sha256=hashlib.sha256(content).hexdigest(), size=len(content), **changes
    )


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(device_module, "LONGEST_RETRY", 0.02)


def check(schema: str, message: object) -> None:
    jsonschema.validate(message, json.loads((SCHEMAS / schema).read_text()))


def test_an_update_in_few_messages_of_the_documented_shape(shop: Shop, tmp_path: Path) -> None:
    iot = FakeIot()
    iot.offer(offered(IMAGE), shop.url)
    live(iot, tmp_path)
    assert [(update["status"], update["details"]["step"]) for update in iot.updates] == [
        ("IN_PROGRESS", "downloading"),
        ("IN_PROGRESS", "rebooting"),
        ("SUCCEEDED", "done"),
    ]
    assert [shadow["firmware"]["version"] for shadow in iot.shadow] == ["2.0.0", "2.1.0"]
    for update in iot.updates:
        check("status-details.json", update["details"])
    for reported in iot.shadow:
        check("shadow.json", {"state": {"reported": reported}})


def test_a_slow_download_reports_its_quarters(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "PROGRESS_SECONDS", 0.0)
    iot = FakeIot()
    iot.offer(offered(IMAGE), shop.url)
    live(iot, tmp_path)
    percents = [
        int(update["details"]["percent"])
        for update in iot.updates
        if update["details"]["step"] == "downloading"
    ]
    assert [percent // 25 for percent in percents] == [0, 1, 2, 3]


def test_texts_of_others_come_out_as_iot_takes_them(tmp_path: Path) -> None:
    iot = FakeIot()
    iot.offer(replace(STATEMENT, channel="\n\x00\u200e" * 2000), URL)
    live(iot, tmp_path)
    assert iot.updates[0]["details"]["reason"] == "other channel"
    check("status-details.json", iot.updates[0]["details"])


STEPS = ["checking", "downloading", "installing", "rebooting", "self-test", "reporting"]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(deaths=st.lists(st.sampled_from(STEPS), max_size=5), bad=st.booleans())
def test_whatever_a_device_dies_of_its_update_ends_where_it_should(
    server: ThreadingHTTPServer,
    tmp_path_factory: pytest.TempPathFactory,
    deaths: list[Any],
    bad: bool,
) -> None:
    content = BAD_IMAGE if bad else IMAGE
    shop, iot, folder = open_shop(server), FakeIot(), tmp_path_factory.mktemp("device")
    shop.content = content
    job = iot.offer(offered(content), shop.url)
    died_in_self_test = 0
    for step in deaths:
        live(iot, folder, Faults(die_at=step))
        died_in_self_test += step == "self-test"
    live(iot, folder)
    memory = factory(folder).memory
    assert memory.sequence == 100
    assert (memory.trial, memory.outcome) == (None, None)
    assert iot.shadow[-1]["firmware"] == {
        "version": memory.version,
        "sha256": memory.sha256,
        "sequence": 100,
    }
    if bad:
        assert (job["status"], memory.version) == ("FAILED", "2.0.0")
    elif died_in_self_test < MAX_TRIAL_BOOTS:
        assert (job["status"], memory.version) == ("SUCCEEDED", "2.1.0")
    assert len([update for update in iot.updates if update["status"] != "IN_PROGRESS"]) == 1


def test_the_sequence_is_remembered_before_the_download(shop: Shop, tmp_path: Path) -> None:
    iot = FakeIot()
    iot.offer(offered(IMAGE), shop.url)
    live(iot, tmp_path, Faults(die_at="downloading"))
    replayed = FakeIot()
    replayed.offer(offered(IMAGE, sequence=99, downgrade=True, version="1.0.0"), shop.url)
    live(replayed, tmp_path)
    assert (replayed.updates[0]["status"], replayed.updates[0]["details"]["reason"]) == (
        "REJECTED",
        "stale sequence",
    )


def test_a_device_that_died_downloading_fetches_only_the_rest(shop: Shop, tmp_path: Path) -> None:
    iot = FakeIot()
    iot.offer(offered(IMAGE), shop.url)
    live(iot, tmp_path, Faults(die_at="downloading"))
    live(iot, tmp_path)
    assert shop.asked[0] is None
    assert shop.asked[1] is not None
    assert iot.jobs[0]["status"] == "SUCCEEDED"


@pytest.mark.parametrize("call", ["start_next", "update", "report"])
@pytest.mark.parametrize("times", [1, 3])
def test_an_answer_that_is_lost_is_asked_for_again(
    shop: Shop, tmp_path: Path, call: str, times: int
) -> None:
    iot = FakeIot(trouble=[(call, Unreachable("no answer"))] * times)
    job = iot.offer(offered(IMAGE), shop.url)
    live(iot, tmp_path)
    assert job["status"] == "SUCCEEDED"
    assert factory(tmp_path).memory.version == "2.1.0"


def test_a_lost_answer_to_the_result_is_no_second_result(shop: Shop, tmp_path: Path) -> None:
    iot = FakeIot(
        trouble=[("update", None), ("update", None), ("update", Unreachable("no answer"))]
    )
    iot.offer(offered(IMAGE), shop.url)
    live(iot, tmp_path)
    assert [update["status"] for update in iot.updates] == [
        "IN_PROGRESS",
        "IN_PROGRESS",
        "SUCCEEDED",
    ]
    assert factory(tmp_path).memory.outcome is None


def test_a_request_that_iot_refuses_does_not_end_the_device(shop: Shop, tmp_path: Path) -> None:
    iot = FakeIot(trouble=[("report", Refused("InvalidRequest"))])
    job = iot.offer(offered(IMAGE), shop.url)
    assert "refused: InvalidRequest" in live(iot, tmp_path)
    assert job["status"] == "SUCCEEDED"


def test_an_execution_with_another_version_is_updated_all_the_same(
    shop: Shop, tmp_path: Path
) -> None:
    raised: list[str] = []

    def meddle(job: dict[str, Any], details: dict[str, str]) -> None:
        if details["step"] not in raised:
            raised.append(details["step"])
            job["version"] += 3

    iot = FakeIot(on_update=meddle)
    job = iot.offer(offered(IMAGE), shop.url)
    live(iot, tmp_path)
    assert job["status"] == "SUCCEEDED"
    assert len(iot.updates) == 3


@pytest.mark.parametrize(
    ("step", "version"), [("downloading", "2.0.0"), ("rebooting", "2.0.0"), ("done", "2.1.0")]
)
@pytest.mark.parametrize("status", ["CANCELED", "TIMED_OUT"])
def test_a_job_that_ended_meanwhile_leaves_what_is_true(
    shop: Shop, tmp_path: Path, step: str, version: str, status: str
) -> None:
    def end(job: dict[str, Any], details: dict[str, str]) -> None:
        if details["step"] == step and job["id"] == "job-0":
            job["status"] = status

    iot = FakeIot(on_update=end)
    iot.offer(offered(IMAGE), shop.url)
    after = iot.offer(offered(IMAGE, sequence=101), shop.url)
    said = live(iot, tmp_path)
    assert f"job-0 ended meanwhile: {status}" in said
    assert after["status"] == "SUCCEEDED"
    first = next(
        reported for reported in reversed(iot.shadow) if reported["firmware"]["sequence"] <= 100
    )
    assert first["firmware"]["version"] == version
    assert factory(tmp_path).memory.version == "2.1.0"


def test_the_outcome_of_a_job_that_timed_out_is_not_reported_for_the_next_one(
    shop: Shop, tmp_path: Path
) -> None:
    iot = FakeIot()
    shop.content = BAD_IMAGE
    old = iot.offer(offered(BAD_IMAGE), shop.url)
    live(iot, tmp_path, Faults(die_at="reporting"))
    old["status"] = "TIMED_OUT"
    new = iot.offer(offered(IMAGE, version="2.1.1", sequence=101), shop.url)
    shop.content = IMAGE
    live(iot, tmp_path)
    assert (old["status"], new["status"]) == ("TIMED_OUT", "SUCCEEDED")
    assert factory(tmp_path).memory.version == "2.1.1"


def test_a_job_that_iot_retries_is_tried_again(shop: Shop, tmp_path: Path) -> None:
    iot = FakeIot()
    shop.content = BAD_IMAGE
    iot.offer(offered(BAD_IMAGE), shop.url, "job", 1)
    live(iot, tmp_path, Faults(die_at="reporting"))
    iot.jobs[0]["status"] = "TIMED_OUT"
    iot.offer(offered(BAD_IMAGE), shop.url, "job", 2)
    live(iot, tmp_path)
    assert len(shop.asked) == 2
    assert [
        (update["number"], update["status"])
        for update in iot.updates
        if update["status"] != "IN_PROGRESS"
    ] == [(2, "FAILED")]


def test_an_old_job_found_after_the_reboot_has_succeeded(shop: Shop, tmp_path: Path) -> None:
    iot = FakeIot()
    iot.offer(offered(IMAGE), shop.url)
    iot.offer(offered(IMAGE, sequence=99), shop.url)
    live(iot, tmp_path)
    assert [(job["status"]) for job in iot.jobs] == ["SUCCEEDED", "SUCCEEDED"]
    assert iot.updates[-1]["details"]["reason"] == "already installed"
    assert factory(tmp_path).memory.sequence == 100


def test_a_newer_offer_of_what_runs_raises_the_sequence(shop: Shop, tmp_path: Path) -> None:
    iot = FakeIot()
    iot.offer(offered(IMAGE), shop.url)
    iot.offer(offered(IMAGE, sequence=200), shop.url)
    live(iot, tmp_path)
    assert factory(tmp_path).memory.sequence == 200
    assert iot.shadow[-1]["firmware"]["sequence"] == 200


def test_a_fresh_url_comes_from_the_job_and_only_with_the_same_release(
    shop: Shop, tmp_path: Path
) -> None:
    iot = FakeIot()
    job = iot.offer(offered(IMAGE), shop.url + "?ended")
    shop.script = [refuse(403)]
    live(iot, tmp_path)
    assert job["status"] == "SUCCEEDED"

    swapped = iot.offer(offered(BAD_IMAGE, version="2.2.0", sequence=101), shop.url)

    def swap(shop: Shop, request: BaseHTTPRequestHandler) -> None:
        swapped["document"] = document(offered(IMAGE, version="2.2.0", sequence=102), url=shop.url)
        send(request, 403, b"")

    shop.script = [swap]
    live(iot, tmp_path)
    assert swapped["status"] == "FAILED"
    assert iot.updates[-1]["details"]["detail"] == "the job's document changed"


def test_a_device_that_is_stopped_in_mid_download_goes_on_in_its_next_life(
    shop: Shop, tmp_path: Path
) -> None:
    begun, iot = threading.Event(), FakeIot()

    def stall(shop: Shop, request: BaseHTTPRequestHandler) -> None:
        begun.set()
        send(request, 503, b"")

    shop.script = [stall] * 8
    job = iot.offer(offered(IMAGE), shop.url)
    device = Device(config(tmp_path), connect=iot.connect)
    device.start()
    assert begun.wait(5)
    device.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "device 1"]
    assert job["status"] == "IN_PROGRESS"
    shop.script = []
    live(iot, tmp_path)
    assert job["status"] == "SUCCEEDED"


def test_a_device_that_never_started_can_be_stopped(tmp_path: Path) -> None:
    Device(config(tmp_path), connect=FakeIot().connect).stop()
