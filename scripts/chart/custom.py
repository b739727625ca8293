"""Custom resources against the types of their makers: TypeScript refuses fields that do not exist, the
packages' own validators refuse values that cannot be. Built-in kinds are validated in check.py."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from rendered import Wrong

PACKAGES = {
    "monitoring.coreos.com": "prometheus-operator",
    "gateway.networking.k8s.io": "gateway-api",
    "keda.sh": "keda",
}


def is_custom(it):
    """Whether the kind comes of one of the packages."""
    return it["apiVersion"].split("/")[0] in PACKAGES


def module(it):
    """Where its type is."""
    group = it["apiVersion"].split("/")[0]
    return f"@kubernetes-models/{PACKAGES[group]}/{it['apiVersion']}/{it['kind']}"


def sources(objects):
    """A file for the compiler, and one to run."""
    types, run = [], ["let wrong = 0;"]
    for index, (where, it) in enumerate(objects):
        kind, text = it["kind"], json.dumps(it)
        types.append(f'import type {{ I{kind} as T{index} }} from "{module(it)}"; export const v{index}: T{index} = {text};')
        run.append(f'import {{ {kind} as C{index} }} from "{module(it)}";')
        run.append(f"try {{ new C{index}({text}).validate(); }} catch (e) {{ wrong = 1; console.log({json.dumps(where)}, e.message); }}")
    return "\n".join(types), "\n".join([*run, "process.exit(wrong);"])


def validate(objects, packages):
    """Validates `(where, object)` pairs strictly; `packages` is where npm installed them."""
    with tempfile.TemporaryDirectory(dir=packages) as folder:
        types, run = sources(objects)
        (Path(folder) / "types.ts").write_text(types)
        (Path(folder) / "run.mjs").write_text(run)
        flags = "--noEmit --strict --skipLibCheck --target es2022 --module nodenext --moduleResolution nodenext"
        compiler = packages / "node_modules/typescript/bin/tsc"
        calls = [[compiler, *flags.split(), "types.ts"], ["run.mjs"]]
        for call in calls:
            done = subprocess.run([shutil.which("node"), *call], cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise Wrong((done.stdout + done.stderr).strip()[:2000])


def strict_indeed(packages):
    """The validation above refuses a timeout with a typo."""
    rule = {"backendRefs": [{"name": "x", "port": 80}], "timeout": {"request": "0s"}}
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "x"}, "spec": {"rules": [rule]}}
    try:
        validate([("a mistake", route)], packages)
    except Wrong as error:
        if "'timeout'" in str(error) or '"timeout"' in str(error):
            return
        raise
    raise Wrong("timeout, for timeouts, was accepted")
