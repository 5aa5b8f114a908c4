"""The file format: what is written is what is read, and nothing else is."""

from __future__ import annotations

import os
import platform
import signal
import struct
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dscc.artifact import Artifact, Manifest, TensorSpec, host, store
from dscc.artifact import artifact as module
from dscc.errors import ArtifactError

MANIFEST = Manifest(
    inputs=(TensorSpec("x.1", "float32", ("batch", 3)),),
    outputs=(TensorSpec("y", "float32", ("batch", 3)),),
    target="x86:znver4",
    machine=platform.machine(),
    pipeline="fold-constants,fuse-gelu",
    versions={"dscc": "0.1.0"},
    plugins={"silu": "1.2"},
    summary={"kernels": 7},
)


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "w": rng.standard_normal((5, 3)).astype(np.float32),
        "scalar": np.float32(2).reshape(()),
        "empty": np.zeros((0, 4), np.int64),
        "transposed": rng.integers(-9, 9, (4, 6)).astype(np.int8).T,
        "big endian": np.arange(5, dtype=">i4"),
    }


def build(folder: Path, manifest: Manifest = MANIFEST, content: bytes = b"\x7fELF not really") -> Artifact:
    library = folder / "model.so"
    library.write_bytes(content)
    return Artifact.build(library, weights(), manifest)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.dscc"
    build(tmp_path).save(path)
    return path


def message(path: Path | str) -> str:
    """What opening `path` says; one line."""
    with pytest.raises(ArtifactError) as caught:
        Artifact.open(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_reads_what_was_written(saved: Path):
    artifact = Artifact.open(saved)
    assert artifact.manifest == MANIFEST._replace(weights=tuple(weights()))
    assert bytes(artifact.member("model.so")) == b"\x7fELF not really"
    content = artifact.member("weights.safetensors")
    stored = artifact.weights()
    assert list(stored) == list(weights())
    for name, want in weights().items():
        tensor = stored[name]
        got = np.frombuffer(content, tensor.dtype, want.size, tensor.offset).reshape(tensor.shape)
        np.testing.assert_array_equal(got, want)


def test_same_input_gives_same_bytes(tmp_path: Path, saved: Path):
    again = tmp_path / "again.dscc"
    build(tmp_path).save(again)
    assert again.read_bytes() == saved.read_bytes()


def test_contents_are_aligned(saved: Path):
    artifact = Artifact.open(saved)
    assert all(place.start % 64 == 0 for place in artifact.members.values())
    assert artifact.members["weights.safetensors"].start % 4096 == 0
    assert all(tensor.offset % 64 == 0 for tensor in artifact.weights().values())


def test_other_programs_read_it(saved: Path):
    safetensors = pytest.importorskip("safetensors.numpy")
    with zipfile.ZipFile(saved) as file:
        assert file.testzip() is None
        assert file.namelist() == ["manifest.json", "model.so", "weights.safetensors"]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in file.infolist())
        tensors = safetensors.load(file.read("weights.safetensors"))
    np.testing.assert_array_equal(tensors["w"], weights()["w"])


def test_every_altered_byte_is_found(saved: Path):
    good = bytearray(saved.read_bytes())
    module._checked("good", memoryview(good))
    for at in range(len(good)):
        good[at] ^= 1 << (at % 8)
        with pytest.raises(ArtifactError):
            module._checked("bad", memoryview(good))
        good[at] ^= 1 << (at % 8)


@pytest.mark.parametrize("place", ["model.so", "weights.safetensors"])
def test_says_what_was_altered(saved: Path, place: str):
    start = Artifact.open(saved).members[place].start
    data = bytearray(saved.read_bytes())
    data[start] ^= 1
    saved.write_bytes(data)
    assert message(saved) == (
        f"artifact '{saved}' was altered: {place} is not as it was written; copy it again or recompile the model"
    )


