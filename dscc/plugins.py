"""Finds, isolates, lists and blocks plug-ins, and keeps the registry of what they offer.

A plug-in is a module with functions marked `@dscc.hookimpl` (dscc/hookspecs.py), found through the entry-point group
`dscc` or named by `-p NAME`. The built-ins are three such modules. pluggy's own loader gives up at the first plug-in
that fails to import; the loop here sets that one aside, says so in one line, and goes on.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from dscc import hookspecs
from dscc.errors import PluginError, unknown

if TYPE_CHECKING:
    from dscc.frontends.base import Frontend
    from dscc.frontends.onnx.operator import OnnxOperator
    from dscc.passes.base import Pass
    from dscc.targets.base import Target

PROJECT = "dscc"
BUILT_IN = ("dscc.frontends", "dscc.passes", "dscc.targets")
HOOKS = ("dscc_passes", "dscc_targets", "dscc_frontends", "dscc_onnx_operators")
STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training")

T = TypeVar("T")


class PluginWarning(UserWarning):
    """A plug-in was set aside."""


@dataclass
class Plugin:
    """One plug-in, whether it could be loaded or not.

    Attributes:
        name: of the entry point, or of the module that `-p` named.
        origin: `built-in`, `entry point` or `-p`.
        distribution: the installed package that it comes from; empty for a bare module.
        version: of that package; empty for a bare module.
        blocked: `-p no:NAME` was given.
        error: why it was set aside; empty when it is in use.
        offers: hook name to the names of what it brought, as far as asked for.
    """

    name: str
    origin: str
    distribution: str = ""
    version: str = ""
    blocked: bool = False
    error: str = ""
    offers: dict[str, list[str]] = field(default_factory=dict)


class Registry:
    """What the plug-ins offer, by name. A kind is asked for when first looked at: listing targets imports no pass."""

    def __init__(
        self, requests: Sequence[str] = (), entry_points: Iterable[importlib.metadata.EntryPoint] | None = None
    ):
        """`requests` are the arguments of `-p`; `entry_points` are those installed, unless a test brings its own."""
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._plugins: dict[str, Plugin] = {}
        self._owners: dict[tuple[str, str], str] = {}
        blocked = {request.removeprefix("no:") for request in requests if request.startswith("no:")}
        named = [request for request in requests if not request.startswith("no:")]
        if entry_points is None:
            entry_points = importlib.metadata.entry_points(group=PROJECT)

        for name in BUILT_IN:
            self._add(Plugin(name, "built-in", PROJECT, _version(PROJECT)), _importer(name), blocked)
        for point in sorted(entry_points, key=lambda point: point.name):
            dist = point.dist
            plugin = Plugin(point.name, "entry point", dist.name if dist else "", dist.version if dist else "")
            self._add(plugin, point.load, blocked)
        for name in named:
            self._add_named(name, blocked)
        for name in sorted(blocked - self._plugins.keys()):
            raise PluginError(unknown("plug-in", name, self._plugins))

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Every plug-in that was found, sorted by name, with those that failed and those that are blocked."""
        return tuple(self._plugins[name] for name in sorted(self._plugins))

    @cached_property
    def passes(self) -> Mapping[str, type[Pass]]:
        """Passes by name."""
        from dscc.passes.base import Pass

        return self._collect("dscc_passes", "pass", Pass)

    @cached_property
    def targets(self) -> Mapping[str, type[Target]]:
        """Targets by name."""
        from dscc.targets.base import Target

        return self._collect("dscc_targets", "target", Target)

    @cached_property
    def frontends(self) -> Mapping[str, type[Frontend]]:
        """Front ends by name."""
        from dscc.frontends.base import Frontend

        return self._collect("dscc_frontends", "front end", Frontend)

    @cached_property
    def operators(self) -> Mapping[str, type[OnnxOperator]]:
        """ONNX operators that plug-ins convert, by their labels."""
        from dscc.frontends.onnx.operator import OnnxOperator

        return self._collect("dscc_onnx_operators", "operator", OnnxOperator)

    def owner(self, kind: str, name: str) -> Plugin:
        """The plug-in that brought the `kind` ('pass', 'target', 'front end' or 'operator') called `name`."""
        return self._plugins[self._owners[kind, name]]

    def versions(self, used: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Versions by name of the plug-ins behind `used`, pairs of kind and name: for artifacts and cache keys."""
        owners = {self._owners[pair] for pair in used}
        return {
            name: self._plugins[name].version for name in sorted(owners) if self._plugins[name].origin != "built-in"
        }

    def _add(self, plugin: Plugin, load: Callable[[], Any], blocked: set[str]) -> None:
        if plugin.name in self._plugins:
            other = self._plugins[plugin.name]
            raise PluginError(
                f"plug-in '{plugin.name}' is provided by both '{other.distribution or other.origin}' and "
                f"'{plugin.distribution or plugin.origin}'; uninstall one of them"
            )
        self._plugins[plugin.name] = plugin
        if plugin.name in blocked:
            plugin.blocked = True
            return
        try:
            self._register(plugin.name, load())
        # Whatever a plug-in raises while it is imported, the host goes on without it.
        except Exception as err:
            if plugin.origin == "built-in":
                raise
            self._set_aside(plugin, err)

    def _add_named(self, name: str, blocked: set[str]) -> None:
        """A plug-in asked for by `-p` that fails is an error, not a warning; an installed one is loaded already."""
        if name not in self._plugins:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PluginWarning)
                self._add(Plugin(name, "-p"), _importer(name), blocked)
        plugin = self._plugins[name]
        if plugin.error:
            raise PluginError(f"plug-in '{name}' failed to load: {plugin.error}")

    def _register(self, name: str, module: ModuleType | object) -> None:
        try:
            self._manager.register(module, name)
            self._manager.check_pending()
        except pluggy.PluginValidationError as err:
            if self._manager.get_plugin(name) is not None:
                self._manager.unregister(name=name)
            misspelt = [word for word in _marked(module) if word not in HOOKS]
            if misspelt:
                raise PluginError(unknown("hook", misspelt[0], HOOKS)) from err
            raise

    def _set_aside(self, plugin: Plugin, err: Exception) -> None:
        plugin.error = _one_line(err)
        warnings.warn(f"plug-in '{plugin.name}' is not used: {plugin.error}", PluginWarning, stacklevel=2)

    def _collect(self, hook: str, kind: str, base: type[T]) -> Mapping[str, type[T]]:
        """Ask every plug-in in turn, so that what it returns can be attributed and what it raises stays its own."""
        found: dict[str, type[T]] = {}
        for impl in sorted(getattr(self._manager.hook, hook).get_hookimpls(), key=lambda impl: str(impl.plugin_name)):
            plugin = self._plugins[impl.plugin_name]
            try:
                classes = list(_checked(impl.function(), hook, base))
            except Exception as err:
                if plugin.origin == "built-in":
                    raise
                self._set_aside(plugin, err)
                continue
            plugin.offers[hook] = sorted(map(_name, classes))
            for cls in classes:
                name = _name(cls)
                if name in found:
                    other = self._plugins[self._owners[kind, name]]
                    raise PluginError(
                        f"{kind} '{name}' is provided by both '{other.name}' and '{plugin.name}'; "
                        f"block one of them with '-p no:NAME'"
                    )
                found[name] = cls
                self._owners[kind, name] = plugin.name
        return MappingProxyType(dict(sorted(found.items())))


def _checked(classes: object, hook: str, base: type[T]) -> Iterator[type[T]]:
    if not isinstance(classes, (list, tuple)):
        raise PluginError(f"{hook} must return a list of classes, got '{classes!r}'")
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise PluginError(f"{hook} must return subclasses of {base.__name__}, got '{cls!r}'")
        if hook == "dscc_onnx_operators":
            _check_operator(cls, hook)
            yield cls
            continue
        name = getattr(cls, "name", None)
        if not isinstance(name, str) or not name.replace("-", "").isalnum() or name != name.lower():
            raise PluginError(
                f"{hook}: the name of '{cls.__name__}' must be lower-case words joined by '-', got '{name}'"
            )
        yield cls


def _check_operator(cls: Any, hook: str) -> None:
    domain, op, since = (getattr(cls, name, None) for name in ("domain", "op", "since"))
    if not (isinstance(domain, str) and isinstance(op, str) and op.isidentifier()):
        raise PluginError(f"{hook}: '{cls.__name__}' must have a 'domain' and an 'op', got '{domain}' and '{op}'")
    if domain in STANDARD_DOMAINS:
        raise PluginError(f"{hook}: '{cls.__name__}' is of domain '{domain}', the standard's; it needs one of its own")
    if not isinstance(since, int) or since < 1:
        raise PluginError(f"{hook}: the version 'since' of '{cls.__name__}' must be at least 1, got '{since}'")


def _name(cls: Any) -> str:
    """The name by which one of a kind is known."""
    return str(cls.name if hasattr(cls, "name") else cls.label())


def _marked(module: object) -> list[str]:
    """Names of the functions that carry our marker."""
    return [name for name in dir(module) if hasattr(getattr(module, name, None), f"{PROJECT}_impl")]


def _importer(name: str) -> Callable[[], ModuleType]:
    return lambda: importlib.import_module(name)


def _one_line(err: Exception) -> str:
    first = (str(err).strip().splitlines() or [""])[0]
    return first if isinstance(err, PluginError) else f"{type(err).__name__}: {first}"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        import dscc

        return dscc.__version__


_requests: tuple[str, ...] = ()
_registry: Registry | None = None


def configure(requests: Sequence[str]) -> None:
    """Name modules to load (`NAME`) and plug-ins to block (`no:NAME`); holds for every later use of the registry."""
    global _requests, _registry
    _requests, _registry = tuple(requests), None


def registry() -> Registry:
    """The registry of this process; plug-ins are looked for when it is first asked for."""
    global _registry
    if _registry is None:
        _registry = Registry(_requests)
    return _registry
