"""A cluster whose nodes can be emptied by hand: VMs that can move, and KubeVirt's part played."""

from __future__ import annotations

import itertools

import msgspec

from remediator.engine.chain import Decision
from remediator.engine.events import CommandGiven, ObjectGone, ObjectSeen, Verb
from remediator.engine.model import (
    CancelMigration,
    Cordon,
    FactKind,
    Migrate,
    MigrationFacts,
    MigrationLimitsFacts,
    OutcomeStatus,
    Verdict,
    VmiFacts,
    vm_subject,
)
from remediator.engine.rules import OnFailure, Policy, StepOptions

MAINTENANCE = {"remediator.io/maintenance": "new DIMMs"}
DRAIN = Policy(
    name="drain",
    source="test",
    content_hash="d" * 64,
    verdicts=(Verdict.MAINTENANCE,),
    steps=("cordon", "migrate"),
)
HOLDING = msgspec.structs.replace(
    DRAIN, step_options={"migrate": StepOptions(on_failure=OnFailure.HOLD)}
)
RESTARTING = msgspec.structs.replace(
    DRAIN,
    steps=("cordon", "migrate", "restart"),
    step_options={"migrate": StepOptions(on_failure=OnFailure.NEXT)},
)


class Evacuation:
    """What happens to VMs on one node."""

    def __init__(self, cluster) -> None:
        self.cluster = cluster
        self._numbers = itertools.count(1)

    # --- the world -------------------------------------------------------------------------------

    def add(self, *names: str, node: str = "n1", **facts: object) -> None:
        """Add VMs that run and can be moved live, unless ``facts`` of their VMIs say otherwise."""
        for name in names:
            self.cluster.add_vm(name, node)
            self.vmi(name, node=node, **{"live_migratable": True, **facts})

    def vmi(self, name: str, *, node: str, **facts: object) -> None:
        given = {"phase": "Running", "live_migratable": True, **facts}
        self.cluster.handle(
            ObjectSeen(
                facts=VmiFacts(
                    namespace="ns", name=name, uid=self.cluster.uids[name][0], node=node, **given
                )
            )
        )

    def want(self, node: str = "n1") -> None:
        self.cluster.node_changes(node, annotations=MAINTENANCE)

    def give_back(self, node: str = "n1") -> None:
        self.cluster.node_changes(node, annotations={})

    def order(self, verb: Verb, node: str = "n1"):
        command = CommandGiven(
            id=f"c{next(self._numbers)}", verb=verb, target=node, by="ann", reason="new DIMMs"
        )
        self.cluster.handle(command)
        return self.cluster.answers[-1]

    def migration(self, name: str, phase: str, *, uid: str = "m1", **facts: str) -> None:
        """KubeVirt shows a migration of a VM in this phase."""
        self.cluster.handle(
            ObjectSeen(
                facts=MigrationFacts(
                    namespace="ns",
                    name=f"kubevirt-{name}-{uid}",
                    uid=f"{name}-{uid}",
                    vmi=name,
                    phase=phase,
                    **facts,
                )
            )
        )

    def migration_ends(self, name: str, *, uid: str = "m1") -> None:
        self.cluster.handle(
            ObjectGone(
                kind=FactKind.MIGRATION,
                namespace="ns",
                name=f"kubevirt-{name}-{uid}",
                uid=f"{name}-{uid}",
            )
        )

    def moves(self, name: str, to: str) -> None:
        """The VM runs on another node by now."""
        self.vmi(name, node=to)

    def limits(self, **facts: object) -> None:
        self.cluster.handle(
            ObjectSeen(
                facts=MigrationLimitsFacts(namespace="kubevirt", name="kv", uid="kv", **facts)
            )
        )

    # --- what the engine asks for ----------------------------------------------------------------

    def begin(self, node: str = "n1") -> None:
        """Want a node empty, and answer its cordon."""
        self.want(node)
        self.cluster.until(lambda: self.cordons, limit_s=5)
        self.cluster.answer(self.cordons[0])

    @property
    def cordons(self):
        return [each for each in self.cluster.actions if isinstance(each.work, Cordon)]

    @property
    def migrates(self):
        return [each for each in self.cluster.actions if isinstance(each.work, Migrate)]

    @property
    def cancels(self):
        return [each for each in self.cluster.actions if isinstance(each.work, CancelMigration)]

    def asked(self) -> list[str]:
        """Names of the VMs whose migration is asked for now."""
        return sorted(each.work.vmi for each in self.migrates)

    def accept(self, *names: str) -> None:
        """KubeVirt takes the evictions of these VMs up."""
        for action in [each for each in self.migrates if not names or each.work.vmi in names]:
            name = action.work.vmi
            self.vmi(name, node=action.work.node, evacuating_from=action.work.node)
            self.cluster.answer(action)

    def refuse(self, name: str, why: str) -> None:
        (action,) = [each for each in self.migrates if each.work.vmi == name]
        self.cluster.answer(action, OutcomeStatus.FAILED, why)

    def progress(self, name: str, node: str = "n1"):
        return self.cluster.incident(node).vms[str(vm_subject("ns", name))]

    def last(self) -> Decision:
        return self.cluster.decisions[-1]
