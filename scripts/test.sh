#!/usr/bin/env bash
# Every check of this repository, by name, in the order of how soon it can fail.
#
#   scripts/test.sh                     all of them, from a clean clone on
#   scripts/test.sh --only NAME …       these (repeatable)
#   scripts/test.sh --skip NAME …       all but these
#   scripts/test.sh --list              which there are
#   scripts/test.sh --again             what fails is tried once more, and named as unsteady if it then passes
#
# What is missing is installed by package name (apt, with root or sudo; a Python environment in .venv;
# npm in tests/interop). Rust, Node and Python must be there. Nothing outside loopback is touched but
# package registries, through their own clients.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
colour=never
if [ -t 1 ]; then colour=auto; fi
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-$colour}
target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$here/$target ;; esac
buf_version=1.75.0
buf=${XDG_CACHE_HOME:-$HOME/.cache}/roost-tools/buf-$buf_version

# name | needs | what it shows
checks() {
  cat <<'LIST'
fmt|rust|the code is formatted
layers|rust python|crates depend only on lower levels; only roost-redis names the redis client
buf|npm|proto/ keeps the rules of buf lint
repository|python|scripts parse; nothing committed names a package registry's host or has lost its place
clippy|rust cc|no warnings, in any target, with all features
build|rust cc|everything builds (debug), once for all checks that follow
unit|rust cc redis|unit, contract and property tests of every crate, and the examples in their documents
topologies|rust cc redis|the same scenarios on one node in memory, one on Redis, two edges and a control node
two-edges|rust cc redis|two edges and a control node as processes: a command, 1,000 messages each once, one session
mailbox|rust cc redis|commands that wait, expire, are cancelled, time out for their caller, come again
commands|rust cc redis|commands followed to their end, sent to many, given up and driven again, answered too late
payloads|rust cc redis|JSON, text and bytes pass unchanged up to the limit; over it the documented answer
hostile|rust cc|bad input, each with its documented end, while 50 neighbours go on
tls|rust cc|TLS for devices and back ends: versions, rotation under connections, bad files, hostile bytes, mistakes named
admission|rust cc|Origins, and a flood of connections that those who are connected do not notice
edge-killed|rust cc redis|kill -9 of an edge: its devices go offline and answer through the other one
simulation|rust cc|5,000 seeds of sessions and mailboxes on a store that loses, doubles and reorders
redis-outage|rust cc redis|Redis stopped, and Redis restarted empty, under 1,000 devices: nobody is cut off
shutdown|rust cc redis|SIGTERM: goaway, 1012, exit 0
drain|rust cc redis|three edges restarted under load, paced, nothing lost (ROOST_TEST_DRAIN_DEVICES, 240 of them; 2000 is a full run); drains by an operator; a new node fills up
tracing|rust cc redis|one command's spans under one trace id, from the gRPC call to the device's answer, at a real OTLP receiver
metrics|rust cc redis|each metric moves, and more devices make no more series
cli|rust cc redis|exit codes, --json, and every mistake of a configuration named
release|rust cc|the release build
demo|rust cc|cargo run --release -- demo --once
interop|rust cc redis python node|devices of Node and Python, a Python back end, as the README has them
echo|rust cc python|RFC 6455 against /v1/echo: 70,000 fragments, 16 MiB, and what is not allowed
idle|rust cc redis|roost bench idle, short: what an idle device costs on a Redis of its own
faults|rust cc redis faketime|each fault of scripts/faults.sh, small: nodes, Redis, networks, clocks; and planted ones are found
chart|rust cc redis python node|the Helm chart: lint, every value set rendered and valid, what must be refused, a policy scan
observability|rust cc redis python|rules, alerts and dashboards against a real Prometheus that scrapes a real hub
LIST
}

# === the checks ===

e2e() {
  # Serially: several of these tests promise something within a time.
  cargo test --workspace --all-features --test e2e -- --test-threads "${2:-1}" ${3:+"$3"} "$1::"
}
build_debug() { cargo build --workspace --all-targets --all-features --quiet; }

