"""dscc against PyTorch and cuBLAS on a CUDA device.

    python -m benchmarks.device build FOLDER     on any machine: compiles every model into FOLDER
    python -m benchmarks.device run FOLDER       on one with a device and torch, which needs no compiler: measures
    python -m benchmarks.device report FOLDER    writes the section of RESULTS.md

`make device-bench` does all three. FOLDER can be carried: weights are not in it, but the seeds that they are made from.
"""
