"""The stacks `dev`, `staging` and `prod`, made by the Pulumi CLI in one account at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from ops import local_aws
from rollout.names import StackOutput
from sandbox import ministack, session
from sandbox.instance import Instance
from tests.engine.account import Holding, holdings, named_alike
from tests.engine.cli import Checkout
from tests.sandbox.conftest import free_instance

REGIONS = {"dev": "us-east-1", "staging": "us-east-1", "prod": "eu-central-1"}
PROTECTED = ("staging", "prod")
KEPT = re.compile(
    r"(dynamodb table|iot (group|policy|type)|kms key|logs group|s3 bucket) .*|"
    r"iam role .*-controller|s3 object .*(?<!release\.json)"
)
"""What a protected stack leaves: all that holds devices or their rights, keys, images, the
controller's memory, or evidence; and the role that the key's policy names. (Claim certificates
stay, too, without a policy, and so without a name that tells the stack.)"""
UNTOUCHED = ("dynamodb table", "iot group", "iot type", "kms key", "logs group")
"""Of that: what the end of the rest does not change. Elsewhere go the rights of a function that is
gone, what wakes it, and the certificates of declared devices."""

SETTINGS = (
    "aws:iot/eventConfigurations:EventConfigurations",
    "aws:iot/indexingConfiguration:IndexingConfiguration",
)
"""Types of what an account has once per region."""


class Account:
    """The three stacks, up."""

    def __init__(self, instance: Instance, folder: Path) -> None:
        self.instance = instance
        self.before = self.names()
        self.checkout = Checkout(folder, instance.port)
        for stack in REGIONS:
            self.checkout.add_stack(stack)
        self.at_once(self.checkout.up)
        self.suffixes = {
            stack: str(self.checkout.outputs(stack)[StackOutput.SUFFIX]) for stack in REGIONS
        }

    def held(self, region: str) -> Holding:
        return holdings(partial(local_aws.client, port=self.instance.port, region=region))

    def names(self) -> set[str]:
        """Of all that is there; roles and buckets are listed in each region."""
        return {name for region in {*REGIONS.values()} for name in self.held(region)}

    def of_stack(self, stack: str) -> Holding:
        """What belongs to the stack, by its suffix."""
        found = self.held(REGIONS[stack]).items()
        return {name: facts for name, facts in found if self.suffixes[stack] in name}

    def settings(self) -> Holding:
        """Of the account, in the region of dev and staging."""
        found = self.held(REGIONS["dev"])
        return {name: found[name] for name in ("iot events", "iot indexing")}

    def made_of(self, stack: str) -> Holding:
        """What was made of the stack, without what its controller writes."""
        return named_alike(self.of_stack(stack), self.suffixes[stack])

    def at_once(self, run: Callable[[str], object], *stacks: str) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(run, stacks or REGIONS))


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    folder = tmp_path_factory.mktemp("account")
    instance = free_instance(folder / "sandbox", auth=False)
    ministack.start(instance)
    try:
        yield Account(instance, folder)
    finally:
        session.down(instance)


def test_nothing_differs_from_what_the_program_says(account: Account) -> None:
    account.at_once(account.checkout.changes_nothing)


def test_each_thing_in_the_account_is_of_one_stack(account: Account) -> None:
    assert len(set(account.suffixes.values())) == 3
    owned = {stack: set(account.of_stack(stack)) for stack in REGIONS}
    assert min(len(names) for names in owned.values()) > 30
    assert set().union(*owned.values(), account.before) == account.names()


def test_keys_of_devices_are_secret_or_never_there(account: Account) -> None:
    checkout = account.checkout
    outputs = {stack: checkout.outputs(stack) for stack in REGIONS}
    keys = outputs["dev"][StackOutput.DEVICE_PRIVATE_KEYS]
    assert len(keys) == 3
    assert not outputs["staging"].get(StackOutput.DEVICE_PRIVATE_KEYS)
    assert not outputs["prod"].get(StackOutput.DEVICE_PRIVATE_KEYS)
    texts = [*checkout.said, *(p.read_text() for p in checkout.state.rglob("*") if p.is_file())]
    for secret in (*(pem.splitlines()[1] for pem in keys.values()), checkout.passphrase):
        assert not any(secret in text for text in texts)


@pytest.mark.long
def test_account_settings_are_handed_to_another_stack(account: Account) -> None:
    settings = account.settings()
    assert settings["iot events"]["eventConfigurations"]["JOB"] == {"Enabled": True}
    for stack, owns in (("dev", "false"), ("staging", "true")):
        words = ("config", "set", "iot-ota:ownsAccountSettings", owns, "--stack", stack)
        account.checkout.pulumi(*words)
        account.checkout.up(stack)
        owned = [one for one in account.checkout.resources(stack) if one["type"] in SETTINGS]
        assert len(owned) == (len(SETTINGS) if owns == "true" else 0)
        assert account.settings() == settings
    account.at_once(account.checkout.changes_nothing, "dev", "staging")


def test_destroying_a_stack_takes_nothing_of_the_others_nor_of_a_protected_one(
    account: Account,
) -> None:
    before = {stack: account.made_of(stack) for stack in PROTECTED}

    def destroy(stack: str) -> None:
        words = ("destroy", "--yes", "--stack", stack)
        if stack in PROTECTED:
            assert "protect" in account.checkout.pulumi(*words, fails=True)
        else:
            account.checkout.pulumi(*words, "--skip-preview")

    account.at_once(destroy)
    assert account.of_stack("dev") == {}
    assert account.checkout.resources("dev") == []
    assert {stack: account.made_of(stack) for stack in PROTECTED} == before


def test_a_protected_stack_leaves_what_cannot_be_made_again(account: Account) -> None:
    before = {stack: account.of_stack(stack) for stack in PROTECTED}
    words = ("destroy", "--yes", "--skip-preview", "--exclude-protected", "--stack")
    account.at_once(lambda stack: account.checkout.pulumi(*words, stack), *PROTECTED)
    for stack in PROTECTED:
        left = account.of_stack(stack)
        assert sorted(left) == sorted(name for name in before[stack] if KEPT.fullmatch(name))
        same = [name for name in left if name.startswith(UNTOUCHED)]
        assert {name: left[name] for name in same} == {name: before[stack][name] for name in same}
