//! Values to envelopes and back: codec, compression, caps.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{
    Codec, CodecError, Envelope, EnvelopeError, EnvelopeHead, FormatId, VALUE_BYTES_MAX,
};
use zstd::bulk::{Compressor, Decompressor};

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
    load_cost: Duration,
    tags: &[Bytes],
) -> Result<Sealed, SealError> {
    let mut plain = Vec::new();
    let format = codec.encode(value, &mut plain)?;
    let plain_len = u32::try_from(plain.len()).map_err(|_| CodecError::TooLarge(plain.len()))?;
    let packed = if plain.len() > compress_above { compress(&plain) } else { None };
    let head = EnvelopeHead {
        compressed: packed.is_some(),
        load_cost,
        tags: tags.to_vec(),
        ..EnvelopeHead::new(format, plain_len)
    };
    let payload = packed.as_deref().unwrap_or(&plain);
    let mut bytes = Vec::with_capacity(32 + payload.len());
    head.write(&mut bytes)?;
    bytes.extend_from_slice(payload);
    Ok(Sealed { envelope: Bytes::from(bytes), plain_len })
}

/// An envelope, and what its value weighs.
pub(crate) struct Sealed {
    pub(crate) envelope: Bytes,
    pub(crate) plain_len: u32,
}

/// Why a value cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

/// A value out of an envelope.
pub(crate) struct Opened<V> {
    pub(crate) value: V,
    /// What it weighs.
    pub(crate) weight: u32,
    pub(crate) tags: Vec<Bytes>,
}

/// Takes a value out of its envelope. Every error is a miss.
pub(crate) fn open<V: 'static>(
    codec: &dyn Codec<V>,
    envelope: &Bytes,
) -> Result<Opened<V>, OpenError> {
    let Envelope { head, payload } = Envelope::read(envelope)?;
    if head.negative {
        return Err(OpenError::Negative);
    }
    let value = if head.compressed {
        decompress(codec, head.format, &payload, head.plain_len as usize)?
    } else {
        codec.decode(head.format, &payload)?
    };
    Ok(Opened { value, weight: head.plain_len, tags: head.tags })
}

/// Why an envelope gives no value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("cannot decompress: {0}")]
    Zstd(std::io::Error),
    #[error("a negative entry, which this version does not know")]
    Negative,
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
        seal(&Raw, &Bytes::copy_from_slice(value), above, Duration::ZERO, &[]).unwrap().envelope
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
            prop_assert_eq!(&opened.value[..], &value[..]);
            prop_assert_eq!(opened.weight as usize, value.len());
        }

        #[test]
        fn a_damaged_envelope_opens_or_not_but_never_panics(value: Vec<(String, u64)>, at: prop::sample::Index, flip in 1u8..) {
            let codec = Serde::default();
            let mut bytes = seal(&codec, &value, 64, Duration::ZERO, &[]).unwrap().envelope.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let _ = open::<Vec<(String, u64)>>(&codec, &Bytes::from(bytes));
        }
    }
}
