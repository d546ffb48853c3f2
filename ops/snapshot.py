"""What there is of a channel, as an operator may trust it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from cloud.channel import Channel, OrdersFile
from rollout.orders import Orders
from rollout.state import State
from rollout.trust import UntrustedState


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a command sees first. Without a state, there is none yet, or it is `untrusted`."""

    live_jobs: list[str]
    orders_file: OrdersFile
    state: State | None = None
    untrusted: UntrustedState | None = None
    changed_at: float | None = None
    """When state.json was written last (seconds since 1970); None where there is none."""

    @property
    def orders(self) -> Orders:
        return self.orders_file.orders

    @property
    def halt_id(self) -> str | None:
        """The id of the controller's own halt, which only a resume that names it ends."""
        if self.untrusted:
            return self.untrusted.halt
        return self.state.halt.id if self.state and self.state.halt else None


def list_live_jobs(channel: Channel) -> list[str]:
    """The ids of the channel's jobs that are not over, the newest offer first."""
    return _newest_first(channel, channel.jobs.live())


def _newest_first(channel: Channel, jobs: Iterable[str]) -> list[str]:
    return sorted(jobs, key=lambda job: (-(channel.names.job_sequence(job) or 0), job))


def take_snapshot(channel: Channel) -> Snapshot:
    live = channel.jobs.live()  # first: the state is measured against them
    seen = Snapshot(live_jobs=_newest_first(channel, live), orders_file=channel.orders())
    try:
        stored = channel.current_state(live)
    except UntrustedState as untrusted:
        return replace(seen, untrusted=untrusted, changed_at=channel.state_changed_at())
    return replace(seen, state=stored.state, changed_at=stored.changed_at) if stored else seen
