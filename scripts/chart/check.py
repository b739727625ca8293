#!/usr/bin/env python3
"""All checks of helm/roost and deploy/, as a table. Called by scripts/chart.sh, which installs the tools.
What must hold for every rendering is in rendered.py, what must be
refused in refusals.py, custom resources in custom.py, running it in live.py."""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import kubernetes_validate
import yaml

import custom
import live
import rendered
from refusals import REFUSED
from rendered import CHART, SETS, Helm, Wrong, expect

OLDEST = "1.30"
TOOLS = Path(sys.executable).parent


class Table:
    """Runs checks and shows how each went."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, name, run, *args):
        """One check: it passes unless it raises; what it returns is shown."""
        try:
            note = run(*args) or ""
            self.passed += 1
            print(f"  pass  {name:<58} {note}", flush=True)
        except Exception as error:  # noqa: BLE001 - a check that breaks has failed
            self.failed += 1
            text = str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"
            print(f"  FAIL  {name}\n        " + text.replace("\n", "\n        "), flush=True)

    @staticmethod
    def skip(name, why):
        """A check that cannot be had here."""
        print(f"  skip  {name:<58} {why}", flush=True)


def newest():
    """The newest Kubernetes whose types are known."""
    known = kubernetes_validate.latest_version()
    return ".".join(known.split(".")[:2])


def lint(helm, path):
    done = helm.run("lint", path)
    expect(done.returncode == 0, done.stdout + done.stderr)


def notes(helm, path):
    """What is said after an installation has no hole, and says where devices connect."""
    done = helm.run("install", path)
    expect(done.returncode == 0, done.stderr)
    said = done.stdout.partition("NOTES:")[2]
    expect(re.search(r"^  wss?://\S+/v1/connect$", said, re.M), f"does not say where devices connect: {said}")
    expect("<no value>" not in said and "%!" not in said, said)


def valid(objects):
    """Strictly valid for the oldest and the newest Kubernetes."""
    builtin = [it for it in objects if not custom.is_custom(it)]
    for version in (OLDEST, newest()):
        for it in builtin:
            try:
                kubernetes_validate.validate(it, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                where = ".".join(str(part) for part in error.path)
                raise Wrong(f"{version}: {it['kind']}/{it['metadata']['name']} {where}: {error.message}") from error
    return f"{len(builtin)} objects × {OLDEST}, {newest()}"


def strict_indeed():
    """The validation above refuses a field that does not exist."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [{"name": "x", "livenesProbe": {}}]}}
    try:
        kubernetes_validate.validate(pod, OLDEST, strict=True)
    except kubernetes_validate.ValidationError:
        return
    raise Wrong("livenesProbe was accepted")


def holds(objects):
    for rule in rendered.ALL:
        rule(objects)
    return ", ".join(rule.__name__ for rule in rendered.ALL)


def refused(helm, over, says):
    done = helm.run("template", CHART / "ci/production.yaml", over)
    expect(done.returncode != 0, "was accepted")
    expect(says in done.stderr, f"says something else: {done.stderr}")


def budgets(helm):
    """Whichever bound is given, one is rendered."""
    for over in ({"minAvailable": 0}, {"minAvailable": "50%"}, {"maxUnavailable": 0}, {"maxUnavailable": 2}, {}):
        objects = helm.objects(over={"edge.podDisruptionBudget": over})
        budget = rendered.named(objects, "PodDisruptionBudget", "hub-roost-edge")["spec"]
        found = {key: budget[key] for key in ("minAvailable", "maxUnavailable") if key in budget}
        expect(found == (over or {"maxUnavailable": 1}), f"{over} renders {found}")


def longer_grace(helm):
    """A grace above the sum is the binary's to use."""
    objects = helm.objects(over={"edge.terminationGracePeriodSeconds": 500, "edge.drain.preStopSeconds": 0})
    spec = rendered.node(objects, "edge")
    expect(spec["terminationGracePeriodSeconds"] == 500, "the grace is another")
    expect("lifecycle" not in spec["containers"][0], "there is a preStop of 0 s")
    expect(rendered.config(objects, "edge")["shutdown"]["grace"] == "490s", "the binary does not know")


def as_subchart(helm):
    """A parent chart's `global` is no mistake."""
    helm.objects(over={"global": {"imageRegistry": "x"}})


def same_files(helm):
    """Rules and dashboards are in the objects as they are in the files."""
    objects = helm.objects(CHART / "ci/production.yaml")
    rules = [yaml.safe_load(path.read_text()) for path in sorted(CHART.glob("files/rules/*.yaml"))]
    specs = [it["spec"] for it in rendered.of_kind(objects, "PrometheusRule")]
    expect(sorted(map(json.dumps, rules)) == sorted(map(json.dumps, specs)), "rules differ")
    boards = {path.name: json.loads(path.read_text()) for path in CHART.glob("files/dashboards/*.json")}
    maps = [it for it in rendered.of_kind(objects, "ConfigMap") if it["metadata"]["labels"].get("grafana_dashboard") == "1"]
    found = {name: json.loads(text) for it in maps for name, text in it["data"].items()}
    expect(found == boards, f"dashboards differ: {sorted(found)} and {sorted(boards)}")
    return f"{len(rules)} of rules, {len(boards)} dashboards"


