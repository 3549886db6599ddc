//! The formats that serde gives.

mod bounded;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
#[cfg(any(feature = "json", feature = "msgpack", feature = "postcard"))]
use serde::de::DeserializeSeed;

use self::bounded::Bounds;
#[cfg(feature = "bincode")]
use crate::VALUE_BYTES_MAX;
use crate::codec::check_size;
use crate::{Codec, CodecError, FormatId};

/// The formats of [`Serde`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Small and fast. Not self-describing: a type that changes cannot read its old form, which
    /// counts as a miss.
    #[cfg(feature = "bincode")]
    Bincode,
    /// Readable by people and other languages, and by a type that gained defaulted fields.
    #[cfg(feature = "json")]
    Json,
    /// Self-describing like JSON, and about half its size: structs are written as maps, so a type
    /// may gain and lose defaulted fields. What other programs wrote as arrays is read too.
    #[cfg(feature = "msgpack")]
    MessagePack,
    /// Like bincode in size, speed and what it cannot do, with a written specification.
    #[cfg(feature = "postcard")]
    Postcard,
}

/// A codec for every type that serde knows.
///
/// Types that need a self-describing format (`serde_json::Value`, untagged enums, flattened
/// fields) must be written as JSON or `MessagePack`.
///
/// Bytes that lie are an error in every format, whatever the type: a value is followed
/// [`DEPTH_MAX`](crate::DEPTH_MAX) levels deep, and for as many elements as it may have bytes. A
/// value that really is deeper can be written and not read, so it is loaded each time.
#[derive(Clone, Copy, Debug)]
pub struct Serde {
    write: Format,
}

impl Serde {
    /// Writes `write`; reads every format that was compiled in.
    pub const fn new(write: Format) -> Self {
        Self { write }
    }
}

#[cfg(feature = "bincode")]
impl Default for Serde {
    fn default() -> Self {
        Self::new(Format::Bincode)
    }
}

impl<V: Serialize + DeserializeOwned> Codec<V> for Serde {
    fn encode(&self, value: &V, to: &mut Vec<u8>) -> Result<FormatId, CodecError> {
        let start = to.len();
        let format = match self.write {
            #[cfg(feature = "bincode")]
            Format::Bincode => {
                bincode::serde::encode_into_std_write(value, to, BINCODE).map_err(unwritable)?;
                FormatId::BINCODE
            }
            #[cfg(feature = "json")]
            Format::Json => {
                serde_json::to_writer(&mut *to, value).map_err(unwritable)?;
                FormatId::JSON
            }
            #[cfg(feature = "msgpack")]
            Format::MessagePack => {
                rmp_serde::encode::write_named(to, value).map_err(unwritable)?;
                FormatId::MESSAGE_PACK
            }
            #[cfg(feature = "postcard")]
            Format::Postcard => {
                postcard::to_io(value, &mut *to).map_err(unwritable)?;
                FormatId::POSTCARD
            }
        };
        check_size(to.len() - start)?;
        Ok(format)
    }

    fn decode(&self, format: FormatId, bytes: &[u8]) -> Result<V, CodecError> {
        check_size(bytes.len())?;
        let bounds = Bounds::new();
        let value = bounds.around(PhantomData::<V>);
        match format {
            #[cfg(feature = "bincode")]
            FormatId::BINCODE => {
                let (value, read) = bincode::serde::seed_decode_from_slice(value, bytes, BINCODE)
                    .map_err(unreadable)?;
                whole(value, bytes.len() - read)
            }
            #[cfg(feature = "json")]
            FormatId::JSON => {
                let mut from = serde_json::Deserializer::from_slice(bytes);
                let value = value.deserialize(&mut from).map_err(unreadable)?;
                from.end().map_err(|_| CodecError::Trailing)?;
                Ok(value)
            }
            #[cfg(feature = "msgpack")]
            FormatId::MESSAGE_PACK => {
                let mut from = rmp_serde::Deserializer::new(bytes);
                let value = value.deserialize(&mut from).map_err(unreadable)?;
                whole(value, from.get_ref().len())
            }
            #[cfg(feature = "postcard")]
            FormatId::POSTCARD => {
                let mut from = postcard::Deserializer::from_bytes(bytes);
                let value = value.deserialize(&mut from).map_err(unreadable)?;
                whole(value, from.finalize().map_err(unreadable)?.len())
            }
            other => Err(CodecError::UnknownFormat(other)),
        }
    }

    /// The [`fingerprint`](crate::fingerprint()) of the type, whatever is written.
    fn schema(&self) -> u32 {
        crate::fingerprint::<V>()
    }
}

/// A decoder stops at the end of the value; what follows means that the bytes are those of another
/// type.
#[cfg(any(feature = "bincode", feature = "msgpack", feature = "postcard"))]
fn whole<V>(value: V, left_over: usize) -> Result<V, CodecError> {
    if left_over == 0 { Ok(value) } else { Err(CodecError::Trailing) }
}

fn unwritable(error: impl std::fmt::Display) -> CodecError {
    CodecError::encode(&error)
}

fn unreadable(error: impl std::fmt::Display) -> CodecError {
    CodecError::decode(&error)
}

/// Without the limit, one corrupt length makes bincode ask for terabytes, which aborts.
#[cfg(feature = "bincode")]
const BINCODE: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<VALUE_BYTES_MAX>,
> = bincode::config::standard().with_limit::<VALUE_BYTES_MAX>();
