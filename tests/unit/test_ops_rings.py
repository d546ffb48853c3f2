"""Things that exist come into rings, and are moved between rings, in an account that refuses,
throttles, lags and forgets as AWS's pages allow."""

from __future__ import annotations

import csv
import getpass
import itertools
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ops.main
import ops.stack
from cloud.clients import Clients
from cloud.iot_calls import IotCalls
from cloud.ring_groups import RingMove, RingMoves
from cloud.serial_table import SerialTable, StoredSerial
from ops import ring_work
from rollout.codec import canonical_json, decode_text, sha256_hex
from rollout.names import ChannelKeys
from rollout.release import RingPlan
from rollout.rings import (
    RING_ATTRIBUTE,
    RingReason,
    Share,
    Thing,
    choose_ring,
    ring_of,
)
from rollout.serial import Claim, Serial
from tests.fake_aws import Effect, refusal
from tests.unit.ops_cloud import GOING_BACK, MANIFEST, NOW, PERSON, PROVED, PROVING
from tests.unit.registry_cloud import (
    BROAD,
    CANARY,
    DEVICE_POLICY,
    FLEET,
    OTHER_RING,
    RegistryAws,
)

Rings = Callable[..., int]
KEY = ChannelKeys("stable").ring_moves
TEN = [f"group-{number}" for number in range(10)]
NEW_SHARES = (RingPlan(name="canary", percent=40), RingPlan(name="broad", percent=60))


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> RegistryAws:
    made = RegistryAws()
    made.publish(MANIFEST)
    made.remember(PROVED)
    monkeypatch.setattr(ops.stack, "open_stack", made.open)
    monkeypatch.setattr(getpass, "getuser", lambda: "olga")
    defaults: Any = IotCalls.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "clock", made.clock)
    return made


@pytest.fixture
def rings(aws: RegistryAws) -> Rings:
    def rings(*words: str) -> int:
        aws.made.clear()
        agreed = () if words[0] == "of" else ("--yes", "--why", "the pumps come in")
        return ops.main.main(["rings", *words, "--stack", "prod", *agreed])

    return rings


def write(folder: Path, text: str) -> str:
    path = folder / "things.csv"
    path.write_text(text)
    return str(path)


def listed(folder: Path, names: list[str]) -> str:
    return write(folder, "\n".join(["thing", *names]))


def kept(aws: RegistryAws) -> RingMoves:
    return decode_text(RingMoves, aws.objects[KEY])


def expected(aws: RegistryAws, name: str, shares: Any = MANIFEST.rings) -> str:
    return ring_of(aws.things[name].attributes.get("serial", name), shares)


# The rule


@given(
    st.text("abc-:_09", min_size=1),
    st.dictionaries(st.sampled_from(["serial", RING_ATTRIBUTE]), st.sampled_from(["a", "b", "z"])),
    st.sampled_from([None, "a", "z"]),
    st.sampled_from([None, "b", "z"]),
)
def test_a_ring_that_somebody_named_goes_before_the_hash(
    name: str, attributes: dict[str, str], declared: str | None, registered: str | None
) -> None:
    shares = [Share(name="a", percent=30), Share(name="b", percent=70)]
    choice = choose_ring(
        Thing(name=name, attributes=attributes),
        shares,
        declared={name: declared} if declared else {},
        registered={name: registered} if registered else {},
    )
    said = [declared, registered, attributes.get(RING_ATTRIBUTE)]
    named = [ring for ring in said if ring in ("a", "b")]
    assert choice.ring == (named[0] if named else ring_of(attributes.get("serial", name), shares))
    by_hash = {RingReason.SERIAL, RingReason.THING}
    assert (choice.reason in by_hash) == (not named), "`z` is no ring of the fleet"


# place


def test_things_join_the_ring_of_their_serial_else_of_their_name(
    aws: RegistryAws, rings: Rings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"pump:{number}" for number in range(60)]
    for number, name in enumerate(names):
        aws.put(name, "site-7", attributes={"serial": f"S{number}"} if number % 2 else {})
    assert rings("place", "--file", listed(tmp_path, names)) == 0
    assert aws.rings() == {name: expected(aws, name) for name in names}
    assert all("site-7" in aws.things[name].groups for name in names), "other groups are kept"
    assert aws.throttled == 0
    out = capsys.readouterr().out
    assert "JOIN, 60: canary" in out
    assert ") is given 2.2.0 AT ONCE, without the rollout's rate" in out
    assert kept(aws).order is not None
    assert (kept(aws).done, kept(aws).pending) == (60, ())

    assert rings("place", "--file", listed(tmp_path, names)) == 0
    assert (aws.writes(), aws.puts) == ([], 0), "a second run finds nothing to do"
    assert "There is nothing to do." in capsys.readouterr().out


