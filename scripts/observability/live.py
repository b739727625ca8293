#!/usr/bin/env python3
"""Asks a real Prometheus, which scraped a real hub under load, every query of every dashboard.

  live.py BINARY [--keep FILE]    BINARY is roost; FILE gets each query's data over time, for picture.py

Each target must have data; a panel whose may_be_empty says why may have none. Also: `promtool check
metrics` has nothing to say about any node's /metrics, 2,000 more devices add no series, no alert fires.
"""

import json
import math
import re
import subprocess
import sys
import time

from dashboards import FILES
from hub import RULES, Hub, wait_for
from panels import BOARDS

DEVICES = 2_000
# Absent where no port has TLS, as here; that it is there where one has is tested in roost-telemetry.
WITHOUT_TLS = {"roost_tls_cert_expiry_timestamp_seconds"}
PATIENCE = 180


def runnable(expression: str) -> str:
    """A query as Grafana sends it with everything chosen."""
    for variable, value in (("$__rate_interval", "15s"), ("$namespace", ".*"), ("$pod", ".*")):
        expression = expression.replace(variable, value)
    return expression


def targets() -> list[dict]:
    """Every target of every dashboard as shipped, annotations too."""
    excuses = {(f"roost-{board.name}", panel.title): panel.may_be_empty for board in BOARDS for _, row in board.rows for panel in row}
    found = []
    for path in sorted(FILES.glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                found.append({"board": path.stem, "panel": panel["title"], "unit": panel["fieldConfig"]["defaults"]["unit"], "query": runnable(target["expr"]),
                              "legend": target["legendFormat"], "excuse": excuses.get((path.stem, panel["title"]))})
        for note in board["annotations"]["list"]:
            found.append({"board": path.stem, "panel": f"annotation {note['name']}", "unit": "short", "query": runnable(note["expr"]), "legend": "", "excuse": None})
    return found


def series(data: dict) -> int:
    """How many series have a value that can be drawn."""
    return sum(math.isfinite(float(one["value"][1])) for one in data["result"])


class Report:
    """Counts and prints."""

    def __init__(self):
        self.passed = self.failed = 0

    def line(self, good: bool, what: str, detail: str) -> None:
        self.passed, self.failed = self.passed + good, self.failed + (not good)
        print(f"{'ok  ' if good else 'FAIL'} {what:<66} {detail}", flush=True)


def run_targets(hub: Hub, report: Report) -> list[dict]:
    """Asks again what has no data yet, since rates take a few scrapes."""
    every = targets()
    deadline = time.monotonic() + PATIENCE
    waiting = every
    while waiting and time.monotonic() < deadline:
        for target in waiting:
            try:
                target["series"] = series(hub.ask("query", query=target["query"]))
            except ValueError as error:
                target["error"] = str(error)
        waiting = [t for t in waiting if not t.get("series") and not t["excuse"] and "error" not in t]
        if waiting:
            time.sleep(1)
    for target in every:
        count = target.get("series", 0)
        detail = target.get("error") or (f"{count} series" if count else f"no data: {target['excuse'] or target['query']}")
        report.line("error" not in target and bool(count or target["excuse"]), f"{target['board']}: {target['panel']}", detail)
    return every


def check_variables(hub: Hub, report: Report) -> None:
    for label, wanted in (("namespace", {"local"}), ("pod", set(hub.admin))):
        found = set(hub.ask(f"label/{label}/values", **{"match[]": "roost_build_info"}))
        report.line(found == wanted, f"variable {label}", ", ".join(sorted(found)))


def check_metrics(hub: Hub, report: Report) -> None:
    for node in hub.admin:
        text = hub.metrics(node)
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        said = (done.stdout + done.stderr).strip()
        report.line(done.returncode == 0 and not said, f"promtool check metrics: {node}", said or f"{len(names(text))} series")


def names(text: str) -> set[str]:
    return {line.rsplit(" ", 1)[0] for line in text.splitlines() if line and not line.startswith("#")}


def check_series(hub: Hub, report: Report) -> None:
    """2,000 devices more make no series more."""
    def connected() -> float:
        return float(re.search(r'roost_ws_connections\{protocol="json"\} (\S+)', hub.metrics("edge-1"))[1])

    before, devices = names(hub.metrics("edge-1")), connected()
    fleet = hub.simulate("edge-1", "crowd", DEVICES, "0s", "--rate", "400")
    wait_for(f"{DEVICES} devices are connected", lambda: connected() >= devices + DEVICES - 5)
    new = names(hub.metrics("edge-1")) - before
    report.line(not new, f"{DEVICES} more devices add no series", f"{len(before)} series" if not new else ", ".join(sorted(new)))
    fleet.terminate()


def check_alerts(hub: Hub, report: Report) -> None:
    firing = [one["metric"]["alertname"] for one in hub.ask("query", query='ALERTS{alertstate="firing"}')["result"]]
    groups = hub.ask("rules")["groups"]
    broken = [rule["name"] for group in groups for rule in group["rules"] if rule["health"] not in ("ok", "unknown")]
    report.line(not firing and not broken, "rules evaluate, and no alert fires on a healthy hub", ", ".join(firing + broken))


def keep(hub: Hub, every: list[dict], path: str) -> None:
    """Writes what each query gave over the last minute and a half."""
    now = time.time()
    for target in every:
        data = hub.ask("query_range", query=target["query"], start=f"{now - 90:.0f}", end=f"{now:.0f}", step="1")
        target["data"] = data["result"]
    with open(path, "w", encoding="utf-8") as file:
        json.dump(every, file)


def check_outage(hub: Hub, report: Report) -> None:
    """Redis does not answer for longer than a lease: metrics say so, and every session is compared afterwards."""
    def total(name: str) -> float:
        return sum(float(line.rsplit(" ", 1)[1]) for line in hub.metrics("edge-1").splitlines() if line.startswith(name))

    hub.interrupt_redis(5)
    sessions = 'roost_session_resumes_total{outcome="kept"}'
    wait_for("sessions are compared with Redis after an interruption", lambda: total(sessions) > 0 and total("roost_redis_up") == 2)
    counted = {name: total(f"roost_redis_{name}_total") for name in ("reconnects", "errors")}
    report.line(all(counted.values()), "an interruption of Redis is counted", f"{counted}, {total(sessions):.0f} sessions kept")


def check_drain(hub: Hub, report: Report) -> None:
    """A drain shows what it has left, falling, and how long it takes, growing."""
    seen = [(remaining, duration) for state, remaining, duration in hub.draining(300, 5) if state == 1]
    left, lasted = [remaining for remaining, _ in seen], [duration for _, duration in seen]
    good = len(seen) > 3 and left == sorted(left, reverse=True) and left[0] > 2 * left[-1] and lasted == sorted(lasted) and lasted[-1] > 1
    report.line(good, "a drain shows what it has left", f"{left[0]:.0f} to {left[-1]:.0f} in {lasted[-1]:.1f} s" if seen else "nothing was seen")


def check_names(hub: Hub, report: Report) -> None:
    """A rule on a metric that nobody exposes would be silent for ever."""
    exposed = {re.split(r"[{ ]", name)[0] for node in hub.admin for name in names(hub.metrics(node))}
    unknown = set(re.findall(r"\broost_\w+", RULES.read_text())) - exposed - WITHOUT_TLS
    report.line(not unknown, "every metric in the rules is exposed", ", ".join(sorted(unknown)))


def check(hub: Hub, report: Report) -> list[dict]:
    """All of it; gives the targets."""
    scraped = "count(sum_over_time(up[1m]) >= 5)"
    wait_for("Prometheus has scraped each node five times", lambda: hub.ask("query", query=scraped)["result"][0]["value"][1] == str(len(hub.admin)))
    check_outage(hub, report)
    every = run_targets(hub, report)
    check_variables(hub, report)
    check_names(hub, report)
    check_metrics(hub, report)
    check_alerts(hub, report)
    check_series(hub, report)
    check_drain(hub, report)
    return every


def main() -> int:
    if len(sys.argv) not in (2, 4):
        sys.exit(__doc__)
    report = Report()
    with Hub(sys.argv[1]) as hub:
        every = check(hub, report)
        if len(sys.argv) == 4:
            # For pictures that show more than the start.
            time.sleep(30)
            keep(hub, every, sys.argv[3])
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
