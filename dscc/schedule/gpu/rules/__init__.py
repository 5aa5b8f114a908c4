"""One rule per shape of computation, for targets to list."""
