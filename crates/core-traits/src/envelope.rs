//! The form of a cached value in L2, readable by every later version.
//!
//! ```text
//! 0   2  magic "FW"
//! 2   1  version, 1
//! 3   1  format of the payload (FormatId)
//! 4   1  flags: 1 = payload is zstd, 2 = negative entry (no payload), 4 = what follows the tags is sealed
//! 5   4  schema fingerprint of the type; 0 = none
//! 9   8  soft ttl in ms, counted from when it was stored; 0 = none
//! 17  4  what loading it cost, µs
//! 21  4  length of the payload before compression
//! 25  1  number of tags
//! 26     tags, each a u16 length and its bytes; then the payload to the end
//! ```
//! Numbers are big-endian. A reader refuses what it does not know, and a refused value is a miss.

use std::time::Duration;

use bytes::Bytes;

use crate::{FormatId, VALUE_BYTES_MAX};

const MAGIC: &[u8; 2] = b"FW";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 26;
const FLAG_ZSTD: u8 = 1;
const FLAG_NEGATIVE: u8 = 2;
const FLAG_SEALED: u8 = 4;
const FLAGS_AT: usize = 4;
const TAGS_MAX: usize = 255;
const SCHEMA_AT: usize = 5;

/// What stands in front of a cached value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeHead {
    /// How the payload is encoded.
    pub format: FormatId,
    /// Whether the payload is compressed with zstd.
    pub compressed: bool,
    /// Whether this entry says that the origin has no such value.
    pub negative: bool,
    /// Whether the payload is protected by a [`Seal`](crate::Seal), after it was compressed.
    pub sealed: bool,
    /// Tells versions of a type apart; 0 if nobody does.
    pub schema: u32,
    /// Time after which the value should be refreshed, counted from when it was stored.
    pub soft_ttl: Option<Duration>,
    /// What the load took, at most about 71 minutes.
    pub load_cost: Duration,
    /// Length of the payload before compression.
    pub plain_len: u32,
    /// Names that invalidate this entry together with others.
    pub tags: Vec<Bytes>,
}

/// A head and its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// What the payload is.
    pub head: EnvelopeHead,
    /// The encoded value, compressed if the head says so.
    pub payload: Bytes,
}

impl EnvelopeHead {
    /// A head without options.
    pub const fn new(format: FormatId, plain_len: u32) -> Self {
        Self {
            format,
            compressed: false,
            negative: false,
            sealed: false,
            schema: 0,
            soft_ttl: None,
            load_cost: Duration::ZERO,
            plain_len,
            tags: Vec::new(),
        }
    }

    /// Appends the head to `to`; the payload is to follow.
    ///
    /// # Errors
    /// [`EnvelopeError::Tags`] if there are more than 255 tags or one is longer than 65,535 bytes.
    pub fn write(&self, to: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        let longest = self.tags.iter().map(Bytes::len).max().unwrap_or(0);
        if self.tags.len() > TAGS_MAX || longest > usize::from(u16::MAX) {
            return Err(EnvelopeError::Tags);
        }
        let flags = u8::from(self.compressed) * FLAG_ZSTD
            + u8::from(self.negative) * FLAG_NEGATIVE
            + u8::from(self.sealed) * FLAG_SEALED;
        let soft_ttl_ms = self.soft_ttl.map_or(0, |ttl| ttl.as_millis().max(1));
        to.extend_from_slice(MAGIC);
        to.extend([VERSION, self.format.0, flags]);
        to.extend(self.schema.to_be_bytes());
        to.extend(u64::try_from(soft_ttl_ms).unwrap_or(u64::MAX).to_be_bytes());
        to.extend(u32::try_from(self.load_cost.as_micros()).unwrap_or(u32::MAX).to_be_bytes());
        to.extend(self.plain_len.to_be_bytes());
        to.push(self.tags.len() as u8);
        for tag in &self.tags {
            to.extend((tag.len() as u16).to_be_bytes());
            to.extend_from_slice(tag);
        }
        Ok(())
    }
}

