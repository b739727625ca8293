//! One command is one trace, over two nodes, Redis and the device, as an OTLP collector gets it; and
//! what a node logs can be changed while it runs.

use std::sync::Arc;

use roost_proto::control::v1 as pb;
use roost_testkit::backend::{TestBackend, command, waiting, with_id};
use roost_testkit::collector::{Collector, Span};
use roost_testkit::device::TestDevice;
use roost_testkit::keys::Keys;
use roost_testkit::process::{HubProcess, NodeOptions};
use roost_testkit::redis::RedisServer;
use roost_testkit::soon;
use roost_testkit::target::Target;
use roost_types::{CommandId, ResultStatus, TraceContext};
use roost_wire::device::{FromDevice, ToDevice};
use tonic::Request;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const DEVICE: &str = "53995c3f42cd8ad8";
const SEND: &str = "SendCommand";

/// An edge and a control node on a Redis of their own, whose spans go to one collector.
struct Traced {
    target: Target,
    collector: Collector,
    _nodes: [HubProcess; 2],
    _redis: RedisServer,
}

async fn traced(sample: &str) -> Traced {
    let collector = Collector::start().await;
    let redis = RedisServer::start().await.unwrap();
    let keys = Arc::new(Keys::generate());
    let endpoint = collector.endpoint();
    let env =
        [("ROOST_TRACING__OTLP_ENDPOINT", endpoint.as_str()), ("ROOST_TRACING__SAMPLE", sample)];
    let node = |role, id| {
        let redis = Some(redis.url());
        HubProcess::start(&keys, &NodeOptions { role, id, redis, env: &env, flags: &[] })
    };
    let (edge, control) = (node("edge", "edge-1"), node("control", "control-1"));
    let target = Target { edges: vec![edge.edge()], grpc: control.grpc(), keys };
    Traced { target, collector, _nodes: [edge, control], _redis: redis }
}

/// A command as the device got it.
async fn got(device: &mut TestDevice) -> (CommandId, Option<String>) {
    loop {
        if let ToDevice::Command { command_id, headers, .. } = device.next().await.unwrap() {
            let trace = headers.iter().find(|(name, _)| &**name == "traceparent");
            return (command_id, trace.map(|(_, value)| value.to_string()));
        }
    }
}

/// Says how a command ended, until the hub has stored it.
async fn answer(device: &mut TestDevice, command_id: CommandId, trace: Option<TraceContext>) {
    let status = ResultStatus::Succeeded;
    let (payload, error) = (None, None);
    let result = FromDevice::Result { id: Some(9), command_id, status, payload, error, trace };
    device.connection.queue(&result);
    loop {
        match device.next().await.unwrap() {
            ToDevice::Ack { .. } => return,
            // Redis was slow for a moment.
            ToDevice::Error { retryable: true, .. } => device.connection.queue(&result),
            _ => {}
        }
    }
}

/// Sends a command and waits for its end, as part of the caller's trace.
async fn run_traced(backend: &TestBackend, command: pb::SendCommandRequest, traceparent: &str) {
    let call = async {
        loop {
            let mut request = Request::new(command.clone());
            request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
            match backend.backend.commands().send_command(request).await {
                Ok(answer) => return answer.into_inner(),
                // Redis was slow for a moment.
                Err(status) => assert_eq!(status.code(), tonic::Code::Unavailable, "{status}"),
            }
        }
    };
    let answer = soon("the end of a command", call).await;
    assert!(!answer.wait_timed_out, "{answer:?}");
}

