"""The sandbox's devices come in a few at once, and whatever ends that ends all of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from device.claiming import ClaimError, Identity
from device.mqtt import Stopped
from sandbox import arrivals
from sandbox.arrivals import Arrivals

WAIT_SECONDS = 10.0


class FakeDevice:
    """A device that is on or off, by its serial."""

    on: ClassVar[set[str]] = set()

    def __init__(self, serial: str) -> None:
        self.serial = serial

    def start(self) -> None:
        self.on.add(self.serial)

    def stop(self) -> None:
        self.on.discard(self.serial)


class FakeClaiming:
    def __init__(self, factory: FakeFactory, serial: str, tell: Callable[[str], None]) -> None:
        self.factory, self.serial, self.tell = factory, serial, tell
        self.stopped = threading.Event()

    def run(self) -> Identity:
        self.tell("asks")
        with self.factory.lock:
            self.factory.now += 1
            self.factory.most = max(self.factory.most, self.factory.now)
        time.sleep(0.01)
        with self.factory.lock:
            self.factory.now -= 1
        if self.serial == "refused" and self.stopped.wait(WAIT_SECONDS):
            raise Stopped
        if self.serial == "broken":
            raise ClaimError("the device has no claim certificate")
        return Identity(thing=self.serial, certificate_pem="", private_key_pem="")

    def stop(self) -> None:
        self.stopped.set()


class FakeFactory:
    def __init__(self) -> None:
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def build(
        self, serial: str, on_progress: Callable[[str], None], _on_trouble: object
    ) -> FakeClaiming:
        return FakeClaiming(self, serial, on_progress)

    def configure(self, serial: str, _identity: Identity) -> str:
        return serial


@pytest.fixture(autouse=True)
def devices(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Those that are on."""
    monkeypatch.setattr(arrivals, "Device", FakeDevice)
    monkeypatch.setattr(FakeDevice, "on", set())
    return FakeDevice.on


def arrive(*serials: str, **watch: Any) -> tuple[Arrivals, FakeFactory]:
    factory: Any = FakeFactory()
    return Arrivals(factory, serials, **watch), factory


def wait_for(serial: str, devices: set[str]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while serial not in devices:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_all_come_in_few_at_once_and_are_off_in_the_end(devices: set[str]) -> None:
    told, are_in = list[tuple[str, str]](), list[bool]()
    serials = [f"{number:04}" for number in range(20)]
    arriving, factory = arrive(
        *serials,
        on_progress=lambda serial, text: told.append((serial, text)),
        on_all=lambda: are_in.append(True),
        at_once=3,
    )
    with arriving:
        arriving.wait()
        assert devices == set(serials)
    assert devices == set()
    assert sorted(told) == [(serial, "asks") for serial in serials]
    assert (factory.most, are_in) == (3, [True])


def test_what_ends_one_is_raised(devices: set[str]) -> None:
    arriving, _ = arrive("0001", "broken")
    with pytest.raises(ClaimError, match="no claim certificate"), arriving:
        arriving.wait()
    arriving, _ = arrive("broken", "0001", at_once=1)

    def go_on() -> None:
        with arriving:
            wait_for("0001", devices)

    with pytest.raises(ClaimError):  # where nobody waited, too
        go_on()
    assert devices == set()


def test_who_leaves_early_waits_for_nobody(devices: set[str]) -> None:
    began = time.monotonic()
    arriving, _ = arrive("0001", "refused", "0003", "0004", at_once=1)

    def leave() -> None:
        with arriving:
            wait_for("0001", devices)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert time.monotonic() - began < WAIT_SECONDS
    assert devices == set()
