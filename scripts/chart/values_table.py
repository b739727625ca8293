#!/usr/bin/env python3
"""The README's table of values, made of the comments in values.yaml.

`values_table.py CHART` rewrites the table between the markers of CHART/README.md; with `--check` it
only says whether that would change anything. A value without a comment above it is an error.
"""

import json
import re
import sys
from pathlib import Path

import yaml

BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"
KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z_][\w.]*):(?P<rest>.*)$")


def described(text):
    """The path of each value that has a comment right above it, with that comment."""
    found, stack, comment = {}, [], []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.lstrip("# "))
            continue
        if not stripped:
            comment = []
            continue
        key = KEY.match(line)
        if key:
            depth = len(key["indent"])
            while stack and stack[-1][0] >= depth:
                stack.pop()
            stack.append((depth, key["key"]))
            if comment:
                found[tuple(name for _, name in stack)] = " ".join(comment)
        comment = []
    return found


def rows(values, comments, path=()):
    """A row for each value that is described, and for each leaf, described or not."""
    for key, value in values.items():
        here = (*path, key)
        nested = isinstance(value, dict) and value and any(known[: len(here)] == here and len(known) > len(here) for known in comments)
        if nested:
            yield from rows(value, comments, here)
        else:
            yield ".".join(here), value, comments.get(here)


def shown(value):
    """A default as it stands in a cell."""
    text = "null" if value is None else json.dumps(value)
    return f"`{text}`".replace("|", "\\|")


def table(chart):
    """The whole table, and the values that lack a comment."""
    text = (chart / "values.yaml").read_text()
    entries = list(rows(yaml.safe_load(text), described(text)))
    lines = ["| value | what it is | default |", "|---|---|---|"]
    for name, value, comment in entries:
        cell = (comment or "").replace("|", "\\|")
        lines.append(f"| `{name}` | {cell} | {shown(value)} |")
    return "\n".join(lines), [name for name, _, comment in entries if not comment]


def main():
    chart = Path(sys.argv[1])
    new, bare = table(chart)
    if bare:
        sys.exit("values.yaml: no comment above " + ", ".join(bare))
    readme = chart / "README.md"
    text = readme.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    wanted = f"{head}{BEGIN}\n{new}\n{END}{tail}"
    if wanted == text:
        return
    if "--check" in sys.argv:
        sys.exit(f"{readme}: the table of values is not what values.yaml says; run scripts/chart/values_table.py {chart}")
    readme.write_text(wanted)


if __name__ == "__main__":
    main()
