"""Inputs from files and from seeds."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from dscc import feeds
from dscc.errors import ArtifactError, InputError


@dataclass
class Info:
    name: str
    type: str = "tensor(float)"
    shape: list[int | str | None] = field(default_factory=list)


def test_random_feeds_fit_their_descriptions() -> None:
    infos = [
        Info("image", "tensor(float)", ["n", 3, "h", "w"]),
        Info("ids", "tensor(int64)", ["n", "length"]),
        Info("mask", "tensor(bool)", ["n", "length"]),
        Info("bytes", "tensor(uint8)", [100]),
        Info("half", "tensor(float16)", [None, 2]),
        Info("scalar"),
    ]
    made = feeds.random_feeds(infos, {"h": 32, "length": 7})
    shapes = {name: value.shape for name, value in made.items()}
    assert shapes == {
        "image": (1, 3, 32, 224), "ids": (1, 7), "mask": (1, 7), "bytes": (100,), "half": (1, 2), "scalar": (),
    }  # fmt: skip
    assert [value.dtype.name for value in made.values()] == ["float32", "int64", "bool", "uint8", "float16", "float32"]
    assert set(np.unique(made["ids"])) <= {0, 1}
    assert made["bytes"].max() > 100


def test_one_symbol_is_one_size_and_one_seed_is_one_result() -> None:
    infos = [Info("a", shape=["n", "n"]), Info("b", shape=[2, "n"])]
    made = feeds.random_feeds(infos, {"n": 5}, seed=3)
    assert made["a"].shape == (5, 5) and made["b"].shape == (2, 5)
    again = feeds.random_feeds(infos, {"n": 5}, seed=3)
    assert all(np.array_equal(made[name], again[name]) for name in made)
    assert not np.array_equal(made["a"], feeds.random_feeds(infos, {"n": 5}, seed=4)["a"])


@pytest.mark.parametrize("total", ["total_sequence_length", "past_sequence_length + sequence_length"])
def test_a_decoder_gets_sizes_that_fit_each_other_and_a_mask_of_its_whole_cache(total: str) -> None:
    infos = [
        Info("input_ids", "tensor(int64)", ["batch", "sequence_length"]),
        Info("attention_mask", "tensor(int64)", ["batch", total]),
        Info("past_key_values.0.key", shape=["batch", 2, "past_sequence_length", 8]),
        Info("shift", shape=["batch", "past_sequence_length + 1", "height", "width"]),
    ]
    made = feeds.random_feeds(infos, {"sequence_length": 3})
    assert made["attention_mask"].shape == (1, 67)
    assert made["attention_mask"].all()
    assert made["past_key_values.0.key"].shape == (1, 2, 64, 8)
    assert made["shift"].shape == (1, 65, 224, 224)
    assert feeds.random_feeds(infos, {total: 9})["attention_mask"].shape == (1, 9)
    assert not feeds.random_feeds(infos[:2], {"batch": 9})["attention_mask"].all()


def test_random_feeds_refuse() -> None:
    with pytest.raises(InputError, match="unknown dimension 'hight'; did you mean 'height'"):
        feeds.random_feeds([Info("a", shape=["height"])], {"hight": 3})
    with pytest.raises(InputError, match="input 'text': cannot make random values of type 'tensor\\(string\\)'"):
        feeds.random_feeds([Info("text", "tensor(string)", [1])], {})


def test_read_feeds(tmp_path: Path) -> None:
    one, many = tmp_path / "one.npy", tmp_path / "many.npz"
    np.save(one, np.arange(3))
    feeds.save(many, {"a": np.zeros((2, 2)), "b": np.ones(1)})
    found = feeds.read_feeds([f"x=@{one}", f"@{many}"])
    assert {name: value.shape for name, value in found.items()} == {"x": (3,), "a": (2, 2), "b": (1,)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x=1", "expected NAME=@FILE.npy or @FILE.npz"),
        ("x@one.npy", "expected NAME=@FILE.npy or @FILE.npz"),
        ("x=@none.npy", "input file 'none.npy' does not exist"),
        ("x=@text.npy", "input file 'text.npy' is no .npy or .npz file of numbers"),
        ("x=@many.npz", "holds several arrays; write @many.npz to take them by name"),
        ("@one.npy", "holds one array without a name; write NAME=@one.npy"),
    ],
)
def test_read_feeds_refuses(text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("one.npy", np.arange(3))
    np.savez("many.npz", a=np.zeros(1))
    Path("text.npy").write_text("hello")
    with pytest.raises(InputError, match=said):
        feeds.read_feeds([text])


def test_save_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot write"):
        feeds.save(tmp_path / "missing" / "out.npz", {"a": np.zeros(1)})
    assert list(tmp_path.iterdir()) == []
