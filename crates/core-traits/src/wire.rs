//! What travels between an op and a server, free of any client library's types.

use bytes::Bytes;

use crate::Malformed;

/// A server's reply.
///
/// Decoders take it apart with the methods here. They never panic, whatever the server says, and
/// they say what they wanted when they got something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wire {
    /// No value.
    Nil,
    /// An integer.
    Int(i64),
    /// A string of any bytes; status replies such as `OK` come as their text.
    Bytes(Bytes),
    /// Several replies.
    Array(Vec<Self>),
}

impl Wire {
    /// The integer, also if it came as decimal text.
    ///
    /// # Errors
    /// [`Malformed`] if it is something else.
    pub fn into_int(self) -> Result<i64, Malformed> {
        match self {
            Self::Int(int) => Ok(int),
            Self::Bytes(bytes) => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or(Malformed::new("an integer", "other text")),
            other => Err(Malformed::new("an integer", other.kind())),
        }
    }

    /// The integer, if it is not negative.
    ///
    /// # Errors
    /// [`Malformed`] if it is something else.
    pub fn into_unsigned(self) -> Result<u64, Malformed> {
        u64::try_from(self.into_int()?)
            .map_err(|_| Malformed::new("an unsigned integer", "a negative one"))
    }

    /// The bytes.
    ///
    /// # Errors
    /// [`Malformed`] if it is something else.
    pub fn into_bytes(self) -> Result<Bytes, Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(Malformed::new("bytes", other.kind())),
        }
    }

    /// The bytes, or `None` for nil.
    ///
    /// # Errors
    /// [`Malformed`] if it is something else.
    pub fn into_optional_bytes(self) -> Result<Option<Bytes>, Malformed> {
        match self {
            Self::Nil => Ok(None),
            other => other.into_bytes().map(Some),
        }
    }

    /// The elements of an array of any length.
    ///
    /// # Errors
    /// [`Malformed`] if it is something else.
    pub fn into_vec(self) -> Result<Vec<Self>, Malformed> {
        match self {
            Self::Array(items) => Ok(items),
            other => Err(Malformed::new("an array", other.kind())),
        }
    }

    /// The elements of an array of exactly `N`.
    ///
    /// # Errors
    /// [`Malformed`] if it is something else.
    pub fn into_array<const N: usize>(self) -> Result<[Self; N], Malformed> {
        self.into_vec()?.try_into().map_err(|_| Malformed::new("an array", "one of another length"))
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Int(_) => "an integer",
            Self::Bytes(_) => "bytes",
            Self::Array(_) => "an array",
        }
    }
}

/// Where an op writes its arguments: straight into the command, without a list in between.
pub trait ArgSink {
    /// Adds one argument of any bytes.
    fn bytes(&mut self, arg: &[u8]);

    /// Adds one integer, as decimal text.
    fn int(&mut self, arg: i64);

    /// Adds one unsigned integer, as decimal text.
    fn uint(&mut self, arg: u64);
}

/// Collects arguments, for tests and for comparing what an op would send.
impl ArgSink for Vec<Vec<u8>> {
    fn bytes(&mut self, arg: &[u8]) {
        self.push(arg.to_vec());
    }

    fn int(&mut self, arg: i64) {
        self.push(arg.to_string().into_bytes());
    }

    fn uint(&mut self, arg: u64) {
        self.push(arg.to_string().into_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_a_wrong_type_is_an_error_that_names_both() {
        let error = Wire::Array(vec![]).into_int().unwrap_err();
        assert_eq!(error.to_string(), "expected an integer, the server sent an array");
        assert!(Wire::Int(-1).into_unsigned().is_err());
        assert!(Wire::Bytes(Bytes::from_static(b"\xff")).into_int().is_err());
        assert!(Wire::Array(vec![Wire::Nil]).into_array::<2>().is_err());
    }
}
