"""A fuzzer of the loader: model files of all kinds, altered, are read, and some are compiled.

    python -m benchmarks.fuzz_files --seconds 60 --seed 0

Each file has to end in success or in one line that says what is wrong with it, within 20 seconds and 4 GB; never in a
traceback, the end of the process, or silence. bases.py has the files, alter.py changes them in one of the ways in
fields.py and alterations/, judge.py reads them in a worker of benchmarks.fuzz, and __main__.py leaves out alterations
that a failure does not need.
"""
