"""The plug-in host: what it finds, and what it does with plug-ins that misbehave."""

import sys
import types
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import dscc
from dscc import plugins
from dscc.errors import PluginError
from dscc.frontends.base import Frontend
from dscc.plugins import PluginWarning, Registry


@pytest.fixture(autouse=True)
def no_built_ins(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the built-ins are is not the subject here, and importing them takes seconds."""
    if "built_in" not in request.node.name:
        monkeypatch.setattr(plugins, "BUILT_IN", ())
    yield
    plugins.configure([])  # nobody else's registry is without built-ins


def a_frontend(name: str) -> type[Frontend]:
    return type("Made", (Frontend,), {"name": name, "suffixes": (".made",), "load": lambda self, model, options: None})


@pytest.fixture
def module() -> Iterator[Callable[..., EntryPoint]]:
    """Makes an importable module with the given functions as hooks, and an entry point that names it."""
    made: list[str] = []

    def make(name: str, **hooks: Callable[[], Any]) -> EntryPoint:
        plugin = types.ModuleType(f"plugin_{name}")
        for hook, function in hooks.items():
            setattr(plugin, hook, dscc.hookimpl(function))
            getattr(plugin, hook).__name__ = hook
        sys.modules[plugin.__name__] = plugin
        made.append(plugin.__name__)
        return EntryPoint(name, plugin.__name__, "dscc")

    yield make
    for name in made:
        del sys.modules[name]


Make = Callable[..., EntryPoint]


def test_built_ins_come_through_the_same_hooks() -> None:
    registry = Registry(entry_points=[])
    assert [plugin.name for plugin in registry.plugins] == ["dscc.frontends", "dscc.passes", "dscc.targets"]
    assert "x86" in registry.targets
    assert registry.owner("target", "x86").name == "dscc.targets"


def test_registry_is_sorted_by_name_and_attributed(module: Make) -> None:
    points = [
        module("zeta", dscc_frontends=lambda: [a_frontend("bbb")]),
        module("alpha", dscc_frontends=lambda: [a_frontend("ccc"), a_frontend("aaa")]),
    ]
    registry = Registry(entry_points=points)
    assert list(registry.frontends) == sorted(registry.frontends)
    assert {"aaa", "bbb", "ccc"} <= set(registry.frontends)
    assert registry.owner("front end", "bbb").name == "zeta"
    assert [plugin.name for plugin in registry.plugins] == sorted(plugin.name for plugin in registry.plugins)


def test_asking_for_one_kind_leaves_the_others_alone(module: Make) -> None:
    asked: list[str] = []
    point = module(
        "two",
        dscc_passes=lambda: asked.append("passes") or [],
        dscc_frontends=lambda: asked.append("frontends") or [],
    )
    registry = Registry(entry_points=[point])
    assert asked == []
    registry.frontends  # noqa: B018
    assert asked == ["frontends"]


def test_a_plugin_that_raises_on_import_is_set_aside(module: Make, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('no such device\\nand more')")
    monkeypatch.syspath_prepend(tmp_path)
    good = module("good", dscc_frontends=lambda: [a_frontend("good")])
    with pytest.warns(PluginWarning, match="plug-in 'broken' is not used: RuntimeError: no such device$"):
        registry = Registry(entry_points=[EntryPoint("broken", "broken_plugin", "dscc"), good])
    assert "good" in registry.frontends
    (broken,) = [plugin for plugin in registry.plugins if plugin.name == "broken"]
    assert broken.error == "RuntimeError: no such device"


def test_a_hook_that_raises_is_set_aside(module: Make) -> None:
    def explode() -> list[type[Frontend]]:
        raise KeyError("boom")

    registry = Registry(
        entry_points=[
            module("bad", dscc_frontends=explode),
            module("good", dscc_frontends=lambda: [a_frontend("good")]),
        ]
    )
    with pytest.warns(PluginWarning, match="plug-in 'bad' is not used: KeyError: 'boom'"):
        assert "good" in registry.frontends


def test_a_misspelt_hook_is_caught(module: Make) -> None:
    with pytest.warns(PluginWarning, match="'typo' is not used: unknown hook 'dscc_pases'; did you mean 'dscc_passes'"):
        registry = Registry(entry_points=[module("typo", dscc_pases=lambda: [*()])])
    assert registry.passes is not None


def test_a_duplicate_name_names_both_owners(module: Make) -> None:
    points = [module(name, dscc_frontends=lambda: [a_frontend("twin")]) for name in ("first", "second")]
    registry = Registry(entry_points=points)
    with pytest.raises(PluginError, match="front end 'twin' is provided by both 'first' and 'second'"):
        registry.frontends  # noqa: B018
    assert "twin" in Registry(["no:first"], entry_points=points).frontends


def test_two_packages_with_one_plugin_name(module: Make) -> None:
    point = module("same")
    with pytest.raises(PluginError, match="plug-in 'same' is provided by both"):
        Registry(entry_points=[point, point])


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "must return a list of classes, got 'None'"),
        ([3], "must return subclasses of Frontend, got '3'"),
        ([a_frontend("Bad Name")], "must be lower-case words joined by '-', got 'Bad Name'"),
    ],
)
def test_what_a_hook_returns_is_checked(module: Make, returned: Any, said: str) -> None:
    registry = Registry(entry_points=[module("odd", dscc_frontends=lambda: returned)])
    with pytest.warns(PluginWarning, match=said):
        registry.frontends  # noqa: B018


def test_requests_load_and_block(module: Make) -> None:
    module("named", dscc_frontends=lambda: [a_frontend("named")])
    assert "named" in Registry(["plugin_named"], entry_points=[]).frontends
    point = module("blocked", dscc_frontends=lambda: [a_frontend("blocked")])
    registry = Registry(["no:blocked"], entry_points=[point])
    assert "blocked" not in registry.frontends
    assert [plugin.name for plugin in registry.plugins if plugin.blocked] == ["blocked"]


def test_a_requested_plugin_that_fails_is_an_error() -> None:
    with pytest.raises(PluginError, match="plug-in 'no_such_module' failed to load: ModuleNotFoundError"):
        Registry(["no_such_module"], entry_points=[])


def test_blocking_what_is_not_there_is_an_error(module: Make) -> None:
    with pytest.raises(PluginError, match="unknown plug-in 'god'; did you mean 'good'"):
        Registry(["no:god"], entry_points=[module("good")])


def test_versions_of_plugins_in_use(module: Make) -> None:
    registry = Registry(entry_points=[module("mine", dscc_frontends=lambda: [a_frontend("mine")])])
    name = next(name for name in registry.frontends if registry.owner("front end", name).origin == "entry point")
    assert registry.versions([("front end", name)]) == {"mine": ""}
    assert registry.versions([]) == {}


def test_configure_starts_anew(module: Make) -> None:
    module("late", dscc_frontends=lambda: [a_frontend("late")])
    try:
        plugins.configure(["plugin_late"])
        assert "late" in plugins.registry().frontends
        assert plugins.registry() is plugins.registry()
    finally:
        plugins.configure([])
    assert "late" not in plugins.registry().frontends


def an_operator(name: str, **fields: Any) -> type[Any]:
    fields = {"domain": "com.example", "op": "Foo", "convert": lambda self, node: None, **fields}
    return type(name, (dscc.OnnxOperator,), fields)


def test_operators_are_known_by_domain_name_and_version(module: Make) -> None:
    point = module("ops", dscc_onnx_operators=lambda: [an_operator("A"), an_operator("B", since=3)])
    found = Registry(entry_points=[point])
    assert list(found.operators) == ["com.example.Foo@1", "com.example.Foo@3"]
    assert found.owner("operator", "com.example.Foo@3").name == "ops"
    assert found.plugins[0].offers == {"dscc_onnx_operators": ["com.example.Foo@1", "com.example.Foo@3"]}


def test_an_operator_of_two_plugins_names_both(module: Make) -> None:
    points = [module(name, dscc_onnx_operators=lambda: [an_operator("A")]) for name in ("first", "second")]
    with pytest.raises(PluginError, match=r"operator 'com.example.Foo@1' is provided by both 'first' and 'second'"):
        Registry(entry_points=points).operators  # noqa: B018


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"domain": ""}, "'Bad' is of domain '', the standard's; it needs one of its own"),
        ({"domain": "ai.onnx"}, "the standard's"),
        ({"op": "not a name"}, "'Bad' must have a 'domain' and an 'op', got 'com.example' and 'not a name'"),
        ({"since": 0}, "the version 'since' of 'Bad' must be at least 1, got '0'"),
    ],
)
def test_an_operator_that_cannot_be_one(fields: dict[str, Any], reason: str, module: Make) -> None:
    found = Registry(entry_points=[module("bad", dscc_onnx_operators=lambda: [an_operator("Bad", **fields)])])
    with pytest.warns(PluginWarning, match=f"plug-in 'bad' is not used: dscc_onnx_operators: .*{reason}"):
        assert not found.operators
