//! A tiny Redis client of our own, so that no test is judged by the client library it tests.
//!
//! RESP2 only, one request at a time, every wait under a deadline.

use std::net::SocketAddr;
use std::time::Duration;
use std::{fmt, io, str};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// One reply of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A simple string such as `OK`.
    Status(String),
    /// An error, with its code: `WRONGTYPE Operation against ...`.
    Error(String),
    /// An integer.
    Integer(i64),
    /// A string of bytes.
    Bulk(Bytes),
    /// No value.
    Nil,
    /// Several replies.
    Array(Vec<Reply>),
}

impl Reply {
    /// Returns the text of a status or a UTF-8 bulk string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Status(text) => Some(text),
            Self::Bulk(bytes) => str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Returns the number of an integer reply.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns the parts of an array reply.
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(parts) => Some(parts),
            _ => None,
        }
    }
}

/// Why a command has no usable reply.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum RespError {
    /// The server answered with an error; the text holds its code.
    #[error("server refused: {0}")]
    Refused(String),
    /// The server did not answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection failed, or was closed by the server.
    #[error("connection failed")]
    Io(#[from] io::Error),
    /// The bytes are not RESP2.
    #[error("server does not speak RESP2: {0}")]
    Malformed(String),
}

/// A connection that sends one command and waits for its reply.
pub struct RespConnection {
    stream: TcpStream,
    unread: BytesMut,
    deadline: Duration,
}

impl RespConnection {
    /// Connects to `server`; each later wait, like this one, lasts `deadline` at most.
    pub async fn connect(server: SocketAddr, deadline: Duration) -> Result<Self, RespError> {
        let stream = within(deadline, async { Ok(TcpStream::connect(server).await?) }).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, unread: BytesMut::new(), deadline })
    }

    /// Changes how long each later wait lasts at most.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Authenticates as `user`.
    pub async fn auth(&mut self, user: &str, password: &str) -> Result<(), RespError> {
        self.command(&["AUTH", user, password]).await.map(drop)
    }

    /// Sends one command and waits for its reply.
    ///
    /// # Errors
    /// An error reply is [`RespError::Refused`]; errors inside an array stay [`Reply::Error`].
    ///
    /// # Cancel safety
    /// *Not* cancel safe: after a dropped call the connection may hold the reply of that call.
    pub async fn command<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Result<Reply, RespError> {
        self.send(words).await?;
        match self.receive().await? {
            Reply::Error(text) => Err(RespError::Refused(text)),
            reply => Ok(reply),
        }
    }

    /// Sends one command without waiting, as a pipeline or a subscriber does.
    pub async fn send<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Result<(), RespError> {
        let request = encode(words);
        within(self.deadline, async { Ok(self.stream.write_all(&request).await?) }).await
    }

    /// Waits for the next reply or published message; an error reply is a [`Reply::Error`] here.
    pub async fn receive(&mut self) -> Result<Reply, RespError> {
        within(self.deadline, async {
            loop {
                if let Some(reply) = decode(&mut self.unread)? {
                    return Ok(reply);
                }
                if self.stream.read_buf(&mut self.unread).await? == 0 {
                    return Err(RespError::Io(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        })
        .await
    }
}

impl fmt::Debug for RespConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The unread bytes stay out of it: they can hold a secret.
        let peer = self.stream.peer_addr().ok();
        f.debug_struct("RespConnection").field("peer", &peer).finish_non_exhaustive()
    }
}

async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, RespError>>,
) -> Result<T, RespError> {
    timeout(deadline, work).await.unwrap_or(Err(RespError::Timeout(deadline)))
}

/// Encodes one command the way every client sends it: an array of bulk strings.
pub fn encode<A: AsRef<[u8]>>(words: &[A]) -> Bytes {
    let mut request = BytesMut::new();
    request.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        let word = word.as_ref();
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
    request.freeze()
}

