"""A simulated cluster: API server, controllers, hosts, BMCs and shared storage, with faults."""
