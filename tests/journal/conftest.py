from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from remediator.bus.protocols import AppendRefusedError, BusUnavailableError, StoredRecord
from remediator.engine.chain import (
    ClauseRow,
    Decision,
    DecisionKind,
    EvidenceRow,
    GuardRow,
    Head,
    Plan,
    VmPlan,
    advance,
    encode,
)
from remediator.engine.model import (
    Action,
    Fence,
    ForceStop,
    IncidentState,
    Outcome,
    OutcomeStatus,
    Proof,
    ProofKind,
    Subject,
    Verdict,
    node_subject,
    vm_subject,
)

START = 1_790_000_000.0


class MemoryStream:
    """A journal stream in memory: refuses a wrong expected sequence, as JetStream does."""

    def __init__(self) -> None:
        self.records: list[StoredRecord] = []
        self.ids: dict[str, int] = {}
        self.down = False
        self.hang = False
        self.reads_down = 0
        self._more = asyncio.Event()

    def put(self, payload: bytes, seq: int | None = None) -> None:
        number = seq or (self.records[-1].seq + 1 if self.records else 1)
        self.records.append(StoredRecord(number, "remediator.decision.node.n1", payload))
        self._more.set()

    async def append(
        self, subject: str, payload: bytes, *, expected_last_seq: int, message_id: str
    ) -> int:
        if self.hang:
            await asyncio.Event().wait()
        if self.down:
            raise BusUnavailableError("no answer")
        if message_id in self.ids:
            return self.ids[message_id]
        if expected_last_seq != await self.last_seq():
            raise AppendRefusedError(f"wrong last sequence: {await self.last_seq()}")
        self.records.append(StoredRecord(expected_last_seq + 1, subject, payload))
        self.ids[message_id] = expected_last_seq + 1
        self._more.set()
        return expected_last_seq + 1

    async def read(self, from_seq: int) -> AsyncIterator[StoredRecord]:
        for record in list(self.records):
            if record.seq >= from_seq:
                yield record

    async def last_seq(self) -> int:
        return self.records[-1].seq if self.records else 0

    async def tail(self, from_seq: int) -> AsyncIterator[StoredRecord]:
        if self.reads_down:
            self.reads_down -= 1
            raise BusUnavailableError("NATS is away")
        at = 0
        while True:
            while at < len(self.records):
                record = self.records[at]
                at += 1
                if record.seq >= from_seq:
                    yield record
            self._more.clear()
            await self._more.wait()


class Book:
    """Writes records that chain, for tests."""

    def __init__(self) -> None:
        self.head = Head()
        self.written: list[tuple[Decision, bytes]] = []

    def write(
        self,
        kind: DecisionKind = DecisionKind.VERDICT,
        subject: Subject | None = None,
        why: str = "because",
        **fields: object,
    ) -> tuple[Decision, bytes]:
        seq = self.head.seq + 1
        decision = Decision(
            seq=seq,
            prev=self.head.digest,
            at=fields.pop("at", START + seq),
            leader="remediator-0",
            epoch=1,
            kind=kind,
            subject=subject or node_subject("n1"),
            why=why,
            **fields,
        )
        payload = encode(decision)
        self.head = advance(payload, seq)
        self.written.append((decision, payload))
        return decision, payload


@pytest.fixture
async def stream() -> MemoryStream:
    return MemoryStream()


@pytest.fixture
def book() -> Book:
    return Book()


