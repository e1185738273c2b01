"""What a broken or refused watch means for how to go on."""

from __future__ import annotations

from remediator.kube.errors import ApiError, GoneError
from remediator.kube.watching import InStreamError, WatchSilentError


def needs_list(error: Exception) -> bool:
    """Say whether a watch that failed so cannot go on from where it was.

    410 says it outright. Other refusals of the request itself (400, 403, 404, 422) may be about the
    resourceVersion, or about a CRD that was removed; a list tells. Trouble (429, 5xx, no answer,
    silence, garbage) leaves the version as good as it was.
    """
    if isinstance(error, GoneError):
        return True
    return isinstance(error, ApiError) and 400 <= error.status < 500 and error.status != 429


def refuses_watch_list(error: Exception) -> bool:
    """Say whether the server cannot do a watch-list, as opposed to being in trouble now.

    Kubernetes without the feature answers 422; with an etcd that lacks progress requests (before
    3.4.25 and 3.5.8) it answers 200 and an ERROR event; one that does not know the parameter sends
    the objects and then no closing bookmark.
    """
    if isinstance(error, InStreamError):
        return error.error.status not in {410, 429, 503, 504}
    if isinstance(error, ApiError):
        return error.status in {400, 405, 422, 501}
    return isinstance(error, WatchSilentError)
