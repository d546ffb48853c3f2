"""The parts of the sandbox that need no local AWS: configuration, records, conversions, clients,
how a release ends."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pulumi
import pytest
from rich.console import Console

from cloud.shadows import Reported
from components.stack_file import ROOT
from ops import local_aws
from ops.exposures import WayBackReport
from ops.failures import FailureReport
from ops.report import ControllerReport, ReleaseReport, Report, RingReport
from rollout.observed import Counts, Source
from rollout.orders import Orders
from rollout.release import Firmware, Manifest, RingPlan
from rollout.state import ChannelPhase, Event, RingPhase
from rollout.version import Version
from rollout.waiting import Waiting
from sandbox import ministack, session
from sandbox.commands import count_versions
from sandbox.deploy import Record
from sandbox.follow import ReleaseOutcome, Screen, Tick, find_end, follow
from sandbox.handlers import FUNCTIONS, HANDLERS
from sandbox.handlers.registry import Handler, Inputs, pascal
from sandbox.handlers.serverless import archive
from sandbox.instance import Instance, SandboxError

GOOD = Firmware(version=Version("2.1.0"), sha256="a" * 64, size=1, hardware="gateway-a1")
NEW = Firmware(version=Version("2.2.0"), sha256="b" * 64, size=1, hardware="gateway-a1")


# Its folder, ports and lock


def test_an_instance_comes_from_the_environment_or_the_defaults() -> None:
    assert Instance.from_environment({}) == Instance(
        folder=ROOT / ".sandbox", port=4566, mqtt_port=8883
    )
    named = {"SANDBOX_DIR": "/tmp/somewhere", "SANDBOX_PORT": "5000", "SANDBOX_MQTT_PORT": "5001"}
    assert Instance.from_environment(named) == Instance(
        folder=Path("/tmp/somewhere"), port=5000, mqtt_port=5001
    )


@pytest.mark.parametrize("port", ["many", "0", "65536", "-1"])
def test_a_port_that_is_none_is_refused_by_its_variable(port: str) -> None:
    with pytest.raises(
        SandboxError, match=f"SANDBOX_PORT is '{port}': a port is a number from 1 to 65535"
    ):
        Instance.from_environment({"SANDBOX_PORT": port})


def test_the_two_ports_must_differ() -> None:
    with pytest.raises(SandboxError, match="SANDBOX_PORT and SANDBOX_MQTT_PORT are both 8883"):
        Instance.from_environment({"SANDBOX_PORT": "8883"})


def test_a_file_is_whole_or_the_one_before(tmp_path: Path) -> None:
    instance = Instance(folder=tmp_path)
    instance.write("file.json", '{"a": 1}')
    assert instance.read("file.json") == {"a": 1}
    (tmp_path / "file.json").write_text('{"a": ')
    assert instance.read("file.json") is None, "cut off"
    assert instance.read("other.json") is None, "missing"
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_only_the_owner_reads_the_folder(tmp_path: Path) -> None:
    instance = Instance(folder=tmp_path / "new")
    instance.create()
    assert instance.folder.stat().st_mode & 0o777 == 0o700


def test_one_command_at_a_time(tmp_path: Path) -> None:
    instance = Instance(folder=tmp_path)
    with (
        instance.locked("first"),
        pytest.raises(SandboxError, match=r"^first \(process \d+\) is using the sandbox"),
    ):
        instance.locked("second").__enter__()
    with instance.locked("third"):
        assert instance.lock_holder().startswith("third ")


# Records


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = Record(Instance(folder=tmp_path), "token")
    entry = {"type": "t", "id": "i", "inputs": {"b": 1, "a": "ü\n"}, "outputs": {}}
    record.put("urn:one", entry)
    record.put("urn:two", {**entry, "id": "j"})
    record.put("urn:one", {**entry, "id": "k"})
    loaded = Record.load(Instance(folder=tmp_path))
    assert loaded.token == "token"
    assert loaded.resources == {"urn:one": {**entry, "id": "k"}, "urn:two": {**entry, "id": "j"}}


# Handlers


def test_every_handler_is_for_a_type_that_the_provider_has() -> None:
    assert all(token.startswith(("aws:", "random:")) for token in HANDLERS)
    assert set(FUNCTIONS) == {
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
    assert inputs.pick_rest() == {"acl": "private"}, "and the API refuses it"
    assert inputs.unread == set()


def test_only_some_inputs_replace() -> None:
    some = Handler(make=lambda r: ("", {}), replacing=frozenset({"name"}))
    every = Handler(make=lambda r: ("", {}), replacing=None)
    assert some.find_replacing(frozenset({"name", "tags"})) == {"name"}
    assert some.find_replacing(frozenset({"tags"})) == set()
    assert every.find_replacing(frozenset({"tags"})) == {"tags"}


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
    local_aws._session.cache_clear()
    local_aws._client.cache_clear()
    for service in ("s3", "iot", "iot-data", "lambda", "kms"):
        client = local_aws.client(service, 14_566, "us-east-1")
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
    instance = Instance(folder=tmp_path)
    record = {"pid": os.getpid(), "token": "0" * 32, "port": 1, "mqtt_port": 2}
    instance.write("ministack.json", json.dumps(record))
    assert ministack.command_line(os.getpid())
    assert ministack.find(instance) is None
    instance.write("ministack.json", json.dumps({**record, "unknown": 1}))
    assert ministack.find(instance) is None


# Releases


def test_a_sample_image_is_known_by_its_version_with_or_without_v() -> None:
    assert session.find_sample("v2.1.0") == session.find_sample("2.1.0")
    with pytest.raises(
        SandboxError,
        match=r"there is no sample image firmware/9\.9\.9\.bin; there are 2\.0\.0, 2\.1\.0",
    ):
        session.find_sample("9.9.9")


def test_the_picked_image_takes_the_place_of_the_stack_files(tmp_path: Path) -> None:
    instance = Instance(folder=tmp_path)
    assert session.picked_version(instance) is None
    assert session._override_firmware(instance, ROOT) == {}
    session.pick_version(instance, "v2.2.0")
    assert session.picked_version(instance) == "2.2.0"
    firmware = session._override_firmware(instance, ROOT)["iot-ota:firmware"]
    image, digest = session.find_sample("2.2.0")
    assert (firmware["version"], firmware["image"], firmware["sha256"]) == ("2.2.0", image, digest)
    assert firmware["minimumVersion"] == "2.0.0", "the rest of the stack file's stays"


def make_report(
    kind: str = "nothing",
    *,
    good: Firmware | None = GOOD,
    proving: Firmware | None = None,
    counts: Counts | None = None,
    **known: Any,
) -> Report:
    """What a tick saw: a channel that waits for `kind`, with one ring."""
    ring = RingReport(
        name="canary",
        percent=100.0,
        phase=RingPhase.PROVING,
        version=NEW.version,
        counts=counts,
        is_approved=False,
    )
    release = ReleaseReport(firmware=proving, phase="proving") if proving else None
    if good and not proving:
        release = ReleaseReport(firmware=good, phase="last good")
    return Report(
        at=0.0,
        channel="stable",
        fleet="fleet-0a1b2c3d",
        region="us-east-1",
        phase=ChannelPhase.PROVING if proving else ChannelPhase.IDLE,
        release=release,
        waiting=Waiting(kind=kind, text=f"waits: {kind}"),  # type: ignore[arg-type]
        ends_when="it ends",
        rings=(ring,),
        live_jobs=(),
        alarms=(),
        last_good=good,
        orders=Orders(),
        failures=FailureReport(devices=0, sampled=0, reasons=()),
        controller=ControllerReport(is_silent=False),
        **{"decisions": (), **known},
    )


ROLLING = WayBackReport(
    group=3,
    group_name="rollback-3",
    failed=str(NEW.version),
    reason="ring canary: 2 failed",
    to=GOOD,
    started_at=0.0,
    sources=(Source(job="job", ring="canary"),),
)
DONE = replace(ROLLING, done_at=1.0)
REFUSED = make_report("refused", way_back=DONE)
RELEASED = make_report(good=NEW)
PROVING = make_report("coverage", proving=NEW)


@pytest.mark.parametrize(
    ("report", "end"),
    [
        (make_report(good=None), ""),
        (make_report(), ""),
        (PROVING, ""),
        (make_report(good=NEW, proving=GOOD), ""),
        (RELEASED, "good"),
        (make_report("rollback", way_back=ROLLING), ""),
        (make_report("refused", way_back=ROLLING), ""),
        (REFUSED, "refused"),
        (make_report("refused"), "refused"),
        (make_report("soak", proving=NEW), ""),
        (make_report("approval", proving=NEW), "approval"),
        (make_report("halted", proving=NEW), "halted"),
        (make_report("rollback-failed", way_back=ROLLING), "rollback-failed"),
    ],
)
def test_how_a_release_ends(report: Report, end: str) -> None:
    assert find_end(Tick(report=report), NEW) == end


def test_trouble_with_the_controller_is_an_end() -> None:
    assert find_end(Tick(report=RELEASED, trouble="it failed"), NEW) == "trouble"


def test_without_a_terminal_only_changes_are_printed() -> None:
    out = io.StringIO()
    event = Event(
        at=0.0, what="started", why="10 % of the fleet", ring="canary", version=NEW.version
    )
    old = Event(at=0.0, what="last-good", why="it passed", version=GOOD.version)
    screen = Screen(Console(file=out), known=[old])
    for counts in (Counts(queued=2), Counts(queued=2), Counts(succeeded=1, failed=1)):
        screen.show(make_report("coverage", counts=counts, decisions=(event, old)))
    lines = out.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d started 2.2.0 canary: 10 % of the fleet", lines.pop(0))
    assert lines == [
        "canary 2.2.0: 2 queued.  waits: coverage",
        "canary 2.2.0: 1 succeeded, 1 failed.  waits: coverage",
    ]


def test_versions_are_counted_the_most_common_first() -> None:
    versions = ["2.1.0", "2.2.0", "2.2.0", ""]
    assert count_versions(versions) == "2.2.0 (2), 2.1.0 (1), not heard of (1)"


def shadow(firmware: Firmware, sha256: str | None = None) -> Reported:
    return Reported(
        version=str(firmware.version),
        sha256=sha256 or firmware.sha256,
        sequence=1,
        hardware=firmware.hardware,
        at=0.0,
    )


class Script:
    """As much of a sandbox as `follow` needs: a script of what its ticks see."""

    def __init__(
        self, reports: list[Report], shadows: list[Reported | None], answer: dict[str, Any]
    ) -> None:
        self.reports, self.shadows, self.answer = iter(reports), iter(shadows), answer

    def manifest(self) -> Manifest:
        rings = (RingPlan(name="canary", percent=100.0),)
        return Manifest(schema=1, channel="stable", firmware=NEW, rings=rings)

    def wake(self) -> dict[str, Any]:
        return self.answer

    def report(self) -> Report:
        return next(self.reports)

    def reported(self) -> dict[str, Reported | None]:
        return {"0001": next(self.shadows)}

    def list_rolled_back(self, group: int) -> list[str]:
        return ["0001"]


def run(
    reports: list[Report],
    shadows: list[Reported | None],
    *,
    limit: float = 60.0,
    answer: dict[str, Any] | None = None,
) -> ReleaseOutcome:
    sandbox: Any = Script(reports, shadows, answer or {"outcome": "done"})
    with mock.patch("sandbox.follow.TICK_SECONDS", 0.0):
        return follow(sandbox, limit=limit, show=lambda report: None)


def test_a_good_release_ends_when_every_device_reports_its_very_digest() -> None:
    shadows = [None, shadow(NEW, GOOD.sha256), shadow(NEW)]
    outcome = run([PROVING, *[RELEASED] * 3], shadows)
    assert outcome.is_good
    assert outcome.story == ("every device runs 2.2.0, and it is the last good release",)
    assert outcome.versions == {"0001": "2.2.0"}


def test_of_a_bad_release_is_said_what_happened() -> None:
    event = Event(
        at=0.0, what="rolled-back", why="every exposed device reported back", version=GOOD.version
    )
    bad = replace(REFUSED, decisions=(event,))
    outcome = run([bad] * 3, [shadow(GOOD)])
    assert not outcome.is_good
    assert outcome.story[:3] == (
        "2.2.0 was stopped and rolled back to 2.1.0",
        "why: ring canary: 2 failed",
        "brought back: 0001",
    )
    assert outcome.story[3].endswith("rolled-back 2.1.0: every exposed device reported back")
    assert outcome.versions == {"0001": "2.1.0"}


def test_a_release_that_waits_for_a_person_is_not_waited_for() -> None:
    outcome = run([make_report("approval", proving=NEW)] * 3, [None])
    assert (outcome.is_good, outcome.story) == (False, ("2.2.0 waits: waits: approval",))
    assert outcome.versions == {"0001": ""}


def test_an_earlier_rollback_of_a_version_is_not_the_end_of_its_second_try() -> None:
    outcome = run([make_report("approval", proving=NEW, way_back=DONE)] * 3, [None])
    assert outcome.story == ("2.2.0 waits: waits: approval",)


def test_a_state_that_the_controller_distrusts_ends_it() -> None:
    answer = {"outcome": "distrusted", "waiting": "state.json is missing"}
    outcome = run([RELEASED] * 3, [None], answer=answer)
    assert outcome.story == ("2.2.0 is not released: state.json is missing",)


def test_an_end_that_another_run_overtakes_is_none() -> None:
    assert run([REFUSED, REFUSED, RELEASED], [shadow(NEW)]).is_good


def test_the_limit_ends_it_and_says_how_to_go_on() -> None:
    outcome = run([PROVING], [shadow(GOOD)], limit=-1.0)
    assert not outcome.is_good
    assert outcome.story == (
        "2.2.0 is not on every device after -1 seconds; `make up` goes on",
        "2.2.0 waits: waits: coverage",
    )
