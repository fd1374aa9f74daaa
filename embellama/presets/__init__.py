"""Settings chosen for an aim, or for what a machine can give."""
