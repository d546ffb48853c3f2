"""How counts become bars and words: every device is in a bar once, and in proportion."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ops.render import BAR, STATUSES, describe_counts, progress_line, ring_bar
from rollout.observed import Counts
from tests.unit.ops_cloud import GOOD, NEW, NOW, PROVING, OpsAws

numbers = st.integers(0, 1000) | st.integers(0, 10**6)
counts = st.builds(
    Counts,
    succeeded=numbers,
    failed=numbers,
    timed_out=numbers,
    in_progress=numbers,
    queued=numbers,
    rejected=numbers,
)


def test_a_bar_shows_each_status_as_its_part() -> None:
    bar = ring_bar(Counts(succeeded=2, failed=1, in_progress=1), ascii_only=False)
    assert bar.plain == "█" * 10 + "✗" * 5 + "▒" * 5
    assert [(span.start, span.end, span.style) for span in bar.spans] == [
        (0, 10, "green"),
        (10, 15, "red"),
        (15, 20, "yellow"),
    ]
    assert ring_bar(Counts(), ascii_only=True).plain == ""


@given(counts)
def test_a_bar_keeps_proportions_and_loses_nobody(seen: Counts) -> None:
    bar = ring_bar(seen, ascii_only=True).plain
    sizes = {mark: getattr(seen, field) for field, _, _, mark, _ in STATUSES}
    total = sum(sizes.values())
    for mark, size in sizes.items():
        assert (mark in bar) == bool(size), "whatever is there at all has a mark, and nothing else"
        assert abs(bar.count(mark) - BAR * size / max(total, 1)) <= 1
    assert BAR * bool(total) <= len(bar) <= BAR + len(sizes)


def test_counts_in_words_leave_out_what_nobody_is_in() -> None:
    assert describe_counts(Counts(succeeded=3, queued=1)) == "3 succeeded, 1 queued"
    assert describe_counts(Counts()) == "no device yet"
    assert describe_counts(None) == "no job"


def test_a_ring_shows_the_job_of_the_release_being_proved_and_else_its_own() -> None:
    aws = OpsAws()
    aws.remember(PROVING)
    report = aws.report(NOW)
    rings = {ring.name: ring.version for ring in report.rings}
    assert rings == {"canary": NEW.version, "broad": GOOD.version}
    assert f"canary {NEW.version}" in progress_line(report)
