"""The simulated control plane: what decides, among real controllers, when a VM comes back."""

from remediator.sim.controllers.control_plane import ControlPlane
from remediator.sim.controllers.settings import ControlPlaneSettings

__all__ = ["ControlPlane", "ControlPlaneSettings"]
