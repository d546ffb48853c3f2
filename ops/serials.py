"""`serials`: the registry of serials that may claim a certificate: `add`, `list`, `release`,
`block`, `unblock`, `remove`.

What changes a record writes who did it, when and why into it. docs/onboarding.md says when to use
which.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from cloud.bucket import Overtaken
from cloud.serial_table import CHANGES, THROTTLE_WAITS, SerialTable, StoredSerial
from ops.command import Command, Run, Subparsers, add_changing_command
from ops.errors import OpsError
from ops.serial_import import import_serials
from ops.stack import Access, add_stack_arguments, open_access
from ops.terminal import say
from ops.text import one_line
from rollout.codec import encode
from rollout.orders import Order
from rollout.rings import RingShare, ring_of
from rollout.serial import Serial, SerialStatus

SHOWN_SERIALS = 20
"""Serials that `list` shows, unless --most says how many."""


def add_parser(commands: Subparsers) -> None:
    text = "The registry of serials that may claim a certificate"
    parser = commands.add_parser("serials", help=text, description=text)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    _add_import_parser(verbs)
    _add_list_parser(verbs)
    for verb, text, run in (
        ("release", "Let another key claim a serial; its device is cut off", release),
        ("block", "Let nobody claim a serial; a device that has it goes on", block),
        ("unblock", "End a block: the serial is again what it was", unblock),
        ("remove", "Take a serial that no device has out of the registry", remove),
    ):
        one = add_changing_command(verbs, verb, text, _on_serial(run))
        one.add_argument("serial", metavar="SERIAL")


def _on_serial(run: Callable[[Command, str], None]) -> Run:
    return lambda command, args: run(command, args.serial)


def _add_import_parser(verbs: Subparsers) -> None:
    text = "Add the serials of a CSV file, and change those that differ"
    parser = add_changing_command(
        verbs,
        "add",
        text,
        lambda command, args: import_serials(
            command, open_registry(command), args.file, is_dry=args.dry_run
        ),
    )
    columns = "columns serial, ring (may be left out), and keys of fleet.attributes"
    parser.add_argument("--file", type=Path, required=True, metavar="FILE.csv", help=columns)
    parser.add_argument("--dry-run", action="store_true", help="say what would change, and end")


def _add_list_parser(verbs: Subparsers) -> None:
    text = "Count the serials by status, and show some"
    parser = verbs.add_parser("list", help=text, description=text)
    add_stack_arguments(parser)
    names = [status.value for status in SerialStatus]
    parser.add_argument("--status", choices=names, help="only those of this status")
    ring = "only those whose ring by the list, else by the hash, is this one"
    parser.add_argument("--ring", metavar="RING", help=ring)
    some = f"show so many ({SHOWN_SERIALS})"
    parser.add_argument("--most", type=int, default=SHOWN_SERIALS, metavar="N", help=some)
    parser.add_argument("--json", action="store_true", help="all of them, as JSON, one a line")
    parser.set_defaults(run=lambda args: list_serials(open_access(args), args))


def open_registry(where: Command | Access) -> SerialTable:
    """Raises OpsError for a stack that has none."""
    table = where.stack.serial_table(where.channel.clients, THROTTLE_WAITS)
    if table is None:
        raise OpsError(
            "this stack has no registry of serials: its devices are not provisioned by claim"
            " (fleet.provisioning in the stack file, then `pulumi up`; docs/onboarding.md)"
        )
    return table


def list_serials(access: Access, args: argparse.Namespace) -> None:
    registry = open_registry(access)
    shares = _read_shares(access, args.ring) if args.ring else ()
    counts: Counter[SerialStatus] = Counter()
    shown: list[Serial] = []
    for stored in registry.list():
        record = stored.record
        if args.status and record.status != args.status:
            continue
        if args.ring and find_ring(record, shares) != args.ring:
            continue
        counts[record.status] += 1
        if args.json:
            print(json.dumps(encode(record)))
        elif len(shown) < args.most:
            shown.append(record)
    if args.json:
        return
    for record in sorted(shown, key=lambda one: one.serial):
        say(describe_serial(record))
    if more := counts.total() - len(shown):
        say(f"and {more:,} more (--most N, --json)")
    parts = ", ".join(f"{counts[status]:,} {status}" for status in SerialStatus if counts[status])
    say(f"{counts.total():,} serials" + (f": {parts}" if parts else ""))


def find_ring(record: Serial, shares: Sequence[RingShare]) -> str:
    """The ring that a claim of this serial leads to."""
    return record.ring or ring_of(record.serial, shares)


def describe_serial(record: Serial) -> str:
    """A record in one line."""
    parts = [record.status.value]
    if record.claim:
        parts.append(one_line(record.claim.thing))
    if record.ring:
        parts.append(f"ring {record.ring}")
    parts += [f"{key} {value}" for key, value in record.attributes.items()]
    return f"{record.serial}  {', '.join(parts)}"


def _read_shares(access: Access, ring: str) -> Sequence[RingShare]:
    """The fleet's rings, of which `ring` must be one."""
    if ring not in access.stack.ring_group_names:
        raise OpsError(f"there is no ring {ring}: {', '.join(access.stack.ring_group_names)}")
    manifest, problem = access.channel.manifest()
    if manifest is None:
        raise OpsError(f"which ring a serial's hash says stands in release.json: {problem}")
    return manifest.rings


