"""The file format of compiled models. `Artifact` writes, reads and checks it; `Manifest` is what it says of itself."""

from dscc.artifact.artifact import Artifact
from dscc.artifact.manifest import FORMAT, Manifest, TensorSpec

__all__ = ["FORMAT", "Artifact", "Manifest", "TensorSpec"]
