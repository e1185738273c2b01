"""Active checks become signals on the bus."""
