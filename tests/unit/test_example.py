"""examples/: a program of a stranger's, with the components from a checkout."""

from __future__ import annotations

import json
import runpy
from functools import cache

import pytest

from tests.unit.harness import ROOT, Graph, build

FOLDER = ROOT / "examples" / "python"
MAX_LINES = 15


@cache
def made(preview: bool) -> Graph:
    def program() -> None:
        runpy.run_path(str(FOLDER / "__main__.py"), run_name="__main__")

    return build(program, preview=preview, folder=FOLDER)


def test_a_fleet_and_a_channel_take_few_lines() -> None:
    text = (FOLDER / "__main__.py").read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= MAX_LINES


@pytest.mark.parametrize("preview", [False, True])
def test_it_is_a_fleet_and_a_channel_named_as_the_program_names_them(preview: bool) -> None:
    graph = made(preview)
    assert [fleet.name for fleet in graph.of("index:DeviceFleet")] == ["gateways"]
    assert [channel.name for channel in graph.of("index:FirmwareChannel")] == ["stable"]
    assert graph.exports["fleetName"].value == "gateways"
    assert graph.exports["channelName"].value == "stable"
    content = json.loads(graph["stable-manifest"].inputs["content"])
    assert content["firmware"]["version"] == "2.1.0"
    assert [ring["name"] for ring in content["rings"]] == ["canary", "broad"]


def test_a_preview_of_it_shows_what_an_update_does() -> None:
    assert made(True).urns() == made(False).urns()
    for name in ("stable-manifest", "stable-artifact"):
        update, preview = made(False)[name].inputs, made(True)[name].inputs
        assert {k: v for k, v in preview.items() if k != "bucket"} == {
            k: v for k, v in update.items() if k != "bucket"
        }


def test_what_it_leaves_out_is_safe() -> None:
    graph = made(False)
    kept = {resource.name for resource in graph if resource.protect and resource.retain_on_delete}
    assert {"gateways-suffix", "stable-bucket", "stable-signing-key-1"} <= kept
    assert graph["stable-bucket"].inputs["forceDestroy"] is False
    assert {r.inputs["tags"]["environment"] for r in graph if r.inputs.get("tags")} == {
        "production"
    }
