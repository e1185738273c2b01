"""Live migrations as objects: KubeVirt keeps the last five of each VM after their end."""

from __future__ import annotations

from remediator.kube.metadata import KubeObject, KubeStruct, share_fields

_FINAL_PHASES = frozenset({"Succeeded", "Failed"})


class MigrationSpec(KubeStruct, frozen=True):
    """``spec``, narrowed."""

    vmi_name: str = ""
    added_node_selector: dict[str, str] | None = None


class MigrationCourse(KubeStruct, frozen=True):
    """``status.migrationState``, narrowed; some versions fill it in only at the end."""

    target_node: str | None = None


class MigrationStatus(KubeStruct, frozen=True):
    """``status``, narrowed."""

    phase: str | None = None
    migration_state: MigrationCourse | None = None

    def __post_init__(self) -> None:
        share_fields(self, "phase")


class VirtualMachineInstanceMigration(KubeObject, frozen=True):
    """A KubeVirt VirtualMachineInstanceMigration."""

    spec: MigrationSpec | None = None
    status: MigrationStatus | None = None

    @property
    def vmi_name(self) -> str:
        """The VMI that moves; it is in the migration's namespace."""
        return self.spec.vmi_name if self.spec is not None else ""

    @property
    def phase(self) -> str:
        """Pending, Scheduling, …, Running, Succeeded, Failed; "" when just made."""
        return (self.status.phase if self.status is not None else None) or ""

    @property
    def target(self) -> str:
        """The node that it goes to: known, or asked for; "" while KubeVirt has not chosen."""
        course = self.status.migration_state if self.status is not None else None
        if course is not None and course.target_node:
            return course.target_node
        wanted = (self.spec.added_node_selector if self.spec is not None else None) or {}
        return wanted.get("kubernetes.io/hostname", "")

    @property
    def ended(self) -> bool:
        """Nothing more comes of it."""
        return self.phase in _FINAL_PHASES
