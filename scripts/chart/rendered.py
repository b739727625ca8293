"""Rendering the chart, and what must hold for whatever it renders. Which values it is rendered with, and
what comes of a mistake, is in check.py."""

import json
import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import yaml

CHART = Path("helm/roost")
SETS = sorted(CHART.glob("ci/*.yaml"))
RELEASE, NAMESPACE = "hub", "roost"


class Wrong(Exception):
    """What is not as it must be."""


def expect(condition, text):
    """Says what is wrong, unless the condition holds."""
    if not condition:
        raise Wrong(text)


@dataclass
class Helm:
    """How helm is called."""

    command: list[str]

    def run(self, action, values=None, over=None):
        """Lints, renders or would install with a file of values and some laid over them."""
        call = [*self.command, action, *([] if action == "lint" else [RELEASE]), str(CHART)]
        call += ["--strict"] if action == "lint" else ["--namespace", NAMESPACE]
        # Nobody is to be asked, whatever cluster this machine knows.
        call += ["--dry-run=client"] if action == "install" else []
        if values:
            call += ["--values", str(values)]
        for key, value in (over or {}).items():
            call += ["--set-json", json.dumps(nested(key, value))]
        return subprocess.run(call, capture_output=True, text=True, check=False)

    def objects(self, values=None, over=None):
        """The objects that are rendered."""
        done = self.run("template", values, over)
        expect(done.returncode == 0, done.stderr.strip())
        return [document for document in yaml.safe_load_all(done.stdout) if document]


def nested(path, value):
    """`a.b` and a value as a map in a map."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def of_kind(objects, *kinds):
    """The objects of these kinds."""
    return [it for it in objects if it["kind"] in kinds]


def named(objects, kind, name):
    """The one object of this kind and name."""
    found = [it for it in of_kind(objects, kind) if it["metadata"]["name"] == name]
    expect(len(found) == 1, f"there are {len(found)} objects {kind}/{name}")
    return found[0]


def pods(objects):
    """Every pod's name, labels and spec."""
    for it in objects:
        if it["kind"] == "Pod":
            yield it["metadata"]["name"], it["metadata"]["labels"], it["spec"]
        elif it["kind"] in ("Deployment", "StatefulSet", "Job"):
            template = it["spec"]["template"]
            yield it["metadata"]["name"], template["metadata"]["labels"], template["spec"]


def selects(selector, labels):
    """Whether a plain selector finds these labels."""
    return all(labels.get(key) == value for key, value in selector.items())


# === What must hold ===


def unique(objects):
    """No object is rendered twice; each is in the release's namespace."""
    names = [(it["kind"], it["metadata"]["name"]) for it in objects]
    expect(len(set(names)) == len(names), f"twice: {sorted(n for n in names if names.count(n) > 1)}")


def restricted(objects):
    """Pod Security `restricted`, and what the chart promises beyond it."""
    for name, _, spec in pods(objects):
        expect(spec["automountServiceAccountToken"] is False, f"{name} mounts a token")
        expect(spec["enableServiceLinks"] is False, f"{name} gets variables of services")
        expect(spec["securityContext"]["runAsNonRoot"] is True, f"{name} may be root")
        for container in spec["containers"] + spec.get("initContainers", []):
            context, where = container["securityContext"], f"{name}/{container['name']}"
            expect(context["readOnlyRootFilesystem"] is True, f"{where} can write")
            expect(context["allowPrivilegeEscalation"] is False, f"{where} can gain privileges")
            expect(context["capabilities"] == {"drop": ["ALL"]}, f"{where} has capabilities")
            expect(context["seccompProfile"]["type"] == "RuntimeDefault", f"{where} lacks seccomp")
            expect({"cpu", "memory"} <= container["resources"]["limits"].keys(), f"{where} lacks limits")


def mounts(objects):
    """Every mount has its volume; every volume's object exists, unless it is the user's own."""
    for name, _, spec in pods(objects):
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        for container in spec["containers"] + spec.get("initContainers", []):
            for mount in container.get("volumeMounts", []):
                expect(mount["name"] in volumes, f"{name}: no volume {mount['name']}")
        for volume in volumes.values():
            if "configMap" in volume:
                named(objects, "ConfigMap", volume["configMap"]["name"])
            if "secret" in volume and volume["secret"]["secretName"].startswith(RELEASE):
                secret = named(objects, "Secret", volume["secret"]["secretName"])
                keys = secret.get("data", {}).keys() | secret.get("stringData", {}).keys()
                for item in volume["secret"]["items"]:
                    expect(item["key"] in keys, f"{secret['metadata']['name']} has no {item['key']}")


def services(objects):
    """Every Service finds pods, and its ports exist there; every route's Service exists."""
    for service in of_kind(objects, "Service"):
        name = service["metadata"]["name"]
        found = [spec for _, labels, spec in pods(objects) if selects(service["spec"]["selector"], labels)]
        expect(len(found) == 1, f"Service {name} finds {len(found)} kinds of pods")
        ports = {port["name"] for container in found[0]["containers"] for port in container.get("ports", [])}
        for port in service["spec"]["ports"]:
            expect(port["targetPort"] in ports, f"Service {name}: no port {port['targetPort']}")
    for route in of_kind(objects, "HTTPRoute", "GRPCRoute"):
        for back in (back for rule in route["spec"]["rules"] for back in rule["backendRefs"]):
            service = named(objects, "Service", back["name"])
            expect(back["port"] in [port["port"] for port in service["spec"]["ports"]], f"no port {back}")
        expect(not any("timeouts" in rule for rule in route["spec"]["rules"]), "a route has a timeout")
    for ingress in of_kind(objects, "Ingress"):
        for path in (path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]):
            named(objects, "Service", path["backend"]["service"]["name"])


