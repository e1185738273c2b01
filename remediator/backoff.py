"""How long to wait before the next try: exponential, capped, with full jitter."""

from __future__ import annotations

import random


class Backoff:
    """Delays drawn from ``0..min(cap_s, base_s * 2**n)``; ``reset`` after a success.

    Full jitter spreads a crowd of clients that failed together (the AWS architecture blog's
    comparison of jitters, 2015). ``rng`` is seeded by simulations.
    """

    def __init__(self, *, base_s: float, cap_s: float, rng: random.Random | None = None) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._rng = rng or random.Random()  # noqa: S311 - jitter is no secret
        self.failures = 0

    def next_s(self, *, at_least_s: float = 0.0) -> float:
        """Return the next delay; ``at_least_s`` honours a server's Retry-After."""
        ceiling = min(self._cap_s, self._base_s * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return max(at_least_s, self._rng.uniform(0.0, ceiling))

    def reset(self) -> None:
        """Start over: the last try went well."""
        self.failures = 0
