"""Conditions of policies: CEL expressions over the typed facts of ``engine/match_facts.py``.

CEL is checked when it is compiled: a name that no fact has, or a comparison that no types allow, is
a fault with its place in the text. What is left to go wrong when it runs, such as a label that is
not there, raises ConditionError.

A condition must end in time whatever a person writes. CEL bounds loops and nesting by itself, but
not the length of the values that an expression builds: eight nested macros that each join a text to
itself make gigabytes. So a condition is at most 1,000 characters long, macros nest at most twice,
and nothing is built or matched by a pattern within a macro.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import cache
from typing import Any, Final

import msgspec
from cel_expr_python import cel  # type: ignore[import-untyped]  # it has no stubs
from cel_expr_python.ext import ext_optional  # type: ignore[import-untyped]  # the same

from remediator.engine.match_facts import NONE, VARIABLES, FactType
from remediator.engine.rules import ConditionError, SubjectKind
from remediator.typed_tree import did_you_mean

LENGTH_MAX: Final = 1000
NESTING_MAX: Final = 2  # of macros: all, exists, exists_one, filter
_MACROS = frozenset({"all", "exists", "exists_one", "filter"})
_REFUSED = frozenset({"map", "optMap", "optFlatMap"})  # they build values of any size

_TYPES: dict[FactType, Any] = {
    FactType.BOOL: cel.Type.BOOL,
    FactType.INT: cel.Type.INT,
    FactType.DOUBLE: cel.Type.DOUBLE,
    FactType.STRING: cel.Type.STRING,
    FactType.DURATION: cel.Type.DURATION,
    FactType.STRINGS: cel.Type.List(cel.Type.STRING),
    FactType.LABELS: cel.Type.Map(cel.Type.STRING, cel.Type.STRING),
}

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
      | (?P<raw>[bB]?[rR][bB]?(?:\"\"\"[\s\S]*?\"\"\"|'''[\s\S]*?'''|"[^"\n]*"|'[^'\n]*'))
      | (?P<text>[bB]?(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''
                 |"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
      | (?P<number>0[xX][0-9a-fA-F]+|[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<sign>[\s\S])""",
    re.VERBOSE,
)
_FAULT = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_UNDECLARED = re.compile(r"undeclared reference to '([^']*)'")
_OVERLOAD = re.compile(r"found no matching overload for '([^']*)' applied to '\(?(.*?)\)?'$")
_SIGNS = {"_+_": "+", "_-_": "-", "_*_": "*", "_/_": "/", "_%_": "%", "@in": "in", "_[_]": "[ ]"}
_PLAIN_TYPES = {"google.protobuf.Duration": "duration", "google.protobuf.Timestamp": "timestamp"}
_STATUS = re.compile(r"^[A-Z_]+: | \[[A-Z_]+\]$")


class ConditionFault(msgspec.Struct, frozen=True):
    """What is wrong with an expression, and where in it; both count from 1."""

    line: int
    column: int
    text: str

    def shown(self, expression: str) -> str:
        """Return the message, with the line that it is about and a caret under the place."""
        lines = expression.split("\n")
        if not 1 <= self.line <= len(lines):
            return self.text
        line = lines[self.line - 1].replace("\t", " ").rstrip()
        if not line:
            return self.text
        start = max(0, self.column - 60)
        return (
            f"{self.text}\n    {line[start : start + 90]}\n    {' ' * (self.column - 1 - start)}^"
        )


class ConditionFaultsError(Exception):
    """An expression that is no condition; ``faults`` has all that was found."""

    def __init__(self, faults: list[ConditionFault]) -> None:
        super().__init__("; ".join(fault.text for fault in faults))
        self.faults = tuple(faults)


class _Token(msgspec.Struct, frozen=True):
    kind: str
    text: str
    at: int