/// The span above another.
fn above<'a>(spans: &'a [Span], span: &Span) -> &'a Span {
    let parent = spans.iter().find(|other| other.span_id == span.parent_id);
    parent.unwrap_or_else(|| panic!("nothing above {span:?} in {spans:#?}"))
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_command_is_one_trace_from_the_call_to_the_devices_answer() {
    // Nothing is traced by chance, so all that arrives is what the caller asked for.
    let hub = traced("0").await;
    let backend = hub.target.backend().await;
    let mut device = hub.target.on_a("d").await;

    let untraced = async {
        let (id, trace) = got(&mut device).await;
        assert_eq!(trace, None);
        answer(&mut device, id, TraceContext::parse(&format!("00-{TRACE}-{DEVICE}-01"))).await;
    };
    tokio::join!(backend.run(command("d", "untraced")), untraced);

    let traced = async {
        let (id, trace) = got(&mut device).await;
        let trace = TraceContext::parse(&trace.unwrap()).unwrap();
        assert!(trace.sampled && trace.to_string().contains(TRACE), "{trace}");
        answer(&mut device, id, TraceContext::parse(&format!("00-{TRACE}-{DEVICE}-01"))).await;
        trace
    };
    let request = waiting(std::time::Duration::from_secs(60), command("d", "reboot"));
    let call = format!("00-{TRACE}-{CALLER}-01");
    let request = with_id("c-traced", request);
    let ((), given) = tokio::join!(run_traced(&backend, request, &call), traced);

    let names = [SEND, "enqueue", "push to edge", "deliver", "device", "report sent", "result"];
    let spans = hub.collector.spans_with(&names).await;
    for span in &spans {
        assert_eq!(span.trace_id, TRACE, "{span:?}");
        assert_eq!(span.resource["service.name"], "roost");
        assert!(span.time.0 <= span.time.1, "{span:?}");
    }
    // The device's own span, which it exports itself, lies between its answer and the hub's.
    let result = named(&spans, "result");
    assert_eq!(result.parent_id, DEVICE);
    let at_device = spans.iter().find(|span| given.to_string().contains(&span.span_id)).unwrap();
    assert_eq!(at_device.name, "device");
    let deliver = above(&spans, at_device);
    let push = named(&spans, "push to edge");
    let send = above(&spans, push);
    // A push that comes while the edge reads the mailbox is left to that reading, which has the context
    // that the command was accepted with.
    let handed_by = above(&spans, deliver);
    assert!([push, send].iter().any(|span| span.span_id == handed_by.span_id), "{handed_by:?}");
    let chain = [send, push, deliver, at_device, result];
    let told = chain.map(|span| (span.node.as_str(), span.name.as_str()));
    let expected = [
        ("control-1", SEND),
        ("control-1", "push to edge"),
        ("edge-1", "deliver"),
        ("edge-1", "device"),
        ("edge-1", "result"),
    ];
    assert_eq!(told, expected);
    assert_eq!(send.parent_id, CALLER);
    assert_eq!(at_device.attributes["roost.command.state"], "SUCCEEDED");
    assert_eq!(at_device.attributes["roost.command.name"], "reboot");
    assert!(chain.iter().all(|span| !span.failed), "{chain:#?}");

    // Redis, below what asked it.
    let redis: Vec<_> =
        spans.iter().filter(|span| span.attributes.contains_key("db.system.name")).collect();
    let asked_by = |name: &str, by: &Span| {
        redis.iter().any(|span| span.name == name && span.parent_id == by.span_id)
    };
    assert!(asked_by("enqueue", send), "{redis:#?}");
    assert!(asked_by("publish", push), "{redis:#?}");
    assert!(asked_by("advance", named(&spans, "report sent")), "{redis:#?}");
    assert!(asked_by("advance", result), "{redis:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_goes_leaves_its_span_unanswered_and_the_next_one_has_its_own() {
    let hub = traced("0").await;
    let backend = hub.target.backend().await;
    let mut first = hub.target.on_a("d").await;
    let call = format!("00-{TRACE}-{CALLER}-01");
    let request = waiting(std::time::Duration::from_secs(60), command("d", "reboot"));
    let answering = async {
        let (id, _) = got(&mut first).await;
        first.connection.close().await;
        let mut second = hub.target.on_a("d").await;
        let (again, trace) = got(&mut second).await;
        assert_eq!((&again, trace.is_some()), (&id, true));
        // Another trace than the command's has no place here.
        let foreign = TraceContext::parse(&call.replace('4', "5"));
        answer(&mut second, id, foreign).await;
        trace.unwrap()
    };
    let run = run_traced(&backend, with_id("c-again", request), &call);
    let ((), given) = tokio::join!(run, answering);
    let unanswered = |span: &Span| span.attributes.get("roost.answered") == Some(&"false".into());
    let there = |spans: &[Span]| {
        let result = spans.iter().any(|span| span.name == "result");
        result && spans.iter().any(unanswered)
    };
    let spans = hub.collector.spans_once("a result and an unanswered span", there).await;
    let at_device = above(&spans, named(&spans, "result"));
    assert!(given.contains(&at_device.span_id), "{given} {at_device:?}");
    assert!(spans.iter().all(|span| span.trace_id == TRACE), "{spans:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_begins_by_chance_where_the_caller_names_none() {
    let hub = traced("1").await;
    let backend = hub.target.backend().await;
    let mut device = hub.target.on_a("d").await;
    let answering = async {
        let (id, trace) = got(&mut device).await;
        answer(&mut device, id, None).await;
        trace.unwrap()
    };
    let (_, given) = tokio::join!(backend.run(command("d", "reboot")), answering);
    let spans = hub.collector.spans_with(&[SEND, "device", "result"]).await;
    let result = named(&spans, "result");
    assert_eq!(above(&spans, result).name, "device");
    assert!(given.contains(&result.trace_id), "{given} {result:?}");
    assert_eq!(named(&spans, SEND).parent_id, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_level_is_changed_while_a_node_runs() {
    let keys = Keys::generate();
    let node = HubProcess::start(&keys, &NodeOptions::default());
    let admin = node.admin();
    let (code, shown) = admin.ask("PUT", "/log-level?for=1m", "warn,roost_edge=debug").await;
    assert_eq!(code, 200, "{shown}");
    let (_, shown) = admin.get("/log-level").await;
    assert!(shown.contains(r#""level":"warn,roost_edge=debug","configured":"error""#), "{shown}");
    let (_, shown) = admin.ask("DELETE", "/log-level", "").await;
    assert!(shown.starts_with(r#"{"level":"error""#), "{shown}");
}