def schema_covers_values():
    """The schema and values.yaml know the same keys, and nothing is left open by mistake."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def walk(part, value, path):
        if "$ref" in part:
            return
        if "properties" in part:
            expect(part.get("additionalProperties") is False, f"{path}: further keys are allowed")
            missing = part["properties"].keys() ^ value.keys()
            expect(not missing - {"global"}, f"{path}: only in one of schema and values.yaml: {missing}")
            for key, inner in part["properties"].items():
                if key in value:
                    walk(inner, value[key], f"{path}.{key}")

    walk(schema, values, "values")


def readme():
    call = [sys.executable, "scripts/chart/values_table.py", str(CHART), "--check"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    expect(done.returncode == 0, done.stderr)


def five_commands(helm, roost):
    """docs/operations.md's way from a checkout to a manifest works as it stands, and the manifest is valid."""
    marked = r"<!-- scripts/chart.sh runs this block as it stands -->\n```sh\n(.*?)```"
    commands = re.findall(marked, Path("docs/operations.md").read_text(), re.DOTALL)
    expect(len(commands) == 1 and commands[0].count("\n") == 5, "docs/operations.md has no block of five commands")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "helm").symlink_to(CHART.parent.resolve())
        for name, call in (("helm", helm.command), ("roost", [roost])):
            shim = folder / "bin" / name
            shim.parent.mkdir(exist_ok=True)
            words = [str(Path(word).absolute()) if Path(word).exists() else word for word in map(str, call)]
            shim.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
            shim.chmod(0o755)
        env = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder)}
        done = subprocess.run(["sh", "-euc", commands[0]], cwd=folder, env=env, capture_output=True, text=True, check=False)
        expect(done.returncode == 0, done.stdout + done.stderr)
        objects = [it for it in yaml.safe_load_all((folder / "roost.yaml").read_text()) if it]
    valid(objects)
    toml, kinds = rendered.config(objects, "edge"), {it["kind"] for it in objects}
    expect(toml["redis"]["url_file"] and {"HorizontalPodAutoscaler", "HTTPRoute"} <= kinds, "Redis, autoscaling or TLS is missing")
    return f"{len(objects)} objects"


def versions():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    workspace = tomllib.loads(Path("Cargo.toml").read_text())["workspace"]["package"]["version"]
    expect(chart["appVersion"] == workspace, f"Chart.yaml says {chart['appVersion']}, Cargo.toml {workspace}")


def checkov(helm):
    """A policy scan of the production set; what it skips has its reason beside it, in the template."""
    done = helm.run("template", CHART / "ci/production.yaml")
    expect(done.returncode == 0, done.stderr)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "production.yaml").write_text(done.stdout)
        call = [TOOLS / "checkov", "--framework", "kubernetes", "--directory", folder, "--output", "json", "--quiet"]
        # Nothing is to be sent or asked for.
        env = os.environ | {"BC_SKIP_MAPPING": "TRUE", "CHECKOV_RUN_SCA_PACKAGE_SCAN_V2": "false"}
        scan = subprocess.run([*call, "--skip-download"], capture_output=True, text=True, env=env, check=False)
    report = json.loads(scan.stdout)
    results, summary = report["results"], report["summary"]
    failed = [f"{it['check_id']} {it['check_name']}: {it['resource']}" for it in results["failed_checks"]]
    expect(not failed and not summary["parsing_errors"], "\n".join(failed) or "cannot be read")
    expect(summary["passed"] > 100, f"only {summary['passed']} checks were made")
    return f"{summary['passed']} passed, 0 failed, {summary['skipped']} skipped"


def dockerfile():
    done = subprocess.run([TOOLS / "hadolint", "deploy/Dockerfile"], capture_output=True, text=True, check=False)
    expect(done.returncode == 0, done.stdout + done.stderr)