/// Takes one whole reply off the front of `unread`; `None` while it is still incomplete.
pub fn decode(unread: &mut BytesMut) -> Result<Option<Reply>, RespError> {
    let mut rest: &[u8] = unread;
    let Some(reply) = parse(&mut rest, DEPTH_MAX)? else { return Ok(None) };
    let used = unread.len() - rest.len();
    unread.advance(used);
    Ok(Some(reply))
}

/// Deeper nesting than any real reply; a lying server must not overflow the stack.
const DEPTH_MAX: u32 = 16;

fn parse(rest: &mut &[u8], depth: u32) -> Result<Option<Reply>, RespError> {
    let Some(line) = take_line(rest)? else { return Ok(None) };
    let (Some(kind), Some(text)) = (line.chars().next(), line.get(1..)) else {
        return Err(RespError::Malformed(line));
    };
    let number = || text.parse::<i64>().map_err(|_| RespError::Malformed(line.clone()));
    Ok(match kind {
        '+' => Some(Reply::Status(text.to_owned())),
        '-' => Some(Reply::Error(text.to_owned())),
        ':' => Some(Reply::Integer(number()?)),
        '$' | '*' if number()? < 0 => Some(Reply::Nil),
        '$' => take_bulk(rest, number()? as usize)?.map(Reply::Bulk),
        '*' if depth > 0 => {
            let mut parts = Vec::new();
            for _ in 0..number()? {
                let Some(part) = parse(rest, depth - 1)? else { return Ok(None) };
                parts.push(part);
            }
            Some(Reply::Array(parts))
        }
        _ => return Err(RespError::Malformed(line)),
    })
}

fn take_line(rest: &mut &[u8]) -> Result<Option<String>, RespError> {
    let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let line = str::from_utf8(&rest[..end])
        .map_err(|_| RespError::Malformed(rest[..end].escape_ascii().to_string()))?;
    *rest = &rest[end + 2..];
    Ok(Some(line.to_owned()))
}

fn take_bulk(rest: &mut &[u8], length: usize) -> Result<Option<Bytes>, RespError> {
    let Some(whole) = length.checked_add(2) else {
        return Err(RespError::Malformed(format!("${length}")));
    };
    if rest.len() < whole {
        return Ok(None);
    }
    let bulk = Bytes::copy_from_slice(&rest[..length]);
    *rest = &rest[whole..];
    Ok(Some(bulk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_is_the_same_however_its_bytes_are_cut() {
        let bytes = b"*5\r\n$2\r\nhi\r\n:-7\r\n$-1\r\n+OK\r\n*1\r\n-ERR no\r\n";
        let expected = Reply::Array(vec![
            Reply::Bulk(Bytes::from_static(b"hi")),
            Reply::Integer(-7),
            Reply::Nil,
            Reply::Status("OK".into()),
            Reply::Array(vec![Reply::Error("ERR no".into())]),
        ]);
        for cut in 0..bytes.len() {
            let mut unread = BytesMut::from(&bytes[..cut]);
            assert!(decode(&mut unread).unwrap().is_none(), "complete after {cut} bytes");
            unread.extend_from_slice(&bytes[cut..]);
            unread.extend_from_slice(b"+next\r\n");
            assert_eq!(decode(&mut unread).unwrap(), Some(expected.clone()));
            assert_eq!(&unread[..], b"+next\r\n");
        }
    }

    #[test]
    fn bytes_that_are_no_reply_are_an_error_and_not_a_panic() {
        let nested = "*1\r\n".repeat(100_000);
        for bytes in
            ["?\r\n", "\r\n", "$x\r\n", ":\r\n", &nested, "é\r\n", "$9223372036854775807\r\n"]
        {
            let mut unread = BytesMut::from(bytes.as_bytes());
            let decoded = decode(&mut unread);
            assert!(!matches!(decoded, Ok(Some(_))), "{bytes:.20} gave {decoded:?}");
        }
    }

    #[test]
    fn command_is_an_array_of_bulk_strings() {
        assert_eq!(&encode(&["GET", "é"])[..], "*2\r\n$3\r\nGET\r\n$2\r\né\r\n".as_bytes());
    }
}
