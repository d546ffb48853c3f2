"""`make bench`: what the program and the sandbox cost, beside their goals.

Each figure of the program is of a fresh process, which measures itself. This module imports little,
for a process starts with the peak memory of the one that started it.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RUNS = 5
MANY = 100
"""Declared devices, the most that a fleet may have."""
ARRIVE_AT_ONCE = 4
"""Devices that come in at the same time."""
ARRIVE_SECONDS = 900.0
"""Until 1,000 devices must be in, and as many again until they are updated."""
LATE_SECONDS = 2.0
"""Until a device that was refused asks again, at most."""
PREVIEW_GOAL = "2 s"
"""Processor time that the program itself may add to a preview."""
SDKS = ("pulumi", "pulumi_aws", "pulumi_random")
ANSWERS = {
    "aws:index/getPartition:getPartition": {"partition": "aws", "dnsSuffix": "amazonaws.com"},
    "aws:index/getRegion:getRegion": {"region": "us-east-1"},
    "aws:index/getCallerIdentity:getCallerIdentity": {"accountId": "123456789012"},
    "aws:iot/getEndpoint:getEndpoint": {
        "endpointAddress": "example-ats.iot.us-east-1.amazonaws.com"
    },
}

Row = tuple[str, str, str]


def evaluate(stack: str, devices: int | None) -> dict[str, Any]:
    """Runs the program as a preview of `stack` does; with `devices`, that many declared ones whose
    keys AWS makes."""
    import pulumi

    from components.stack_file import read_configuration

    made: list[str] = []

    class Unknown(pulumi.runtime.Mocks):
        """Answers as a preview does: what only AWS knows is unknown."""

        def new_resource(
            self, args: pulumi.runtime.MockResourceArgs
        ) -> tuple[str | None, dict[Any, Any]]:
            if args.custom is not False:
                made.append(args.typ)
            return "", args.inputs

        def call(self, args: pulumi.runtime.MockCallArgs) -> Any:
            return ANSWERS[args.token]

    config = read_configuration(ROOT / f"Pulumi.{stack}.yaml")
    if devices is not None:
        fleet = json.loads(config["iot-ota:fleet"])
        config["iot-ota:fleet"] = json.dumps(fleet | {"devices": devices, "keysInState": True})
    pulumi.runtime.set_mocks(Unknown(), project="iot-ota", stack=stack, preview=True)
    pulumi.runtime.set_all_config(config)
    run: Any = pulumi.runtime.test
    run(lambda: runpy.run_path(str(ROOT / "__main__.py")) and None)()
    return {
        "resources": len(made),
        "modules": sorted(name for name in sys.modules if name.split(".")[0] in SDKS),
    }


def measured(work: dict[str, Any]) -> str:
    """What this process has used so far, user and system time from its very start: seconds and
    megabytes."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return json.dumps({"cpu": used.ru_utime + used.ru_stime, "megabytes": peak, **work})


def child(*arguments: str) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.bench", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    if ran.returncode != 0:
        raise SystemExit(ran.stderr)
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


def evaluated(stack: str, *devices: str) -> tuple[list[dict[str, Any]], float, float]:
    """Some runs of the program; the least processor time of one, and of its imports alone."""
    runs = [child("evaluate", stack, *devices) for _ in range(RUNS)]
    imports = [child("imports", *runs[0]["modules"]) for _ in range(RUNS)]
    whole, bare = (min(run["cpu"] for run in found) for found in (runs, imports))
    return runs, whole, bare


def program() -> Iterator[Row]:
    runs, whole, bare = evaluated("prod")
    yield (
        "CPU of evaluating prod over its imports",
        f"{whole / bare:.2f} times ({whole:.2f} s over {bare:.2f} s)",
        "2 times",
    )
    yield (
        "peak memory of evaluating prod",
        f"{max(run['megabytes'] for run in runs):.0f} MB",
        "150 MB",
    )
    yield "CPU of evaluating prod, imports apart", f"{whole - bare:.2f} s", PREVIEW_GOAL
    _, whole, bare = evaluated("dev", str(MANY))
    many = f"CPU of evaluating dev with {MANY} declared devices, imports apart"
    yield many, f"{whole - bare:.2f} s", PREVIEW_GOAL


def graph() -> Iterator[Row]:
    counts = {
        devices: child("evaluate", "dev", str(devices))["resources"] for devices in (0, 10, 50, 100)
    }
    for devices, count in counts.items():
        each = f", {(count - counts[0]) / devices:g} a device" if devices else ""
        yield f"resources with {devices} declared devices", f"{count}{each}", ""


def return_devices(devices: int) -> dict[str, Any]:
    """A way back of so many devices, all of one ring, on a simulated AWS with its quotas."""
    import boto3

    from rollout.observed import Source
    from tests.simulation.slow_aws import NAMES, START, LargeRing, run_ticks

    session = boto3.Session()
    services = ("cloudwatch", "iot", "kms", "s3")  # as the controller has them in memory
    clients = [session.client(service, region_name="us-east-1") for service in services]
    source = Source(job=NAMES.job("broad", 1_789_000_000), ring="broad")
    aws = LargeRing(devices, source.job)
    told = run_ticks(aws, source)
    assert (told.placed, len(clients)) == (devices, len(services))
    seconds = aws.clock.now - START
    return {"seconds": seconds, "throttled": aws.throttled.total()}


