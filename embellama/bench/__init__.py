"""Measurements on the user's own machine and texts: which file type, which settings."""
