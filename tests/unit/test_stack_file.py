"""The one reader and writer of stack files: it takes a text for what the Pulumi CLI does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import settings
from components.stack_file import (
    ROOT,
    StackFileError,
    read_configuration,
    read_project_name,
    read_yaml,
    to_yaml,
)
from tests.unit.harness import STACKS

SCALARS: dict[str, Any] = {
    "0008": 8,
    "010": 8,
    "08.5": 8.5,
    "0b101": 5,
    "-0b101": -5,
    "0b12": "0b12",
    "0o17": 15,
    "0o8": "0o8",
    "0x1F": 31,
    "-0xff": -255,
    "0x": "0x",
    "+5": 5,
    "1_000": 1000,
    "0_10": 8,
    "1.": 1,
    ".5": 0.5,
    "-.5e2": -50,
    "._5": "._5",
    "1.10": 1.1,
    "1e3": 1000,
    "1e": "1e",
    "1e500": "1e500",
    "1.2.3": "1.2.3",
    "99999999999999999999": 100000000000000000000,
    "yes": "yes",
    "on": "on",
    "n": "n",
    "True": True,
    "FALSE": False,
    "~": None,
    "NULL": None,
    "nan": "nan",
    "-": "-",
    "1:30": "1:30",
    "2001-01-02": "2001-01-02 00:00:00 +0000 UTC",
    "2001-1-2": "2001-01-02 00:00:00 +0000 UTC",
    "2001-02-30": "2001-02-30",
    "2001-01-02 10:11:12": "2001-01-02 10:11:12 +0000 UTC",
    "2001-01-02T10:11:12": "2001-01-02T10:11:12",
    "2001-01-02 10:11:12Z": "2001-01-02 10:11:12Z",
    "2001-01-02t1:2:3.50Z": "2001-01-02 01:02:03.5 +0000 UTC",
    "2001-01-02T10:11:12+02:00": "2001-01-02 10:11:12 +0200 +0200",
    "'0008'": "0008",
    "!!str 5": "5",
    "!!float 5": 5,
}
"""Texts without quotes, and what the Pulumi CLI 3.274 told it had read."""


def write(folder: Path, text: str) -> Path:
    (folder / "Pulumi.yaml").write_text("name: small\n")
    file = folder / "Pulumi.local.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("text", SCALARS)
def test_a_scalar_is_what_pulumi_takes_it_for(tmp_path: Path, text: str) -> None:
    file = write(tmp_path, f"config: {{small:open: {{value: {text}}}}}\n")
    read = json.loads(read_configuration(file, tmp_path)["small:open"])["value"]
    assert (read, type(read)) == (SCALARS[text], type(SCALARS[text]))


def test_a_stack_is_configured_as_pulumi_would(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text(
        "name: small\nconfig:\n  kept: {type: integer, default: 7}\n  changed: {type: string,"
        " default: old}\n  open: {type: object}\n  aws:region: {value: eu-west-1}\n"
    )
    file = tmp_path / "Pulumi.local.yaml"
    file.write_text(
        "config:\n  small:changed: new\n  small:open: {a: [1, true]}\n  short: 1.10\n"
        "  small:config:old: 0008\n  small:empty:\n  small:base: &base {on: 1}\n"
        "  small:merged: {<<: *base, 2: no}\n"
    )
    assert read_project_name(tmp_path) == "small"
    assert read_configuration(file, tmp_path) == {
        "aws:region": "eu-west-1",
        "small:kept": "7",
        "small:changed": "new",
        "small:open": '{"a": [1, true]}',
        "small:short": "1.1",
        "small:old": "8",
        "small:empty": "",
        "small:base": '{"on": 1}',
        "small:merged": '{"on": 1, "2": "no"}',
    }


def test_a_stack_file_that_pulumi_wrote_over_is_the_same_stack(tmp_path: Path) -> None:
    """`pulumi stack init` and `config set` add a salt and write what stands at the top as text."""
    before = "config:\n  small:protect: false\n  small:days: 7\n  small:tags: { a: 1 }\n"
    after = (
        'config:\n  small:protect: "false"\n  small:days: "7"\n  small:tags: {a: 1}\n'
        "encryptionsalt: v1:9QC0bGkSBS0=:v1:RSo+YvjfgDDccDwa:xEGfcFsQC597XazUpStnx/qx2j4p4A==\n"
    )
    old = read_configuration(write(tmp_path, before), tmp_path)
    assert read_configuration(write(tmp_path, after), tmp_path) == old


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config: {small:word: {secure: v1:abc}}", "small:word is encrypted"),
        ("config: {small:word: {a: [{secure: v1:abc}]}}", "small:word is encrypted"),
        ("config: [", "Pulumi.local.yaml is not YAML"),
        ("config: {small:a: {k: 1, k: 2}}", "the key 'k' is there twice"),
        ("config: {small:a: .inf}", "small:a holds a number without a value"),
        ("config", "Pulumi.local.yaml holds no keys"),
        (None, "Pulumi.local.yaml cannot be read: No such file or directory"),
    ],
)
def test_a_stack_file_of_no_use_says_why(tmp_path: Path, text: str | None, message: str) -> None:
    file = write(tmp_path, text or "")
    if text is None:
        file.unlink()
    with pytest.raises(StackFileError, match=message):
        read_configuration(file, tmp_path)


TEXTS = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda t: not t.startswith("\n"))
"""The CLI itself loses a line break at the head of a text, for it writes and reads once more."""
WORDS = st.sampled_from(sorted(SCALARS)) | TEXTS
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(WORDS, VALUES, max_size=4))
def test_what_is_written_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    file = tmp_path_factory.mktemp("written") / "file.yaml"
    file.write_text(to_yaml(content), encoding="utf-8")
    assert read_yaml(file) == content


@pytest.mark.parametrize("stack", STACKS)
def test_a_copy_of_a_stack_file_configures_the_same(tmp_path: Path, stack: str) -> None:
    file = ROOT / f"Pulumi.{stack}.yaml"
    copy = tmp_path / file.name
    copy.write_text(to_yaml(read_yaml(file)))
    assert read_configuration(copy) == read_configuration(file)


@pytest.mark.parametrize("stack", STACKS)
def test_each_stack_file_stays_what_it_is_when_pulumi_writes_over_it(
    tmp_path: Path, stack: str
) -> None:
    """As `pulumi stack init` writes: values at the top as text, and a salt."""
    file = ROOT / f"Pulumi.{stack}.yaml"
    config = {
        key: value if isinstance(value, dict | list) else read_configuration(file)[key]
        for key, value in read_yaml(file)["config"].items()
    }
    copy = tmp_path / file.name
    copy.write_text(to_yaml({"config": config, "encryptionsalt": "v1:9QC0bGkSBS0="}))
    assert settings.read(read_configuration(copy)) == settings.read(read_configuration(file))
