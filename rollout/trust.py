"""Whether `state.json` can be believed: signed by the channel's key, and as new as the jobs it
made.

The controller asks before it acts on the state, `python -m ops` before it shows it, and both name a
halt by the same id.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

from rollout.codec import decode, sha256_hex
from rollout.jws import STATE_TYPE, b64url_decode, der_signature, signing_input
from rollout.state import State


class UntrustedState(Exception):
    """The state cannot be believed: missing although jobs exist, not signed by the controller's
    key, or older than its jobs.

    `halt` is the id that a `resume` must name to start afresh.
    """

    def __init__(self, halt: str, why: str) -> None:
        self.halt, self.why = halt, why
        super().__init__(why)


def verify_state(
    body: bytes, keys: Sequence[str], verify: Callable[[str, str, bytes], bool]
) -> State:
    """The state in the bytes of `state.json`. Raises UntrustedState unless one of the channel's
    keys signed it.

    `verify` says whether a key made this DER signature over this signing input (KMS Verify).
    """
    halt = f"invalid-{sha256_hex(body)[:12]}"
    try:
        envelope = json.loads(body)
        header, payload, signature = envelope["jws"].split(".")
        inputs = {key: signing_input(STATE_TYPE, key, envelope["state"]) for key in keys}
        key = next((key for key, signed in inputs.items() if signed.split(".")[0] == header), None)
        if payload or key is None:
            raise ValueError("its signature is not a detached one of the channel's keys")
        if not verify(key, inputs[key], der_signature(b64url_decode(signature))):
            raise UntrustedState(halt, "state.json was not written by the controller")
        return decode(State, envelope["state"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UntrustedState(halt, f"state.json is unreadable: {error}") from error


def check_age(state: State | None, sequences: Iterable[int]) -> None:
    """Raises UntrustedState when jobs know more than the state.

    `sequences` are those of the channel's live jobs; where there is no state, of all its jobs that
    IoT still knows.
    """
    newest = max(sequences, default=None)
    if newest is None:
        return
    if state is None:
        raise UntrustedState(
            f"lost-{newest}", "state.json is missing although jobs of the channel exist"
        )
    if newest > state.sequence:
        raise UntrustedState(f"older-{newest}", "state.json is older than the jobs it made")