def test_a_dry_run_says_it_all_and_changes_nothing(
    aws: RegistryAws, rings: Rings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.put("ready")
    aws.put("crowded", *TEN)
    aws.put("no-way-back", *TEN[:9])
    aws.put("bare", certificates=0)
    aws.put("locked", policy=None)
    aws.put("own-policy", policy="telemetry")
    aws.put("silent", reports=False)
    aws.put("other", hardware="pump-x")
    aws.put("off")
    aws.inactive.add(sha256_hex("off-0"))
    report = tmp_path / "report.csv"
    names = [*aws.things, "gone"]
    said = rings("place", "--dry-run", "--report", str(report), "--file", listed(tmp_path, names))
    assert said == 0
    assert (aws.writes(), aws.puts, aws.rings()) == ([], 0, {})
    with report.open() as stream:
        rows = {row["thing"]: (row["becomes"], row["lacks"]) for row in csv.DictReader(stream)}
    assert rows == {
        "ready": ("joins", ""),
        "crowded": ("left out", "no-room"),
        "no-way-back": ("joins", "no-room-to-go-back"),
        "bare": ("left out", "no-certificate"),
        "locked": ("left out", "no-policy"),
        "own-policy": ("joins", "not-our-policy"),
        "silent": ("joins", "no-report"),
        "other": ("left out", "other-hardware"),
        "off": ("left out", "no-active-certificate"),
        "gone": ("left out", ""),
    }
    out = capsys.readouterr().out
    assert "LEFT OUT, 1: crowded: in ten thing groups, as many as AWS allows" in out
    assert "LEFT OUT, 1: locked: no policy on its certificates or groups: --mend attaches" in out
    assert "LACK, 1: no-way-back: in nine other thing groups" in out
    assert "Nothing was changed." in out


def test_a_group_s_policy_is_a_policy(aws: RegistryAws, rings: Rings, tmp_path: Path) -> None:
    aws.put("by-group", "site-7", policy=None)
    aws.policies["arn:aws:iot:eu-west-1:111122223333:thinggroup/site-7"] = ["site"]
    assert rings("place", "--file", listed(tmp_path, ["by-group"])) == 0
    assert set(aws.rings()) == {"by-group"}


def test_mending_attaches_the_device_policy_and_nothing_else(
    aws: RegistryAws, rings: Rings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.put("locked", policy=None, certificates=2)
    aws.put("full")
    aws.policies[aws.things["full"].principals[0]] = [f"policy-{number}" for number in range(10)]
    assert rings("place", "--mend", "--file", listed(tmp_path, ["locked", "full"])) == 1
    assert [aws.policies[one] for one in aws.things["locked"].principals] == [[DEVICE_POLICY]] * 2
    assert set(aws.rings()) == {"locked"}, "who could not be mended joins no ring"
    assert set(aws.writes()) == {"attach_policy", "add_thing_to_thing_group"}
    why = f"full: AWS does not attach {DEVICE_POLICY} (LimitExceededException)"
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("how", ["--thing-type", "--query"])
def test_every_page_of_a_type_or_a_query_is_read(aws: RegistryAws, rings: Rings, how: str) -> None:
    for number in range(7):
        aws.put(f"pump-{number}", type_name="pump")
    aws.put("valve-1", type_name="valve")
    assert rings("place", how, "pump" if how == "--thing-type" else "thingName:pump-*") == 0
    assert set(aws.rings()) == {f"pump-{number}" for number in range(7)}


def test_the_file_tells_all_its_mistakes_at_once(
    aws: RegistryAws, rings: Rings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "thing,ring\na b,\npump,cnary\npump-1,canary\npump-1,broad\n")
    assert rings("place", "--file", path) == 1
    err = capsys.readouterr().err
    for mistake in (
        "has 3 mistakes",
        "line 2: `a b` is no thing's name",
        "line 3: there is no ring `cnary`: canary, broad",
        "line 5: pump-1 stands there twice",
    ):
        assert mistake in err
    assert rings("place", "--file", write(tmp_path, "name,ring\nx,canary\n")) == 1
    assert "the first line must name the columns: `thing`, or `thing,ring`" in (
        capsys.readouterr().err
    )
    assert rings("place", "--file", str(tmp_path / "none.csv")) == 1
    assert not aws.writes()


def test_a_thing_that_is_in_a_ring_is_moved_by_a_named_ring_only(
    aws: RegistryAws, rings: Rings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.put("mine", CANARY)
    aws.put("theirs", OTHER_RING)
    aws.put("cut-off", f"{FLEET}-quarantine")
    aws.put("fleet-0123abcd-0001", BROAD)
    aws.put("in-the-fleet", FLEET)
    names = list(aws.things)
    assert rings("place", "--file", listed(tmp_path, names)) == 0
    assert aws.rings() == {
        "mine": "canary",
        "fleet-0123abcd-0001": "broad",
        "in-the-fleet": expected(aws, "in-the-fleet"),
    }
    assert "LEFT OUT, 1: theirs: it is in a ring of another fleet" in capsys.readouterr().out

    rows = "\n".join(f"{name},broad" for name in names[:3]) + "\nfleet-0123abcd-0001,canary"
    assert rings("place", "--file", write(tmp_path, f"thing,ring\n{rows}")) == 0
    out = capsys.readouterr().out
    assert "MOVE from canary to broad, 1: mine" in out
    assert f"MOVE from {OTHER_RING} to broad, 1: theirs" in out
    assert "LEFT OUT, 1: cut-off: it is cut off (quarantine)" in out
    assert "LEFT OUT, 1: fleet-0123abcd-0001: the stack declares it" in out
    assert aws.things["theirs"].groups == [BROAD]
    assert aws.things["mine"].attributes == {RING_ATTRIBUTE: "broad"}
    there = aws.rings()["in-the-fleet"]
    assert rings("place", "--file", write(tmp_path, f"thing,ring\nin-the-fleet,{there}")) == 0
    assert "NAME, 1: in-the-fleet: that a person chose" in capsys.readouterr().out
    assert aws.writes() == ["update_thing"]
    assert aws.rings()["fleet-0123abcd-0001"] == "broad"


def test_a_name_that_cannot_be_remembered_moves_nobody(
    aws: RegistryAws, rings: Rings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.put("full", attributes={"a": "1", "b": "2", "c": "3"})
    aws.put("typed", type_name="pump", attributes={"a": "1", "b": "2", "c": "3"})
    path = write(tmp_path, "thing,ring\nfull,canary\ntyped,canary")
    assert rings("place", "--file", path) == 1
    assert aws.rings() == {"typed": "canary"}
    err = capsys.readouterr().err
    assert f"full: AWS does not take its attribute {RING_ATTRIBUTE}" in err


def test_a_provisioned_serial_s_ring_is_named_in_its_record(
    aws: RegistryAws, rings: Rings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = Claim(thing="pump-1", certificate="c", key="k", by="b", at=NOW)
    records = {"S1": StoredSerial(record=Serial(serial="S1", claim=claim), revision=4)}

    class Table(SerialTable):
        def __init__(self, clients: Clients, table: str, **words: Any) -> None:
            super().__init__(clients, table, **words)
            assert table == "fleet-0123abcd-serials"

        def get(self, serial: str) -> StoredSerial | None:
            return records.get(serial)

        def list(self) -> Iterator[StoredSerial]:
            return iter(records.values())

        def put(self, record: Serial, revision: int | None) -> None:
            assert revision == records[record.serial].revision
            records[record.serial] = StoredSerial(record=record, revision=5)

    monkeypatch.setattr(ops.stack, "SerialTable", Table)
    aws.stack = replace(aws.stack, serials_table_name="fleet-0123abcd-serials")
    aws.put("pump-1", BROAD, attributes={"serial": "S1"})
    aws.put("impostor", attributes={"serial": "S1"})
    path = write(tmp_path, "thing,ring\npump-1,canary\nimpostor,canary")
    assert rings("place", "--file", path) == 0
    record = records["S1"].record
    assert (record.ring, record.events[-1].what) == ("canary", "put into ring canary")
    assert aws.things["pump-1"].attributes == {"serial": "S1"}
    assert aws.things["impostor"].attributes[RING_ATTRIBUTE] == "canary", "the record is not its"
    assert rings("spread") == 0
    assert aws.rings() == {"pump-1": "canary", "impostor": "canary"}, "no hash moves them"


# spread


def test_spread_moves_exactly_those_whose_hash_ring_is_another_now(
    aws: RegistryAws, rings: Rings, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = {"canary": CANARY, "broad": BROAD}
    for number in range(80):
        name = f"pump-{number}"
        aws.put(name, groups[ring_of(name, MANIFEST.rings)])
    aws.put("by-name", BROAD, attributes={RING_ATTRIBUTE: "broad"})
    aws.put("fleet-0123abcd-0001", BROAD)
    aws.parents[f"{FLEET}-early"] = FLEET
    aws.put("left-behind", f"{FLEET}-early")
    aws.put("elsewhere", OTHER_RING)
    before = aws.rings()
    aws.publish(replace(MANIFEST, rings=NEW_SHARES))
    assert rings("spread", "--dry-run") == 0
    assert (aws.rings(), aws.writes()) == (before, [])
    out = capsys.readouterr().out
    movers = [
        n for n in before if n.startswith("pump-") and expected(aws, n, NEW_SHARES) != before[n]
    ]
    assert len(movers) > 10, "more than a few belong elsewhere now"
    assert f"MOVE from broad to canary, {len(movers)}: " in out, "growing canary only fills it"
    assert f"MOVE from {FLEET}-early to" in out
    assert "(the hash of its name)" in out
    assert "LEFT OUT, 1: fleet-0123abcd-0001: the stack declares it" in out

    assert rings("spread") == 0
    assert aws.rings() == before | {
        name: expected(aws, name, NEW_SHARES) for name in (*movers, "left-behind")
    }
    assert aws.writes().count("remove_thing_from_thing_group") == len(movers) + 1
    assert aws.ringless == set()
    assert aws.throttled == 0, "half of AWS's quotas is the controller's"
    assert rings("spread") == 0
    assert aws.writes() == []


def test_a_running_candidate_is_warned_of(
    aws: RegistryAws, rings: Rings, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.remember(PROVING)
    aws.put("pump-1", CANARY)
    assert ring_of("pump-1", MANIFEST.rings) == "broad"
    assert rings("spread", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "WARNING: 2.3.0 is being proved in ring canary" in out
    assert "who leaves before it began loses the job" in out
    assert "Ring broad: who joins it (1) is given 2.2.0 AT ONCE" in out


def test_a_state_that_cannot_be_believed_is_said(
    aws: RegistryAws, rings: Rings, capsys: pytest.CaptureFixture[str]
) -> None:
    key = ChannelKeys("stable").state
    aws.objects[key] = aws.objects[key].replace(b'"2.2.0"', b'"9.9.9"')
    aws.put("pump-1", CANARY)
    assert rings("spread", "--dry-run") == 0
    assert "WARNING: which jobs who joins is given, nobody can tell" in capsys.readouterr().out


def test_nobody_is_moved_while_devices_are_brought_back(
    aws: RegistryAws, rings: Rings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.remember(GOING_BACK)
    aws.put("pump-1")
    for words in (["spread"], ["place", "--file", listed(tmp_path, ["pump-1"])]):
        assert rings(*words) == 1
        assert "devices are brought back from 2.3.0: they go first" in capsys.readouterr().err
    assert aws.rings() == {}


# What goes wrong


@pytest.mark.parametrize("seed", range(6))
def test_in_an_account_at_its_worst_everybody_gets_there(
    aws: RegistryAws, rings: Rings, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    names = [f"pump-{number}" for number in range(90)]
    for name in names:
        kind = chance.random()
        groups = TEN if kind < 0.1 else TEN[:9] if kind < 0.2 else [CANARY] if kind < 0.4 else []
        aws.put(name, *groups, policy=DEVICE_POLICY if chance.random() < 0.5 else None)
    aws.late = chance.choice([0.0, 3.0, 20.0])

    def rough(_number: int, name: str, effect: Effect) -> Any:
        if name.startswith(("get_object", "put_object", "verify", "list_jobs")):
            return effect()
        kind = chance.random()
        if kind < 0.05:
            raise refusal("ThrottlingException", name)
        if kind < 0.08:
            raise refusal("InternalFailureException", name)
        if kind < 0.085 and aws.things:
            vanished = chance.choice(sorted(aws.things))
            del aws.things[vanished]
            aws.ringless.discard(vanished)
        if kind > 0.97:  # the answer is lost
            effect()
            raise refusal("ServiceUnavailableException", name)
        return effect()

    aws.fault = rough
    path = listed(tmp_path, names)
    for _ in range(8):
        rings("place", "--mend", "--file", path)
        aws.publish(replace(MANIFEST, rings=NEW_SHARES))
        rings("spread")
        aws.clock.sleep(30)
    left_out = {name for name, one in aws.things.items() if one.groups == TEN}
    assert aws.ringless == set(), "a thing was lost between two rings"
    assert aws.rings() == {
        name: expected(aws, name, NEW_SHARES) for name in aws.things if name not in left_out
    }
    aws.fault = lambda _number, _name, effect: effect()
    assert rings("spread") == 0
    assert aws.writes() == []


@pytest.mark.parametrize("refused", [{BROAD}, {BROAD, CANARY}], ids=len)
def test_whom_the_new_ring_refuses_is_back_in_the_old_one_or_told(
    aws: RegistryAws, rings: Rings, refused: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    aws.put("pump-1", CANARY)

    def refuse(_number: int, name: str, effect: Effect) -> Any:
        if name != "add_thing_to_thing_group":
            return effect()
        before = list(aws.things["pump-1"].groups)
        effect()
        if set(aws.things["pump-1"].groups) & refused:
            aws.things["pump-1"].groups = before
            aws.ringless.add("pump-1")
            raise refusal("InvalidRequestException", name, "not now")
        return {}

    aws.fault = refuse
    assert rings("spread") == 1
    err = capsys.readouterr().err
    assert f"AWS does not take it into {BROAD} (InvalidRequestException: not now); " in err
    if CANARY not in refused:
        assert f"it is back in {CANARY}" in err
        assert (aws.rings(), kept(aws).pending) == ({"pump-1": "canary"}, ())
        return
    assert "IT IS IN NO RING NOW" in err
    aws.fault = lambda _number, _name, effect: effect()
    assert rings("spread") == 0
    assert aws.rings() == {"pump-1": "broad"}, "it is not in any list, and remembered all the same"


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_what_breaks_off_between_two_rings_is_ended_by_the_next_command(
    aws: RegistryAws,
    rings: Rings,
    end: type[BaseException],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(40):
        aws.put(f"pump-{number}", CANARY)
    adds = 0

    def cut(_number: int, name: str, effect: Effect) -> Any:
        nonlocal adds
        adds += name == "add_thing_to_thing_group"
        if name == "add_thing_to_thing_group" and adds == 9:
            raise end
        return effect()

    aws.fault = cut
    if end is KeyboardInterrupt:
        assert rings("spread") == 130
        assert "done, what had begun was ended. Run it again for the rest." in (
            capsys.readouterr().out
        )
        assert len(kept(aws).pending) == 1, "the one that was cut off"
    else:
        with pytest.raises(SystemExit):
            rings("spread")
        assert kept(aws).pending
    assert len(aws.ringless) == 1
    aws.fault = lambda _number, _name, effect: effect()
    assert rings("spread") == 0
    assert "FIRST ends what arn:aws:iam::111122223333:user/olga (olga) began" in (
        capsys.readouterr().out
    )
    assert aws.ringless == set()
    assert aws.rings() == {name: expected(aws, name) for name in aws.things}
    assert kept(aws).pending == ()


def test_ctrl_c_ends_what_has_begun_and_says_how_far_it_came(
    aws: RegistryAws, rings: Rings, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(400):
        aws.put(f"pump-{number}", CANARY)
    adds = itertools.count()

    def press(_number: int, name: str, effect: Effect) -> Any:
        if name == "add_thing_to_thing_group" and next(adds) == 30:
            signal.raise_signal(signal.SIGINT)  # Python hands it to the main thread
        return effect()

    aws.fault = press
    assert rings("spread") == 130
    moved = list(aws.rings().values()).count("broad")
    assert 0 < moved < 300
    assert f"Interrupted: {moved} of" in capsys.readouterr().out
    assert aws.ringless == set(), "who had left a ring has joined the next"
    assert (kept(aws).done, kept(aws).pending) == (moved, ())


def test_of_two_commands_at_once_the_later_one_goes_on(
    aws: RegistryAws, rings: Rings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    names = [f"pump-{number}" for number in range(5)]
    for name in names:
        aws.put(name)

    def take_over() -> None:
        aws.meanwhile = lambda: None
        move = RingMove(thing="valve", source=CANARY, target=BROAD)
        aws.objects[KEY] = canonical_json(RingMoves(order=PERSON, pending=(move,))).encode()

    aws.meanwhile = take_over
    assert rings("place", "--file", listed(tmp_path, names)) == 1
    assert "somebody else moves things of this channel just now" in capsys.readouterr().err
    assert aws.rings() == {}


def test_a_forged_file_of_moves_takes_nothing_out_of_other_groups(
    aws: RegistryAws, rings: Rings
) -> None:
    aws.put("pump-2", "payroll", CANARY)
    aws.put("fleet-0123abcd-0001", BROAD)
    aws.put("cut-off", f"{FLEET}-quarantine")
    pending = (
        RingMove(thing="pump-2", source="payroll", target=BROAD),
        RingMove(thing="pump-2", source=CANARY, target="payroll"),
        RingMove(thing="fleet-0123abcd-0001", source=BROAD, target=CANARY),
        RingMove(thing="cut-off", source=CANARY, target=BROAD),
    )
    aws.objects[KEY] = canonical_json(RingMoves(order=PERSON, pending=pending)).encode()
    before = {name: set(one.groups) for name, one in aws.things.items()}
    assert rings("spread") == 0
    before["pump-2"] = {"payroll", {"canary": CANARY, "broad": BROAD}[expected(aws, "pump-2")]}
    assert {name: set(one.groups) for name, one in aws.things.items()} == before


def test_a_file_of_moves_that_nobody_can_read_stops_it(
    aws: RegistryAws, rings: Rings, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.put("pump-1", CANARY)
    aws.objects[KEY] = b"{"
    assert rings("spread") == 1
    assert "ring-moves.json is unreadable" in capsys.readouterr().err
    assert aws.writes() == []


def test_without_the_right_to_look_it_says_which_one_is_needed(
    aws: RegistryAws, rings: Rings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.put("pump-1")
    aws.denied.add("ListThingPrincipals")
    assert rings("place", "--file", listed(tmp_path, ["pump-1"])) == 1
    assert "you need the permission iot:ListThingPrincipals" in capsys.readouterr().err


def test_an_interrupted_look_changes_nothing(
    aws: RegistryAws, rings: Rings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.put("pump-1")

    def cut(_number: int, name: str, effect: Effect) -> Any:
        if name == "list_thing_principals":
            raise KeyboardInterrupt
        return effect()

    aws.fault = cut
    assert rings("place", "--file", listed(tmp_path, ["pump-1"])) == 130
    assert "Interrupted: looked at 0 of 1. Nothing was changed." in capsys.readouterr().out


def test_progress_is_told(
    aws: RegistryAws,
    rings: Rings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ring_work, "TOLD_EVERY", 0.0)
    for name in ("a", "b"):
        aws.put(name)
    assert rings("place", "--file", listed(tmp_path, ["a", "b"])) == 0
    out = capsys.readouterr().out
    assert "Looks at things, 8 new ones a second at most." in out
    assert "looked at 1 of 2 ..." in out
    assert "done 2 of 2 ..." in out


# of


def test_of_says_where_a_serial_belongs_where_it_is_and_why(
    aws: RegistryAws, rings: Rings, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.put("pump-1", CANARY, attributes={"serial": "S2"})
    aws.put("pump-2", attributes={RING_ATTRIBUTE: "canary"})
    aws.put("fleet-0123abcd-0001", BROAD, attributes={"serial": "0001"})
    aws.stack = replace(aws.stack, device_rings={"0001": "broad"})
    assert rings("of", "S2", "pump-2", "0001", "new") == 0
    hashes = {name: ring_of(name, MANIFEST.rings) for name in ("pump-2", "0001", "new")}
    assert capsys.readouterr().out.splitlines() == [
        "S2: its hash says ring broad",
        "  thing pump-1 belongs to ring broad: the hash of its attribute serial",
        "  it is in ring canary: `python -m ops rings spread --stack prod` moves it",
        f"pump-2: its hash says ring {hashes['pump-2']}",
        "  thing pump-2 belongs to ring canary: its attribute ota-ring names the ring",
        "  it is in no ring of this fleet",
        f"0001: its hash says ring {hashes['0001']}",
        "  thing fleet-0123abcd-0001 belongs to ring broad: the stack declares it",
        "  it is in ring broad",
        f"new: its hash says ring {hashes['new']}",
        "  no thing has this name, or this serial",
    ]
