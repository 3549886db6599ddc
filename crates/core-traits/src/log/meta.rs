//! Where a log is.

use std::fmt;

use crate::{Malformed, Wire};

/// Bytes of a meta string: epoch 8, seq 8, id of the last entry 8, seq of the last clear 8.
pub const META_BYTES: usize = 32;

/// The name of one unbroken history of a log, drawn at random when it begins.
///
/// Stamps of different epochs cannot be compared: the server lost data in between, or a replica
/// with another history took over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Epoch(pub [u8; 8]);

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A place in a history: everything up to entry `seq` of `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Stamp {
    /// Which history.
    pub epoch: Epoch,
    /// The number of the last entry that it reflects; 0 = none yet.
    pub seq: u64,
}

/// What the meta string says. Every reply of a script that touches a log carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Meta {
    /// Where the log is.
    pub at: Stamp,
    /// The name of entry `at.seq`; zero if there is none.
    pub last: super::EntryId,
    /// The number of the last entry that cleared everything.
    pub clear_seq: u64,
}

impl Meta {
    /// Reads a meta string.
    ///
    /// # Errors
    /// [`Malformed`] if it has another length.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() != META_BYTES {
            return Err(Malformed::new("a meta string", "bytes of another length"));
        }
        Ok(Self {
            at: Stamp { epoch: Epoch(super::array(bytes, 0)), seq: super::number(bytes, 8) },
            last: super::array(bytes, 16),
            clear_seq: super::number(bytes, 24),
        })
    }

    /// Reads a meta string from a reply; `None` if the log has none, or one that makes no sense.
    ///
    /// # Errors
    /// [`Malformed`] if the reply is no string at all.
    pub fn from_wire(reply: Wire) -> Result<Option<Self>, Malformed> {
        Ok(reply.into_optional_bytes()?.and_then(|bytes| Self::read(&bytes).ok()))
    }

    /// The meta string.
    pub fn to_bytes(self) -> [u8; META_BYTES] {
        let mut bytes = [0; META_BYTES];
        bytes[..8].copy_from_slice(&self.at.epoch.0);
        bytes[8..16].copy_from_slice(&self.at.seq.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.last);
        bytes[24..].copy_from_slice(&self.clear_seq.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_string_reads_as_it_was_written() {
        let at = Stamp { epoch: Epoch(*b"epoch-01"), seq: 513 };
        let meta = Meta { at, last: *b"entry-ab", clear_seq: 7 };
        let golden = b"epoch-01\0\0\0\0\0\0\x02\x01entry-ab\0\0\0\0\0\0\0\x07";
        assert_eq!(&meta.to_bytes(), golden);
        assert_eq!(Meta::read(golden), Ok(meta));
        assert!(Meta::read(&golden[1..]).is_err());
    }
}
