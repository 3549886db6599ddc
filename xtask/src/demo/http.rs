//! A small HTTP/1.1 client over a plain socket: one request per connection, and event streams.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};

/// Longer than any deadline of the node's own: what hangs is to be seen as hanging.
const READ_LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// From before the connection was opened until the last byte.
    pub(crate) took: Duration,
    headers: Vec<(String, String)>,
}

impl Reply {
    /// A header's value, or `-`: for being shown.
    pub(crate) fn header(&self, name: &str) -> &str {
        header(&self.headers, name).unwrap_or("-")
    }
}

/// Sends one request and reads the whole answer.
pub(crate) fn send(
    to: SocketAddr,
    request: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Outcome<Reply> {
    let began = Instant::now();
    let exchange = || -> io::Result<Reply> {
        let (status, headers, mut content) = open(to, request, headers, body)?;
        let mut body = String::new();
        content.read_to_string(&mut body)?;
        Ok(Reply { status, body, took: began.elapsed(), headers })
    };
    exchange().map_err(Failure::cannot(format!("get an answer to {request} from {to}")))
}

/// One server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: String,
}

/// An open stream of server-sent events.
pub(crate) struct Events(Box<dyn BufRead>);

impl Events {
    /// Opens the stream; once this returns, the node has subscribed.
    pub(crate) fn open(to: SocketAddr, path: &str) -> Outcome<Self> {
        let request = format!("GET {path}");
        let accept = [("Accept", "text/event-stream")];
        let (status, _, content) = open(to, &request, &accept, "")
            .map_err(Failure::cannot(format!("open {request} on {to}")))?;
        if status != 200 {
            return Err(Failure::new(format!("{request} on {to} was answered with {status}")));
        }
        Ok(Self(Box::new(BufReader::new(content))))
    }

    /// Waits for the next event; comments, which only keep the connection alive, are passed over.
    pub(crate) fn next(&mut self) -> Outcome<Event> {
        next_event(&mut self.0).map_err(Failure::cannot("read the next event"))
    }
}

type Opened<R> = (u16, Vec<(String, String)>, Content<R>);

fn open(
    to: SocketAddr,
    request: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Opened<BufReader<TcpStream>>> {
    let mut stream = TcpStream::connect_timeout(&to, CONNECT_LIMIT)?;
    stream.set_read_timeout(Some(READ_LIMIT))?;
    stream.set_nodelay(true)?;
    let mut message = format!("{request} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
    for (name, value) in headers {
        message.extend([name, ": ", value, "\r\n"]);
    }
    message.extend(["Content-Length: ", &body.len().to_string(), "\r\n\r\n", body]);
    stream.write_all(message.as_bytes())?;
    read_head(BufReader::new(stream))
}

fn read_head<R: BufRead>(mut from: R) -> io::Result<Opened<R>> {
    let status_line = read_line(&mut from)?;
    let status = status_line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    let status = status.and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| malformed("a status line", &status_line))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(&mut from)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed("a header", &line))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let chunked = header(&headers, "transfer-encoding").is_some_and(|value| value == "chunked");
    let length = header(&headers, "content-length").and_then(|value| value.parse().ok());
    let left = match (chunked, length) {
        (true, _) => Left::Chunk(0),
        (false, Some(length)) => Left::Length(length),
        (false, None) if status == 204 || status == 304 => Left::Length(0),
        (false, None) => Left::UntilClosed,
    };
    Ok((status, headers, Content { from, left }))
}

/// The bytes of an answer's body, whichever way its end is marked.
#[derive(Debug)]
struct Content<R> {
    from: R,
    left: Left,
}

#[derive(Clone, Copy, Debug)]
enum Left {
    Length(u64),
    /// Bytes left in this chunk; at 0 the next chunk's size follows.
    Chunk(u64),
    UntilClosed,
}

impl<R: BufRead> Read for Content<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if let Left::Chunk(0) = self.left {
            let size = read_line(&mut self.from)?;
            let digits = size.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).map_err(|_| malformed("a size", &size))?;
            self.left = if size == 0 { Left::Length(0) } else { Left::Chunk(size) };
        }
        let most = match self.left {
            Left::Length(left) | Left::Chunk(left) => left,
            Left::UntilClosed => u64::MAX,
        };
        let read = self.from.by_ref().take(most).read(into)?;
        self.left = match self.left {
            Left::Length(left) | Left::Chunk(left) if read == 0 && left > 0 && !into.is_empty() => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Left::Length(left) => Left::Length(left - read as u64),
            Left::Chunk(left) => {
                let left = left - read as u64;
                if left == 0 {
                    read_line(&mut self.from)?;
                }
                Left::Chunk(left)
            }
            Left::UntilClosed => Left::UntilClosed,
        };
        Ok(read)
    }
}

fn next_event(from: &mut impl BufRead) -> io::Result<Event> {
    let mut event = Event::default();
    loop {
        let line = read_line(from)?;
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() && event != Event::default() => return Ok(event),
            "event" => value.clone_into(&mut event.name),
            "data" if event.data.is_empty() => value.clone_into(&mut event.data),
            "data" => event.data = format!("{}\n{value}", event.data),
            _ => {}
        }
    }
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

fn malformed(expected: &str, found: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("expected {expected}, found `{found}`"))
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use super::{Event, next_event, read_head};

    fn body(answer: &str) -> Result<(u16, String), String> {
        let (status, _, mut content) =
            read_head(answer.as_bytes()).map_err(|error| error.to_string())?;
        let mut body = String::new();
        content.read_to_string(&mut body).map_err(|error| error.to_string())?;
        Ok((status, body))
    }

    #[test]
    fn a_body_ends_where_its_head_says() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", (200, "hi")),
            ("HTTP/1.1 404 Not Found\r\nX: y\r\n\r\ngone", (404, "gone")),
            ("HTTP/1.1 204 No Content\r\n\r\n", (204, "")),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x\r\n0123456789\r\n0\r\n\r\n",
                (200, "abc0123456789"),
            ),
        ] {
            assert_eq!(body(answer), Ok((expected.0, expected.1.to_owned())), "{answer}");
        }
    }

    #[test]
    fn an_answer_cut_short_is_an_error() {
        for answer in [
            "",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            "SSH-2.0-OpenSSH\r\n\r\n",
        ] {
            assert!(body(answer).is_err(), "{answer}");
        }
    }

    #[test]
    fn an_event_is_its_name_and_all_its_data_lines() {
        let stream = ": still here\n\nevent: gap\ndata: one\ndata: two\nid: 7\n\ndata: x\n\n";
        let mut stream = BufReader::new(stream.as_bytes());
        let event = |name: &str, data: &str| Event { name: name.to_owned(), data: data.to_owned() };
        assert_eq!(next_event(&mut stream).ok(), Some(event("gap", "one\ntwo")));
        assert_eq!(next_event(&mut stream).ok(), Some(event("", "x")));
        assert!(next_event(&mut stream).is_err());
    }
}
