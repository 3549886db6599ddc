//! Values to envelopes and back: codec, compression, caps.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{
    Codec, CodecError, Envelope, EnvelopeError, EnvelopeHead, FormatId, VALUE_BYTES_MAX,
};
use zstd::bulk::{Compressor, Decompressor};

use crate::error::WriteError;

/// Level 1: higher ones cost several times more for a few per cent on records of some kilobytes.
const LEVEL: i32 = 1;

thread_local! {
    // A fresh context costs more than compressing a small value does.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// An envelope around `value`, compressed if that pays.
pub(crate) fn seal<V: 'static>(
    codec: &dyn Codec<V>,
    value: &V,
    compress_above: usize,
    label: &Label<'_>,
) -> Result<Sealed, WriteError> {
    let mut plain = Vec::new();
    let format = codec.encode(value, &mut plain)?;
    let plain_len = u32::try_from(plain.len()).map_err(|_| CodecError::TooLarge(plain.len()))?;
    let packed = if plain.len() > compress_above { compress(&plain) } else { None };
    let (compressed, schema) = (packed.is_some(), codec.schema());
    let head = EnvelopeHead { compressed, schema, ..label.head(format, plain_len) };
    let payload = packed.as_deref().unwrap_or(&plain);
    let mut bytes = Vec::with_capacity(32 + payload.len());
    head.write(&mut bytes)?;
    bytes.extend_from_slice(payload);
    Ok(Sealed { envelope: Bytes::from(bytes), plain_len })
}

/// An envelope that says that the origin has no value.
pub(crate) fn seal_absent(schema: u32, label: &Label<'_>) -> Result<Sealed, WriteError> {
    let head = EnvelopeHead { negative: true, schema, ..label.head(FormatId::RAW, 0) };
    let mut bytes = Vec::with_capacity(32);
    head.write(&mut bytes)?;
    Ok(Sealed { envelope: Bytes::from(bytes), plain_len: 0 })
}

/// What an envelope says besides its value.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Label<'a> {
    pub(crate) load_cost: Duration,
    /// After this time the value is stale; `None` = when it expires.
    pub(crate) soft_ttl: Option<Duration>,
    pub(crate) tags: &'a [Bytes],
}

impl Label<'_> {
    fn head(&self, format: FormatId, plain_len: u32) -> EnvelopeHead {
        let Self { load_cost, soft_ttl, tags } = *self;
        let tags = tags.to_vec();
        EnvelopeHead { load_cost, soft_ttl, tags, ..EnvelopeHead::new(format, plain_len) }
    }
}

/// An envelope, and what its value weighs.
pub(crate) struct Sealed {
    pub(crate) envelope: Bytes,
    pub(crate) plain_len: u32,
}

/// A value out of an envelope.
pub(crate) struct Opened<V> {
    /// `None`: the origin has none.
    pub(crate) value: Option<V>,
    /// What it weighs.
    pub(crate) weight: u32,
    pub(crate) tags: Vec<Bytes>,
    /// Its age from which on it is stale; `None` = it is fresh until it expires.
    pub(crate) soft_ttl: Option<Duration>,
    /// What loading it has cost.
    pub(crate) cost: Duration,
}

/// Takes a value out of its envelope. Every error is a miss.
pub(crate) fn open<V: 'static>(
    codec: &dyn Codec<V>,
    envelope: &Bytes,
) -> Result<Opened<V>, OpenError> {
    let Envelope { head, payload } = Envelope::read(envelope)?;
    if head.sealed {
        return Err(OpenError::Sealed);
    }
    let value = if head.negative {
        None
    } else if head.compressed {
        Some(decompress(codec, head.format, &payload, head.plain_len as usize)?)
    } else {
        Some(codec.decode(head.format, &payload)?)
    };
    let EnvelopeHead { plain_len: weight, tags, soft_ttl, load_cost: cost, .. } = head;
    Ok(Opened { value, weight, tags, soft_ttl, cost })
}

