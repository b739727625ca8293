"""What is on each dashboard: titles, queries, units, thresholds, and why one looks at them.

How this becomes Grafana's JSON is in dashboards.py. In a query, {s} stands for the selector of the
namespaces and pods chosen, {n} for that of the namespaces alone, [~] for the rate interval.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Panel:
    """One panel. `queries` are (PromQL, legend); `bad_above`/`bad_below` colour it."""

    title: str
    why: str
    unit: str
    queries: list[tuple[str, str]]
    kind: str = "timeseries"
    width: int = 8
    warn: float | None = None
    bad: float | None = None
    low_is_bad: bool = False
    # Why it may rightly have no data on a healthy hub; None where it must have some.
    may_be_empty: str | None = None


@dataclass(frozen=True)
class Board:
    """One dashboard: rows of panels."""

    name: str
    title: str
    about: str
    rows: list[tuple[str, list[Panel]]] = field(default_factory=list)


def rate(metric: str, by: str = "", more: str = "") -> str:
    """The rate of a counter, summed by some labels."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{{{{s}}{more}}}[~]))"


def quantile(q: float, metric: str, by: str = "", more: str = "") -> str:
    """A quantile of a histogram over everything chosen."""
    labels = ", ".join(filter(None, [by, "le"]))
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{{{s}}{more}}}[~])))"


def both(metric: str, by: str = "", legend: str = "") -> list[tuple[str, str]]:
    """p50 and p99."""
    prefix = f"{legend} " if legend else ""
    return [(quantile(0.5, metric, by), f"{prefix}p50"), (quantile(0.99, metric, by), f"{prefix}p99")]


def slo(window: str) -> str:
    return f"roost:slo_errors:ratio_rate{window}{{{{n}}}}"


def P(*args, **kwargs):
    return Panel(*args, **kwargs)


CONNECTED = "sum (roost_ws_connections{{s}})"
NO_ALERT = "no alert fires on a healthy hub"

OVERVIEW = Board("overview", "Roost / Overview and SLO", "Is the hub keeping its promises? Start here.", [
    ("Objectives", [
        P("Firing alerts", "Alerts of Roost that fire now.", "short",
          [('sum(ALERTS{alertname=~"Roost.*", alertstate="firing", {n}}) or vector(0)', "firing")],
          "stat", 4, warn=1, bad=3),
        P("Error budget left, 3 days", "Of the 0.1 % that may go wrong, what is left; below zero the objective is missed (shown down to −100 %).", "percentunit",
          [(f"clamp_min(1 - {slo('3d')} / 0.001, -1)", "{{slo}}")], "stat", 10, warn=0.25, bad=0, low_is_bad=True),
        P("Success, 1 hour", "Share of good connects, commands and deliveries; the objective is 99.9 %.", "percentunit",
          [(f"1 - {slo('1h')}", "{{slo}}")], "stat", 10, warn=0.9995, bad=0.999, low_is_bad=True),
        P("Burn rate", "How many times faster than allowed the budget goes; 14.4 pages within minutes, 1 uses it up exactly.", "short",
          [(f"{slo('5m')} / 0.001", "{{slo}} 5 m"), (f"{slo('1h')} / 0.001", "{{slo}} 1 h")], width=16, warn=1, bad=14.4),
        P("Which alerts fire", "By name; docs/runbooks/NAME.md says what to do.", "short",
          [('sum by (alertname) (ALERTS{alertname=~"Roost.*", alertstate="firing", {n}})', "{{alertname}}")],
          may_be_empty=NO_ALERT),
    ]),
    ("Devices", [
        P("Connected against capacity", "Open device connections, and how many the nodes may hold.", "short",
          [(CONNECTED, "connected"), ("sum (roost_ws_connections_limit{{s}})", "limit")]),
        P("Connects a second", "Attempts, by how they ended.", "cps", [(rate("roost_ws_connects_total", "outcome"), "{{outcome}}")]),
        P("Connections ended a second", "By who ended them and why.", "cps",
          [(rate("roost_ws_disconnects_total", "initiator, reason"), "{{initiator}}: {{reason}}")]),
        P("Sessions", "Owned by the nodes; suspended ones wait for the store.", "short",
          [("sum by (state) (roost_sessions{{s}})", "{{state}}")]),
        P("Messages a second", "From devices (in) and to them (out).", "mps",
          [(rate("roost_messages_total", "direction"), "{{direction}}")]),
        P("Commands a second", "By how they ended.", "cps", [(rate("roost_commands_total", "outcome"), "{{outcome}}")]),
    ]),
    ("Latency", [
        P("Command round trip", "From SendCommand to the device's result, the device's work included.", "s", both("roost_command_round_trip_seconds"), width=12, warn=1, bad=5),
        P("Delivery", "From acceptance by the hub to the device's socket.", "s", both("roost_delivery_latency_seconds", "path", "{{path}}"), width=12, warn=0.1, bad=0.5),
    ]),
])

