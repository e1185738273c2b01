"""remediator brings KubeVirt virtual machines back when a host dies."""