check_fmt() { cargo fmt --all --check -- --color "$colour"; }
check_layers() { python3 scripts/check-layers.py; }
check_buf() { "$buf/node_modules/.bin/buf" lint; }
check_repository() { python3 scripts/check-repository.py; }
check_clippy() { cargo clippy --workspace --all-targets --all-features --quiet -- -D warnings; }
check_build() { build_debug; }
check_unit() { cargo test --workspace --all-features --exclude roost-tests --no-fail-fast --quiet; }
check_topologies() { build_debug && e2e topologies 2; }
check_two_edges() { build_debug && e2e two_edges; }
check_mailbox() { build_debug && e2e mailbox 2; }
check_commands() { build_debug && e2e commands 2; }
check_payloads() { build_debug && e2e payloads 2; }
check_hostile() { build_debug && e2e hostile; }
check_tls() { build_debug && e2e tls 2; }
check_admission() { build_debug && e2e admission; }
check_edge_killed() { build_debug && e2e edge_killed; }
check_simulation() {
  cargo run --release --quiet -p roost-simulation --example seeds "${ROOST_TEST_SEEDS:-5000}" | tail -n 4
}
check_redis_outage() { build_debug && e2e redis_outage; }
check_shutdown() { build_debug && e2e shutdown; }
check_drain() { build_debug && e2e drain 1 --nocapture; }
check_tracing() { build_debug && e2e tracing; }
check_metrics() { build_debug && e2e metrics; }
check_cli() { build_debug && e2e cli 2; }
check_release() { cargo build --release --quiet; }
check_demo() { check_release && cargo run --release --quiet -- demo --once; }
check_interop() { check_release && .venv/bin/python tests/interop/run.py "$target/release/roost"; }
check_echo() { check_release && .venv/bin/python tests/interop/echo.py "$target/release/roost"; }
check_idle() { check_release && "$target/release/roost" bench idle --n "${ROOST_TEST_IDLE_DEVICES:-2000}"; }
check_faults() {
  scripts/faults.sh all --scale small --jobs "${ROOST_TEST_FAULTS_JOBS:-3}"
  # A run that finds nothing must be one that would have found something.
  for plant in drop-delivery lose-command stale-session; do
    set +e
    scripts/faults.sh edge-kill --scale small --plant "$plant" >/dev/null
    status=$?
    set -e
    [ $status -eq 1 ] || { echo "the planted fault $plant was not found: exit code $status" >&2; return 1; }
    echo "planted: $plant was found"
  done
}
check_chart() { check_release && ROOST_BIN="$target/release/roost" scripts/chart.sh; }
check_observability() { check_release && ROOST_BIN="$target/release/roost" scripts/observability.sh; }

# === what they need ===

