"""A differential fuzzer: random valid graphs, compiled by dscc and compared with onnxruntime and onnx's own evaluator.

    python -m benchmarks.fuzz --seconds 60 --seed 0

graph.py builds, families/ hold the generators, judge.py compares, worker.py isolates, shrink.py makes small what fails;
campaign.py is what it has in common with benchmarks.fuzz_files.
"""
