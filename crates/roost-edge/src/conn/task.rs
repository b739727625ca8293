//! A connection's task: read into the worker's buffer, decode, handle in order. It holds nothing
//! between two reads; while a request is handled nothing more is read, which is the back-pressure.

use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use roost_telemetry::metrics::labels::{Direction, MessageKind};
use roost_types::{ErrorCode, HubError};
use roost_wire::device::{FromDevice, Reject};
use roost_wire::ws::{Event, Opcode, WsError, encode_message, encode_pong};

use super::ending::Exit;
use super::{Class, Conn, Speech, Stage};
use crate::adapter;
use crate::session;

/// How many messages are decoded and handled before other connections of the worker get a turn.
const TURN: usize = 64;

/// Something that came, independent of the read buffer.
enum Input {
    /// A message of the device protocol, or why it is none.
    Message(Result<FromDevice, Reject>),
    /// A ping, as its answer.
    Ping(Bytes),
    /// A message to be sent back, as its frame.
    Echo(Bytes),
    /// A frame of the wrong kind.
    WrongKind,
    /// The peer closes.
    Close(Option<u16>, String),
    /// The peer broke the rules.
    Broken(WsError),
}

/// Owned by a vector, so that an idle task has no room set aside for it.
type Inputs = Vec<Input>;

/// What a try at reading gave.
enum Read {
    Nothing,
    /// Some messages, the bytes after them that were not decoded yet, and whether the buffer was
    /// full, so that more is likely there.
    Some(Inputs, Box<[u8]>, bool),
    End,
}

/// Runs a connection to its end. Kept small, since every idle connection has one: whatever handles
/// messages is boxed while it runs.
pub(super) async fn run(exit: Exit) {
    if begins_by_itself(&exit.0) {
        Box::pin(begin(&exit.0)).await;
    }
    while exit.0.stage() != Stage::Over {
        if exit.0.transport.readable().await.is_err() {
            exit.0.peer_vanishes();
            break;
        }
        if let Some(work) = turn(&exit.0) {
            work.await;
        }
    }
    Box::pin(exit.release()).await;
}

/// Whether something is to be done before the socket has anything.
fn begins_by_itself(conn: &Conn) -> bool {
    conn.arrival.borrow().as_ref().is_some_and(|arrival| {
        arrival.auto_hello || arrival.identity.is_err() || !arrival.early.is_empty()
    })
}

/// Reads once, and gives what is to be done about it, if anything.
fn turn(conn: &Rc<Conn>) -> Option<Pin<Box<dyn Future<Output = ()>>>> {
    match read(conn) {
        Read::Nothing => None,
        Read::End => {
            conn.peer_vanishes();
            None
        }
        Read::Some(inputs, _, false) if inputs.is_empty() => None,
        Read::Some(inputs, rest, more) => {
            let conn = Rc::clone(conn);
            Some(Box::pin(async move {
                handle(&conn, inputs, rest).await;
                if more {
                    tokio::task::yield_now().await;
                }
            }))
        }
    }
}

/// Tells a refused device so, implies a `hello`, and parses what came with the handshake.
async fn begin(conn: &Rc<Conn>) {
    let early = conn
        .arrival
        .borrow_mut()
        .as_mut()
        .map_or_else(Box::default, |arrival| std::mem::take(&mut arrival.early));
    let refusal = conn.arrival.borrow().as_ref().and_then(|arrival| arrival.identity.clone().err());
    if let Some(error) = refusal {
        conn.close(error);
    }
    let auto = conn.arrival.borrow().as_ref().is_some_and(|arrival| arrival.auto_hello);
    if auto && conn.is_open() {
        session::handle(conn, FromDevice::default_hello()).await;
    }
    handle(conn, Inputs::new(), early).await;
}

