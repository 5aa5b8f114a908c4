"""Load an artifact and run it. Needs TVM's runtime library (3 MB), never its compiler; imports no package of TVM."""

from dscc.runtime.module import Module, load

__all__ = ["Module", "load"]
