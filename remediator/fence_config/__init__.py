"""Fence configuration: which devices can take which node down, in which order they are tried."""