EDGE = Board("edge", "Roost / Edge", "What the nodes that hold devices do: rate, errors, duration, and what runs short.", [
    ("Rate", [
        P("Connections by pod", "A new pod fills only as devices reconnect: unevenness after a rollout is normal.", "short",
          [("sum by (pod) (roost_ws_connections{{s}})", "{{pod}}")]),
        P("Admission", "Sockets accepted from the listeners, by the decision before authentication.", "cps",
          [(rate("roost_admission_total", "decision"), "{{decision}}")]),
        P("Messages by kind", "The type of device-protocol messages.", "mps",
          [(rate("roost_messages_total", "direction, kind"), "{{direction}} {{kind}}")]),
        P("Bytes", "WebSocket bytes read and written.", "Bps", [(rate("roost_message_bytes_total", "direction"), "{{direction}}")]),
        P("Message size", "p50 and p99 of what comes and what is encoded.", "bytes", both("roost_message_size_bytes", "direction", "{{direction}}")),
        P("Command redeliveries", "Commands handed over again, after a lost session.", "cps",
          [(rate("roost_command_redeliveries_total"), "again")]),
    ]),
    ("Errors", [
        P("Refused connects", "Every attempt that was not accepted, by its outcome.", "cps",
          [(rate("roost_ws_connects_total", "outcome", ', outcome!="accepted"'), "{{outcome}}")]),
        P("Closes by reason", "Connections that ended, by reason.", "cps",
          [(rate("roost_ws_disconnects_total", "reason"), "{{reason}}")]),
        P("Close frames sent", "By code; 1012 is a drain, 4409 a newer session, 4413 a device that does not read.", "cps",
          [(rate("roost_ws_close_frames_sent_total", "code"), "{{code}}")]),
        P("Dropped deliveries", "Publications that a subscriber did not get.", "mps",
          [(rate("roost_messages_dropped_total", "reason"), "{{reason}}")]),
        P("Gaps told", "Subscribers that were told that something may be missing.", "cps",
          [(rate("roost_gaps_total", "cause"), "{{cause}}")]),
        P("Slow consumers", "Devices whose send queue was full, by what was done.", "cps",
          [(rate("roost_slow_consumers_total", "action"), "{{action}}")]),
    ]),
    ("Duration", [
        P("Handshake", "From accepted socket to 101.", "s", both("roost_ws_handshake_duration_seconds"), warn=0.25, bad=1),
        P("Ping round trip", "Of devices that were silent for a keep-alive interval.", "s", both("roost_ws_ping_rtt_seconds"), warn=1, bad=5),
        P("Connection lifetime", "Of connections that ended.", "s", both("roost_ws_connection_duration_seconds")),
    ]),
    ("What runs short", [
        P("Capacity used", "Connections of each pod against its limit.", "percentunit",
          [("sum by (pod) (roost_ws_connections{{s}}) / sum by (pod) (roost_ws_connections_limit{{s}} > 0)", "{{pod}}")], warn=0.7, bad=0.85),
        P("Event loop lag, p99", "How late a worker comes to its tick: everything else on it waits as long.", "s",
          [(quantile(0.99, "roost_event_loop_lag_seconds", "pod, worker"), "{{pod}} worker {{worker}}")], warn=0.05, bad=0.25),
        P("Send queues", "Bytes that wait for devices to read.", "bytes", [("sum by (pod) (roost_send_queue_bytes{{s}})", "{{pod}}")]),
        P("Memory per connection", "Resident memory of the process shared out over its connections.", "bytes",
          [("sum by (pod) (roost_process_resident_memory_bytes{{s}}) / (sum by (pod) (roost_ws_connections{{s}}) > 0)", "{{pod}}")]),
        P("CPU", "Cores used.", "short", [(rate("roost_process_cpu_seconds_total", "pod"), "{{pod}}")]),
        P("File descriptors used", "Each device takes one.", "percentunit",
          [("max by (pod) (roost_process_open_fds{{s}} / roost_process_max_fds{{s}})", "{{pod}}")], warn=0.7, bad=0.85),
    ]),
])

