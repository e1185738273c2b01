"""The daemon's HTTP door: health, metrics and the decision log, read-only."""
