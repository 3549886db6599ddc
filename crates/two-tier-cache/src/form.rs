//! How the values of a cache look outside of it: codec, version of the type, protection.

use std::sync::Arc;

use bytes::Bytes;
use fleetwide_core_traits::{Codec, CodecError, Envelope, FormatId, Key, Seal, SealError, Tag};

use crate::payload::Sealed;

/// A codec with its schema worked out once, or said by who built the cache, and what protects its
/// values.
pub(crate) struct Form<V> {
    codec: Box<dyn Codec<V>>,
    schema: u32,
    seal: Option<Arc<dyn Seal>>,
    tag: Key,
}

impl<V: 'static> Form<V> {
    pub(crate) fn new(
        codec: Box<dyn Codec<V>>,
        schema: Option<u32>,
        seal: Option<Arc<dyn Seal>>,
        tag: &Tag,
    ) -> Self {
        let schema = schema.unwrap_or_else(|| codec.schema());
        Self { codec, schema, seal, tag: tag.key() }
    }

    pub(crate) const fn schema(&self) -> u32 {
        self.schema
    }

    /// Protects the payload of the envelope of `wire`, if there is something that does.
    pub(crate) fn protect(&self, wire: &[u8], sealed: Sealed) -> Result<Sealed, ProtectError> {
        let Some(seal) = &self.seal else { return Ok(sealed) };
        let (head, payload) = sealed.envelope.split_at(Envelope::payload_at(&sealed.envelope)?);
        let mut envelope = Envelope::protected_head(head, true);
        let context = self.context(wire, &envelope);
        seal.seal(payload, &context, &mut envelope)?;
        Ok(Sealed { envelope: envelope.into(), ..sealed })
    }

    /// The envelope of `wire` as it was before it was protected. What is not protected is not
    /// taken for what this cache has written, if it protects: anybody could have.
    pub(crate) fn unprotect(&self, wire: &[u8], envelope: &Bytes) -> Result<Bytes, ProtectError> {
        let Some(seal) = &self.seal else { return Ok(envelope.clone()) };
        let (head, payload) = envelope.split_at(Envelope::payload_at(envelope)?);
        if !Envelope::read(envelope)?.head.sealed {
            return Err(SealError::Damaged.into());
        }
        let plain = seal.open(payload, &self.context(wire, head))?;
        let mut opened = Envelope::protected_head(head, false);
        opened.extend(plain);
        Ok(opened.into())
    }

    /// Where a value belongs: this cache, this key, and this head in front of it.
    fn context(&self, wire: &[u8], head: &[u8]) -> Vec<u8> {
        let tag = self.tag.as_bytes();
        let mut context = Vec::with_capacity(8 + tag.len() + wire.len() + head.len());
        for part in [tag, wire] {
            // With its length, so that no other cache and key give the same bytes.
            context.extend((part.len() as u32).to_be_bytes());
            context.extend_from_slice(part);
        }
        context.extend_from_slice(head);
        context
    }
}

/// Why an envelope could not be protected, or opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProtectError {
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Envelope(#[from] fleetwide_core_traits::EnvelopeError),
}

impl<V: 'static> Codec<V> for Form<V> {
    fn encode(&self, value: &V, to: &mut Vec<u8>) -> Result<FormatId, CodecError> {
        self.codec.encode(value, to)
    }

    fn decode(&self, format: FormatId, bytes: &[u8]) -> Result<V, CodecError> {
        self.codec.decode(format, bytes)
    }

    fn schema(&self) -> u32 {
        self.schema
    }
}
