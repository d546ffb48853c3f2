"""Versions order as semver says; a manifest is the same text for ever and is refused when it is
anything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.codec import DecodeError
from rollout.release import Abort, Firmware, Gate, Manifest, Pace, RingPlan, Window
from rollout.version import Version

ORDER = [
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.1.0",
    "1.10.0",
    "2.0.0",
]


def manifest(**changes: object) -> Manifest:
    firmware = Firmware(
        version=Version("2.1.0"),
        sha256="a" * 64,
        size=10,
        hardware="gateway-a1",
        minimum_version=Version("1.0.0"),
    )
    rings = (
        RingPlan(name="canary", percent=10.0, gate=Gate(approval=True)),
        RingPlan(name="broad", percent=90.0),
    )
    return Manifest(schema=1, channel="stable", firmware=firmware, rings=rings, **changes)  # type: ignore[arg-type]


def test_versions_are_ordered_as_semver_orders_its_own_example() -> None:
    backwards = [*reversed(ORDER)]
    assert sorted(backwards, key=Version) == ORDER


def test_a_leading_v_and_build_metadata_change_no_order() -> None:
    plain, built = Version("v1.2.3"), Version("1.2.3+build.7")
    assert not plain < built
    assert not plain > built
    assert Version("1.2.3-rc.1") < built
    assert plain == Version("1.2.3")
    assert plain != built, "two builds of a version are two versions, of which neither is newer"
    assert str(Version("v1.2.3")) == "1.2.3"


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.3-01", "1.2.3-", "vv1.2.3", "1.2.x", "1.2.3 "],
)
def test_what_is_no_semantic_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a semantic version"):
        Version(text)


@given(
    st.integers(1, 1000),
    st.one_of(st.none(), st.integers(1, 1000)),
    st.lists(
        st.builds(
            Abort,
            on=st.sampled_from(["FAILED", "TIMED_OUT"]),
            percent=st.floats(0.01, 100),
            minimum=st.integers(1, 99),
        )
    ),
    st.one_of(st.none(), st.just(Window(cron="0 2 * * *", minutes=60))),
    st.booleans(),
)
def test_a_manifest_reads_back_as_it_was_written(
    rate: int, base: int | None, abort: list[Abort], window: Window | None, paused: bool
) -> None:
    written = manifest(
        pace=Pace(maximum_per_minute=rate, base_per_minute=base),
        abort=tuple(abort),
        window=window,
        paused=paused,
    )
    assert Manifest.parse(written.text()) == written
    assert Manifest.parse(written.text()).text() == written.text()


def test_every_mistake_of_a_manifest_is_named() -> None:
    data = json.loads(manifest().text())
    data["firmware"]["size"] = "10"
    data["rings"][0]["gate"]["soak"] = 1
    del data["channel"]
    data["rollback"] = "maybe"
    with pytest.raises(DecodeError) as caught:
        Manifest.parse(json.dumps(data))
    told = "\n".join(caught.value.mistakes)
    for part in (
        "firmware.size: expected a whole number",
        "rings[0].gate.soak: unknown",
        "channel: missing",
        "rollback: must be one of",
    ):
        assert part in told


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '"x"', '{"schema": 2}', "\xff\xfe"])
def test_what_is_no_manifest_is_a_decode_error_and_nothing_else(text: str) -> None:
    with pytest.raises(DecodeError):
        Manifest.parse(text)