/// Why an envelope gives no value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("it is sealed, and this cache has no key")]
    Sealed,
    #[error("cannot decompress: {0}")]
    Zstd(std::io::Error),
}

/// `None` if it does not get smaller, or cannot be compressed at all: then it is stored as it is.
fn compress(plain: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Compressor::new(LEVEL).ok();
        }
        let packed = slot.as_mut()?.compress(plain).ok()?;
        (packed.len() < plain.len()).then_some(packed)
    })
}

/// The output is capped by what the head promised, which itself is capped: a bomb is an error.
fn decompress<V: 'static>(
    codec: &dyn Codec<V>,
    format: FormatId,
    packed: &[u8],
    plain_len: usize,
) -> Result<V, OpenError> {
    debug_assert!(plain_len <= VALUE_BYTES_MAX, "the envelope has checked it");
    let plain = DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(Decompressor::new().map_err(OpenError::Zstd)?);
        }
        let Some(context) = slot.as_mut() else {
            return Err(OpenError::Envelope(EnvelopeError::Short));
        };
        context.decompress(packed, plain_len).map_err(OpenError::Zstd)
    })?;
    if plain.len() != plain_len {
        return Err(EnvelopeError::Length.into());
    }
    Ok(codec.decode(format, &plain)?)
}

#[cfg(test)]
mod tests {
    use fleetwide_core_traits::{Raw, Serde};
    use proptest::prelude::*;

    use super::*;

    fn sealed(value: &[u8], above: usize) -> Bytes {
        seal(&Raw, &Bytes::copy_from_slice(value), above, &Label::default()).unwrap().envelope
    }

    #[test]
    fn what_does_not_get_smaller_is_stored_as_it_is() {
        let small = sealed(&[7; 4_000], 1_024);
        assert!(small.len() < 200, "{}", small.len());
        assert!(Envelope::read(&sealed(&[7; 1_000], 1_024)).unwrap().head.plain_len == 1_000);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .take(4_000)
        .collect();
        assert!(!Envelope::read(&sealed(&noise, 1_024)).unwrap().head.compressed);
    }

    /// Raw bytes that are encrypted are bytes too. Red without the look at the flag.
    #[test]
    fn what_is_sealed_is_not_taken_for_a_plain_value() {
        let mut bytes = Vec::new();
        let head = EnvelopeHead { sealed: true, ..EnvelopeHead::new(FormatId::RAW, 3) };
        head.write(&mut bytes).unwrap();
        bytes.extend(b"ciphertext");
        assert!(matches!(open(&Raw, &Bytes::from(bytes)), Err(OpenError::Sealed)));
    }

    /// 100 MB of zeros are 3 KB of zstd: what the head says caps the output.
    #[test]
    fn a_bomb_is_an_error_and_allocates_no_more_than_it_says() {
        let packed = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        let mut bytes = Vec::new();
        let head = EnvelopeHead { compressed: true, ..EnvelopeHead::new(FormatId::RAW, 1_000) };
        head.write(&mut bytes).unwrap();
        bytes.extend(packed);
        assert!(matches!(open(&Raw, &Bytes::from(bytes)), Err(OpenError::Zstd(_))));
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(value in prop::collection::vec(any::<u8>(), 0..5_000), above in 0usize..3_000) {
            let opened = open(&Raw, &sealed(&value, above)).unwrap();
            prop_assert_eq!(&opened.value.unwrap()[..], &value[..]);
            prop_assert_eq!(opened.weight as usize, value.len());
        }

        #[test]
        fn a_damaged_envelope_opens_or_not_but_never_panics(value: Vec<(String, u64)>, at: prop::sample::Index, flip in 1u8..) {
            let codec = Serde::default();
            let mut bytes = seal(&codec, &value, 64, &Label::default()).unwrap().envelope.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let _ = open::<Vec<(String, u64)>>(&codec, &Bytes::from(bytes));
        }
    }
}
