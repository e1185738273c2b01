"""The daemon's settings: one typed tree from a file, the environment and flags.

Later sources win: defaults, the YAML file, ``REMEDIATOR_SECTION__KEY=value``, flags. Durations end
in ``_s`` and take ``90s`` or ``5m`` as well as seconds. Secrets never stand here: settings name the
files that hold them. Every fault of every source is reported at once, with file, line and key.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from remediator.admission_settings import AdmissionSettings, AdmissionSettingsError
from remediator.admission_settings import check_settings as check_admission_settings
from remediator.bus import subjects
from remediator.bus.settings import EMBEDDED, NatsConfigError, NatsSettings, check_settings
from remediator.config_sources import Layers, SourceProblem
from remediator.engine.disruptions import KEPT_S
from remediator.engine.model import Plane
from remediator.engine.readiness import READY_WORDS, delay_s
from remediator.engine.settings import BudgetSettings, EngineSettings, PacingSettings
from remediator.engine.tiers import TIERS, parse_tier
from remediator.fence_settings import RedfishDevice
from remediator.kube.election import ElectionSettings
from remediator.policy import shipped_directory
from remediator.probe_settings import ProbeSettings, ProbeSettingsError
from remediator.probe_settings import check_settings as check_probe_settings
from remediator.signals.sources import SignalSettings, SignalSettingsError
from remediator.signals.sources import check_settings as check_signal_settings
from remediator.storage_settings import StorageApiSettings
from remediator.typed_tree import Problem, convert

Mode = Literal["observe", "enforce"]

ENV_PREFIX = "REMEDIATOR_"
CONFIG_ENV = "REMEDIATOR_CONFIG"  # names the file; not a setting itself
SERVER_ENV = "REMEDIATOR_SERVER"  # where commands ask; the daemon does not read it

# Kubernetes puts REMEDIATOR_SERVICE_HOST, REMEDIATOR_PORT and the like into every container of a
# namespace that has a Service called "remediator" (service links); they are not meant for us.
# None of them holds "__", which divides a section from its key.
_SERVICE_LINK = re.compile(
    r"(?!.*__)REMEDIATOR_(?:[A-Z0-9_]+_)?(?:SERVICE_(?:HOST|PORT)(?:_[A-Z0-9_]+)?"
    r"|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)


_STORAGE_PERIOD_MIN_S = 10.0


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the sections."""


class KubeSettings(Section, frozen=True, kw_only=True):
    """How to reach the Kubernetes API server."""

    kubeconfig: str = ""  # empty: in-cluster, else $KUBECONFIG, else ~/.kube/config
    context: str = ""  # empty: the file's current context
    namespace: str = "remediator"  # where our own Lease lives


class ElectionSection(Section, frozen=True, kw_only=True):
    """Who acts: the holder of this Lease in ``kube.namespace``."""

    lease_name: str = "remediator"
    timing: ElectionSettings = ElectionSettings()


class FenceSettings(Section, frozen=True, kw_only=True):
    """The devices that power nodes off; the first whose patterns match a node is that node's.

    ``devices`` is a shorthand for BMCs that speak Redfish; every other method, levels and selectors
    need FenceConfig documents: in the files of the directory ``configs``, or in the cluster.
    """

    configs: str = ""  # directory of FenceConfig files; empty: none
    devices: tuple[RedfishDevice, ...] = ()


class HttpSettings(Section, frozen=True, kw_only=True):
    """Health, metrics and the decision API.

    The default host is loopback, because this API has no authentication yet and names every VM of
    the cluster; the shipped Deployment sets 0.0.0.0, since the kubelet's probes come to the pod's
    address. Port 0 picks a free one (the log line ``http_listening`` names it).
    """

    host: str = "127.0.0.1"
    port: int = 8080


class JournalSettings(Section, frozen=True, kw_only=True):
    """The local SQLite projection of the decision log; deleting it is harmless."""

    path: str = ""  # empty: journal.sqlite in data_dir


