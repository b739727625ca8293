#!/usr/bin/env bash
# What operators watch, against the real thing: alert rules and their tests, dashboards, and every query
# of every dashboard asked of a real Prometheus that scraped a real hub under load.
#
#   scripts/observability.sh                    all of it, in about two minutes
#   scripts/observability.sh rules|dashboards   without a hub
#   scripts/observability.sh live               only the hub under load
#
# ROOST_BIN names the binary; else it is target/release/roost, built if it is not there.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONDONTWRITEBYTECODE=1

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Installs what is missing by package name, and stops the service that comes with it.
need() {
  local command=$1 package=$2 service
  command -v "$command" >/dev/null && return
  if ! command -v apt-get >/dev/null; then
    echo "missing: $command; install $package by this system's package manager" >&2
    exit 2
  fi
  echo "== installing $package"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null
  for service in "$package" prometheus-node-exporter; do
    if [ -d /run/systemd/system ]; then
      as_root systemctl disable --now "$service" >/dev/null 2>&1 || true
    elif [ -e "/etc/init.d/$service" ]; then
      as_root service "$service" stop >/dev/null 2>&1 || true
    fi
  done
}

# A Python with Grafana's own model of a dashboard, where it can be had.
python() {
  local sdk='grafana-foundation-sdk==1769699379!11.6.0'
  if [ ! -x .venv/bin/python ] && ! python3 -m venv .venv >/dev/null 2>&1; then
    python3 "$@"
    return
  fi
  .venv/bin/python -c 'import grafana_foundation_sdk' 2>/dev/null ||
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$sdk" >/dev/null 2>&1 ||
    echo "skip: $sdk cannot be installed" >&2
  .venv/bin/python "$@"
}

need promtool prometheus
only=${1:-}
case "$only" in
  rules | dashboards) python scripts/observability/check.py --only "$only" ;;
  '' | live)
    need redis-server redis-server
    binary=${ROOST_BIN:-${CARGO_TARGET_DIR:-target}/release/roost}
    [ -x "$binary" ] || cargo build --release --quiet --bin roost
    python scripts/observability/check.py ${only:+--only "$only"} "$(realpath "$binary")"
    ;;
  *)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
