//! Just enough of the Redis protocol to talk to a server that a test started: RESP2, one command at a
//! time. The hub's own client is not used, so that a fault of it cannot hide itself.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A string of either kind.
    Text(String),
    /// An error, without its `-`.
    Error(String),
    /// A number.
    Number(i64),
    /// No value.
    Nil,
    /// Several.
    Array(Vec<Reply>),
}

// === impl Reply ===

impl Reply {
    /// Text of a string or error (which starts with `-`), a number in digits, `(nil)`; `None` for an
    /// array.
    pub fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Error(error) => Some(format!("-{error}")),
            Self::Number(number) => Some(number.to_string()),
            Self::Nil => Some("(nil)".to_owned()),
            Self::Array(_) => None,
        }
    }

    /// The elements as texts; empty for what is no array.
    pub fn into_texts(self) -> Vec<String> {
        match self {
            Self::Array(elements) => elements.into_iter().filter_map(Self::into_text).collect(),
            _ => vec![],
        }
    }
}

/// Sends a command and reads its reply.
pub(crate) async fn exchange<S>(stream: &mut S, command: &[&str]) -> anyhow::Result<Reply>
where
    S: AsyncBufRead + tokio::io::AsyncWrite + Unpin,
{
    let mut request = format!("*{}\r\n", command.len());
    for word in command {
        write!(request, "${}\r\n{word}\r\n", word.len()).expect("a String takes everything");
    }
    stream.write_all(request.as_bytes()).await?;
    read(stream).await.with_context(|| format!("no answer to {:?}", command.first()))
}

async fn read<S: AsyncBufRead + Unpin>(stream: &mut S) -> anyhow::Result<Reply> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let line = line.trim_end();
    let Some(rest) = line.get(1..) else {
        bail!("redis-server closed the connection");
    };
    match line.as_bytes()[0] {
        b'+' => Ok(Reply::Text(rest.to_owned())),
        b'-' => Ok(Reply::Error(rest.to_owned())),
        b':' => Ok(Reply::Number(rest.parse()?)),
        b'$' => read_bulk(stream, rest.parse()?).await,
        b'*' => {
            let mut elements = vec![];
            for _ in 0..rest.parse::<i64>()? {
                elements.push(Box::pin(read(stream)).await?);
            }
            Ok(Reply::Array(elements))
        }
        _ => bail!("this is no RESP2: {line}"),
    }
}

async fn read_bulk<S: AsyncBufRead + Unpin>(stream: &mut S, length: i64) -> anyhow::Result<Reply> {
    // The length of "no value" is -1.
    let Ok(length) = usize::try_from(length) else {
        return Ok(Reply::Nil);
    };
    let mut bytes = vec![0; length + 2];
    stream.read_exact(&mut bytes).await?;
    bytes.truncate(length);
    Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
}
