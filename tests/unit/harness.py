"""Builds components, or the whole program, under Pulumi's mocks and keeps every registration.

Update mode answers as AWS does: every output is filled, and a type that is not listed here is
refused. Preview mode knows the inputs and nothing else. Private names of the SDK are used in this
file only.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import runpy
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws
from pulumi.runtime import mocks, rpc, set_all_config, settings

from components.stack_file import ROOT as ROOT
from components.stack_file import read_configuration

STACKS = ("local", "dev", "staging", "prod")
PROJECT = "iot-ota"

with warnings.catch_warnings():
    # loaded when first used, these modules warn of each of their old classes, which nobody here
    # uses
    warnings.simplefilter("ignore", DeprecationWarning)
    LOADED = (aws.lambda_.Function, aws.s3.Bucket)

PUBLIC_KEY = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"


class Unknown:
    """What a preview does not know."""

    def __repr__(self) -> str:
        return "<unknown>"


UNKNOWN = Unknown()


@dataclass(frozen=True)
class Account:
    """The AWS that the mocks pretend to be."""

    partition: str = "aws"
    region: str = "us-east-1"
    number: str = "123456789012"
    dns_suffix: str = "amazonaws.com"

    def arn(self, service: str, resource: str) -> str:
        return f"arn:{self.partition}:{service}:{self.region}:{self.number}:{resource}"

    def iam(self, resource: str) -> str:
        return f"arn:{self.partition}:iam::{self.number}:{resource}"


@dataclass(frozen=True)
class Resource:
    """One registration, as the program asked for it."""

    urn: str
    type: str
    name: str
    parent: str
    custom: bool
    inputs: Mapping[str, Any]
    secret_inputs: frozenset[str]
    protect: bool | None
    retain_on_delete: bool | None
    delete_before_replace: bool
    needs: frozenset[str]
    """URNs of what it depends on, by its options or by its inputs."""
    provider: str
    """Empty for the default provider, which alone follows the stack's `aws:` keys."""

    def document(self, key: str) -> Any:
        """An input that is JSON text, parsed."""
        return json.loads(self.inputs[key])

    def __repr__(self) -> str:
        return f"{self.type} {self.name}"


@dataclass(frozen=True)
class Export:
    """One stack output; `value` holds UNKNOWN wherever a preview knows nothing."""

    value: Any
    secret: bool


@dataclass
class Graph:
    """Everything that one run of a program registered."""

    preview: bool
    resources: list[Resource] = field(default_factory=list)
    exports: dict[str, Export] = field(default_factory=dict)
    lookups: set[str] = field(default_factory=set)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self.resources)

    def __getitem__(self, name: str) -> Resource:
        """The resource of this name, whatever its type."""
        found = [resource for resource in self if resource.name == name]
        assert len(found) == 1, (
            f"{len(found)} resources are named {name}; there are {sorted(r.name for r in self)}"
        )
        return found[0]

    def of(self, type_: str) -> list[Resource]:
        """The resources whose type ends so, such as `s3/bucket:Bucket`, in the order of their
        names."""
        return sorted((r for r in self if r.type.endswith(f":{type_}")), key=lambda r: r.name)

    def children(self, parent: str) -> list[str]:
        """The names below the resource named `parent`, sorted."""
        urn = self[parent].urn
        return sorted(resource.name for resource in self if resource.parent == urn)

    def urns(self) -> list[str]:
        return sorted(resource.urn for resource in self)

    def before(self, name: str) -> set[str]:
        """The names of all that must be there before the resource, and outlives it on destroy."""
        by_urn = {resource.urn: resource for resource in self}
        found: set[str] = set()
        todo = [self[name].urn]
        while todo:
            for urn in by_urn[todo.pop()].needs:
                if urn in by_urn and urn not in found:
                    found.add(urn)
                    todo.append(urn)
        return {by_urn[urn].name for urn in found}


def build(
    program: Callable[[], object],
    *,
    preview: bool = False,
    account: Account | None = None,
    stack: str = "unit",
    folder: Path = ROOT,
) -> Graph:
    """Runs `program`, which makes resources and may return outputs, named, to be kept as exports;
    in `folder`, as Pulumi runs a program in its own."""
    graph = Graph(preview)
    fake = _Aws(graph, account or Account())
    # what the run before left: its root, its configuration and its options
    settings.reset_options()
    mocks.set_mocks(fake, project=PROJECT, stack=stack, preview=preview, monitor=_Monitor(fake))

    async def run() -> None:
        made = program()
        root = settings.get_root_resource()
        outputs: dict[str, Any] = dict(getattr(root, "outputs", {}))
        outputs |= made if isinstance(made, dict) else {}
        for name, value in outputs.items():
            output = pulumi.Output.from_input(value)
            known = _plain(await output.future(with_unknowns=True))
            graph.exports[name] = Export(known, await output.is_secret())

    try:
        with chdir(folder):
            mocks.test(run)()  # type: ignore[no-untyped-call]
    except pulumi.RunError:
        raise
    except Exception as error:
        # the SDK chains errors into rings, which pytest cannot print
        raise AssertionError(f"{type(error).__name__}: {error}") from None
    return graph


