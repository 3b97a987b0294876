"""Conditions on columns such as ``energy > 0.7 and not (loudness <= -6)``, parsed and never executed as code.

A condition compares columns with numbers or with texts in quotes (``<  <=  >  >=  ==  !=``), and joins comparisons by ``and``, ``or``,
``not`` and parentheses. A column whose name is not one word is written in backticks.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gpuclust.errors import InputError

COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "=": operator.eq,
}  # fmt: skip
MAX_LENGTH, MAX_DEPTH = 10_000, 50  # characters of a condition; parentheses and negations in each other
_TOKENS = re.compile(
    r"""\s*(?:(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])
    |(?P<comparison><=|>=|==|!=|<|>|=)
    |(?P<text>"[^"]*"|'[^']*')
    |`(?P<quoted>[^`]+)`
    |(?P<word>[^\W\d][\w.]*)
    |(?P<mark>[():]))""",
    re.VERBOSE,
)


class Token(NamedTuple):
    """A part of a condition: its kind (the group of ``_TOKENS``), its text, and where it ends."""

    kind: str
    text: str
    end: int


@dataclass(frozen=True)
class Condition:
    """A condition on the columns of rows: a comparison, or conditions joined by ``and``, ``or``, ``not``.

    ``operation`` is a comparison with ``column`` and ``value``, or one of these words with ``parts``.
    """

    operation: str
    column: str = ""
    value: float | str = 0.0
    parts: tuple[Condition, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it names, each once."""
        own = (self.column,) if self.column else ()
        return tuple(dict.fromkeys((*own, *(name for part in self.parts for name in part.columns))))

    def matches(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which rows meet it, (n_rows,) bool. ``values`` maps each of its columns to (n_rows,) numbers or texts. A row whose value is
        missing (NaN, None) meets no comparison, also not ``!=``.

        Raises InputError where a number is compared with a text.
        """
        if self.operation == "not":
            return np.asarray(~self.parts[0].matches(values))
        if self.operation in ("and", "or"):
            joined = np.logical_and if self.operation == "and" else np.logical_or
            return np.asarray(joined.reduce([part.matches(values) for part in self.parts]))
        column = np.asarray(values[self.column])
        is_text = column.dtype.kind not in "biuf"
        if is_text != isinstance(self.value, str):
            has, compared = ("texts", "a number") if is_text else ("numbers", "a text")
            raise InputError(f"the column {self.column} has {has} and is compared with {compared}: {self.value!r}")
        known = (
            np.array([v is not None and v == v for v in column]) if is_text else ~np.isnan(column.astype(np.float64))
        )
        found = np.zeros(len(column), dtype=bool)
        found[known] = COMPARISONS[self.operation](column[known], self.value)
        return found


def parse_condition(text: str) -> Condition:
    """The condition that a text states. Raises InputError, with the place, where it does not state one."""
    condition, end = _parsed(text)
    if text[end:].strip():
        raise InputError(f"cannot read the condition {text!r} from {text[end:].strip()[:40]!r} on; {HOW}")
    return condition


HOW = 'write conditions such as energy > 0.7 and genre == "rock"'


def parse_rule(line: str) -> tuple[Condition, str]:
    """The condition and the name of a line ``CONDITION: NAME``. Raises InputError where it is not one."""
    condition, end = _parsed(line)
    rest = line[end:].lstrip()
    name = rest[1:].strip()
    if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'":
        name = name[1:-1].strip()
    if not rest.startswith(":") or not name:
        raise InputError(f"cannot read the rule {line.strip()!r}; write it as energy > 0.7 and loudness > -6: Workout")
    return condition, name


def read_rules(text: str) -> list[tuple[Condition, str]]:
    """The rules of a file, one a line; empty lines and lines that begin with ``#`` are skipped.

    Raises InputError, with the number of the line, where one cannot be read.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            found.append(parse_rule(line))
        except InputError as error:
            raise InputError(f"line {number}: {error}") from error
    return found


def _parsed(text: str) -> tuple[Condition, int]:
    """The condition at the beginning of a text, and where it ends."""
    if len(text) > MAX_LENGTH:
        raise InputError(f"a condition of {len(text):,} characters is longer than {MAX_LENGTH:,}")
    reader = _Reader(text)
    return reader.alternatives(0), reader.end


class _Reader:
    """Recursive descent over the tokens of a condition."""

    def __init__(self, text: str) -> None:
        self._text, self.end = text, 0
        self._tokens = self._all()
        self._next = next(self._tokens, None)

    def _all(self) -> Iterator[Token]:
        place = 0
        while (found := _TOKENS.match(self._text, place)) is not None:
            place = found.end()
            kind = str(found.lastgroup)
            yield Token(kind, found[kind], place)

    def _take(self, kind: str, *texts: str) -> Token | None:
        """The next token if it is of a kind, and one of the texts where some are given."""
        token = self._next
        if token is None or token.kind != kind or (texts and token.text.lower() not in texts):
            return None
        self.end, self._next = token.end, next(self._tokens, None)
        return token

    def alternatives(self, depth: int) -> Condition:
        return self._joined("or", depth, self._conjunction)

    def _conjunction(self, depth: int) -> Condition:
        return self._joined("and", depth, self._single)

    def _joined(self, word: str, depth: int, part: Callable[[int], Condition]) -> Condition:
        parts = [part(depth)]
        while self._take("word", word):
            parts.append(part(depth))
        return parts[0] if len(parts) == 1 else Condition(word, parts=tuple(parts))

    def _single(self, depth: int) -> Condition:
        if depth > MAX_DEPTH:
            raise InputError(f"the condition has more than {MAX_DEPTH} levels of parentheses")
        if self._take("word", "not"):
            return Condition("not", parts=(self._single(depth + 1),))
        if self._take("mark", "("):
            inner = self.alternatives(depth + 1)
            if self._take("mark", ")") is None:
                raise self._error("a closing parenthesis")
            return inner
        column = self._take("quoted") or (None if self._is_keyword() else self._take("word"))
        if column is None:
            raise self._error("a column")
        comparison = self._take("comparison")
        if comparison is None:
            raise self._error(f"one of {' '.join(COMPARISONS)}")
        if number := self._take("number"):
            return Condition(comparison.text, column.text, float(number.text))
        if text := self._take("text"):
            return Condition(comparison.text, column.text, text.text[1:-1])
        raise self._error("a number or a text in quotes")

    def _is_keyword(self) -> bool:
        return self._next is not None and self._next.text.lower() in ("and", "or", "not")

    def _error(self, expected: str) -> InputError:
        rest = self._text[self.end :].strip()
        where = f"at {rest[:40]!r}" if rest else "at its end"
        return InputError(
            f"cannot read the condition {self._text.strip()[:200]!r}: {expected} is missing {where}; {HOW}"
        )
