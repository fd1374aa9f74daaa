"""Pairs of texts, scored by a cross-encoder."""
