"""The device's flash: slots that take turns, trial boots, and the way back from a bad image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from device.flash import MAX_TRIAL_BOOTS, ExecutionKey
from rollout.version import Version
from tests.unit.device_fakes import BAD_IMAGE, IMAGE, STATEMENT, factory_flash


def test_an_image_that_never_confirms_itself_is_given_up(tmp_path: Path) -> None:
    flash = factory_flash(tmp_path)
    flash.accept(STATEMENT).write_bytes(IMAGE)
    flash.mark_for_trial(STATEMENT, ExecutionKey(job_id="j", execution=1))

    def power_cut() -> None:
        raise OSError("power cut")

    for _ in range(MAX_TRIAL_BOOTS):
        with pytest.raises(OSError, match="power cut"):
            factory_flash(tmp_path).boot("gateway-a1", power_cut)
    flash = factory_flash(tmp_path)
    flash.boot("gateway-a1")
    assert flash.memory.version == Version("2.0.0")
    assert flash.memory.outcome is not None
    assert (flash.memory.outcome.status, flash.memory.outcome.detail) == (
        "FAILED",
        "not confirmed in 3 boots",
    )


@pytest.mark.parametrize(
    "content",
    [BAD_IMAGE, b"", b"\x00" * 9000, b"[" * 4000, b"[]\n", IMAGE.replace(b"a1", b"b2"), b"7\n"],
)
def test_a_bad_image_leaves_the_old_one_running(tmp_path: Path, content: bytes) -> None:
    flash = factory_flash(tmp_path)
    flash.accept(STATEMENT).write_bytes(content)
    flash.mark_for_trial(STATEMENT, ExecutionKey(job_id="j", execution=1))
    flash.boot("gateway-a1")
    assert flash.memory.version == Version("2.0.0")
    assert (flash.memory.active, flash.memory.trial) == ("a", None)


def test_the_slots_take_turns(tmp_path: Path) -> None:
    flash = factory_flash(tmp_path)
    for active, sequence in (("b", 1), ("a", 2), ("b", 3)):
        statement = replace(STATEMENT, sequence=sequence, sha256=str(sequence) * 64)
        flash.accept(statement).write_bytes(IMAGE)
        flash.mark_for_trial(statement, ExecutionKey(job_id="j", execution=1))
        flash.boot("gateway-a1")
        assert flash.memory == factory_flash(tmp_path).memory
        assert (flash.memory.active, flash.memory.sha256) == (active, statement.sha256)


def test_the_beginning_of_another_image_is_thrown_away(tmp_path: Path) -> None:
    flash = factory_flash(tmp_path)
    flash.accept(STATEMENT).write_bytes(b"beginning")
    assert flash.accept(STATEMENT).exists()
    assert not flash.accept(replace(STATEMENT, sha256="b" * 64)).exists()
