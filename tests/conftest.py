"""One example order for everybody: ``make test`` tries the same examples each time.

A random example that fails once in a hundred runs stops an unrelated change. Looking for new ones
is ``make soak``'s work, which sets HYPOTHESIS_PROFILE=explore.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "repeat", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))
