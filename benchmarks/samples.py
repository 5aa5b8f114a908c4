"""Inputs that look like what a model was made for, drawn or computed here so that no data set is needed.

A text detector that is shown noise answers "nothing" everywhere, in numbers so small that their relative error says
nothing either. Shown text, it answers with ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Array = np.ndarray[Any, Any]

LINES = ("one model, many machines", "compiled on 2026-01-01", "HELLO WORLD 12345", "channels last", "open source")


def picture(lines: tuple[str, ...], height: int, width: int, size: int) -> Image.Image:
    """Dark lines of text on a light ground, `size` pixels high, spread over the height."""
    image = Image.new("RGB", (width, height), (250, 248, 242))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size)
    step = height / max(1, len(lines))
    for i, line in enumerate(lines):
        draw.text((width * 0.06, step * (i + 0.5)), line, font=font, fill=(25, 25, 40), anchor="lm")
    return image


def text_pages(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """(batch, 3, height, width) pictures of text, scaled to -1..1; the seed chooses the lines."""
    batch, _, height, width = shape
    pages = []
    for _ in range(batch):
        count = max(1, height // 60)
        lines = tuple(LINES[i] for i in generator.integers(0, len(LINES), count))
        size = max(8, min(int(0.75 * height / count), width // 10, 40))
        pages.append(np.asarray(picture(lines, height, width, size), dtype="float32"))
    return (np.stack(pages).transpose(0, 3, 1, 2) - 127.5) / 127.5


def tones(shape: tuple[int, ...], generator: np.random.Generator, rate_hz: int = 22050) -> Array:
    """(batch, samples, 1) sounds: a few decaying harmonic notes over faint noise, in -1..1."""
    batch, samples, _ = shape
    time_s = np.arange(samples) / rate_hz
    sounds = 0.01 * generator.standard_normal((batch, samples))
    for sound in sounds:
        for start in np.arange(0, time_s[-1], 0.25):
            pitch_hz = 110 * 2 ** (generator.integers(0, 36) / 12)
            since = np.clip(time_s - start, 0, None)
            note = sum(np.sin(2 * np.pi * k * pitch_hz * since) / k for k in range(1, 5))
            sound += 0.2 * note * np.exp(-4 * since) * (since > 0)
    return sounds[..., None]
