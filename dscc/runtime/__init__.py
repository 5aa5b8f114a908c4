"""Load an artifact and run it. Needs TVM's runtime library (3 MB), never its compiler, and imports neither of its packages."""

from dscc.runtime.module import Module, load

__all__ = ["Module", "load"]