class CelCondition:
    """A compiled condition. Raises ConditionFaultsError where the text is none."""

    def __init__(self, text: str, kind: SubjectKind) -> None:
        self._text = text
        self._kind = kind
        tokens = list(_tokens(text))
        faults = list(_forbidden(text, tokens)) or list(_literals(text, tokens))
        if faults:
            raise ConditionFaultsError(faults)
        try:
            self._compiled = _environment(kind).compile(text)
        except RuntimeError as error:
            raise ConditionFaultsError(list(_explained(text, str(error), kind))) from error
        given = self._compiled.return_type()
        if given != cel.Type.BOOL:
            said = f"gives {_plain_type(given.name().lower())}, where true or false is needed"
            raise ConditionFaultsError([ConditionFault(1, 1, said)])
        used = _dotted_words(tokens)
        self._names = tuple(name for name in VARIABLES[kind] if name in used)
        self._reads = tuple((name, VARIABLES[kind][name].type) for name in self._names)
        self.literals = frozenset(
            token.text.strip("'\"") for token in tokens if token.kind in ("text", "raw")
        )

    @property
    def text(self) -> str:
        """The expression as it was written."""
        return self._text

    @property
    def names(self) -> tuple[str, ...]:
        """The facts that it reads, by name."""
        return self._names

    def __eq__(self, other: object) -> bool:
        """Whether it is the same expression about the same kind of subject."""
        return isinstance(other, CelCondition) and (self._text, self._kind) == (
            other._text,
            other._kind,
        )

    def __hash__(self) -> int:
        """Return a hash of the expression."""
        return hash((self._text, self._kind))

    def __repr__(self) -> str:
        """Return the expression."""
        return f"CelCondition({self._text!r})"

    def holds(self, facts: Mapping[str, object]) -> bool:
        """Evaluate it. Raises ConditionError: what CEL gives for an error is a value, and true."""
        try:
            data = {name: _value(kind, facts[name]) for name, kind in self._reads}
            value = self._compiled.eval(data=data)
        except KeyError as error:
            raise ConditionError(f"{error.args[0]} is not known here") from error
        except (RuntimeError, TypeError, ValueError, OverflowError) as error:
            raise ConditionError(_short(str(error))) from error
        if value.type() != cel.Type.BOOL:
            raise ConditionError(_short(str(value.plain_value())))
        return value.plain_value() is True

    def without_facts(self) -> str:
        """Return what goes wrong where nothing is known of a subject, or ""."""
        try:
            self.holds({name: NONE[kind] for name, kind in self._reads})
        except ConditionError as error:
            return str(error)
        return ""


def _value(kind: FactType, value: object) -> object:
    match kind:
        case FactType.DURATION:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{value!r} is no duration")
            return timedelta(seconds=value)
        case FactType.DOUBLE:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{value!r} is no number")
            return float(value)
        case _:
            return value


def _short(text: str) -> str:
    plain = " ".join(_STATUS.sub("", text).split())
    return plain if len(plain) <= 200 else f"{plain[:199]}…"


@cache
def _environment(kind: SubjectKind) -> Any:
    variables = {name: _TYPES[each.type] for name, each in VARIABLES[kind].items()}
    return cel.NewEnv(variables=variables, extensions=[ext_optional.ExtOptional()])


# --- what is refused before CEL sees it -----------------------------------------------------------


def _tokens(text: str) -> Iterator[_Token]:
    if len(text) > LENGTH_MAX:
        return
    for found in _TOKEN.finditer(text):
        if found.lastgroup != "space":
            yield _Token(str(found.lastgroup), found.group(), found.start())


def _place(text: str, at: int) -> tuple[int, int]:
    before = text[:at]
    return before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1


def _forbidden(text: str, tokens: list[_Token]) -> Iterator[ConditionFault]:
    if len(text) > LENGTH_MAX:
        yield ConditionFault(1, 1, f"is longer than {LENGTH_MAX} characters")
        return
    if not tokens:
        yield ConditionFault(1, 1, "is empty")
        return
    open_macros: list[bool] = []  # per open bracket: whether a macro's
    for at, token in enumerate(tokens):
        before = tokens[at - 1] if at else None
        after = tokens[at + 1] if at + 1 < len(tokens) else None
        called = after is not None and after.text == "("
        of_something = before is not None and before.text == "."
        said = ""
        if token.kind == "word" and called and of_something and token.text in _REFUSED:
            said = f"{token.text}() is not supported: it can build values of any size"
        elif token.text in ("(", "[", "{"):
            macro = (
                token.text == "("
                and before is not None
                and before.text in _MACROS
                and at > 1
                and tokens[at - 2].text == "."
            )
            if token.text != "(" and any(open_macros) and not _indexes(before, token):
                said = "lists and maps cannot be written within a macro"
            open_macros.append(macro)
            if sum(open_macros) > NESTING_MAX:
                said = f"macros nest more than {NESTING_MAX} deep"
        elif token.text in (")", "]", "}"):
            if open_macros:
                open_macros.pop()
        elif any(open_macros) and token.text == "+":
            said = "+ cannot be used within a macro"
        elif any(open_macros) and token.text == "matches" and called:
            said = "matches() cannot be used within a macro; use startsWith, endsWith or contains"
        if said:
            yield ConditionFault(*_place(text, token.at), said)
            return


def _indexes(before: _Token | None, token: _Token) -> bool:
    if token.text != "[" or before is None:
        return False
    return before.kind == "word" or before.text in (")", "]")


def _literals(text: str, tokens: list[_Token]) -> Iterator[ConditionFault]:
    """Yield the durations and patterns that can never be read; CEL finds them only as it runs."""
    for at in range(len(tokens) - 3):
        name, opened, literal, closed = tokens[at : at + 4]
        if (opened.text, closed.text) != ("(", ")") or literal.kind not in ("text", "raw"):
            continue
        if name.text not in ("duration", "matches", "timestamp"):
            continue
        trial = f"{name.text}({literal.text})"
        if name.text == "matches":
            trial = f"''.{trial}"
        try:
            value = _environment(SubjectKind.NODE).compile(trial).eval(data={})
        except RuntimeError:
            continue  # the whole text is compiled next, and says so in its place
        if value.type() != cel.Type.ERROR:
            continue
        match name.text:
            case "duration":
                said = f"{literal.text} is not a duration; write '90s', '5m' or '1h30m'"
            case "timestamp":
                said = f"{literal.text} is not a time; write '2026-11-20T03:12:00Z'"
            case _:
                said = f"{literal.text} is no pattern: {_short(str(value.plain_value()))}"
        yield ConditionFault(*_place(text, literal.at), said)


