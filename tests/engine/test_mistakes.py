"""Mistakes inside the keys of a stack file, as the Pulumi CLI shows them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from ops import local_aws
from sandbox import ministack, session
from tests.engine.account import holdings
from tests.engine.cli import Checkout
from tests.sandbox.conftest import free_instance

MISTAKES = {
    "hardware: gateway-a1": ("hardware: gateway a1", "fleet.hardware: "),
    "percent: 90": ("percent: 80", "fleet.rings: 90 %"),
    'sha256: "65b5': ('sha256: "zzb5', "firmware.sha256: "),
    "devicesPerMinute: 100": ("devicesPerMinuet: 100", "rollout.devicesPerMinuet: "),
    "minimumSucceeded: 2": ("minimumSucceeded: two", "gates.broad.minimumSucceeded: "),
}
"""What stands in staging's stack file: what somebody wrote instead, and how the message begins."""


@pytest.mark.parametrize("command", ["preview", "up"])
def test_the_whole_list_is_told_once_and_nothing_is_made(tmp_path: Path, command: str) -> None:
    instance = free_instance(tmp_path / "sandbox", auth=False)
    checkout = Checkout(tmp_path, instance.port)
    checkout.add_stack("staging")
    text = checkout.stack_file("staging").read_text()
    for right, (wrong, _) in MISTAKES.items():
        assert text.count(right) == 1
        text = text.replace(right, wrong)
    checkout.stack_file("staging").write_text(text)
    ministack.start(instance)
    try:
        held = partial(holdings, partial(local_aws.client, port=instance.port, region="us-east-1"))
        before = held()
        words = ("--yes", "--skip-preview") if command == "up" else ()
        printed = checkout.pulumi(command, *words, "--stack", "staging", fails=True)
        assert held() == before
    finally:
        session.down(instance)
    told = printed.partition("Diagnostics:")[2]
    assert f"configuration has {len(MISTAKES)} mistakes; nothing was changed" in told
    for _, message in MISTAKES.values():
        assert told.count(message) == 1, message
    assert "Traceback" not in printed
    made = {one["type"] for one in checkout.resources("staging")}
    assert made <= {"pulumi:pulumi:Stack"}
