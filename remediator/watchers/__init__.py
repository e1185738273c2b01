"""Kubernetes objects become signals and inventory on the bus."""
