"""`pardon`: a release is taken off the refused list."""

from __future__ import annotations

from dataclasses import replace

from ops.command import Command, Subparsers, add_changing_command
from ops.errors import OpsError
from ops.snapshot import take_snapshot
from ops.text import format_time, one_line
from rollout.orders import Order, Orders, PardonOrder
from rollout.state import Release, State


def add_parser(commands: Subparsers) -> None:
    text = "Take a release off the refused list: the stack file may name it again"
    parser = add_changing_command(commands, "pardon", text, lambda c, args: pardon(c, args.version))
    parser.add_argument("version", metavar="VERSION", help="or the image's whole SHA-256")


def pardon(command: Command, version: str) -> None:
    """Orders that the version's digest is refused no more."""
    snapshot = take_snapshot(command.channel)
    state = command.require_state(snapshot, "pardon")
    sha256, release = _find_refused(state, version)
    standing = snapshot.orders.pardon
    is_same = standing is not None and standing.sha256 == sha256
    if standing and is_same and command.is_pending(state, Orders(pardon=standing), standing.order):
        return

    def change(now: Orders, order: Order) -> Orders:
        return replace(now, pardon=PardonOrder(sha256=sha256, order=order))

    command.give_order(_describe_pardon(command, state, sha256, release), change)


def _find_refused(state: State, version: str) -> tuple[str, Release]:
    """The refused release of this version, or digest. Raises OpsError where there is none."""
    named = version.removeprefix("v")
    for sha256, release in state.releases.items():
        if named in (sha256, str(release.version)):
            if release.standing == "refused":
                return sha256, release
            raise OpsError(f"{named} is not refused, it is {release.standing}: nothing to pardon")
    refused = [r for r in state.releases.items() if r[1].standing == "refused"]
    names = ", ".join(str(release.version or sha256) for sha256, release in refused)
    raise OpsError(f"{named} is not refused; refused are: {names or 'none'}")


def _describe_pardon(command: Command, state: State, sha256: str, release: Release) -> list[str]:
    version = release.version or "an image that was never offered"
    lines = [
        f"Takes {version}, sha256 {sha256}, off the refused list.",
        f"It was refused {format_time(release.at)}: {one_line(release.why)}.",
        "What its devices showed until now does not refuse it again.",
    ]
    manifest, _ = command.channel.manifest()
    if manifest and manifest.firmware.sha256 == sha256:
        ring = manifest.rings[0].name
        lines.append(f"The stack file names it: ring {ring} starts it as soon as that may start.")
    else:
        lines.append("Nothing starts by this: the stack file may name it again.")
    if state.open_way_back:
        lines.append("Devices that are on their way back still go back.")
    return lines
