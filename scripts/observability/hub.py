"""A real hub under load, and a Prometheus that scrapes it: Redis, two edges, a control node, a simulated
fleet, subscribers, commands and publications. Everything on loopback, in a directory that is removed,
and ended by whoever started it. What is then asked of it is in live.py.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from device import Device

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "helm/roost/files/rules/roost.rules.yaml"
FLEET = 150
EDGES = ("edge-1", "edge-2")


def free_port() -> int:
    """One that is free still when it is used: below those that systems draw for outgoing connections."""
    while True:
        port = random.randint(21_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def get(url: str, timeout: float = 10) -> str:
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return answer.read().decode()


def wait_for(what: str, done, seconds: float = 120) -> None:
    """Waits until `done()` is true; what it raises counts as not yet."""
    deadline, last = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        try:
            if done():
                return
        except (OSError, LookupError, ValueError) as error:
            last = error
        time.sleep(0.1)
    raise SystemExit(f"not within {seconds:.0f} s: {what}" + (f" ({last})" if last else ""))


class Hub:
    """`with Hub(binary) as hub:` has it running; leaving ends all of it."""

    def __init__(self, binary: str):
        self.binary = binary
        self.dir = Path(tempfile.mkdtemp(prefix="roost-observability-"))
        self.processes: list[subprocess.Popen] = []
        self.ending = threading.Event()
        self.threads: list[threading.Thread] = []
        self.redis, self.grpc, self.prometheus = free_port(), free_port(), free_port()
        self.devices = {name: free_port() for name in EDGES}
        self.admin = {name: free_port() for name in (*EDGES, "control-1")}
        # Scraped from the start, there only for a while: see `draining`.
        self.passing = {"edge-3": free_port()}

    def __enter__(self):
        try:
            self.begin()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_):
        self.end()

    # === start and end

    def start(self, name: str, *command: str, **env: str) -> subprocess.Popen:
        log = open(self.dir / f"{name}.log", "ab")  # noqa: SIM115 - lives as long as the process
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=os.environ | env)
        self.processes.append(process)
        return process

    def begin(self) -> None:
        self.start("redis", "redis-server", "--port", str(self.redis), "--bind", "127.0.0.1", "--save", "",
                   "--appendonly", "no", "--dir", str(self.dir))
        wait_for("Redis listens", lambda: socket.create_connection(("127.0.0.1", self.redis), 1).close() is None)
        for name in self.admin:
            self.node(name)
        for name, port in self.admin.items():
            wait_for(f"{name} is ready (see {self.dir}/{name}.log)", lambda: '"ready"' in get(f"http://127.0.0.1:{port}/readyz"))
        self.watch()
        self.load()

    def node(self, name: str, **env: str) -> subprocess.Popen:
        role, at = name.rsplit("-", 1)[0], "127.0.0.1"
        where = ["--edge-addr", f"{at}:{self.devices[name]}"] if role == "edge" else ["--grpc-addr", f"{at}:{self.grpc}"]
        return self.start(name, self.binary, "serve", "--role", role, "--node-id", name, "--auth", "insecure",
                          "--redis", f"redis://{at}:{self.redis}", "--admin-addr", f"{at}:{self.admin[name]}", *where,
                          # Short, so that silent devices are pinged and a lease is lost within the time of this check.
                          **{"ROOST_EDGE__KEEPALIVE": "10s", "ROOST_STORE__LEASE": "3s", "ROOST_EDGE__MAX_CONNECTIONS": "4000"} | env)

    def watch(self) -> None:
        """Starts the Prometheus, with the rules that the chart ships."""
        targets = [{"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "local", "pod": name}} for name, port in (self.admin | self.passing).items()]
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "roost", "static_configs": targets}],
        }
        # JSON is YAML.
        path = self.dir / "prometheus.yml"
        path.write_text(json.dumps(config))
        self.start("prometheus", "prometheus", f"--config.file={path}", f"--storage.tsdb.path={self.dir}/data",
                   f"--web.listen-address=127.0.0.1:{self.prometheus}")
        wait_for("Prometheus is ready", lambda: "Ready" in get(f"http://127.0.0.1:{self.prometheus}/-/ready"))

    def end(self) -> None:
        self.ending.set()
        for thread in self.threads:
            thread.join(20)
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGINT if process.args[0] != "prometheus" else signal.SIGTERM)
        for process in reversed(self.processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    # === what goes wrong on purpose

    def interrupt_redis(self, seconds: float) -> None:
        """Redis is there but does not answer for a while, as when its host swaps."""
        redis = self.processes[0]
        redis.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        redis.send_signal(signal.SIGCONT)

    def draining(self, devices: int, seconds: int) -> list[tuple[float, ...]]:
        """A third edge with devices is told to end: its (state, remaining, duration) until it has."""
        self.devices["edge-3"], self.admin["edge-3"] = free_port(), self.passing["edge-3"]
        edge = self.node("edge-3", ROOST_SHUTDOWN__DRAIN=f"{seconds}s")
        try:
            wait_for("edge-3 is ready", lambda: '"ready"' in get(f"http://127.0.0.1:{self.admin['edge-3']}/readyz"))
            self.simulate("edge-3", "leaving", devices, "0s", "--duration", f"{seconds + 8}s")
            wait_for("its devices are connected", lambda: f'roost_ws_connections{{protocol="json"}} {devices}' in self.metrics("edge-3"))
            edge.terminate()
            seen: list[tuple[float, ...]] = []
            with contextlib.suppress(OSError):
                while edge.poll() is None:
                    lines = dict(line.rsplit(" ", 1) for line in self.metrics("edge-3").splitlines() if line.startswith("roost_drain_"))
                    seen.append(tuple(float(lines[f"roost_drain_{name}"]) for name in ("state", "remaining_connections", "duration_seconds")))
                    time.sleep(0.1)
            return seen
        finally:
            del self.devices["edge-3"], self.admin["edge-3"]

    # === load

    def simulate(self, edge: str, name: str, count: int, telemetry: str, *more: str) -> subprocess.Popen:
        return self.start(f"simulate-{name}", self.binary, "simulate", "--url", f"ws://127.0.0.1:{self.devices[edge]}",
                          "--device", name, "--count", str(count), "--telemetry", telemetry, "--json", *more)

    def load(self) -> None:
        for edge in EDGES:
            self.simulate(edge, f"busy-{edge}", FLEET, "2s")
            self.simulate(edge, f"silent-{edge}", 20, "0s")
        self.start("subscribe", self.binary, "subscribe", "telemetry/#", "--json", "--server", self.server)
        for work in (self.command, self.publish, self.come_and_go, self.follow):
            thread = threading.Thread(target=self.again, args=(work,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def again(self, work) -> None:
        while not self.ending.is_set():
            try:
                work()
            except (OSError, subprocess.SubprocessError):
                self.ending.wait(0.5)

    @property
    def server(self) -> str:
        return f"http://127.0.0.1:{self.grpc}"

    def run(self, *command: str) -> None:
        subprocess.run([self.binary, *command, "--server", self.server], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, timeout=30, check=False)

    def command(self) -> None:
        for edge in EDGES:
            for name in ("echo", "read", "fail", "nonsense"):
                self.run("command", "send", f"busy-{edge}-{1 + time.time_ns() % FLEET}", name, '{"n":1}', "--wait-timeout", "5s")
        self.run("command", "send", "nobody", "echo", "--ttl", "1s", "--no-wait")

    def publish(self) -> None:
        self.run("publish", "news/all", '{"text":"hello"}')
        self.run("device", "list")
        self.ending.wait(0.2)

    def come_and_go(self) -> None:
        """A device that moves between edges, and one that leaves."""
        for edge in EDGES:
            with Device(self.devices[edge], "wanderer") as first, Device(self.devices[edge], "wanderer"):
                first.until_closed(2)
        self.ending.wait(0.5)

    def follow(self) -> None:
        """A subscriber on each edge."""
        ports = [self.devices[edge] for edge in EDGES]
        with Device(ports[0], "reader-1", "news/#") as one, Device(ports[1], "reader-2", "telemetry/+") as two:
            while not self.ending.is_set():
                one.read(0.2)
                two.read(0.2)

    # === questions

    def metrics(self, node: str) -> str:
        return get(f"http://127.0.0.1:{self.admin[node]}/metrics")

    def ask(self, path: str, **arguments: str):
        """The `data` of an answer of Prometheus' API; ValueError says why there is none."""
        url = f"http://127.0.0.1:{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            return json.loads(get(url))["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.loads(error.read()).get("error", str(error))) from error
