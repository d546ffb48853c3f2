"""The simulated devices of a running sandbox: they come in by claim, a few at once, and are
connected as they do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from device.agent import Device
from device.claiming import Claiming
from device.mqtt import Stopped
from sandbox.factory import DeviceFactory

AT_ONCE = 2
"""Devices that come in at the same time: more would wake more copies of the hook, each of which
takes a local AWS a second."""

OnStep = Callable[[str, str], None]
"""Is told a serial, and in words what its device did or could not do."""


def ignore(_serial: str, _text: str) -> None: ...


class Arrivals:
    """Devices by their serials, in that order; a context manager, after which all are off. What
    ended one of them is raised there."""

    def __init__(
        self,
        factory: DeviceFactory,
        serials: Iterable[str],
        *,
        on_progress: OnStep = ignore,
        on_trouble: OnStep = ignore,
        on_all: Callable[[], None] = lambda: None,
        at_once: int = AT_ONCE,
    ) -> None:
        """`on_all` is called once all are in; `at_once` of them come in at the same time."""
        self._factory, self._serials, self._on_all = factory, list(serials), on_all
        self._on_progress, self._on_trouble = on_progress, on_trouble
        self._lock, self._is_over = threading.Lock(), False
        self._claiming: dict[str, Claiming] = {}
        self._devices: dict[str, Device] = {}
        self._pool = ThreadPoolExecutor(at_once, "arrivals")
        self._coming: list[Future[None]] = []

    def __enter__(self) -> Arrivals:
        self._coming = [self._pool.submit(self._bring_in, serial) for serial in self._serials]
        return self

    def wait(self, seconds: float | None = None) -> None:
        """Until all are in; raises what ended one of them, and TimeoutError after so many
        seconds."""
        done, left = wait(self._coming, timeout=seconds, return_when=FIRST_EXCEPTION)
        for coming in done:
            coming.result()
        if left:
            raise TimeoutError(f"{len(left)} of {len(self._coming)} devices have not come in")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._lock:
            self._is_over = True
            claiming = list(self._claiming.values())
        for one in claiming:
            one.stop()
        self._pool.shutdown(cancel_futures=True)
        with ThreadPoolExecutor(max(len(self._devices), 1)) as pool:
            list(pool.map(Device.stop, self._devices.values()))
        errors = [one.exception() for one in self._coming if one.done() and not one.cancelled()]
        for error in errors:
            if error is not None and not isinstance(error, Stopped) and kind is None:
                raise error

    def _bring_in(self, serial: str) -> None:
        claiming = self._factory.build(
            serial,
            lambda text: self._on_progress(serial, text),
            lambda text: self._on_trouble(serial, text),
        )
        with self._lock:
            if self._is_over:
                raise Stopped
            self._claiming[serial] = claiming
        identity = claiming.run()
        with self._lock:
            del self._claiming[serial]
            if self._is_over:
                raise Stopped
            device = Device(self._factory.configure(serial, identity))
            device.start()
            self._devices[serial] = device
            are_in = len(self._devices) == len(self._serials)
        if are_in:
            self._on_all()
