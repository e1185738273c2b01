"""Fence configuration: which devices can take which node down, in which order they are tried."""

from remediator.fence_config.loader import FenceConfig, config_for, load_directory, load_text

__all__ = ["FenceConfig", "config_for", "load_directory", "load_text"]
