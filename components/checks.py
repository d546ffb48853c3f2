"""Reads parsed configuration: each key against what it may hold, every mistake noted with the line
that fixes it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from rollout.codec import shown
from rollout.release import SEMVER, Version

T = TypeVar("T")
D = TypeVar("D")
L = TypeVar("L", bound=str)

UNQUOTED = "is no text, write it in quotes: "
PLAIN_KEY = re.compile(r"[A-Za-z0-9_.:/@+=-]{1,80}")


@dataclass(frozen=True)
class Mistake:
    """One mistake: the key's full path, what stands there, what is allowed and why, and the line or
    command that fixes it."""

    path: str
    value: str
    allowed: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path}: {self.value}; {self.allowed}; {self.fix}"


@dataclass(frozen=True)
class Kind(Generic[T]):
    """What a key may hold: `read` turns JSON into T or raises ValueError with what is allowed and
    why.

    `example` is a right value as JSON: the fix shows it, and where the value is wrong it stands in,
    so that reading goes on.
    """

    read: Callable[[Any], T]
    example: Any
    allowed: str

    def instead(self, example: Any) -> Kind[T]:
        """The same kind with another example."""
        return Kind(self.read, example, self.allowed)


def text(pattern: str, allowed: str, example: str) -> Kind[str]:
    """Text that `pattern` (a regular expression) matches from end to end."""

    def read(value: Any) -> str:
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return value
        raise ValueError(allowed if isinstance(value, str) else f"{UNQUOTED}{allowed}")

    return Kind(read, example, allowed)


def version(example: str, pattern: str = ".*", why: str = "") -> Kind[str]:
    """A semantic version in quotes that also matches `pattern`; a leading `v` is taken off."""
    allowed = (
        "must be a semantic version (semver.org), in quotes: YAML makes the number 2.1 of an"
        f" unquoted 2.10{why}"
    )

    def read(value: Any) -> str:
        if isinstance(value, str) and SEMVER.fullmatch(value) and re.fullmatch(pattern, value):
            return Version(value).text
        raise ValueError(allowed)

    return Kind(read, example, allowed)


def choice(*names: L, why: str, hints: dict[str, str] | None = None) -> Kind[L]:
    """One of some words. `hints` answers words that are often written and are not among them."""
    allowed = f"must be {' or '.join(names)} ({why})"

    def read(value: Any) -> L:
        found = next((name for name in names if name == value), None)
        hint = (hints or {}).get(value) if isinstance(value, str) else None
        return found if found is not None else _refuse(f"{allowed}: {hint}" if hint else allowed)

    return Kind(read, names[0], allowed)


def whole(low: int, high: int, why: str, example: int) -> Kind[int]:
    """A whole number from `low` to `high`."""
    allowed = f"must be a whole number from {low} to {high} ({why})"

    def read(value: Any) -> int:
        return (
            value
            if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
            else _refuse(allowed)
        )

    return Kind(read, example, allowed)


def number(low: float, high: float, places: int, why: str, example: float) -> Kind[float]:
    """A number from `low` to `high` with at most `places` decimals."""
    allowed = (
        f"must be a number from {low:g} to {high:g} with at most {places}"
        f" decimal{'s' * (places > 1)} ({why})"
    )

    def read(value: Any) -> float:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            _refuse(allowed)  # NaN is not within any limits
        return float(value) if float(value) == round(float(value), places) else _refuse(allowed)

    return Kind(read, example, allowed)


def one_of(values: Iterable[int], why: str, example: int) -> Kind[int]:
    """One of some whole numbers."""
    known = tuple(values)
    allowed = f"must be one of {', '.join(map(str, known))} ({why})"

    def read(value: Any) -> int:
        return (
            value
            if isinstance(value, int) and not isinstance(value, bool) and value in known
            else _refuse(allowed)
        )

    return Kind(read, example, allowed)


def flag(example: bool) -> Kind[bool]:
    """true or false."""
    allowed = "must be true or false, without quotes"
    return Kind(
        lambda value: value if isinstance(value, bool) else _refuse(allowed), example, allowed
    )


def parsed(parse: Callable[[str], object], allowed: str, example: str) -> Kind[str]:
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


def near(word: str, known: Iterable[str]) -> str:
    """`did you mean …?` where a known word is close, else the known words."""
    names = sorted(known)
    close = difflib.get_close_matches(word[:64], names, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(names) or 'none'}"


class Section:
    """One object of the configuration. To read a key makes it known; `close` notes every key that
    nobody has read.

    A required object that is missing is one mistake: `mistakes` of what is read inside it go
    nowhere.
    """

    def __init__(self, path: str, data: Any, mistakes: list[Mistake], separator: str = ".") -> None:
        self.path, self.mistakes = path, mistakes
        self.data: dict[str, Any] = data if isinstance(data, dict) else {}
        self._separator = separator
        self._known: set[str] = set()

    def place(self, key: str) -> str:
        """The key's full path; a key that is no plain word stands as JSON, so that any text can be
        shown."""
        return f"{self.path}{self._separator}{key if PLAIN_KEY.fullmatch(key) else shown(key)}"

    def line(self, key: str, example: str) -> str:
        """The line to write. Top-level keys carry their namespace in a stack file; YAML 1.1 takes
        an unquoted `on` for true."""
        name = self.place(key) if self._separator == ":" else key
        return f"write {json.dumps(name) if name == 'on' else name}: {example}"

    def raw(self, key: str) -> Any:
        """The value as it stands; None where it is absent or null (an empty value in YAML)."""
        self._known.add(key)
        return self.data.get(key)

    def required(self, key: str, kind: Kind[T]) -> T:
        if self.raw(key) is None:
            self.note(
                self.place(key), "missing", kind.allowed, self.line(key, json.dumps(kind.example))
            )
            return _example(kind)
        return self._read(key, kind)

    def optional(self, key: str, kind: Kind[T], default: D) -> T | D:
        return default if self.raw(key) is None else self._read(key, kind)

    def section(self, key: str, example: str | None = None) -> Section:
        """The object at `key`. `example` is its YAML where it is required; without one, absent
        means empty."""
        value = self.raw(key)
        if value is None and example is not None:
            self.note(self.place(key), "missing", "is required", self.line(key, example))
            return Section(self.place(key), {}, [])
        if value is not None and not isinstance(value, dict):
            self.wrong(key, "must be an object: keys and values", self.line(key, example or "{}"))
            return Section(self.place(key), {}, [])
        return Section(self.place(key), value, self.mistakes)

    def rows(self, key: str, allowed: str, example: str) -> list[Section]:
        """The objects of the list at `key`; no objects where it is absent."""
        rows = []
        for index, value in enumerate(self.items(key, allowed, example)):
            if isinstance(value, dict):
                rows.append(Section(f"{self.place(key)}[{index}]", value, self.mistakes))
            else:
                self.note(
                    f"{self.place(key)}[{index}]", shown(value), allowed, self.line(key, example)
                )
        return rows

    def items(self, key: str, allowed: str, example: str) -> list[Any]:
        """The list at `key`; an empty one where it is absent."""
        value = self.raw(key)
        if value is None or isinstance(value, list):
            return value or []
        self.wrong(key, allowed, self.line(key, example))
        return []

    def item(self, key: str, index: int, value: Any, kind: Kind[T]) -> T:
        """One value of a list, read as `kind`."""
        return self._read_at(
            f"{self.place(key)}[{index}]", value, kind, f"write {json.dumps(kind.example)}"
        )

    def check_key(self, key: str, kind: Kind[str]) -> None:
        """Notes a free key that is not what `kind` allows."""
        try:
            kind.read(key)
        except ValueError as error:
            self.wrong(key, str(error), f"write a key such as {kind.example}")

    def wrong(self, key: str, allowed: str, fix: str) -> None:
        self.note(self.place(key), shown(self.data.get(key)), allowed, fix)

    def note(self, path: str, value: str, allowed: str, fix: str) -> None:
        self.mistakes.append(Mistake(path, value, allowed, fix))

    def good(self, *keys: str) -> bool:
        """Whether nothing is wrong at these keys, or inside them."""
        starts = tuple(self.place(key) for key in keys)
        return not any(
            re.match(rf"{re.escape(start)}(?:[.\[]|$)", m.path)
            for m in self.mistakes
            for start in starts
        )

    def close(self) -> None:
        """Notes the unknown keys. Call it when all keys are read."""
        for key in sorted(set(self.data) - self._known):
            self.wrong(
                key,
                f"is not a key here: {near(key, self._known)}",
                f"remove or correct {shown(key)}",
            )

    def _read(self, key: str, kind: Kind[T]) -> T:
        return self._read_at(
            self.place(key), self.data[key], kind, self.line(key, json.dumps(kind.example))
        )

    def _read_at(self, path: str, value: Any, kind: Kind[T], fix: str) -> T:
        try:
            return kind.read(value)
        except ValueError as error:
            self.note(path, shown(value), str(error), fix)
            return _example(kind)


def _example(kind: Kind[T]) -> T:
    return kind.read(kind.example)