# One serial


def release(command: Command, serial: str) -> None:
    registry, ties = open_registry(command), command.stack.ties(command.channel.clients)
    record = _require(registry, serial).record
    _check_releasable(command, record)
    thing = _thing(record)
    order = command.ask_order(
        [
            f"{serial}: the certificates of {thing} are made inactive and its connection is ended,",
            "so that its device cannot connect any more, and whoever has a claim certificate may",
            "claim the serial with a key of its own. The thing, its ring and its attributes stay.",
        ]
    )

    def change(record: Serial) -> Serial:
        _check_releasable(command, record)
        # again in each try: it may have been claimed anew meanwhile
        for certificate in ties.deactivate(_thing(record)):
            say(f"certificate {certificate} is inactive")
        if left := ties.end_connection(_thing(record)):
            say(f"its connection: {left}")
        return record.release(order)

    _change(registry, serial, change, order)


def _check_releasable(command: Command, record: Serial) -> None:
    serial = record.serial
    if record.status is SerialStatus.BLOCKED:
        then = command.stack.command(f"serials unblock {serial}")
        raise OpsError(f"{serial} is blocked: first `{then}`")
    if record.status is not SerialStatus.CLAIMED:
        raise OpsError(f"{serial} is {record.status}: it can be claimed as it is")


def _thing(record: Serial) -> str:
    """Raises OpsError for a record that no hook wrote."""
    if record.claim is None:
        raise OpsError(f"the record of {record.serial} says claimed, and not by whom")
    return record.claim.thing


def block(command: Command, serial: str) -> None:
    registry = open_registry(command)
    record = _require(registry, serial).record
    _check_not_blocked(record)
    lines = [f"{serial} ({record.status}): nobody can claim it until it is unblocked."]
    if record.status is SerialStatus.CLAIMED:
        cut = command.stack.command(f"quarantine {_thing(record)}")
        lines.append(f"ITS DEVICE GOES ON. To cut it off: `{cut}`")
    order = command.ask_order(lines)

    def change(record: Serial) -> Serial:
        _check_not_blocked(record)
        return record.block(order)

    _change(registry, serial, change, order)


def _check_not_blocked(record: Serial) -> None:
    if record.status is SerialStatus.BLOCKED:
        raise OpsError(f"{record.serial} is blocked already; nothing was changed")


def unblock(command: Command, serial: str) -> None:
    registry = open_registry(command)
    record = _require(registry, serial).record
    _check_blocked(record)
    order = command.ask_order([f"{serial} is {record.before} again, as before it was blocked."])

    def change(record: Serial) -> Serial:
        _check_blocked(record)
        return record.unblock(order)

    _change(registry, serial, change, order)


def _check_blocked(record: Serial) -> None:
    if record.status is not SerialStatus.BLOCKED:
        raise OpsError(f"{record.serial} is {record.status}, not blocked; nothing was changed")


def remove(command: Command, serial: str) -> None:
    """The reason is written before the record goes: point-in-time recovery of the table finds
    it."""
    registry = open_registry(command)
    record = _require(registry, serial).record
    _check_removable(command, record)
    lines = [f"{serial} ({record.status}) leaves the registry: nobody can claim it any more."]
    if record.claim:
        lines.append(f"Its thing {record.claim.thing} stays, with its inactive certificates.")
    order = command.ask_order(lines)

    def change(record: Serial) -> Serial:
        _check_removable(command, record)
        return record.note("removed", order)

    stored = _change(registry, serial, change, order)
    try:
        registry.remove(serial, stored.revision)
    except Overtaken as error:
        raise OpsError(f"{serial} was claimed or changed meanwhile: it stays") from error


def _check_removable(command: Command, record: Serial) -> None:
    serial = record.serial
    if record.status is SerialStatus.CLAIMED:
        then = command.stack.command(f"serials release {serial}")
        raise OpsError(f"{serial} is claimed, its thing is {_thing(record)}: first `{then}`")
    if record.status is SerialStatus.BLOCKED:
        then = command.stack.command(f"serials unblock {serial}")
        raise OpsError(f"{serial} is blocked, and so that stays known: first `{then}`")


def _require(registry: SerialTable, serial: str) -> StoredSerial:
    stored = registry.get(serial)
    if stored is None:
        raise _unknown(registry, serial)
    return stored


def _unknown(registry: SerialTable, serial: str) -> OpsError:
    return OpsError(f"{one_line(serial)} is not in the registry {registry.table}")


def _change(
    registry: SerialTable, serial: str, change: Callable[[Serial], Serial], order: Order
) -> StoredSerial:
    """Writes the changed record; what was written. Raises OpsError where others go on changing
    it."""

    def once(record: Serial) -> Serial:
        # the answer to a write may be lost, and boto3 makes it again: then it stands already
        is_written = record.events and record.events[-1].order == order
        return record if is_written else change(record)

    try:
        stored = registry.change(serial, once)
    except Overtaken as error:
        raise OpsError(f"{serial} was changed by others {CHANGES} times: try again") from error
    if stored is None:
        raise _unknown(registry, serial)
    say(f"{serial}: {stored.record.events[-1].what}, by {order.by}: {order.why}")
    return stored
