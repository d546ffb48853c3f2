"""Lambda functions, and who may call them."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pulumi

from sandbox.handlers.registry import Made, Resource, handles, makes, pascal
from sandbox.handlers.storage import asset_bytes

UNIX_FILE = 0o644 << 16


@handles(
    "aws:lambda/function:Function",
    "name",
    "packageType",
    "architectures",
    "tags",
    "reservedConcurrentExecutions",
)
def function(r: Resource) -> Made:
    lambda_, name = r.aws.client("lambda"), r.called()
    r.inputs.ignore("sourceCodeHash", "publish", "skipDestroy")
    settings = pascal(
        r.inputs.pick(
            "role", "handler", "runtime", "timeout", "memorySize", "description", "layers"
        )
    )
    settings |= pascal(
        r.inputs.pick("deadLetterConfig", "tracingConfig", "loggingConfig", "ephemeralStorage")
    )
    settings["Environment"] = {
        "Variables": (r.inputs.get("environment") or {}).get("variables") or {}
    }
    code = archive(r.inputs["code"])
    if r.old:
        made = lambda_.update_function_configuration(FunctionName=name, **settings)
        if "code" in r.changed:
            made = lambda_.update_function_code(FunctionName=name, ZipFile=code)
    else:
        kind = pascal(r.inputs.pick("architectures", "packageType"))
        tags = {"Tags": r.inputs["tags"]} if r.inputs.get("tags") else {}
        made = lambda_.create_function(
            FunctionName=name, Code={"ZipFile": code}, **settings, **kind, **tags
        )
        if (reserved := r.inputs.get("reservedConcurrentExecutions")) is not None and reserved >= 0:
            lambda_.put_function_concurrency(
                FunctionName=name, ReservedConcurrentExecutions=reserved
            )
    return name, function_outputs(r, name, made)


def function_outputs(r: Resource, name: str, made: dict[str, Any]) -> dict[str, Any]:
    arn = r.aws.arn("lambda", f"function:{name}")
    return {
        "name": name,
        "arn": arn,
        "qualifiedArn": f"{arn}:$LATEST",
        "version": "$LATEST",
        "codeSha256": made["CodeSha256"],
        "invokeArn": (
            f"arn:{r.aws.partition}:apigateway:{r.aws.region}:lambda:path/2015-03-31/functions/{arn}/invocations"
        ),
    }


@makes("aws:lambda/permission:Permission")
def permission(r: Resource) -> Made:
    statement = r.called("statementId")
    allowed = pascal(r.inputs.pick("action", "principal", "sourceArn", "sourceAccount"))
    r.aws.client("lambda").add_permission(
        FunctionName=r.inputs["function"], StatementId=statement, **allowed
    )
    return statement, {"statementId": statement}


@handles(
    "aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig", "functionName", "qualifier"
)
def event_invoke_config(r: Resource) -> Made:
    name = r.inputs["functionName"]
    settings = r.inputs.pick(
        "maximumRetryAttempts", "maximumEventAgeInSeconds", "destinationConfig", "qualifier"
    )
    r.aws.client("lambda").put_function_event_invoke_config(FunctionName=name, **pascal(settings))
    return name, {}


@handles("aws:lambda/invocation:Invocation", "functionName")
def invocation(r: Resource) -> Made:
    """Calls the function as the provider does with lifecycle scope CRUD: the action stands in the
    event."""
    name, event = r.inputs["functionName"], json.loads(r.inputs["input"])
    r.inputs.ignore("triggers")
    if r.inputs.get("lifecycleScope") == "CRUD":
        event[r.inputs.get("terraformKey") or "tf"] = {"action": "update" if r.old else "create"}
    answer = r.aws.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event))
    result = answer["Payload"].read().decode()
    if "FunctionError" in answer:
        raise RuntimeError(f"{name} failed: {result}")
    return f"{name}_{r.name}", {"result": result}


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