def certificates(objects):
    """What is mounted is what is used, where it is, and by links, so that a renewed Secret comes through."""
    for role, section in (("edge", "edge"), ("control", "grpc")):
        spec, keys = node(objects, role), config(objects, role)[section]
        used = {keys[key] for key in ("tls_cert_file", "tls_key_file") if key in keys}
        found = [volume for volume in spec["volumes"] if volume["name"] == "tls"]
        expect(bool(used) == bool(found), f"{role}: {used} is used and {found} is mounted")
        if not used:
            continue
        mount = next(it for it in spec["containers"][0]["volumeMounts"] if it["name"] == "tls")
        expect("subPath" not in mount, f"{role}: a file that is mounted alone is never renewed")
        there = {f"{mount['mountPath']}/{item['path']}" for item in found[0]["secret"]["items"]}
        expect(used == there, f"{role}: {used} is used and {there} is there")
        if role == "edge":
            ports = {port["name"]: port["containerPort"] for port in spec["containers"][0]["ports"]}
            expect(ports["devices-tls"] == int(keys["tls_addr"].rsplit(":")[-1]), f"{ports} and {keys['tls_addr']}")
            expect(("devices" in ports) == keys["plain"], f"{ports} and plain = {keys['plain']}")


def rollout(objects):
    """One new pod at a time, no capacity lost; scaled by one only; one bound for disruptions."""
    scalers = of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    scaled = [it["spec"]["scaleTargetRef"]["name"] for it in scalers]
    for role in ("edge", "control"):
        deployment = named(objects, "Deployment", f"{base(objects)}-{role}")
        name, spec = deployment["metadata"]["name"], deployment["spec"]
        expect(spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}, f"{name}: strategy")
        expect(scaled.count(name) <= 1, f"{name} is scaled by more than one")
        expect(("replicas" in spec) == (name not in scaled), f"{name}: replicas and a scaler")
        budget = named(objects, "PodDisruptionBudget", name)["spec"]
        bounds = {"minAvailable", "maxUnavailable"} & budget.keys()
        expect(len(bounds) == 1, f"{name}: {len(bounds)} bounds for disruptions")
        expect(budget["unhealthyPodEvictionPolicy"] == "IfHealthyBudget", f"{name}: eviction policy")
        labels = spec["template"]["metadata"]["labels"]
        expect(selects(spec["selector"]["matchLabels"], labels), f"{name} does not select its pods")
        expect(not any(key.startswith("helm.sh/") for key in labels), f"{name}: a chart version restarts pods")
        for constraint in spec["template"]["spec"]["topologySpreadConstraints"]:
            expect(selects(constraint["labelSelector"]["matchLabels"], labels), f"{name}: spread")


def probes(objects):
    """Each probe has its own meaning: alive is not ready."""
    for role in ("edge", "control"):
        container = node(objects, role)["containers"][0]
        asked = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}
        expect(asked == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}, f"{role}: {asked}")


def going_away(objects):
    """Kubernetes and the binary are told the same: grace > preStop + what the binary takes at most."""
    for role in ("edge", "control"):
        spec = node(objects, role)
        stop = spec["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        shutdown = {key: seconds(value) for key, value in config(objects, role)["shutdown"].items() if key != "shed_rate"}
        expect(shutdown["grace"] > shutdown["delay"] + shutdown["drain"], f"{role}: no time to flush: {shutdown}")
        grace = spec["terminationGracePeriodSeconds"]
        expect(grace > stop + shutdown["grace"], f"{role}: grace {grace} <= preStop {stop} + {shutdown['grace']}")


def network(objects):
    """Where policies are made, one denies everything, and every other pod has its own."""
    policies = of_kind(objects, "NetworkPolicy")
    if not policies:
        return
    deny = named(objects, "NetworkPolicy", f"{base(objects)}-default-deny")["spec"]
    expect(deny["policyTypes"] == ["Ingress", "Egress"] and not {"ingress", "egress"} & deny.keys(), "not a denial")
    for name, labels, _ in pods(objects):
        found = [it for it in policies if selects(it["spec"]["podSelector"]["matchLabels"], labels)]
        expect(len(found) == 2, f"{name} has {len(found)} policies")


ALL = [unique, restricted, mounts, services, certificates, rollout, probes, going_away, network]


# === Parts of what was rendered ===


def base(objects):
    """What every object's name begins with."""
    edges = [it["metadata"]["name"] for it in of_kind(objects, "Deployment") if it["metadata"]["name"].endswith("-edge")]
    expect(len(edges) == 1, "there is not one Deployment of edges")
    return edges[0].removesuffix("-edge")


def node(objects, role):
    """The spec of a role's pods."""
    return named(objects, "Deployment", f"{base(objects)}-{role}")["spec"]["template"]["spec"]


def config(objects, role):
    """A role's roost.toml, read."""
    return tomllib.loads(named(objects, "ConfigMap", f"{base(objects)}-{role}")["data"]["roost.toml"])


def seconds(text):
    """The seconds of `12s`."""
    found = re.fullmatch(r"(\d+)s", text)
    expect(found, f"{text} is not in seconds")
    return int(found[1])
