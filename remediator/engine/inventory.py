"""The engine's picture of the cluster, built from events alone."""

from __future__ import annotations

from collections import defaultdict
from typing import TypeVar, assert_never

from remediator.engine.model import (
    AttachmentFacts,
    ClaimFacts,
    FactKind,
    Facts,
    HandsOffFacts,
    MigrationFacts,
    MigrationLimitsFacts,
    NodeFacts,
    NodeLeaseFacts,
    NodeUseFacts,
    PodFacts,
    ReplicaSetFacts,
    Subject,
    VmFacts,
    VmiFacts,
    VolumeFacts,
    vm_subject,
)
from remediator.engine.rooms import Rooms

K = TypeVar("K")
V = TypeVar("V")

Key = tuple[str, str]  # (namespace, name)

# Without these no plan may be made: a missing list must not look like an empty cluster.
REQUIRED_KINDS = frozenset({FactKind.NODE, FactKind.VM, FactKind.VMI, FactKind.POD})

MAINTENANCE = "remediator.io/maintenance"  # annotation of a Node: a person wants it empty

_FINAL_PHASES = frozenset({"Succeeded", "Failed"})


class Inventory:
    """Nodes, VMs, VMIs, launcher pods and volumes, indexed by the node that they are on."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeFacts] = {}
        self.vms: dict[Key, VmFacts] = {}
        self.vmis: dict[Key, VmiFacts] = {}
        self.pods: dict[Key, PodFacts] = {}
        self.claims: dict[Key, ClaimFacts] = {}
        self.volumes: dict[str, VolumeFacts] = {}
        self.attachments: dict[str, AttachmentFacts] = {}
        self.leases: dict[str, NodeLeaseFacts] = {}  # by node
        self.hands_off: dict[Key, HandsOffFacts] = {}
        self.migrations: dict[Key, MigrationFacts] = {}  # in flight
        self.migration_limits: MigrationLimitsFacts | None = None
        self.maintained: set[str] = set()  # nodes whose annotation asks to have them empty
        self.replica_sets: dict[str, ReplicaSetFacts] = {}
        self._replica_sets_on: dict[str, set[str]] = defaultdict(set)
        self.rooms = Rooms()  # what is taken of each node, and by which pods' rules
        self.synced_kinds: set[FactKind] = set()
        self._vmis_on: dict[str, set[Key]] = defaultdict(set)
        self.evacuating: set[Key] = set()  # VMIs that KubeVirt was told to move off their node
        self._pods_on: dict[str, set[Key]] = defaultdict(set)
        self._pods_of: dict[Key, set[Key]] = defaultdict(set)
        self._gated: dict[Key, None] = {}  # pods, in the order in which their gates were seen
        self._migrations_of: dict[Key, set[Key]] = {}  # by VMI
        self._zones: dict[str, set[str]] = defaultdict(set)

    @property
    def synced(self) -> bool:
        """Whether every kind that a plan needs has been listed completely."""
        return self.synced_kinds >= REQUIRED_KINDS

    def put(self, facts: Facts) -> Facts | None:  # noqa: PLR0911, PLR0912 - one table per kind
        """Store an object; return what was known of it before."""
        match facts:
            case NodeFacts():
                old_node = self.nodes.get(facts.name)
                if old_node is not None:
                    self._zones[old_node.zone].discard(facts.name)
                self._zones[facts.zone].add(facts.name)
                if MAINTENANCE in facts.annotations:
                    self.maintained.add(facts.name)
                else:
                    self.maintained.discard(facts.name)
                self.nodes[facts.name] = facts
                self.rooms.edition += 1
                return old_node
            case VmFacts():
                return _swap(self.vms, (facts.namespace, facts.name), facts)
            case VmiFacts():
                old_vmi = _swap(self.vmis, (facts.namespace, facts.name), facts)
                self._index_vmi(old_vmi, facts)
                return old_vmi
            case PodFacts():
                facts = self.rooms.sharing(facts)
                old_pod = _swap(self.pods, (facts.namespace, facts.name), facts)
                self._index_pod(old_pod, facts)
                return old_pod
            case ClaimFacts():
                return _swap(self.claims, (facts.namespace, facts.name), facts)
            case VolumeFacts():
                return _swap(self.volumes, facts.name, facts)
            case AttachmentFacts():
                return _swap(self.attachments, facts.name, facts)
            case NodeLeaseFacts():
                return _swap(self.leases, facts.node, facts)
            case HandsOffFacts():
                return _swap(self.hands_off, (facts.namespace, facts.name), facts)
            case MigrationFacts():
                vmi_key = (facts.namespace, facts.vmi)
                self._migrations_of.setdefault(vmi_key, set()).add((facts.namespace, facts.name))
                return _swap(self.migrations, (facts.namespace, facts.name), facts)
            case MigrationLimitsFacts():
                old_limits, self.migration_limits = self.migration_limits, facts
                return old_limits
            case ReplicaSetFacts():
                old_set = _swap(self.replica_sets, facts.name, facts)
                self._index_replicas(old_set, facts)
                return old_set
            case NodeUseFacts():
                return self.rooms.put_use(facts)
            case _:
                assert_never(facts)

    def drop(  # noqa: PLR0912, PLR0915, C901 - one table per kind
        self, kind: FactKind, namespace: str, name: str, uid: str
    ) -> Facts | None:
        """Forget a deleted object; return what was known, or None when it is another by now."""
        key = (namespace, name)
        found: Facts | None
        match kind:
            case FactKind.NODE:
                found = _pop(self.nodes, name, uid)
                if isinstance(found, NodeFacts):
                    self._zones[found.zone].discard(name)
                    self.maintained.discard(name)
                    self.rooms.edition += 1
            case FactKind.VM:
                found = _pop(self.vms, key, uid)
                if found is not None:
                    self.rooms.forget(key)
            case FactKind.VMI:
                found = _pop(self.vmis, key, uid)
                if isinstance(found, VmiFacts):
                    self._index_vmi(found, None)
                    if key not in self.vms:
                        self.rooms.forget(key)
            case FactKind.POD:
                found = _pop(self.pods, key, uid)
                if isinstance(found, PodFacts):
                    self._index_pod(found, None)
            case FactKind.CLAIM:
                found = _pop(self.claims, key, uid)
            case FactKind.VOLUME:
                found = _pop(self.volumes, name, uid)
            case FactKind.ATTACHMENT:
                found = _pop(self.attachments, name, uid)
            case FactKind.NODE_LEASE:
                node = name.removeprefix("node-")
                found = _pop(self.leases, node, uid)
            case FactKind.HANDS_OFF:
                found = _pop(self.hands_off, key, uid)
            case FactKind.MIGRATION:
                found = _pop(self.migrations, key, uid)
                if isinstance(found, MigrationFacts):
                    self._unlist_migration(found)
            case FactKind.MIGRATION_LIMITS:
                found = self.migration_limits
                if found is not None and uid in ("", found.uid):
                    self.migration_limits = None
            case FactKind.REPLICA_SET:
                found = _pop(self.replica_sets, name, uid)
                if isinstance(found, ReplicaSetFacts):
                    self._index_replicas(found, None)
            case FactKind.NODE_USE:
                found = self.rooms.drop_use(name)
            case _:
                assert_never(kind)
        return found

    def vmis_on(self, node: str) -> list[VmiFacts]:
        """Return the VMIs whose status names this node and that have not ended, by name."""
        found = (self.vmis[key] for key in sorted(self._vmis_on.get(node, ())))
        return [vmi for vmi in found if vmi.phase not in _FINAL_PHASES]

    def pods_on(self, node: str) -> list[PodFacts]:
        """Return the launcher pods bound to this node, by name."""
        return [self.pods[key] for key in sorted(self._pods_on.get(node, ()))]

    def pods_of(self, vmi: Subject) -> list[PodFacts]:
        """Return the launcher pods of a VM, by name."""
        return self.pods_under((vmi.namespace, vmi.name))

    def pods_under(self, vmi: Key) -> list[PodFacts]:
        """Return the launcher pods of a VM, by name; as ``pods_of``."""
        return [self.pods[key] for key in sorted(self._pods_of.get(vmi, ()))]

    def gated_pods(self) -> list[PodFacts]:
        """Return the launcher pods that wait behind our scheduling gate, longest seen first."""
        return [self.pods[key] for key in self._gated]

    def has_pods(self, vmi: Key) -> bool:
        """Whether a VM has any launcher pod."""
        return bool(self._pods_of.get(vmi))

    def migrations_of(self, vmi: Key) -> list[MigrationFacts]:
        """Return the migrations of a VM that have not ended, by name."""
        return [self.migrations[key] for key in sorted(self._migrations_of.get(vmi, ()))]

    def vm(self, subject: Subject) -> VmFacts | None:
        """Return a VirtualMachine."""
        return self.vms.get((subject.namespace, subject.name))

    def vmi(self, subject: Subject) -> VmiFacts | None:
        """Return a VirtualMachineInstance."""
        return self.vmis.get((subject.namespace, subject.name))

    def volumes_of(self, namespace: str, claims: tuple[str, ...]) -> list[VolumeFacts]:
        """Return the PersistentVolumes that are bound to these claims, as far as they are known."""
        bound = (self.claims.get((namespace, claim)) for claim in claims)
        found = (self.volumes.get(claim.volume) for claim in bound if claim is not None)
        return [volume for volume in found if volume is not None]

    def zone_members(self, zone: str) -> frozenset[str]:
        """Return the names of the nodes in a zone."""
        return frozenset(self._zones.get(zone, ()))

    def replica_partners(self, node: str) -> dict[str, str]:
        """Return the other nodes that hold a replica of a volume of this one, with its name."""
        found: dict[str, str] = {}
        for name in sorted(self._replica_sets_on.get(node, ())):
            for other in self.replica_sets[name].nodes:
                if other != node:
                    found.setdefault(other, name)
        return found

    def _index_replicas(self, old: ReplicaSetFacts | None, new: ReplicaSetFacts | None) -> None:
        for node in old.nodes if old is not None else ():
            self._replica_sets_on[node].discard(old.name if old is not None else "")
        for node in new.nodes if new is not None else ():
            self._replica_sets_on[node].add(new.name if new is not None else "")

    def _index_vmi(self, old: VmiFacts | None, new: VmiFacts | None) -> None:
        if old is not None and (new is None or old.node != new.node):
            self._vmis_on[old.node].discard((old.namespace, old.name))
        key = _key_of(old, new)
        if new is not None and new.node and new.evacuating_from == new.node:
            self.evacuating.add(key)
        else:
            self.evacuating.discard(key)
        if new is not None and new.node:
            self._vmis_on[new.node].add((new.namespace, new.name))

    def _unlist_migration(self, gone: MigrationFacts) -> None:
        listed = self._migrations_of.get((gone.namespace, gone.vmi), set())
        listed.discard((gone.namespace, gone.name))
        if not listed:
            self._migrations_of.pop((gone.namespace, gone.vmi), None)

    def _index_pod(self, old: PodFacts | None, new: PodFacts | None) -> None:
        if old is not None:
            key = (old.namespace, old.name)
            self._pods_on[old.node].discard(key)
            self._pods_of[(old.namespace, old.vmi)].discard(key)
            self.rooms.drop_pod(old)
            if new is None or not new.gated:
                self._gated.pop(key, None)
        if new is not None:
            key = (new.namespace, new.name)
            if new.node:
                self._pods_on[new.node].add(key)
            self._pods_of[(new.namespace, new.vmi)].add(key)
            self.rooms.put_pod(new)
            if new.gated:
                self._gated.setdefault(key)


def _key_of(old: VmiFacts | None, new: VmiFacts | None) -> Key:
    vmi = new if new is not None else old
    return ("", "") if vmi is None else (vmi.namespace, vmi.name)


def vm_of(pod: PodFacts) -> Subject:
    """Return the VM that a launcher pod runs."""
    return vm_subject(pod.namespace, pod.vmi)


def _swap(table: dict[K, V], key: K, value: V) -> V | None:
    old = table.get(key)
    table[key] = value
    return old


def _pop(table: dict[K, V], key: K, uid: str) -> V | None:
    found = table.get(key)
    if found is None or (uid and getattr(found, "uid", uid) != uid):
        return None
    return table.pop(key)
