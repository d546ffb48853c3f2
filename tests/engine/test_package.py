"""The examples, made by the Pulumi CLI: a YAML program with the components as a package, and a
Python program that imports them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from components.stack_file import ROOT
from ops import local_aws
from rollout.names import StackOutput
from sandbox import ministack, session
from tests.engine.account import MEMORY, Holding, holdings
from tests.engine.cli import HTTP_PORT, TO_THE_LOCAL_AWS, Checkout
from tests.sandbox.conftest import free_instance

pytestmark = pytest.mark.long

STACK = "try"
LANGUAGES = ("yaml", "python")
UNPROTECTED = {
    'hardware: gateway-a1, rings: "${rings}" }': (
        'hardware: gateway-a1, rings: "${rings}", protect: false }'
    ),
    'version: "2.1.0"': 'version: "2.1.0"\n      protect: false',
}
"""In the YAML program: that it can be destroyed."""
MISTAKES = {
    "percent: 90": ("percent: 80", "- property rings with value ", ": 90 %; "),
    "{ hardware: gateway-a1,": ("{ hardware: gateway a1,", "- property hardware with value ", ""),
    'rings: "${rings}", protect': (
        'devices: ["a b"], rings: "${rings}", protect',
        "- property devices[0] with value ",
        "",
    ),
}
"""What stands in the YAML program: what somebody wrote instead, and what the message holds."""


class Example(Checkout):
    """An example's program and stack, in a checkout."""

    def __init__(self, folder: Path, port: int, language: str) -> None:
        super().__init__(folder / language, port)
        for name in ("examples", "package"):
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, self.folder / name, ignore=ignore)
        self.folder = self.folder / "examples" / language
        endpoints = TO_THE_LOCAL_AWS.findall((ROOT / "Pulumi.local.yaml").read_text())
        config = "".join(["config:\n  aws:region: us-east-1\n", *endpoints])
        self.stack_file(STACK).write_text(config.replace(HTTP_PORT, f"127.0.0.1:{port}"))
        self.pulumi("stack", "init", STACK)

    def made(self) -> set[str]:
        """The resources in the state, such as `Bucket::stable-bucket`."""
        parts = [one["urn"].split("::") for one in self.resources(STACK)]
        return {f"{kinds.split(':')[-1]}::{name}" for *_, kinds, name in parts}

    def held(self) -> Holding:
        """What AWS holds, but what controllers write."""
        found = holdings(partial(local_aws.client, port=self.port, region="us-east-1"))
        return {name: facts for name, facts in found.items() if not MEMORY.fullmatch(name)}

    def rewrite(self, changes: dict[str, str]) -> None:
        """Changes the YAML program."""
        program = self.folder / "Pulumi.yaml"
        text = program.read_text()
        for right, other in changes.items():
            assert text.count(right) == 1, right
            text = text.replace(right, other)
        program.write_text(text)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Example]]:
    """Both of them, up."""
    folder = tmp_path_factory.mktemp("examples")
    instance = free_instance(folder / "sandbox", auth=False)
    ministack.start(instance)
    try:
        made = {each: Example(folder, instance.port, each) for each in LANGUAGES}
        made["yaml"].rewrite(UNPROTECTED)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda example: example.up(STACK), made.values()))
        yield made
    finally:
        session.down(instance)


def test_both_languages_make_the_same(examples: dict[str, Example]) -> None:
    yaml, python = (examples[each].made() for each in LANGUAGES)
    assert yaml - python == {"iotota::default"}  # who made them
    # a ring that is removed leaves empty, where the channel knows that it is of its own stack
    assert python - yaml == {
        f"Invocation::stable-controller-ring-{ring}" for ring in ("canary", "broad")
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_second_look_changes_nothing(examples: dict[str, Example], language: str) -> None:
    examples[language].changes_nothing(STACK)


def test_what_operators_read_is_the_same_but_for_the_suffix(examples: dict[str, Example]) -> None:
    yaml, python = (examples[each].outputs(STACK) for each in LANGUAGES)
    suffix = yaml.pop(StackOutput.SUFFIX)
    region = yaml.pop(StackOutput.REGION)
    assert region == python[StackOutput.REGION]
    for name in yaml.keys() - {StackOutput.SIGNING_KEY_ARNS}:
        mine = str(yaml[name]).replace(suffix, python[StackOutput.SUFFIX])
        assert mine == str(python[name]), name


def test_every_mistake_is_told_once_and_nothing_is_changed(examples: dict[str, Example]) -> None:
    example = examples["yaml"]
    before = example.made(), example.held()
    example.rewrite({right: wrong for right, (wrong, _, _) in MISTAKES.items()})
    words = ("up", "--yes", "--skip-preview", "--stack", STACK)
    told = example.pulumi(*words, fails=True).partition("Diagnostics:")[2]
    example.rewrite({wrong: right for right, (wrong, _, _) in MISTAKES.items()})
    for _, begins, holds in MISTAKES.values():
        (line,) = (line for line in told.splitlines() if begins in line)
        assert holds in line
    assert "Traceback" not in told
    assert "<class" not in told
    assert (example.made(), example.held()) == before


def test_a_destroy_ends_the_jobs_before_the_fleet_goes(examples: dict[str, Example]) -> None:
    example = examples["yaml"]
    printed = example.pulumi("destroy", "--yes", "--skip-preview", "--stack", STACK)
    assert example.resources(STACK) == []
    deletions = [line for line in printed.splitlines() if " deleted (" in line]
    (ended,) = (n for n, line in enumerate(deletions) if "stable-controller-jobs-end" in line)
    (group,) = (n for n, line in enumerate(deletions) if "gateways-ring-canary" in line)
    assert ended < group
