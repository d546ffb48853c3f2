"""Deploys the Pulumi program into the local AWS, in this process.

The program runs under Pulumi's mocks, with mocks that make each resource for real through boto3 and
return its true outputs. What was made is recorded, so that the next deployment makes only what
changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import runpy
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import pulumi.runtime
import yaml
from botocore.exceptions import ClientError
from pulumi.runtime import rpc
from pulumi.runtime.mocks import MockCallArgs, MockMonitor, MockResourceArgs, Mocks

from sandbox import ministack
from sandbox.handlers import HANDLERS, LOOKUPS, Aws, Resource
from sandbox.handlers.registry import Inputs, Made
from sandbox.handlers.storage import asset_bytes
from sandbox.place import ROOT, Place, SandboxError

STACK = "local"
RESOURCES, OUTPUTS, DEVICES = "resources.json", "outputs.json", "devices"
MARKER = "/iot-ota-sandbox/instance"
"""Name of the SSM parameter that tells a local AWS which holds this deployment from one that was
emptied."""
EXISTS = re.compile(r"AlreadyExist|AlreadyOwned|ResourceConflict")
MISSING = re.compile(r"NotFound|NoSuch|NonExist|DoesNotExist")

Say = Callable[[str], None]


class Rebuild(Exception):
    """The deployment cannot go on from what is there; its text says why."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What one deployment did, and the stack's outputs."""

    outputs: dict[str, Any]
    created: int
    updated: int
    unchanged: int
    seconds: float
    rebuilt: str | None = None
    """Why it began from empty although something had been deployed before."""


def deploy(
    place: Place, *, root: Path = ROOT, overrides: Mapping[str, Any] | None = None, say: Say = print
) -> Deployment:
    """Makes the sandbox what the program and `Pulumi.local.yaml` say; starts MiniStack where it
    does not run.

    `overrides` replaces whole configuration keys (`iot-ota:firmware`). What vanished, must be
    replaced or is no longer in the program is not repaired: the deployment then begins from empty,
    which `say` is told. Raises SandboxError, naming the resource, when one cannot be made; the next
    call goes on from there.
    """
    began = time.monotonic()
    project, config = configuration(root, overrides or {})
    aws = Aws(port=ministack.start(place).port, region=config.get("aws:region", "us-east-1"))
    record, why = _record(place, aws)
    if why is None:
        try:
            return _attempt(record, aws, root, project, config, began)
        except Rebuild as rebuild:
            why = str(rebuild)
    say(f"{why}: the sandbox is rebuilt from empty")
    record = _empty(place, aws)
    try:
        return _attempt(record, aws, root, project, config, began, why)
    except Rebuild as again:
        raise SandboxError(f"the stack cannot be built from empty: {again}") from again


def outputs(place: Place) -> dict[str, Any]:
    """The stack outputs of the last deployment; raises SandboxError when there is none."""
    found = place.read(OUTPUTS)
    if not isinstance(found, dict):
        raise SandboxError(f"nothing is deployed in {place.folder}: run `make up` first")
    return found


