//! The data that all sides keep: an ordinary record under an ordinary key.

use std::sync::Arc;

use hitbox_fn::CacheableResponse;
use serde::{Deserialize, Serialize};

/// A customer, as services cache them: some numbers, some short texts, about 180 bytes as bincode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, CacheableResponse)]
pub struct User {
    /// Number of the customer.
    pub id: u64,
    /// How often the record was changed.
    pub version: u32,
    /// Full name.
    pub name: String,
    /// Mail address.
    pub mail: String,
    /// Rights.
    pub roles: Vec<String>,
    /// Where they live: street, city, country.
    pub address: [String; 3],
    /// When the record was made, µs since the Unix epoch.
    pub created_us: u64,
    /// Whether the mail address was confirmed.
    pub is_confirmed: bool,
}

impl User {
    /// The record of customer `id`.
    pub fn new(id: u64) -> Self {
        Self {
            id,
            version: 7,
            name: format!("Ada Lovelace the {id}th"),
            mail: format!("ada.lovelace.{id}@analytical-engines.example"),
            roles: vec!["customer".to_owned(), "newsletter".to_owned()],
            address: [
                format!("{} St James's Square", id % 97),
                "London SW1Y 4LE".to_owned(),
                "United Kingdom".to_owned(),
            ],
            created_us: 1_760_000_000_000_000 + id,
            is_confirmed: id.is_multiple_of(2),
        }
    }

    /// The record as all sides that choose their codec store it.
    ///
    /// # Panics
    /// Never: the record has a form in bincode.
    pub fn to_bincode(&self) -> Vec<u8> {
        bincode::serde::encode_to_vec(self, bincode::config::standard())
            .expect("a record of texts and numbers can be encoded")
    }

    /// Reads what [`to_bincode`](Self::to_bincode) wrote, with the size limit that any careful
    /// reader sets.
    ///
    /// # Panics
    /// If the bytes are something else, which makes the bench worthless.
    pub fn from_bincode(bytes: &[u8]) -> Arc<Self> {
        const BYTES_MAX: usize = 16 * 1024 * 1024;
        let config = bincode::config::standard().with_limit::<BYTES_MAX>();
        let (user, _) = bincode::serde::decode_from_slice(bytes, config)
            .expect("what was read is what was written");
        Arc::new(user)
    }
}

/// The keys of `count` customers, in an order that is not the order of their insertion.
pub fn keys(count: u64) -> Vec<String> {
    // A multiplier without a common divisor walks through all numbers below `count`, and `count + 1`
    // never has one.
    let step = (count / 2 + 1..=count + 1).find(|step| gcd(*step, count) == 1).unwrap_or(1);
    (0..count).map(|at| format!("customer-{:011}", at * step % count)).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::{User, keys};

    #[test]
    fn keys_differ_and_are_all_there() {
        for count in [1, 2, 64, 1000] {
            let mut all = keys(count);
            all.sort();
            all.dedup();
            assert_eq!(all.len() as u64, count);
        }
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        assert_eq!(*User::from_bincode(&User::new(7).to_bincode()), User::new(7));
    }
}