class LogSettings(Section, frozen=True, kw_only=True):
    """What is written to stdout; ``auto`` is console on a terminal, else json."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(Section, frozen=True, kw_only=True):
    """All of it. ``load`` fills the empty ones (identity, data_dir, paths) with what they mean."""

    mode: Mode = "observe"  # observe decides and records, and touches nothing
    identity: str = ""  # empty: the host name (in a cluster the pod's)
    data_dir: str = ""  # empty: $XDG_STATE_HOME/remediator, ~/.local/state/remediator
    policies: str = ""  # directory; empty: the shipped ones
    kube: KubeSettings = KubeSettings()
    nats: NatsSettings = NatsSettings()
    engine: EngineSettings = EngineSettings()
    election: ElectionSection = ElectionSection()
    fence: FenceSettings = FenceSettings()
    storage: StorageApiSettings = StorageApiSettings()
    probes: ProbeSettings = ProbeSettings()
    signals: SignalSettings = SignalSettings()
    admission: AdmissionSettings = AdmissionSettings()
    http: HttpSettings = HttpSettings()
    journal: JournalSettings = JournalSettings()
    log: LogSettings = LogSettings()


class ConfigError(Exception):
    """Settings that cannot be used; ``problems`` has every fault, the text one per line."""

    def __init__(self, problems: Sequence[SourceProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def load(
    file: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """Return the effective settings.

    ``flags`` maps dotted keys (``nats.url``) to values; None means "not given".
    Raises ConfigError with every fault of every source.
    """
    env = os.environ if environ is None else environ
    layers = Layers(Settings)
    if file is not None:
        layers.add_file(file)
    layers.add_environment(
        {
            name: value
            for name, value in env.items()
            if name.startswith(ENV_PREFIX)
            and name not in (CONFIG_ENV, SERVER_ENV)
            and not _SERVICE_LINK.fullmatch(name)
        },
        prefix=ENV_PREFIX,
    )
    layers.add_flags({key: value for key, value in (flags or {}).items() if value is not None})
    settings, problems = convert(layers.tree, Settings)
    found = [*layers.problems, *(layers.placed(problem) for problem in problems)]
    if settings is not None:
        found += [layers.placed(problem) for problem in _check(settings)]
    if settings is None or found:
        raise ConfigError(sorted(found, key=lambda one: (one.file, one.line)))
    return _complete(settings, env)


def effective(settings: Settings) -> dict[str, object]:
    """Return the tree as plain values for printing, without user names and passwords in URLs."""
    from remediator.logs import redact  # noqa: PLC0415 - structlog is not needed to load settings

    tree: dict[str, object] = msgspec.to_builtins(settings)
    nats = tree["nats"]
    if isinstance(nats, dict):
        nats["url"] = redact(settings.nats.url)
    return tree


def _check(settings: Settings) -> Iterator[Problem]:
    """Yield what types cannot say."""
    yield from _check_engine(settings.engine)
    if not 0 <= settings.http.port <= 65535:
        yield Problem(("http", "port"), f"{settings.http.port} is not between 0 and 65535")
    names = [device.name for device in settings.fence.devices]
    for at, name in enumerate(names):
        if name in names[:at]:
            yield Problem(("fence", "devices", at, "name"), f"the name {name!r} is used twice")
    for name in ("portworx_url", "mayastor_url"):
        url: str = getattr(settings.storage, name)
        if url and not url.startswith(("http://", "https://")):
            yield Problem(("storage", name), f"{url!r} does not begin with http:// or https://")
    if settings.storage.period_s < _STORAGE_PERIOD_MIN_S:
        least = f"less than {_STORAGE_PERIOD_MIN_S:g} s would only load the storage's API"
        yield Problem(("storage", "period_s"), least)
    yield from _check_probes(settings.probes)
    yield from _check_nats(settings.nats)
    yield from _check_signals(settings)
    try:
        check_admission_settings(settings.admission)
    except AdmissionSettingsError as error:
        yield Problem(("admission", *error.path), str(error))


def _check_engine(engine: EngineSettings) -> Iterator[Problem]:
    budgets = engine.budgets
    for name in ("max_unhealthy_zone_share", "max_unhealthy_cluster_share"):
        share: float = getattr(budgets, name)
        if not 0 < share <= 1:
            yield Problem(
                ("engine", "budgets", name), f"{share:g} is not a share: above 0, at most 1"
            )
    for section, name in (
        ("budgets", "max_fences_at_once"),
        ("pacing", "retries"),
        ("steps", "attempts"),
    ):
        count: int = getattr(getattr(engine, section), name)
        if count < 1:
            yield Problem(("engine", section, name), f"{count} is too few; at least 1")
    yield from _check_limits(budgets)
    yield from _check_pacing(engine.pacing)


def _check_pacing(pacing: PacingSettings) -> Iterator[Problem]:
    at = ("engine", "pacing")
    for name in PacingSettings.__struct_fields__:
        bound = getattr(pacing, name)
        if name.startswith("starts_") and bound is not None and bound < 1:
            yield Problem((*at, name), f"{bound} is too few; at least 1")
    rate = pacing.rate
    if not 1 <= rate.floor <= rate.initial <= rate.ceiling:
        yield Problem((*at, "rate"), "must be 1 <= floor <= initial <= ceiling")
    for index, tier in enumerate(pacing.gate_tiers):
        if parse_tier(tier) is None:
            known = ", ".join(TIERS)
            text = f"{tier!r} is no tier: {known}, or a whole number from -1000 to 1000"
            yield Problem((*at, "gate_tiers", index), text)
    for pattern, tier in pacing.namespace_tiers.items():
        if parse_tier(tier) is None:
            yield Problem((*at, "namespace_tiers", pattern), f"{tier!r} is no tier")
    if pacing.ready_when not in READY_WORDS and delay_s(pacing.ready_when) is None:
        words = ", ".join(READY_WORDS)
        yield Problem((*at, "ready_when"), f"must be one of {words}, or a time such as 90s")


def _check_limits(budgets: BudgetSettings) -> Iterator[Problem]:
    """Check the limits on disruptions. A limit of 0 would hold everything for ever."""
    for section, limits in (("nodes", budgets.nodes), ("vms", budgets.vms)):
        for name, limit in msgspec.structs.asdict(limits).items():
            if name != "restarts_window_s" and limit is not None and limit < 1:
                why = f"{limit} is too few; at least 1, or null for no limit"
                yield Problem(("engine", "budgets", section, name), why)
    if not 0 <= budgets.storm_share <= 1:
        why = f"{budgets.storm_share:g} is not a share: from 0 to 1"
        yield Problem(("engine", "budgets", "storm_share"), why)
    for name in ("flaps", "storm_nodes"):
        if getattr(budgets, name) < 1:
            why = f"{getattr(budgets, name)} is too few; at least 1"
            yield Problem(("engine", "budgets", name), why)
    windows = {
        ("flap_window_s",): budgets.flap_window_s,
        ("flap_hold_s",): budgets.flap_hold_s,
        ("flap_hold_max_s",): budgets.flap_hold_max_s,
        ("storm_window_s",): budgets.storm_window_s,
        ("storm_cooldown_s",): budgets.storm_cooldown_s,
        ("vms", "restarts_window_s"): budgets.vms.restarts_window_s,
    }
    for path, seconds in windows.items():
        if not 0 <= seconds <= KEPT_S:
            why = f"{seconds:g} s is not from 0 to {KEPT_S:g}: no longer is remembered"
            yield Problem(("engine", "budgets", *path), why)


def _check_probes(probes: ProbeSettings) -> Iterator[Problem]:
    try:
        check_probe_settings(probes)
    except ProbeSettingsError as error:
        yield Problem(("probes", *error.path), str(error))
    try:
        subjects.token(probes.vantage or "one")
    except subjects.SubjectNameError as error:
        yield Problem(("probes", "vantage"), str(error))


def _check_signals(settings: Settings) -> Iterator[Problem]:
    signals = settings.signals
    try:
        check_signal_settings(signals)
    except SignalSettingsError as error:
        yield Problem(("signals", *error.path), str(error))
    probers = any(Plane.NETWORK in known.planes for known in signals.known)
    if signals.require_known and settings.probes.enabled and not probers:
        yield Problem(
            ("signals", "require_known"),
            "the replicas' own vantage points are sources on plane network: add them to "
            "signals.known, or set probes.enabled to false",
        )


def _check_nats(nats: NatsSettings) -> Iterator[Problem]:
    try:
        check_settings(nats)
    except NatsConfigError as error:
        key, _, text = str(error).partition(": ")
        dotted_key = re.fullmatch(r"nats\.([a-z_]+)", key)
        if dotted_key and text:
            yield Problem(("nats", dotted_key[1]), text)
        else:
            yield Problem(("nats",), str(error))


def _complete(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Fill in what an empty setting stands for."""
    state = environ.get("XDG_STATE_HOME") or str(
        Path(environ.get("HOME") or "/var/lib", ".local", "state")
    )
    data_dir = Path(settings.data_dir or Path(state, "remediator")).absolute()
    nats = settings.nats
    if nats.url == EMBEDDED:
        directory = data_dir / (nats.embedded_dir or "nats")  # an absolute one stays as it is
        nats = msgspec.structs.replace(nats, embedded_dir=str(directory))
    return msgspec.structs.replace(
        settings,
        identity=settings.identity or socket.gethostname(),
        data_dir=str(data_dir),
        policies=str(Path(settings.policies or shipped_directory()).absolute()),
        fence=msgspec.structs.replace(
            settings.fence,
            configs=settings.fence.configs and str(Path(settings.fence.configs).absolute()),
        ),
        nats=nats,
        journal=JournalSettings(path=str(data_dir / (settings.journal.path or "journal.sqlite"))),
    )
