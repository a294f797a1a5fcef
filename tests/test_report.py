"""The page frame and plot style that every report shares."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from hilum import report
from hilum.errors import DiskFull

pytest.importorskip("matplotlib")


def drawn(folder: Path, name: str = "line") -> str:
    from matplotlib.figure import Figure

    with report.plot_style():
        figure = Figure(figsize=(3, 2))
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=report.INK["first"], label="a < b")
        axes.legend()
        return report.save(figure, folder, name)


def test_what_is_folded_on_the_screen_stands_open_on_paper() -> None:
    """Browsers keep closed details closed in print unless their content is made visible."""
    style = (Path(report.__file__).with_name("report.css")).read_text(encoding="utf-8")
    on_paper = style[style.index("@media print") :]
    assert "details::details-content { content-visibility: visible" in on_paper


def test_a_figure_is_saved_twice_and_set_into_a_page_with_its_own_ids(tmp_path: Path) -> None:
    svg = drawn(tmp_path)
    assert (tmp_path / "line.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "line.svg").read_text("utf-8") == svg
    one, two = report.inline(svg, "one"), report.inline(svg, "two")
    ids = re.findall(r'\bid="([^"]+)"', one + two)
    assert ids and len(ids) == len(set(ids))
    for target in re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", one):
        assert next(filter(None, target)) in ids
    assert "var(--first)" in one and report.INK["first"] not in one
    assert "http" not in one and "a &lt; b" in one


def test_a_full_disk_is_told_and_leaves_no_half_of_a_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match=r"line\.svg could not be written"):
        drawn(tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_ink_has_a_colour_on_light_on_dark_and_on_paper() -> None:
    css = (Path(report.__file__).parent / "report.css").read_text("utf-8")
    roots = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    assert len(roots) == 3
    for name, colour in report.INK.items():
        assert all(f"--{name}:" in root for root in roots)
        assert f"--{name}: {colour}" in roots[0]


def test_the_plot_style_leaves_no_trace() -> None:
    import matplotlib

    matplotlib.rcParams["font.size"] = 17
    try:
        with report.plot_style():
            assert matplotlib.rcParams["font.size"] != 17
        assert matplotlib.rcParams["font.size"] == 17
    finally:
        matplotlib.rcParams["font.size"] = matplotlib.rcParamsDefault["font.size"]


def test_a_page_escapes_its_title_and_links_its_sections() -> None:
    sections = [report.Section("First & last", "<p>x</p>"), report.Section("Other", "", "key")]
    html = report.page("a <b>", "<p>lead</p>", sections, foot="end")
    assert "<title>a &lt;b&gt;</title>" in html
    assert '<a href="#first-last">First &amp; last</a>' in html
    assert '<section id="first-last">' in html and '<section id="key">' in html
    assert "<script" not in html and "http" not in html


def test_warnings_are_text_and_absent_when_there_are_none() -> None:
    assert report.warnings([]) == ""
    assert "&lt;i&gt;" in report.warnings(["<i>"])


def test_a_table_without_heads_has_no_head() -> None:
    assert "<thead" not in report.table(["", ""], [["a", "b"]])
    assert '<th scope="row">a</th><td>1</td>' in report.table(["x", "y"], [["a", "1"]])
    assert "<tbody></tbody>" in report.table(["x", "y"], [])


def test_columns_of_words_are_told_from_figures() -> None:
    heads = ["place", "status", "s", "× cpu:1", "why"]
    rows = [
        ["cpu:1", "measured", "1.2<i>91</i>", "–", "it is the place that others are held against"],
        ["cuda", "not measured", "–", "–", "<b>no</b> such"],
    ]
    found = report.table(heads, rows)
    assert '<th scope="col" class="words short">status</th><th scope="col">s</th>' in found
    assert '<td class="words short">not measured</td><td>–</td><td>–</td>' in found
    assert '<td class="words"><b>no</b> such</td>' in found
    assert "<td>1.2<i>91</i></td>" in found and '<th scope="row">cuda</th>' in found
    style = (Path(report.__file__).parent / "report.css").read_text("utf-8")
    assert re.search(r"td\.words[^{]*{ text-align: left; }", style)
    assert re.search(r"td\.short { white-space: nowrap; }", style)
