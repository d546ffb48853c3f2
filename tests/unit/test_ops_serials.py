"""The registry's commands: what they refuse, say, write, and do when AWS or others come between."""

from __future__ import annotations

import builtins
import concurrent.futures
import getpass
import io
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ops.main
import ops.paced
import ops.serial_import
import ops.serials
import ops.stack
from cloud.serial_table import RECORD, THROTTLE_WAITS, SerialTable, StillThrottled
from ops.command import MAX_WRITES
from ops.paced import BrokenOff, act_on_each
from rollout.codec import decode_text, encode
from rollout.names import ORDER_CHARACTERS
from rollout.orders import Order
from rollout.serial import MAX_EVENTS, Serial, SerialStatus
from tests.unit.ops_cloud import MANIFEST, NAMES, NOW, STACK
from tests.unit.serials_cloud import TABLE, SerialsAws, certificate_of, claimed

Ops = Callable[..., str]
SAID = ["--yes", "--why", "the lot of May"]
THING = NAMES.thing("0001")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> SerialsAws:
    made = SerialsAws()
    made.publish(MANIFEST)
    monkeypatch.setattr(ops.stack, "open_stack", made.open)
    monkeypatch.setattr(getpass, "getuser", lambda: "olga")
    monkeypatch.setattr(ops.serials, "THROTTLE_WAITS", (0.0,) * len(THROTTLE_WAITS))
    return made


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ops:
    """Runs a verb of `serials`, which must end with `code`; what it said."""

    def run(*words: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        assert ops.main.main(["serials", *words, "--stack", "prod"]) == code
        told = capsys.readouterr()
        return told.out + told.err

    return run


@pytest.fixture
def add(run: Ops, tmp_path: Path) -> Ops:
    """Adds a list of these lines."""

    def add(*lines: str, code: int = 0, words: tuple[str, ...] = ()) -> str:
        file = tmp_path / "serials.csv"
        file.write_text("\n".join(lines) + "\n")
        return run("add", "--file", str(file), *(words or SAID), code=code)

    return add


def whats(record: Serial) -> list[str]:
    return [event.what for event in record.events]


# A list


def test_new_serials_are_registered_with_who_when_and_why(aws: SerialsAws, add: Ops) -> None:
    text = add("serial,ring,site", "0001,,lab", "0002,canary,", "0003,,")
    assert "        3 new        0001, 0002, 0003\n" in text
    assert "3 serials were written." in text
    found = aws.record("0001")
    assert (found.status, found.ring, found.attributes) == ("unclaimed", None, {"site": "lab"})
    assert aws.record("0002").ring == "canary"
    [event] = found.events
    assert (event.what, event.order.why) == ("added", "the lot of May")
    assert event.order.by == "arn:aws:iam::111122223333:user/olga (olga)"
    assert event.order.at == pytest.approx(time.time(), abs=60)
    assert aws.items["0001"]["status"] == {"S": "unclaimed"}


def test_a_second_run_writes_only_what_differs(aws: SerialsAws, add: Ops) -> None:
    lines = ["serial,ring,site", *(f"{n:04},,lab" for n in range(250))]
    add(*lines)
    assert aws.writes == 250
    text = add(*lines)
    assert "      250 as the list has them\nNothing was changed.\n" in text
    assert aws.writes == 250
    text = add("serial,site", "0001,plant", "0002,lab", "0003,", "new,lab")
    assert aws.writes == 253
    assert "        1 new        new\n" in text
    assert "        2 changed\n" in text
    assert "line 2, 0001: site plant, was lab\n" in text
    assert "line 4, 0003: site -, was lab\n" in text
    assert "        1 as the list has them\n" in text
    assert whats(aws.record("0001")) == ["added", "changed"]
    assert aws.record("0003").attributes == {}


def test_a_dry_run_and_a_no_change_nothing(
    aws: SerialsAws, add: Ops, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["serial", *(f"{n:04}" for n in range(7))]
    text = add(*lines, words=("--dry-run",))
    assert "        7 new        0000, 0001, 0002, 0003, 0004, ...\n" in text
    assert text.endswith("Nothing was changed.\n")
    assert "nobody is there to ask" in add(*lines, words=("--why", "x"), code=1)
    monkeypatch.setattr(builtins, "input", lambda _question: "n")
    assert (aws.writes, aws.items) == (0, {})


def test_every_mistake_is_told_and_nothing_half_done(aws: SerialsAws, add: Ops) -> None:
    aws.register(claimed("0007", ring="broad"), claimed("0008"))
    lines = ("serial,ring,site,hardware", "0001,early,lab,", "0007,canary,,", "0008,,,", "0 9,,,")
    text = add(*lines, code=1)
    told = text.split("(nothing was changed):\n")[1].splitlines()
    assert [line.split(":")[0] for line in told] == ["  line 1", "  line 2", "  line 5", "  line 3"]
    assert 'column "hardware" is no attribute of the fleet, which are line, site' in told[0]
    assert told[3] == (
        f"  line 3: ring: 0007 is claimed, its thing {NAMES.thing('0007')} stays where it is: write"
        ' "broad" here, and move the thing with `ops rings`'
    )
    assert aws.writes == 0


@pytest.mark.usefixtures("aws")
def test_a_long_list_of_mistakes_is_told_in_part(add: Ops) -> None:
    text = add("serial", *(["a b"] * 300), code=1)
    assert text.count("is not 1 to 98 letters") < 102
    assert "  and " in text
    assert " more\n" in text


def test_a_claimed_serial_may_get_other_attributes_for_its_next_claim(
    aws: SerialsAws, add: Ops
) -> None:
    aws.register(claimed("0001"))
    text = add("serial,site", "0001,plant")
    assert "site plant, was - (its thing keeps what it has until it is claimed again)" in text
    assert aws.record("0001").status is SerialStatus.CLAIMED
    assert aws.record("0001").claim == claimed("0001").claim


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read: No such file"),
        (b"serial\n\xff\n", "is not UTF-8 (invalid start byte): save it as CSV UTF-8"),
        (b"serial;ring\n0001;canary\n", "no column serial"),
    ],
)
def test_a_file_that_is_no_list(run: Ops, tmp_path: Path, content: bytes | None, told: str) -> None:
    file = tmp_path / "serials.csv"
    if content is not None:
        file.write_bytes(content)
    assert told in run("add", "--file", str(file), *SAID, code=1)


