"""Passes that make a graph smaller without knowing what it computes."""
