"""Reads a stack file as Pulumi does: the one reader, for whatever works without the Pulumi CLI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
"""The repository: the Pulumi program, its stack files and the sample images."""


class StackFileError(Exception):
    """A stack file or Pulumi.yaml cannot be read; the text says why."""


def read_configuration(stack_file: Path, root: Path = ROOT) -> dict[str, str]:
    """The configuration of a stack as Pulumi hands it to the program: the defaults in `root`'s
    Pulumi.yaml, then the stack file; text as it stands, all else as JSON.

    Raises StackFileError.

    >>> read_configuration(ROOT / "Pulumi.dev.yaml")["iot-ota:environment"]
    'dev'
    """
    project = _read(root / "Pulumi.yaml")
    defaults = {
        f"{project['name']}:{key}": about["default"]
        for key, about in (project.get("config") or {}).items()
        if isinstance(about, dict) and "default" in about
    }
    config = {**defaults, **(_read(stack_file).get("config") or {})}
    return {key: _text(key, value) for key, value in config.items()}


def read_project_name(root: Path = ROOT) -> str:
    """The name in `root`'s Pulumi.yaml. Raises StackFileError."""
    return str(_read(root / "Pulumi.yaml")["name"])


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text()) or {}
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise StackFileError(f"{path} cannot be read: {why}") from error
    except yaml.YAMLError as error:
        raise StackFileError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise StackFileError(f"{path} holds no keys")
    return found


def _text(key: str, value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"secure"}:
        raise StackFileError(f"{key} is encrypted: only the Pulumi CLI can read it")
    return value if isinstance(value, str) else json.dumps(value, default=str)
