"""Releases that are interrupted: by a second controller, by the controller's death, by devices that
die or are away."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cloud.clients import Clients as CloudClients
from cloud.way_back import BUSY_SECONDS
from device.agent import Faults
from functions.controller import Controller, Setup
from rollout.state import State
from tests.sandbox.fleet import (
    BROAD,
    CANARY,
    Clients,
    Fleet,
    everybody,
    is_back_from,
    ring_of,
    wait_for,
)

AT_ONCE = 2
"""Runs of the controller that are started together."""


@pytest.fixture(autouse=True)
def quiet(fleet: Fleet) -> None:
    assert fleet.state.waiting.kind in (
        "nothing",
        "refused",
    ), f"an earlier test left: {fleet.state.waiting.text}"
    fleet.connect()


def jobs_by_ring(fleet: Fleet, jobs: set[str]) -> list[str]:
    """The rings of these jobs, one entry for each job."""
    return sorted(ring_of(fleet, job) for job in jobs)


# The controller, several times at once


def together(fleet: Fleet, true: Callable[[State], Any]) -> list[str]:
    """Wakes the controller several times at once, again and again until `true(state)`; the outcomes
    of the runs."""
    outcomes: list[str] = []
    deadline = time.monotonic() + 30
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while not true(fleet.state):
            assert time.monotonic() < deadline, f"the controller: {fleet.state.waiting.text}"
            outcomes += [
                answer["outcome"]
                for answer in pool.map(lambda _: fleet.sandbox.wake(), range(AT_ONCE))
            ]
    return outcomes


def test_controllers_that_run_at_once_make_no_job_twice(fleet: Fleet) -> None:
    before, outcomes = set(fleet.jobs()), list[str]()
    for version in ("2.2.0", "2.3.0"):
        digest = fleet.ship(version)
        outcomes += together(
            fleet,
            lambda s, d=digest: s.last_good and s.last_good.sha256 == d and s.candidate is None,  # type: ignore[misc]
        )
        made = set(fleet.jobs()) - before
        assert jobs_by_ring(fleet, made) == ["broad", "canary"], f"{version}: one job a ring"
        assert fleet.runs() == everybody(version)
        before |= made
    assert set(outcomes) == {"done", "lost"}, "they did run at once, and who came late gave way"
    fleet.wake()
    fleet.no_ring_has_two_jobs()


def test_controllers_that_run_at_once_roll_back_once(fleet: Fleet) -> None:
    before, good = set(fleet.jobs()), fleet.state.last_good
    assert good is not None
    fleet.ship("2.5.0", bad=True)
    together(fleet, lambda s: is_back_from(s, "2.5.0"))
    assert jobs_by_ring(fleet, set(fleet.jobs()) - before) == [
        "canary",
        "rollback",
    ]
    assert fleet.brought_back(fleet.state) == CANARY
    assert fleet.state.halt is None, "nobody took another run's work for a person's"
    assert fleet.runs() == everybody(str(good.version))


# The controller, killed


class Killed(BaseException):
    """The function was ended: nothing after this happens."""


class Mortal:
    """AWS as the controller reaches it, which ends the controller before or after a call, once for
    each of the `moments`."""

    def __init__(self, fleet: Fleet, moments: set[tuple[str, str]]) -> None:
        self.moments = moments
        self._clients: Clients = fleet.role(fleet.sandbox.outputs["controllerName"])

    def connect(self, service: str) -> Any:
        real, mortal = self._clients(service), self

        class Wrapped:
            def __getattr__(self, name: str) -> Callable[..., Any]:
                def call(*values: Any, **parameters: Any) -> Any:
                    mortal.strike(name, "before")
                    answer = getattr(real, name)(*values, **parameters)
                    mortal.strike(name, "after")
                    return answer

                return call

        return Wrapped()

    def strike(self, name: str, when: str) -> None:
        if (name, when) in self.moments:
            self.moments.discard((name, when))
            raise Killed


class HastyClock:
    """A clock that runs ahead: what a killed run had for itself is free again at once."""

    ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def sleep(self, seconds: float, /) -> None:
        time.sleep(seconds)


def killed_at(fleet: Fleet, calls: set[str], true: Callable[[State], Any]) -> None:
    """Runs the controller, with its role's rights, until `true(state)`; it is killed before and
    after each of the calls."""
    function = fleet.sandbox.outputs["controllerName"]
    variables = fleet.client("lambda").get_function_configuration(FunctionName=function)[
        "Environment"
    ]["Variables"]
    setup = Setup.from_environment({**variables, "AWS_REGION": fleet.region})
    moments = {(call, when) for call in calls for when in ("before", "after")}
    mortal = Mortal(fleet, moments)
    deaths, deadline = len(moments), time.monotonic() + 30
    clock = HastyClock()
    while not true(fleet.state) or moments:
        assert time.monotonic() < deadline, (
            f"not struck: {moments}; the controller: {fleet.state.waiting.text}"
        )
        try:
            Controller(setup, CloudClients(mortal.connect), clock=clock).run(clock.time())
        except Killed:
            deaths -= 1
            clock.ahead += BUSY_SECONDS
    assert deaths in (0, 1), "devices are placed side by side: two moments can end one run"


def test_a_controller_that_is_killed_at_every_deed_brings_a_release_to_its_end(
    fleet: Fleet,
) -> None:
    before, deeds = (
        set(fleet.jobs()),
        {"sign", "put_object", "create_job", "cancel_job", "update_job", "put_metric_data"},
    )
    with fleet.controller_down():
        digest = fleet.ship("2.6.0")
        killed_at(
            fleet,
            deeds,
            lambda s: s.last_good and s.last_good.sha256 == digest and s.candidate is None,
        )
    assert jobs_by_ring(fleet, set(fleet.jobs()) - before) == [
        "broad",
        "canary",
    ]
    assert fleet.runs() == everybody("2.6.0")
    fleet.wake()
    fleet.no_ring_has_two_jobs()


def test_a_controller_that_is_killed_at_every_deed_rolls_back_who_was_exposed(fleet: Fleet) -> None:
    before = set(fleet.jobs())
    deeds = {
        "put_object",
        "create_job",
        "cancel_job",
        "create_thing_group",
        "add_thing_to_thing_group",
    }
    with fleet.controller_down():
        fleet.ship("2.7.0", bad=True)
        killed_at(fleet, deeds, lambda s: is_back_from(s, "2.7.0"))
    assert jobs_by_ring(fleet, set(fleet.jobs()) - before) == [
        "canary",
        "rollback",
    ]
    assert fleet.brought_back(fleet.state) == CANARY
    assert fleet.runs() == everybody("2.6.0")
    assert fleet.state.halt is None


# Devices


@pytest.mark.parametrize(("step", "version"), [("downloading", "2.8.0"), ("self-test", "2.9.0")])
def test_a_device_that_dies_in_mid_update_holds_its_ring_until_it_returns(
    fleet: Fleet, step: Any, version: str
) -> None:
    fleet.disconnect("0001")
    (device,) = fleet.connect("0001", faults=Faults(die_at=step))
    fleet.ship(version)
    fleet.until("canary's job", lambda s: (p := s.proof("canary")) and p.seen)
    assert device.died.wait(20)
    fleet.disconnect("0001")
    fleet.until(
        "the other one",
        lambda _: (
            fleet.executions(fleet.job("canary")) == {"0001": "IN_PROGRESS", "0002": "SUCCEEDED"}
        ),
    )
    for _ in range(3):
        assert fleet.wake()["kind"] == "coverage"
    fleet.connect("0001")
    fleet.proved(version)
    assert fleet.runs() == everybody(version)


def test_devices_that_were_away_during_a_release_get_it_when_they_return(fleet: Fleet) -> None:
    before = fleet.runs()
    fleet.disconnect("0005")
    fleet.ship("2.10.0", gates={"broad": {"coveragePercent": 60, "minimumSucceeded": 2}})
    fleet.proved("2.10.0")
    job = fleet.job("broad")
    assert fleet.executions(job) == {"0003": "SUCCEEDED", "0004": "SUCCEEDED", "0005": "QUEUED"}
    assert fleet.runs() == everybody("2.10.0") | {"0005": before["0005"]}

    fleet.disconnect("0004")
    fleet.ship("2.11.0")
    fleet.until(
        "who is there",
        lambda s: s.proof("broad") and fleet.runs()["0003"] == "2.11.0",
    )
    assert fleet.wake()["kind"] == "coverage", "two of three are away"
    fleet.connect("0004", "0005")
    fleet.proved("2.11.0")
    assert fleet.runs() == everybody("2.11.0")
    assert fleet.executions(fleet.job("broad")) == dict.fromkeys(BROAD, "SUCCEEDED")
    assert fleet.executions(job)["0005"] == "SUCCEEDED", (
        "first what it had missed, then what came after"
    )


# What wakes the controller


def test_manifest_orders_and_cancelled_jobs_wake_the_controller(fleet: Fleet) -> None:
    """Nobody calls the function here; its tick alone is waited for nowhere, since it comes once a
    minute."""

    def on_its_own(what: str, true: Callable[[State], Any]) -> State:
        state: State = wait_for(what, lambda: true(fleet.state) and fleet.state, seconds=20)
        return state

    fleet.disconnect()
    fleet.ship("2.12.0")
    on_its_own(
        "the manifest to be seen",
        lambda s: s.candidate and str(s.candidate.firmware.version) == "2.12.0",
    )
    job = fleet.job("canary")
    wait_for("the job", lambda: job in fleet.live_jobs())
    fleet.client("iot").cancel_job(jobId=job)
    on_its_own("the cancelled job to be seen", lambda s: s.halt)
    fleet.ops("resume")
    on_its_own(
        "the order to be seen",
        lambda s: s.halt is None and s.proof("canary"),
    )
    wait_for("the new job", lambda: fleet.job("canary") in fleet.live_jobs())
    assert fleet.job("canary") != job
    fleet.connect()
    fleet.proved("2.12.0")
    assert fleet.runs() == everybody("2.12.0")