def write_incident(book: Book) -> None:
    """A dead node with one VM, told in seven records: the story that most tests look at."""
    node, vm, boot = node_subject("n3"), vm_subject("payments", "db"), "boot-1"
    proof = Proof(
        kind=ProofKind.POWER_OFF_VERIFIED,
        node="n3",
        boot_id=boot,
        at=START + 19.5,
        source="redfish bmc-n3",
        detail="PowerState Off",
    )
    evidence = (
        EvidenceRow(
            plane="lease", value="silent", since_s=12.6, source="watch", detail="last seen"
        ),
        EvidenceRow(plane="handler", value="silent", since_s=151.0, source="watch"),
        EvidenceRow(plane="network", value="unknown", since_s=0.0),
        EvidenceRow(plane="power", value="on", since_s=1.1, source="redfish bmc-n3"),
    )
    fence = Action(
        id="inc-2/fence/1",
        incident="inc-2",
        subject=node,
        attempt=1,
        deadline_s=30.0,
        work=Fence(node="n3", node_uid="u3", boot_id=boot, method="racks"),
    )
    plan = Plan(
        policy="node-lost",
        policy_hash="ab" * 32,
        verdicts=(Verdict.DEAD, Verdict.UNREACHABLE),
        steps=("cordon", "fence", "release", "recover"),
        required_proof=("power-off-verified",),
        fence_method="racks",
        vms=(
            VmPlan(
                vm=vm,
                vmi_uid="v1",
                run_strategy="Always",
                treatment="restart",
                why="run strategy Always: KubeVirt starts it again",
                claims=("db-disk",),
            ),
        ),
    )
    common = {"incident": "inc-2", "mode": "enforce", "boot_id": boot}
    book.write(DecisionKind.LEADING, Subject("daemon", "remediator-0"), "took over", at=START)
    book.write(
        DecisionKind.OPENED, node, "the lease is silent; no second plane agrees yet",
        at=START + 12, state=IncidentState.SUSPECTED, verdict=Verdict.SUSPECT, row="lease-silent",
        evidence=evidence[:1], **common,
    )  # fmt: skip
    book.write(
        DecisionKind.VERDICT, node, "lease and virt-handler silent, and nobody probes it",
        at=START + 14, state=IncidentState.CONFIRMED, verdict=Verdict.UNREACHABLE,
        row="unreachable-by-handler", evidence=evidence, **common,
    )  # fmt: skip
    book.write(
        DecisionKind.PLANNED, node, "policy node-lost matched", at=START + 14.1,
        state=IncidentState.FENCING, verdict=Verdict.UNREACHABLE, plan=plan,
        clauses=(
            ClauseRow(policy="gpu-nodes", clause="label gpu=true", value="(absent)", held=False),
            ClauseRow(
                policy="node-lost",
                clause="verdict in [Dead, Unreachable]",
                value="Unreachable",
                held=True,
            ),
        ),
        guards=(
            GuardRow(guard="zone share", answer="grant", why="1 of 4 nodes of z1 unhealthy"),
            GuardRow(guard="fences at once", answer="grant", why="0 of 2 running"),
        ),
        **common,
    )  # fmt: skip
    book.write(
        DecisionKind.STARTED, node, "step fence, attempt 1", at=START + 14.2, action=fence,
        state=IncidentState.FENCING, **common,
    )  # fmt: skip
    book.write(
        DecisionKind.FINISHED, node, "fence succeeded", at=START + 19.6, action=fence,
        state=IncidentState.FENCED, proof=proof,
        outcome=Outcome(
            action_id=fence.id, status=OutcomeStatus.SUCCEEDED, detail="verified off",
            started_at=START + 14.3, finished_at=START + 19.5, proof=proof,
        ),
        **common,
    )  # fmt: skip
    stop = ForceStop(
        node="n3", node_uid="u3", namespace="payments", vmi="db", pod="virt-launcher-db-x",
        pod_uid="p1", proof=proof,
    )  # fmt: skip
    book.write(
        DecisionKind.FINISHED, vm, "force-stop succeeded", at=START + 21,
        state=IncidentState.RECOVERING,
        action=Action(
            id="inc-2/force-stop/payments/db/1", incident="inc-2", subject=vm, attempt=1,
            deadline_s=10.0, work=stop,
        ),
        outcome=Outcome(
            action_id="inc-2/force-stop/payments/db/1", status=OutcomeStatus.SUCCEEDED,
            detail="pod deleted", started_at=START + 20.6, finished_at=START + 20.9,
        ),
        **common,
    )  # fmt: skip
    book.write(
        DecisionKind.PROGRESS, vm, "runs on n7", at=START + 26, state=IncidentState.RECOVERING,
        stage="running", **common,
    )  # fmt: skip
    book.write(
        DecisionKind.RESOLVED, node, "all VMs run; node n3 stays fenced", at=START + 60,
        state=IncidentState.RESOLVED, **common,
    )  # fmt: skip


@pytest.fixture
def dead_node(book: Book) -> Book:
    write_incident(book)
    return book
