//! A share of all keys, the same on all instances.

/// Which keys belong to it: those whose hash is low enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyShare {
    below: u64,
}

impl KeyShare {
    /// `share` of all keys, from 0 to 1.
    pub(crate) fn new(share: f64) -> Self {
        // All of them is above every hash but one in 2^64.
        Self { below: (share * u64::MAX as f64) as u64 }
    }

    /// Whether `name` belongs to it.
    pub(crate) fn has(self, name: &[u8]) -> bool {
        self.below > 0 && hash(name) <= self.below
    }
}

/// FNV-1a and the finisher of `SplitMix64`: the same on all instances, whatever they are built with.
fn hash(name: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = name.iter().fold(0xcbf2_9ce4_8422_2325, mix);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_of_the_keys_is_the_share_that_belongs_to_it() {
        for share in [0.0, 0.01, 0.25, 0.5, 1.0] {
            let keys = KeyShare::new(share);
            let names = (0..100_000).map(|number| format!("tenant-{number}"));
            let count = names.filter(|name| keys.has(name.as_bytes())).count() as f64;
            let expected = share * 100_000.0;
            assert!((count - expected).abs() <= expected * 0.12, "{share}: {count}");
        }
    }

    // A fleet must agree on the keys, whatever each instance is built with. Seen red: without the
    // finisher.
    #[test]
    fn hash_of_a_name_never_changes() {
        assert_eq!(hash(b"tenant-7"), 0xd410_a48a_2f93_679a);
    }
}
