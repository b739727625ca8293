"""A hub as processes, for checks from other languages: keys, a Redis of its own, nodes on free ports."""

import contextlib
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

# Longer than anything takes that works, on a machine that is busy with other things.
PATIENCE = 120


def until(what, ask, within=PATIENCE):
    """Asks again and again until the answer is something."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"within {within} s it did not come true: {what}")


class Hub:
    """Nodes with keys of their own. A context manager: everything ends with it."""

    def __init__(self, roost):
        self.roost = str(Path(roost).resolve())
        self.stack = contextlib.ExitStack()
        self.directory = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.token_key = self.directory / "token.key"
        self.api_key_file = self.directory / "api.key"
        self.cli("token", "key", "--out", self.token_key)
        self.cli("token", "api-key", "--out", self.api_key_file)
        self.api_key = self.api_key_file.read_text().split()[-1]

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stack.close()

    def cli(self, *args):
        """What `roost …` prints."""
        command = [self.roost, *map(str, args)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def token(self, device):
        return self.cli("token", "device", device, "--key-file", self.token_key)

    def redis(self):
        """Starts a Redis and gives its URL."""
        for _ in range(5):
            port = random.randint(21000, 31000)
            log = self.directory / f"redis-{port}.log"
            arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.directory)]
            server = self.process(["redis-server", *arguments], stdout=log.open("w"))
            until("Redis starts", lambda: server.poll() is not None or "Ready to accept" in log.read_text())
            if server.poll() is None:
                return f"redis://127.0.0.1:{port}"
        raise AssertionError("Redis does not start")

    def serve(self, *flags):
        """Starts a node; gives what it says when it listens."""
        ports = [part for flag in ("edge", "grpc", "admin") for part in (f"--{flag}-addr", "127.0.0.1:0")]
        keys = ["--token-key-file", self.token_key, "--api-key-file", self.api_key_file]
        command = [self.roost, "serve", "--log-level", "warn", *ports, *map(str, keys), *flags]
        node = self.process(command, stdout=subprocess.PIPE, text=True)
        line = node.stdout.readline()
        assert line, "the node did not start"
        return json.loads(line)

    def process(self, command, **how):
        """Starts a process that ends with the hub."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ROOST_")}
        environment.update(how.pop("env", {}))
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, **how)
        self.stack.callback(end, process)
        return process


def end(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout:
        process.stdout.close()
