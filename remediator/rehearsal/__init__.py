"""Rehearsals: whole replicas against the simulated cluster, in memory, on virtual time.

What a rehearsal shows is what the daemon does: watchers, engine, actions and election are its own.
Tests play stories with it, and ``remediator simulate`` plays what somebody fears.
"""
