"""Reads parsed configuration: each key against what it may hold, each mistake with its fix."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import pulumi

from rollout.codec import camel_case, show_value
from rollout.version import SEMVER, Version

V = TypeVar("V")
D = TypeVar("D")
L = TypeVar("L", bound=str)

UNQUOTED = "is no text, write it in quotes: "
PLAIN_KEY = re.compile(r"[A-Za-z0-9_.:/@+=\[\]-]{1,120}")


@dataclass(frozen=True)
class Mistake:
    """A key's full path, what stands there, what is allowed and why, and the line that fixes it."""

    path: str
    value: str
    allowed: str
    fix: str

    @property
    def reason(self) -> str:
        return f"{self.value}; {self.allowed}; {self.fix}"

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class MistakesError(pulumi.RunError):
    """`mistakes` are all of them, one line each; `found` are the same. Pulumi shows a RunError
    without traceback."""

    def __init__(self, what: str, outcome: str, mistakes: Sequence[Mistake]) -> None:
        self.found = tuple(mistakes)
        self.mistakes = [str(mistake) for mistake in mistakes]
        count = f"{len(mistakes)} mistake{'s' * (len(mistakes) > 1)}"
        super().__init__("\n  ".join([f"{what} has {count}; {outcome}:", *self.mistakes]))


@dataclass(frozen=True)
class Kind(Generic[V]):
    """What a key may hold: `read` turns JSON into V, or raises ValueError with what is allowed.

    `example` is a right value as JSON: the fix shows it, and it stands in for a wrong value.
    """

    read: Callable[[Any], V]
    example: Any
    allowed: str

    def with_example(self, example: Any) -> Kind[V]:
        return Kind(self.read, example, self.allowed)


def checked(is_right: Callable[[Any], object], allowed: str, example: V) -> Kind[V]:
    """A value that `is_right`, as it stands."""

    def read(value: Any) -> V:
        if is_right(value):
            return value  # type: ignore[no-any-return]
        raise ValueError(allowed)

    return Kind(read, example, allowed)


def text(pattern: str, allowed: str, example: str) -> Kind[str]:
    """Text that `pattern` (a regular expression) matches from end to end."""

    def read(value: Any) -> str:
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return value
        raise ValueError(allowed if isinstance(value, str) else f"{UNQUOTED}{allowed}")

    return Kind(read, example, allowed)


def version(example: str, pattern: str = ".*", why: str = "") -> Kind[Version]:
    """A semantic version in quotes that also matches `pattern`; a leading `v` is taken off."""
    allowed = (
        "must be a semantic version (semver.org), in quotes: YAML makes the number 2.1 of an"
        f" unquoted 2.10{why}"
    )

    def read(value: Any) -> Version:
        if isinstance(value, str) and SEMVER.fullmatch(value) and re.fullmatch(pattern, value):
            return Version(value)
        raise ValueError(allowed)

    return Kind(read, example, allowed)


def choice(*names: L, why: str, hints: dict[str, str] | None = None) -> Kind[L]:
    """One of some words. `hints` answers words that are often written and are not among them."""
    allowed = f"must be {' or '.join(names)} ({why})"

    def read(value: Any) -> L:
        hint = (hints or {}).get(value) if isinstance(value, str) else None
        found = (name for name in names if name == value)
        return next(found, None) or _refuse(f"{allowed}: {hint}" if hint else allowed)

    return Kind(read, names[0], allowed)


def whole_number(low: int, high: int, why: str, example: int) -> Kind[int]:
    allowed = f"must be a whole number from {low} to {high} ({why})"
    return checked(lambda value: type(value) is int and low <= value <= high, allowed, example)


def one_of(known: Sequence[int], why: str, example: int) -> Kind[int]:
    """One of some whole numbers."""
    allowed = f"must be one of {', '.join(map(str, known))} ({why})"
    return checked(lambda value: type(value) is int and value in known, allowed, example)


