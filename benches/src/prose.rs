//! Records of any size, as services keep them: some of it repeats, some of it does not.

use serde::{Deserialize, Serialize};

use crate::trace::SplitMix;

/// An order with its items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    id: u64,
    customer: String,
    currency: String,
    created_us: u64,
    items: Vec<Item>,
    remark: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Item {
    sku: String,
    name: String,
    quantity: u32,
    price_cents: u64,
    is_shipped: bool,
    tags: Vec<String>,
}

const WORDS: [&str; 24] = [
    "blue", "cotton", "desk", "engine", "fabric", "garden", "hammer", "iron", "jacket", "kettle",
    "lamp", "metal", "narrow", "oak", "paper", "quiet", "round", "steel", "table", "upper",
    "velvet", "wooden", "yellow", "zinc",
];

/// A record of about `size` bytes, as `measure` counts them. The same seed gives the same one.
pub fn document(seed: u64, size: usize, measure: impl Fn(&Document) -> usize) -> Document {
    let mut random = SplitMix::new(seed);
    let mut value = Document {
        id: random.next() >> 24,
        customer: format!("cus_{:012x}", random.next() >> 16),
        currency: "EUR".to_owned(),
        created_us: 1_760_000_000_000_000 + (random.next() >> 24),
        items: Vec::new(),
        remark: String::new(),
    };
    loop {
        let item = Item::new(&mut random);
        value.items.push(item);
        if measure(&value) > size {
            value.items.pop();
            break;
        }
    }
    // The rest of the way, word by word.
    while measure(&value) < size {
        value.remark.push_str(word(&mut random));
        value.remark.push(' ');
    }
    value
}

impl Item {
    fn new(random: &mut SplitMix) -> Self {
        let name: Vec<&str> = (0..3).map(|_| word(random)).collect();
        Self {
            sku: format!("{:08X}-{:02}", random.next() >> 32, random.next() % 100),
            name: name.join(" "),
            quantity: (random.next() % 9 + 1) as u32,
            price_cents: random.next() % 100_000,
            is_shipped: random.next().is_multiple_of(2),
            tags: vec![word(random).to_owned(), word(random).to_owned()],
        }
    }
}

fn word(random: &mut SplitMix) -> &'static str {
    WORDS[(random.next() % WORDS.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use super::document;

    #[test]
    fn a_record_has_about_the_size_that_was_asked_for() {
        for size in [128, 1024, 65_536] {
            for seed in 0..20 {
                let measure = |value: &super::Document| serde_json::to_vec(value).unwrap().len();
                let len = measure(&document(seed, size, measure));
                assert!((size..size + 16).contains(&len), "{len} for {size}, seed {seed}");
            }
        }
    }
}
