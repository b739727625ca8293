"""Clients of other languages against real nodes: the README's own code for Node, Python and grpcio runs
as it stands, and what it shows is checked. Devices are on two edges, back ends on a control node.

    python tests/interop/run.py target/release/roost
"""

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

from hub import PATIENCE, Hub, until

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = HERE / ".build"


def generate():
    """The README's blocks as files, and stubs from proto/, both made anew."""
    BUILD.mkdir(exist_ok=True)
    marked = r"<!-- tests/interop runs this block as it stands -->\n```(\w+)\n(.*?)```"
    blocks = re.findall(marked, (ROOT / "README.md").read_text(), re.DOTALL)
    languages = [language for language, _ in blocks]
    assert languages == ["js", "python", "python"], f"the README has other blocks: {languages}"
    for name, (_, code) in zip(["device.js", "device.py", "backend.py"], blocks):
        (BUILD / name).write_text(code)
    protos = sorted(str(file) for file in (ROOT / "proto/roost/control/v1").glob("*.proto"))
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}"]
    out = [f"--python_out={BUILD}", f"--grpc_python_out={BUILD}"]
    subprocess.run([*protoc, *out, *protos], check=True)
    sys.path.insert(0, str(BUILD))


class Device:
    """One of the README's devices as a process, and what it prints: every message as a line of JSON."""

    def __init__(self, hub, name, edge, command):
        environment = {"ROOST_URL": f"ws://{edge}/v1/connect", "ROOST_TOKEN": hub.token(name)}
        self.name = name
        self.seen = []
        self.process = hub.process(command, stdout=subprocess.PIPE, text=True, env=environment)
        threading.Thread(target=self.read, daemon=True).start()
        self.expect("welcome", device_id=name)

    def read(self):
        for line in self.process.stdout:
            self.seen.append(json.loads(line))

    def expect(self, kind, **fields):
        """Waits for a message with these fields."""
        wanted = {"type": kind, **fields}

        def ask():
            return next((said for said in list(self.seen) if wanted.items() <= said.items()), None)

        return until(f"{self.name} gets {wanted}", ask)


class BackEnd:
    """The services, called with the hub's key."""

    def __init__(self, hub, address):
        import grpc
        from roost.control.v1 import command_service_pb2_grpc, device_service_pb2_grpc, message_service_pb2_grpc

        self.channel = grpc.insecure_channel(address)
        self.commands = command_service_pb2_grpc.CommandServiceStub(self.channel)
        self.devices = device_service_pb2_grpc.DeviceServiceStub(self.channel)
        self.messages = message_service_pb2_grpc.MessageServiceStub(self.channel)
        self.call = {"metadata": [("authorization", f"Bearer {hub.api_key}")], "timeout": PATIENCE}

    def run(self, device, payload):
        from google.protobuf.duration_pb2 import Duration
        from roost.control.v1 import command_service_pb2 as pb

        request = pb.SendCommandRequest(
            device_id=device,
            name="echo",
            payload=payload,
            wait_until="COMMAND_STATE_SUCCEEDED",
            wait_timeout=Duration(seconds=60),
        )
        return self.commands.SendCommand(request, **self.call).command


def readme_back_end(hub, control):
    """The README's back end, as it stands: thermo-1 does what it is told."""
    environment = {"ROOST_GRPC": control["grpc"], "ROOST_API_KEY_FILE": str(hub.api_key_file)}
    command = [sys.executable, str(BUILD / "backend.py")]
    process = hub.process(command, stdout=subprocess.PIPE, text=True, env=environment | {"PYTHONPATH": str(BUILD)})
    answer, _ = process.communicate(timeout=PATIENCE)
    state, payload = answer.split(maxsplit=1)
    assert (int(state), json.loads(payload)) == (6, {"done": "reboot"}), answer


def commands(back_end, devices):
    from roost.control.v1 import command_service_pb2 as pb
    from roost.control.v1 import common_pb2

    for device in devices:
        text = "<läge>&amp;</läge>"
        command = back_end.run(device.name, common_pb2.Payload(text=text))
        assert command.state == pb.COMMAND_STATE_SUCCEEDED, command
        assert json.loads(command.result.payload.json) == {"done": "echo"}, command
        device.expect("command", command_id=command.command_id, name="echo", text=text)