CONTROL = Board("control", "Roost / Control", "What back ends ask and what they get.", [
    ("gRPC", [
        P("Calls by method", "Completed calls a second; a stream counts when it ends.", "reqps",
          [(rate("roost_grpc_server_handled_total", "method"), "{{method}}")]),
        P("Answers by code", "Status of completed calls.", "reqps", [(rate("roost_grpc_server_handled_total", "code"), "{{code}}")]),
        P("Calls that failed in the hub", "Share of UNAVAILABLE, INTERNAL, UNKNOWN, DATA_LOSS among all.", "percentunit",
          [('(sum (rate(roost_grpc_server_handled_total{{s}, code=~"UNAVAILABLE|INTERNAL|UNKNOWN|DATA_LOSS"}[~])) or vector(0)) / sum (rate(roost_grpc_server_handled_total{{s}}[~]))', "failed")],
          warn=0.001, bad=0.01),
        P("Duration by method, p99", "Waits that were asked for are included.", "s",
          [(quantile(0.99, "roost_grpc_server_handling_seconds", "method"), "{{method}}")], width=12),
        P("Duration of all calls", "p50 and p99.", "s", both("roost_grpc_server_handling_seconds"), width=12),
    ]),
    ("Commands", [
        P("Outcomes", "Commands by their final state, and refusals.", "cps", [(rate("roost_commands_total", "outcome"), "{{outcome}}")]),
        P("Success of what was taken", "Share that devices did; refusals and expiry count against it here, unlike in the SLO.", "percentunit",
          [('sum (rate(roost_commands_total{{s}, outcome="succeeded"}[~])) / sum (rate(roost_commands_total{{s}}[~]))', "succeeded")], warn=0.99, bad=0.9, low_is_bad=True),
        P("In flight", "SendCommand calls being worked on or waited for.", "short", [("sum by (pod) (roost_commands_in_flight{{s}})", "{{pod}}")]),
        P("Waiting in mailboxes", "Unfinished commands of the whole hub; counted twice a minute by one node.", "short",
          [("max (roost_mailbox_pending{{n}})", "pending")], width=12),
        P("Oldest waiting", "How long ago the oldest of them was accepted.", "s",
          [("max (roost_mailbox_oldest_age_seconds{{n}})", "oldest")], width=12, warn=600, bad=3600),
        P("Round trip", "SendCommand calls that waited for a result and got it.", "s", both("roost_command_round_trip_seconds"), width=12, warn=1, bad=5),
        P("To the socket", "From a command's acceptance until a connected device's socket has it.", "s",
          [(quantile(0.5, "roost_delivery_latency_seconds", "", ', path="command"'), "p50"), (quantile(0.99, "roost_delivery_latency_seconds", "", ', path="command"'), "p99")], width=12, warn=0.1, bad=0.5),
    ]),
])

REDIS = Board("redis", "Roost / Redis", "The store as the nodes see it. Redis' own exporter tells the other half.", [
    ("Health", [
        P("Connections up", "1 for each node and role whose connection answers.", "short",
          [("min by (pod, role) (roost_redis_up{{s}})", "{{pod}} {{role}}")], width=12, warn=1, bad=0.5, low_is_bad=True),
        P("Errors", "By kind; the outcome of each command is below.", "cps", [(rate("roost_redis_errors_total", "kind"), "{{kind}}")], width=12),
        P("Reconnects, 10 minutes", "Connections made again.", "short", [("sum by (role) (increase(roost_redis_reconnects_total{{s}}[10m]))", "{{role}}")], warn=1, bad=10),
        P("Failovers, 1 hour", "Reconnections that found another master, or one that lost its data.", "short",
          [("max (increase(roost_redis_failovers_total{{s}}[1h]))", "failovers")], warn=1, bad=3),
        P("Pub/sub dropped", "What came from Redis and was not taken in.", "mps", [(rate("roost_redis_pubsub_dropped_total", "reason"), "{{reason}}")], warn=0.1, bad=10),
    ]),
    ("Work", [
        P("Commands a second", "By the part of the hub that asks.", "ops", [(rate("roost_redis_command_duration_seconds_count", "command"), "{{command}}")], width=12),
        P("Latency, p99", "From sending to the reply, queueing in the client included.", "s",
          [(quantile(0.99, "roost_redis_command_duration_seconds", "command", ', outcome="ok"'), "{{command}}")], width=12, warn=0.01, bad=0.1),
        P("Latency of all commands", "p50 and p99.", "s", both("roost_redis_command_duration_seconds"), warn=0.01, bad=0.1),
        P("By outcome", "Fenced ones are refusals that keep the promises.", "ops", [(rate("roost_redis_command_duration_seconds_count", "outcome"), "{{outcome}}")]),
        P("Hub time error", "How far a node's hub time may be off.", "s", [("max by (pod) (roost_hub_time_error_seconds{{s}})", "{{pod}}")], warn=0.1, bad=1),
    ]),
    ("Sessions", [
        P("Takeovers", "Claims that replaced a session; other_node is a device that moved.", "cps", [(rate("roost_session_takeovers_total", "reason"), "{{reason}}")]),
        P("Compared after interruptions", "What became of sessions when the store came back.", "cps", [(rate("roost_session_resumes_total", "outcome"), "{{outcome}}")]),
        P("Fenced writes", "Writes of a session that was no longer the owner, or too late.", "cps", [(rate("roost_fenced_writes_total"), "fenced")]),
    ]),
])

