"""The page of a report: one HTML file that needs no other, with nothing in it that runs."""

import base64
import html
import io
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from PIL import Image

from reid_jax.reports.report_pictures import Picture

_MOST_BYTES = 10_000_000
_QUALITIES = (85, 60, 35)  # of photographs, the first with which the page is small enough
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fafafa }
body { margin: 2em auto; max-width: 1180px; padding: 0 1em }
h1 { font-size: 1.7em } h2 { margin-top: 2.2em; border-bottom: 1px solid #ccc } h3 { margin: 1.8em 0 .3em }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-size: .9em }
th, td { padding: .25em .6em; text-align: right; border-bottom: 1px solid #e2e2e2; vertical-align: bottom }
td { white-space: nowrap } th.text, td.text { text-align: left } tr.mean td { font-weight: 600; background: #f0f4f8 }
img { max-width: 100%; height: auto } p { max-width: 75ch; margin: .3em 0 .7em }
pre { background: #f0f0f0; padding: .8em; overflow-x: auto; font-size: .85em } nav a { margin-right: 1.2em }
"""
# Should a text get in that is not escaped after all, a browser still loads and runs nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def heading(level: int, text: str, anchor: str = "") -> str:
    """A heading of a level from 1; with an anchor it can be linked to."""
    name = f' id="{html.escape(anchor)}"' if anchor else ""
    return f"<h{level}{name}>{html.escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def links(anchors: Mapping[str, str]) -> str:
    """Links to places of the page, by anchor."""
    inner = " ".join(f'<a href="#{html.escape(anchor)}">{html.escape(text)}</a>' for anchor, text in anchors.items())
    return f"<nav>{inner}</nav>"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, means: Sequence[int] = ()) -> str:
    """A table of texts; rows whose places are in `means` stand out."""
    rows = list(rows)
    # Words begin at the left, numbers end at the right.
    is_text = [any(any(map(str.isalpha, cell)) for cell in column) for column in zip(*rows)]
    parts = [_row(titles, "th", is_text)]
    parts += [_row(row, "td", is_text, "mean" if place in means else "") for place, row in enumerate(rows)]
    return f'<div class="scroll"><table>{"".join(parts)}</table></div>'


def _row(cells: Sequence[str], tag: str, is_text: Sequence[bool], row_class: str = "") -> str:
    kinds = [' class="text"' if text else "" for text in is_text]
    inner = "".join(f"<{tag}{kind}>{html.escape(cell)}</{tag}>" for cell, kind in zip(cells, kinds))
    return f'<tr class="{row_class}">{inner}</tr>' if row_class else f"<tr>{inner}</tr>"


def details(summary: str, value: object) -> str:
    """JSON that is shown on a click."""
    text = html.escape(json.dumps(value, indent=2, ensure_ascii=False))
    return f"<details><summary>{html.escape(summary)}</summary><pre>{text}</pre></details>"


def page(title: str, parts: Sequence[str | Picture]) -> str:
    """Builds the whole page, photographs so much compressed that it has less than 10 MB.

    Args:
        title: of the page, plain text.
        parts: HTML from the functions above, and pictures with a heading and their text.
    """
    for quality in _QUALITIES:
        body = "\n".join(part if isinstance(part, str) else _figure(part, quality) for part in parts)
        text = (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width">\n'
            f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
        )
        if len(text) < _MOST_BYTES:
            return text
    print(f"the page has {len(text) / 1e6:.0f} MB, fewer --details make it smaller", flush=True)
    return text


def _figure(picture: Picture, quality: int) -> str:
    data, kind = _encoded(picture.file, quality if picture.is_photo else None)
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    with Image.open(picture.file) as image:
        width, height = image.size
    return (
        f'{heading(3, picture.title)}\n{paragraph(picture.text)}\n<img src="{source}" width="{width}" height="{height}" '
        f'alt="{html.escape(picture.title)}">'
    )


def _encoded(file: pathlib.Path, quality: int | None) -> tuple[bytes, str]:
    """The bytes of a picture for the page and their type: as JPEG of a quality where that is smaller."""
    data = file.read_bytes()
    if quality is None:
        return data, "png"
    smaller = io.BytesIO()
    with Image.open(file) as image:
        image.convert("RGB").save(smaller, "JPEG", quality=quality)
    return (smaller.getvalue(), "jpeg") if smaller.tell() < len(data) else (data, "png")
