#!/usr/bin/env bash
# Breaks a hub under load, by scenario, and checks that it kept its promises. See tests/faults/README.md.
#
#   scripts/faults.sh --list                       which scenarios there are
#   scripts/faults.sh SCENARIO …                   these, with 2,000 devices and 200 commands a second
#   scripts/faults.sh all --scale small --jobs 3   all, with 150 devices and 40 commands a second
#   scripts/faults.sh SCENARIO --seed N            as it was with that seed
#
# Exit code: 0 every promise was kept, 1 some were not, 2 the run could not be made. Nothing outside
# loopback is touched; redis-server 7.0 or later must be there.
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
  '' | -h | --help)
    awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0"
    exit ;;
esac
# Two thousand devices, their hub and proxies between take descriptors.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
cargo build --release --quiet -p roost -p roost-faults
exec "${CARGO_TARGET_DIR:-target}/release/roost-faults" "$@"
