//! What an entry holds in the cache below: its id, and a value or a reference.
//!
//! On the wire: kind 1 (1 value, 2 reference), length of the id 1 (0 = none yet), the id; then the
//! value as its codec wrote it, or the length of the target's id 1, that id, and the target's place.

use std::sync::Arc;

use fleetwide_core_traits::{Codec, CodecError, FormatId};

use crate::id::ShortId;
use crate::place::Place;

/// An entry as the cache below holds it. Opaque: a [`SessionCache`](crate::SessionCache) reads it.
#[derive(Debug)]
pub struct Record<V> {
    /// `None` if the server gave none when the entry was stored.
    pub(crate) id: Option<ShortId>,
    pub(crate) body: Body<V>,
}

#[derive(Debug)]
pub(crate) enum Body<V> {
    Value(Arc<V>),
    Reference(Target),
}

/// What a reference shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The entry's short id.
    pub id: ShortId,
    /// Where it is.
    pub place: Place,
}

const VALUE: u8 = 1;
const REFERENCE: u8 = 2;

/// Writes values with another codec, and what stands around them itself.
pub(crate) struct RecordCodec<C>(pub(crate) C);

impl<V, C: Codec<V>> Codec<Record<V>> for RecordCodec<C>
where
    V: Send + Sync + 'static,
{
    fn encode(&self, record: &Record<V>, to: &mut Vec<u8>) -> Result<FormatId, CodecError> {
        to.push(match record.body {
            Body::Value(_) => VALUE,
            Body::Reference(_) => REFERENCE,
        });
        write_id(record.id.as_ref(), to);
        match &record.body {
            Body::Value(value) => self.0.encode(value, to),
            Body::Reference(Target { id, place }) => {
                write_id(Some(id), to);
                to.extend(place.to_wire());
                Ok(FormatId::RAW)
            }
        }
    }

    fn decode(&self, format: FormatId, bytes: &[u8]) -> Result<Record<V>, CodecError> {
        let (&kind, rest) = bytes.split_first().ok_or_else(|| wrong("empty"))?;
        let (id, rest) = read_id(rest)?;
        let body = match kind {
            VALUE => Body::Value(Arc::new(self.0.decode(format, rest)?)),
            REFERENCE => {
                let (id, place) = read_id(rest)?;
                let id = id.ok_or_else(|| wrong("a reference to nothing"))?;
                let place = Place::read(place).ok_or_else(|| wrong("no place"))?;
                Body::Reference(Target { id, place })
            }
            _ => return Err(wrong("an entry of a kind that is not known here")),
        };
        Ok(Record { id, body })
    }

    fn schema(&self) -> u32 {
        self.0.schema()
    }
}

fn write_id(id: Option<&ShortId>, to: &mut Vec<u8>) {
    let text = id.map_or("", ShortId::as_str);
    to.push(text.len() as u8);
    to.extend_from_slice(text.as_bytes());
}

fn read_id(bytes: &[u8]) -> Result<(Option<ShortId>, &[u8]), CodecError> {
    let (&len, rest) = bytes.split_first().ok_or_else(|| wrong("it ends early"))?;
    let (id, rest) = rest.split_at_checked(len.into()).ok_or_else(|| wrong("it ends early"))?;
    if id.is_empty() {
        return Ok((None, rest));
    }
    let text = std::str::from_utf8(id).map_err(|error| CodecError::decode(&error))?;
    Ok((Some(text.parse().map_err(|error| CodecError::decode(&error))?), rest))
}

fn wrong(what: &str) -> CodecError {
    CodecError::decode(&format_args!("an entry of a session: {what}"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fleetwide_core_traits::Raw;
    use proptest::prelude::*;

    use super::*;
    use crate::place::SessionId;

    const CODEC: RecordCodec<Raw> = RecordCodec(Raw);

    fn encoded(record: &Record<Bytes>) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert_eq!(CODEC.encode(record, &mut bytes), Ok(FormatId::RAW));
        bytes
    }

    fn target() -> Target {
        let place = Place::new(&SessionId::new("s").unwrap(), "k").unwrap();
        Target { id: "7k3mq0z0".parse().unwrap(), place }
    }

    #[test]
    fn the_wire_form_stays_as_it_is() {
        let value = Body::Value(Arc::new(Bytes::from_static(b"value")));
        assert_eq!(encoded(&Record { id: None, body: value }), b"\x01\0value");
        let id = Some(target().id);
        let reference = Record { id, body: Body::Reference(target()) };
        assert_eq!(encoded(&reference), b"\x02\x087k3mq0z0\x087k3mq0z01.s/k");
    }

    #[test]
    fn what_was_written_is_read() {
        let id = Some(target().id);
        let bytes = encoded(&Record { id, body: Body::Reference(target()) });
        let read: Record<Bytes> = CODEC.decode(FormatId::RAW, &bytes).unwrap();
        assert!(matches!(read.body, Body::Reference(read) if read == target()));
        let value = Body::Value(Arc::new(Bytes::from_static(b"value")));
        let read = CODEC.decode(FormatId::RAW, &encoded(&Record { id, body: value })).unwrap();
        assert!(matches!(read.body, Body::Value(value) if *value == b"value"[..]));
        assert_eq!(read.id, id);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_an_error(bytes: Vec<u8>, kind in 0u8..4, len in 0u8..9) {
            let mut likely = vec![kind, len];
            likely.extend(&bytes);
            for bytes in [bytes, likely] {
                let _: Result<Record<Bytes>, _> = CODEC.decode(FormatId::RAW, &bytes);
            }
        }
    }
}