def _dotted_words(tokens: list[_Token]) -> set[str]:
    """Return every name of two parts: superfluous ones are no facts and do no harm."""
    found = set()
    for at in range(len(tokens) - 2):
        first, dot, second = tokens[at : at + 3]
        if first.kind == second.kind == "word" and dot.text == ".":
            found.add(f"{first.text}.{second.text}")
    return found


# --- CEL's own messages, in plain words -----------------------------------------------------------


def _explained(text: str, message: str, kind: SubjectKind) -> Iterator[ConditionFault]:
    seen: set[tuple[int, int]] = set()
    for line, column, said in _FAULT.findall(message):
        at = (max(1, int(line)), max(1, int(column)))
        if at not in seen:
            seen.add(at)
            yield _in_words(text, *at, said, kind)
        if said.startswith("Syntax error"):
            break  # what follows is most often the same slip again
    if not seen:
        deep = "recursion" in message.lower()
        yield ConditionFault(1, 1, "is nested too deep" if deep else _short(message))


def _in_words(text: str, line: int, column: int, said: str, kind: SubjectKind) -> ConditionFault:
    undeclared = _UNDECLARED.search(said)
    if undeclared:
        name = undeclared[1]
        lines = text.split("\n")
        whole = lines[line - 1] if line <= len(lines) else ""
        start = column - name.rfind(".") if "." in name else column
        called = whole[: column - 1].rstrip()
        if whole[column - 1 : column] == "(" and called.endswith(name):
            return ConditionFault(line, len(called) - len(name) + 1, f"there is no {name}()")
        if start > 0 and whole[start - 1 :].startswith(name):
            column = start
        return ConditionFault(line, column, _unknown(name, kind))
    overload = _OVERLOAD.search(said)
    if overload:
        return ConditionFault(line, column, _mismatch(overload[1], overload[2]))
    if said.startswith("Syntax error: "):
        return ConditionFault(line, column, _syntax(said.removeprefix("Syntax error: ")))
    return ConditionFault(line, column, _short(said[:1].lower() + said[1:]))


def _unknown(name: str, kind: SubjectKind) -> str:
    if kind is SubjectKind.NODE and name in VARIABLES[SubjectKind.VM]:
        return f"{name!r} is known only to policies with subject: VirtualMachine"
    known = VARIABLES[kind]
    if "." not in name:
        group = sorted(each for each in known if each.startswith(f"{name}."))
        if group:
            return f"{name!r} alone says nothing; known: {', '.join(group)}"
        return f"{name!r} is not known; a text stands in quotes, and facts are node.…, cluster.…"
    hint = did_you_mean(name, known)
    return f"{name!r} is not known{hint if 'did you mean' in hint else ''}"


def _mismatch(function: str, types: str) -> str:
    given = [_plain_type(each.strip()) for each in types.split(", ")]
    sign = _SIGNS.get(function, function.strip("_").strip("@"))
    if function.startswith("_") or function == "@in":
        said = f"{sign} is not defined for {' and '.join(given)}"
    else:
        said = f"{sign}() does not take {', '.join(given) or 'nothing'}"
    if {"double", "int"} == set(given):
        return f"{said}; write the whole number with a point, such as 2.0"
    if "duration" in given and {"int", "double", "string"} & set(given):
        return f"{said}; write duration('90s')"
    if {"bool", "int"} == set(given) or {"bool", "string"} == set(given):
        return f"{said}; write true or false without quotes"
    if {"string", "int"} == set(given) and sign in ("==", "!=", "<", ">", "<=", ">="):
        return f"{said}; a text stands in quotes, a number does not"
    return said


def _plain_type(name: str) -> str:
    return _PLAIN_TYPES.get(name, name)


def _syntax(said: str) -> str:
    if "'<EOF>'" in said.split("expecting", maxsplit=1)[0]:
        return "ends too early"
    if "token recognition error" in said:
        token = said.partition("at: ")[2]
        return f"cannot be read: {token}{_instead(token)}"
    found = re.search(r"(?:input|viable alternative at input) (.*?)(?: expecting|$)", said)
    token = found[1] if found else said
    return f"{_short(token)} is not expected here{_instead(token)}"


def _instead(token: str) -> str:
    """Return what is written in CEL in place of what stands there."""
    written = {"=": "; to compare, write ==", "and": "; write &&", "or": "; write ||"}
    return written.get(token.strip("'").strip(), "")
