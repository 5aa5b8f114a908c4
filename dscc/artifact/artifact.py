"""One file that holds a compiled model: write it, read it, check it.

    manifest.json         what it is, and the hashes of the other members
    model.so              kernels and the program that calls them
    weights.safetensors   passed to the program as parameters, mapped and never copied
    fallback/N.onnx       regions of the model that another engine runs

The file ends with the SHA-256 of `manifest.json`, as the zip's comment; the manifest has the hashes of the members; the
frame of the zip is compared with the one that `frame` makes. So no byte can change unseen. All of that is checked
before any of it is used.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dscc import scratch
from dscc.artifact import host, safetensors, store
from dscc.artifact.digest import Digest, altered, digest
from dscc.artifact.frame import Entry, Frame, first_member, frame
from dscc.artifact.manifest import FORMAT, Manifest, encode
from dscc.errors import ArtifactError

if TYPE_CHECKING:
    import numpy as np

    from dscc.runtime import Module

MANIFEST, LIBRARY, WEIGHTS = "manifest.json", "model.so", "weights.safetensors"
FALLBACK = "fallback/{}.onnx"
_ALIGN = {MANIFEST: 64, LIBRARY: 64, WEIGHTS: 4096}
_SEAL = "dscc manifest sha256 "


class Artifact(NamedTuple):
    """A compiled model, checked.

    Attributes:
        manifest: what it says about itself.
        image: the bytes of the whole file; mapped if it was opened, in memory if it was just built.
        members: where each member lies in `image`, by name.
    """

    manifest: Manifest
    image: memoryview
    members: Mapping[str, slice]

    @classmethod
    def build(
        cls,
        library: Path,
        weights: Mapping[str, np.ndarray[Any, Any]],
        manifest: Manifest,
        fallback: Sequence[bytes] = (),
    ) -> Artifact:
        """An artifact of a linked library, the weights that its `main` takes, in that order, a manifest, and the models
        that another engine runs.

        `manifest.weights` is filled in here. The same input gives the same bytes.

        Raises:
            ValueError: a weight has a type that cannot be stored.
        """
        manifest = manifest._replace(weights=tuple(weights))
        contents: dict[str, list[bytes | memoryview]] = {
            LIBRARY: [library.read_bytes()],
            WEIGHTS: list(safetensors.pack(weights)),
            **{FALLBACK.format(index): [model] for index, model in enumerate(fallback)},
        }
        return _assembled(manifest, {name: digest(chunks) for name, chunks in contents.items()}, contents)

    @classmethod
    def open(cls, path: Path | str) -> Artifact:
        """Read and check the artifact at `path`.

        Raises:
            ArtifactError: the file cannot be read, is not an artifact, is truncated or altered, or has a newer format.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size == 0:
                    raise ArtifactError(f"'{path}' is empty; expected an artifact that 'dscc compile' wrote")
                mapping = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE)
                if hasattr(mmap, "MADV_HUGEPAGE"):  # what is read now gets large pages, where the file system has them
                    with contextlib.suppress(OSError):  # a kernel without them
                        mapping.madvise(mmap.MADV_HUGEPAGE)
                image = memoryview(mapping)
        except FileNotFoundError as err:
            raise ArtifactError(f"artifact '{path}' does not exist") from err
        except OSError as err:
            raise ArtifactError(f"cannot read artifact '{path}': {(err.strerror or str(err)).lower()}") from err
        return _checked(str(path), image)

    def save(self, path: Path | str) -> None:
        """Write the artifact to `path`. The file is complete or absent, also when the process is killed.

        Raises:
            ArtifactError: the file cannot be written; what was at `path` before is still there.
        """
        store.write(Path(path), scratch.pieces(self.image))

    def load(self, threads: int | None = None, device: str | None = None) -> Module:
        """Make it ready to run in this process.

        On Linux, weights of a module that runs again and again move to memory of the process, in huge pages, unless the
        environment variable DSCC_HUGE_PAGES is 0: they are faster there, and no longer shared between processes.

        Args:
            threads: how many processor cores one call may use; None means all that this process may use.
            device: part of the name of the device that kernels run on, where there are several that the artifact is
                for; None means what the environment variable DSCC_DEVICE says, or else the first one.

        Raises:
            ArtifactError: this machine cannot run it.
        """
        if reason := host.unfit(self.manifest):
            raise ArtifactError(f"this artifact cannot run here: {reason}; compile the model for this machine")
        from dscc.runtime import Module

        return Module(self, threads, device)

    def with_check(self, check: Mapping[str, Any]) -> Artifact:
        """The same artifact with another `check` in its manifest."""
        record = json.loads(bytes(self.member(MANIFEST)))
        contents: dict[str, list[bytes | memoryview]] = {name: [self.member(name)] for name in record["members"]}
        return _assembled(self.manifest._replace(check=check), _digests(record), contents)

    def member(self, name: str) -> memoryview:
        """The content of a member, without a copy."""
        return self.image[self.members[name]]

    def weights(self) -> dict[str, safetensors.StoredTensor]:
        """The weights by name, as they lie in the member `weights.safetensors`."""
        return safetensors.index(self.member(WEIGHTS))


