"""`serials add`: a list of serials into the registry, resumable: what is there as the list wants it
is not written again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloud.bucket import Overtaken
from cloud.clients import AWS_ERRORS, Clients
from cloud.serial_table import KEYS_A_CALL, SerialTable, StillThrottled, StoredSerial
from ops.command import MAX_WRITES, Command
from ops.errors import OpsError, explain
from ops.paced import TOLD_EVERY, BrokenOff, act_on_each
from ops.terminal import say
from ops.text import one_line
from rollout.names import OWN_ATTRIBUTES
from rollout.orders import Order
from rollout.serial import Serial
from rollout.serial_list import SerialLine, read_serial_list

WRITES_A_SECOND = 1_000.0
"""A new table on demand takes 4,000 (DynamoDB developer guide, initial throughput), and the hook
writes too."""
NAMED_OF_EACH_KIND = 5
"""Serials of each kind that are named before they are written."""
SHOWN_MISTAKES_OF_A_LIST = 100


@dataclass(frozen=True, kw_only=True)
class ImportPlan:
    """What a list changes."""

    new: tuple[SerialLine, ...]
    changed: tuple[SerialLine, ...]
    unchanged: int
    there: Mapping[str, StoredSerial]
    """By serial: the records that are changed."""

    @property
    def due(self) -> tuple[SerialLine, ...]:
        return (*self.new, *self.changed)


def import_serials(command: Command, registry: SerialTable, path: Path, *, is_dry: bool) -> None:
    """Says what the list changes, asks, and writes it. Raises OpsError with every mistake of the
    list, before anything is written; and where not all could be."""
    plan = _make_plan(command, registry, path)
    lines = [f"{path.name} into the registry {registry.table}:", *_describe_plan(plan)]
    if is_dry or not plan.due:
        say(command.stack.title, *(f"  {line}" for line in lines))
        say("Nothing was changed.")
        return
    writer = _Writer(registry, plan, command.ask_order(lines))
    try:
        act_on_each(plan.due, writer.write, a_second=WRITES_A_SECOND)
    except BrokenOff as broken:
        raise _explain_break(broken, len(plan.due)) from broken
    say(f"{len(plan.due) - len(writer.left):,} serials were written.")
    if writer.left:
        raise OpsError(_tell("these were left as they are:", writer.left))


def _explain_break(broken: BrokenOff, of: int) -> BaseException:
    """Says how far it came; what to raise."""
    say(f"{broken.done:,} of {of:,} are written; the same command again goes on from there.")
    cause = broken.__cause__
    if isinstance(cause, AWS_ERRORS):
        return OpsError(explain(cause))
    return cause or broken


def _make_plan(command: Command, registry: SerialTable, path: Path) -> ImportPlan:
    stack = command.stack
    keys = _attribute_keys(command.channel.clients, stack.provisioning_template_name or "")
    listed = read_serial_list(_read(path), rings=list(stack.ring_group_names), attributes=keys)
    try:
        plan, conflicts = _compare(listed.lines, registry)
    except StillThrottled as error:
        raise OpsError(f"{error}: try again later; nothing was changed") from error
    if mistakes := [*listed.mistakes, *conflicts]:
        raise OpsError(_tell(f"{path} (nothing was changed):", mistakes))
    return plan


def _compare(lines: Sequence[SerialLine], registry: SerialTable) -> tuple[ImportPlan, list[str]]:
    """What the lines change, and what they may not; of a million serials only those records are
    kept that change."""
    new: list[SerialLine] = []
    changed: list[SerialLine] = []
    conflicts: list[str] = []
    there: dict[str, StoredSerial] = {}
    told_at = time.monotonic()
    for start in range(0, len(lines), KEYS_A_CALL):
        batch = lines[start : start + KEYS_A_CALL]
        found = registry.get_all(line.serial for line in batch)
        for line in batch:
            stored = found.get(line.serial)
            if stored is None:
                new.append(line)
            elif conflict := line.find_conflict(stored.record):
                conflicts.append(conflict)
            elif _differs(line, stored.record):
                changed.append(line)
                there[line.serial] = stored
        if time.monotonic() - told_at > TOLD_EVERY:
            told_at = time.monotonic()
            say(f"  looked at {start + len(batch):,} of {len(lines):,}")
    unchanged = len(lines) - len(new) - len(changed) - len(conflicts)
    plan = ImportPlan(new=tuple(new), changed=tuple(changed), unchanged=unchanged, there=there)
    return plan, conflicts


def _differs(line: SerialLine, record: Serial) -> bool:
    return line.apply(record) != record


def _attribute_keys(clients: Clients, template: str) -> tuple[str, ...]:
    """The keys that a serial may give values of its own: those that the provisioning template gives
    a thing, without what the fleet decides."""
    answer = clients.iot.describe_provisioning_template(templateName=template)
    resources = json.loads(answer["templateBody"])["Resources"].values()
    things = (one for one in resources if one["Type"] == "AWS::IoT::Thing")
    keys = {key for thing in things for key in thing["Properties"].get("AttributePayload", {})}
    return tuple(sorted(keys - set(OWN_ATTRIBUTES)))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets begin with a mark
    except OSError as error:
        raise OpsError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise OpsError(f"{path} is not UTF-8 ({error.reason}): save it as CSV UTF-8") from error


def _tell(heading: str, lines: Iterable[str]) -> str:
    found = list(lines)
    shown = [f"  {one_line(line)}" for line in found[:SHOWN_MISTAKES_OF_A_LIST]]
    if more := len(found) - len(shown):
        shown.append(f"  and {more:,} more")
    return "\n".join([heading, *shown])


def _describe_plan(plan: ImportPlan) -> Iterator[str]:
    """A table of counts, and the first few of each."""
    new = [line.serial for line in plan.new[:NAMED_OF_EACH_KIND]]
    dots = ["..."] * (len(plan.new) > NAMED_OF_EACH_KIND)
    yield f"{len(plan.new):>9,} new        {', '.join([*new, *dots])}".rstrip()
    yield f"{len(plan.changed):>9,} changed"
    for line in plan.changed[:NAMED_OF_EACH_KIND]:
        record = plan.there[line.serial].record
        yield f"{'':>9}   line {line.line}, {line.serial}: {_describe_change(line, record)}"
    if len(plan.changed) > NAMED_OF_EACH_KIND:
        yield f"{'':>9}   ..."
    yield f"{plan.unchanged:>9,} as the list has them"


def _describe_change(line: SerialLine, record: Serial) -> str:
    wanted = line.apply(record)
    was, now = ({"ring": one.ring, **one.attributes} for one in (record, wanted))
    keys = [key for key in sorted({*was, *now}) if was.get(key) != now.get(key)]
    told = [f"{key} {now.get(key) or '-'}, was {was.get(key) or '-'}" for key in keys]
    later = " (its thing keeps what it has until it is claimed again)" if record.claim else ""
    return "; ".join(told) + later


class _Writer:
    """Writes lines; may be called from several threads."""

    def __init__(self, registry: SerialTable, plan: ImportPlan, order: Order) -> None:
        self._registry, self._plan, self._order = registry, plan, order
        self._lock = threading.Lock()
        self.left: list[str] = []
        """Why some were not written."""

    def write(self, line: SerialLine) -> None:
        stored = self._plan.there.get(line.serial)
        for _ in range(MAX_WRITES):
            record = stored.record if stored else None
            if record and not _differs(line, record):
                return
            if conflict := line.find_conflict(record):
                self._leave(conflict)
                return
            wanted = line.apply(record).note("changed" if record else "added", self._order)
            try:
                self._registry.put(wanted, stored.revision if stored else None)
            except Overtaken:
                stored = self._registry.get(line.serial)
                continue
            return
        self._leave(f"line {line.line}: {line.serial} was changed by others {MAX_WRITES} times")

    def _leave(self, why: str) -> None:
        with self._lock:
            self.left.append(why)
