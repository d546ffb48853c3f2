"""The one reader of stack files."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.stack_file import StackFileError, read_configuration, read_project_name


def test_a_stack_is_configured_as_pulumi_would(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text(
        "name: small\nconfig:\n  kept: {type: integer, default: 7}\n  changed: {type: string,"
        " default: old}\n  open: {type: object}\n"
    )
    file = tmp_path / "Pulumi.local.yaml"
    file.write_text(
        "config:\n  aws:region: eu-west-1\n  small:changed: new\n  small:open: {a: [1, true]}\n"
    )
    assert read_project_name(tmp_path) == "small"
    assert read_configuration(file, tmp_path) == {
        "aws:region": "eu-west-1",
        "small:kept": "7",
        "small:changed": "new",
        "small:open": '{"a": [1, true]}',
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config: {small:word: {secure: v1:abc}}", "small:word is encrypted"),
        ("config: [", "Pulumi.local.yaml is not YAML"),
        ("config", "Pulumi.local.yaml holds no keys"),
        (None, "Pulumi.local.yaml cannot be read: No such file or directory"),
    ],
)
def test_a_stack_file_of_no_use_says_why(tmp_path: Path, text: str | None, message: str) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: small\n")
    file = tmp_path / "Pulumi.local.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(StackFileError, match=message):
        read_configuration(file, tmp_path)
