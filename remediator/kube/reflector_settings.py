"""How patient a reflector is."""

from __future__ import annotations

import msgspec

from remediator.kube.listing import PAGE_LIMIT


class ReflectorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How patient a reflector is. The defaults' sources are named."""

    page_limit: int = PAGE_LIMIT
    list_timeout_s: float = 30.0  # one page; the API server itself gives up after 60 s
    connect_timeout_s: float = 10.0
    # client-go asks for 300 to 600 s; shorter watches move sooner to another API server.
    watch_timeout_min_s: float = 240.0
    watch_timeout_max_s: float = 300.0
    # The API server sends a bookmark about every minute (cacher: bookmarkFrequency). A watch of
    # leases, where something comes every few seconds, wants a much shorter one.
    inactivity_timeout_s: float = 90.0
    # While a watch-list sends the initial objects; a server that does not know it goes quiet.
    initial_inactivity_timeout_s: float = 5.0
    watch_list: bool = True
    # Without bookmarks, as for Events, which the API server does not cache (kubernetes#120348): a
    # watch that lived for its whole time has handed on what was there when it began.
    bookmarks: bool = True
    backoff_base_s: float = 0.5
    backoff_cap_s: float = 10.0  # client-go: 30 s; detection waits for us, and we are few
    absent_cap_s: float = 60.0
    forbidden_cap_s: float = 10.0  # RBAC may be a moment behind; it is said once, not each time
    retry_after_cap_s: float = 60.0
    healthy_after_s: float = 5.0  # a watch that lived so long was no part of a failing loop
    progress_delay_s: float = 0.1
