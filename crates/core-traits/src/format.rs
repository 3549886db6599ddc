//! The formats that serde gives.

use serde::Serialize;
use serde::de::DeserializeOwned;

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
}

/// A codec for every type that serde knows.
///
/// Types that need a self-describing format (`serde_json::Value`, untagged enums, flattened
/// fields) must be written as [`Format::Json`].
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
                bincode::serde::encode_into_std_write(value, to, BINCODE)
                    .map_err(|error| CodecError::encode(&error))?;
                FormatId::BINCODE
            }
            #[cfg(feature = "json")]
            Format::Json => {
                serde_json::to_writer(&mut *to, value)
                    .map_err(|error| CodecError::encode(&error))?;
                FormatId::JSON
            }
        };
        check_size(to.len() - start)?;
        Ok(format)
    }

    fn decode(&self, format: FormatId, bytes: &[u8]) -> Result<V, CodecError> {
        check_size(bytes.len())?;
        match format {
            #[cfg(feature = "bincode")]
            FormatId::BINCODE => {
                let (value, read) = bincode::serde::decode_from_slice(bytes, BINCODE)
                    .map_err(|error| CodecError::decode(&error))?;
                // Bincode stops at the end of the value; what follows means that the bytes are
                // those of another type.
                if read == bytes.len() { Ok(value) } else { Err(CodecError::Trailing) }
            }
            #[cfg(feature = "json")]
            FormatId::JSON => {
                serde_json::from_slice(bytes).map_err(|error| CodecError::decode(&error))
            }
            other => Err(CodecError::UnknownFormat(other)),
        }
    }
}

/// Without the limit, one corrupt length makes bincode ask for terabytes, which aborts.
#[cfg(feature = "bincode")]
const BINCODE: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<VALUE_BYTES_MAX>,
> = bincode::config::standard().with_limit::<VALUE_BYTES_MAX>();

#[cfg(all(test, feature = "bincode"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Value = Vec<(String, Option<u32>)>;

    fn decode(bytes: &[u8]) -> Result<Value, CodecError> {
        Serde::default().decode(FormatId::BINCODE, bytes)
    }

    fn encode(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert_eq!(Serde::default().encode(value, &mut bytes), Ok(FormatId::BINCODE));
        bytes
    }

    #[test]
    fn a_claimed_length_of_a_terabyte_is_an_error() {
        let hostile = [253, 0, 0, 0, 0, 0, 1, 0, 0];
        let error = Codec::<String>::decode(&Serde::default(), FormatId::BINCODE, &hostile);
        assert!(matches!(error, Err(CodecError::Decode(_))), "{error:?}");
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let mut bytes = encode(&vec![("a".to_owned(), Some(1))]);
        bytes.push(0);
        assert_eq!(decode(&bytes), Err(CodecError::Trailing));
    }

    #[test]
    fn an_unknown_format_is_an_error() {
        let error = Codec::<Value>::decode(&Serde::default(), FormatId(31), &[]);
        assert_eq!(error, Err(CodecError::UnknownFormat(FormatId(31))));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(value: Value) {
            prop_assert_eq!(decode(&encode(&value)).unwrap(), value);
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }

        #[test]
        fn a_cut_value_is_an_error(value in prop::collection::vec((".*", any::<Option<u32>>()), 1..5), cut in 1usize..9) {
            let bytes = encode(&value);
            let keep = bytes.len().saturating_sub(cut);
            prop_assert!(decode(&bytes[..keep]).is_err());
        }
    }
}
