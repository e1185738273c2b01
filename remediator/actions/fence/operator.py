"""Fence by a person: nothing is done until somebody confirms that the host is off.

The confirmation comes as a command and ends the fence in the engine; this only says that it waits.
"""

from __future__ import annotations

from typing import Final

from remediator.actions.fence.driver import Checked, Down, NotDown, Order, Target
from remediator.engine.model import ProofKind, Reading
from remediator.fence_config.document import OperatorFence
from remediator.power import PowerReading

DEFAULT_TIMEOUT_S: Final = 5.0


class OperatorDriver:
    """Waits for ``remediator fence confirm-off``."""

    proof = ProofKind.OPERATOR_CONFIRMED
    tells_power = False
    leaves_objects = False

    def __init__(self, settings: OperatorFence) -> None:
        self._settings = settings

    @property
    def name(self) -> str:
        """The device's name in its configuration."""
        return self._settings.name

    @property
    def timeout_s(self) -> float:
        """How long to say that a person is needed."""
        return self._settings.timeout_s or DEFAULT_TIMEOUT_S

    def source(self, node: str) -> str:
        """Say who is asked."""
        return f"a person, for {node}"

    async def check(self, target: Target) -> Checked:
        """Tell nothing: nobody is asked in peace."""
        return Checked(
            power=PowerReading(
                reading=Reading.UNKNOWN, source=self.source(target.node), detail="nobody was asked"
            )
        )

    async def take_down(self, target: Target, order: Order) -> Down | NotDown:
        """Say what a person has to do."""
        del order
        why = (
            f"see that {target.node} is off and cannot write, then run: "
            f"remediator fence confirm-off {target.node} --reason '…'"
        )
        return NotDown(source=self.source(target.node), detail=why)

    async def bring_up(self, target: Target, order: Order) -> str:
        """Leave that to the person, too."""
        del target, order
        return ""

    async def take_back(self, target: Target) -> str:
        """Nothing is left behind."""
        del target
        return ""

    async def close(self) -> None:
        """Nothing is held open."""
