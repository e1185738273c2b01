"""The Kubernetes API: transport, typed client, errors, reflector, narrow objects, election."""