def way_back() -> Iterator[Row]:
    from rollout.names import CONTROLLER_MEGABYTES

    devices = 900_000
    ran = child("way-back", str(devices))
    yield (
        f"devices that return a second, of {devices:,} in one ring",
        f"{devices / ran['seconds']:.1f} (AWS takes 100)",
        "90",
    )
    yield (
        "peak memory of that",
        f"{ran['megabytes']:.0f} MB of the controller's {CONTROLLER_MEGABYTES}",
        f"{0.6 * CONTROLLER_MEGABYTES:.0f} MB",
    )


@contextmanager
def sandbox() -> Iterator[tuple[Any, int]]:
    """A way to run sandbox commands in a folder and on ports of their own; whatever happens, it is
    taken down."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as http, socket.socket() as mqtt:
        http.bind(("127.0.0.1", 0))
        mqtt.bind(("127.0.0.1", 0))
        port, mqtt_port = http.getsockname()[1], mqtt.getsockname()[1]
        http.close()
        mqtt.close()
        variables = {
            "SANDBOX_DIR": folder,
            "SANDBOX_PORT": str(port),
            "SANDBOX_MQTT_PORT": str(mqtt_port),
        }

        def command(*arguments: str) -> None:
            ran = subprocess.run(
                [sys.executable, "-m", "sandbox", *arguments],
                cwd=ROOT,
                env=os.environ | variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if ran.returncode != 0:
                raise SystemExit(f"python -m sandbox {' '.join(arguments)} failed:\n{ran.stdout}")

        try:
            yield command, port
        finally:
            command("down")


def update() -> Iterator[Row]:
    with sandbox() as (command, port):
        began = time.monotonic()
        command("up")
        seconds = time.monotonic() - began
        devices, updating = largest_update(port)
        yield "make up on installed dependencies", f"{seconds:.1f} s", "30 s"
        yield (
            "devices updated per second",
            f"at least {devices / updating:.1f} ({devices} within {updating:.0f} s)",
            "",
        )


def let_in(devices: int) -> dict[str, Any]:
    """So many reference agents come in by claim and are updated then, in a sandbox of their own:
    each with a thread, a key, and its connections over TLS."""
    from components.stack_file import read_configuration
    from device import claiming
    from rollout.names import StackOutput
    from sandbox import session
    from sandbox.deploy import RESOURCES, STACK_FILE, deploy
    from sandbox.factory import override_claim
    from sandbox.follow import follow
    from tests.sandbox.conftest import free_instance

    with tempfile.TemporaryDirectory() as folder:
        instance = free_instance(Path(folder) / "sandbox")
        # a busy machine's hook may be late, which is a refusal: not a minute's wait each time
        claiming.FIRST_REFUSED_SECONDS = claiming.MAX_REFUSED_SECONDS = LATE_SECONDS
        rollout = json.loads(read_configuration(ROOT / STACK_FILE)["iot-ota:rollout"])
        # they share a machine and a local AWS, which all at once would bring to a stand
        rollout["devicesPerMinute"] = 120
        rollout["inProgressTimeoutMinutes"] = int(ARRIVE_SECONDS // 60)
        overrides = override_claim(instance, ROOT) | {"iot-ota:rollout": rollout}
        try:
            deploy(instance, overrides=overrides, say=lambda _: None)
            box = session.connect(instance)
            before = len(instance.read(RESOURCES)["resources"])
            controller = {"FunctionName": box.outputs[StackOutput.CONTROLLER_NAME]}
            functions = box.client("lambda")
            functions.put_function_concurrency(**controller, ReservedConcurrentExecutions=0)
            serials = Path(folder) / "serials.csv"
            serials.write_text("\n".join(["serial", *map("{:05}".format, range(devices))]) + "\n")
            added = seconds_of(lambda: box.add_serials(serials))
            began, in_after = time.monotonic(), list[float]()
            arrivals = box.devices(
                at_once=ARRIVE_AT_ONCE, on_all=lambda: in_after.append(time.monotonic() - began)
            )
            with arrivals:
                arrivals.wait(ARRIVE_SECONDS)
                functions.delete_function_concurrency(**controller)
                released = time.monotonic()
                outcome = follow(box, limit=ARRIVE_SECONDS, show=lambda _: None)
            updated = time.monotonic() - released
            assert outcome.is_good, outcome.story
            deploy(instance, overrides=overrides, say=lambda _: None)
            return {
                "added": added,
                "in": in_after[0],
                "updated": updated,
                "versions": len(outcome.versions),
                "resources": [before, len(instance.read(RESOURCES)["resources"])],
                "local aws": peak_megabytes(box.process.pid),
            }
        finally:
            session.down(instance)


def peak_megabytes(process: int) -> float:
    """Of a process that runs; 0 where the system does not tell."""
    status = Path(f"/proc/{process}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return sum(found) / 2**10


def provisioning() -> Iterator[Row]:
    devices = 1_000
    ran = child("let-in", str(devices))
    before, after = ran["resources"]
    assert (before, ran["versions"]) == (after, devices)
    yield (
        f"{devices:,} serials into the registry, a second",
        f"{devices / ran['added']:.0f}",
        "",
    )
    yield (
        f"devices that come in by claim a second, of {devices:,}",
        f"{devices / ran['in']:.1f} (AWS takes 10)",
        "",
    )
    yield f"release to those {devices:,}, all rings", f"{ran['updated']:.0f} s", ""
    yield "resources of the stack before and after", f"{before}, {after}", "equal"
    yield (
        "peak memory of that",
        f"{ran['megabytes']:.0f} MB for the devices, {ran['local aws']:.0f} MB for the local AWS",
        "",
    )


MEASURE = """
import atexit, importlib, pathlib, time
for name in {modules}:
    importlib.import_module(name)
