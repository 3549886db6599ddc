//! Which answer belongs to which request, so that a lie takes exactly one answer's place.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::Lie;
use super::frame::{NotResp, Scanner};

/// A longer request is passed on piece by piece, and nothing after it is lied to.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// What one connection's two sides are saying to each other.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// The request that is still incomplete.
    request: BytesMut,
    /// What the client waits for, the oldest first.
    expected: VecDeque<Answer>,
    answers: Scanner,
    /// Set for good once answers cannot be told apart any more: the client has subscribed, or
    /// somebody does not speak RESP.
    is_opaque: bool,
}

#[derive(Debug)]
enum Answer {
    OfServer,
    Lie(Bytes),
}

/// Where the bytes of requests and the answers to them go.
#[derive(Debug, Default)]
pub(super) struct Routed {
    pub(super) to_server: Bytes,
    pub(super) to_client: Bytes,
    pub(super) lies: u64,
}

impl Talk {
    /// Takes in what the client sent, and says what is passed on and which lies are due at once.
    pub(super) fn requests(&mut self, bytes: &[u8], lie: Option<&Lie>) -> Routed {
        self.request.extend_from_slice(bytes);
        let (mut to_server, mut lies) = (BytesMut::new(), 0);
        while !self.is_opaque && !self.request.is_empty() {
            match Scanner::default().next_end(&self.request) {
                Ok(Some(end)) => {
                    let request = self.request.split_to(end.length);
                    if let Some(answer) = lied_answer(&request, lie) {
                        self.expected.push_back(Answer::Lie(answer));
                        lies += 1;
                    } else {
                        self.is_opaque = subscribes(&request);
                        self.expected.push_back(Answer::OfServer);
                        to_server.extend_from_slice(&request);
                    }
                }
                Ok(None) if self.request.len() <= REQUEST_BYTES_MAX => break,
                Ok(None) | Err(NotResp) => self.is_opaque = true,
            }
        }
        if self.is_opaque {
            to_server.extend_from_slice(&self.request.split());
        }
        let mut to_client = BytesMut::new();
        self.put_due_lies(&mut to_client);
        Routed { to_server: to_server.freeze(), to_client: to_client.freeze(), lies }
    }

    /// Takes in what the server sent, and returns it with the lies that are due in between.
    pub(super) fn replies(&mut self, mut bytes: Bytes) -> Bytes {
        let mut to_client = BytesMut::with_capacity(bytes.len());
        while !self.is_opaque && !bytes.is_empty() {
            match self.answers.next_end(&bytes) {
                Ok(Some(end)) => {
                    to_client.extend_from_slice(&bytes.split_to(end.length));
                    if !end.is_push {
                        self.expected.pop_front();
                    }
                    self.put_due_lies(&mut to_client);
                }
                Ok(None) => to_client.extend_from_slice(&bytes.split_off(0)),
                Err(NotResp) => self.is_opaque = true,
            }
        }
        to_client.extend_from_slice(&bytes);
        to_client.freeze()
    }

    /// A lie is due when all answers before it were given.
    fn put_due_lies(&mut self, to_client: &mut BytesMut) {
        while self.answers.is_between_frames()
            && let Some(Answer::Lie(answer)) = self.expected.front()
        {
            to_client.extend_from_slice(answer);
            self.expected.pop_front();
        }
    }
}

fn lied_answer(request: &[u8], lie: Option<&Lie>) -> Option<Bytes> {
    let lie = lie?;
    let is_meant = match &lie.command {
        Some(command) => name(request).eq_ignore_ascii_case(command.as_bytes()),
        None => true,
    };
    is_meant.then(|| lie.answer.clone())
}

/// What follows on the connection are messages, in RESP2 without any sign of it.
fn subscribes(request: &[u8]) -> bool {
    name(request).to_ascii_lowercase().ends_with(b"subscribe")
}

/// Returns the command's name: the third line of `*1\r\n$4\r\nPING\r\n`.
fn name(request: &[u8]) -> &[u8] {
    let line = request.split(|byte| *byte == b'\n').nth(2).unwrap_or_default();
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::encode;

    fn lie(command: Option<&str>) -> Lie {
        Lie { command: command.map(str::to_owned), answer: Bytes::from_static(b"lie ") }
    }

    #[test]
    fn lie_waits_for_the_answers_before_it() {
        let mut talk = Talk::default();
        let lie = lie(Some("get"));
        let requests = [encode(&["PING"]), encode(&["GET", "k"]), encode(&["PING"])].concat();
        let routed = talk.requests(&requests, Some(&lie));
        assert_eq!(&routed.to_server[..], [encode(&["PING"]), encode(&["PING"])].concat());
        assert_eq!((&routed.to_client[..], routed.lies), (&b""[..], 1));
        let client = talk.replies(Bytes::from_static(b"+ONE\r\n+TWO\r\n"));
        assert_eq!(&client[..], b"+ONE\r\nlie +TWO\r\n");
    }

    #[test]
    fn request_in_pieces_is_lied_to_once_and_at_once() {
        let mut talk = Talk::default();
        let lie = lie(None);
        let request = encode(&["SET", "k", "v"]);
        let (first, second) = request.split_at(9);
        assert!(talk.requests(first, Some(&lie)).to_client.is_empty());
        assert_eq!(&talk.requests(second, Some(&lie)).to_client[..], b"lie ");
    }

    #[test]
    fn push_is_no_answer_and_is_not_torn_by_a_lie() {
        let mut talk = Talk::default();
        talk.requests(&encode(&["PING"]), None);
        assert_eq!(&talk.replies(Bytes::from_static(b">1\r\n+no"))[..], b">1\r\n+no");
        assert!(
            talk.requests(&encode(&["GET", "k"]), Some(&lie(Some("GET")))).to_client.is_empty()
        );
        let client = talk.replies(Bytes::from_static(b"te\r\n+PONG\r\n"));
        assert_eq!(&client[..], b"te\r\n+PONG\r\nlie ");
    }

    #[test]
    fn subscriber_and_stranger_are_passed_through() {
        for first in [encode(&["SSUBSCRIBE", "c"]), Bytes::from_static(b"GET / HTTP/1.1\r\n")] {
            let mut talk = Talk::default();
            assert_eq!(talk.requests(&first, None).to_server, first);
            let ping = encode(&["PING"]);
            assert_eq!(talk.requests(&ping, Some(&lie(None))).to_server, ping);
            assert_eq!(&talk.replies(Bytes::from_static(b"anything"))[..], b"anything");
        }
    }
}
