"""The order of dimensions, for the whole graph."""
