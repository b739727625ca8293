#!/usr/bin/env python3
"""Makes the Grafana dashboards from panels.py.

  dashboards.py write      writes helm/roost/files/dashboards/*.json
  dashboards.py check      fails where those differ from the description
  dashboards.py validate   fails on fields that Grafana does not know (needs grafana-foundation-sdk)

The chart ships the files as ConfigMaps and compose mounts them: nobody edits them by hand.
"""

import json
import sys
from pathlib import Path

from panels import BOARDS, Board, Panel

FILES = Path(__file__).resolve().parents[2] / "helm/roost/files/dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
NAMESPACES = 'namespace=~"$namespace"'
SELECTOR = NAMESPACES + ', pod=~"$pod"'
WIDTH, HEIGHT = 24, 8
# Fields that Grafana's Prometheus source has beyond the common model of an annotation.
BEYOND_MODEL = {"titleFormat"}
DEPLOYS = "count by (version) (roost_build_info{{s}} unless roost_build_info{{s}} offset 5m)"


def query(text: str) -> str:
    """A query of the description with Grafana's variables."""
    return text.replace("{s}", SELECTOR).replace("{n}", NAMESPACES).replace("[~]", "[$__rate_interval]")


def thresholds(panel: Panel) -> dict:
    good, warn, bad = "green", "orange", "red"
    steps = [{"color": good, "value": None}]
    if panel.low_is_bad and panel.bad is not None:
        steps = [{"color": bad, "value": None}, {"color": warn, "value": panel.bad}, {"color": good, "value": panel.warn}]
    elif panel.bad is not None:
        steps += [{"color": warn, "value": panel.warn}, {"color": bad, "value": panel.bad}]
    return {"mode": "absolute", "steps": steps}


def custom(panel: Panel) -> dict:
    """How lines are drawn; thresholds as dashed lines."""
    style = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": False}
    return style | ({"thresholdsStyle": {"mode": "dashed"}} if panel.bad is not None else {})


def options(panel: Panel) -> dict:
    if panel.kind == "stat":
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value", "graphMode": "area", "textMode": "auto", "orientation": "auto", "justifyMode": "auto",
        }
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def drawn(panel: Panel, number: int, x: int, y: int) -> dict:
    defaults = {"unit": panel.unit, "thresholds": thresholds(panel)}
    if panel.kind == "timeseries":
        defaults |= {"color": {"mode": "palette-classic"}, "custom": custom(panel)}
        if panel.unit != "percentunit":
            defaults["min"] = 0
    else:
        defaults["color"] = {"mode": "thresholds"}
    targets = [
        {"refId": chr(ord("A") + place), "datasource": SOURCE, "expr": query(text), "legendFormat": legend, "range": True}
        for place, (text, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.why, "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options(panel), "targets": targets,
    }


def laid_out(board: Board) -> list[dict]:
    """Rows one below the other, panels from left to right."""
    panels: list[dict] = []
    y = 0
    for title, row in board.rows:
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})
        x, y = 0, y + 1
        for panel in row:
            if x + panel.width > WIDTH:
                x, y = 0, y + HEIGHT
            panels.append(drawn(panel, len(panels) + 1, x, y))
            x += panel.width
        y += HEIGHT
    return panels


def chooser(name: str, label: str, text: str) -> dict:
    everything = {"selected": True, "text": ["All"], "value": ["$__all"]}
    return {
        "name": name, "label": label, "type": "query", "datasource": SOURCE, "query": text, "refresh": 2, "sort": 1,
        "multi": True, "includeAll": True, "allValue": ".*", "current": everything, "hide": 0,
    }


def dashboard(board: Board) -> dict:
    pods = f"label_values(roost_build_info{{{NAMESPACES}}}, pod)"
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}
    variables = [source, chooser("namespace", "Namespace", "label_values(roost_build_info, namespace)"), chooser("pod", "Pod", pods)]
    deploys = {
        "name": "Deploys", "enable": True, "iconColor": "blue", "datasource": SOURCE,
        "expr": query(DEPLOYS), "titleFormat": "{{version}}",
    }
    link = {
        "title": "Roost", "type": "dashboards", "tags": ["roost"], "asDropdown": True, "includeVars": True, "keepTime": True,
        "targetBlank": False, "icon": "", "tooltip": "", "url": "",
    }
    return {
        "uid": f"roost-{board.name}", "title": board.title, "description": board.about, "tags": ["roost"],
        "timezone": "browser", "editable": False, "graphTooltip": 1, "schemaVersion": 39, "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"}, "links": [link],
        "templating": {"list": variables}, "annotations": {"list": [deploys]}, "panels": laid_out(board),
    }


def files() -> dict[Path, str]:
    return {FILES / f"roost-{board.name}.json": json.dumps(dashboard(board), indent=1) + "\n" for board in BOARDS}


def write() -> int:
    FILES.mkdir(parents=True, exist_ok=True)
    for path, text in files().items():
        path.write_text(text)
    return 0


def check() -> int:
    """How many files differ from the description, or should not be there."""
    wanted = files()
    wrong = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    wrong += [path for path in FILES.glob("*.json") if path not in wanted]
    for path in wrong:
        print(f"{path.name} is not what scripts/observability/panels.py describes: run dashboards.py write")
    return len(wrong)


def unknown(given, kept, where: str, found: list[str]) -> None:
    """Collects what Grafana's own model of a dashboard does not keep of a given one."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            if key in BEYOND_MODEL:
                continue
            if key not in kept and value is not None:
                found.append(f"{where}.{key}")
            else:
                unknown(value, kept.get(key), f"{where}.{key}", found)
    elif isinstance(given, list) and isinstance(kept, list):
        for place, (one, other) in enumerate(zip(given, kept)):
            unknown(one, other, f"{where}[{place}]", found)


def validate() -> int:
    """How many fields of the files Grafana does not know."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    found: list[str] = []
    for path in sorted(FILES.glob("*.json")):
        given = json.loads(path.read_text())
        kept = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(given)))
        unknown(given, kept, path.stem, found)
    print("\n".join(f"Grafana does not know {field}" for field in found) or "every field is known to Grafana")
    return len(found)


if __name__ == "__main__":
    modes = {"write": write, "check": check, "validate": validate}
    if len(sys.argv) != 2 or sys.argv[1] not in modes:
        sys.exit(__doc__)
    sys.exit(1 if modes[sys.argv[1]]() else 0)
