#!/usr/bin/env python3
"""Which crate may know which: the levels of docs/architecture.md, checked against `cargo metadata`.

A crate depends only on lower levels. The two roles of a node know neither each other nor Redis, and
only roost-redis names the redis client. Dependencies of tests are free, but for the client's.
"""

import json
import subprocess
import sys

LEVELS = {
    "roost-types": 0,
    "roost-wire": 1,
    "roost-proto": 1,
    "roost-cluster": 1,
    "roost-auth": 1,
    "roost-telemetry": 1,
    "roost-testredis": 1,
    "roost-redis": 2,
    "roost-client": 2,
    "roost-edge": 3,
    "roost-control": 3,
    "roost-bench": 3,
    "roost": 4,
    "roost-checker": 5,
    "roost-faults": 6,
    "roost-testkit": 5,
    "roost-tests": 6,
    "roost-simulation": 6,
}

# Crates that know nothing of each other, whatever their levels say: (who, whom, why).
STRANGERS = [
    ("roost-edge", "roost-control", "the roles of a node meet only in roost, by the seams of roost-cluster"),
    ("roost-control", "roost-edge", "the roles of a node meet only in roost, by the seams of roost-cluster"),
    ("roost-edge", "roost-redis", "a store is reached by the seams of roost-cluster"),
    ("roost-control", "roost-redis", "a store is reached by the seams of roost-cluster"),
]

# Third-party crates that one crate has to itself.
FENCED = {"redis": "roost-redis"}


def mistakes(packages):
    """Every rule that is broken, in words."""
    for package in packages:
        name = package["name"]
        if name not in LEVELS:
            yield f"{name} has no level: give it one in scripts/check-layers.py and docs/architecture.md"
            continue
        for dependency in package["dependencies"]:
            yield from dependency_mistakes(name, dependency)


def dependency_mistakes(name, dependency):
    other = dependency["name"]
    owner = FENCED.get(other)
    if owner and name != owner:
        yield f"{name} names {other}: only {owner} does"
    if dependency["kind"] == "dev":
        return
    for who, whom, why in STRANGERS:
        if (name, other) == (who, whom):
            yield f"{name} depends on {other}: {why}"
    if other in LEVELS and LEVELS[other] >= LEVELS[name]:
        yield (
            f"{name} (level {LEVELS[name]}) depends on {other} (level {LEVELS[other]}): "
            "a crate depends only on lower levels"
        )


def main():
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps"]
    packages = json.loads(subprocess.check_output(command))["packages"]
    found = list(mistakes(packages))
    for mistake in found:
        print(mistake, file=sys.stderr)
    if not found:
        print(f"{len(packages)} crates, each depends only on lower levels")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
