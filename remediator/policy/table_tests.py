"""Table tests beside policies: given this evidence, expect that decision. See docs/policies.md.

A case tells of one subject only what matters; every other fact is as if nothing were known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from remediator.documents import (
    DocumentError,
    DocumentProblem,
    read_documents,
)
from remediator.durations import parse_duration, parse_moment
from remediator.engine.match_facts import NONE, VARIABLES, FactType, Value, Variable
from remediator.engine.model import Verdict
from remediator.engine.rules import MatchInput, Policy, PolicySet, SubjectKind
from remediator.policy.document import STEP_WORDS
from remediator.strict_yaml import Document, YamlError, read_text
from remediator.typed_tree import Problem, did_you_mean

KIND = "PolicyTest"
NONE_WORD = "none"  # expect: {policy: none}
# A Wednesday noon, UTC: when a case that does not say asks.
DEFAULT_AT = 1_700_049_600.0


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """Names the table."""

    name: str


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the policies are asked about, and what is known."""

    verdict: Verdict
    subject: SubjectKind = SubjectKind.NODE
    for_s: float = msgspec.field(name="for", default=0.0)  # for how long the verdict has stood
    at: str = ""  # when they are asked: 2026-11-20T22:30Z
    name: str = "n1"
    namespace: str = ""
    labels: dict[str, str] = {}
    facts: dict[str, Any] = {}  # by the name that conditions use


class Expect(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What they are to answer. What is left out is not compared."""

    policy: str
    steps: tuple[str, ...] | None = None  # in the words of documents
    mode: Literal["observe", "enforce"] | None = None
    approval: bool | None = None  # whether a person is asked first
    missed: dict[str, str] = {}  # policy -> a piece of the clause that failed, as it is traced


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table."""

    name: str
    given: Given
    expect: Expect


class TableDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One table: cases for the policies that are named, or for all of the directory above."""

    api_version: Literal["remediator.io/v1alpha1"]
    kind: Literal["PolicyTest"]
    metadata: Metadata
    cases: tuple[Case, ...]


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one case: ``faults`` is empty where all was as expected."""

    file: str
    line: int
    table: str
    case: str
    faults: tuple[str, ...] = ()
    trace: tuple[str, ...] = ()  # every clause that was looked at, for whoever wonders


def files_of(path: Path) -> list[Path]:
    """Return the tables at a path: a file, or the ``tests`` of a directory of policies."""
    if path.is_file():
        return [path]
    inner = path / "tests"
    return sorted((inner if inner.is_dir() else path).glob("*.yaml"))


def run_file(path: Path, policies: Sequence[Policy]) -> list[CaseResult]:
    """Run every case of a file. Raises DocumentError where the file itself is faulty."""
    try:
        text = read_text(path)
    except YamlError as error:
        raise DocumentError([DocumentProblem(str(path), 0, 0, "", error.problem)]) from error
    tables, problems = read_documents(text, file=str(path), into=TableDocument, check=_check)
    known = {policy.name for policy in policies}
    for table in tables:
        for at, case in enumerate(table.value.cases):
            named = {case.expect.policy: "policy"} | dict.fromkeys(case.expect.missed, "missed")
            for name, field in named.items():
                if name not in known and name != NONE_WORD:
                    hint = did_you_mean(name, known)
                    where = ("cases", at, "expect", field)
                    problems.append(table.place(where, f"there is no policy {name!r}{hint}"))
    if problems:
        raise DocumentError(problems)
    known_set = PolicySet(policies)
    return [
        _run(case, known_set, table.name, table.document, at)
        for table in tables
        for at, case in enumerate(table.value.cases)
    ]


def _check(table: TableDocument, document: Document) -> Iterator[Problem]:
    del document
    if not table.cases:
        yield Problem(("cases",), "holds no case")
    for at, case in enumerate(table.cases):
        variables = VARIABLES[case.given.subject]
        for name, value in case.given.facts.items():
            where = ("cases", at, "given", "facts", name)
            if name not in variables:
                yield Problem(where, f"is no fact of a {case.given.subject}")
            else:
                said = _read(variables[name], value)[1]
                if said:
                    yield Problem(where, said)
        if case.given.at:
            try:
                parse_moment(case.given.at, 0.0)
            except ValueError as error:
                yield Problem(("cases", at, "given", "at"), str(error))
        for nth, word in enumerate(case.expect.steps or ()):
            if word not in STEP_WORDS:
                hint = did_you_mean(word, STEP_WORDS)
                yield Problem(("cases", at, "expect", "steps", nth), f"{word!r} is no step{hint}")


def _read(variable: Variable, value: object) -> tuple[Value, str]:  # noqa: PLR0911 - a line a type
    """Return a fact as it is written in a table, and what is wrong with it, if anything is."""
    none = NONE[variable.type]
    match variable.type:
        case FactType.DURATION if isinstance(value, str):
            try:
                return parse_duration(value), ""
            except ValueError as error:
                return none, str(error)
        case FactType.DURATION | FactType.DOUBLE:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value), ""
        case FactType.INT:
            if isinstance(value, int) and not isinstance(value, bool):
                return value, ""
        case FactType.BOOL:
            if isinstance(value, bool):
                return value, ""
        case FactType.STRING:
            if isinstance(value, str):
                return value, ""
        case FactType.STRINGS:
            if isinstance(value, list) and all(isinstance(one, str) for one in value):
                return list(value), ""
        case FactType.LABELS:
            if isinstance(value, dict) and all(isinstance(one, str) for one in value.values()):
                return dict(value), ""
    return none, f"is a {variable.type}, found {value!r}"


