//! What every [`Store`] must do.

use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{Key, Store, Ttl};

use super::{DEADLINE, fresh_tag, run};
use crate::eventually;

/// Soon enough to wait for, and late enough to be there for the next command.
const SOON: Duration = Duration::from_millis(150);

/// Runs all cases.
///
/// # Panics
/// If the store does not keep the contract of [`Store`].
pub async fn all(store: &impl Store) {
    run!((store):
        what_is_set_is_read,
        what_was_never_set_is_absent,
        the_last_value_counts,
        any_bytes_are_kept,
        an_empty_value_is_not_absent,
        a_large_value_is_kept,
        a_value_expires,
        another_value_has_its_own_ttl,
        removing_tells_whether_the_key_was_there,
        what_expired_cannot_be_removed,
        many_come_in_the_order_of_the_keys,
        names_that_look_like_syntax_are_only_names,
    );
}

/// A value is there after `set`, more than once.
pub async fn what_is_set_is_read(store: &impl Store) {
    let key = fresh_tag().key();
    set(store, &key, b"value").await;
    assert_eq!(get(store, &key).await.as_deref(), Some(&b"value"[..]));
    assert_eq!(get(store, &key).await.as_deref(), Some(&b"value"[..]));
}

/// A miss is no error.
pub async fn what_was_never_set_is_absent(store: &impl Store) {
    assert_eq!(get(store, &fresh_tag().key()).await, None);
}

/// `set` takes the place of what was there.
pub async fn the_last_value_counts(store: &impl Store) {
    let key = fresh_tag().key();
    set(store, &key, b"first").await;
    set(store, &key, b"second").await;
    assert_eq!(get(store, &key).await.as_deref(), Some(&b"second"[..]));
}

/// Values are bytes, not text.
pub async fn any_bytes_are_kept(store: &impl Store) {
    let key = fresh_tag().key();
    let value: Vec<u8> = (0..=255).chain(*b"\r\n$-1\r\n\0").collect();
    set(store, &key, &value).await;
    assert_eq!(get(store, &key).await.as_deref(), Some(&value[..]));
}

/// A value of no bytes is a value.
pub async fn an_empty_value_is_not_absent(store: &impl Store) {
    let key = fresh_tag().key();
    set(store, &key, b"").await;
    assert_eq!(get(store, &key).await, Some(Bytes::new()));
    assert!(remove(store, &key).await);
}

/// A MiB comes back as it was.
pub async fn a_large_value_is_kept(store: &impl Store) {
    let key = fresh_tag().key();
    let value: Vec<u8> = (0..1 << 20).map(|at: u32| (at / 251 + at) as u8).collect();
    set(store, &key, &value).await;
    assert!(get(store, &key).await.as_deref() == Some(&value[..]), "a MiB comes back as it was");
}

/// A value is gone after its ttl.
pub async fn a_value_expires(store: &impl Store) {
    let key = fresh_tag().key();
    set_for(store, &key, b"value", SOON).await;
    until_gone(store, &key).await;
}

/// Neither a longer nor a shorter ttl of an earlier value stays.
pub async fn another_value_has_its_own_ttl(store: &impl Store) {
    let tag = fresh_tag();
    let [longer, shorter, witness] = ["longer", "shorter", "witness"].map(|name| tag.part(name));
    set_for(store, &longer, b"first", SOON).await;
    set(store, &shorter, b"first").await;
    // Set after `longer`: when it is gone, the time of the first value of `longer` is over too.
    set_for(store, &witness, b"first", SOON).await;
    set(store, &longer, b"second").await;
    set_for(store, &shorter, b"second", SOON).await;
    until_gone(store, &witness).await;
    until_gone(store, &shorter).await;
    assert_eq!(get(store, &longer).await.as_deref(), Some(&b"second"[..]));
}

/// `remove` answers whether it removed something.
pub async fn removing_tells_whether_the_key_was_there(store: &impl Store) {
    let key = fresh_tag().key();
    assert!(!remove(store, &key).await);
    set(store, &key, b"value").await;
    assert!(remove(store, &key).await);
    assert_eq!(get(store, &key).await, None);
    assert!(!remove(store, &key).await);
}

/// An expired value was not there.
pub async fn what_expired_cannot_be_removed(store: &impl Store) {
    let tag = fresh_tag();
    let [first, last] = ["first", "last"].map(|name| tag.part(name));
    set_for(store, &first, b"value", SOON).await;
    set_for(store, &last, b"value", SOON).await;
    // Nobody reads `first` meanwhile, so a store that only expires what is read is found out.
    until_gone(store, &last).await;
    assert!(!remove(store, &first).await);
}

/// `get_many` answers per key: misses are `None`, and a key may be asked for twice.
pub async fn many_come_in_the_order_of_the_keys(store: &impl Store) {
    // Each under a tag of its own: the keys of a store may lie in any slots.
    let keys: Vec<Key> = (0..4).map(|_| fresh_tag().key()).collect();
    set(store, &keys[0], b"zero").await;
    set(store, &keys[2], b"").await;
    set(store, &keys[3], b"three").await;
    let asked = [3, 1, 0, 3, 2].map(|at| keys[at].clone());
    let values = store.get_many(&asked).await.expect("the store answers");
    let expected = [Some("three"), None, Some("zero"), Some("three"), Some("")];
    assert_eq!(values, expected.map(|value| value.map(Bytes::from)));
    assert_eq!(store.get_many(&[]).await, Ok(vec![]));
}

/// No name of a user reaches another key.
pub async fn names_that_look_like_syntax_are_only_names(store: &impl Store) {
    let tag = fresh_tag();
    let names: [&[u8]; 6] = [b"*", b"a b", b"a:b", b"{x}", b"\r\nDEL x\r\n", b"\xff\0"];
    let keys = names.map(|name| tag.named("v", name).expect("short names fit"));
    for (key, name) in keys.iter().zip(names) {
        set(store, key, name).await;
    }
    for (key, name) in keys.iter().zip(names) {
        assert_eq!(get(store, key).await.as_deref(), Some(name));
    }
}

async fn get(store: &impl Store, key: &Key) -> Option<Bytes> {
    store.get(key).await.expect("the store answers")
}

async fn set(store: &impl Store, key: &Key, value: &[u8]) {
    set_for(store, key, value, Duration::from_secs(3600)).await;
}

async fn set_for(store: &impl Store, key: &Key, value: &[u8], ttl: Duration) {
    let ttl = Ttl::new(ttl).expect("the ttls of this suite are valid");
    store.set(key, Bytes::copy_from_slice(value), ttl).await.expect("the store answers");
}

async fn remove(store: &impl Store, key: &Key) -> bool {
    store.remove(key).await.expect("the store answers")
}

async fn until_gone(store: &impl Store, key: &Key) {
    let is_gone = async || get(store, key).await.is_none();
    eventually(DEADLINE, "the value to expire", is_gone).await;
}
