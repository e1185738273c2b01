"""Reads FenceConfig files: all faults at once, each with file, line, column and field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from remediator.documents import (
    DocumentError,
    DocumentProblem,
    Written,
    read_directory,
    read_documents,
)
from remediator.fence_config.document import (
    AgentFence,
    AnyDevice,
    Credentials,
    FenceConfigDocument,
    Medik8sFence,
    NetworkFence,
    OperatorFence,
    RedfishFence,
    Spec,
)
from remediator.strict_yaml import Document
from remediator.typed_tree import Problem

_AGENT = re.compile(r"fence_[a-z0-9][a-z0-9_-]*")
_FIELD = re.compile(r"\{([^{}]*)\}")
_PASSWORDS = frozenset({"password", "passwd", "passphrase", "password_script"})

Path_ = tuple[str | int, ...]


class FenceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One sound configuration, as the daemon uses it."""

    name: str
    source: str  # the file it came from
    content_hash: str
    spec: Spec

    def fits(self, node: str, labels: dict[str, str]) -> bool:
        """Whether this configuration is for a node of this name and with these labels."""
        wanted = self.spec.nodes
        named = not wanted.names or any(fnmatchcase(node, each) for each in wanted.names)
        return named and wanted.labels.items() <= labels.items()

    def device(self, name: str) -> AnyDevice:
        """Return a device by its name; the loader has seen to it that it is there."""
        return next(device for device in self.spec.devices if device.name == name)


def config_for(
    configs: Sequence[FenceConfig], node: str, labels: dict[str, str]
) -> FenceConfig | None:
    """Return the first configuration that fits a node; ``configs`` are in the order asked."""
    return next((config for config in configs if config.fits(node, labels)), None)


def label_keys(configs: Sequence[FenceConfig]) -> frozenset[str]:
    """Return the node label keys that these configurations read; watchers must keep them."""
    return frozenset(key for config in configs for key in config.spec.nodes.labels)


Written_ = Written[FenceConfigDocument]


def read_configs(directory: Path) -> tuple[list[Written_], list[DocumentProblem]]:
    """Read every ``*.yaml`` and ``*.yml`` file; return the sound documents and all faults."""
    return read_directory(directory, FenceConfigDocument, check, what="FenceConfig")


def load_directory(directory: Path) -> list[FenceConfig]:
    """Read every ``*.yaml`` and ``*.yml`` file, in the order asked.

    Raises DocumentError: unreadable files, faults, a name used twice, or no document at all.
    """
    found, problems = read_configs(directory)
    if problems:
        raise DocumentError(problems)
    return in_order(map(of_document, found))


def load_text(text: str, *, file: str) -> list[FenceConfig]:
    """Read the configurations of one file's text, in the file's order. Raises DocumentError."""
    found, problems = read_documents(text, file=file, into=FenceConfigDocument, check=check)
    if problems:
        raise DocumentError(problems)
    return [of_document(one) for one in found]


def in_order(configs: Iterable[FenceConfig]) -> list[FenceConfig]:
    """Sort configurations as they are asked: by priority (lower first), then by name."""
    return sorted(configs, key=lambda one: (one.spec.priority, one.name))


def of_document(written: Written_) -> FenceConfig:
    """Return the configuration that a sound document holds."""
    return FenceConfig(
        name=written.name,
        source=written.document.file,
        content_hash=written.content_hash,
        spec=written.value.spec,
    )


def check(written: FenceConfigDocument, document: Document) -> Iterator[Problem]:
    """Yield what types cannot say."""
    del document
    spec = written.spec
    path: Path_ = ("spec",)
    if not spec.devices:
        yield Problem((*path, "devices"), "names no device")
    names = [device.name for device in spec.devices]
    for at, device in enumerate(spec.devices):
        where = (*path, "devices", at)
        if not device.name:
            yield Problem((*where, "name"), "must not be empty")
        if device.name in names[:at]:
            yield Problem((*where, "name"), f"the name {device.name!r} is used twice")
        yield from _check_device(device, where)
    yield from _check_levels(spec)


