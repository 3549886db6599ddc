//! The wire form of an event: what the body of its entry says.

use bytes::{BufMut, Bytes, BytesMut};

use crate::topic::Topic;

/// The form that this version writes: version 1, length of the topic (2 bytes), topic, payload.
const VERSION: u8 = 1;
/// Bytes before the topic.
const HEAD_BYTES: usize = 3;

/// Bytes that an event takes besides its payload, at most.
pub(crate) const OVERHEAD_MAX: usize = HEAD_BYTES + 256;

/// What is published: a topic and a payload of any bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) topic: Topic,
    pub(crate) payload: Bytes,
}

/// Why a body is no event. Another program, or a newer version of this one, wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnvelopeError {
    Empty,
    Version(u8),
    Cut,
    Topic,
}

impl Envelope {
    pub(crate) fn to_body(&self) -> Bytes {
        let topic = self.topic.as_str().as_bytes();
        let mut body = BytesMut::with_capacity(HEAD_BYTES + topic.len() + self.payload.len());
        body.put_u8(VERSION);
        // A topic has at most 256 bytes.
        body.put_u16(topic.len() as u16);
        body.put_slice(topic);
        body.put_slice(&self.payload);
        body.freeze()
    }

    /// Reads a body without copying its payload. Never panics.
    pub(crate) fn read(body: &Bytes) -> Result<Self, EnvelopeError> {
        match body.first() {
            None => return Err(EnvelopeError::Empty),
            Some(&VERSION) => {}
            Some(&other) => return Err(EnvelopeError::Version(other)),
        }
        let len = body.get(1..HEAD_BYTES).ok_or(EnvelopeError::Cut)?;
        let end = HEAD_BYTES + usize::from(u16::from_be_bytes([len[0], len[1]]));
        let topic = body.get(HEAD_BYTES..end).ok_or(EnvelopeError::Cut)?;
        let topic = std::str::from_utf8(topic).map_err(|_| EnvelopeError::Topic)?;
        let topic = Topic::new(topic).map_err(|_| EnvelopeError::Topic)?;
        Ok(Self { topic, payload: body.slice(end..) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelope(topic: &str, payload: &[u8]) -> Envelope {
        Envelope { topic: Topic::new(topic).unwrap(), payload: Bytes::copy_from_slice(payload) }
    }

    #[test]
    fn the_wire_form_of_version_1_does_not_change() {
        let body = envelope("a:b", b"\x00pay").to_body();
        assert_eq!(&body[..], b"\x01\x00\x03a:b\x00pay");
        assert_eq!(Envelope::read(&body), Ok(envelope("a:b", b"\x00pay")));
    }

    #[test]
    fn what_is_no_event_says_why() {
        let read = |bytes: &'static [u8]| Envelope::read(&Bytes::from_static(bytes));
        assert_eq!(read(b""), Err(EnvelopeError::Empty));
        assert_eq!(read(b"\x02\x00\x01a"), Err(EnvelopeError::Version(2)));
        assert_eq!(read(b"\x01\x00"), Err(EnvelopeError::Cut));
        assert_eq!(read(b"\x01\x00\x02a"), Err(EnvelopeError::Cut));
        assert_eq!(read(b"\x01\x00\x01\xff"), Err(EnvelopeError::Topic));
        assert_eq!(read(b"\x01\x00\x00"), Err(EnvelopeError::Topic));
    }

    proptest! {
        #[test]
        fn an_event_reads_as_it_was_written(topic in "[^\\p{Cc}*]{1,64}", payload: Vec<u8>) {
            let event = envelope(&topic, &payload);
            prop_assert_eq!(Envelope::read(&event.to_body()), Ok(event));
        }

        #[test]
        fn any_body_reads_without_a_panic(body: Vec<u8>) {
            let _ = Envelope::read(&Bytes::from(body));
        }
    }
}