def number(low: float, high: float, places: int, why: str, example: float) -> Kind[float]:
    """A number from `low` to `high` with at most `places` decimals."""
    decimals = f"{places} decimal{'s' * (places > 1)}"
    allowed = f"must be a number from {low:g} to {high:g} with at most {decimals} ({why})"

    def read(value: Any) -> float:
        # NaN is not within any limits
        is_right = type(value) in (int, float) and low <= value <= high
        return float(value) if is_right and value == round(value, places) else _refuse(allowed)

    return Kind(read, example, allowed)


def boolean(example: bool) -> Kind[bool]:
    allowed = "must be true or false, without quotes"
    return checked(lambda value: isinstance(value, bool), allowed, example)


def parsed_text(parse: Callable[[str], object], allowed: str, example: str) -> Kind[str]:
    """Text that `parse` takes; its ValueError says what is wrong."""

    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{UNQUOTED}{allowed}")
        try:
            parse(value)
        except ValueError as error:
            raise ValueError(f"{allowed}: {error}") from error
        return value

    return Kind(read, example, allowed)


def _refuse(allowed: str) -> NoReturn:
    raise ValueError(allowed)


def suggest(word: str, known: Iterable[str]) -> str:
    """`did you mean …?` where a known word is close, else the known words."""
    names = sorted(known)
    close = difflib.get_close_matches(word[:64], names, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(names) or 'none'}"


def _show_key(key: str) -> str:
    """A key that is no plain word as JSON, so that any text can be shown."""
    return key if PLAIN_KEY.fullmatch(key) else show_value(key)