def _facts(given: Given) -> Mapping[str, Value]:
    variables = VARIABLES[given.subject]
    facts: dict[str, Value] = {name: NONE[each.type] for name, each in variables.items()}
    facts["verdict.name"], facts["verdict.stands_for"] = given.verdict.value, given.for_s
    if given.subject is SubjectKind.NODE:
        facts["node.name"], facts["node.labels"] = given.name, dict(given.labels)
    else:
        facts["vm.name"], facts["vm.namespace"] = given.name, given.namespace
        facts["vm.labels"] = dict(given.labels)
    return facts | {name: _read(variables[name], value)[0] for name, value in given.facts.items()}


def _run(case: Case, policies: PolicySet, table: str, document: Document, nth: int) -> CaseResult:
    given, expect = case.given, case.expect
    now = parse_moment(given.at, DEFAULT_AT) if given.at else DEFAULT_AT
    asked = MatchInput(
        kind=given.subject,
        name=given.name,
        namespace=given.namespace,
        labels=given.labels,
        verdict=given.verdict,
        since_at=now - given.for_s,
        facts=_facts(given),
    )
    match = policies.first_match(asked, now)
    policy = match.policy
    faults: list[str] = []
    found = policy.name if policy is not None else NONE_WORD
    if found != expect.policy:
        faults.append(f"expected policy {expect.policy}, found {found}")
    elif policy is not None:
        faults += _differences(policy, expect)
    words = {word.policy.name: word for word in policies.words(asked, now)}
    for name, piece in expect.missed.items():
        failed = [row for row in words[name].clauses if not row.held]
        if not any(piece in f"{row.clause}: {row.value}" for row in failed):
            told = "; ".join(f"{row.clause}: {row.value}" for row in failed) or "all clauses held"
            faults.append(f"{name} was to miss by {piece!r}; it missed by: {told}")
    return CaseResult(
        file=document.file,
        line=document.mark(("cases", nth)).line,
        table=table,
        case=case.name,
        faults=tuple(faults),
        trace=tuple(
            f"{row.policy or '-'}: {row.clause}: {row.value} {'holds' if row.held else 'FAILS'}"
            for row in match.clauses
        ),
    )


def _differences(policy: Policy, expect: Expect) -> Iterator[str]:
    if expect.steps is not None:
        wanted = tuple(name for word in expect.steps for name in STEP_WORDS[word])
        if wanted != policy.steps:
            yield f"expected steps {', '.join(wanted)}, found {', '.join(policy.steps)}"
    mode = "enforce" if policy.enforce else "observe"
    if expect.mode is not None and expect.mode != mode:
        yield f"expected mode {expect.mode}, found {mode}"
    asks = policy.approval is not None
    if expect.approval is not None and expect.approval is not asks:
        yield "expected approval, found none" if expect.approval else "expected no approval"
