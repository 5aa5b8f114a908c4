"""dscc measured beside its peers: `python -m benchmarks.race`, `python -m benchmarks.acceptance`, `make demo`."""
