"""The only place that changes the world: recheck on fresh state, act, prove."""
