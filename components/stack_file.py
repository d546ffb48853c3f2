"""Reads and writes Pulumi.yaml and stack files by Pulumi's rules: the one place, for whatever works
without the Pulumi CLI.

The CLI reads YAML with Go's yaml.v3, which is neither YAML 1.1 (PyYAML) nor 1.2: `yes` and `on` are
text, `0008` is the number 8, `010` is 8 too, and a date becomes text of another form.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
"""The repository: the Pulumi program, its stack files and the sample images."""
PLAIN, TEXT, MERGE = "!plain", "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
"""Tags of a scalar without quotes, of one with, and of `<<`."""
WORDS: dict[str, Any] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **{sign + word: math.inf for sign in ("", "+") for word in (".inf", ".Inf", ".INF")},
    **{"-" + word: -math.inf for word in (".inf", ".Inf", ".INF")},
}
WHOLE = re.compile(r"([-+]?)(?:0x([0-9a-f]+)|0b([01]+)|0o?([0-7]+)|(0|[1-9]\d*))", re.ASCII | re.I)
BASES = (16, 2, 8, 10)
DECIMAL = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)(e[-+]?\d+)?", re.ASCII | re.I)
MOMENT = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)"
    r"(?:[Tt ](\d\d?):(\d\d?):(\d\d?)(?:\.(\d+))?(Z|[-+]\d\d:\d\d)?)?",
    re.ASCII,
)
UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""What YAML takes in an escape only, and JSON as it is."""


class StackFileError(Exception):
    """A stack file or Pulumi.yaml cannot be read; the text says why."""


def read_configuration(stack_file: Path, root: Path = ROOT) -> dict[str, str]:
    """The configuration of a stack as Pulumi hands it to the program: what `root`'s Pulumi.yaml
    gives every stack, then the stack file; text as it stands, all else as JSON.

    Raises StackFileError.

    >>> read_configuration(ROOT / "Pulumi.dev.yaml")["iot-ota:environment"]
    'dev'
    """
    project, stack = read_yaml(root / "Pulumi.yaml"), read_yaml(stack_file)
    given = {
        key: about[how]
        for key, about in (project.get("config") or {}).items()
        if isinstance(about, dict)
        for how in ("default", "value")
        if how in about
    }
    found: dict[str, str] = {}
    for key, value in [*given.items(), *(stack.get("config") or {}).items()]:
        namespace, separator, name = key.replace(":config:", ":").partition(":")
        name = f"{namespace}:{name}" if separator else f"{project['name']}:{key}"
        found[name] = _hand_over(name, value)
    return found


def read_project_name(root: Path = ROOT) -> str:
    """The name in `root`'s Pulumi.yaml. Raises StackFileError."""
    return str(read_yaml(root / "Pulumi.yaml")["name"])


def read_yaml(path: Path) -> dict[str, Any]:
    """What Pulumi reads in a file. Raises StackFileError.

    >>> read_yaml(ROOT / "Pulumi.yaml")["name"]
    'iot-ota'
    """
    try:
        # a SafeLoader
        found = yaml.load(path.read_text(encoding="utf-8"), PulumiLoader) or {}  # noqa: S506
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise StackFileError(f"{path} cannot be read: {why}") from error
    except yaml.YAMLError as error:
        raise StackFileError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise StackFileError(f"{path} holds no keys")
    return found


def to_yaml(content: Mapping[str, Any]) -> str:
    """Text that Pulumi reads as `content`: JSON, in which every text is quoted, is YAML whatever
    the version.

    >>> to_yaml({"serial": "0008"})
    '{\\n "serial": "0008"\\n}\\n'
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def _hand_over(key: str, value: Any) -> str:
    if _is_encrypted(value):
        raise StackFileError(f"{key} is encrypted: only the Pulumi CLI can read it")
    if value is None:
        return ""
    try:
        return value if isinstance(value, str) else json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise StackFileError(f"{key} holds a number without a value: {error}") from error


def _is_encrypted(value: Any) -> bool:
    if isinstance(value, dict):
        alone = set(value) == {"secure"} and isinstance(value["secure"], str)
        return alone or any(map(_is_encrypted, value.values()))
    return isinstance(value, list) and any(map(_is_encrypted, value))


class PulumiLoader(yaml.SafeLoader):
    """Takes a scalar for what yaml.v3 and the CLI take it for; a key that is there twice is an
    error."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is not yaml.ScalarNode:
            return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        if not implicit[0]:
            return TEXT
        return MERGE if value == "<<" else PLAIN

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        written = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in written:
            if written.count(key) > 1:
                problem = f"the key {key!r} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        self.flatten_mapping(node)
        pairs = [
            (self.construct_object(key, deep=True), self.construct_object(value, deep=deep))
            for key, value in node.value
        ]
        return {key if isinstance(key, str) else json.dumps(key): value for key, value in pairs}


def _take(_loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    """What a scalar without quotes is."""
    written: str = node.value
    if written in WORDS:
        return WORDS[written]
    if written[0] not in "+-.0123456789":
        return written
    if moment := _take_moment(written):
        return moment
    plain = written if written[0] == "." else written.replace("_", "")
    if match := WHOLE.fullmatch(plain):
        sign, *digits = match.groups()
        [whole] = [int(sign + text, base) for text, base in zip(digits, BASES, strict=True) if text]
        if -(2**63) <= whole < 2**64:
            return whole
    if DECIMAL.fullmatch(plain) and math.isfinite(number := float(plain)):
        return int(number) if number.is_integer() else number
    return written


def _take_moment(written: str) -> str | None:
    """The text that Go makes of a date or a time; None where it is neither."""
    match = MOMENT.fullmatch(written)
    if match is None or ("t" in written.lower()) != bool(match[8]):
        return None
    year, month, day, hour, minute, second = (int(text or 0) for text in match.groups()[:6])
    try:
        zone = datetime.strptime(match[8] or "Z", "%z").tzinfo
        moment = datetime(year, month, day, hour, minute, second, tzinfo=zone)
    except ValueError:
        return None
    offset = moment.strftime("%z")
    fraction = (match[7] or "")[:9].rstrip("0")
    text = moment.strftime("%Y-%m-%d %H:%M:%S") + (f".{fraction}" if fraction else "")
    return f"{text} {offset} {'UTC' if offset == '+0000' else offset}"


for tag in (PLAIN, *(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float"))):
    PulumiLoader.add_constructor(tag, _take)