impl Envelope {
    /// The schema of an envelope that is not taken apart; 0 if it is too short to have one.
    ///
    /// A reader picks the variant of its own schema by it, before anything else is looked at.
    pub fn schema_of(bytes: &[u8]) -> u32 {
        u32::from_be_bytes(take(bytes, SCHEMA_AT))
    }

    /// Takes an envelope apart; the payload shares the memory of `bytes`.
    ///
    /// # Errors
    /// [`EnvelopeError`] for anything that is not exactly an envelope of a known version. Never
    /// panics.
    pub fn read(bytes: &Bytes) -> Result<Self, EnvelopeError> {
        let head = bytes.get(..HEAD_BYTES).ok_or(EnvelopeError::Short)?;
        if &head[..2] != MAGIC {
            return Err(EnvelopeError::Magic);
        }
        if head[2] != VERSION {
            return Err(EnvelopeError::Version(head[2]));
        }
        let flags = head[FLAGS_AT];
        if flags & !(FLAG_ZSTD | FLAG_NEGATIVE | FLAG_SEALED) != 0 {
            return Err(EnvelopeError::Flags(flags));
        }
        let soft_ttl_ms = u64::from_be_bytes(take(head, 9));
        let plain_len = u32::from_be_bytes(take(head, 21));
        if plain_len as usize > VALUE_BYTES_MAX {
            return Err(EnvelopeError::TooLarge(plain_len));
        }
        let (tags, payload_at) = read_tags(bytes, head[25])?;
        let head = EnvelopeHead {
            format: FormatId(head[3]),
            compressed: flags & FLAG_ZSTD != 0,
            negative: flags & FLAG_NEGATIVE != 0,
            sealed: flags & FLAG_SEALED != 0,
            schema: u32::from_be_bytes(take(head, SCHEMA_AT)),
            soft_ttl: (soft_ttl_ms > 0).then(|| Duration::from_millis(soft_ttl_ms)),
            load_cost: Duration::from_micros(u32::from_be_bytes(take(head, 17)).into()),
            plain_len,
            tags,
        };
        let payload = bytes.slice(payload_at..);
        if !head.compressed && !head.sealed && payload.len() != plain_len as usize {
            return Err(EnvelopeError::Length);
        }
        Ok(Self { head, payload })
    }
}

/// For what stands between an envelope and the server.
impl Envelope {
    /// Where the payload begins.
    ///
    /// # Errors
    /// [`EnvelopeError`] if it ends before that.
    pub fn payload_at(bytes: &Bytes) -> Result<usize, EnvelopeError> {
        let count = *bytes.get(HEAD_BYTES - 1).ok_or(EnvelopeError::Short)?;
        Ok(read_tags(bytes, count)?.1)
    }

    /// A head, as bytes, that says whether its payload is sealed.
    pub fn protected_head(head: &[u8], sealed: bool) -> Vec<u8> {
        let mut head = head.to_vec();
        if let Some(flags) = head.get_mut(FLAGS_AT) {
            *flags &= !FLAG_SEALED;
            *flags |= u8::from(sealed) * FLAG_SEALED;
        }
        head
    }
}

fn read_tags(bytes: &Bytes, count: u8) -> Result<(Vec<Bytes>, usize), EnvelopeError> {
    let mut at = HEAD_BYTES;
    let mut tags = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let len = bytes.get(at..at + 2).ok_or(EnvelopeError::Short)?;
        let end = at + 2 + usize::from(u16::from_be_bytes([len[0], len[1]]));
        if end > bytes.len() {
            return Err(EnvelopeError::Short);
        }
        tags.push(bytes.slice(at + 2..end));
        at = end;
    }
    Ok((tags, at))
}

