"""The whole device against an IoT Jobs in memory that loses answers and ends jobs, and against
power cuts."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device import agent
from device.agent import Device, DeviceConfig, Faults
from device.connection import JobEnded, RequestRefused
from device.flash import MAX_TRIAL_BOOTS
from device.mqtt import NoAnswer, Unreachable
from rollout.version import Version
from tests.unit.device_fakes import (
    BAD_IMAGE,
    IMAGE,
    STATEMENT,
    URL,
    FakeIot,
    ImageHost,
    config,
    document,
    factory_flash,
    new_host,
    refuse,
    run_until_idle,
    send,
    serve_http,
    statement_of,
)

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


@pytest.fixture(scope="module")
def http_server() -> Iterator[ThreadingHTTPServer]:
    with serve_http() as server:
        yield server


@pytest.fixture
def host(http_server: ThreadingHTTPServer) -> ImageHost:
    return new_host(http_server)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(agent, "MAX_RETRY_SECONDS", 0.02)


def check_schema(schema: str, message: object) -> None:
    jsonschema.validate(message, json.loads((SCHEMAS / schema).read_text()))


def test_an_update_in_few_messages_of_the_documented_shape(host: ImageHost, tmp_path: Path) -> None:
    iot = FakeIot()
    iot.offer(statement_of(IMAGE), host.url)
    run_until_idle(iot, tmp_path)
    assert [(update["status"], update["details"]["step"]) for update in iot.updates] == [
        ("IN_PROGRESS", "downloading"),
        ("IN_PROGRESS", "rebooting"),
        ("SUCCEEDED", "done"),
    ]
    assert [shadow["firmware"]["version"] for shadow in iot.shadow] == ["2.0.0", "2.1.0"]
    for update in iot.updates:
        check_schema("status-details.json", update["details"])
    for reported in iot.shadow:
        check_schema("shadow.json", {"state": {"reported": reported}})


def test_a_slow_download_reports_its_quarters(
    host: ImageHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "PROGRESS_SECONDS", 0.0)
    iot = FakeIot()
    iot.offer(statement_of(IMAGE), host.url)
    run_until_idle(iot, tmp_path)
    percents = [
        int(update["details"]["percent"])
        for update in iot.updates
        if update["details"]["step"] == "downloading"
    ]
    assert [percent // 25 for percent in percents] == [0, 1, 2, 3]


def test_texts_of_others_come_out_as_iot_takes_them(tmp_path: Path) -> None:
    iot = FakeIot()
    iot.offer(replace(STATEMENT, channel="\n\x00\u200e" * 2000), URL)
    run_until_idle(iot, tmp_path)
    assert iot.updates[0]["details"]["reason"] == "other channel"
    check_schema("status-details.json", iot.updates[0]["details"])


STEPS = ["checking", "downloading", "installing", "rebooting", "self-test", "reporting"]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(deaths=st.lists(st.sampled_from(STEPS), max_size=5), bad=st.booleans())
def test_whatever_a_device_dies_of_its_update_ends_where_it_should(
    http_server: ThreadingHTTPServer,
    tmp_path_factory: pytest.TempPathFactory,
    deaths: list[Any],
    bad: bool,
) -> None:
    content = BAD_IMAGE if bad else IMAGE
    host, iot, folder = new_host(http_server), FakeIot(), tmp_path_factory.mktemp("device")
    host.content = content
    job = iot.offer(statement_of(content), host.url)
    self_test_deaths = 0
    for step in deaths:
        run_until_idle(iot, folder, Faults(die_at=step))
        self_test_deaths += step == "self-test"
    run_until_idle(iot, folder)
    memory = factory_flash(folder).memory
    assert memory.sequence == 100
    assert (memory.trial, memory.outcome) == (None, None)
    assert iot.shadow[-1]["firmware"] == {
        "version": str(memory.version),
        "sha256": memory.sha256,
        "sequence": 100,
    }
    if bad:
        assert (job["status"], memory.version) == ("FAILED", Version("2.0.0"))
    elif self_test_deaths < MAX_TRIAL_BOOTS:
        assert (job["status"], memory.version) == ("SUCCEEDED", Version("2.1.0"))
    assert len([update for update in iot.updates if update["status"] != "IN_PROGRESS"]) == 1


def test_the_sequence_is_remembered_before_the_download(host: ImageHost, tmp_path: Path) -> None:
    iot = FakeIot()
    iot.offer(statement_of(IMAGE), host.url)
    run_until_idle(iot, tmp_path, Faults(die_at="downloading"))
    replayed = FakeIot()
    replayed.offer(
        statement_of(IMAGE, sequence=99, downgrade=True, version=Version("1.0.0")), host.url
    )
    run_until_idle(replayed, tmp_path)
    assert (replayed.updates[0]["status"], replayed.updates[0]["details"]["reason"]) == (
        "REJECTED",
        "stale sequence",
    )


def test_a_device_that_died_downloading_fetches_only_the_rest(
    host: ImageHost, tmp_path: Path
) -> None:
    iot = FakeIot()
    iot.offer(statement_of(IMAGE), host.url)
    run_until_idle(iot, tmp_path, Faults(die_at="downloading"))
    run_until_idle(iot, tmp_path)
    assert host.ranges[0] is None
    assert host.ranges[1] is not None
    assert iot.jobs[0]["status"] == "SUCCEEDED"


@pytest.mark.parametrize("call", ["find_next_job", "fetch_document", "update_job", "update_shadow"])
@pytest.mark.parametrize("times", [1, 3])
def test_an_answer_that_is_lost_is_asked_for_again(
    host: ImageHost, tmp_path: Path, call: str, times: int
) -> None:
    iot = FakeIot(errors=[(call, Unreachable("no answer"))] * times)
    job = iot.offer(statement_of(IMAGE), host.url)
    run_until_idle(iot, tmp_path)
    assert job["status"] == "SUCCEEDED"
    assert factory_flash(tmp_path).memory.version == Version("2.1.0")


def test_a_lost_answer_to_the_result_is_no_second_result(host: ImageHost, tmp_path: Path) -> None:
    iot = FakeIot(
        errors=[
            ("update_job", None),
            ("update_job", None),
            ("update_job", None),
            ("update_job", Unreachable("no answer")),
        ]
    )
    iot.offer(statement_of(IMAGE), host.url)
    run_until_idle(iot, tmp_path)
    assert [update["status"] for update in iot.updates] == [
        "IN_PROGRESS",
        "IN_PROGRESS",
        "SUCCEEDED",
    ]
    assert factory_flash(tmp_path).memory.outcome is None


def test_a_request_that_iot_refuses_does_not_end_the_device(
    host: ImageHost, tmp_path: Path
) -> None:
    iot = FakeIot(errors=[("update_shadow", RequestRefused("InvalidRequest"))])
    job = iot.offer(statement_of(IMAGE), host.url)
    assert "refused: InvalidRequest" in run_until_idle(iot, tmp_path)
    assert job["status"] == "SUCCEEDED"


def test_an_execution_with_another_version_is_updated_all_the_same(
    host: ImageHost, tmp_path: Path
) -> None:
    raised: list[str] = []

    def meddle(job: dict[str, Any], details: dict[str, str]) -> None:
        if details["step"] not in raised:
            raised.append(details["step"])
            job["version"] += 3

    iot = FakeIot(on_update=meddle)
    job = iot.offer(statement_of(IMAGE), host.url)
    run_until_idle(iot, tmp_path)
    assert job["status"] == "SUCCEEDED"
    assert len(iot.updates) == 3


@pytest.mark.parametrize(
    ("step", "version"), [("downloading", "2.0.0"), ("rebooting", "2.0.0"), ("done", "2.1.0")]
)
@pytest.mark.parametrize("status", ["CANCELED", "TIMED_OUT"])
def test_a_job_that_ended_meanwhile_leaves_what_is_true(
    host: ImageHost, tmp_path: Path, step: str, version: str, status: str
) -> None:
    def end(job: dict[str, Any], details: dict[str, str]) -> None:
        if details["step"] == step and job["id"] == "job-0":
            job["status"] = status

    iot = FakeIot(on_update=end)
    iot.offer(statement_of(IMAGE), host.url)
    after = iot.offer(statement_of(IMAGE, sequence=101), host.url)
    notices = run_until_idle(iot, tmp_path)
    assert f"job-0 ended meanwhile: {status}" in notices
    assert after["status"] == "SUCCEEDED"
    first = next(
        reported for reported in reversed(iot.shadow) if reported["firmware"]["sequence"] <= 100
    )
    assert first["firmware"]["version"] == version
    assert factory_flash(tmp_path).memory.version == Version("2.1.0")


def test_the_outcome_of_a_job_that_timed_out_is_not_reported_for_the_next_one(
    host: ImageHost, tmp_path: Path
) -> None:
    iot = FakeIot()
    host.content = BAD_IMAGE
    old = iot.offer(statement_of(BAD_IMAGE), host.url)
    run_until_idle(iot, tmp_path, Faults(die_at="reporting"))
    old["status"] = "TIMED_OUT"
    new = iot.offer(statement_of(IMAGE, version=Version("2.1.1"), sequence=101), host.url)
    host.content = IMAGE
    run_until_idle(iot, tmp_path)
    assert (old["status"], new["status"]) == ("TIMED_OUT", "SUCCEEDED")
    assert factory_flash(tmp_path).memory.version == Version("2.1.1")


def test_a_job_that_iot_retries_is_tried_again(host: ImageHost, tmp_path: Path) -> None:
    iot = FakeIot()
    host.content = BAD_IMAGE
    iot.offer(statement_of(BAD_IMAGE), host.url, "job", 1)
    run_until_idle(iot, tmp_path, Faults(die_at="reporting"))
    iot.jobs[0]["status"] = "TIMED_OUT"
    iot.offer(statement_of(BAD_IMAGE), host.url, "job", 2)
    run_until_idle(iot, tmp_path)
    assert len(host.ranges) == 2
    assert [
        (update["number"], update["status"])
        for update in iot.updates
        if update["status"] != "IN_PROGRESS"
    ] == [(2, "FAILED")]


def test_an_old_job_found_after_the_reboot_has_succeeded(host: ImageHost, tmp_path: Path) -> None:
    iot = FakeIot()
    iot.offer(statement_of(IMAGE), host.url)
    iot.offer(statement_of(IMAGE, sequence=99), host.url)
    run_until_idle(iot, tmp_path)
    assert [(job["status"]) for job in iot.jobs] == ["SUCCEEDED", "SUCCEEDED"]
    assert iot.updates[-1]["details"]["reason"] == "already installed"
    assert factory_flash(tmp_path).memory.sequence == 100


def test_a_newer_offer_of_what_runs_raises_the_sequence(host: ImageHost, tmp_path: Path) -> None:
    iot = FakeIot()
    iot.offer(statement_of(IMAGE), host.url)
    iot.offer(statement_of(IMAGE, sequence=200), host.url)
    run_until_idle(iot, tmp_path)
    assert factory_flash(tmp_path).memory.sequence == 200
    assert iot.shadow[-1]["firmware"]["sequence"] == 200


def test_a_fresh_url_comes_from_the_job_and_only_with_the_same_release(
    host: ImageHost, tmp_path: Path
) -> None:
    iot = FakeIot()
    job = iot.offer(statement_of(IMAGE), host.url + "?ended")
    host.script = [refuse(403)]
    run_until_idle(iot, tmp_path)
    assert job["status"] == "SUCCEEDED"

    swapped = iot.offer(statement_of(BAD_IMAGE, version=Version("2.2.0"), sequence=101), host.url)

    def swap(host: ImageHost, request: BaseHTTPRequestHandler) -> None:
        swapped["document"] = document(
            statement_of(IMAGE, version=Version("2.2.0"), sequence=102, job=swapped["id"]),
            url=host.url,
        )
        send(request, 403, b"")

    host.script = [swap]
    run_until_idle(iot, tmp_path)
    assert swapped["status"] == "FAILED"
    assert iot.updates[-1]["details"]["detail"] == "the job's document changed"


def test_a_document_replayed_in_another_job_installs_nothing(
    host: ImageHost, tmp_path: Path
) -> None:
    iot = FakeIot()
    replay = iot.offer(statement_of(IMAGE), host.url)
    replay["document"] = document(statement_of(IMAGE, job="of-last-year"), url=host.url)
    run_until_idle(iot, tmp_path)
    assert (iot.updates[-1]["status"], iot.updates[-1]["details"]["reason"]) == (
        "FAILED",
        "other job",
    )
    memory = factory_flash(tmp_path).memory
    assert (host.ranges, memory.version, memory.sequence) == ([], Version("2.0.0"), 0)


@pytest.mark.parametrize("change", [{"contract": 2}, {"crit": ("channel", "refuses")}])
def test_what_the_device_cannot_read_counts_for_nothing(
    host: ImageHost, tmp_path: Path, change: dict[str, Any]
) -> None:
    iot = FakeIot()
    job = iot.offer(statement_of(IMAGE, **change), host.url)
    after = iot.offer(statement_of(IMAGE), host.url)
    run_until_idle(iot, tmp_path)
    assert (job["status"], after["status"]) == ("REJECTED", "SUCCEEDED")
    assert iot.updates[0]["details"]["reason"] == "contract not understood"
    assert iot.shadow[0]["contract"] == 1, "so that people see which devices cannot"


def test_a_document_that_never_comes_fails_and_the_next_job_is_taken(
    host: ImageHost, tmp_path: Path
) -> None:
    iot = FakeIot(errors=[("fetch_document", NoAnswer("no answer"))] * 3)
    job = iot.offer(statement_of(IMAGE), host.url)
    after = iot.offer(statement_of(IMAGE), host.url)
    run_until_idle(iot, tmp_path)
    assert (job["status"], after["status"]) == ("FAILED", "SUCCEEDED")
    assert iot.updates[0]["details"]["reason"] == "bad document"


def test_a_document_that_does_not_come_because_nothing_does_fails_nothing(
    host: ImageHost, tmp_path: Path
) -> None:
    lost = [("fetch_document", NoAnswer("")), ("find_next_job", NoAnswer(""))]
    iot = FakeIot(errors=[("find_next_job", None), *lost * 5])
    job = iot.offer(statement_of(IMAGE), host.url)
    run_until_idle(iot, tmp_path)
    assert job["status"] == "SUCCEEDED"


def test_an_ended_job_that_iot_goes_on_naming_is_asked_for_with_waits(
    host: ImageHost, tmp_path: Path
) -> None:
    iot = FakeIot(errors=[("fetch_document", JobEnded("CANCELED"))] * 5)
    iot.offer(statement_of(IMAGE), host.url, "job")
    notices = run_until_idle(iot, tmp_path)
    assert notices.count("job ended meanwhile: CANCELED") == 1
    assert "no answer: job has ended, and is still the next job" in notices


def test_a_device_that_is_stopped_in_mid_download_goes_on_in_its_next_life(
    host: ImageHost, tmp_path: Path
) -> None:
    begun, iot = threading.Event(), FakeIot()

    def stall(host: ImageHost, request: BaseHTTPRequestHandler) -> None:
        begun.set()
        send(request, 503, b"")

    host.script = [stall] * 8
    job = iot.offer(statement_of(IMAGE), host.url)
    device = Device(config(tmp_path), connect=iot.connect)
    device.start()
    assert begun.wait(5)
    device.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "device 1"]
    assert job["status"] == "IN_PROGRESS"
    host.script = []
    run_until_idle(iot, tmp_path)
    assert job["status"] == "SUCCEEDED"


def test_a_device_that_never_started_can_be_stopped(tmp_path: Path) -> None:
    Device(config(tmp_path), connect=FakeIot().connect).stop()


def test_the_usage_example_names_every_field_of_the_config() -> None:
    example = textwrap.dedent(inspect.cleandoc(Device.__doc__ or "").split("\n\n")[1])
    config = next(node for node in ast.walk(ast.parse(example)) if isinstance(node, ast.Call))
    fields = [field.name for field in dataclasses.fields(DeviceConfig)]
    assert [keyword.arg for keyword in config.keywords] == fields
