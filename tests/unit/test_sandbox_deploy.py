"""The parts of the sandbox that need no local AWS: configuration, records, conversions, clients,
how a release ends."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pulumi
import pytest
from rich.console import Console

from rollout.observed import Counts
from rollout.release import Firmware, Manifest, RingPlan
from rollout.state import Candidate, Event, Offer, Progress, Rollback, State, Waiting
from sandbox import clients, ministack, session, watch
from sandbox.deploy import Record, configuration
from sandbox.handlers import HANDLERS, LOOKUPS
from sandbox.handlers.monitoring import query
from sandbox.handlers.registry import Handler, Inputs, pascal
from sandbox.handlers.serverless import archive
from sandbox.place import ROOT, Place, SandboxError

GOOD = Firmware(version="2.1.0", sha256="a" * 64, size=1, hardware="gateway-a1")
NEW = Firmware(version="2.2.0", sha256="b" * 64, size=1, hardware="gateway-a1")


# The place


def test_a_place_comes_from_the_environment_or_the_defaults() -> None:
    assert Place.from_environment({}) == Place(folder=ROOT / ".sandbox", port=4566, mqtt_port=8883)
    named = {"SANDBOX_DIR": "/tmp/somewhere", "SANDBOX_PORT": "5000", "SANDBOX_MQTT_PORT": "5001"}
    assert Place.from_environment(named) == Place(
        folder=Path("/tmp/somewhere"), port=5000, mqtt_port=5001
    )


@pytest.mark.parametrize("port", ["many", "0", "65536", "-1"])
def test_a_port_that_is_none_is_refused_by_its_variable(port: str) -> None:
    with pytest.raises(
        SandboxError, match=f"SANDBOX_PORT is '{port}': a port is a number from 1 to 65535"
    ):
        Place.from_environment({"SANDBOX_PORT": port})


def test_the_two_ports_must_differ() -> None:
    with pytest.raises(SandboxError, match="SANDBOX_PORT and SANDBOX_MQTT_PORT are both 8883"):
        Place.from_environment({"SANDBOX_PORT": "8883"})


def test_a_file_is_whole_or_the_one_before(tmp_path: Path) -> None:
    place = Place(folder=tmp_path)
    place.write("file.json", '{"a": 1}')
    assert place.read("file.json") == {"a": 1}
    (tmp_path / "file.json").write_text('{"a": ')
    assert place.read("file.json") is None, "cut off"
    assert place.read("other.json") is None, "missing"
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_only_the_owner_reads_the_folder(tmp_path: Path) -> None:
    place = Place(folder=tmp_path / "new")
    place.create()
    assert place.folder.stat().st_mode & 0o777 == 0o700


def test_one_command_at_a_time(tmp_path: Path) -> None:
    place = Place(folder=tmp_path)
    with (
        place.locked("first"),
        pytest.raises(SandboxError, match=r"^first \(process \d+\) is using the sandbox"),
    ):
        place.locked("second").__enter__()
    with place.locked("third"):
        assert place.holder().startswith("third ")


# Configuration and records


def test_the_local_stack_is_configured_as_pulumi_would(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text(
        "name: small\nconfig:\n  kept: {type: integer, default: 7}\n  changed: {type: string,"
        " default: old}\n  open: {type: object}\n"
    )
    (tmp_path / "Pulumi.local.yaml").write_text(
        "config:\n  aws:region: eu-west-1\n  small:changed: new\n  small:open: {a: [1, true]}\n"
    )
    name, config = configuration(tmp_path, {"small:kept": {"other": 1}})
    assert name == "small"
    assert config == {
        "aws:region": "eu-west-1",
        "small:kept": '{"other": 1}',
        "small:changed": "new",
        "small:open": '{"a": [1, true]}',
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config: {small:word: {secure: v1:abc}}", "small:word is encrypted"),
        ("config: [", "Pulumi.local.yaml is not YAML"),
        (None, "Pulumi.local.yaml cannot be read: No such file or directory"),
    ],
)
def test_a_stack_file_of_no_use_is_said(tmp_path: Path, text: str | None, message: str) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: small\n")
    if text is not None:
        (tmp_path / "Pulumi.local.yaml").write_text(text)
    with pytest.raises(SandboxError, match=message):
        configuration(tmp_path, {})


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = Record(Place(folder=tmp_path), "instance")
    entry = {"type": "t", "id": "i", "inputs": {"b": 1, "a": "ü\n"}, "outputs": {}}
    record.put("urn:one", entry)
    record.put("urn:two", {**entry, "id": "j"})
    record.put("urn:one", {**entry, "id": "k"})
    loaded = Record.load(Place(folder=tmp_path))
    assert loaded.instance == "instance"
    assert loaded.resources == {"urn:one": {**entry, "id": "k"}, "urn:two": {**entry, "id": "j"}}


# Handlers


def test_every_handler_is_for_a_type_that_the_provider_has() -> None:
    assert all(token.startswith(("aws:", "random:")) for token in HANDLERS)
    assert set(LOOKUPS) == {
        "aws:index/getCallerIdentity:getCallerIdentity",
        "aws:index/getPartition:getPartition",
        "aws:index/getRegion:getRegion",
        "aws:iot/getEndpoint:getEndpoint",
        "aws:kms/getPublicKey:getPublicKey",
    }


def test_an_input_that_a_handler_never_read_is_known() -> None:
    inputs = Inputs({"name": "a", "tags": None, "acl": "private", "forceDestroy": True})
    assert inputs.pick("name", "tags") == {"name": "a"}
    assert inputs.unread == {"acl", "forceDestroy"}
    inputs.ignore("forceDestroy")
    assert inputs.get("acl") == "private"
    assert inputs.unread == set()


def test_only_fixed_inputs_replace() -> None:
    some = Handler(make=lambda r: ("", {}), fixed=frozenset({"name"}))
    every = Handler(make=lambda r: ("", {}), fixed=None)
    assert some.replaces(frozenset({"name", "tags"})) == {"name"}
    assert some.replaces(frozenset({"tags"})) == set()
    assert every.replaces(frozenset({"tags"})) == {"tags"}


def test_keys_are_spelled_as_the_api_spells_them() -> None:
    rules = [
        {
            "id": "a",
            "filter": {"prefix": "x"},
            "noncurrentVersionExpiration": {"noncurrentDays": 3},
            "none": None,
        }
    ]
    assert pascal(rules, {"id": "ID"}) == [
        {"ID": "a", "Filter": {"Prefix": "x"}, "NoncurrentVersionExpiration": {"NoncurrentDays": 3}}
    ]


def test_a_metric_query_keeps_the_names_of_dimensions() -> None:
    metric = {
        "metricName": "Heartbeat",
        "namespace": "IotOta",
        "period": 60,
        "stat": "Sum",
        "dimensions": {"ring": "a"},
    }
    assert query({"id": "m", "returnData": True, "metric": metric}) == {
        "Id": "m",
        "ReturnData": True,
        "MetricStat": {
            "Metric": {
                "MetricName": "Heartbeat",
                "Namespace": "IotOta",
                "Dimensions": [{"Name": "ring", "Value": "a"}],
            },
            "Period": 60,
            "Stat": "Sum",
        },
    }


def test_the_same_files_are_the_same_archive_whatever_their_order_and_times(tmp_path: Path) -> None:
    def packed(order: list[str], time: int) -> bytes:
        for name in order:
            (tmp_path / name).write_text(f"# {name}")
            os.utime(tmp_path / name, (time, time))
        return archive(
            pulumi.AssetArchive(
                {f"code/{name}": pulumi.FileAsset(str(tmp_path / name)) for name in order}
            )
        )

    one = packed(["a.py", "b.py"], 1_000_000_000)
    assert one == packed(["b.py", "a.py"], 1_700_000_000)
    with zipfile.ZipFile(io.BytesIO(one)) as package:
        assert [(item.filename, item.external_attr >> 16) for item in package.infolist()] == [
            ("code/a.py", 0o644),
            ("code/b.py", 0o644),
        ]


def test_a_folder_is_no_function_code() -> None:
    with pytest.raises(ValueError, match="use an AssetArchive of files"):
        archive(pulumi.FileArchive("."))


# Nothing of the caller's


def test_clients_reach_loopback_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(
        "[profile production]\nregion = eu-west-3\nendpoint_url = https://example.com\n"
    )
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIAREALLYREAL000000",
        "AWS_SECRET_ACCESS_KEY": "real",
        "AWS_SESSION_TOKEN": "real",
        "AWS_PROFILE": "production",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_DEFAULT_REGION": "eu-west-3",
        "AWS_ENDPOINT_URL": "https://example.com",
        "AWS_ENDPOINT_URL_S3": "https://example.com",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "HTTP_PROXY": "http://proxy.example.com",
        "HTTPS_PROXY": "http://proxy.example.com",
    }.items():
        monkeypatch.setenv(name, value)
    clients._session.cache_clear()
    clients._client.cache_clear()
    for service in ("s3", "iot", "iot-data", "lambda", "kms"):
        client = clients.client(service, 14_566, "us-east-1")
        assert client.meta.endpoint_url == "http://127.0.0.1:14566"
        assert client.meta.region_name == "us-east-1"
        assert client.meta.config.proxies == {}
        credentials = client._request_signer._credentials
        assert (credentials.access_key, credentials.secret_key, credentials.token) == (
            "000000000000",
            "test",
            None,
        )


def test_a_record_of_another_process_is_not_a_running_ministack(tmp_path: Path) -> None:
    place = Place(folder=tmp_path)
    record = {"pid": os.getpid(), "token": "0" * 32, "port": 1, "mqtt_port": 2}
    place.write("ministack.json", json.dumps(record))
    assert ministack.command_line(os.getpid())
    assert ministack.running(place) is None
    place.write("ministack.json", json.dumps({**record, "unknown": 1}))
    assert ministack.running(place) is None


# Releases


def test_a_sample_image_is_known_by_its_version_with_or_without_v() -> None:
    assert session.sample("v2.1.0") == session.sample("2.1.0")
    with pytest.raises(
        SandboxError,
        match=r"there is no sample image firmware/9\.9\.9\.bin; there are 2\.0\.0, 2\.1\.0",
    ):
        session.sample("9.9.9")


def test_the_chosen_image_takes_the_place_of_the_stack_files(tmp_path: Path) -> None:
    place = Place(folder=tmp_path)
    assert session.chosen(place) is None
    assert session._overrides(place, ROOT) == {}
    session.choose(place, "v2.2.0")
    assert session.chosen(place) == "2.2.0"
    firmware = session._overrides(place, ROOT)["iot-ota:firmware"]
    image, digest = session.sample("2.2.0")
    assert (firmware["version"], firmware["image"], firmware["sha256"]) == ("2.2.0", image, digest)
    assert firmware["minimumVersion"] == "2.0.0", "the rest of the stack file's stays"


def manifest(firmware: Firmware) -> Manifest:
    return Manifest(
        schema=1,
        channel="stable",
        firmware=firmware,
        rings=(RingPlan(name="canary", percent=100.0),),
    )


def offer(sequence: int, firmware: Firmware) -> Offer:
    return Offer(sequence=sequence, firmware=firmware)


def candidate(firmware: Firmware) -> Candidate:
    rings = {"canary": Progress(offer=offer(2, firmware), started_at=0.0)}
    return Candidate(manifest=manifest(firmware), downgrade=False, rings=rings)


ROLLING = Rollback(
    offer=offer(3, GOOD), failed=NEW.version, reason="2 failed", exposing=("job",), started_at=0.0
)
DONE = Rollback(
    offer=offer(3, GOOD),
    failed=NEW.version,
    reason="2 failed",
    exposing=("job",),
    started_at=0.0,
    done_at=1.0,
)
REFUSED = {NEW.sha256: "ring canary: 2 failed"}


@pytest.mark.parametrize(
    ("state", "end"),
    [
        (None, ""),
        (State(last_good=GOOD), ""),
        (State(last_good=GOOD, candidate=candidate(NEW)), ""),
        (State(last_good=NEW, candidate=candidate(GOOD)), ""),
        (State(last_good=NEW), "good"),
        (State(last_good=GOOD, refused=REFUSED, rollback=ROLLING), ""),
        (State(last_good=GOOD, refused=REFUSED, rollback=DONE), "refused"),
        (State(refused=REFUSED), "refused"),
        (State(candidate=candidate(NEW), waiting=Waiting(kind="soak", text="soaks")), ""),
        (
            State(candidate=candidate(NEW), waiting=Waiting(kind="approval", text="waits")),
            "approval",
        ),
        (State(candidate=candidate(NEW), waiting=Waiting(kind="halted", text="halted")), "halted"),
        (
            State(rollback=ROLLING, waiting=Waiting(kind="rollback-failed", text="failed")),
            "rollback-failed",
        ),
    ],
)
def test_how_a_release_ends(state: State | None, end: str) -> None:
    assert watch.ending(watch.View(state=state), NEW) == end


def test_trouble_with_the_controller_is_an_end() -> None:
    assert (
        watch.ending(watch.View(state=State(last_good=NEW), trouble="it failed"), NEW) == "trouble"
    )


def test_the_job_shown_is_the_candidates_and_the_rollbacks() -> None:
    stable = {"canary": offer(1, GOOD), "broad": offer(1, GOOD), "gone": offer(1, GOOD)}
    state = State(stable=stable, candidate=candidate(NEW), rollback=ROLLING)
    assert session.shown_offers(state, ["canary", "broad"]) == {
        "canary": offer(2, NEW),
        "broad": offer(1, GOOD),
        "rollback": offer(3, GOOD),
    }


def test_bars_hold_every_device_once() -> None:
    bar = watch.bar(Counts(succeeded=1, failed=1, in_progress=1, queued=0))
    assert bar.plain == "━" * watch.BAR
    assert [(span.start, span.end, span.style) for span in bar.spans] == [
        (0, 10, "green"),
        (10, 20, "red"),
        (20, 30, "yellow"),
    ]
    assert watch.bar(Counts()).plain == ""


def test_without_a_terminal_only_changes_are_printed() -> None:
    out = io.StringIO()
    screen = watch.Screen(Console(file=out))
    event = Event(at=0.0, what="started", why="10 % of the fleet", ring="canary", version="2.2.0")
    old = Event(at=0.0, what="last-good", why="it passed", version="2.1.0")
    state = State(
        waiting=Waiting(kind="coverage", text="waits for devices"), decisions=(old, event)
    )
    screen.known(State(decisions=(old,)))
    for counts in (Counts(queued=2), Counts(queued=2), Counts(succeeded=1, failed=1)):
        screen.show(watch.View(state=state, rings={"canary": ("2.2.0", counts)}))
    lines = out.getvalue().splitlines()
    assert [line.partition(" ")[2] if "started" in line else line for line in lines] == [
        "started 2.2.0 canary: 10 % of the fleet",
        "canary 2.2.0: 2 queued.  waits for devices",
        "canary 2.2.0: 1 succeeded, 1 failed.  waits for devices",
    ]


def test_what_devices_run_is_told_the_most_common_first() -> None:
    assert watch.shares(["2.1.0", "2.2.0", "2.2.0", ""]) == "2.2.0 (2), 2.1.0 (1), not heard of (1)"


class Fake:
    """As much of a sandbox as `follow` needs: a script of what its ticks see."""

    rings = ("canary",)

    def __init__(self, states: list[State], reported: list[dict[str, Any]]) -> None:
        self.states, self.shadows = iter(states), iter(reported)

    def manifest(self) -> Manifest:
        return manifest(NEW)

    def wake(self) -> dict[str, Any]:
        return {"outcome": "done"}

    def state(self) -> State:
        return next(self.states)

    def counts(self, ring: str, shown: Offer) -> Counts:
        return Counts(succeeded=1)

    def reported(self) -> dict[str, dict[str, Any]]:
        return {"0001": next(self.shadows)}

    def rolled_back(self, sequence: int) -> list[str]:
        return ["0001"]


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "TICK_SECONDS", 0.0)


def follow(fake: Fake, limit: float = 60.0) -> watch.Verdict:
    sandbox: Any = fake
    return watch.follow(sandbox, limit=limit, show=lambda view: None)


@pytest.mark.usefixtures("no_waiting")
def test_a_good_release_ends_when_every_device_reports_its_very_digest() -> None:
    new = {"version": "2.2.0", "sha256": NEW.sha256}
    other = {"version": "2.2.0", "sha256": GOOD.sha256}
    fake = Fake([State(candidate=candidate(NEW)), *[State(last_good=NEW)] * 3], [{}, other, new])
    verdict = follow(fake)
    assert verdict.good
    assert verdict.story == ("every device runs 2.2.0, and it is the last good release",)
    assert verdict.versions == {"0001": "2.2.0"}


@pytest.mark.usefixtures("no_waiting")
def test_a_bad_release_is_told_as_what_happened() -> None:
    event = Event(
        at=0.0, what="rolled-back", why="every exposed device reported back", version="2.1.0"
    )
    bad = State(last_good=GOOD, refused=REFUSED, rollback=DONE, decisions=(event,))
    verdict = follow(Fake([bad] * 3, [{"version": "2.1.0", "sha256": GOOD.sha256}]))
    assert not verdict.good
    assert verdict.story[:3] == (
        "2.2.0 was stopped and rolled back to 2.1.0",
        "why: ring canary: 2 failed",
        "brought back: 0001",
    )
    assert verdict.story[3].endswith("rolled-back 2.1.0: every exposed device reported back")


@pytest.mark.usefixtures("no_waiting")
def test_a_release_that_waits_for_a_person_is_not_waited_for() -> None:
    waits = State(
        candidate=candidate(NEW),
        waiting=Waiting(kind="approval", text="waits for a person to approve canary"),
    )
    verdict = follow(Fake([waits] * 3, [{}]))
    assert (verdict.good, verdict.story) == (
        False,
        ("2.2.0 waits: waits for a person to approve canary",),
    )


@pytest.mark.usefixtures("no_waiting")
def test_an_end_that_another_run_overtakes_is_none() -> None:
    refused = State(last_good=GOOD, refused=REFUSED, rollback=DONE)
    new = {"version": "2.2.0", "sha256": NEW.sha256}
    assert follow(Fake([refused, refused, State(last_good=NEW)], [new])).good


def test_the_limit_ends_it_and_says_how_to_go_on() -> None:
    slow = State(
        candidate=candidate(NEW), waiting=Waiting(kind="coverage", text="waits for devices")
    )
    verdict = follow(Fake([slow], [{"version": "2.1.0"}]), limit=-1.0)
    assert not verdict.good
    assert verdict.story == (
        "2.2.0 is not on every device after -1 seconds; `make up` goes on",
        "2.2.0 waits: waits for devices",
    )
