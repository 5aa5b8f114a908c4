"""Makes of the artifact FILE.dscc: FILE.truncated.dscc, .altered, .empty, .other, .newer and .foreign (riscv64)."""

import re
import sys
from pathlib import Path

path = Path(sys.argv[1])
image = path.read_bytes()


def write(kind: str, content: bytes) -> None:
    path.with_suffix(f".{kind}.dscc").write_bytes(content)


write("truncated", image[: len(image) // 2])
middle = len(image) // 2
write("altered", image[:middle] + bytes([image[middle] ^ 1]) + image[middle + 1 :])
write("empty", b"")
write("other", b"hello\n")
# The format is read before anything else, so that a file of the future need not fit into today's checks.
newer = image.replace(b'"format": 1,', b'"format":99,', 1)
write("newer", re.sub(rb'"readable_from": "[^"]*"', b'"readable_from": "9.8.7"', newer, count=1))
sys.path.insert(0, str(Path(__file__).parents[3]))


def foreign() -> None:
    """The same artifact for a processor that this is not, properly sealed."""
    import numpy as np

    from dscc.artifact import Artifact

    found = Artifact.open(path)
    library = path.with_suffix(".so")
    library.write_bytes(found.member("model.so"))
    weights = {
        name: np.frombuffer(found.member("weights.safetensors"), tensor.dtype, int(np.prod(tensor.shape)), tensor.offset)
        .reshape(tensor.shape)
        for name, tensor in found.weights().items()
    }  # fmt: skip
    Artifact.build(library, weights, found.manifest._replace(machine="riscv64")).save(path.with_suffix(".foreign.dscc"))


foreign()
