"""Small pictures for questions about images: bar and line charts and coloured shapes, as PNG in a data URI.

Drawn here point by point, so that the same description gives the same pixels everywhere and no picture has an author
but us. A number in the corner makes a picture its own: engines keep what they have seen of equal pictures.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 320, 220
LEFT, RIGHT, TOP, BOTTOM = 36, 310, 16, 184
"""Of a chart's field, whose height stands for values from 0 to 100."""
WHITE, BLACK, GREY, BLUE, RED, GREEN = range(6)
COLOURS = {"blue": BLUE, "red": RED, "green": GREEN}
_PALETTE = bytes([255, 255, 255, 20, 20, 20, 190, 190, 190, 40, 90, 200, 210, 50, 40, 40, 150, 70])
_GLYPHS = {
    sign: np.array([[int(bit) for bit in row] for row in rows.split()], dtype=bool)
    for sign, rows in {
        "0": "111 101 101 101 111",
        "1": "010 110 010 010 111",
        "2": "111 001 111 100 111",
        "3": "111 001 111 001 111",
        "4": "101 101 111 001 001",
        "5": "111 100 111 001 111",
        "6": "111 100 111 101 111",
        "7": "111 001 010 010 010",
        "8": "111 101 111 101 111",
        "9": "111 101 111 001 111",
        "A": "010 101 111 101 101",
        "B": "110 101 110 101 110",
        "C": "011 100 100 100 011",
        "D": "110 101 101 101 110",
        "E": "111 100 110 100 111",
        "F": "111 100 110 100 100",
    }.items()
}
Canvas = NDArray[np.uint8]


def draw(picture: Mapping[str, Any]) -> Canvas:
    """The picture without a number: one byte a pixel, an index into the palette.

    `form` is bars or line, with `labels` (A to F) and `values` (0 to 100), or shapes, with `shapes`: form, colour and
    centre of each.
    """
    canvas = np.full((HEIGHT, WIDTH), WHITE, dtype=np.uint8)
    match picture["form"]:
        case "bars":
            _axes(canvas)
            _bars(canvas, picture["labels"], picture["values"])
        case "line":
            _axes(canvas)
            _line(canvas, picture["labels"], picture["values"])
        case "shapes":
            for form, colour, x, y in picture["shapes"]:
                canvas[_shape(form, x, y)] = COLOURS[colour]
        case form:
            raise ValueError(f"picture: expected bars, line or shapes; got {form!r}")
    return canvas


def data_uri(canvas: Canvas, number: str) -> str:
    """The picture as PNG with `number` (digits) in its corner, as OpenAI's `image_url` takes it."""
    numbered = canvas.copy()
    _write(numbered, number, WIDTH - 8 * len(number) - 4, HEIGHT - 14)
    return "data:image/png;base64," + base64.b64encode(png(numbered)).decode()


def png(canvas: Canvas) -> bytes:
    """The bytes of a PNG file with our palette."""
    height, width = canvas.shape
    rows = np.zeros((height, width + 1), dtype=np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = canvas
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", header), (b"PLTE", _PALETTE), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


# --- charts -------------------------------------------------------------------------------------------------


def _row(value: float) -> int:
    return round(BOTTOM - (BOTTOM - TOP) * value / 100)


def _axes(canvas: Canvas) -> None:
    for value in range(0, 101, 20):
        canvas[_row(value), LEFT:RIGHT] = BLACK if value == 0 else GREY
        _write(canvas, str(value), LEFT - 6 - 8 * len(str(value)), _row(value) - 5)


def _middles(labels: list[str]) -> list[int]:
    width = (RIGHT - LEFT) / len(labels)
    return [round(LEFT + width * (at + 0.5)) for at in range(len(labels))]


def _bars(canvas: Canvas, labels: list[str], values: list[int]) -> None:
    for label, value, middle in zip(labels, values, _middles(labels), strict=True):
        canvas[_row(value) : BOTTOM, middle - 14 : middle + 14] = BLUE
        _write(canvas, str(value), middle - 4 * len(str(value)), _row(value) - 13)
        _write(canvas, label, middle - 3, BOTTOM + 6)


def _line(canvas: Canvas, labels: list[str], values: list[int]) -> None:
    middles = _middles(labels)
    columns = np.arange(middles[0], middles[-1] + 1)
    heights = np.interp(columns, middles, [_row(value) for value in values]).round().astype(int)
    for thick in (-1, 0, 1):
        canvas[heights + thick, columns] = RED
    for label, value, middle in zip(labels, values, middles, strict=True):
        canvas[_row(value) - 3 : _row(value) + 4, middle - 3 : middle + 4] = RED
        _write(canvas, label, middle - 3, BOTTOM + 6)


def _shape(form: str, x: int, y: int) -> NDArray[np.bool_]:
    across, down = np.arange(WIDTH)[None, :] - x, np.arange(HEIGHT)[:, None] - y
    match form:
        case "circle":
            inside = across**2 + down**2 <= 26**2
        case "square":
            inside = (abs(across) <= 24) & (abs(down) <= 24)
        case "triangle":
            inside = (abs(down) <= 26) & (2 * abs(across) <= down + 26)
        case _:
            raise ValueError(f"shape: expected circle, square or triangle; got {form!r}")
    return inside


def _write(canvas: Canvas, text: str, x: int, y: int) -> None:
    """Black signs of 6 by 10 pixels, 8 apart, the first with its upper left corner at (x, y)."""
    for at, sign in enumerate(text):
        glyph = np.kron(_GLYPHS[sign], np.ones((2, 2), dtype=bool))
        canvas[y : y + 10, x + 8 * at : x + 8 * at + 6][glyph] = BLACK
