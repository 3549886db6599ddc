//! Typed keys and their wire form.

use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;

/// A key of a cache. L1 uses the key itself; its bytes are formed only on the way to L2.
///
/// Two keys that are not equal must write different bytes, on every instance and in every
/// version: entries and invalidations find each other by them.
pub trait CacheKey: Clone + Eq + Hash + Send + Sync + 'static {
    /// Appends the key's bytes to `to`. At least one byte, at most 64 KiB.
    fn write(&self, to: &mut Vec<u8>);
}

macro_rules! as_bytes {
    ($($type:ty),*) => {$(
        impl CacheKey for $type {
            fn write(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(self.as_ref());
            }
        }
    )*};
}

as_bytes!(Bytes, Vec<u8>, Arc<[u8]>, Box<[u8]>);

macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl CacheKey for $type {
            fn write(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(self.as_bytes());
            }
        }
    )*};
}

as_text!(String, &'static str, Arc<str>, Box<str>);

macro_rules! as_decimal {
    ($($type:ty),*) => {$(
        impl CacheKey for $type {
            /// Decimal text, which reads well in the server's tools.
            fn write(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(self.to_string().as_bytes());
            }
        }
    )*};
}

as_decimal!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);

/// The length of the first part stands in front, so `("a", "bc")` and `("ab", "c")` differ.
impl<A: CacheKey, B: CacheKey> CacheKey for (A, B) {
    fn write(&self, to: &mut Vec<u8>) {
        let mut first = Vec::new();
        self.0.write(&mut first);
        to.extend_from_slice(first.len().to_string().as_bytes());
        to.push(b'.');
        to.append(&mut first);
        to.push(b'/');
        self.1.write(to);
    }
}

/// As two pairs, one in the other.
impl<A: CacheKey, B: CacheKey, C: CacheKey> CacheKey for (A, B, C) {
    fn write(&self, to: &mut Vec<u8>) {
        (self.0.clone(), (self.1.clone(), self.2.clone())).write(to);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn wire(key: &impl CacheKey) -> String {
        let mut bytes = Vec::new();
        key.write(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_wire_form_stays_as_it_is() {
        assert_eq!(wire(&"user"), "user");
        assert_eq!(wire(&-42_i64), "-42");
        assert_eq!(wire(&("tenant", 7_u32)), "6.tenant/7");
        assert_eq!(wire(&("a", "b", 1_u8)), "1.a/1.b/1");
    }

    #[test]
    fn parts_of_a_pair_cannot_run_into_each_other() {
        let pairs =
            [("a", "bc"), ("ab", "c"), ("1.a", "b"), ("", "1.a/b"), ("a/", "b"), ("a", "/b")];
        let forms: HashSet<_> = pairs.iter().map(wire).collect();
        assert_eq!(forms.len(), pairs.len());
    }
}
