//! Values to bytes and back.

use std::fmt;

use bytes::Bytes;

/// Bytes that a value may have, encoded and before compression.
///
/// It also bounds what a decoder may allocate: a corrupt length in hostile bytes costs an error,
/// not the process.
pub const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How deep a decoder follows a value into itself: lists, maps, structs, enums and options each
/// count as one level. A thread has no more stack than that for large types in a debug build.
pub const DEPTH_MAX: usize = 128;

/// Turns values into bytes of some [`FormatId`], and bytes of any known format into values.
///
/// The id travels with the bytes, so a fleet can change the format it writes without a flush:
/// every instance goes on reading what the others write.
pub trait Codec<V>: Send + Sync + 'static {
    /// Appends the encoded value to `to`, and names the format.
    ///
    /// # Errors
    /// [`CodecError`] if the value has no such form, or is larger than [`VALUE_BYTES_MAX`].
    fn encode(&self, value: &V, to: &mut Vec<u8>) -> Result<FormatId, CodecError>;

    /// Decodes `bytes`, all of them.
    ///
    /// # Errors
    /// [`CodecError`] if the format is unknown or the bytes are no such value. Never panics and
    /// never allocates more than the bytes can mean.
    fn decode(&self, format: FormatId, bytes: &[u8]) -> Result<V, CodecError>;

    /// Tells versions of the type apart: instances whose numbers differ keep their values of one
    /// key side by side, and never decode each other's. Default: 0, as if there was one version.
    fn schema(&self) -> u32 {
        0
    }
}

/// The number of a format on the wire. 0 to 31 are ours; the rest is free for users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FormatId(pub u8);

impl FormatId {
    /// [`Raw`] bytes.
    pub const RAW: Self = Self(0);
    /// `Format::Bincode`.
    pub const BINCODE: Self = Self(1);
    /// `Format::Json`.
    pub const JSON: Self = Self(2);
    /// `Format::MessagePack`.
    pub const MESSAGE_PACK: Self = Self(3);
    /// `Format::Postcard`.
    pub const POSTCARD: Self = Self(4);
}

/// A codec for bytes that are stored as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Codec<Bytes> for Raw {
    fn encode(&self, value: &Bytes, to: &mut Vec<u8>) -> Result<FormatId, CodecError> {
        check_size(value.len())?;
        to.extend_from_slice(value);
        Ok(FormatId::RAW)
    }

    fn decode(&self, format: FormatId, bytes: &[u8]) -> Result<Bytes, CodecError> {
        check_size(bytes.len())?;
        if format == FormatId::RAW {
            Ok(Bytes::copy_from_slice(bytes))
        } else {
            Err(CodecError::UnknownFormat(format))
        }
    }
}

pub(crate) fn check_size(len: usize) -> Result<(), CodecError> {
    if len > VALUE_BYTES_MAX { Err(CodecError::TooLarge(len)) } else { Ok(()) }
}

/// Why a value could not be encoded or decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The value has no form in this format; the text is the serializer's.
    #[error("cannot encode: {0}")]
    Encode(String),
    /// The bytes are no value of this type; the text is the deserializer's.
    #[error("cannot decode: {0}")]
    Decode(String),
    /// The value ends before the bytes do.
    #[error("cannot decode: bytes are left over")]
    Trailing,
    /// Larger than [`VALUE_BYTES_MAX`].
    #[error("a value may have {VALUE_BYTES_MAX} bytes, this one has {0}")]
    TooLarge(usize),
    /// A format that this build cannot read.
    #[error("format {} is not known here", .0.0)]
    UnknownFormat(FormatId),
}

impl CodecError {
    /// An error of a serializer.
    pub fn encode(error: &dyn fmt::Display) -> Self {
        Self::Encode(error.to_string())
    }

    /// An error of a deserializer.
    pub fn decode(error: &dyn fmt::Display) -> Self {
        Self::Decode(error.to_string())
    }
}