ROLLOUT = Board("rollout", "Roost / Rollout", "Watch this while nodes are replaced: nobody should be offline for more than seconds.", [
    ("Progress", [
        P("Nodes by version", "Two versions at once are normal only while a rollout runs.", "short",
          [("count by (version) (roost_build_info{{s}})", "{{version}}")]),
        P("Uptime", "Since each process started.", "s", [("max by (pod) (time() - roost_process_start_time_seconds{{s}})", "{{pod}}")]),
        P("Drain state", "0 serving, 1 draining, 2 drained.", "short", [("max by (pod) (roost_drain_state{{s}})", "{{pod}}")]),
        P("Certificates", "How long each port's certificate is good for.", "s",
          [("min by (pod, port) (roost_tls_cert_expiry_timestamp_seconds{{s}} - time())", "{{pod}} {{port}}")], width=24, warn=30 * 86400, bad=7 * 86400, low_is_bad=True,
          may_be_empty="no port has TLS here"),
    ]),
    ("Drain", [
        P("Left to close", "Connections that draining nodes have still to close.", "short", [("sum by (pod) (roost_drain_remaining_connections{{s}})", "{{pod}}")]),
        P("Closed by drains", "Connections a second; the set rate is connections over shutdown.drain.", "cps",
          [('sum (rate(roost_ws_disconnects_total{{s}, reason="draining"}[~])) or vector(0)', "closed")]),
        P("Duration", "How long a drain has gone on, or took.", "s", [("max by (pod) (roost_drain_duration_seconds{{s}})", "{{pod}}")]),
        P("Cut", "Devices that did not answer the close frame.", "short", [("sum by (pod) (increase(roost_drain_forced_closes_total{{s}}[10m]))", "{{pod}}")], warn=1, bad=10),
        P("Suspended sessions", "Sockets kept while the store cannot confirm their sessions.", "short", [('sum by (pod) (roost_sessions{{s}, state="suspended"})', "{{pod}}")], warn=1, bad=1000),
        P("Connected", "The whole hub's devices: it should dip by seconds, and come back.", "short", [(CONNECTED, "connected")]),
    ]),
    ("Coming back", [
        P("Reconnects against admission", "Devices let in, and those told to come later.", "cps",
          [(rate("roost_admission_total", "", ', decision="admitted"'), "admitted"), (rate("roost_admission_total", "", ', decision!="admitted"'), "turned away")]),
        P("Connect success", "Accepted among all that were well-formed.", "percentunit",
          [('sum (rate(roost_ws_connects_total{{s}, outcome="accepted"}[~])) / sum (rate(roost_ws_connects_total{{s}, outcome=~"accepted|capacity|unavailable|draining|rate_limited|timeout|io"}[~]))', "accepted")], warn=0.99, bad=0.9, low_is_bad=True),
        P("Sessions kept", "Of those compared with the store after an interruption, the share that lived on.", "percentunit",
          [('sum (rate(roost_session_resumes_total{{s}, outcome=~"kept|reclaimed"}[~])) / (sum (rate(roost_session_resumes_total{{s}}[~])) > 0)', "kept")], warn=0.99, bad=0.9, low_is_bad=True),
    ]),
])

BOARDS = [OVERVIEW, EDGE, CONTROL, REDIS, ROLLOUT]
