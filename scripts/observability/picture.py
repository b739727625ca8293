#!/usr/bin/env python3
"""Draws what live.py kept: each dashboard's queries with the data of a real run, as SVG.

  live.py BINARY --keep FILE && picture.py FILE     writes docs/dashboards/*.svg

This is not Grafana, and does not look like it: it shows that the queries have data, and what.
"""

import json
import math
import re
import sys
from html import escape
from pathlib import Path

from hub import ROOT
from panels import BOARDS, Panel

OUT = ROOT / "docs/dashboards"
COLUMN, HEIGHT, GAP = 52, 190, 12
COLOURS = ("#3b6fb6", "#c8553d", "#4a8f5b", "#8a63b0", "#c79a2b", "#3f9ca3", "#b04a7f", "#6b7280", "#7a8f2b", "#a0643a", "#2f4a7a", "#d08a8a")
LEGENDS = 6


def shown(value: float, unit: str) -> str:
    """A value with its unit, short."""
    if unit == "percentunit":
        return f"{value * 100:.4g} %"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    if unit in ("bytes", "Bps"):
        for size in ("B", "KiB", "MiB", "GiB"):
            if abs(value) < 1024 or size == "GiB":
                return f"{value:.4g} {size}" + ("/s" if unit == "Bps" else "")
            value /= 1024
    short = f"{value / 1e6:.3g} M" if abs(value) >= 1e6 else f"{value:.4g}"
    return short + ("/s" if unit in ("cps", "mps", "ops", "reqps") else "")


def lines(panel: Panel, targets: list[dict]) -> list[tuple[str, list[tuple[float, float]]]]:
    """Legend and points of each series, those with the greatest values first."""
    found = []
    for target in targets:
        for one in target["data"]:
            legend = re.sub(r"\{\{(\w+)\}\}", lambda label: one["metric"].get(label[1], ""), target["legend"])
            points = [(float(at), float(value)) for at, value in one["values"] if math.isfinite(float(value))]
            if points:
                found.append((legend, points))
    return sorted(found, key=lambda line: -max(value for _, value in line[1]))


def text(x: float, y: float, words: str, size: int = 11, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" {more}>{escape(words)}</text>'


def stat(found, unit: str, width: float) -> list[str]:
    out = []
    for place, (legend, points) in enumerate(found[:4]):
        x = 14 + place * (width - 20) / max(1, len(found[:4]))
        out += [text(x, 100, shown(points[-1][1], unit), 21, 'fill="#3b6fb6"'), text(x, 120, legend, 11, 'fill="#555"')]
    return out


def graph(found, unit: str, width: float) -> list[str]:
    top, bottom, left, right = 34.0, HEIGHT - 46.0, 62.0, width - 12.0
    times = [at for _, points in found for at, _ in points]
    values = [value for _, points in found for _, value in points]
    first, span = min(times), max(max(times) - min(times), 1)
    low, high = min(0.0, min(values)), max(values)
    high = high if high > low else low + 1
    out = []
    for share in (0, 0.5, 1):
        y = bottom - share * (bottom - top)
        out += [f'<line x1="{left}" x2="{right}" y1="{y}" y2="{y}" stroke="#e3e6ea"/>',
                text(left - 5, y + 4, shown(low + share * (high - low), unit), 10, 'fill="#777" text-anchor="end"')]
    for place, (legend, points) in enumerate(found):
        colour = COLOURS[place % len(COLOURS)]
        path = " ".join(f"{left + (at - first) / span * (right - left):.1f},{bottom - (value - low) / (high - low) * (bottom - top):.1f}" for at, value in points)
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.3" points="{path}"/>')
        if place < LEGENDS:
            x, y = 14 + place % 3 * (width - 20) / 3, HEIGHT - 24 + place // 3 * 14
            out += [f'<rect x="{x}" y="{y - 7}" width="8" height="3" fill="{colour}"/>', text(x + 11, y, legend[:28], 10, 'fill="#444"')]
    if len(found) > LEGENDS:
        out.append(text(width - 12, 20, f"{LEGENDS} of {len(found)} in the legend", 10, 'fill="#777" text-anchor="end"'))
    return out


def drawn(panel: Panel, targets: list[dict], x: float, y: float) -> str:
    width = panel.width * COLUMN - GAP
    found = lines(panel, targets)
    out = [f'<g transform="translate({x},{y})"><title>{escape(panel.why)}</title>',
           f'<rect width="{width}" height="{HEIGHT}" rx="4" fill="#fff" stroke="#d5d9df"/>', text(12, 20, panel.title, 13, 'font-weight="600"')]
    if not found:
        out.append(text(12, 90, f"no data: {panel.may_be_empty or 'none was kept'}", 11, 'fill="#777"'))
    else:
        out += (stat if panel.kind == "stat" else graph)(found, panel.unit, width)
    return "".join(out) + "</g>"


def picture(board, targets: list[dict]) -> str:
    out, y = [], 58
    for title, row in board.rows:
        out.append(text(GAP, y + 14, title, 14, 'font-weight="600" fill="#444"'))
        x, y = 0, y + 24
        for panel in row:
            if x + panel.width > 24:
                x, y = 0, y + HEIGHT + GAP
            mine = [target for target in targets if target["board"] == f"roost-{board.name}" and target["panel"] == panel.title]
            out.append(drawn(panel, mine, GAP + x * COLUMN, y))
            x += panel.width
        y += HEIGHT + GAP
    width = 24 * COLUMN + GAP
    note = "The dashboard's queries with data of a test run (two edges, a control node, Redis interrupted once). Drawn by scripts/observability/picture.py, not by Grafana."
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" font-family="system-ui, sans-serif">',
            f'<rect width="{width}" height="{y}" fill="#f4f5f7"/>', text(GAP, 26, board.title, 18, 'font-weight="700"'), text(GAP, 45, note, 11, 'fill="#666"')]
    return "\n".join([*head, *out, "</svg>\n"])


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    targets = json.loads(Path(sys.argv[1]).read_text())
    OUT.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        (OUT / f"{board.name}.svg").write_text(picture(board, targets))


if __name__ == "__main__":
    main()
