"""One kind in several versions: what is stored in one is answered in the one that was asked for."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from remediator.kube.transport import Response
from remediator.sim.resources import Convert
from remediator.sim.watching import decode_json, encode_json


def of_list(listed: bytes, convert: Convert | None) -> bytes:
    """Return a list's text in the asked-for version; ``convert`` None: as it is stored."""
    if convert is None:
        return listed
    body = decode_json(listed)
    body["items"] = [convert(item) for item in body["items"]]
    return encode_json(body)


def of_lines(convert: Convert) -> Callable[[bytes], bytes]:
    """Return what converts each line of a watch."""

    def of(line: bytes) -> bytes:
        event = decode_json(line)
        if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
            event["object"] = convert(event["object"])
        return encode_json(event)

    return of


def of_object(answer: Response, convert: Convert | None) -> Response:
    """Return an answer that holds one object in the asked-for version."""
    if convert is None:
        return answer
    return msgspec.structs.replace(answer, body=encode_json(convert(decode_json(answer.body))))
