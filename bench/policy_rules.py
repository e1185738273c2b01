"""Rules and questions for the benchmark of policies, in our form and in ansible-rulebook's."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from remediator.engine.match_facts import NONE, VARIABLES
from remediator.engine.model import Verdict
from remediator.engine.rules import MatchInput, Policy, SubjectKind
from remediator.policy.loader import load_text

POOLS = 25
NOW = 1_790_000_000.0
# Verdicts that one policy may answer together; of VMs the second half.
_NODES = (
    (Verdict.DEAD, Verdict.UNREACHABLE),
    (Verdict.ISOLATED,),
    (Verdict.DEGRADED,),
    (Verdict.KUBELET_DOWN,),
    (Verdict.HANDLER_DOWN,),
)
_VMS = ((Verdict.CRASHED,), (Verdict.STUCK,), (Verdict.GUEST_SILENT,), (Verdict.PAUSED,))
_LOST = {Verdict.DEAD, Verdict.UNREACHABLE, Verdict.ISOLATED}
_OWN_POOL = 2 / 3  # of the questions: about a subject that some policy selects


class Rule(NamedTuple):
    """One rule: a subject, its verdicts, a label, and for every other rule a condition."""

    name: str
    kind: SubjectKind
    verdicts: tuple[Verdict, ...]
    pool: str
    seconds: int  # of the condition; 0: it has none

    def document(self) -> str:
        """Return it as a policy."""
        of_node = self.kind is SubjectKind.NODE
        steps = "[cordon, fence, reschedule]" if self.verdicts[0] in _LOST else "[notify]"
        selector = "nodeSelector" if of_node else "vmSelector"
        lines = [
            "apiVersion: remediator.io/v1alpha1",
            "kind: RemediationPolicy",
            f"metadata: {{name: {self.name}}}",
            "spec:",
            f"  subject: {self.kind}",
            f"  verdicts: [{', '.join(self.verdicts)}]",
            f"  {selector}: {{labels: {{pool: {self.pool}}}}}",
            f"  steps: {steps}",
        ]
        if self.seconds:
            first = "node.silent_for" if of_node else "vm.down_for"
            second = "cluster.unhealthy_ratio < 0.5"
            if not of_node:
                second = 'vm.disk_kind != "readWriteOnce"'
            lines.append(f"  condition: '{first} > duration(\"{self.seconds}s\") && {second}'")
        return "\n".join(lines)

    def rulebook(self) -> dict[str, Any]:
        """Return it as a rule of ansible-rulebook."""
        verdicts = ", ".join(f'"{verdict}"' for verdict in self.verdicts)
        parts = [
            f'event.kind == "{self.kind}"',
            f"event.verdict in [{verdicts}]",
            f'event.labels.pool == "{self.pool}"',
        ]
        if self.seconds and self.kind is SubjectKind.NODE:
            parts.append(f"event.node.silent_for > {float(self.seconds)}")
            parts.append("event.cluster.unhealthy_ratio < 0.5")
        elif self.seconds:
            parts.append(f"event.vm.down_for > {float(self.seconds)}")
            parts.append('event.vm.disk_kind != "readWriteOnce"')
        return {"name": self.name, "condition": " and ".join(parts), "action": {"none": None}}


def rules(count: int) -> list[Rule]:
    """Return so many rules, three of nodes to two of VMs."""
    found = []
    for at in range(count):
        of_node = at % 5 < 3
        among: tuple[tuple[Verdict, ...], ...] = _NODES if of_node else _VMS
        found.append(
            Rule(
                name=f"rule-{at:03d}",
                kind=SubjectKind.NODE if of_node else SubjectKind.VM,
                verdicts=among[at // 5 % len(among)],
                pool=f"p{at * 7 % POOLS}",
                seconds=(at % 3) * 10 + 10 if at % 2 else 0,
            )
        )
    return found


def policies(written: list[Rule]) -> list[Policy]:
    """Return the rules as loaded policies, conditions compiled."""
    return load_text("\n---\n".join(rule.document() for rule in written), file="bench.yaml")


def events(written: list[Rule], count: int) -> list[dict[str, Any]]:
    """Return incidents as ansible-rulebook gets them; two thirds are some rule's business."""
    rng = random.Random(7)
    found = []
    for at in range(count):
        rule = rng.choice(written)
        pool = rule.pool if rng.random() < _OWN_POOL else f"p{rng.randrange(POOLS)}"
        found.append(
            {
                "n": at,
                "kind": rule.kind.value,
                "name": f"s{at}",
                "verdict": rng.choice(rule.verdicts).value,
                "labels": {"pool": pool, "zone": f"z{at % 3}"},
                "node": {"silent_for": float(rng.randrange(60))},
                "cluster": {"unhealthy_ratio": rng.randrange(10) / 10},
                "vm": {
                    "down_for": float(rng.randrange(60)),
                    "disk_kind": rng.choice(("readWriteOnce", "readWriteMany", "none")),
                },
            }
        )
    return found


def question(event: dict[str, Any]) -> MatchInput:
    """Return the same incident as our policies get it, with every fact that there is."""
    kind = SubjectKind(event["kind"])
    facts: dict[str, Any] = {
        name: variable.type in NONE and NONE[variable.type]
        for name, variable in VARIABLES[kind].items()
    }
    facts["node.silent_for"] = event["node"]["silent_for"]
    facts["cluster.unhealthy_ratio"] = event["cluster"]["unhealthy_ratio"]
    if kind is SubjectKind.VM:
        facts["vm.down_for"] = event["vm"]["down_for"]
        facts["vm.disk_kind"] = event["vm"]["disk_kind"]
    return MatchInput(
        kind=kind,
        name=event["name"],
        namespace="" if kind is SubjectKind.NODE else "shop",
        labels=event["labels"],
        verdict=Verdict(event["verdict"]),
        since_at=NOW - 60.0,
        facts=facts,
    )