/// Reads once and decodes the first messages of it. The shared buffer is borrowed only in here.
fn read(conn: &Conn) -> Read {
    let mut buffer = conn.worker.read_buffer.borrow_mut();
    match conn.transport.try_read(&mut buffer) {
        Ok(0) => Read::End,
        Ok(count) => {
            conn.timers.hear(conn.worker.now.get());
            conn.worker.edge.metrics().message_bytes.add(Direction::In, count as u64);
            let more = count == buffer.len();
            let (inputs, used) = decode(conn, &mut buffer[..count]);
            Read::Some(inputs, buffer[used..count].into(), more)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Read::Nothing,
        Err(_) => Read::End,
    }
}

/// Decodes a turn's worth of messages, and says how many bytes those were: a flood of small ones is
/// kept as bytes until it is their turn, not as what they become. What follows a hello waits for what
/// comes of it.
fn decode(conn: &Conn, bytes: &mut [u8]) -> (Inputs, usize) {
    let most = if conn.stage() == Stage::Greeting { 1 } else { TURN };
    let mut decoder = conn.decoder.borrow_mut();
    let mut inputs = Inputs::new();
    let mut at = 0;
    while at < bytes.len() && inputs.len() < most {
        match decoder.decode(&mut bytes[at..]) {
            Ok(found) => {
                at += found.consumed;
                if let Some(event) = found.event {
                    take(conn, event, &mut inputs);
                }
            }
            Err(error) => {
                inputs.push(Input::Broken(error));
                at = bytes.len();
            }
        }
    }
    (inputs, at)
}

fn take(conn: &Conn, event: Event<'_>, inputs: &mut Inputs) {
    match (conn.speech, event) {
        (_, Event::Ping(payload)) => inputs.push(Input::Ping(encode_pong(&payload))),
        (_, Event::Pong(payload)) => {
            if conn.timers.take_pong() {
                conn.worker.edge.metrics().pong(&payload);
            }
        }
        (_, Event::Close { code, reason }) => {
            inputs.push(Input::Close(code, reason.into_owned()));
        }
        (Speech::Echo, Event::Text(text)) => {
            inputs.push(Input::Echo(encode_message(Opcode::Text, text.as_bytes())));
        }
        (Speech::Echo, Event::Binary(data)) => {
            inputs.push(Input::Echo(encode_message(Opcode::Binary, &data)));
        }
        // A device that is being closed says nothing more that counts.
        (Speech::Json, _) if !conn.is_open() => {}
        (Speech::Json, Event::Text(text)) => {
            conn.worker.edge.metrics().message_sized(Direction::In, text.len());
            let limits = conn.worker.edge.payload_limits();
            let messages = adapter::decode(conn.speech, &text, &limits);
            inputs.extend(messages.into_iter().map(Input::Message));
        }
        (Speech::Json, Event::Binary(_)) | (_, Event::Extended { .. }) => {
            inputs.push(Input::WrongKind);
        }
    }
}

/// Handles `inputs`, then what is in `rest`, in order.
async fn handle(conn: &Rc<Conn>, mut inputs: Inputs, mut rest: Box<[u8]>) {
    let mut at = 0;
    loop {
        for input in std::mem::take(&mut inputs) {
            if handle_one(conn, input).await.is_break() {
                return;
            }
        }
        if at == rest.len() {
            return;
        }
        tokio::task::yield_now().await;
        let used;
        (inputs, used) = decode(conn, &mut rest[at..]);
        at += used;
    }
}

async fn handle_one(conn: &Rc<Conn>, input: Input) -> ControlFlow<()> {
    match input {
        Input::Close(code, reason) => {
            conn.peer_closes(code, reason);
            return ControlFlow::Break(());
        }
        _ if !conn.is_open() => {}
        Input::Message(Ok(message)) => {
            let kind = adapter::kind_from(&message);
            conn.worker.edge.metrics().messages.inc((Direction::In, kind));
            session::handle(conn, message).await;
        }
        Input::Message(Err(reject)) => refuse(conn, reject),
        Input::Ping(pong) => {
            conn.send(&pong, Class::Control);
        }
        Input::Echo(frame) => {
            conn.send(&frame, Class::Control);
            conn.drained().await;
        }
        Input::WrongKind => {
            let text = "a binary frame came; roost.v1.json has text frames only";
            conn.close(HubError::new(ErrorCode::UnsupportedData, text));
        }
        Input::Broken(error) => conn.close_unreadable(broken(error)),
    }
    ControlFlow::Continue(())
}

fn refuse(conn: &Rc<Conn>, reject: Reject) {
    let metrics = conn.worker.edge.metrics();
    metrics.messages.inc((Direction::In, MessageKind::Other));
    if reject.fatal {
        return conn.close(HubError::new(reject.code, reject.message));
    }
    if conn.stage() == Stage::Greeting && reject.code == ErrorCode::UnknownType {
        let text = format!("the first message was to be a hello: {}", reject.message);
        return conn.close(HubError::new(ErrorCode::HelloExpected, text));
    }
    let error = HubError::new(reject.code, reject.message.clone());
    let about = reject.field.clone().unwrap_or_default();
    session::history::note_refusal(conn, "message", &about, &error);
    conn.say(&reject.into_error());
}

/// The error behind a broken frame: its code has the close code that RFC 6455 asks for.
fn broken(error: WsError) -> HubError {
    let code = match error.close_code() {
        1007 => ErrorCode::InvalidUtf8,
        1009 => ErrorCode::MessageTooBig,
        _ => ErrorCode::ProtocolError,
    };
    HubError::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a function's future keeps, without running it.
    fn size_of_future<F>(_: fn(Exit) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_small() {
        let (task, conn) = (size_of_future(run), size_of::<Conn>());
        assert!(task <= 128, "an idle connection's task has {task} bytes");
        assert!(conn <= 512, "a connection has {conn} bytes");
    }
}
