"""Whose state and whose job it is: only what a key of the channel signed, in its place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.bucket import Overtaken
from rollout.names import STATE_BYTES, STATE_VERSIONS, Names
from rollout.state import Halt, State
from rollout.trust import Place, UntrustedState, check_age, check_place, read_offer
from tests.fake_aws import etag
from tests.unit.ops_cloud import MANIFEST, NAMES, PROVED, PROVING, OpsAws

JOB = NAMES.job("canary", 200)
STATE = NAMES.keys.state


@pytest.fixture
def aws() -> OpsAws:
    made = OpsAws()
    made.publish(MANIFEST)
    made.remember(PROVING)
    return made


def distrusted(aws: OpsAws) -> UntrustedState:
    with pytest.raises(UntrustedState) as raised:
        aws.channel().current_state(aws.live_jobs())
    return raised.value


# The state


def test_every_write_has_a_number_and_names_its_channel_and_its_predecessor(aws: OpsAws) -> None:
    first = aws.channel().current_state([])
    assert first
    written, place = aws.channel().write_state(first.state, first.place)
    second = aws.channel().current_state([])
    assert second
    assert (second.state.suffix, second.state.channel) == (NAMES.suffix, NAMES.channel)
    assert (first.state.writes, first.state.after) == (1, None)
    assert (second.state.writes, second.state.after) == (2, first.place.version)
    assert (second.state, second.place) == (written, place)
    assert place != first.place


@pytest.mark.parametrize(
    "other",
    [
        Names(fleet="fleet", suffix="ffffffff", channel="stable"),
        Names(fleet="fleet", suffix="0123abcd", channel="beta"),
    ],
)
def test_another_channels_signed_state_is_not_taken_for_this_ones(
    aws: OpsAws, other: Names
) -> None:
    theirs = OpsAws()
    theirs.names, theirs.private_keys = other, aws.private_keys
    theirs.write_state(PROVED)
    aws.objects[STATE] = theirs.objects[other.keys.state]
    untrusted = distrusted(aws)
    assert untrusted.why == "state.json is another channel's"
    assert untrusted.halt.startswith("invalid-")


def test_what_is_distrusted_is_named_by_etag_and_version(aws: OpsAws) -> None:
    aws.objects[STATE] = b"{}"
    untrusted = distrusted(aws)
    assert untrusted.place == Place(etag=etag(b"{}"), version=aws.objects.version(STATE))
    del aws.objects[STATE]
    untrusted = distrusted(aws)
    assert untrusted.place == Place(etag=None, version=aws.objects.version(STATE))
    aws.channel().write_state(PROVED, untrusted.place)
    assert aws.channel().current_state([]), "what is written over it is in its place"


def test_each_time_that_an_old_state_is_put_back_is_a_halt_of_its_own(aws: OpsAws) -> None:
    old = aws.objects[STATE]
    aws.write_state(PROVED)
    halts = set()
    for _ in range(3):
        aws.objects[STATE] = old
        halts.add(distrusted(aws).halt)
    assert len(halts) == 3


def test_objects_whose_keys_go_on_are_no_versions_of_the_state(aws: OpsAws) -> None:
    aws.objects[f"{STATE}.bak"] = b"x"
    aws.objects[f"{STATE}/more"] = b"x"
    assert aws.channel().current_state([])


@given(
    st.text(max_size=8), st.none() | st.text(min_size=1, max_size=8), st.lists(st.text(max_size=8))
)
def test_a_state_is_in_its_place_on_what_it_replaced_alone(
    here: str, after: str | None, below: list[str]
) -> None:
    state = State(after=after)
    if here == "null" or below == ([after] if after else []):
        check_place(state, [here, *below])
        return
    with pytest.raises(UntrustedState):
        check_place(state, [here, *below])


def test_a_state_is_read_again_while_others_write(aws: OpsAws) -> None:
    def write(_number: int, name: str, effect: Any) -> Any:
        if name == "list_object_versions" and next(times, None):
            aws.fault = calm
            aws.write_state(PROVED)
            aws.fault = write
        return effect()

    calm = aws.fault
    times: Iterator[int] = iter([1, 1])
    aws.fault = write
    assert aws.channel().current_state([])
    times = iter([1, 1, 1])
    with pytest.raises(Overtaken):
        aws.channel().current_state([])


def test_a_state_that_nobody_could_read_again_is_not_written(aws: OpsAws) -> None:
    before = aws.objects[STATE]
    huge = replace(PROVED, halt=Halt(id="halt-1", why="x" * STATE_BYTES, at=0.0))
    with pytest.raises(ValueError, match=r"state\.json would have"):
        aws.write_state(huge)
    assert aws.objects[STATE] == before


def test_the_state_with_the_highest_number_is_proved_whatever_lies_on_it(aws: OpsAws) -> None:
    old = aws.objects[STATE]
    aws.write_state(replace(PROVED, halts=7, writes=5))
    for body in (old, b"{}", old, b"\xff"):
        aws.objects[STATE] = body
    proved = aws.channel().prove().state
    assert proved
    assert proved.halts == 7
    for _ in range(STATE_VERSIONS):
        aws.objects[STATE] = b"{}"
    assert aws.channel().prove().state is None, "so far back nobody looks"


def test_jobs_that_are_newer_make_a_state_old() -> None:
    check_age(None, [])
    check_age(State(sequence=5), [4, 5])
    with pytest.raises(UntrustedState, match="older than the jobs"):
        check_age(State(sequence=5), [4, 6])
    with pytest.raises(UntrustedState, match="missing although jobs"):
        check_age(None, [4])


# Jobs


def read(aws: OpsAws, job: str, document: str) -> Any:
    signer = aws.channel().signer
    return read_offer(job, document, NAMES, signer.key_arns, signer.is_signed)


def test_a_document_that_the_channel_signed_for_the_job_is_its_own(aws: OpsAws) -> None:
    offer = read(aws, JOB, aws.sign_document(JOB, sha256="ab", refuses=["cd"], more=1))
    assert (offer.job, offer.sequence) == (JOB, 200)
    assert (offer.firmware.sha256, offer.refuses) == ("ab", ("cd",))


@pytest.mark.parametrize(
    "claims",
    [
        {"channel": "beta"},
        {"sequence": 201},
        {"sequence": "200"},
        {"job": NAMES.job("broad", 200)},
        {"job": None},
        {"sha256": 1},
        {"size": "1000"},
        {"refuses": 1},
    ],
)
def test_a_signed_document_of_another_place_is_not(aws: OpsAws, claims: dict[str, Any]) -> None:
    assert read(aws, JOB, aws.sign_document(JOB, **claims)) is None


def test_a_document_that_somebody_changed_is_not(aws: OpsAws) -> None:
    document = json.loads(aws.sign_document(JOB))
    header, payload, signature = document["release"].split(".")
    other = json.loads(aws.sign_document(JOB, sha256="f" * 64))["release"].split(".")
    for token in (
        f"{header}.{other[1]}.{signature}",
        f"{header}.{payload}.{other[2]}",
        f"{header}.{payload}.",
        f"{header}.{payload}",
        f"{payload}.{payload}.{signature}",
    ):
        assert read(aws, JOB, json.dumps(document | {"release": token})) is None
    stranger = OpsAws()
    assert read(aws, JOB, stranger.sign_document(JOB)) is None, "another key of the same name"


@given(
    st.text(max_size=40)
    | st.recursive(st.none() | st.integers() | st.text(max_size=9), st.lists).map(json.dumps)
)
def test_any_other_document_is_not(document: str) -> None:
    def never(_key: str, _text: str, _signature: bytes) -> bool:
        return False

    assert read_offer(JOB, document, NAMES, ["key"], never) is None
    for release in (document, f"{document}.{document}.{document}"):
        wrapped = json.dumps({"release": release})
        assert read_offer(JOB, wrapped, NAMES, ["key"], never) is None


@given(st.integers(0, 2**80), st.sampled_from(["", "0", "00", "+", " "]))
def test_an_id_has_one_way_to_write_its_number(number: int, before: str) -> None:
    job = f"{NAMES.job_prefix}canary-{before}{number}"
    assert NAMES.split_job(job) == (None if before else ("canary", number))
