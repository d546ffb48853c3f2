"""Calls at AWS's pace: one after the other starts no sooner than a rate allows."""

from __future__ import annotations

import threading

from cloud.way_back import Clock


class CallPace:
    """So many calls a second, from however many threads."""

    def __init__(self, a_second: float, clock: Clock) -> None:
        self._gap, self._clock, self._lock = 1 / a_second, clock, threading.Lock()
        self._next_at = 0.0

    def wait(self) -> None:
        """Returns when the next call may be made."""
        with self._lock:
            now = self._clock.time()
            at = max(now, self._next_at)
            self._next_at = at + self._gap
        if at > now:
            self._clock.sleep(at - now)