def test_truncated(saved: Path):
    data = saved.read_bytes()
    for size in (1, 40, 200, 3000, len(data) - 1):
        saved.write_bytes(data[:size])
        said = message(saved)
        assert "is truncated" in said or "is not an artifact" in said
    assert f"it has {len(data) - 1} bytes of {len(data)}" in said


def test_bytes_after_the_end(saved: Path):
    saved.write_bytes(saved.read_bytes() + b"\0")
    assert "was altered" in message(saved)


def test_newer_format_names_the_version_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "new.dscc"
    monkeypatch.setattr("dscc.artifact.manifest.FORMAT", 7)
    monkeypatch.setattr("dscc.artifact.manifest.READABLE_FROM", "3.4.0")
    build(tmp_path).save(path)
    said = message(path)
    assert said == f"artifact '{path}' has format 7, and this dscc reads up to 1; it needs dscc 3.4.0 or newer"


def test_what_is_no_artifact(tmp_path: Path):
    path = tmp_path / "x.dscc"
    path.write_bytes(b"")
    assert message(path) == f"'{path}' is empty; expected an artifact that 'dscc compile' wrote"
    path.write_bytes(b"\x08\x07\x12\x07pytorch")
    assert "is not an artifact of dscc" in message(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("manifest.json", "{}")
    assert "is not an artifact of dscc" in message(path)
    assert message(tmp_path / "none.dscc") == f"artifact '{tmp_path / 'none.dscc'}' does not exist"
    assert "cannot read artifact" in message(tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no/such/x.dscc", "the folder does not exist"),
        ("file/x.dscc", "the folder is a file"),
        ("folder", "there is a"),
    ],
)
def test_where_it_cannot_be_written(tmp_path: Path, name: str, reason: str):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match=reason):
        build(tmp_path).save(tmp_path / name)
    assert not list(tmp_path.glob("**/*.partial"))


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path: Path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(ArtifactError, match="permission denied"):
        build(tmp_path).save(folder / "x.dscc")


def test_interrupted_write_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "x.dscc"
    path.write_bytes(b"old")

    def pieces():
        yield b"new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write(path, pieces())
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.dscc"]


def test_killed_write_leaves_no_artifact(tmp_path: Path):
    path = tmp_path / "x.dscc"
    program = f"""
        from pathlib import Path
        from dscc.artifact import store
        def pieces():
            yield b"half"
            print("half", flush=True)
            input()
        store.write(Path({str(path)!r}), pieces())
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"half\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    left = [p.name for p in tmp_path.iterdir()]
    assert left == [f".x.dscc.{child.pid}.partial"]
    store.write(path, [b"whole"])
    assert [p.name for p in tmp_path.iterdir()] == ["x.dscc"]


def test_another_machine(tmp_path: Path):
    other = build(tmp_path, MANIFEST._replace(machine="riscv64", target="riscv:u74"))
    with pytest.raises(ArtifactError, match=r"it is for riscv64 processors \(riscv:u74\), and this one is"):
        other.load()
    newer = build(tmp_path, MANIFEST._replace(cpu_features=("fpu", "avx2048", "warp_drive")))
    with pytest.raises(
        ArtifactError, match="this processor lacks avx2048, warp_drive; compile the model for this machine"
    ):
        newer.load()


def test_names_of_one_machine_are_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    assert host.unfit(MANIFEST._replace(machine="x86_64")) is None


def test_library_that_is_none(tmp_path: Path):
    with pytest.raises(ArtifactError, match="the library of this artifact cannot be loaded"):
        build(tmp_path).load()


def test_sizes_beyond_32_bits():
    from dscc.artifact.frame import Entry, frame

    outline = frame([Entry("a", 5 << 30, 1, 64), Entry("b", 1, 2, 4096)], b"")
    assert outline.offsets[1] > 5 << 30
    assert outline.offsets[1] % 4096 == 0
    assert struct.pack("<Q", 5 << 30) in outline.gaps[0]
    assert struct.pack("<Q", 5 << 30) in outline.gaps[-1]