def streams(back_end, devices):
    """One call of each method that streams about commands, and of those that list the dead."""
    import grpc
    from google.protobuf.duration_pb2 import Duration
    from roost.control.v1 import command_service_pb2 as pb
    from roost.control.v1 import common_pb2

    one = devices[0].name
    command = pb.SendCommandRequest(device_id=one, command_id="streamed", name="echo")
    request = pb.SendAndWatchCommandRequest(command=command)
    items = list(back_end.commands.SendAndWatchCommand(request, **back_end.call))
    assert items[0].durability == common_pb2.DURABILITY_MEMORY, items[0]
    assert items[-1].command.state == pb.COMMAND_STATE_SUCCEEDED, items[-1]
    devices[0].expect("command", command_id="streamed", name="echo")

    request = pb.WatchCommandRequest(device_id=one, command_id="streamed")
    (item,) = back_end.commands.WatchCommand(request, **back_end.call)
    assert item.command.state == pb.COMMAND_STATE_SUCCEEDED, item
    request.cursor = items[-1].cursor
    assert not list(back_end.commands.WatchCommand(request, **back_end.call))

    command = pb.SendCommandRequest(name="echo", wait_until="COMMAND_STATE_SUCCEEDED", wait_timeout=Duration(seconds=60))
    request = pb.BatchSendCommandsRequest(device_ids=[device.name for device in devices], command=command)
    answers = {item.device_id: item for item in back_end.commands.BatchSendCommands(request, **back_end.call)}
    assert set(answers) == {device.name for device in devices}, answers
    for device in devices:
        answer = answers[device.name]
        assert answer.sent.command.state == pb.COMMAND_STATE_SUCCEEDED, answer
        device.expect("command", command_id=answer.command_id, name="echo")

    assert not back_end.commands.ListDeadCommands(pb.ListDeadCommandsRequest(), **back_end.call).commands
    request = pb.RedriveCommandRequest(device_id=one, command_id="streamed")
    try:
        back_end.commands.RedriveCommand(request, **back_end.call)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
    else:
        raise AssertionError("what succeeded was driven again")


def messages(hub, back_end, edges, devices):
    """From a back end to devices; from a device of each language to everybody."""
    from roost.control.v1 import common_pb2
    from roost.control.v1 import message_service_pb2 as pb
    from websockets.sync.client import connect

    subscription = pb.TopicSubscription(topic_filter="fleet/#")
    stream = back_end.messages.Subscribe(pb.SubscribeRequest(subscriptions=[subscription]), **back_end.call)
    assert next(stream).WhichOneof("event") == "subscribed"

    payload = common_pb2.Payload(json='{"version": 7}')
    back_end.messages.Publish(pb.PublishRequest(topic="fleet/news", payload=payload), **back_end.call)
    for device in devices:
        device.expect("message", topic="fleet/news", payload={"version": 7})
    assert next(stream).message.payload.json == '{"version": 7}'

    environment = {"ROOST_URL": f"ws://{edges[0]['edge']}/v1/connect", "ROOST_TOKEN": hub.token("page")}
    command = ["node", str(HERE / "browser.js"), "fleet/page", "from a page"]
    assert hub.process(command, env=environment).wait(PATIENCE) == 0
    bearer = {"Authorization": "Bearer " + hub.token("script")}
    with connect(f"ws://{edges[1]['edge']}/v1/connect", additional_headers=bearer) as script:
        script.send(json.dumps({"type": "hello"}))
        assert json.loads(script.recv())["type"] == "welcome"
        script.send(json.dumps({"type": "publish", "id": 1, "topic": "fleet/script", "base64": "AP8="}))
        assert json.loads(script.recv()) == {"type": "ack", "id": 1}
    for device in devices:
        device.expect("message", topic="fleet/page", text="from a page", **{"from": "device:page"})
        device.expect("message", topic="fleet/script", base64="AP8=", **{"from": "device:script"})
    assert next(stream).message.payload.text == "from a page"
    assert next(stream).message.payload.binary == b"\x00\xff"
    stream.cancel()


def presence(hub, back_end, edges):
    """A snapshot, `synced`, and then who comes and goes."""
    from roost.control.v1 import device_service_pb2 as pb
    from websockets.sync.client import connect

    stream = back_end.devices.WatchDevices(pb.WatchDevicesRequest(snapshot=True), **back_end.call)
    online = set()
    for item in stream:
        if item.WhichOneof("event") == "synced":
            break
        online.add(item.snapshot.device_id)
    assert online == {"thermo-1", "thermo-2"}, online
    bearer = {"Authorization": "Bearer " + hub.token("guest")}
    with connect(f"ws://{edges[1]['edge']}/v1/connect?hello=auto", additional_headers=bearer) as guest:
        assert json.loads(guest.recv())["type"] == "welcome"
        assert event(stream) == ("guest", pb.DEVICE_EVENT_TYPE_CONNECTED)
    assert event(stream) == ("guest", pb.DEVICE_EVENT_TYPE_DISCONNECTED)
    stream.cancel()


def event(stream):
    item = next(stream).device_event
    return item.device_id, item.type


def health(control):
    """`grpc.health.v1` and reflection answer without a key, from whichever stubs."""
    import grpc

    with grpc.insecure_channel(control["grpc"]) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=PATIENCE) == b"\x08\x01", "not SERVING"


def main():
    generate()
    with Hub(sys.argv[1]) as hub:
        redis = hub.redis()
        edges = [hub.serve("--role", "edge", "--redis", redis, "--node-id", name) for name in ("a", "b")]
        control = hub.serve("--role", "control", "--redis", redis)
        devices = [
            Device(hub, "thermo-1", edges[0]["edge"], ["node", str(BUILD / "device.js")]),
            Device(hub, "thermo-2", edges[1]["edge"], [sys.executable, str(BUILD / "device.py")]),
        ]
        back_end = BackEnd(hub, control["grpc"])
        readme_back_end(hub, control)
        commands(back_end, devices)
        streams(back_end, devices)
        presence(hub, back_end, edges)
        messages(hub, back_end, edges, devices)
        health(control)
    print("Node ws, Python websockets and grpcio work with the hub")


if __name__ == "__main__":
    main()
