"""The admission gate: a webhook that holds launcher pods back while more start than may."""
