"""The verbs on stored objects: get, create, replace, patch, delete."""

from __future__ import annotations

from typing import Any

import msgspec

from remediator.kube.transport import Response
from remediator.sim import request_body
from remediator.sim.listing import invalid_options, list_body
from remediator.sim.problems import Problem, bad_request, conflict, not_found
from remediator.sim.resources import NAMESPACES, ResourceType
from remediator.sim.routes import Route
from remediator.sim.selectors import selection
from remediator.sim.store import Store
from remediator.sim.watching import encode_json

Object = dict[str, Any]

_JSON = {"content-type": "application/json"}


class ApiRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request whose path names a served kind. ``user`` is the client's name."""

    method: str
    res: ResourceType
    route: Route
    query: dict[str, str]
    content_type: str | None
    body: bytes
    user: str


def json_response(status: int, body: bytes) -> Response:
    """Return an answer whose body is JSON text."""
    return Response(status=status, headers=_JSON, body=body)


def get(store: Store, request: ApiRequest) -> Response:
    """Answer with one object. Raises Problem 404."""
    stored = store.stored(request.res, request.route.namespace, request.route.name)
    if stored is None:
        raise not_found(request.res, request.route.name)
    return json_response(200, stored.encoded())


def create(store: Store, request: ApiRequest) -> Response:
    """Store a new object. Raises Problem 400, 404 (no such namespace), 409, 415, 422."""
    res, route = request.res, request.route
    obj = request_body.read_object(res, route, request.content_type, request.body)
    if obj["metadata"].get("resourceVersion"):
        raise Problem(500, "", "resourceVersion should not be set on objects to be created")
    if res.namespaced and store.find(NAMESPACES, "", route.namespace) is None:
        raise not_found(NAMESPACES, route.namespace)
    return _stored(201, store, res, store.create(res, obj, user=request.user))


def replace(store: Store, request: ApiRequest) -> Response:
    """Store a new version of an object. Raises Problem 400, 404, 409, 415, 422."""
    res, route = request.res, request.route
    obj = request_body.read_object(res, route, request.content_type, request.body)
    metadata = obj["metadata"]
    if store.find(res, route.namespace, route.name) is None:
        if not res.create_on_update or route.subresource:
            raise not_found(res, route.name)
        if metadata.get("uid"):
            why = f"Precondition failed: UID in precondition: {metadata['uid']}, "
            raise conflict(res, route.name, why + "UID in object meta: ")
        metadata.pop("resourceVersion", None)
        return _stored(201, store, res, store.create(res, obj, user=request.user))
    if not metadata.get("resourceVersion") and not res.unconditional_update:
        text = "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
        raise Problem(422, "Invalid", f'{res.group_resource} "{route.name}" is invalid: {text}')
    updated = store.update(res, obj, subresource=route.subresource, user=request.user)
    return _stored(200, store, res, updated)


def patch(store: Store, request: ApiRequest) -> Response:
    """Patch an object; an apply patch may create it. Raises Problem 400, 404, 409, 415, 422.

    Apply is a merge: who owns which field is not tracked, so a field that a later apply leaves out
    stays.
    """
    res, route = request.res, request.route
    kind = request_body.media_type(request.content_type)
    if kind not in request_body.patch_types(res):
        raise request_body.unsupported_patch(res)
    if kind == request_body.APPLY_PATCH:
        if not request.query.get("fieldManager"):
            text = "fieldManager: Required value: is required for apply patch"
            raise invalid_options("PatchOptions", [text])
        body: Any = request_body.read_object(res, route, "application/yaml", request.body)
        if store.find(res, route.namespace, route.name) is None and not route.subresource:
            return _stored(201, store, res, store.create(res, body, user=request.user))
    else:
        body = request_body.decode(request.body)

    def change(obj: Object) -> None:
        result = request_body.patched(res, kind, obj, body)
        obj.clear()
        obj.update(result)

    changed = store.mutate(
        res,
        route.namespace,
        route.name,
        change,
        subresource=route.subresource,
        user=request.user,
    )
    return _stored(200, store, res, changed)


def delete(store: Store, request: ApiRequest) -> Response:
    """Delete an object, or begin to. Raises Problem 400, 404, 409."""
    res, route = request.res, request.route
    last = _delete_one(store, request, route.namespace, route.name)
    stored = store.stored(res, route.namespace, route.name)
    waits = stored is not None and stored.obj["metadata"]["uid"] == last["metadata"]["uid"]
    if waits or res.returns_deleted:
        return _stored(200, store, res, last)
    details: Object = {"name": route.name}
    if res.group:
        details["group"] = res.group
    details |= {"kind": res.plural, "uid": last["metadata"]["uid"]}
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }
    return json_response(200, encode_json(status))


def delete_collection(store: Store, request: ApiRequest) -> Response:
    """Delete every selected object and answer with the list of them. Raises Problem 400."""
    res, query = request.res, request.query
    listed = list_body(store, res, request.route.namespace, query)
    wanted = selection(res, query.get("labelSelector", ""), query.get("fieldSelector", ""))
    for stored in store.stored_list(res, request.route.namespace):
        if wanted.matches(stored.obj):
            metadata = stored.obj["metadata"]
            _delete_one(store, request, metadata.get("namespace", ""), metadata["name"])
    return json_response(200, listed)


def read_integer(name: str, text: str) -> int:
    """Read a number from the query. Raises Problem 400."""
    try:
        return int(text)
    except ValueError:
        raise bad_request(f'{name}: strconv.ParseInt: parsing "{text}": invalid syntax') from None


def _delete_one(store: Store, request: ApiRequest, namespace: str, name: str) -> Object:
    query = request.query
    options = request_body.read_options(request.body)
    if options.get("dryRun"):
        raise bad_request("the simulated API server does not serve dryRun")
    preconditions = options.get("preconditions") or {}
    grace_s = options.get("gracePeriodSeconds")
    if grace_s is None and query.get("gracePeriodSeconds"):
        grace_s = read_integer("gracePeriodSeconds", query["gracePeriodSeconds"])
    return store.delete(
        request.res,
        namespace,
        name,
        uid=preconditions.get("uid") or "",
        resource_version=preconditions.get("resourceVersion") or "",
        grace_s=grace_s,
        propagation=options.get("propagationPolicy") or query.get("propagationPolicy", ""),
        user=request.user,
    )


def _stored(status: int, store: Store, res: ResourceType, obj: Object) -> Response:
    """Answer with an object just stored, in the encoding that watchers and lists share."""
    metadata = obj["metadata"]
    stored = store.stored(res, metadata.get("namespace", ""), metadata["name"])
    if stored is not None and stored.obj is obj:
        return json_response(status, stored.encoded())
    return json_response(status, encode_json(obj))
