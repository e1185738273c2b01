"""Open the gate of one launcher pod: take our scheduling gate off, so that the pod is placed.

The safest of all actions: the gate was ours, and without it the pod does what it would have done
without us. Other gates, and everything else of the pod, stay as they are.
"""

from __future__ import annotations

from typing import Final

from remediator.actions.live import CONFLICTS_MAX, REQUEST_TIMEOUT_S, read, write
from remediator.actions.world import Result, SparedError, World, failed, succeeded
from remediator.engine.model import Ungate
from remediator.kube.errors import ConflictError, NotFoundError
from remediator.kube.objects import PODS
from remediator.kube.pacing_gates import GatedPod, open_gate

_GONE: Final = "the pod is gone, and its gate with it"


async def ungate(work: Ungate, world: World) -> Result:
    """Take the gate off and see it gone; gone already is a success too. Raises SparedError."""
    path = PODS.object_path(work.pod, work.namespace)
    for _ in range(CONFLICTS_MAX):
        pod = await read(world, path, GatedPod)
        if pod is None or pod.uid != work.pod_uid:
            return succeeded(_GONE, changed=False)
        if not pod.gated:
            return succeeded("its gate was open already", changed=False)
        if not pod.launcher:
            raise SparedError("the pod is no launcher pod")
        try:
            after = await write(
                world,
                lambda pod=pod: open_gate(  # type: ignore[misc]
                    world.client, pod, prefer=work.prefer, timeout_s=REQUEST_TIMEOUT_S
                ),
            )
        except NotFoundError:
            return succeeded(_GONE, changed=False)
        except ConflictError:
            continue  # somebody wrote the pod meanwhile: read it again
        if after.gated:
            return failed("the API server took the change, and the gate is still there")
        hint = f"; it is asked to go to {work.prefer}" if work.prefer else ""
        return succeeded(f"its gate is open{hint}", changed=True)
    return failed(f"the pod was written {CONFLICTS_MAX} times meanwhile by others")
