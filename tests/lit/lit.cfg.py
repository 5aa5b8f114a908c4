"""lit's configuration: `lit tests/lit` runs every RUN line with the dscc of the environment that lit itself is in."""

import os
import sys
from pathlib import Path

import lit.formats

config.name = "dscc"
config.test_format = lit.formats.ShTest(False)  # lit's own shell: the same everywhere, and lit 23 wants it said
config.suffixes = [".py", ".test"]
config.excludes = ["lit.cfg.py", "Inputs"]

root = Path(__file__).resolve().parents[2]
config.test_source_root = str(root / "tests" / "lit")
config.test_exec_root = os.environ.get("DSCC_LIT_OUTPUT", str(root / "build" / "lit"))

binaries = Path(sys.executable).parent
# Nothing of the user's environment reaches a test, except where the tools are.
config.environment = {
    "PATH": os.pathsep.join([str(binaries), os.environ.get("PATH", "/usr/bin:/bin")]),
    "PYTHONPATH": str(root),
    "PYTHONHASHSEED": "0",
    "COLUMNS": "100",
    "TERM": "dumb",
    "HOME": os.environ.get("HOME", "/"),
}
config.substitutions += [
    ("%dscc", f"{sys.executable} -m dscc.cli"),
    ("%python", sys.executable),
    ("%inputs", str(root / "tests" / "lit" / "Inputs")),
    ("%root", str(root)),
]
