"""Stack files by the Pulumi CLI and by `components.stack_file`: both read the same."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from components.stack_file import ROOT, read_configuration, to_yaml
from tests.unit.harness import STACKS
from tests.unit.test_stack_file import SCALARS, VALUES

FEW = settings(
    max_examples=5,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
"""Each example holds many values, and none is made smaller: the CLI takes most of a second to
start."""
PLAIN = st.text("0123456789.-+_:eExobTZnyNf~", min_size=1, max_size=9).filter(
    # what YAML does not take for one scalar
    lambda text: text[0] not in "-:~" and ":" not in text[-1:]
)
SMALL = st.integers(-(2**53), 2**53).map(str)


class Reader:
    """`pulumi config` on stack files of a project that has no more than its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "Pulumi.yaml").write_text("name: small\nruntime: yaml\n")
        self.pulumi("stack", "init", "one", "--no-select")

    def pulumi(self, *words: str, folder: Path | None = None) -> str:
        own = {
            "PULUMI_BACKEND_URL": self.folder.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "x",
            "PULUMI_HOME": str(self.folder / "home"),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
        return subprocess.run(
            ["pulumi", "--non-interactive", "--cwd", str(folder or self.folder), *words],
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def read(self, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the CLI reads, and what we read."""
        file = self.folder / "some.yaml"
        file.write_text(text, encoding="utf-8")
        said = self.pulumi("config", "--json", "--stack", "one", "--config-file", str(file))
        cli = {key: value["value"] for key, value in json.loads(said).items()}
        ours = read_configuration(file, self.folder)
        return {k: plain(v) for k, v in cli.items()}, {k: plain(v) for k, v in ours.items()}


def plain(text: str) -> str:
    """JSON in one form: numbers are what they are as a float, and true is not 1."""

    def number(written: str) -> float:
        return float(written) + 0.0  # which makes -0.0 the same as 0.0

    return json.dumps(json.loads(text, parse_int=number, parse_float=number), sort_keys=True)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(tmp_path_factory.mktemp("reader"))


def test_the_table_of_scalars_is_what_the_cli_says(reader: Reader) -> None:
    lines = [f"  small:open{i}: [{text}]" for i, text in enumerate(SCALARS)]
    cli, ours = reader.read("\n".join(["config:", *lines]))
    table = {f"small:open{i}": plain(json.dumps([v])) for i, v in enumerate(SCALARS.values())}
    assert cli == table
    assert ours == table


@FEW
@given(texts=st.lists(PLAIN | SMALL, min_size=100, max_size=200))
def test_a_scalar_without_quotes_is_the_same_to_both(reader: Reader, texts: list[str]) -> None:
    lines = [f"  small:open{i}: [{text}]" for i, text in enumerate(texts)]
    cli, ours = reader.read("\n".join(["config:", *lines]))
    assert ours == cli


@FEW
@given(values=st.lists(VALUES, min_size=50, max_size=100))
def test_the_cli_reads_what_we_wrote(reader: Reader, values: list[Any]) -> None:
    config = {f"small:open{i}": [value] for i, value in enumerate(values)}
    cli, ours = reader.read(to_yaml({"config": config}))
    written = {key: plain(json.dumps(value)) for key, value in config.items()}
    differ = sorted(k for k in written if not written[k] == ours[k] == cli[k])
    assert [(written[k], ours[k], cli[k]) for k in differ] == []


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_file_that_the_cli_wrote_over_is_the_same_stack(
    tmp_path: Path, reader: Reader, stack: str
) -> None:
    name = f"Pulumi.{stack}.yaml"
    for file in ("Pulumi.yaml", name):
        (tmp_path / file).write_text((ROOT / file).read_text())
    before = read_configuration(tmp_path / name)
    reader.pulumi("stack", "init", stack, "--no-select", folder=tmp_path)
    assert "encryptionsalt" in (tmp_path / name).read_text()
    assert read_configuration(tmp_path / name) == before
