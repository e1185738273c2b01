"""Opening every gate with access to the cluster alone: for an uninstall, or when no daemon runs."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from remediator.kube.client import KubeClient
from remediator.kube.errors import ApiError, ConflictError, NotFoundError
from remediator.kube.objects import PODS
from remediator.kube.pacing_gates import GatedPod, gated_pods, open_gate
from remediator.kube.transport import TransportError

AT_ONCE: Final = 8  # requests; as the sweeper
TRIES: Final = 4  # of each gate: a pod that starts is written by others, too


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A gate that was found. ``why``: what kept it shut, "" where it is open now."""

    vm: str  # NAMESPACE/NAME
    pod: str
    opened: bool
    why: str = ""


async def release_gates(
    client: KubeClient, *, namespace: str = "", dry_run: bool = False
) -> list[Held]:
    """Open every gate of ours, in one namespace or in all; return what was found, by VM.

    A pod that is gone meanwhile counts as opened. Raises ApiError and TransportError where the
    pods cannot be listed.
    """
    found = sorted(await gated_pods(client, namespace=namespace), key=lambda pod: pod.vm)
    if dry_run:
        return [Held(vm=pod.vm, pod=pod.name, opened=False, why="dry run") for pod in found]
    turn = asyncio.Semaphore(AT_ONCE)
    return list(await asyncio.gather(*(_release(client, pod, turn) for pod in found)))


async def _release(client: KubeClient, pod: GatedPod, turn: asyncio.Semaphore) -> Held:
    why = ""
    async with turn:
        for _ in range(TRIES):
            try:
                after = await open_gate(client, pod)
                if not after.gated:
                    return Held(vm=pod.vm, pod=pod.name, opened=True)
                why = "the API server took the change, and the gate is still there"
            except NotFoundError:
                return Held(vm=pod.vm, pod=pod.name, opened=True)
            except ConflictError as error:
                why = error.message
                again = await _again(client, pod)
                if again is None:
                    return Held(vm=pod.vm, pod=pod.name, opened=True)
                pod = again
            except (ApiError, TransportError) as error:
                why = str(error)
    return Held(vm=pod.vm, pod=pod.name, opened=False, why=why)


async def _again(client: KubeClient, pod: GatedPod) -> GatedPod | None:
    """Read the pod anew; None where it is gone, another's, or open. Failures: as it was."""
    try:
        now: GatedPod = await client.get(PODS.object_path(pod.name, pod.namespace), GatedPod)
    except NotFoundError:
        return None
    except (ApiError, TransportError):
        return pod
    return now if now.uid == pod.uid and now.gated else None
