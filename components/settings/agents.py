"""Agents that are there already: what job documents hold for them, and what they do not check."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from components.checks import Section
from rollout.codec import EXACT_NUMBER, show_value
from rollout.document_extra import (
    EXTRA_PLACEHOLDERS,
    MAX_EXTRA_DEPTH,
    MAX_EXTRA_KEY,
    MAX_SUBSTITUTIONS,
    OWN_KEYS,
    find_wrong_brace,
    list_texts,
)
from rollout.job_document import MAX_DOCUMENT, OPERATION, count_substitutions, longest_document
from rollout.release import Firmware, Manifest

EXAMPLE = '{update: {url: "{url}", sha256: "{sha256}", size: "{size}"}}'
EXTRA_KEY = "documentExtra"


def read_document_extra(
    rollout: Section, channel: str, firmware: Firmware
) -> dict[str, Any] | None:
    """The keys beside ours in every job document, held against what IoT and devices take; None
    where there are none."""
    if rollout.get(EXTRA_KEY) is None:
        return None
    extra: dict[str, Any] = rollout.subsection(EXTRA_KEY, EXAMPLE).data
    if not extra:
        if rollout.has_no_mistakes_at(EXTRA_KEY):
            rollout.add_mistake(
                EXTRA_KEY, "is empty", f"remove it, or write {EXTRA_KEY}: {EXAMPLE}"
            )
        return None
    for key in sorted(set(extra) & set(OWN_KEYS)):
        kind = f"is a key of the document itself ({', '.join(OWN_KEYS)})"
        if key == "operation":
            kind += f": an agent that reads it finds {OPERATION}"
        rollout.add_mistake(
            f"{EXTRA_KEY}.{key}", kind, "remove or rename it", show_value(extra[key])
        )
    _check_value(rollout, EXTRA_KEY, extra, 1)
    for one in list_texts(extra, EXTRA_KEY):
        _check_text(rollout, one.place, one.text)
    if rollout.has_no_mistakes_at(EXTRA_KEY):
        _check_size(rollout, longest_document(channel, firmware, extra))
    return extra


def _check_value(rollout: Section, place: str, value: Any, depth: int) -> None:
    """A value and what is in it: what every reader of JSON takes for the same."""
    if isinstance(value, dict | list) and depth > MAX_EXTRA_DEPTH:
        allowed = f"is the {depth}th object or list within another; at most {MAX_EXTRA_DEPTH}"
        rollout.add_mistake(place, f"{allowed} (ours)", "make it flatter", show_value(value))
    elif isinstance(value, dict):
        for key, item in value.items():
            if not (1 <= len(key) <= MAX_EXTRA_KEY and _is_unicode(key)):
                allowed = f"a key must have 1 to {MAX_EXTRA_KEY} characters (ours)"
                rollout.add_mistake(place, allowed, "rename it", show_value(key))
            _check_value(rollout, f"{place}.{key}", item, depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_value(rollout, f"{place}[{index}]", item, depth + 1)
    elif isinstance(value, int | float) and not (
        math.isfinite(value) and abs(value) <= EXACT_NUMBER
    ):
        allowed = "must be within 2**53 of 0: beyond it readers of JSON differ (RFC 8259, 6)"
        rollout.add_mistake(place, allowed, "write it as text, in quotes", show_value(value))


def _check_text(rollout: Section, place: str, text: str) -> None:
    shown = show_value(text)
    if not _is_unicode(text):
        rollout.add_mistake(place, "holds half a character", "write it anew", shown)
    elif (wrong := find_wrong_brace(text)) is not None:
        known = ", ".join(f"{{{name}}}" for name in EXTRA_PLACEHOLDERS)
        allowed = f"{show_value(wrong)} is no placeholder; there are {known}"
        fix = "correct it, or write {{ and }} for braces that stay"
        rollout.add_mistake(place, allowed, fix, shown)
    elif any(f"${{{name}}}" in text.replace("{{", "") for name in EXTRA_PLACEHOLDERS):
        allowed = "a placeholder has no $ before it: that would stay"
        rollout.add_mistake(place, allowed, "remove the $", shown)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_size(rollout: Section, longest: str) -> None:
    if len(longest) > MAX_DOCUMENT:
        allowed = (
            f"with it a job document may come to {len(longest)} characters (a way back's, with the"
            f" longest names); IoT takes {MAX_DOCUMENT} (document of CreateJob)"
        )
        fix = f"shorten it by {len(longest) - MAX_DOCUMENT}; each {{release}} is the longest part"
        rollout.add_mistake(EXTRA_KEY, allowed, fix, "too long")
    if (count := count_substitutions(longest)) > MAX_SUBSTITUTIONS:
        allowed = (
            f"a document holds {MAX_SUBSTITUTIONS} texts that IoT replaces, our own url among them"
            " (AWS IoT limits)"
        )
        rollout.add_mistake(EXTRA_KEY, allowed, "write {url} less often", f"{count} of them")


# What such agents do not check


@dataclass(frozen=True, kw_only=True)
class ExistingAgent:
    """An agent that reads keys of its own, as its source has it."""

    name: str
    is_addressed: Callable[[Mapping[str, Any]], bool]
    """Whether the extra keys are for it."""
    unchecked: str
    """What it does not check, or cannot say."""


DEVICE_CLIENT = (
    "it runs what the document says and reports the exit code. It never answers REJECTED to a"
    " release that is not for it, only to a document that it cannot read: another hardware, or a"
    " version that must not go back, counts as a failure, if its handler looks at all. It checks no"
    " signature, no downgrade and no replay, and no digest that its handler does not check"
)
AGENTS = (
    ExistingAgent(
        name="AWS IoT Device Client",
        is_addressed=lambda extra: "steps" in extra and "version" in extra,
        unchecked=DEVICE_CLIENT,
    ),
    ExistingAgent(
        name="AWS IoT Device Client (old schema)",
        is_addressed=lambda extra: "version" not in extra and bool({"args", "path"} & set(extra)),
        unchecked=DEVICE_CLIENT,
    ),
    ExistingAgent(
        name="FreeRTOS OTA",
        is_addressed=lambda extra: "afr_ota" in extra,
        unchecked=(
            "its parser reads neither version nor hardware nor sequence. The signature is over the"
            " image alone: an older image that was signed once, or one for another hardware, is"
            " taken unless the application on the device checks that; it never answers REJECTED by"
            " itself"
        ),
    ),
)
OTHER_AGENT = ExistingAgent(
    name="an agent that reads documentExtra only",
    is_addressed=lambda _: True,
    unchecked=(
        "what it does not check of the signed `release` is not checked: the signature, the job, the"
        " hardware, a downgrade, a replay; and unless it answers REJECTED, a release"
        " that is not for it counts as a failure"
    ),
)


def list_agent_risks(manifest: Manifest) -> list[str]:
    """What to warn of before a release: what the agents that the extra keys are for do not
    check. docs/existing-agents.md has it at length."""
    extra = manifest.document_extra
    if not extra:
        return []
    found = [agent for agent in AGENTS if agent.is_addressed(extra)] or [OTHER_AGENT]
    risks = [f"rollout.documentExtra is for {agent.name}: {agent.unchecked}" for agent in found]
    if found[0].unchecked == DEVICE_CLIENT and _hides_failures(extra):
        risks.append(
            "rollout.documentExtra has allowStdErr, or ignoreStepFailure: AWS IoT Device Client"
            " then reports SUCCEEDED though a step failed, and no gate sees a bad release"
        )
    return risks


def _hides_failures(value: Any) -> bool:
    """Whether a failing step may be reported as a success: with allowStdErr its exit code is left
    out (JobEngine::exec_action, aws-iot-device-client 2e20e21)."""
    if isinstance(value, list):
        return any(map(_hides_failures, value))
    if not isinstance(value, Mapping):
        return False
    hides = "allowStdErr" in value or value.get("ignoreStepFailure") == "true"
    return hides or any(map(_hides_failures, value.values()))
