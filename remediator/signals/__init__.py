"""The public form of evidence: what a signal looks like on NATS, and what is let in."""
