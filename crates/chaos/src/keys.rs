//! Which keys there are, who writes them, and how.

use rand::Rng;

/// Keys that share a tag.
const GROUP_KEYS: u32 = 8;

/// The keys of a run: the hot ones first, then the cold ones.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Keys {
    /// Read and written all the time.
    pub hot: u32,
    /// Read now and then.
    pub cold: u32,
    /// Nodes that own keys.
    pub nodes: u32,
}

/// How a key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// By any node, which invalidates it.
    Shared,
    /// By one node alone, one write after the other, which also puts values. Two writers that put
    /// at the same time need an order that only their database can give them.
    Owned {
        /// The node.
        by: u32,
    },
    /// By any node, together with all keys of its group, by a bump of the group's tag.
    Tagged {
        /// The group.
        group: u32,
    },
}

impl Keys {
    /// How `key` is written.
    pub fn class(self, key: u32) -> Class {
        match key % 4 {
            0 | 1 => Class::Shared,
            2 => Class::Owned { by: (key / 4) % self.nodes },
            _ => Class::Tagged { group: key / 4 / GROUP_KEYS },
        }
    }

    /// A key near `key` that `node` owns, if there is one.
    pub fn owned_near(self, key: u32, node: u32) -> Option<u32> {
        let index = key / 4;
        let key = (index - index % self.nodes + node) * 4 + 2;
        (key < self.all()).then_some(key)
    }

    /// The keys of a group.
    pub fn group(self, group: u32) -> impl Iterator<Item = u32> {
        let first = group * GROUP_KEYS;
        (first..first + GROUP_KEYS).map(|index| index * 4 + 3).filter(move |key| *key < self.all())
    }

    /// How many keys there are.
    pub fn all(self) -> u32 {
        self.hot + self.cold
    }

    /// A key to read: mostly a hot one, and of those mostly the first.
    pub fn pick(self, rng: &mut impl Rng) -> u32 {
        if rng.random_ratio(1, 100) {
            return rng.random_range(self.hot..self.all());
        }
        let skewed = rng.random::<f64>() * rng.random::<f64>();
        ((skewed * f64::from(self.hot)) as u32).min(self.hot - 1)
    }

    /// A key to write: a hot one, or now and then a cold one.
    pub fn pick_to_write(self, rng: &mut impl Rng) -> u32 {
        if rng.random_ratio(1, 10) {
            rng.random_range(self.hot..self.all())
        } else {
            rng.random_range(0..self.hot)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_finds_keys_of_its_own_and_no_others() {
        let keys = Keys { hot: 300, cold: 900, nodes: 4 };
        for (key, node) in (0..keys.all()).flat_map(|key| (0..4).map(move |node| (key, node))) {
            let owned = keys.owned_near(key, node);
            assert!(owned.is_none_or(|key| keys.class(key) == Class::Owned { by: node }));
            assert!(owned.is_some() || key + 16 > keys.all(), "only the last ones have none");
        }
    }

    #[test]
    fn a_group_has_exactly_the_keys_that_say_so() {
        let keys = Keys { hot: 300, cold: 900, nodes: 4 };
        for group in 0..keys.all() / 4 / GROUP_KEYS {
            let said = |key: &u32| keys.class(*key) == Class::Tagged { group };
            let saying: Vec<u32> = (0..keys.all()).filter(said).collect();
            assert_eq!(keys.group(group).collect::<Vec<_>>(), saying);
            assert_eq!(saying.len(), GROUP_KEYS as usize);
        }
    }
}
