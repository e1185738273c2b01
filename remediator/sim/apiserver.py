"""The simulated kube-apiserver, without sockets: requests in, answers and watches out.

Two faces serve it: ``memory_transport`` (virtual time) and ``http_server`` (real sockets).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from remediator.kube.transport import Query, Response
from remediator.sim import conversion, object_verbs, request_body
from remediator.sim.api_faults import ApiFaults
from remediator.sim.discovery import discover
from remediator.sim.listing import (
    check_not_in_future,
    initial_events,
    is_true,
    list_body,
    parse_version,
)
from remediator.sim.object_verbs import ApiRequest, json_response
from remediator.sim.pod_subresources import SubresourceCall, SubresourceHandler, bind, evict
from remediator.sim.problems import Problem, bad_request, expired, forbidden
from remediator.sim.resources import EVENTS, NAMESPACES, Registry, ResourceType
from remediator.sim.routes import Route, parse
from remediator.sim.selectors import selection
from remediator.sim.store import AdmissionHook, Store
from remediator.sim.watch_streams import WatchHub, WatchStream
from remediator.sim.watching import encode_json, event_line

__all__ = ["ApiServer", "SubresourceCall", "SubresourceHandler"]

Object = dict[str, Any]
Verb = Callable[[Store, ApiRequest], Response]

_TEXT = {"content-type": "text/plain; charset=utf-8"}
_NOT_FOUND = Response(status=404, headers=_TEXT, body=b"404 page not found\n")
_OK = Response(status=200, headers=_TEXT, body=b"ok")
_HEALTH_PATHS = ("/readyz", "/livez", "/healthz")
_KUBEVIRT_SUBRESOURCES = "subresources.kubevirt.io"
_ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
# kube-apiserver --min-request-timeout: a watch without timeoutSeconds lasts 1 to 2 times this.
_WATCH_AT_LEAST_S = 1800
# What a kube-apiserver creates by itself.
_SYSTEM_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")

_OBJECT_VERBS: dict[str, Verb] = {
    "GET": object_verbs.get,
    "PUT": object_verbs.replace,
    "PATCH": object_verbs.patch,
    "DELETE": object_verbs.delete,
}
_STATUS_VERBS = {method: verb for method, verb in _OBJECT_VERBS.items() if method != "DELETE"}
_COLLECTION_VERBS: dict[str, Verb] = {
    "POST": object_verbs.create,
    "DELETE": object_verbs.delete_collection,
}


class ApiServer:
    """Serves a ``store``.

    ``faults`` are asked by the two faces, not here. ``watch_list``: whether ``sendInitialEvents``
    is served (the WatchList feature; refused with 422 when not).
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        *,
        faults: ApiFaults | None = None,
        watch_list: bool = True,
    ) -> None:
        self.store = store
        self.registry = registry
        self.faults = faults or ApiFaults()
        self.faults.on_gone(self.forget_events)
        # Answers SelfSubjectAccessReviews: (client, resourceAttributes) -> allowed.
        self.access: Callable[[str, Object], bool] = lambda _user, _attributes: True
        # Who may read what, as RBAC would say: (client, "list" or "watch" or "get", kind).
        self.may_read: Callable[[str, str, ResourceType], bool] = lambda _user, _verb, _res: True
        # Kinds whose storage is being made, as for some seconds after a CRD was made or changed.
        self.initializing: set[str] = set()  # of group_resource
        self.aggregated_discovery = True
        self.watch_list = watch_list
        self._hubs: dict[ResourceType, WatchHub] = {}
        self._subresources: dict[tuple[str, str], SubresourceHandler] = {
            ("Pod", "binding"): bind,
            ("Pod", "eviction"): evict,
        }
        for name in _SYSTEM_NAMESPACES:
            if store.find(NAMESPACES, "", name) is None:
                store.create(NAMESPACES, {"metadata": {"name": name}})

    def register_subresource(self, kind: str, verb: str, handler: SubresourceHandler) -> None:
        """Serve a subresource: ``kind`` as in "VirtualMachine", ``verb`` as in "evacuate/cancel".

        A later registration replaces an earlier one.
        """
        self._subresources[kind, verb] = handler

    def add_admission(self, hook: AdmissionHook) -> None:
        """Ask ``hook`` before every change, also those of controllers on the store itself."""
        self.store.add_admission(hook)

    def close(self) -> None:
        """End every watch."""
        for hub in self._hubs.values():
            hub.close()
        self._hubs.clear()

    def end_watches(self, res: ResourceType) -> None:
        """End every watch of one kind, as a change of its CRD does."""
        hub = self._hubs.pop(res, None)
        if hub is not None:
            hub.close()

    def forget_events(self) -> None:
        """Forget past events; open watches get an ERROR event with 410 and end."""
        self.store.compact()
        for res, hub in self._hubs.items():
            for stream in hub.all():
                stream.fail(self._too_old(res, 0))

    def answer(
        self,
        method: str,
        path: str,
        query: Query,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> Response | WatchStream:
        """Answer any request; a watch gives a stream, which needs a running event loop.

        Header names are in lower case; ``user-agent`` is the client's name.
        """
        options = dict(reversed(query)) if query else {}
        try:
            return self._answer(method, path, options, headers, body or b"")
        except Problem as problem:
            return Response(
                status=problem.status,
                headers={"content-type": "application/json", **problem.headers},
                body=encode_json(problem.body()),
            )

    def handle(
        self,
        method: str,
        path: str,
        query: Query,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> Response:
        """Answer a request that is no watch. Raises TypeError for a watch."""
        answer = self.answer(method, path, query, headers, body)
        if not isinstance(answer, Response):
            answer.close()
            raise TypeError(f"{path} is a watch: use answer()")
        return answer

    # --- routing ---

    def _answer(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        headers: Mapping[str, str],
        body: bytes,
    ) -> Response | WatchStream:
        route = parse(path)
        res = None if route is None else self._kind_of(route)
        if route is None or res is None:
            return self._answer_elsewhere(method, path, headers, body)
        request = ApiRequest(
            method=method,
            res=res,
            route=route,
            query=query,
            content_type=headers.get("content-type"),
            body=body,
            user=headers.get("user-agent", ""),
        )
        dry_run = query.get("dryRun") and method != "GET"
        if dry_run and route.subresource != "eviction":  # which asks for it by itself
            raise bad_request("the simulated API server does not serve dryRun")
        verbs = self._verbs(request)
        if verbs is None:
            return self._call_subresource(request)
        convert = self.registry.conversion(route.group, route.version, route.plural)
        if method == "GET":
            self._check_readable(request)
        elif convert is not None:
            raise bad_request(f"the simulation writes {res.group_resource} as {res.version} only")
        if method == "GET" and not route.name:
            if is_true(query.get("watch")):
                stream = self._watch(request)
                stream.convert = convert and conversion.of_lines(convert)
                return stream
            listed = list_body(self.store, res, route.namespace, query)
            return json_response(200, conversion.of_list(listed, convert))
        if method not in verbs:
            message = "the server does not allow this method on the requested resource"
            raise Problem(405, "MethodNotAllowed", message)
        return conversion.of_object(verbs[method](self.store, request), convert)

    def _check_readable(self, request: ApiRequest) -> None:
        """Raise Problem 403 or 429 where the client may not read, or nobody can yet."""
        res = request.res
        verb = "watch" if is_true(request.query.get("watch")) else "list"
        verb = "get" if request.route.name else verb
        if not self.may_read(request.user, verb, res):
            why = f'User "{request.user}" cannot {verb} resource "{res.plural}"'
            raise forbidden(res, request.route.name, why)
        if res.group_resource in self.initializing:
            raise Problem(429, "TooManyRequests", "storage is (re)initializing")

    def _verbs(self, request: ApiRequest) -> dict[str, Verb] | None:
        """Return what may be done at this path; None where a handler does it."""
        route, res = request.route, request.res
        if route.group == _KUBEVIRT_SUBRESOURCES:
            return None
        if route.subresource:
            return (
                _STATUS_VERBS if route.subresource == "status" and res.status_subresource else None
            )
        nowhere = res.namespaced and not route.namespace
        if route.name:
            return {} if nowhere else _OBJECT_VERBS
        return {} if nowhere else _COLLECTION_VERBS

    def _kind_of(self, route: Route) -> ResourceType | None:
        group = "kubevirt.io" if route.group == _KUBEVIRT_SUBRESOURCES else route.group
        return self.registry.find(group, route.version, route.plural)

    def _answer_elsewhere(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> Response:
        if path in _HEALTH_PATHS:
            return _OK
        if path == _ACCESS_REVIEWS and method == "POST":
            return self._review_access(headers, body)
        if method != "GET":
            return _NOT_FOUND
        accepted = headers.get("accept", "") if self.aggregated_discovery else ""
        return discover(self.registry, path, accepted) or _NOT_FOUND

    def _call_subresource(self, request: ApiRequest) -> Response:
        route = request.route
        handler = self._subresources.get((request.res.kind, route.subresource))
        if handler is None:
            return _NOT_FOUND
        call = SubresourceCall(
            store=self.store,
            res=request.res,
            namespace=route.namespace,
            name=route.name,
            verb=route.subresource,
            method=request.method,
            query=request.query,
            body=request_body.read_options(request.body),
            user=request.user,
        )
        status, reply = handler(call)
        return json_response(status, b"" if reply is None else encode_json(reply))

    def _review_access(self, headers: Mapping[str, str], body: bytes) -> Response:
        kind = request_body.media_type(headers.get("content-type"))
        if kind not in ("", "application/json"):  # kubectl tries protobuf first
            raise request_body.unsupported_media(("application/json",))
        review = request_body.read_options(body)
        attributes = (review.get("spec") or {}).get("resourceAttributes") or {}
        allowed = self.access(headers.get("user-agent", ""), attributes)
        review["status"] = {"allowed": allowed}
        return json_response(201, encode_json(review))

    # --- watch ---

    def _watch(self, request: ApiRequest) -> WatchStream:
        res, route, query = request.res, request.route, request.query
        initial = initial_events(query, watch_list=self.watch_list)
        version = parse_version(query.get("resourceVersion", ""))
        wanted = selection(res, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        bookmarks = is_true(query.get("allowWatchBookmarks"))
        timeout_s = object_verbs.read_integer("timeoutSeconds", query.get("timeoutSeconds") or "0")
        stream = WatchStream(
            res,
            route.namespace,
            wanted,
            # Events are served from etcd, past the watch cache: nobody sends bookmarks of them.
            bookmarks=bookmarks and res is not EVENTS,
            loop=asyncio.get_running_loop(),
            current_version=lambda: self.store.resource_version,
        )
        if initial is True or (initial is None and not version):
            check_not_in_future(self.store, version)
            stream.push_initial(
                [
                    event_line("ADDED", stored.encoded())
                    for stored in self.store.stored_list(res, route.namespace)
                    if wanted.everything or wanted.matches(stored.obj)
                ]
            )
            if initial and bookmarks:
                stream.bookmark(initial_events_end=True)
        elif version:
            missed = self.store.events_after(res, version)
            if missed is None:
                # Past the parsing of its options a watch fails in the stream (cacher.Watch).
                stream.fail(self._too_old(res, version))
                return stream
            lines = [stream.line_of(event) for event in missed]
            stream.push_initial([line for line in lines if line is not None])
        hub = self._hubs.get(res)
        if hub is None:
            hub = self._hubs[res] = WatchHub(self.store, res)
        hub.add(stream)
        at_least_s = _WATCH_AT_LEAST_S
        stream.start(timeout_s or self.store.rng.uniform(at_least_s, 2 * at_least_s))
        return stream

    def _too_old(self, res: ResourceType, version: int) -> Problem:
        return expired(f"too old resource version: {version} ({self.store.complete_since(res)})")