def _check_levels(spec: Spec) -> Iterator[Problem]:
    path: Path_ = ("spec", "levels")
    known = {device.name: device for device in spec.devices}
    if not spec.levels:
        yield Problem(path, "names no level, so nothing would ever be tried")
    used: set[str] = set()
    waits_for_ever = False
    for at, level in enumerate(spec.levels):
        where = (*path, at)
        if waits_for_ever:
            yield Problem(where, "is never reached: the level before it waits for a person")
        if not level.devices:
            yield Problem((*where, "devices"), "names no device")
        for number, name in enumerate(level.devices):
            here = (*where, "devices", number)
            if name not in known:
                yield Problem(here, f"no device is called {name!r}")
            elif name in level.devices[:number]:
                yield Problem(here, f"{name} stands twice")
        people = [name for name in level.devices if isinstance(known.get(name), OperatorFence)]
        if people and len(level.devices) > 1:
            yield Problem(
                (*where, "devices"), f"{people[0]} waits for a person: a level of its own"
            )
        waits_for_ever = waits_for_ever or bool(people)
        used.update(level.devices)
    for at, device in enumerate(spec.devices):
        if device.name not in used:
            yield Problem(("spec", "devices", at, "name"), f"{device.name!r} is in no level")


def _check_device(device: AnyDevice, where: Path_) -> Iterator[Problem]:
    match device:
        case RedfishFence():
            yield from _check_url(device.endpoint, (*where, "endpoint"))
            yield from _check_fields(device.endpoint, (*where, "endpoint"))
            yield from _check_fields(device.system, (*where, "system"))
            if device.system and not device.system.startswith("/"):
                yield Problem((*where, "system"), "is a path: it begins with '/'")
            yield from _check_credentials(device.credentials, (*where, "credentials"))
        case AgentFence():
            yield from _check_agent(device, where)
        case Medik8sFence():
            if not device.template.kind.endswith("Template"):
                yield Problem((*where, "template", "kind"), "a template's kind ends in 'Template'")
        case NetworkFence():
            if bool(device.class_name) == bool(device.driver):
                yield Problem(where, "needs either className or driver")
            if device.driver and device.secret is None:
                yield Problem((*where, "secret"), "is needed with driver")
        case _:
            pass


def _check_agent(device: AgentFence, where: Path_) -> Iterator[Problem]:
    if not _AGENT.fullmatch(device.program):
        yield Problem(
            (*where, "program"), f"{device.program!r} is no name of a fence agent (fence_…)"
        )
    for name, value in device.parameters.items():
        here = (*where, "parameters", name)
        if name in _PASSWORDS:
            yield Problem(here, "is a secret: name it under credentials, not here")
        yield from _check_fields(value, here)
    for node, parameters in device.node_parameters.items():
        for name in parameters:
            if name in _PASSWORDS:
                yield Problem(
                    (*where, "nodeParameters", node, name),
                    "is a secret: name it under credentials, not here",
                )
    if device.credentials is not None:
        yield from _check_credentials(device.credentials, (*where, "credentials"))


def _check_credentials(credentials: Credentials, where: Path_) -> Iterator[Problem]:
    sources = [bool(credentials.password_file), credentials.secret is not None]
    if sum(sources) != 1:
        yield Problem(where, "needs either passwordFile or secret")
    elif credentials.secret is None and not (credentials.username or credentials.username_file):
        yield Problem(where, "needs username or usernameFile beside passwordFile")
    if credentials.username and credentials.username_file:
        yield Problem((*where, "usernameFile"), "stands beside username: which one is meant?")


def _check_url(url: str, where: Path_) -> Iterator[Problem]:
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port is None or parts.port else None
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in {"https", "http"} or not host:
        yield Problem(where, f"{url!r} is no URL of a BMC (https://…)")
    elif parts.username or parts.password:
        yield Problem(where, "holds credentials: name them under credentials, not here")


def _check_fields(text: str, where: Path_) -> Iterator[Problem]:
    for field in _FIELD.findall(text):
        if field != "node":
            yield Problem(where, f"{{{field}}} is not known; only {{node}} is replaced")