began = time.process_time()
atexit.register(lambda: pathlib.Path({file!r}).write_text(str(time.process_time() - began)))
"""
"""At the head of a program: leaves its processor time, imports apart, in a file."""


def preview() -> Iterator[Row]:
    """Previews with the Pulumi CLI on PATH, against a local AWS: all that a person waits for."""
    if shutil.which("pulumi") is None:
        yield "pulumi preview", "not measured: no Pulumi CLI on PATH", ""
        return
    from sandbox import ministack
    from sandbox import session as sandbox_session
    from sandbox.instance import Instance
    from tests.engine.cli import Checkout
    from tests.sandbox.conftest import free_instance

    with tempfile.TemporaryDirectory() as folder:
        instance: Instance = free_instance(Path(folder) / "sandbox", auth=False)
        ministack.start(instance)
        try:
            checkout = Checkout(Path(folder), instance.port)
            main = checkout.folder / "__main__.py"
            for stack in ("prod", "dev"):
                checkout.add_stack(stack)
            checkout.edit("dev", devices=str(MANY))
            text = main.read_text()
            main.write_text("")
            empty = seconds_of(lambda: checkout.pulumi("preview", "--stack", "prod"))
            for stack, name in (("prod", "prod"), ("dev", f"dev with {MANY} declared devices")):
                devices = [str(MANY)] if stack == "dev" else []
                modules = child("evaluate", stack, *devices)["modules"]
                modules += ["components.device_fleet", "components.firmware_channel"]
                file = Path(folder) / f"{stack}.seconds"
                main.write_text(MEASURE.format(modules=modules, file=str(file)) + text)
                run = partial(checkout.pulumi, "preview", "--stack", stack)
                runs = [(seconds_of(run), float(file.read_text())) for _ in range(3)]
                whole, cpu = map(min, zip(*runs, strict=True))
                beside = f"{whole:.1f} s (of an empty program {empty:.1f} s)"
                yield f"pulumi preview of {name}", beside, ""
                yield "CPU of the program in it, imports apart", f"{cpu:.2f} s", PREVIEW_GOAL
        finally:
            sandbox_session.down(instance)


def seconds_of(run: Callable[[], object]) -> float:
    began = time.monotonic()
    run()
    return time.monotonic() - began


def largest_update(port: int) -> tuple[int, float]:
    """How many devices the sandbox's largest job updated, and within how many seconds: IoT tells
    times in whole seconds."""
    from ops import local_aws

    iot: Any = local_aws.client("iot", port, "us-east-1")
    found: list[tuple[int, float]] = []
    for job in iot.list_jobs()["jobs"]:
        executions = iot.list_job_executions_for_job(jobId=job["jobId"], maxResults=250)[
            "executionSummaries"
        ]
        done = [
            item["jobExecutionSummary"]
            for item in executions
            if item["jobExecutionSummary"]["status"] == "SUCCEEDED"
        ]
        if done:
            last, first = (
                max(item["lastUpdatedAt"] for item in done),
                min(item["queuedAt"] for item in done),
            )
            found.append((len(done), (last - first).total_seconds() + 1))
    return max(found)


def main(arguments: Sequence[str]) -> None:
    match arguments:
        case ["evaluate", stack, *devices]:
            print(measured(evaluate(stack, int(devices[0]) if devices else None)))
        case ["way-back", devices]:
            print(measured(return_devices(int(devices))))
        case ["let-in", devices]:
            print(measured(let_in(int(devices))))
        case ["imports", *modules]:
            for name in modules:
                importlib.import_module(name)
            print(measured({}))
        case _:
            rows = list[Row]()
            for measure in (program, graph, preview, way_back, update, provisioning):
                print(f"measuring: {measure.__name__.replace('_', ' ')}", file=sys.stderr)
                rows += measure()
            show(rows)


def show(rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("measure", "figure", "goal")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