def test_a_spreadsheet_s_mark_is_no_part_of_the_first_column(
    aws: SerialsAws, run: Ops, tmp_path: Path
) -> None:
    file = tmp_path / "serials.csv"
    file.write_bytes("\ufeffserial\r\n0001\r\n".encode())
    run("add", "--file", str(file), *SAID)
    assert list(aws.items) == ["0001"]


def test_a_claim_that_comes_between_is_not_undone(aws: SerialsAws, add: Ops) -> None:
    aws.register(Serial(serial="0001"), Serial(serial="0002"))

    def claim_first(serial: str) -> None:
        if aws.record(serial).claim is None:
            aws.register(claimed(serial))

    aws.before_write = claim_first
    text = add("serial,ring,site", "0001,canary,lab", "0002,,lab", code=1)
    assert "1 serials were written.\n" in text
    assert "these were left as they are:\n  line 2: ring: 0001 is claimed" in text
    assert aws.record("0001") == claimed("0001")
    assert aws.record("0002").claim == claimed("0002").claim
    assert aws.record("0002").attributes == {"site": "lab"}


def test_somebody_who_is_always_faster_wins(aws: SerialsAws, add: Ops) -> None:
    count = iter(range(100))

    def change(serial: str) -> None:
        aws.register(Serial(serial=serial, attributes={"line": str(next(count))}))

    aws.before_write = change
    text = add("serial,site", "0001,lab", code=1)
    assert f"line 2: 0001 was changed by others {MAX_WRITES} times" in text
    assert next(count) == MAX_WRITES


def test_an_answer_that_is_lost_writes_once(aws: SerialsAws, add: Ops) -> None:
    aws.lost = 1
    text = add("serial", "0001")
    assert "1 serials were written." in text
    assert whats(aws.record("0001")) == ["added"]


def test_what_aws_throttles_is_made_again(aws: SerialsAws, add: Ops) -> None:
    aws.throttles, aws.unread = 3, 2
    text = add("serial", "0001", "0002")
    assert "2 serials were written." in text
    assert len(aws.items) == 2


def test_throttling_without_an_end_ends_and_tells_how_far_it_came(
    aws: SerialsAws, add: Ops
) -> None:
    lines = ["serial", *(f"{n:04}" for n in range(100))]

    def throttle(_serial: str) -> None:
        if aws.writes == 40:
            aws.throttles = 10_000

    aws.before_write = throttle
    text = add(*lines, code=1)
    assert " of 100 are written; the same command again goes on from there.\n" in text
    assert "AWS answered PutItem with ProvisionedThroughputExceededException: too fast" in text
    done = len(aws.items)
    assert f"{done} of 100 are written" in text
    aws.throttles, aws.before_write = 0, lambda _serial: None
    assert f"{100 - done} new " in add(*lines)
    assert len(aws.items) == 100
    assert all(whats(aws.record(serial)) == ["added"] for serial in aws.items)