class Section:
    """One object of the configuration. What is read is known; `refuse_unknown_keys` comes last.

    A required object that is missing is one mistake: those of what is read inside it go nowhere.
    """

    def __init__(self, path: str, data: Any, mistakes: list[Mistake], separator: str = ".") -> None:
        self.path, self.mistakes = path, mistakes
        self.data: dict[str, Any] = data if isinstance(data, dict) else {}
        self._separator = separator
        self._known: set[str] = set()

    def key_path(self, key: str) -> str:
        """The key's full path."""
        return f"{self.path}{self._separator}{_show_key(key)}"

    def format_fix(self, key: str, example: str) -> str:
        """The line to write: top-level keys have a namespace, and YAML takes `on` for true."""
        name = self.key_path(key) if self._separator == ":" else _show_key(key)
        return f"write {json.dumps(name) if name == 'on' else name}: {example}"

    # Reading

    def get(self, key: str) -> Any:
        """The value as it stands; None where it is absent or null (an empty value in YAML)."""
        self._known.add(key)
        return self.data.get(key)

    def require(self, key: str, kind: Kind[V]) -> V:
        fix = self.format_fix(key, json.dumps(kind.example))
        if (value := self.get(key)) is None:
            self.add_mistake(key, kind.allowed, fix, "missing")
            return kind.read(kind.example)
        return self._read_as(key, value, kind, fix)

    def read(self, key: str, kind: Kind[V], default: D) -> V | D:
        return default if self.get(key) is None else self.require(key, kind)

    def read_record(self, record: type[V], kinds: Mapping[str, Kind[Any]], **others: Any) -> V:
        """A dataclass of `others` and of `kinds` by field; fields without default are required."""
        defaults = {field.name: field.default for field in dataclasses.fields(record)}  # type: ignore[arg-type]
        values = {
            name: self.require(camel_case(name), kind)
            if defaults[name] is dataclasses.MISSING
            else self.read(camel_case(name), kind, defaults[name])
            for name, kind in kinds.items()
        }
        return record(**values, **others)

    def read_map(self, key_kind: Kind[str], kind: Kind[V]) -> dict[str, V]:
        """The whole section as an object of free keys."""
        for key in self.data:
            try:
                key_kind.read(key)
            except ValueError as error:
                self.add_mistake(key, str(error), f"write a key such as {key_kind.example}")
        return {key: self.require(key, kind) for key in sorted(self.data)}

    def subsection(self, key: str, example: str | None = None) -> Section:
        """The object at `key`: required where `example` is its YAML, else absent means empty."""
        value, fix = self.get(key), self.format_fix(key, example or "{}")
        if isinstance(value, dict) or (value is None and example is None):
            return Section(self.key_path(key), value, self.mistakes)
        if value is None:
            self.add_mistake(key, "is required", fix, "missing")
        else:
            self.add_mistake(key, "must be an object: keys and values", fix)
        return Section(self.key_path(key), {}, [])

    def read_object(
        self, key: str, record: type[V], kinds: Mapping[str, Kind[Any]], example: str | None = None
    ) -> V:
        """The object at `key` as a dataclass, as `subsection` and `read_record` say."""
        section = self.subsection(key, example)
        made = section.read_record(record, kinds)
        section.refuse_unknown_keys()
        return made

    def read_rows(
        self, key: str, record: type[V], kinds: Mapping[str, Kind[Any]], allowed: str, example: str
    ) -> dict[str, V]:
        """The objects of the list at `key` as dataclasses, by keys such as `rings[0]`; none where
        it is absent."""
        made = {}
        for index, value in enumerate(self.get_list(key, allowed, example)):
            if isinstance(value, dict):
                row = Section(f"{self.key_path(key)}[{index}]", value, self.mistakes)
                made[f"{key}[{index}]"] = row.read_record(record, kinds)
                row.refuse_unknown_keys()
            else:
                fix = self.format_fix(key, example)
                self.add_mistake(f"{key}[{index}]", allowed, fix, show_value(value))
        return made

    def read_list(self, key: str, kind: Kind[V], allowed: str, example: str) -> tuple[V, ...]:
        """The values of the list at `key`, none where it is absent."""
        values = enumerate(self.get_list(key, allowed, example))
        return tuple(self.read_item(key, index, value, kind) for index, value in values)

    def get_list(self, key: str, allowed: str, example: str) -> list[Any]:
        """The list at `key`; an empty one where it is absent."""
        value = self.get(key)
        if value is None or isinstance(value, list):
            return value or []
        self.add_mistake(key, allowed, self.format_fix(key, example))
        return []

    def read_item(self, key: str, index: int, value: Any, kind: Kind[V]) -> V:
        """One value of a list."""
        return self._read_as(f"{key}[{index}]", value, kind, f"write {json.dumps(kind.example)}")

    def _read_as(self, key: str, value: Any, kind: Kind[V], fix: str) -> V:
        try:
            return kind.read(value)
        except ValueError as error:
            self.add_mistake(key, str(error), fix, show_value(value))
            return kind.read(kind.example)

    # Mistakes

    def add_mistake(self, key: str, allowed: str, fix: str, found: str | None = None) -> None:
        """What stands at `key`, or in short what was `found` there, is not allowed."""
        value = show_value(self.data.get(key)) if found is None else found
        self.mistakes.append(Mistake(self.key_path(key), value, allowed, fix))

    def has_no_mistakes_at(self, *keys: str) -> bool:
        """Whether nothing is wrong at these keys, or inside them."""
        starts = tuple(re.escape(self.key_path(key)) for key in keys)
        inside = re.compile(rf"(?:{'|'.join(starts)})(?:[.\[]|$)")
        return not any(inside.match(mistake.path) for mistake in self.mistakes)

    def refuse_repeated(self, key: str, names: Iterable[str], why: str, fix: str) -> None:
        """Each name that stands more than once in the list at `key` is a mistake."""
        repeated = [name for name, count in Counter(names).items() if count > 1]
        for name in repeated if self.has_no_mistakes_at(key) else ():
            self.add_mistake(key, f"stands there twice: {why}", fix, show_value(name))

    def refuse_unknown_keys(self) -> None:
        """Call it when all keys are read."""
        for key in sorted(set(self.data) - self._known):
            allowed = f"is not a key here: {suggest(key, self._known)}"
            self.add_mistake(key, allowed, f"remove or correct {show_value(key)}")
