"""The pure engine: events and the time go in, effects come out.

No asyncio, clock, randomness, logging or I/O in this package (import-linter holds it), so the same
events at the same times always give the same effects: it can be simulated, replayed and explained.
"""