def _assembled(
    manifest: Manifest, digests: Mapping[str, Digest], contents: Mapping[str, Sequence[bytes | memoryview]]
) -> Artifact:
    text = encode(manifest, {name: found._asdict() for name, found in digests.items()})
    outline = _outline(text, digests)
    members: list[Sequence[bytes | memoryview]] = [[text], *contents.values(), []]
    chunks = [chunk for gap, found in zip(outline.gaps, members, strict=True) for chunk in (gap, *found)]
    # The manifest as a reader gets it, with lists where there were tuples in the summary.
    parsed = Manifest.from_dict(json.loads(text))
    return Artifact(parsed, _image(outline.size, chunks), _places(outline, text, digests))


def _image(size: int, chunks: Sequence[bytes | memoryview]) -> memoryview:
    """One buffer, so that an artifact that was just built is loaded by the code that loads a file. A large one is in a
    file, where there is room for it.
    """
    try:
        if size >= scratch.LEAST_BYTES:
            import tempfile  # only here: with what it imports it takes a quarter of the runtime's import

            with tempfile.TemporaryFile(prefix="dscc-") as file:
                for chunk in chunks:
                    for piece in scratch.pieces(memoryview(chunk)):
                        store.write_all(file.fileno(), piece)
                return memoryview(scratch.mapped(file.fileno(), size)).toreadonly()
    except OSError:
        pass
    image = mmap.mmap(-1, size)
    for chunk in chunks:
        image.write(chunk)
    return memoryview(image).toreadonly()


def _digests(record: Mapping[str, Any]) -> dict[str, Digest]:
    members = record["members"].items()
    return {name: Digest(of["size"], of["crc"], of["sha256"], tuple(of["pieces"])) for name, of in members}


def _outline(text: bytes, digests: Mapping[str, Digest]) -> Frame:
    own = digest([text])
    entries = [Entry(name, of.size, of.crc, _ALIGN.get(name, 64)) for name, of in {MANIFEST: own, **digests}.items()]
    return frame(entries, (_SEAL + own.sha256).encode())


def _places(outline: Frame, text: bytes, digests: Mapping[str, Digest]) -> dict[str, slice]:
    sizes = {MANIFEST: len(text), **{name: found.size for name, found in digests.items()}}
    return {name: slice(at, at + sizes[name]) for name, at in zip(sizes, outline.offsets, strict=True)}


def _checked(name: str, image: memoryview) -> Artifact:
    """The artifact that `image` holds; `name` is how errors call it."""
    text = _manifest_text(name, image)
    record = _parse(name, text)
    if record["format"] > FORMAT:
        raise ArtifactError(
            f"artifact '{name}' has format {record['format']}, and this dscc reads up to {FORMAT}; "
            f"it needs dscc {record.get('readable_from', 'of a later version')} or newer"
        )
    try:
        digests = _digests(record)
        manifest = Manifest.from_dict(record)
        outline = _outline(text, digests)
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise _damaged(name, MANIFEST) from err
    if len(image) < outline.size:
        raise ArtifactError(
            f"artifact '{name}' is truncated: it has {len(image)} bytes of {outline.size}; "
            "copy it again or recompile the model"
        )
    places = _places(outline, text, digests)
    if bytes(image[len(image) - len(outline.gaps[-1]) :]) != outline.gaps[-1] or len(image) != outline.size:
        raise _damaged(name, f"its end, or {MANIFEST}")
    for gap, (member, place) in zip(outline.gaps, places.items(), strict=False):
        if bytes(image[place.start - len(gap) : place.start]) != gap:
            raise _damaged(name, f"the header of {member}")
    if bad := altered([(member, image[places[member]], found.pieces) for member, found in digests.items()]):
        raise _damaged(name, bad)
    return Artifact(manifest, image, places)


def _manifest_text(name: str, image: memoryview) -> bytes:
    found = first_member(bytes(image[:256]))
    if found is None or found[0] != MANIFEST:
        raise ArtifactError(f"'{name}' is not an artifact of dscc; expected a file that 'dscc compile' wrote")
    _, offset, size = found
    if offset + size > len(image):
        raise ArtifactError(
            f"artifact '{name}' is truncated: it ends inside {MANIFEST}; copy it again or recompile the model"
        )
    return bytes(image[offset : offset + size])


def _parse(name: str, text: bytes) -> dict[str, Any]:
    try:
        record = json.loads(text)
        if isinstance(record, dict) and isinstance(record.get("format"), int):
            return record
    except ValueError as err:
        raise _damaged(name, MANIFEST) from err
    raise _damaged(name, MANIFEST)


def _damaged(name: str, where: str) -> ArtifactError:
    return ArtifactError(
        f"artifact '{name}' was altered: {where} is not as it was written; copy it again or recompile the model"
    )
