"""Running what was rendered: the bundled Redis, an edge and a control node with their roost.toml, and the
containers of `helm test`, as processes on loopback. Only ports and paths differ."""

import base64
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rendered import base, config, expect, named, node, of_kind

# Longer than anything takes that works, on a machine that is busy with other things.
PATIENCE = 120


def binary():
    """The binary to use, if there is one."""
    given = os.environ.get("ROOST_BIN")
    for path in [given] if given else ["target/release/roost", "target/debug/roost"]:
        if Path(path).is_file():
            return str(Path(path).resolve())
    return None


def free_port():
    """A port that nobody listens on, below those that systems draw for outgoing connections."""
    while True:
        port = random.randint(21_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def entry(objects, secret, key):
    """What a Secret holds under a key."""
    it = named(objects, "Secret", secret)
    return it["stringData"][key] if key in it.get("stringData", {}) else base64.b64decode(it["data"][key]).decode()


@contextmanager
def running(call, **options):
    """A process that is told to end, and must end well."""
    process = subprocess.Popen(call, text=True, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def write_files(objects, folder, redis_port):
    """The files that the pods mount, with the bundled Redis' address changed."""
    name = base(objects)
    url = re.sub(r"@.*", f"@127.0.0.1:{redis_port}", entry(objects, f"{name}-redis", "url"))
    conf = entry(objects, f"{name}-redis", "redis.conf").replace("dir /data", f"dir {folder}")
    files = {
        "url": url,
        "redis.conf": f"{conf}\nport {redis_port}\nbind 127.0.0.1\n",
        "token.key": entry(objects, f"{name}-token-key", "token.key"),
        "api.key": entry(objects, f"{name}-api-keys", "api.key"),
        "edge.toml": named(objects, "ConfigMap", f"{name}-edge")["data"]["roost.toml"],
        "control.toml": named(objects, "ConfigMap", f"{name}-control")["data"]["roost.toml"],
    }
    for file, text in files.items():
        (folder / file).write_text(text)


def environment(folder, role):
    """What a node is told besides its file: addresses on loopback, and where the files are."""
    own = {"ROOST_NODE__ID": f"{role}-pod", "ROOST_REDIS__URL_FILE": str(folder / "url")}
    own |= {f"ROOST_{part}__ADDR": "127.0.0.1:0" for part in ("EDGE", "GRPC", "ADMIN")}
    key = ("TOKEN_KEY", "token.key") if role == "edge" else ("API_KEY", "api.key")
    own[f"ROOST_AUTH__{key[0]}_FILE"] = str(folder / key[1])
    return own


def certificate(folder):
    """`tls.crt` and `tls.key` that belong together, and `ca.crt` that signed them: itself."""
    crt, key = folder / "tls.crt", folder / "tls.key"
    if not crt.exists():
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=redis"]
        subprocess.run([*new, "-days", "2", "-keyout", str(key), "-out", str(crt)], check=True, capture_output=True)
        shutil.copy(crt, folder / "ca.crt")


def check_config(objects, roost):
    """The binary accepts both roost.toml, with nothing changed but where files are."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for role in ("edge", "control"):
            toml = named(objects, "ConfigMap", f"{base(objects)}-{role}")["data"]["roost.toml"]
            (folder / "roost.toml").write_text(toml.replace("/etc/roost/redis-tls/", f"{folder}/").replace("/etc/roost/redis/", f"{folder}/").replace("/etc/roost/tls/", f"{folder}/"))
            (folder / "url").write_text("redis://127.0.0.1")
            (folder / "sentinel-password").write_text("secret")
            certificate(folder)
            (folder / "token.key").write_text("k" * 43)
            (folder / "api.key").write_text("rk_0123456789abcdef0123456789abcdef")
            env = environment(folder, role)
            call = [roost, "config", "check", "--config", str(folder / "roost.toml")]
            done = subprocess.run(call, env=env, capture_output=True, text=True, check=False)
            expect(done.returncode == 0, done.stderr.strip())
            args = node(objects, role)["containers"][0]["args"]
            expect(args == ["serve", "--config", "/etc/roost/roost.toml"], f"{role} is called as {args}")
            expect(config(objects, role)["node"]["role"] == role, f"{role} has another role")


def known_keys(objects, roost):
    """Shows which keys of the binary the chart does not set: those with which it has nothing to do, or new ones."""
    done = subprocess.run([roost, "config", "print", "--auth", "insecure"], env={}, capture_output=True, text=True, check=False)
    expect(done.returncode == 0, done.stderr)
    section, known = "", set()
    for line in done.stdout.splitlines():
        if found := re.fullmatch(r"\[(\w+)\]", line):
            section = found[1]
        elif found := re.match(r"(?:# )?(\w+) =", line):
            known.add(f"{section}.{found[1]}")
    expect(len(known) > 20, f"cannot be read: {done.stdout}")
    ours = {f"{part}.{key}" for role in ("edge", "control") for part, keys in config(objects, role).items() for key in keys}
    return f"not set: {', '.join(sorted(known - ours))}"


def answers(url):
    """The status that a probe gets."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def wait_for(url):
    """Waits until a probe succeeds."""
    end = time.monotonic() + PATIENCE
    while answers(url) != 200:
        expect(time.monotonic() < end, f"{url} does not get ready")
        time.sleep(0.1)


def wait_for_redis(port):
    """Waits until Redis listens: a node that cannot reach it at its start ends."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            expect(time.monotonic() < end, "Redis does not start")
            time.sleep(0.05)


def helm_test(objects, roost):
    """Runs the hub that was rendered and what `helm test` would run. Probes answer; a command is answered."""
    redis_server = shutil.which("redis-server")
    with tempfile.TemporaryDirectory() as text, ExitStack() as stack:
        folder, redis_port = Path(text), free_port()
        write_files(objects, folder, redis_port)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        stack.enter_context(running([redis_server, str(folder / "redis.conf")], **quiet))
        wait_for_redis(redis_port)
        listening = {}
        for role in ("edge", "control"):
            call = [roost, "serve", "--config", str(folder / f"{role}.toml")]
            streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            process = stack.enter_context(running(call, env=environment(folder, role), **streams))
            line = process.stdout.readline()
            expect(line, f"the {role} node ended before it listened")
            listening[role] = json.loads(line)
            for probe in ("startup", "liveness", "readiness"):
                path = node(objects, role)["containers"][0][f"{probe}Probe"]["httpGet"]["path"]
                wait_for(f"http://{listening[role]['admin']}{path}")
        pod = next(it for it in of_kind(objects, "Pod") if it["metadata"]["annotations"]["helm.sh/hook"] == "test")["spec"]
        device, command = pod["initContainers"][0], pod["containers"][0]
        expect(device["restartPolicy"] == "Always", "the device is no sidecar: the pod would never end")
        here = {"url": f"ws://{listening['edge']['edge']}", "server": f"http://{listening['control']['grpc']}"}
        stack.enter_context(running([roost, *local(device["args"], here, folder)], env={}, **quiet))
        call = [roost, *local(command["args"], here, folder)]
        done = subprocess.run(call, env={}, capture_output=True, text=True, timeout=PATIENCE, check=False)
        expect(done.returncode == 0, f"the command ended with {done.returncode}: {done.stdout}{done.stderr}")
        expect("helm test" in done.stdout, f"the answer is not what was sent: {done.stdout}")


def local(args, here, folder):
    """Arguments with addresses and paths of this machine."""
    changed = []
    for arg in args:
        flag, _, _ = arg.removeprefix("--").partition("=")
        arg = f"--{flag}={here[flag]}" if arg.startswith("--") and flag in here else arg
        changed.append(arg.replace("/etc/roost/auth", str(folder)))
    return changed
