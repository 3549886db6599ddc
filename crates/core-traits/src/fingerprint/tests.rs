//! What changes the number of a type, and what does not.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::*;

macro_rules! types {
    ($($body:item)*) => { [ $( {
        #[allow(dead_code, reason = "only its shape is looked at")]
        #[derive(Deserialize)]
        $body
        fingerprint::<User>()
    } ),* ] };
}

/// Each with its own number. Red if the walk does not note what the line's comment names.
#[test]
fn each_change_of_a_type_changes_its_number() {
    let numbers = types! {
        struct User { id: u32, name: String }
        struct User { id: u64, name: String } // a plain type
        struct User { id: u32, nick: String } // the name of a field
        struct User { name: String, id: u32 } // the order
        struct User { id: u32, name: String, mail: Option<String> } // a field more
        struct User { id: u32, name: Option<String> }
        struct User { id: u32, name: Vec<String> }
        struct User { id: u32, name: Vec<u8> } // what a list holds
        struct User { id: u32, name: Option<u8> } // what an option holds
        struct User { id: u32, name: BTreeMap<u8, u8> }
        struct User { id: u32, name: BTreeMap<u8, u16> } // the values of a map
        struct User { id: u32, name: Role }
        struct User { id: u32, name: Vec<Role2> } // another enum, further in
        struct User { id: u32, name: Vec<Role3> } // the last variant's own field
        struct User { id: NonZeroU32, name: Checked, more: u8 }
        struct User { id: NonZeroU32, name: Checked, more: u16 } // behind a value that is checked
        struct User(u32, String);
        struct User(u32, String, u8); // the length of a tuple
        struct User { id: [u8; 4] }
        struct User { id: [u8; 5] }
        enum User { A, B }
        enum User { A, B, C } // a variant more
        enum User { B, A } // the order of variants
        enum User { A, B(u8) } // what a variant holds
        enum User { A, B { a: u8 } }
        enum User { A, B { b: u8 } } // the name of a variant's field
        struct User;
    };
    let distinct: HashSet<u32> = numbers.into_iter().collect();
    assert_eq!(distinct.len(), numbers.len(), "{numbers:?}");
    assert!(!distinct.contains(&0));
}

#[allow(dead_code, reason = "only its shape is looked at")]
#[derive(Deserialize)]
enum Role {
    Admin,
    Guest(u8),
}

#[allow(dead_code, reason = "only its shape is looked at")]
#[derive(Deserialize)]
enum Role2 {
    Admin,
    Guest(u8),
    Nested(Box<Role>),
}

#[allow(dead_code, reason = "only its shape is looked at")]
#[derive(Deserialize)]
enum Role3 {
    Admin,
    Guest(u8),
    Nested(Box<Role>, u8),
}

/// Takes only what its own code likes.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "127.0.0.1" { Ok(Self) } else { Err(serde::de::Error::custom("no address")) }
    }
}

/// These numbers stand in the stored values of every fleet: a change of one is a reload of all its
/// values, so it needs a reason. They also show that a build or a process changes nothing.
#[test]
fn the_numbers_stay_what_they_are() {
    assert_eq!(fingerprint::<String>(), 0x6bae_bafb);
    assert_eq!(fingerprint::<(u32, Vec<Option<bool>>)>(), 0x8082_1313);
    assert_eq!(fingerprint::<HashMap<String, Role2>>(), 0x8cd9_af9f);
    assert_eq!(fingerprint::<Tree>(), 0x700d_a5aa);
    assert_eq!(fingerprint::<(Duration, Checked, std::net::IpAddr)>(), 0x440e_acd3);
}

#[allow(dead_code, reason = "only its shape is looked at")]
#[derive(Deserialize)]
struct Tree {
    left: Option<Box<Tree>>,
    others: Vec<Tree>,
    named: HashMap<String, Tree>,
    term: Term,
}

/// No variant but the last has an end by itself.
#[allow(dead_code, reason = "only its shape is looked at")]
#[derive(Deserialize)]
enum Term {
    Sum(Box<Term>, Box<Term>),
    Not(Box<Term>),
    Sub { tree: Vec<Tree>, term: Box<Term> },
    Number(i64),
}

#[test]
fn types_that_contain_themselves_have_a_number() {
    assert_ne!(fingerprint::<Tree>(), fingerprint::<Term>());
}

/// Types with the same name in serde are told apart inside one type: `Page` of one thing, and of
/// another.
#[test]
fn two_uses_of_a_generic_type_are_two_types() {
    #[allow(dead_code)]
    #[derive(Deserialize)]
    struct Page<T> {
        items: Vec<T>,
    }
    let (same, other) =
        (fingerprint::<(Page<u8>, Page<u8>)>(), fingerprint::<(Page<u8>, Page<u16>)>());
    assert_ne!(same, other);
}

#[allow(dead_code, reason = "only its shape is looked at")]
#[derive(Deserialize)]
struct Endless(Box<Endless>);

#[allow(dead_code, reason = "only its shape is looked at")]
#[derive(Deserialize)]
enum NoEnd {
    Again(Box<NoEnd>),
}

#[allow(dead_code, reason = "only its shape is looked at")]
#[derive(Deserialize)]
#[serde(transparent)]
struct Unseen(Option<Box<Unseen>>);

struct Panics;

impl<'de> Deserialize<'de> for Panics {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        u8::deserialize(from)?;
        panic!("a mistake in the value's own code")
    }
}

struct Greedy;

impl<'de> Deserialize<'de> for Greedy {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> serde::de::Visitor<'de> for All {
            type Value = Greedy;
            fn expecting(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                Ok(())
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut all: A,
            ) -> Result<Greedy, A::Error> {
                while all.next_element::<u8>()?.is_some() {}
                Ok(Greedy)
            }
        }
        from.deserialize_tuple(usize::MAX, All)
    }
}

/// Red without the bounds, in that it does not end or ends the process.
#[test]
fn no_type_makes_the_walk_hang_or_panic() {
    let numbers = [
        fingerprint::<Endless>(),
        fingerprint::<NoEnd>(),
        fingerprint::<Unseen>(),
        fingerprint::<Panics>(),
        fingerprint::<Greedy>(),
        fingerprint::<Vec<Vec<Vec<Unseen>>>>(),
    ];
    assert!(numbers.iter().all(|number| *number != 0), "{numbers:?}");
}
