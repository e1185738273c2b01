"""Emulated hosts: kubelet, virt-handler and domains, speaking to an API server as real ones do.

They reach the API server only through ``remediator.kube.transport.Transport``, so the same hosts
run against the simulated API server and against a real control plane.
"""
