"""Drives the VMs of an engine by hand: what KubeVirt would report of them, and the signals."""

from __future__ import annotations

import itertools

import msgspec

from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.events import ObjectGone, ObjectSeen, SignalSeen
from remediator.engine.model import (
    FactKind,
    MigrationFacts,
    Plane,
    PodFacts,
    Reading,
    RunStrategy,
    Signal,
    Subject,
    VmFacts,
    VmiFacts,
    vm_subject,
)

NAMESPACE = "ns"
PLANE_OF = {"attach": Plane.STORAGE}


class VmWorld:
    """One engine's VMs. ``cluster`` is the fixture: it turns the clock and keeps the records."""

    def __init__(self, cluster) -> None:
        self.cluster = cluster
        self.vms: dict[str, VmFacts] = {}
        self.vmis: dict[str, VmiFacts] = {}
        self.pods: dict[str, PodFacts] = {}
        self.migrations: dict[str, MigrationFacts] = {}
        self._serial = itertools.count(1)

    # --- what KubeVirt reports -------------------------------------------------------------------

    def add(
        self, name: str = "db", node: str = "n1", *, strategy=RunStrategy.ALWAYS, agent: bool = True
    ) -> None:
        """A VM that has been running for long."""
        self.vm(name, run_strategy=strategy, status="Running")
        self.launch(name, node, agent=agent)
        self.cluster.run(301)
        assert self.incident(name) is None

    def vm(self, name: str = "db", **fields: object) -> None:
        known = self.vms.get(name) or VmFacts(namespace=NAMESPACE, name=name, uid=f"vm-{name}")
        self.vms[name] = msgspec.structs.replace(known, **fields)
        self.cluster.handle(ObjectSeen(facts=self.vms[name]))

    def launch(self, name: str = "db", node: str = "n1", *, agent: bool = False) -> None:
        """A new VMI and its pod, from the first sight of them to a guest that runs."""
        self.begin(name)
        self.pod(name, node=node, phase="Running")
        self.vmi(name, node=node, phase="Scheduled")
        self.vmi(name, phase="Running", ready=True, agent_connected=agent, agent_known=agent)

    def begin(self, name: str = "db") -> None:
        """A new VMI and its pod, that has no node yet."""
        number = next(self._serial)
        if name in self.pods:
            self.drop_pod(name)
        owned = name in self.vms
        self.vmis[name] = VmiFacts(
            namespace=NAMESPACE, name=name, uid=f"vmi-{name}-{number}", owned=owned
        )
        self.vmi(name, phase="Scheduling")
        self.pods[name] = PodFacts(
            namespace=NAMESPACE,
            name=f"virt-launcher-{name}-{number}",
            uid=f"pod-{name}-{number}",
            vmi=name,
            vmi_uid=self.vmis[name].uid,
        )
        self.pod(name, phase="Pending")

    def vmi(self, name: str = "db", **fields: object) -> None:
        self.vmis[name] = msgspec.structs.replace(self.vmis[name], **fields)
        self.cluster.handle(ObjectSeen(facts=self.vmis[name]))

    def pod(self, name: str = "db", **fields: object) -> None:
        self.pods[name] = msgspec.structs.replace(self.pods[name], **fields)
        self.cluster.handle(ObjectSeen(facts=self.pods[name]))

    def migration(self, name: str = "db", **fields: object) -> None:
        known = self.migrations.get(name) or MigrationFacts(
            namespace=NAMESPACE, name=f"move-{name}", uid=f"move-{name}-1", vmi=name
        )
        self.migrations[name] = msgspec.structs.replace(known, **fields)
        self.cluster.handle(ObjectSeen(facts=self.migrations[name]))

    def drop_migration(self, name: str = "db") -> None:
        self._drop(FactKind.MIGRATION, self.migrations.pop(name))

    def drop_pod(self, name: str = "db") -> None:
        self._drop(FactKind.POD, self.pods.pop(name))

    def drop_vmi(self, name: str = "db") -> None:
        self._drop(FactKind.VMI, self.vmis.pop(name))

    def drop_vm(self, name: str = "db") -> None:
        self._drop(FactKind.VM, self.vms.pop(name))

    def fail(self, name: str = "db") -> None:
        """The domain crashes: pod and VMI end as failed."""
        self.pod(name, phase="Failed")
        self.vmi(name, phase="Failed", ready=False, agent_connected=False)

    def _drop(self, kind: FactKind, facts) -> None:
        self.cluster.handle(
            ObjectGone(kind=kind, namespace=NAMESPACE, name=facts.name, uid=facts.uid)
        )

    def signal(
        self,
        aspect: str,
        reading: Reading = Reading.DOWN,
        name: str = "db",
        *,
        source: str = "kubelet events",
        at: float | None = None,
        first: bool = False,
        detail: str = "",
    ) -> None:
        signal = Signal(
            plane=PLANE_OF.get(aspect, Plane.GUEST),
            source=source,
            subject=vm_subject(NAMESPACE, name),
            reading=reading,
            at=self.cluster.now if at is None else at,
            aspect=aspect,
            first=first,
            detail=detail,
        )
        self.cluster.handle(SignalSeen(signal=signal))

    def keep_signalling(self, aspect: str, seconds: float, every_s: float = 10.0) -> None:
        for _ in range(round(seconds / every_s)):
            self.signal(aspect)
            self.cluster.run(every_s)

    # --- looking ---------------------------------------------------------------------------------

    def incident(self, name: str = "db"):
        return self.cluster.engine.state.vm_incident_on(self.subject(name))

    def subject(self, name: str = "db") -> Subject:
        return vm_subject(NAMESPACE, name)

    def records(self, name: str = "db") -> list[Decision]:
        """The records of this VM's own incidents."""
        own = {
            each.incident
            for each in self.cluster.decisions
            if each.kind is DecisionKind.OPENED and each.subject == self.subject(name)
        }
        return [each for each in self.cluster.decisions if each.incident in own]

    def story(self, name: str = "db") -> list[str]:
        return [f"{each.kind} {each.state} {each.row}".rstrip() for each in self.records(name)]

    def opened(self) -> list[Decision]:
        """All openings of incidents of VMs."""
        return [
            each for each in self.cluster.kinds(DecisionKind.OPENED) if each.subject.kind == "vm"
        ]
