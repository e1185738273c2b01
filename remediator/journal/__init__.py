"""The journal: appending decisions to NATS, projecting them into SQLite, asking and explaining."""