def compose():
    """The file is what Compose takes, and what it mounts exists."""
    path = Path("deploy/compose.yaml")
    call = [TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    expect(done.returncode == 0, done.stdout + done.stderr)
    document = yaml.safe_load(path.read_text())
    services, volumes = document["services"], document.get("volumes", {})
    for name, service in services.items():
        for other in service.get("depends_on", {}):
            expect(other in services, f"{name} depends on {other}, which does not exist")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            exists = (path.parent / source).exists() if source.startswith(".") else source in volumes
            expect(exists, f"{name} mounts {source}, which does not exist")
        for port in service.get("ports", []):
            expect(re.match(r"127\.0\.0\.1:", port), f"{name}: port {port} is open to the network")
    for name, service in services.items():
        # One that is of a profile is there only where the profile is chosen.
        needs = service.get("depends_on", {})
        needs = needs if isinstance(needs, dict) else {other: {} for other in needs}
        for other, how in needs.items():
            own, of_other = set(service.get("profiles", [])), set(services[other].get("profiles", []))
            expect(not of_other or own & of_other or how.get("required") is False, f"{name} needs {other}, of a profile that may not be chosen")
    for env in sorted(path.parent.glob("*.env")):
        said = dict(line.split("=", 1) for line in env.read_text().splitlines() if "=" in line and not line.startswith("#"))
        of_profile = {name for name, service in services.items() if said["COMPOSE_PROFILES"] in service.get("profiles", [])}
        hosts = set(re.findall(r"([\w-]+):\d+", said["ROOST_REDIS"]))
        expect(hosts and hosts <= of_profile, f"{env.name}: {said['ROOST_REDIS']} names more than profile {said['COMPOSE_PROFILES']} has")
    return f"{len(services)} services; nothing was started"


def compose_calls(roost):
    """The binary takes what Compose tells it, as far as flags go."""
    services = yaml.safe_load(Path("deploy/compose.yaml").read_text())["services"]
    for name, service in services.items():
        if service.get("image") != services["edge-1"]["image"]:
            continue
        # An unknown flag is a usage error before anything else is looked at.
        done = subprocess.run([roost, *service["command"], "--help"], env={}, capture_output=True, text=True, check=False)
        expect(done.returncode == 0, f"{name}: {done.stderr}")


def every_set(table, helm, packages):
    """Lints, renders and validates each set of values; what it gives is kept for further checks."""
    of_sets, customs = {}, []
    for path in SETS:
        table.check(f"{path.stem}: lint --strict", lint, helm, path)
        try:
            objects = of_sets[path.stem] = helm.objects(path)
        except Wrong as error:
            table.check(f"{path.stem}: renders", lambda error=error: expect(False, str(error)))
            continue
        table.check(f"{path.stem}: strictly valid", valid, objects)
        table.check(f"{path.stem}: what must hold", holds, objects)
        table.check(f"{path.stem}: NOTES", notes, helm, path)
        customs += [(f"{path.stem} {it['kind']}", it) for it in objects if custom.is_custom(it)]
    if (packages / "ready").exists() and shutil.which("node"):
        table.check(f"custom resources of all sets ({len(customs)}): strictly valid", custom.validate, customs, packages)
        table.check("the same refuses a field that does not exist", custom.strict_indeed, packages)
    else:
        table.skip("custom resources of all sets", "npm or its packages cannot be had")
    return of_sets


def run_it(table, of_sets, helm):
    """What needs the binary, and Redis."""
    roost = live.binary()
    if not roost:
        return table.skip("roost accepts and runs what is rendered", "no binary: cargo build, or ROOST_BIN")
    for name, objects in of_sets.items():
        table.check(f"{name}: roost config check", live.check_config, objects, roost)
    table.check("roost.toml knows the keys that roost knows", live.known_keys, of_sets.get("minimal", []), roost)
    table.check("compose: roost takes its flags", compose_calls, roost)
    table.check("docs/operations.md: five commands to a manifest", five_commands, helm, roost)
    if not shutil.which("redis-server"):
        return table.skip("helm test, as processes", "no redis-server")
    return table.check("helm test, as processes: a device answers a command", live.helm_test, of_sets.get("minimal", []), roost)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--helm", required=True, type=str.split)
    parser.add_argument("--node", required=True, type=Path)
    args = parser.parse_args()
    helm, table = Helm(args.helm), Table()
    of_sets = every_set(table, helm, args.node)
    table.check("strict validation refuses livenesProbe", strict_indeed)
    for name, (over, says) in REFUSED.items():
        table.check(f"refused: {name}", refused, helm, over, says)
    table.check("one bound for disruptions, whichever is given", budgets, helm)
    table.check("a longer grace is passed on", longer_grace, helm)
    table.check("a parent chart's global is taken", as_subchart, helm)
    table.check("rules and dashboards are the files", same_files, helm)
    table.check("schema and values.yaml know the same keys", schema_covers_values)
    table.check("README's table is values.yaml's comments", readme)
    table.check("appVersion is the workspace's", versions)
    table.check("policy scan of the production set", checkov, helm)
    table.check("Dockerfile: hadolint", dockerfile)
    table.check("compose.yaml: schema, mounts, ports", compose)
    run_it(table, of_sets, helm)
    print(f"{table.passed} passed, {table.failed} failed")
    return 1 if table.failed else 0


if __name__ == "__main__":
    sys.exit(main())
