"""Durations of an election, and the inequality that keeps two leaders from working at once.

With ``skew``, how far the rates of two clocks may differ from true time::

    (renew_deadline_s + stop_grace_s) / (1 - skew)  <=  lease_duration_s / (1 + skew)

Left: a leader counts from the moment it SENT the last renewal that succeeded (the server stored it
later), stops leading ``renew_deadline_s`` after that whatever it is waiting for, and its cancelled
work has ``stop_grace_s`` to end; a slow clock stretches both. Right: a candidate takes over only
after the record has stayed the same for ``lease_duration_s`` since it SAW it (which is later than
it was stored); a fast clock shortens that. No written time is ever compared with a clock, as
writers' clocks may be off by hours. The defaults give 5.27 <= 5.71 s.

client-go's defaults are 15, 10 and 2 s. A fencing daemon wants its next leader sooner, and two or
three replicas asking once a second are no load.
"""

from __future__ import annotations

import msgspec


class ElectionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Durations of an election; see the module for how they depend on each other.

    Raises ValueError when they could let two leaders work at once.
    """

    lease_duration_s: float = 6.0
    renew_deadline_s: float = 4.0
    retry_period_s: float = 1.0
    request_timeout_s: float = 1.5  # two tries, one of them unanswered, fit the deadline
    stop_grace_s: float = 1.0  # how long cancelled work may take to end
    clock_skew: float = 0.05  # rates of two clocks; virtual machines under load, not quartz

    def __post_init__(self) -> None:
        slowest_stop_s = (self.renew_deadline_s + self.stop_grace_s) / (1.0 - self.clock_skew)
        soonest_start_s = self.lease_duration_s / (1.0 + self.clock_skew)
        if slowest_stop_s > soonest_start_s:
            raise ValueError(
                f"lease_duration_s {self.lease_duration_s:g} is too short: the next leader may "
                f"start {soonest_start_s:.2f} s after the last renewal, the old one may work until "
                f"{slowest_stop_s:.2f} s"
            )
        if self.request_timeout_s + self.retry_period_s >= self.renew_deadline_s:
            raise ValueError(
                "retry_period_s + request_timeout_s must be less than renew_deadline_s, else one "
                "unanswered request ends a leadership"
            )
        if min(self.retry_period_s, self.request_timeout_s) <= 0 or self.stop_grace_s < 0:
            raise ValueError("retry_period_s and request_timeout_s must be more than 0")

    @property
    def overrun_s(self) -> float:
        """How long after its last renewal a leader's work is surely alone, on its own clock."""
        return self.lease_duration_s * (1.0 - self.clock_skew) / (1.0 + self.clock_skew)
