"""Write the pages of docs/reference/ from the code: `python -m docs.generate`, or `make docs`.

tests/unit/test_docs.py compares what is written with what would be, so that no page says what the code does not.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

from docs.markdown import NOTE, table
from docs.operators import operators

FOLDER = Path(__file__).parent / "reference"


def passes() -> str:
    """Every built-in pass under a heading of its own, and the presets that list them."""
    from dscc import pipeline
    from dscc.passes.builtin import PASSES

    parts = [
        "# Passes",
        NOTE,
        "A pipeline text names passes and their options: `fold-constants{limit_bytes=1024},fuse-gelu`.",
    ]
    parts.append(
        f"They run by stage ({', '.join(f'`{stage}`' for stage in pipeline.STAGES)}), then in the order of the text."
    )
    parts.append("## Presets")
    known = {cls.name: cls for cls in PASSES}
    parts.append(table(["level", "passes"], [[f"`-O{n}`", _names(n, known)] for n in range(len(pipeline.PRESETS))]))
    for cls in sorted(PASSES, key=lambda cls: cls.name):
        parts += [f"## {cls.name}", _module_text(cls)]
        fields = dataclasses.fields(cls)
        rows = [[f"`{entry.name}`", f"`{entry.type}`", f"`{entry.default}`"] for entry in fields]
        parts += (
            [f"Stage `{cls.stage}`.", table(["option", "type", "default"], rows)] if rows else [f"Stage `{cls.stage}`."]
        )
    return "\n\n".join(parts)


def _names(level: int, known: dict[str, type]) -> str:
    from dscc import pipeline

    return ", ".join(f"`{each.name}`" for each in pipeline.preset(level, known).passes) or "none"


def _module_text(cls: type) -> str:
    """The module's docstring: prose as it is, indented `before -> after` lines as code."""
    text = inspect.cleandoc(importlib.import_module(cls.__module__).__doc__ or "")
    blocks = []
    for block in text.split("\n\n"):
        code = block.startswith("    ") or " -> " in block or " ->\n" in block
        blocks.append(f"```\n{inspect.cleandoc(block)}\n```" if code else block)
    return "\n\n".join(blocks)


def commands() -> str:
    """Every command as its own `--help` describes it."""
    import click

    from dscc.cli.entry import COMMANDS, cli

    def context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
        settings = {**cli.context_settings, "terminal_width": 100, "max_content_width": 100}
        return click.Context(command, info_name=name, parent=parent, **settings)

    group = context(cli, "dscc", None)
    parts = ["# Commands", NOTE, "## dscc", f"```\n{cli.get_help(group)}\n```"]
    for name in COMMANDS:
        command = cli.get_command(group, name)
        if command is not None:
            parts += [f"## dscc {name}", f"```\n{command.get_help(context(command, name, group))}\n```"]
    return "\n\n".join(parts)


EXECUTED = {
    "arm": "Executed in every test run under qemu's user emulation, on several processors; `make arm-test` runs more.",
    "cuda": "Compiled in every test run and looked at with ptxas and the disassembler. Executed "
    "where there is a device: products, convolutions, attention and models on an NVIDIA H200 in November 2026.",
    "oneapi": "`oneapi:cpu` is executed in every test run.",
    "rocm": "Compiled in every test run, and what the code objects say of themselves is read: architecture, matrix "
    "instructions, registers, spills. Products, convolutions and attention for MFMA and WMMA are executed on the "
    "host's processor by a stand-in for HIP, from the same OpenCL C, with matrix instructions as AMD's manuals define "
    "them. Not yet executed on a device of AMD's; products, convolutions, softmax and elementwise kernels for gfx950, "
    "gfx1100 and gfx1201 were right on an emulator of their instructions in November 2026.",
    "x86": "Executed in every test run, on the processor of the machine that tests.",
}


def targets() -> str:
    """Every target with its schedule rules, in the order in which they are asked."""
    from dscc.targets import dscc_targets
    from dscc.targets.cpu.rules import RULES
    from dscc.targets.cuda.rules import RULES as CUDA_RULES
    from dscc.targets.oneapi.rules import RULES as DEVICE_RULES
    from dscc.targets.rocm.rules import RULES as ROCM_RULES

    parts = ["# Targets", NOTE]
    for cls in dscc_targets():
        parts += [f"## {cls.name}", _module_text(cls), EXECUTED[cls.name], *_executed_models(cls.name)]
    for title, rules in {
        "Rules of CPUs": RULES,
        "Rules of CUDA's devices": CUDA_RULES,
        "Rules of oneAPI's devices": DEVICE_RULES,
        "Rules of ROCm's devices": ROCM_RULES,
    }.items():
        rows = [[str(index), f"`{rule.name}`", _first_line(type(rule))] for index, rule in enumerate(rules, 1)]
        parts += [f"## {title}", "In the order in which they are asked:", table(["", "rule", "takes"], rows)]
    return "\n\n".join(parts)


def _executed_models(target: str) -> list[str]:
    """What `make arm-test` and `make oneapi-test` have found: models with symbolic dimensions, executed."""
    from benchmarks import cross

    found = [row for row in cross.saved() if row["target"].partition(":")[0] == target]
    rows = [[row["model"], f"`{row['target']}`", row["cpu"], f"{row['error']:.1e}"] for row in found]
    if not rows:
        return []
    text = "Models compiled with symbolic dimensions; the error is the largest difference from onnxruntime, over the "
    return [f"{text}largest output:", table(["model", "target", "executed on", "error"], rows)]


def _first_line(cls: type) -> str:
    text = cls.__doc__ or importlib.import_module(cls.__module__).__doc__ or ""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands,
    "onnx-operators.md": operators,
    "passes.md": passes,
    "targets.md": targets,
}


def main() -> None:
    """Write every page."""
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