def test_a_read_that_never_comes_through_ends(aws: SerialsAws, add: Ops) -> None:
    aws.unread = 1_000
    text = add("serial", "0001", code=1)
    assert f"BatchGetItem of {TABLE} reads nothing any more: try again later; nothing" in text
    aws.unread = 1_000
    with pytest.raises(StillThrottled):
        SerialTable(aws.channel().clients, TABLE).get_all(["0001"])
    assert aws.unread == 999, "without waits it is asked once"


def test_an_interrupt_ends_it_and_says_how_far_it_came(
    aws: SerialsAws, add: Ops, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["serial", *(f"{n:04}" for n in range(3_000))]
    interrupted = threading.Event()

    def wait(workers: Any, seconds: float | None = None, *args: Any) -> Any:
        if seconds is not None:
            while aws.writes < 20:
                threading.Event().wait(0.005)
            interrupted.set()
            raise KeyboardInterrupt
        return real_wait(workers)

    real_wait = concurrent.futures.wait
    monkeypatch.setattr(ops.paced, "wait", wait)
    text = add(*lines, code=130)
    assert interrupted.is_set()
    done = len(aws.items)
    assert 20 <= done < 3_000
    assert f"\n{done:,} of 3,000 are written; the same command again goes on from there.\n" in text
    assert text.endswith("interrupted\n")


def test_many_are_written_at_the_pace_and_the_first_error_ends_it() -> None:
    seen: list[int] = []
    began = time.monotonic()
    act_on_each(range(300), seen.append, a_second=1_000)
    assert sorted(seen) == list(range(300))
    assert time.monotonic() - began >= 0.29, "300 at 1,000 a second take 0.3 s at least"

    def fail(number: int) -> None:
        if number == 50:
            raise ValueError("no")

    with pytest.raises(BrokenOff) as broken:
        act_on_each(range(100_000), fail, a_second=1_000_000)
    assert isinstance(broken.value.__cause__, ValueError)
    assert broken.value.done < 10_000
    act_on_each([], fail, a_second=1)


def test_a_stack_without_a_registry_says_so(aws: SerialsAws, run: Ops, add: Ops) -> None:
    aws.stack = STACK
    told = "this stack has no registry of serials: its devices are not provisioned by claim"
    assert told in add("serial", "0001", code=1)
    assert told in run("list", code=1)
    for verb in ("release", "block", "unblock", "remove"):
        assert told in run(verb, "0001", *SAID, code=1)


def test_a_missing_right_is_named(aws: SerialsAws, add: Ops) -> None:
    aws.denied = {"PutItem"}
    text = add("serial", "0001", code=1)
    assert "0 of 1 are written" in text
    assert "you need the permission dynamodb:PutItem" in text


def test_a_record_that_somebody_wrote_by_hand_is_named(aws: SerialsAws, run: Ops, add: Ops) -> None:
    aws.register(Serial(serial="0001"), Serial(serial="0002"))
    aws.items["0001"]["record"] = {"S": '{"serial": "0001", "status": "free"}'}
    del aws.items["0002"]["record"]
    for serial, told in (("0001", "status: must be one of unclaimed"), ("0002", "'record'")):
        said = run("block", serial, *SAID, code=1)
        assert said.startswith(
            f"serials: somebody else wrote the record of serial {serial}: {told}"
        )
        assert "somebody else wrote the record" in add("serial", serial, code=1)
    assert "somebody else wrote the record" in run("list", code=1)
    assert aws.writes == 0


def test_a_long_look_is_told(aws: SerialsAws, add: Ops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops.serial_import, "TOLD_EVERY", 0.0)
    text = add("serial", *(f"{n:04}" for n in range(150)), words=("--dry-run",))
    assert "  looked at 100 of 150\n  looked at 150 of 150\n" in text
    assert aws.writes == 0


# The list


@pytest.fixture
def four(aws: SerialsAws) -> SerialsAws:
    aws.register(
        Serial(serial="0001", ring="canary", attributes={"site": "lab"}),
        claimed("0002"),
        replace(claimed("0003"), status=SerialStatus.RELEASED),
        Serial(serial="0004", status=SerialStatus.BLOCKED, before=SerialStatus.UNCLAIMED),
    )
    return aws


@pytest.mark.usefixtures("four")
def test_the_list_counts_every_page(run: Ops) -> None:
    text = run("list")
    assert text.splitlines() == [
        "0001  unclaimed, ring canary, site lab",
        f"0002  claimed, {NAMES.thing('0002')}",
        f"0003  released, {NAMES.thing('0003')}",
        "0004  blocked",
        "4 serials: 1 unclaimed, 1 claimed, 1 released, 1 blocked",
    ]
    assert run("list", "--most", "0") == (
        "and 4 more (--most N, --json)\n4 serials: 1 unclaimed, 1 claimed, 1 released, 1 blocked\n"
    )
    assert run("list", "--status", "blocked") == "0004  blocked\n1 serials: 1 blocked\n"


def test_the_list_by_ring_takes_the_hash_s_where_none_is_named(four: SerialsAws, run: Ops) -> None:
    assert run("list", "--ring", "canary").endswith("\n1 serials: 1 unclaimed\n")
    assert run("list", "--ring", "broad").endswith(
        "\n3 serials: 1 claimed, 1 released, 1 blocked\n"
    )
    assert "there is no ring early: canary, broad" in run("list", "--ring", "early", code=1)
    del four.objects[NAMES.keys.manifest]
    assert "stands in release.json: there is no manifest yet" in run(
        "list", "--ring", "broad", code=1
    )


def test_the_list_as_json_is_a_record_a_line(four: SerialsAws, run: Ops) -> None:
    lines = run("list", "--json").splitlines()
    read = {record.serial: record for record in (decode_text(Serial, line) for line in lines)}
    assert read == {serial: four.record(serial) for serial in four.items}
    assert json.loads(run("list", "--json", "--status", "claimed")) == encode(claimed("0002"))


# One serial


@pytest.fixture
def device(aws: SerialsAws) -> SerialsAws:
    """A device that claimed 0001."""
    aws.register(claimed("0001"))
    aws.groups[THING] = ["fleet-0123abcd-canary"]
    aws.certificates[THING] = [certificate_of("0001"), "0" * 64, "f" * 64]
    aws.statuses = {"0" * 64: "REVOKED"}
    return aws


def test_a_release_makes_the_certificates_inactive_first(device: SerialsAws, run: Ops) -> None:
    def look(_serial: str) -> None:
        assert device.statuses[certificate_of("0001")] == "INACTIVE"

    device.before_write = look
    text = run("release", "0001", *SAID)
    assert f"the certificates of {THING} are made inactive and its connection is ended" in text
    assert "0001: released, by arn:aws:iam::111122223333:user/olga (olga): the lot of May" in text
    record = device.record("0001")
    assert (record.status, whats(record)) == (SerialStatus.RELEASED, ["released"])
    assert record.claim == claimed("0001").claim, "who had it stays known"
    assert device.statuses == {
        "0" * 64: "REVOKED",
        "f" * 64: "INACTIVE",
        certificate_of("0001"): "INACTIVE",
    }, "what is revoked stays revoked"
    assert device.ended == [THING]


def test_a_release_that_aws_refuses_changes_no_record(device: SerialsAws, run: Ops) -> None:
    device.denied = {"UpdateCertificate"}
    assert "iot:UpdateCertificate" in run("release", "0001", *SAID, code=1)
    assert device.record("0001") == claimed("0001")


def test_a_release_of_a_device_whose_thing_is_gone(device: SerialsAws, run: Ops) -> None:
    del device.groups[THING]
    run("release", "0001", *SAID)
    assert device.record("0001").status is SerialStatus.RELEASED


def test_a_claim_anew_that_comes_between_is_cut_off_too(device: SerialsAws, run: Ops) -> None:
    late = "e" * 64

    def claim_again(_serial: str) -> None:
        device.before_write = lambda _serial: None
        device.certificates[THING].append(late)
        device.register(claimed("0001"))

    device.before_write = claim_again
    run("release", "0001", *SAID)
    assert device.statuses[late] == "INACTIVE"


def test_a_blocked_serial_keeps_its_device_and_is_what_it_was_again(
    device: SerialsAws, run: Ops
) -> None:
    text = run("block", "0001", *SAID)
    assert f"ITS DEVICE GOES ON. To cut it off: `python -m ops quarantine {THING} --stack" in text
    record = device.record("0001")
    assert (record.status, record.before) == (SerialStatus.BLOCKED, SerialStatus.CLAIMED)
    assert "is blocked already; nothing was changed" in run("block", "0001", *SAID, code=1)
    assert "0001 is blocked: first `python -m ops serials unblock 0001" in run(
        "release", "0001", *SAID, code=1
    )
    run("unblock", "0001", *SAID)
    record = device.record("0001")
    assert (record.status, record.before) == (SerialStatus.CLAIMED, None)
    assert whats(record) == ["blocked", "unblocked"]
    assert "0001 is claimed, not blocked; nothing" in run("unblock", "0001", *SAID, code=1)
    assert certificate_of("0001") not in device.statuses


def test_only_a_serial_that_no_device_has_is_removed(device: SerialsAws, run: Ops) -> None:
    told = f"0001 is claimed, its thing is {THING}: first `python -m ops serials release 0001"
    assert told in run("remove", "0001", *SAID, code=1)
    device.register(Serial(serial="0002", status=SerialStatus.BLOCKED))
    assert "first `python -m ops serials unblock 0002" in run("remove", "0002", *SAID, code=1)
    device.register(Serial(serial="0003"))
    written: list[Serial] = []
    device.before_write = lambda serial: written.append(device.record(serial))
    run("remove", "0003", *SAID)
    assert [whats(record) for record in written] == [[], ["removed"]], "the reason is written first"
    assert set(device.items) == {"0001", "0002"}
    device.before_write = lambda _serial: None
    run("release", "0001", *SAID)
    assert f"Its thing {THING} stays, with its inactive certificates." in run(
        "remove", "0001", *SAID
    )


def test_a_claim_that_comes_before_the_removal_keeps_the_serial(aws: SerialsAws, run: Ops) -> None:
    aws.register(Serial(serial="0001"))

    def claim_last(serial: str) -> None:
        if whats(aws.record(serial)) == ["removed"]:
            aws.register(claimed(serial))

    aws.before_write = claim_last
    assert "0001 was claimed or changed meanwhile: it stays" in run("remove", "0001", *SAID, code=1)
    assert aws.record("0001").status is SerialStatus.CLAIMED


@pytest.mark.parametrize("verb", ["release", "block", "unblock", "remove"])
def test_what_is_not_there_or_not_agreed_to(aws: SerialsAws, run: Ops, verb: str) -> None:
    assert f"0001 is not in the registry {TABLE}" in run(verb, "0001", *SAID, code=1)
    aws.register(Serial(serial="0001"), claimed("0002"), Serial(serial="0003").block(order(1)))
    serial = {"release": "0002", "unblock": "0003"}.get(verb, "0001")
    assert "nobody is there to ask" in run(verb, serial, "--why", "x", code=1)
    assert "a reason is needed" in run(verb, serial, "--yes", "--why", " ", code=1)
    assert aws.writes == 0


@pytest.mark.parametrize("verb", ["block", "remove"])
def test_a_serial_that_others_keep_changing_is_left(aws: SerialsAws, run: Ops, verb: str) -> None:
    aws.register(Serial(serial="0001"))
    aws.before_write = lambda serial: aws.register(aws.record(serial))
    told = f"0001 was changed by others {MAX_WRITES} times: try again"
    assert told in run(verb, "0001", *SAID, code=1)
    assert aws.record("0001") == Serial(serial="0001")


def test_a_lost_answer_is_no_second_block(aws: SerialsAws, run: Ops) -> None:
    aws.register(Serial(serial="0001"))
    aws.lost = 1
    run("block", "0001", *SAID)
    assert whats(aws.record("0001")) == ["blocked"]


def order(number: int) -> Order:
    longest = "\U0001f525" * ORDER_CHARACTERS
    return Order(by=longest, at=NOW + number, why=longest)


def test_a_record_with_all_that_it_may_hold_can_be_read_again(aws: SerialsAws) -> None:
    record = claimed("0" * 98, attributes={f"{n:0128}": "x" * 800 for n in range(47)})
    for number in range(MAX_EVENTS + 5):
        record = record.note("changed", order(number))
    assert len(record.events) == MAX_EVENTS
    assert record.events[0].order.at == NOW + 5, "the oldest go"
    table = SerialTable(aws.channel().clients, TABLE)
    table.put(record, None)
    stored = table.get(record.serial)
    assert stored
    assert stored.record == record
    item = aws.items[record.serial]
    assert len(item["record"]["S"]) < RECORD.size < 400 * 1024, "an item of DynamoDB"


def test_waits_are_for_who_has_time(aws: SerialsAws) -> None:
    aws.throttles = 1
    with pytest.raises(Exception, match="too fast"):
        SerialTable(aws.channel().clients, TABLE).get("0001")
    slept: list[float] = []
    aws.throttles = len(THROTTLE_WAITS)
    table = SerialTable(aws.channel().clients, TABLE, waits=THROTTLE_WAITS, sleep=slept.append)
    assert table.get("0001") is None
    assert slept == list(THROTTLE_WAITS)
