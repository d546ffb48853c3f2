"""Deploys the Pulumi program into the local AWS, in this process.

This and `handlers/` are a hand-written stand-in for the Pulumi engine and pulumi-aws. They prove
the program, not the provider, and are kept only because `make up` needs nothing but Python and
make. So they know what this program uses, and whatever else it may declare is an error.

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
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import pulumi.runtime
from botocore.exceptions import ClientError
from pulumi.runtime import rpc
from pulumi.runtime.mocks import MockCallArgs, MockMonitor, MockResourceArgs, Mocks

from components.stack_file import ROOT, read_configuration, read_project_name
from ops.local_aws import OUTPUTS_FILE
from sandbox import ministack
from sandbox.handlers import FUNCTIONS, HANDLERS
from sandbox.handlers.registry import Aws, IdAndOutputs, Inputs, Resource
from sandbox.handlers.storage import asset_bytes
from sandbox.instance import Instance, SandboxError

STACK = "local"
STACK_FILE = f"Pulumi.{STACK}.yaml"
RESOURCES, DEVICES = "resources.json", "devices"
TOKEN = "/iot-ota-sandbox/token"
"""Name of the SSM parameter with the token of the MiniStack that was deployed into: one that was
emptied lacks it."""
EXISTS_CODE = re.compile(r"AlreadyExist|AlreadyOwned|ResourceConflict")
MISSING_CODE = re.compile(r"NotFound|NoSuch|NonExist|DoesNotExist")

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
    instance: Instance,
    *,
    root: Path = ROOT,
    overrides: Mapping[str, Any] | None = None,
    say: Say = print,
) -> Deployment:
    """Makes the sandbox what the program and `Pulumi.local.yaml` say; starts MiniStack where it
    does not run.

    `overrides` replaces whole configuration keys (`iot-ota:firmware`). What vanished, must be
    replaced or is no longer in the program is not repaired: the deployment then begins from empty,
    which `say` is told. Raises SandboxError, naming the resource, when one cannot be made; the next
    call goes on from there. Raises StackFileError.
    """
    began = time.monotonic()
    config = read_configuration(root / STACK_FILE, root) | {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in (overrides or {}).items()
    }
    process = ministack.start(instance)
    aws = Aws(port=process.port, region=config.get("aws:region", "us-east-1"))

    def attempt(record: Record, rebuilt: str | None) -> Deployment:
        maker = Maker(record, aws)
        outputs = _run(maker, root, config)
        if gone := sorted(set(record.resources) - maker.seen):
            others = f" (and {len(gone) - 1} more)" if gone[1:] else ""
            raise Rebuild(f"{gone[0].rpartition('::')[2]} is no longer in the program{others}")
        instance.write(OUTPUTS_FILE, json.dumps(outputs, indent=1, sort_keys=True) + "\n")
        return Deployment(
            outputs=outputs,
            created=maker.created,
            updated=maker.updated,
            rebuilt=rebuilt,
            unchanged=len(record.resources) - maker.created - maker.updated,
            seconds=time.monotonic() - began,
        )

    record, token = Record.load(instance), read_token(aws)
    why = explain_loss(token, record.token or None, process.token)
    if token is None and why is None:
        record = _begin(instance, aws, process.token)
    if why is None:
        try:
            return attempt(record, None)
        except Rebuild as rebuild:
            why = str(rebuild)
    process = empty(instance, aws, why, say)
    try:
        return attempt(_begin(instance, aws, process.token), why)
    except Rebuild as again:
        raise SandboxError(f"the stack cannot be built from empty: {again}") from again


def explain_loss(found: str | None, recorded: str | None, running: str) -> str | None:
    """Why what is on record is not what the local AWS holds; None where it is, and where there is
    nothing. By their tokens: of what was deployed into, of what is on record, of what runs."""
    if found is None:
        return "the local AWS was stopped or emptied" if recorded else None
    return None if found == recorded == running else "what was deployed is not on record"


def empty(instance: Instance, aws: Aws, why: str, say: Say) -> ministack.MiniStackProcess:
    """A MiniStack with nothing in it, because `why`."""
    say(f"{why}: the sandbox is rebuilt from empty")
    if read_token(aws) is not None:
        ministack.stop(instance)
    return ministack.start(instance)


def read_outputs(instance: Instance) -> dict[str, Any]:
    """The stack outputs of the last deployment; raises SandboxError when there is none."""
    outputs = instance.read(OUTPUTS_FILE)
    if not isinstance(outputs, dict):
        raise SandboxError(f"nothing is deployed in {instance.folder}: run `make up` first")
    return outputs


class Record:
    """What was made, by URN: type, id, inputs and outputs. Written after every resource."""

    def __init__(self, instance: Instance, token: str) -> None:
        self.instance, self.token = instance, token
        self.resources: dict[str, dict[str, Any]] = {}
        self._lines: dict[str, str] = {}
        self._lock = threading.Lock()

    @classmethod
    def load(cls, instance: Instance) -> Record:
        data = instance.read(RESOURCES) or {"token": "", "resources": {}}
        record = cls(instance, data["token"])
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
        lines, token = ",\n".join(self._lines.values()), json.dumps(self.token)
        self.instance.write(RESOURCES, f'{{"token": {token}, "resources": {{\n{lines}\n}}}}\n')


def _begin(instance: Instance, aws: Aws, token: str) -> Record:
    """A record of nothing."""
    record = Record(instance, token)
    record.save()
    mark_as_begun(instance, aws, token)
    return record


def mark_as_begun(instance: Instance, aws: Aws, token: str) -> None:
    """From now on the local AWS is known as deployed into. The devices of before go: their
    certificates and what they remember belonged to the old stack."""
    shutil.rmtree(instance.folder / DEVICES, ignore_errors=True)
    (instance.folder / OUTPUTS_FILE).unlink(missing_ok=True)
    aws.client("ssm").put_parameter(Name=TOKEN, Value=token, Type="String", Overwrite=True)


def read_token(aws: Aws) -> str | None:
    """The token of the MiniStack that was deployed into; None where nothing was."""
    try:
        return str(aws.client("ssm").get_parameter(Name=TOKEN)["Parameter"]["Value"])
    except ClientError as error:
        if "ParameterNotFound" in str(error):
            return None
        raise


def _run(maker: Maker, root: Path, config: dict[str, str]) -> dict[str, Any]:
    """Runs the program as the Pulumi CLI does, in its folder, which it can import from; its
    exports. What a handler raised comes out of here as it was raised.

    In a thread of its own: Pulumi's settings and asyncio's event loop belong to a thread, and the
    caller keeps its own.
    """
    sys.path.insert(0, str(root))
    try:
        with ThreadPoolExecutor(1) as thread, contextlib.chdir(root):
            running = thread.submit(_run_here, maker, root, config)
            error = running.exception()
    finally:
        sys.path.remove(str(root))
    if maker.failure is not None:
        raise maker.failure
    if isinstance(error, pulumi.RunError):
        raise SandboxError(str(error)) from error
    return running.result()


def _run_here(maker: Maker, root: Path, config: dict[str, str]) -> dict[str, Any]:
    loop = asyncio.new_event_loop()
    # one failure makes every output that waits for it fail, and asyncio would print them all; _run
    # reports the first
    loop.set_exception_handler(lambda _loop, _context: None)
    asyncio.set_event_loop(loop)
    exports: dict[str, Any] = {}

    def program() -> Any:
        runpy.run_path(str(root / "__main__.py"), run_name="__main__")
        stack = pulumi.runtime.get_root_resource()
        return pulumi.Output.all(**getattr(stack, "outputs", {})).apply(exports.update)

    try:
        pulumi.runtime.reset_options()
        project, monitor = read_project_name(root), Monitor(maker)
        pulumi.runtime.set_mocks(
            maker, project=project, stack=STACK, preview=False, monitor=monitor
        )
        pulumi.runtime.set_all_config(config)
        complete: Any = pulumi.runtime.test
        complete(program)()
    finally:
        loop.close()
    return dict(_plain(exports))


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
        self.is_fresh = not record.resources
        self.created = self.updated = 0
        self.failure: Exception | None = None
        self._lock = threading.Lock()

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        if args.custom is False:
            return "", args.inputs
        return self._guarded(f"{args.typ} {args.name!r}", lambda: self._resource(args))  # type: ignore[no-any-return]

    def call(self, args: MockCallArgs) -> Any:
        def call() -> dict[str, Any]:
            if args.token not in FUNCTIONS:
                raise SandboxError("the sandbox has no handler for this function")
            return FUNCTIONS[args.token](_plain(args.args), self.aws)

        return self._guarded(args.token, call)

    def _guarded(self, what: str, work: Callable[[], Any]) -> Any:
        """Runs `work` unless something failed before; the first failure is kept, named and ends the
        deployment."""
        if self.failure is not None:
            raise self.failure
        try:
            return work()
        except Exception as error:
            why = " ".join(str(error).split()) or type(error).__name__
            failure = error if isinstance(error, Rebuild) else SandboxError(f"{what}: {why}")
            with self._lock:
                if self.failure is None:
                    self.failure = failure
            raise failure from error

    def _resource(self, args: MockResourceArgs) -> IdAndOutputs:
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
        recorded, old = _recorded(inputs), self.record.resources.get(urn)
        changed = frozenset[str]()
        if old:
            keys = {*old["inputs"], *recorded} - self.now.ignored
            changed = frozenset(k for k in keys if old["inputs"].get(k) != recorded.get(k))
            if not changed:
                return old["id"], {**inputs, **old["outputs"]}
        if replacing := handler.find_replacing(changed):
            raise Rebuild(f"{args.name} must be replaced ({', '.join(sorted(replacing))} changed)")
        resource = Resource(
            name=args.name,
            inputs=Inputs(inputs),
            aws=self.aws,
            old=old["outputs"] if old else None,
            changed=changed,
        )
        id_, outputs = self._make(handler.make, resource)
        if unknown := resource.inputs.unread & changed if old else resource.inputs.unread:
            raise SandboxError(f"the sandbox does not know the input {', '.join(sorted(unknown))}")
        entry = {"type": args.typ, "id": id_, "inputs": recorded, "outputs": outputs}
        self.record.put(urn, entry)
        with self._lock:
            self.created += not old
            self.updated += bool(old)
        return id_, {**inputs, **outputs}

    def _make(self, make: Callable[[Resource], IdAndOutputs], resource: Resource) -> IdAndOutputs:
        """Calls the handler; that AWS has what is not on record, or lost what is, means that both
        must begin anew."""
        try:
            return make(resource)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if MISSING_CODE.search(code) and not self.is_fresh:
                raise Rebuild(f"{resource.name} or what it needs has vanished ({code})") from error
            if EXISTS_CODE.search(code) and not self.is_fresh:
                raise Rebuild(f"{resource.name} exists and is not on record ({code})") from error
            raise
        except KeyError as error:
            raise SandboxError(f"{error} is in neither the inputs nor AWS's answer") from error


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


def _recorded(value: Any) -> Any:
    """`value` as JSON can hold it: files by their digest."""
    if isinstance(value, dict):
        return {key: _recorded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_recorded(item) for item in value]
    if isinstance(value, pulumi.AssetArchive):
        return {path: _recorded(asset) for path, asset in sorted(value.assets.items())}
    if isinstance(value, pulumi.Asset | pulumi.Archive):
        return f"sha256:{hashlib.sha256(asset_bytes(value)).hexdigest()}"
    return value
