"""What one evaluation costs: one incident against all policies, to a recorded choice and trace.

Seconds are those of the processor, on one core: what else runs on the machine does not count, for
us nor for ansible-rulebook's engine. Its whole program and the backtest are timed by the clock.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import policy_rules
import rulebook
from table import Row, rate

from remediator.cli.backtest import walk
from remediator.cli.record_file import RecordFile
from remediator.engine import chain
from remediator.engine.answered import answered
from remediator.engine.chain import Decision, DecisionKind, Head
from remediator.engine.inputs import Ground, Inputs, MatchSeen
from remediator.engine.model import IncidentState, Subject
from remediator.engine.rules import Match, MatchInput, PolicySet
from remediator.journal.backtest import Backtest

LOADED = 50
COUNTS = (5, LOADED, 200)
AIM_PER_S = 20_000
TIMES_FASTER = 2.0
BACKTEST_AIM_S = 60.0
_ROUNDS = 5  # the best counts: other work on the machine is not ours


def measure(directory: Path, questions: int, rulebook_events: int, records: int) -> list[Row]:
    """Return the rows."""
    group = "policies, evaluations"
    per_s: dict[int, float] = {}
    rows: list[Row] = []
    for count in COUNTS:
        written = policy_rules.rules(count)
        policies = PolicySet(policy_rules.policies(written))
        asked = [policy_rules.question(each) for each in policy_rules.events(written, questions)]
        chosen = _best(lambda p=policies, a=asked: _choose(p, a))
        per_s[count] = len(asked) / _best(lambda p=policies, a=asked: _record(p, a))
        if count == LOADED:
            rows.append(rate(group, f"{count} policies, chosen with a trace", len(asked), chosen))
    base = per_s[LOADED]
    name = f"{LOADED} policies, to a record"
    aim = f"{AIM_PER_S:,}/s"
    rows.append(Row(group, name, base, "/s", aim=aim, met=base >= AIM_PER_S))
    for count in COUNTS:
        if count != LOADED:
            ratio = per_s[count] / base
            row = f"{count} policies, to a record"
            rows.append(Row(group, row, per_s[count], "/s", ratio, name, "flat", ratio >= 0.8))
    rows += _beside(directory, rulebook_events, base, name)
    rows.append(_backtest(directory, records))
    return rows


def _best(work: Callable[[], float]) -> float:
    return min(work() for _ in range(_ROUNDS))


def _choose(policies: PolicySet, asked: list[MatchInput]) -> float:
    began = time.process_time()
    for given in asked:
        policies.first_match(given, policy_rules.NOW)
    return time.process_time() - began


def _record(policies: PolicySet, asked: list[MatchInput]) -> float:
    head = Head()
    began = time.process_time()
    for given in asked:
        match = policies.first_match(given, policy_rules.NOW)
        payload = chain.encode(_decision(head, given, match))
        head = chain.advance(payload, head.seq + 1)
    return time.process_time() - began


def _decision(head: Head, given: MatchInput, match: Match) -> Decision:
    """Return the record of a choice, as the engine writes it: with its trace and its inputs."""
    ground = Ground(vms=1)
    kind = "node" if given.kind == "Node" else "vm"
    found = match.policy is not None
    return Decision(
        seq=head.seq + 1,
        prev=head.digest,
        at=policy_rules.NOW,
        leader="bench",
        epoch=1,
        kind=DecisionKind.PLANNED if found else DecisionKind.ESCALATED,
        subject=Subject(kind, given.name, given.namespace),
        why="as measured",
        mode="enforce",
        incident=f"inc-{head.seq + 1}",
        state=IncidentState.CONFIRMED,
        verdict=given.verdict,
        clauses=match.clauses,
        inputs=Inputs(
            match=MatchSeen(
                kind=given.kind,
                name=given.name,
                namespace=given.namespace,
                labels=given.labels,
                verdict=given.verdict,
                since_at=given.since_at,
                at=policy_rules.NOW,
                facts=dict(given.facts),
                answer=answered(match.policy, given.verdict, ground),
            ),
            ground=ground,
        ),
    )


def _beside(directory: Path, count: int, ours: float, name: str) -> list[Row]:
    """Return ansible-rulebook's rows on the same rules and events; none where it cannot be had."""
    group = "ansible-rulebook, 50 rules"
    written = policy_rules.rules(LOADED)
    events = policy_rules.events(written, count)
    try:
        ran = rulebook.run([rule.rulebook() for rule in written], events, directory)
    except rulebook.UnavailableError as error:
        print(f"ansible-rulebook is left out: {error}", file=sys.stderr, flush=True)
        return []
    policies = PolicySet(policy_rules.policies(written))
    differ = 0
    for event, chosen in zip(events, ran.chosen, strict=True):
        policy = policies.first_match(policy_rules.question(event), policy_rules.NOW).policy
        differ += (policy.name if policy is not None else "") != chosen
    alone, whole = count / ran.engine_s, count / ran.whole_s
    faster, aim = ours / alone, f"{TIMES_FASTER:g} x"
    rows = [
        Row(group, "its rule engine alone", alone, "/s", alone / ours, name),
        Row(group, "ours beside it", faster, "x", aim=aim, met=faster >= TIMES_FASTER),
        Row(group, "the program, by the clock", whole, "/s", whole / ours, name),
    ]
    rows.append(Row(group, "choices that differ from ours", differ, "", aim="0", met=differ == 0))
    return rows


def _backtest(directory: Path, records: int) -> Row:
    """Return how long a backtest of so many records takes, under 50 policies that changed."""
    written = policy_rules.rules(LOADED)
    policies = PolicySet(policy_rules.policies(written))
    events = policy_rules.events(written, records)
    file, head = directory / "records.jsonl", Head()
    with file.open("wb") as out:
        for event in events:
            given = policy_rules.question(event)
            match = policies.first_match(given, policy_rules.NOW)
            payload = chain.encode(_decision(head, given, match))
            out.write(payload + b"\n")
            head = chain.advance(payload, head.seq + 1)
    others = [rule._replace(seconds=rule.seconds and rule.seconds + 10) for rule in written]
    test = Backtest(policy_rules.policies(others))
    began = time.perf_counter()
    asyncio.run(walk(RecordFile(file), test, 0.0))
    seconds = time.perf_counter() - began
    report = test.report()
    name = f"backtest of {report.asked:,} records, {report.differing:,} differ"
    met = seconds <= BACKTEST_AIM_S
    return Row("policies, backtest", name, seconds, "s", aim=f"{BACKTEST_AIM_S:g} s", met=met)
