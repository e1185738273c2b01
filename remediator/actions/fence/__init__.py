"""Fence devices, and the action that powers a node off and verifies it."""
