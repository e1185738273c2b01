"""NATS: connection, subjects, streams, publisher, consumer, journal stream, embedded server."""
