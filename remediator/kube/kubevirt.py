"""The KubeVirt object: what the installation says about live migrations."""

from __future__ import annotations

from remediator.kube.metadata import KubeObject, KubeStruct


class MigrationConfiguration(KubeStruct, frozen=True):
    """``spec.configuration.migrations``, narrowed; None where KubeVirt's own default holds."""

    parallel_migrations_per_cluster: int | None = None
    parallel_outbound_migrations_per_node: int | None = None
    bandwidth_per_migration: int | str | None = None  # a quantity
    completion_timeout_per_gi_b: int | None = None
    progress_timeout: int | None = None
    allow_post_copy: bool | None = None


class KubeVirtConfiguration(KubeStruct, frozen=True):
    """``spec.configuration``, narrowed."""

    migrations: MigrationConfiguration | None = None


class KubeVirtSpec(KubeStruct, frozen=True):
    """``spec``, narrowed."""

    configuration: KubeVirtConfiguration | None = None


class KubeVirt(KubeObject, frozen=True):
    """The one KubeVirt object of a cluster."""

    spec: KubeVirtSpec | None = None

    @property
    def migrations(self) -> MigrationConfiguration:
        """What it says about live migrations."""
        configuration = self.spec.configuration if self.spec is not None else None
        said = configuration.migrations if configuration is not None else None
        return said if said is not None else MigrationConfiguration()