say() { printf '\n== %s\n' "$*"; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

updated=
apt_install() {
  if ! command -v apt-get >/dev/null; then
    echo "missing: $*; install it by this system's package manager" >&2
    return 1
  fi
  say "installing $*"
  if [ -z "$updated" ]; then
    as_root apt-get update -qq
    updated=yes
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

need_rust() {
  command -v cargo >/dev/null && return
  echo "missing: Rust; see https://rustup.rs (rust-toolchain.toml says which)" >&2
  return 1
}

need_cc() { command -v cc >/dev/null || apt_install gcc libc6-dev; }

need_redis() {
  command -v redis-server >/dev/null && return
  apt_install redis-server
  # The package may start a server of its own; tests start theirs on free ports.
  if command -v systemctl >/dev/null && [ -d /run/systemd/system ]; then
    as_root systemctl disable --now redis-server >/dev/null 2>&1 || true
  else
    as_root service redis-server stop >/dev/null 2>&1 || true
  fi
}

# Wall clocks that step, for one scenario of the faults.
need_faketime() {
  for place in /usr/lib/*/faketime /usr/lib/faketime /usr/lib64/faketime; do
    if [ -e "$place/libfaketimeMT.so.1" ]; then return; fi
  done
  apt_install libfaketime
}

need_python() {
  command -v python3 >/dev/null || apt_install python3
  # Only what talks to a hub needs more than the standard library.
  case " ${selected[*]} " in *" interop "* | *" echo "* | *" chart "* | *" observability "*) ;; *) return 0 ;; esac
  if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then apt_install python3-venv; fi
  if ! cmp -s tests/interop/requirements.txt .venv/requirements.txt; then
    say "Python packages into .venv"
    python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check --requirement tests/interop/requirements.txt
    cp tests/interop/requirements.txt .venv/requirements.txt
  fi
}

need_npm() {
  command -v npm >/dev/null || apt_install nodejs npm
  [ -x "$buf/node_modules/.bin/buf" ] && return
  say "buf into $buf"
  mkdir -p "$buf"
  npm install --prefix "$buf" --silent --no-audit --no-fund "@bufbuild/buf@$buf_version"
}

need_node() {
  command -v npm >/dev/null || apt_install nodejs npm
  if ! cmp -s tests/interop/package-lock.json tests/interop/node_modules/.locked.json; then
    say "Node packages into tests/interop"
    (cd tests/interop && npm ci --silent)
    cp tests/interop/package-lock.json tests/interop/node_modules/.locked.json
  fi
}

# === which, and how they went ===

names() { checks | cut -d'|' -f1; }
field() { checks | awk -F'|' -v name="$1" -v field="$2" '$1 == name { print $field }'; }
known() {
  names | grep -qxF -- "$1" && return
  echo "there is no check named $1; scripts/test.sh --list shows them" >&2
  exit 2
}

only=() skip=() tries=1
while [ $# -gt 0 ]; do
  case $1 in
    --list)
      checks | awk -F'|' '{ printf "%-14s %s\n", $1, $3 }'
      exit ;;
    --only | --skip)
      [ $# -ge 2 ] || { echo "$1 needs the name of a check" >&2; exit 2; }
      known "$2"
      if [ "$1" = --only ]; then only+=("$2"); else skip+=("$2"); fi
      shift 2 ;;
    --again)
      tries=2
      shift ;;
    -h | --help)
      awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$here/scripts/test.sh"
      exit ;;
    *)
      echo "unknown argument $1; try --help" >&2
      exit 2 ;;
  esac
done

selected=()
for name in $(names); do
  if [ ${#only[@]} -gt 0 ]; then
    case " ${only[*]} " in *" $name "*) ;; *) continue ;; esac
  fi
  case " ${skip[*]-} " in *" $name "*) continue ;; esac
  selected+=("$name")
done
if [ ${#selected[@]} -eq 0 ]; then
  echo "nothing is left to check" >&2
  exit 2
fi

needs=$(for name in "${selected[@]}"; do field "$name" 2; done | tr ' ' '\n' | sort -u)
for need in $needs; do "need_$need"; done

# A thousand devices and their hub in one machine take descriptors.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true

passed=0 failed=0 unsteady= table=
for name in "${selected[@]}"; do
  say "$name: $(field "$name" 3)"
  began=$SECONDS
  for try in $(seq "$tries"); do
    # Not in a condition, where `set -e` would be off for all that it calls.
    set +e
    (set -e; "check_${name//-/_}")
    status=$?
    set -e
    [ $status -ne 0 ] || break
    [ "$try" -eq "$tries" ] || say "$name failed: once more"
  done
  if [ $status -eq 0 ]; then
    result=passed
    if [ "$try" -gt 1 ]; then unsteady+=" $name"; fi
    passed=$((passed + 1))
  else
    result=FAILED
    failed=$((failed + 1))
  fi
  table+=$(printf '%-14s %-7s %5d s' "$name" "$result" $((SECONDS - began)))$'\n'
done

say summary
printf '%s\n' "$table"
echo "$passed passed, $failed failed"
if [ -n "$unsteady" ]; then
  echo "UNSTEADY (failed once, then passed; somebody has to find out why):$unsteady"
fi
[ "$failed" -eq 0 ]