/// `N` bytes of the head at `at`. Callers pass a head of full length and offsets of the table on
/// top, so the zeros for anything else are never seen.
fn take<const N: usize>(head: &[u8], at: usize) -> [u8; N] {
    head.get(at..at + N).and_then(|part| part.try_into().ok()).unwrap_or([0; N])
}

/// Why bytes are no envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// It ends too early.
    #[error("the value ends too early")]
    Short,
    /// It does not start like one.
    #[error("the value was not written by Fleetwide")]
    Magic,
    /// A later version wrote it.
    #[error("the value has version {0}")]
    Version(u8),
    /// It has flags that a later version gave a meaning.
    #[error("the value has unknown flags {0:#04x}")]
    Flags(u8),
    /// It claims more than a value may have.
    #[error("the value claims {0} bytes")]
    TooLarge(u32),
    /// Its payload has another length than it says.
    #[error("the value has another length than it says")]
    Length,
    /// Too many tags, or one that is too long.
    #[error("a value may have 255 tags of 65535 bytes each")]
    Tags,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(head: &EnvelopeHead, payload: &[u8]) -> Bytes {
        let mut bytes = Vec::new();
        head.write(&mut bytes).unwrap();
        bytes.extend_from_slice(payload);
        Bytes::from(bytes)
    }

    /// Golden bytes: what version 1 wrote must be read for ever.
    #[test]
    fn version_1_reads_as_it_was_written() {
        let golden = b"FW\x01\x02\x01\0\0\0\x07\0\0\0\0\0\0\x03\xe8\0\0\x05\xdc\0\0\0\x09\x02\0\x01a\0\x02bcxyz";
        let head = EnvelopeHead {
            format: FormatId::JSON,
            compressed: true,
            negative: false,
            sealed: false,
            schema: 7,
            soft_ttl: Some(Duration::from_secs(1)),
            load_cost: Duration::from_micros(1_500),
            plain_len: 9,
            tags: vec![Bytes::from_static(b"a"), Bytes::from_static(b"bc")],
        };
        assert_eq!(&written(&head, b"xyz")[..], golden);
        let read = Envelope::read(&Bytes::from_static(golden)).unwrap();
        assert_eq!((read.head, &read.payload[..]), (head, &b"xyz"[..]));
    }

    #[test]
    fn what_a_later_version_wrote_is_refused() {
        let good = written(&EnvelopeHead::new(FormatId::RAW, 1), b"x");
        let with = |at: usize, byte: u8| {
            let mut bytes = good.to_vec();
            bytes[at] = byte;
            Envelope::read(&Bytes::from(bytes)).unwrap_err()
        };
        assert_eq!(with(0, b'G'), EnvelopeError::Magic);
        assert_eq!(with(2, 2), EnvelopeError::Version(2));
        assert_eq!(with(4, 8), EnvelopeError::Flags(8));
        assert_eq!(with(21, 0xff), EnvelopeError::TooLarge(0xff00_0001));
        assert_eq!(with(24, 9), EnvelopeError::Length);
        assert_eq!(with(25, 1), EnvelopeError::Short);
    }

    proptest! {
        #[test]
        fn any_bytes_read_without_a_panic(bytes: Vec<u8>) {
            let _ = Envelope::read(&Bytes::from(bytes));
        }

        #[test]
        fn any_bytes_behind_the_magic_read_without_a_panic(tail: Vec<u8>) {
            let mut bytes = b"FW\x01".to_vec();
            bytes.extend(tail);
            let _ = Envelope::read(&Bytes::from(bytes));
        }

        #[test]
        fn every_cut_is_an_error(cut in 1usize..40, payload in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut head = EnvelopeHead::new(FormatId::BINCODE, payload.len() as u32);
            head.tags = vec![Bytes::from_static(b"tag")];
            let bytes = written(&head, &payload);
            let keep = bytes.len().saturating_sub(cut);
            prop_assert!(Envelope::read(&bytes.slice(..keep)).is_err());
        }
    }
}
