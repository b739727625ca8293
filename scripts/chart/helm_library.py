#!/usr/bin/env python3
"""Helm for machines without Go: `lint`, `template` and what `install` would say, with the flags that check.py uses, over helm's own
code in the PyPI package helm-python-sdk."""

import argparse
import sys

import yaml
from helm_python import chart as helm

# As helm counts: 1 is for information only.
WARNING = 2


def merged(base, over):
    """`over` laid over `base`, maps key by key."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return base | {key: merged(base.get(key), value) for key, value in over.items()}


def values_of(args):
    """The values that files and --set-json flags give."""
    values = {}
    for path in args.values:
        with open(path) as file:
            values = merged(values, yaml.safe_load(file) or {})
    for text in args.set_json:
        values = merged(values, yaml.safe_load(text))
    return values


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["lint", "template", "install"])
    parser.add_argument("names", nargs="+")
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--dry-run")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--values", action="append", default=[])
    parser.add_argument("--set-json", action="append", default=[])
    args = parser.parse_args()
    values = values_of(args)
    if args.action == "lint":
        report = helm.lint(args.names[-1], values=values, strict=args.strict)
        said = [f"{message['path']}: {message['error']}" for message in report["messages"] if message["severity"] >= WARNING]
        print("\n".join(said + report["errors"]))
        return 1 if report["errors"] or (args.strict and said) else 0
    with helm.Chart.load(args.names[-1]) as chart:
        chart.validate_schema(values)
        rendered = chart.render(values=values, name=args.names[0], namespace=args.namespace)
    if args.action == "install":
        print("NOTES:\n" + next(text for path, text in rendered.items() if path.endswith("NOTES.txt")))
        return 0
    for path, text in rendered.items():
        if path.endswith(".yaml"):
            print(f"---\n# Source: {path}\n{text}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception as error:  # noqa: BLE001 - whatever helm says goes to whoever asked
        sys.exit(f"Error: {error}")
