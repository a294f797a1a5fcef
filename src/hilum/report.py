"""The one page frame and the one plot style of every report hilum writes.

A page is a single HTML file: styles, figures and films are inside it, nothing is fetched. Figures
are SVG whose ink follows the reader's light or dark screen; on paper they print black on white.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape, unescape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hilum.storage import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Ink names are replaced by the page's variables when a figure is set into it, so these exact
# values stand for a role, in every figure. Colours of data are told apart by lightness too.
INK = {
    "text": "#1d2733",
    "soft": "#5d6b7a",
    "line": "#d5dbe2",
    "paper": "#ffffff",
    "first": "#1f6f8b",
    "second": "#d9822b",
    "healthy": "#5b8fb0",
    "ill": "#b8433f",
    "band": "#dbe7ee",
}

SHORT = 16  # letters of a cell that is kept on one line: "not measured"


@contextmanager
def plot_style() -> Iterator[None]:
    """Matplotlib in hilum's style for a while, whatever the user's own settings are.

    Figures are made with ``matplotlib.figure.Figure``, never with pyplot, so they draw on the Agg
    canvas and leave a notebook's own alone.
    """
    import matplotlib

    style: dict[Any, Any] = {
        "figure.facecolor": "none",
        "figure.dpi": 100,
        "savefig.dpi": 160,
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "text.color": INK["text"],
        "axes.facecolor": "none",
        "axes.edgecolor": INK["soft"],
        "axes.labelcolor": INK["text"],
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "grid.color": INK["line"],
        "grid.linewidth": 0.7,
        "xtick.color": INK["soft"],
        "ytick.color": INK["soft"],
        "xtick.labelcolor": INK["text"],
        "ytick.labelcolor": INK["text"],
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.8,
        "svg.fonttype": "none",
        "svg.hashsalt": "hilum",
    }
    with matplotlib.rc_context():
        matplotlib.rcParams.update({**matplotlib.rcParamsDefault, **style})
        yield


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write ``NAME.png`` (on white) and ``NAME.svg`` into the folder; returns the SVG text."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": "hilum"})
    # The layout stands now; finding it again is half of the time that a figure takes.
    figure.set_layout_engine("none")
    text = stream.getvalue().decode("utf-8")
    write_file(folder / f"{name}.svg", text)
    picture = io.BytesIO()
    figure.savefig(picture, facecolor=INK["paper"], metadata={"Software": "hilum"})
    write_file(folder / f"{name}.png", picture.getvalue())
    return text


def inline(svg: str, key: str) -> str:
    """An SVG file's text as an element of a page: own ids, the page's ink and type."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{key}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{key}-\1)", svg)
    svg = re.sub(r'(xlink:href|href)="#([^"]+)"', rf'\1="#{key}-\2"', svg)
    for name, colour in INK.items():
        svg = svg.replace(colour, f"var(--{name})")
    width = re.search(r'<svg[^>]*? width="([\d.]+)pt"', svg)
    size = f' style="width:{float(width.group(1)) * 4 / 3:.0f}px"' if width else ""
    svg = re.sub(r'(<svg[^>]*?) width="[\d.]+pt"', rf"\1{size}", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[\d.]+pt"', r'\1 role="img"', svg, count=1)
    # Names of XML vocabularies are needed in files only; a page has no address in it.
    return re.sub(r' xmlns(:xlink)?="[^"]+"', "", svg)


@dataclass(frozen=True)
class Section:
    """A headed part of a page: ``body`` is HTML."""

    title: str
    body: str
    key: str = ""

    @property
    def anchor(self) -> str:
        return self.key or re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def figure(svg: str, caption: str, key: str, *, wide: bool = False) -> str:
    """A figure with its caption (HTML)."""
    kind = "figure wide" if wide else "figure"
    return f'<figure class="{kind}">{inline(svg, key)}<figcaption>{caption}</figcaption></figure>'


def image(png: bytes, alt: str) -> str:
    """A PNG set into the page."""
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(alt, quote=True)}" src="data:image/png;base64,{data}">'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "") -> str:
    """A table of HTML cells; the first column names the row.

    Parameters
    ----------
    heads : one a column; all empty for a table without a head
    kind : a class of report.css: ``text``, ``matrix``, ``tall``, ``how``
    """
    kinds = ["", *map(_kind, list(zip(*rows, strict=True))[1:])] if rows else [""] * len(heads)
    head = "".join(f'<th scope="col"{k}>{cell}</th>' for k, cell in zip(kinds, heads, strict=True))
    head = f"<thead><tr>{head}</tr></thead>" if any(heads) else ""
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td{k}>{c}</td>" for k, c in zip(kinds[1:], row[1:], strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll {kind}"><table class="{kind}">{head}'
        f"<tbody>{body}</tbody></table></div>"
    )


def _kind(column: Sequence[str]) -> str:
    """The class of a column's cells: ``words`` where it has words and no figures, ``short`` too
    where they go on one line; nothing for figures."""
    texts = [unescape(re.sub("<[^>]*>", "", cell)).strip() for cell in column]
    if any(re.match(r"[-+−×]?[.\d]", text) for text in texts) or not any(
        text[:1].isalpha() for text in texts
    ):
        return ""
    return f' class="words{" short" if max(map(len, texts)) <= SHORT else ""}"'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """The few figures of a page's head: (value, what it is) as HTML."""
    cells = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for value, name in pairs)
    return f'<div class="facts">{cells}</div>'


def warnings(sentences: Sequence[str]) -> str:
    """Sentences that must not be missed; nothing where there are none."""
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<aside class="warning"><h2>Read this first</h2><ul>{items}</ul></aside>'


def page(title: str, lead: str, sections: Sequence[Section], *, foot: str = "") -> str:
    """A whole self-contained HTML file.

    Parameters
    ----------
    title : text; lead : HTML under the title; foot : HTML
    """
    style: Any = files("hilum").joinpath("report.css").read_text(encoding="utf-8")
    links = "".join(f'<li><a href="#{s.anchor}">{escape(s.title)}</a></li>' for s in sections)
    body = "".join(
        f'<section id="{s.anchor}"><h2>{escape(s.title)}</h2>{s.body}</section>' for s in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>'
        f"<style>{style}</style></head><body><main><header><h1>{escape(title)}</h1>{lead}</header>"
        f'<nav aria-label="Contents"><ol>{links}</ol></nav>{body}'
        f"<footer>{foot}</footer></main></body></html>\n"
    )
