#!/usr/bin/env python3
"""Every check of what operators watch, as scripts/observability.sh runs them.

  check.py [--only rules|dashboards|live] [BINARY]

rules: promtool's own checks and tests; each alert says what it is, has a runbook with its four parts,
and a test in which it fires and one in which it stays silent. dashboards: as described, nothing that
Grafana does not know. live: see live.py.
"""

import contextlib
import importlib.util
import io
import re
import subprocess
import sys

import dashboards
import live
from hub import ROOT, RULES, Hub

TESTS = ROOT / "deploy/prometheus/tests/roost.test.yaml"
PARTS = ("## Symptom", "## What it means for devices", "## First three checks", "## Remedies")


def promtool(report: live.Report, what: str, *arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    said = (done.stdout + done.stderr).strip()
    report.line(done.returncode == 0, what, "" if done.returncode == 0 else "\n" + said)


def alerts() -> dict[str, str]:
    """Each alert of the rules file with its text."""
    parts = re.split(r"^ +- (alert|record): (\S+)$", RULES.read_text(), flags=re.M)
    return {name: text for kind, name, text in zip(parts[1::3], parts[2::3], parts[3::3]) if kind == "alert"}


def check_alert(report: live.Report, name: str, text: str, tests: str) -> None:
    missing = [word for word in ("summary", "description", "severity") if not re.search(rf"\b{word}: *\S", text)]
    link = re.search(r"runbook_url: (docs/runbooks/\w+\.md)", text)
    page = ROOT / link[1] if link else None
    if page is None or not page.exists():
        missing.append(f"a runbook ({link[1] if link else 'no runbook_url'})")
    else:
        missing += [f"{part!r} in {link[1]}" for part in PARTS if part not in page.read_text()]
    missing += [f"a test that it {verb}" for verb in ("fires", "stays silent") if f'"{name} {verb}: ' not in tests]
    report.line(not missing, f"{name}: texts, runbook, both tests", ", ".join(missing))


def check_rules(report: live.Report) -> None:
    promtool(report, "promtool check rules", "check", "rules", str(RULES))
    promtool(report, "promtool check config deploy/prometheus/prometheus.yml", "check", "config", "--syntax-only", "deploy/prometheus/prometheus.yml")
    promtool(report, "promtool test rules", "test", "rules", str(TESTS))
    tests = TESTS.read_text()
    for name, text in alerts().items():
        check_alert(report, name, text, tests)
    linked = {link for text in alerts().values() for link in re.findall(r"docs/runbooks/(\w+)\.md", text)}
    lost = {page.stem for page in (ROOT / "docs/runbooks").glob("*.md")} - linked - {"README"}
    report.line(not lost, "every runbook belongs to an alert", ", ".join(sorted(lost)))


def quietly(work) -> tuple[int, str]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        wrong = work()
    return wrong, said.getvalue().strip()


def check_dashboards(report: live.Report) -> None:
    wrong, said = quietly(dashboards.check)
    report.line(not wrong, "dashboards are what panels.py describes", said)
    if importlib.util.find_spec("grafana_foundation_sdk") is None:
        print("skip fields that Grafana does not know: grafana-foundation-sdk cannot be had here")
        return
    wrong, said = quietly(dashboards.validate)
    report.line(not wrong, "dashboards have only fields that Grafana knows", said if wrong else "")


def main() -> int:
    arguments = sys.argv[1:]
    only = ""
    if arguments[:1] == ["--only"] and len(arguments) > 1:
        only, arguments = arguments[1], arguments[2:]
    if only not in ("", "rules", "dashboards", "live") or (only in ("", "live") and len(arguments) != 1):
        sys.exit(__doc__)
    report = live.Report()
    if only in ("", "rules"):
        check_rules(report)
    if only in ("", "dashboards"):
        check_dashboards(report)
    if only in ("", "live"):
        with Hub(arguments[0]) as hub:
            live.check(hub, report)
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