def configuration(root: Path, overrides: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """The project's name, and the `local` stack's configuration as Pulumi would hand it to the
    program."""
    project = _yaml(root / "Pulumi.yaml")
    name = str(project["name"])
    values = {
        key: value["default"]
        for key, value in (project.get("config") or {}).items()
        if _has_default(value)
    }
    values |= _yaml(root / f"Pulumi.{STACK}.yaml").get("config") or {}
    values |= overrides
    return name, {
        key if ":" in key else f"{name}:{key}": _setting(key, value)
        for key, value in values.items()
    }


def _has_default(value: Any) -> bool:
    return isinstance(value, dict) and "default" in value


def _yaml(path: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise SandboxError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SandboxError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def _setting(key: str, value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"secure"}:
        raise SandboxError(
            f"{key} is encrypted: the sandbox has no key for it, and needs no secret"
        )
    return value if isinstance(value, str) else json.dumps(value, default=str)


class Record:
    """What was made, by URN: type, id, inputs and outputs. Written after every resource."""

    def __init__(self, place: Place, instance: str) -> None:
        self.place, self.instance = place, instance
        self.resources: dict[str, dict[str, Any]] = {}
        self._lines: dict[str, str] = {}
        self._lock = threading.Lock()

    @classmethod
    def load(cls, place: Place) -> Record:
        data = place.read(RESOURCES) or {"instance": "", "resources": {}}
        record = cls(place, data["instance"])
        for urn, entry in data["resources"].items():
            record._set(urn, entry)
        return record

    def put(self, urn: str, entry: dict[str, Any]) -> None:
        with self._lock:
            self._set(urn, entry)
            self.save()

    def _set(self, urn: str, entry: dict[str, Any]) -> None:
        self.resources[urn] = entry
        self._lines[urn] = f"{json.dumps(urn)}: {json.dumps(entry, sort_keys=True)}"

    def save(self) -> None:
        body = ",\n".join(self._lines.values())
        self.place.write(
            RESOURCES, f'{{"instance": {json.dumps(self.instance)}, "resources": {{\n{body}\n}}}}\n'
        )


def _record(place: Place, aws: Aws) -> tuple[Record, str | None]:
    """The record to go on from, or why it is of no use."""
    record, instance, marker = Record.load(place), _instance(place), _marker(aws)
    if instance == marker == record.instance:
        return record, None
    if marker is not None:
        return record, "what was deployed is not on record"
    if record.resources:
        return record, "the local AWS was stopped or emptied"
    return _begin(place, aws), None


def _empty(place: Place, aws: Aws) -> Record:
    if _marker(aws) is not None:
        ministack.stop(place)
        ministack.start(place)
    return _begin(place, aws)


def _begin(place: Place, aws: Aws) -> Record:
    """A record of nothing. The devices go too: their certificates and what they remember belonged
    to the old stack."""
    shutil.rmtree(place.folder / DEVICES, ignore_errors=True)
    (place.folder / OUTPUTS).unlink(missing_ok=True)
    record = Record(place, _instance(place))
    record.save()
    aws.client("ssm").put_parameter(
        Name=MARKER, Value=record.instance, Type="String", Overwrite=True
    )
    return record


def _instance(place: Place) -> str:
    current = ministack.running(place)
    return current.token if current else ""


def _marker(aws: Aws) -> str | None:
    try:
        return str(aws.client("ssm").get_parameter(Name=MARKER)["Parameter"]["Value"])
    except ClientError as error:
        if "ParameterNotFound" in str(error):
            return None
        raise


def _attempt(
    record: Record,
    aws: Aws,
    root: Path,
    project: str,
    config: Mapping[str, str],
    began: float,
    why: str | None = None,
) -> Deployment:
    maker = Maker(record, aws)
    exported = _run(maker, root, project, config)
    gone = sorted(set(record.resources) - maker.seen)
    if gone:
        raise Rebuild(
            f"{_short(gone[0])} is no longer in the program"
            + (f" (and {len(gone) - 1} more)" if gone[1:] else "")
        )
    record.place.write(OUTPUTS, json.dumps(exported, indent=1, sort_keys=True) + "\n")
    return Deployment(
        outputs=exported,
        created=maker.created,
        updated=maker.updated,
        rebuilt=why,
        unchanged=len(record.resources) - maker.created - maker.updated,
        seconds=time.monotonic() - began,
    )


def _run(maker: Maker, root: Path, project: str, config: Mapping[str, str]) -> dict[str, Any]:
    """Runs the program; its exports. What a handler raised comes out of here as it was raised.

    In a thread of its own: Pulumi's settings and asyncio's event loop belong to a thread, and the
    caller keeps its own.
    """
    with ThreadPoolExecutor(1) as thread, _in_folder(root):
        running = thread.submit(_program, maker, root / "__main__.py", project, dict(config))
        error = running.exception()
    if maker.failure is not None:
        raise maker.failure
    if isinstance(error, pulumi.RunError):
        raise SandboxError(str(error)) from error
    if error is not None:
        raise error
    return running.result()


def _program(maker: Maker, file: Path, project: str, config: dict[str, str]) -> dict[str, Any]:
    loop = asyncio.new_event_loop()
    # one failure makes every output that waits for it fail, and asyncio would print them all; _run
    # reports the first
    loop.set_exception_handler(lambda _loop, _context: None)
    asyncio.set_event_loop(loop)
    exported: dict[str, Any] = {}

    def program() -> Any:
        runpy.run_path(str(file), run_name="__main__")
        stack = pulumi.runtime.get_root_resource()
        return pulumi.Output.all(**getattr(stack, "outputs", {})).apply(exported.update)

    try:
        pulumi.runtime.reset_options()
        pulumi.runtime.set_mocks(
            maker, project=project, stack=STACK, preview=False, monitor=Monitor(maker)
        )
        pulumi.runtime.set_all_config(config)
        complete: Any = pulumi.runtime.test
        complete(program)()
    finally:
        loop.close()
    return dict(_plain(exported))


@contextlib.contextmanager
def _in_folder(root: Path) -> Iterator[None]:
    """As the Pulumi CLI runs a program: in its folder, which it can import from."""
    sys.path.insert(0, str(root))
    try:
        with contextlib.chdir(root):
            yield
    finally:
        sys.path.remove(str(root))


class Monitor(MockMonitor):
    """Tells the mocks the URN of the resource that they are asked to make, which their own
    arguments leave out."""

    def __init__(self, maker: Maker) -> None:
        super().__init__(maker)
        self.maker = maker

    def RegisterResource(self, request: Any) -> Any:
        self.maker.now.urn = self.make_urn(request.parent, request.type, request.name)
        self.maker.now.ignored = frozenset(request.ignoreChanges)
        answer: Any = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        return answer


class Maker(Mocks):
    """Makes, updates or leaves alone each resource that the program registers. Called from several
    threads."""

    def __init__(self, record: Record, aws: Aws) -> None:
        self.record, self.aws = record, aws
        self.now = threading.local()
        self.seen: set[str] = set()
        self.fresh = not record.resources
        self.created = self.updated = 0
        self.failure: Exception | None = None
        self._lock = threading.Lock()

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        if args.custom is False:
            return "", args.inputs
        return self._guarded(f"{args.typ} {args.name!r}", lambda: self._resource(args))  # type: ignore[no-any-return]

    def call(self, args: MockCallArgs) -> Any:
        return self._guarded(args.token, lambda: self._look_up(args))

    def _guarded(self, what: str, work: Callable[[], Any]) -> Any:
        """Runs `work` unless something failed before; the first failure is kept, named and ends the
        deployment."""
        if self.failure is not None:
            raise self.failure
        try:
            return work()
        except Exception as error:
            failure = (
                error if isinstance(error, Rebuild) else SandboxError(f"{what}: {_one_line(error)}")
            )
            self._keep(failure)
            raise failure from error

    def _keep(self, failure: Exception) -> None:
        with self._lock:
            if self.failure is None:
                self.failure = failure

    def _look_up(self, args: MockCallArgs) -> dict[str, Any]:
        if args.token not in LOOKUPS:
            raise SandboxError("the sandbox has no handler for this function")
        return LOOKUPS[args.token](_plain(args.args), self.aws)

    def _resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        handler = HANDLERS.get(args.typ)
        if handler is None:
            raise SandboxError("the sandbox has no handler for this type")
        if args.resource_id:
            raise SandboxError(
                "the sandbox makes everything itself: there is nothing to read or import"
            )
        urn, inputs = self.now.urn, _plain(args.inputs)
        with self._lock:
            if urn in self.seen:
                raise SandboxError("is declared twice")
            self.seen.add(urn)
        printed, old = _printed(inputs), self.record.resources.get(urn)
        changed = _changed(old["inputs"], printed) - self.now.ignored if old else frozenset()
        if old and not changed:
            return old["id"], {**inputs, **old["outputs"]}
        if replaced := handler.replaces(changed):
            raise Rebuild(f"{args.name} must be replaced ({', '.join(sorted(replaced))} changed)")
        resource = Resource(
            name=args.name,
            inputs=Inputs(inputs),
            aws=self.aws,
            old=old["outputs"] if old else None,
            changed=changed,
        )
        id_, made = self._made(handler.make, resource)
        if unknown := resource.inputs.unread & changed if old else resource.inputs.unread:
            raise SandboxError(f"the sandbox does not know the input {', '.join(sorted(unknown))}")
        self.record.put(urn, {"type": args.typ, "id": id_, "inputs": printed, "outputs": made})
        with self._lock:
            self.created += not old
            self.updated += bool(old)
        return id_, {**inputs, **made}

    def _made(self, make: Callable[[Resource], Made], resource: Resource) -> Made:
        """Calls the handler; that AWS has what is not on record, or lost what is, means that both
        must begin anew."""
        try:
            return make(resource)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if MISSING.search(code) and not self.fresh:
                raise Rebuild(f"{resource.name} or what it needs has vanished ({code})") from error
            if EXISTS.search(code) and not self.fresh:
                raise Rebuild(f"{resource.name} exists and is not on record ({code})") from error
            raise


def _plain(value: Any) -> Any:
    """`value` without the SDK's secret markers, and with whole numbers as int: they travel as
    floats."""
    if rpc.is_rpc_secret(value):
        return _plain(rpc.unwrap_rpc_secret(value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _printed(value: Any) -> Any:
    """`value` as JSON can hold it: files by their digest."""
    if isinstance(value, dict):
        return {key: _printed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printed(item) for item in value]
    if isinstance(value, pulumi.AssetArchive):
        return {path: _printed(asset) for path, asset in sorted(value.assets.items())}
    if isinstance(value, pulumi.Asset | pulumi.Archive):
        return f"sha256:{hashlib.sha256(asset_bytes(value)).hexdigest()}"
    return value


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(key for key in {*old, *new} if old.get(key) != new.get(key))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _short(urn: str) -> str:
    return urn.rpartition("::")[2]