def program(
    stack: str,
    *,
    preview: bool = False,
    account: Account | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Graph:
    """Runs the whole program under a real stack file."""
    config = stack_config(stack) | {
        f"{PROJECT}:{key}": _text(value) for key, value in (overrides or {}).items()
    }
    own = account or Account(region=config["aws:region"])

    def main() -> None:
        set_all_config(config)
        runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__")

    return build(main, preview=preview, account=own, stack=stack)


@cache
def whole(stack: str, preview: bool = False) -> Graph:
    """The graph of a real stack, evaluated once for all tests of a process."""
    return program(stack, preview=preview)


def stack_config(stack: str) -> dict[str, str]:
    """The configuration of a stack as Pulumi hands it to the program."""
    return read_configuration(ROOT / f"Pulumi.{stack}.yaml")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _plain(value: Any) -> Any:
    """A resolved value with the SDK's unknowns and secrets replaced; assets stay."""
    if rpc.contains_unknowns(value) and not isinstance(value, dict | list):
        return UNKNOWN
    if rpc.is_rpc_secret(value):
        return _plain(rpc.unwrap_rpc_secret(value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    # on the wire every number is a float
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _shape(value: Any) -> Any:
    """Assets as what can be compared: a file's path below the repository, an archive's files by
    name."""
    if isinstance(value, pulumi.FileAsset):
        return Path(value.path).relative_to(ROOT).as_posix()
    return (
        {name: _shape(asset) for name, asset in value.assets.items()}
        if isinstance(value, pulumi.AssetArchive)
        else value
    )


class _Monitor(mocks.MockMonitor):
    """Keeps what a registration says beside its inputs."""

    mocks: _Aws

    def RegisterResource(self, request: Any) -> Any:
        with _own_loop():
            response = super().RegisterResource(request)  # type: ignore[no-untyped-call]
            if request.type != "pulumi:pulumi:Stack":
                self.mocks.keep(request, response.urn)
        return response

    def Invoke(self, request: Any) -> Any:
        with _own_loop():
            return super().Invoke(request)  # type: ignore[no-untyped-call]


@contextmanager
def _own_loop() -> Iterator[None]:
    """The SDK's mocks make an event loop in each worker thread and leave it open."""
    if threading.current_thread() is threading.main_thread():
        yield
        return
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        yield
    finally:
        asyncio.set_event_loop(None)
        loop.close()


class _Aws(mocks.Mocks):
    def __init__(self, graph: Graph, account: Account) -> None:
        self._graph, self._account = graph, account
        self._lock = threading.Lock()  # registrations come from several threads

    def keep(self, request: Any, urn: str) -> None:
        asked = rpc.deserialize_properties(request.object, keep_unknowns=True)
        needs = {
            *request.dependencies,
            *(urn for by in request.propertyDependencies.values() for urn in by.urns),
        }
        kept = Resource(
            urn=urn,
            type=request.type,
            name=request.name,
            parent=request.parent,
            custom=request.custom,
            inputs={key: _shape(value) for key, value in _plain(asked).items()},
            secret_inputs=frozenset(
                key for key, value in asked.items() if rpc.is_rpc_secret(value)
            ),
            protect=request.protect if request.HasField("protect") else None,
            delete_before_replace=request.deleteBeforeReplace,
            retain_on_delete=request.retainOnDelete if request.HasField("retainOnDelete") else None,
            needs=frozenset(needs),
            provider=request.provider,
        )
        with self._lock:
            self._graph.resources.append(kept)

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        if not args.custom:
            assert args.typ.startswith("iotota:index:"), (
                f"{args.typ} is not a component of this project"
            )
            return "", args.inputs
        assert args.typ in ANSWERS, (
            f"{args.typ} has no answer in the harness: add what AWS returns for it"
        )
        if self._graph.preview:
            return "", args.inputs
        outputs = ANSWERS[args.typ](self._account, _plain(args.inputs), args.name)
        return outputs.get("id", args.name), args.inputs | outputs

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        self._graph.lookups.add(args.token)
        account = self._account
        answers = {
            "aws:index/getCallerIdentity:getCallerIdentity": {"accountId": account.number},
            "aws:index/getPartition:getPartition": {
                "partition": account.partition,
                "dnsSuffix": account.dns_suffix,
            },
            "aws:index/getRegion:getRegion": {"region": account.region},
            "aws:iot/getEndpoint:getEndpoint": {
                "endpointAddress": f"a1-ats.iot.{account.region}.{account.dns_suffix}"
            },
            "aws:kms/getPublicKey:getPublicKey": {"publicKeyPem": PUBLIC_KEY},
        }
        assert args.token in answers, f"{args.token} has no answer in the harness"
        return answers[args.token], []


Answer = Callable[[Account, dict[str, Any], str], dict[str, Any]]


def _arn(service: str, resource: str) -> Answer:
    """An ARN in which `{…}` stands for an input."""
    return lambda account, inputs, _: {"arn": account.arn(service, resource.format(**inputs))}


def _same(*_: Any) -> dict[str, Any]:
    """A resource that answers nothing new."""
    return {}


def _suffix(_: Account, inputs: dict[str, Any], name: str) -> dict[str, Any]:
    return {"hex": hashlib.sha256(name.encode()).hexdigest()[: 2 * inputs["byteLength"]]}


def _bucket(account: Account, inputs: dict[str, Any], _: str) -> dict[str, Any]:
    return {"id": inputs["bucket"], "arn": f"arn:{account.partition}:s3:::{inputs['bucket']}"}


def _certificate(account: Account, inputs: dict[str, Any], name: str) -> dict[str, Any]:
    """The provider marks all three secret, the public ones too."""
    number = hashlib.sha256(name.encode()).hexdigest()
    kinds = {"certificatePem": "certificate"} | (
        {} if inputs.get("csr") else {"privateKey": "private key", "publicKey": "public key"}
    )
    made = {key: rpc.wrap_rpc_secret(f"{kind} of {name}") for key, kind in kinds.items()}
    return {"id": number, "arn": account.arn("iot", f"cert/{number}"), **made}


def _role(account: Account, inputs: dict[str, Any], _: str) -> dict[str, Any]:
    return {"id": inputs["name"], "arn": account.iam(f"role/{inputs['name']}")}


def _key(account: Account, _: dict[str, Any], name: str) -> dict[str, Any]:
    number = hashlib.sha256(name.encode()).hexdigest()[:12]
    return {"id": number, "keyId": number, "arn": account.arn("kms", f"key/{number}")}


def _queue(account: Account, inputs: dict[str, Any], _: str) -> dict[str, Any]:
    url = f"https://sqs.{account.region}.{account.dns_suffix}/{account.number}/{inputs['name']}"
    return {"id": url, "url": url, "arn": account.arn("sqs", inputs["name"])}


ANSWERS: Mapping[str, Answer] = {
    "random:index/randomId:RandomId": _suffix,
    "aws:iot/thingType:ThingType": _arn("iot", "thingtype/{name}"),
    "aws:iot/thingGroup:ThingGroup": _arn("iot", "thinggroup/{name}"),
    "aws:iot/thing:Thing": _arn("iot", "thing/{name}"),
    "aws:iot/certificate:Certificate": _certificate,
    "aws:iot/policy:Policy": _arn("iot", "policy/{name}"),
    "aws:iot/policyAttachment:PolicyAttachment": _same,
    "aws:iot/thingPrincipalAttachment:ThingPrincipalAttachment": _same,
    "aws:iot/thingGroupMembership:ThingGroupMembership": _same,
    "aws:iot/indexingConfiguration:IndexingConfiguration": _same,
    "aws:iot/eventConfigurations:EventConfigurations": _same,
    "aws:iot/provisioningTemplate:ProvisioningTemplate": _arn("iot", "provisioningtemplate/{name}"),
    "aws:iot/topicRule:TopicRule": _arn("iot", "rule/{name}"),
    "aws:s3/bucket:Bucket": _bucket,
    "aws:s3/bucketVersioning:BucketVersioning": _same,
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": _same,
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": _same,
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": _same,
    "aws:s3/bucketPolicy:BucketPolicy": _same,
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": _same,
    "aws:s3/bucketObjectv2:BucketObjectv2": _same,
    "aws:s3/objectCopy:ObjectCopy": _same,
    "aws:s3/bucketNotification:BucketNotification": _same,
    "aws:dynamodb/table:Table": _arn("dynamodb", "table/{name}"),
    "aws:iam/role:Role": _role,
    "aws:iam/rolePolicy:RolePolicy": _same,
    "aws:kms/key:Key": _key,
    "aws:kms/alias:Alias": _arn("kms", "{name}"),
    "aws:lambda/function:Function": _arn("lambda", "function:{name}"),
    "aws:lambda/permission:Permission": _same,
    "aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig": _same,
    "aws:lambda/invocation:Invocation": lambda *_: {"result": "{}"},
    "aws:sqs/queue:Queue": _queue,
    "aws:sqs/queuePolicy:QueuePolicy": _same,
    "aws:cloudwatch/logGroup:LogGroup": _arn("logs", "log-group:{name}"),
    "aws:cloudwatch/eventRule:EventRule": _arn("events", "rule/{name}"),
    "aws:cloudwatch/eventTarget:EventTarget": _same,
    "aws:cloudwatch/metricAlarm:MetricAlarm": _arn("cloudwatch", "alarm:{name}"),
    "aws:cloudwatch/dashboard:Dashboard": lambda account, inputs, _: {
        "dashboardArn": (
            f"arn:{account.partition}:cloudwatch::{account.number}:dashboard/{inputs['dashboardName']}"
        )
    },
    "aws:sns/topic:Topic": _arn("sns", "{name}"),
    "aws:sns/topicPolicy:TopicPolicy": _same,
    "aws:sns/topicSubscription:TopicSubscription": lambda account, inputs, _: {
        "arn": f"{inputs['topic']}:subscription"
    },
}
"""What AWS returns beyond the inputs, by type."""
