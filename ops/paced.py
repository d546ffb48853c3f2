"""One act on each of many items: from many threads, at a pace, with its progress, until the first
error."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from cloud.pace import CallPace
from ops.terminal import say
from ops.text import format_duration

Item = TypeVar("Item")

CONNECTIONS = 32
"""Calls at once, and connections that the commands' clients keep: enough for 1,000 calls a second
where an answer takes 32 ms."""
TOLD_EVERY = 5.0
"""Between two words on how far it has come."""


class BrokenOff(Exception):
    """It ended before its time; its cause is the first error, or the KeyboardInterrupt. Nothing is
    under way any more."""

    def __init__(self, done: int) -> None:
        super().__init__(f"broken off after {done}")
        self.done = done


def act_on_each(items: Sequence[Item], act: Callable[[Item], None], *, a_second: float) -> None:
    """Raises BrokenOff, with how many are done."""
    pace, began = CallPace(a_second, time), time.time()
    done, at_work, stop, changed = 0, 0, threading.Event(), threading.Condition()
    left = iter(items)

    def take() -> Iterator[Item]:
        while not stop.is_set():
            with changed:
                item = next(left, None)
            if item is None:
                return
            pace.wait()
            if not stop.is_set():
                yield item

    def work() -> None:
        nonlocal done, at_work
        with changed:
            at_work += 1
        try:
            for item in take():
                act(item)
                with changed:
                    done += 1
        except BaseException:
            stop.set()
            raise
        finally:
            with changed:
                at_work -= 1
                changed.notify()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        try:
            workers = [pool.submit(work) for _ in range(min(CONNECTIONS, len(items)))]
            while wait(workers, TOLD_EVERY, FIRST_EXCEPTION).not_done and not stop.is_set():
                say(_describe_progress(done, len(items), time.time() - began))
            wait(workers)
        except KeyboardInterrupt as interrupt:
            stop.set()
            with changed:  # the pool does not know a thread in whose start it was interrupted
                changed.wait_for(lambda: at_work == 0)
            raise BrokenOff(done) from interrupt
        finally:
            stop.set()
    for worker in workers:
        if error := worker.exception():
            raise BrokenOff(done) from error


def _describe_progress(done: int, of: int, seconds: float) -> str:
    rate = done / seconds if seconds else 0
    left = f", {format_duration((of - done) / rate)} left" if rate else ""
    return f"  {done:,} of {of:,}, {rate:,.0f} a second{left}"
