"""Lambda functions, and who may call them."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pulumi

from sandbox.handlers.registry import IdAndOutputs, Resource, makes, makes_and_updates, pascal
from sandbox.handlers.storage import asset_bytes

UNIX_FILE = 0o644 << 16


@makes_and_updates("aws:lambda/function:Function", "name", "architectures", "tags")
def function(r: Resource) -> IdAndOutputs:
    lambda_, name, code = r.aws.client("lambda"), r.inputs["name"], archive(r.inputs["code"])
    fixed = pascal(r.inputs.pick("architectures")) | {"Tags": r.inputs.get("tags") or {}}
    environment = {"Variables": r.inputs.get("environment", {}).get("variables", {})}
    settings = {"FunctionName": name, "Environment": environment, **pascal(r.inputs.pick_rest())}
    if not r.old:
        lambda_.create_function(Code={"ZipFile": code}, **fixed, **settings)
        return name, {"arn": r.aws.arn("lambda", f"function:{name}")}
    lambda_.update_function_configuration(**settings)
    if "code" in r.changed:
        lambda_.update_function_code(FunctionName=name, ZipFile=code)
    return name, r.old


@makes("aws:lambda/permission:Permission")
def permission(r: Resource) -> IdAndOutputs:
    name, statement = r.inputs["function"], r.inputs["statementId"]
    allowed = pascal(r.inputs.pick_rest())
    r.aws.client("lambda").add_permission(FunctionName=name, StatementId=statement, **allowed)
    return statement, {}


@makes_and_updates("aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig", "functionName")
def event_invoke_config(r: Resource) -> IdAndOutputs:
    name, settings = r.inputs["functionName"], pascal(r.inputs.pick_rest())
    r.aws.client("lambda").put_function_event_invoke_config(FunctionName=name, **settings)
    return name, {}


@makes_and_updates("aws:lambda/invocation:Invocation", "functionName")
def invocation(r: Resource) -> IdAndOutputs:
    """Calls the function as the provider does with lifecycle scope CRUD: the action stands in the
    event."""
    name, event = r.inputs["functionName"], json.loads(r.inputs["input"])
    if r.inputs["lifecycleScope"] == "CRUD":
        event["tf"] = {"action": "update" if r.old else "create"}
    answer = r.aws.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event))
    result = answer["Payload"].read().decode()
    if "FunctionError" in answer:
        raise RuntimeError(f"{name} failed: {result}")
    return f"{name}_{r.name}", {}


def archive(code: Any) -> bytes:
    """The zip of an AssetArchive: files in order, one time stamp, so that the same files give the
    same bytes."""
    if not isinstance(code, pulumi.AssetArchive):
        raise ValueError(
            f"{type(code).__name__} is not supported in the sandbox: use an AssetArchive of files"
        )
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as package:
        for path, asset in sorted(code.assets.items()):
            entry = zipfile.ZipInfo(path)  # its time is 1980, whatever the file's
            entry.external_attr = UNIX_FILE
            package.writestr(entry, asset_bytes(asset), zipfile.ZIP_DEFLATED)
    return data.getvalue()
