#!/usr/bin/env python3
"""What is committed: scripts that parse, and lock files that leave it to whoever builds from where
packages come."""

import json
import re
import subprocess
import sys
from pathlib import Path


def scripts():
    """Every shell script parses."""
    shell = [*Path("scripts").glob("*.sh"), Path(".ci/run")]
    for script in shell:
        checked = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
        if checked.returncode:
            yield checked.stderr.strip()
        if not script.stat().st_mode & 0o100:
            yield f"{script} cannot be executed: chmod +x"
    for script in [*Path("scripts").glob("*.py"), *Path("tests/interop").glob("*.py")]:
        try:
            compile(script.read_text(), str(script), "exec")
        except SyntaxError as error:
            yield f"{script}: {error}"


def lock_files():
    """The npm lock names versions and hashes, no host. The crates' registry is cargo's usual one."""
    lock = Path("tests/interop/package-lock.json")
    for name, package in json.loads(lock.read_text())["packages"].items():
        if "resolved" in package:
            yield f"{lock}: {name} names a host; tests/interop/.npmrc makes npm leave it out"
        if name and "integrity" not in package:
            yield f"{lock}: {name} has no hash"
    for number, line in enumerate(Path("Cargo.lock").read_text().splitlines(), 1):
        source = re.match(r'source = "(.*)"', line)
        if source and source[1] != "registry+https://github.com/rust-lang/crates.io-index":
            yield f"Cargo.lock, line {number}: {source[1]} is not the usual registry"


def links():
    """Relative links in the documents lead somewhere."""
    ignored = {"target", ".venv", "node_modules", ".git"}
    for page in Path(".").rglob("*.md"):
        if ignored & set(page.parts):
            continue
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            local = "://" not in link and not link.startswith("mailto:")
            if local and not (page.parent / link).exists():
                yield f"{page}: {link} leads nowhere"


def main():
    found = [*scripts(), *lock_files(), *links()]
    for mistake in found:
        print(mistake, file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
