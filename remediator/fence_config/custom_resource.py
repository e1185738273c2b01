"""A FenceConfig that stands in the cluster: the same document, with one rule more.

Whoever may write such an object is not thereby somebody who may read the daemon's files: a login
by file would send any file of the pod to any address. So logins come from Secrets there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from remediator.documents import NAME
from remediator.fence_config.document import (
    API_VERSION,
    KIND,
    Credentials,
    FenceConfigDocument,
)
from remediator.fence_config.loader import FenceConfig, check
from remediator.strict_yaml import Document
from remediator.typed_tree import Problem, convert

_canonical = msgspec.json.Encoder(order="sorted")


def read_object(name: str, spec: dict[str, Any] | None) -> tuple[FenceConfig | None, list[Problem]]:
    """Return the configuration that an object holds, or all that is wrong with it."""
    tree = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec or {}}
    written, problems = convert(tree, FenceConfigDocument)
    if written is None:
        return None, problems
    problems = [*check(written, Document("", tree, {})), *_files(written)]
    if not NAME.fullmatch(name):
        text = "must be lower-case letters, digits and '-', at most 63"
        problems.append(Problem(("metadata", "name"), text))
    if problems:
        return None, problems
    config = FenceConfig(
        name=name,
        source=f"FenceConfig {name}",
        content_hash=hashlib.sha256(_canonical.encode(tree)).hexdigest(),
        spec=written.spec,
    )
    return config, []


def _files(written: FenceConfigDocument) -> Iterator[Problem]:
    for at, device in enumerate(written.spec.devices):
        credentials = getattr(device, "credentials", None)
        if not isinstance(credentials, Credentials):
            continue
        for field, file in (
            ("usernameFile", credentials.username_file),
            ("passwordFile", credentials.password_file),
        ):
            if file:
                yield Problem(
                    ("spec", "devices", at, "credentials", field),
                    "names a file of the daemon: in the cluster a login comes from a Secret",
                )
