//! Bytes that a released version wrote, read for ever.
//!
//! `golden/<version of the envelope>.txt` has one line for each form: its name and its bytes. A line
//! is never changed, and none is removed: what is in a fleet's server, or written by an instance
//! that is not deployed yet, looks like this. A new form is a new line; a new version a new file.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{Epoch, Stamp, StoredValue};
use fleetwide_core_traits::{Codec, Envelope, Namespace, Raw, Serde, ServerTime};
use serde::{Deserialize, Serialize};

use crate::body::{self, Said};
use crate::form::Form;
use crate::ops::variants::{variants, write};
use crate::payload::{Label, Sealed, open, seal, seal_absent};

/// Every form of version 1.
fn version_1() -> BTreeMap<&'static str, Bytes> {
    let lines = include_str!("../golden/1.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split_once(' ').map(|(name, hex)| (name, bytes_of(hex))).unwrap())
        .collect()
}

fn bytes_of(hex: &str) -> Bytes {
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A value of each kind that a format writes in its own way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    id: u64,
    name: String,
    score: f64,
    mail: Option<String>,
    role: Role,
    tags: Vec<String>,
    raw: (i32, bool),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Role {
    Admin,
    Guest { days: u16 },
}

fn record() -> Record {
    Record {
        id: 1 << 40,
        name: "Grüße".to_owned(),
        score: 0.5,
        mail: Some("a@b.example".to_owned()),
        role: Role::Guest { days: 300 },
        tags: vec!["x".to_owned(), String::new()],
        raw: (-7, true),
    }
}

const SCHEMA: u32 = 0x0102_0304;

fn label(tags: &[Bytes]) -> Label<'_> {
    let (load_cost, soft_ttl) = (Duration::from_micros(1_500), Some(Duration::from_secs(60)));
    Label { load_cost, soft_ttl, tags }
}

fn tags() -> [Bytes; 2] {
    [Bytes::from_static(b"team:7"), Bytes::from_static(b"\xff")]
}

fn sealed<V: 'static>(codec: impl Codec<V>, value: &V, above: usize) -> Bytes {
    let tag = Namespace::new("ns").unwrap().tag("cache", b"name").unwrap();
    let codec = Form::new(Box::new(codec), Some(SCHEMA), None, &tag);
    let Sealed { envelope, .. } = seal(&codec, value, above, &label(&tags())).unwrap();
    envelope
}

/// Checks that the golden bytes mean what they meant, and that this version still writes them: an
/// instance of the version before must be able to read them too.
fn check<V>(name: &str, codec: impl Codec<V> + Copy, value: &V)
where
    V: Clone + std::fmt::Debug + PartialEq + 'static,
{
    let golden = &version_1()[name];
    let opened = open(&codec, golden).unwrap();
    assert_eq!(opened.value.as_ref(), Some(value), "{name}");
    assert_eq!((opened.tags, opened.soft_ttl), (tags().to_vec(), label(&[]).soft_ttl));
    assert_eq!(opened.cost, label(&[]).load_cost);
    assert_eq!(Envelope::schema_of(golden), SCHEMA);
    assert_eq!(sealed(codec, value, usize::MAX), golden, "{name}");
}

#[test]
fn each_format_reads_and_writes_what_version_1_wrote() {
    check("raw", Raw, &Bytes::from_static(b"\x00any bytes\xff"));
    check("bincode", Serde::default(), &record());
    #[cfg(feature = "json")]
    check("json", Serde::new(fleetwide_core_traits::Format::Json), &record());
    #[cfg(feature = "msgpack")]
    check("msgpack", Serde::new(fleetwide_core_traits::Format::MessagePack), &record());
    #[cfg(feature = "postcard")]
    check("postcard", Serde::new(fleetwide_core_traits::Format::Postcard), &record());
}

/// What zstd writes may change with its version; what it wrote must open.
#[test]
fn what_version_1_compressed_opens() {
    let opened = open::<Bytes>(&Raw, &version_1()["zstd"]).unwrap();
    assert_eq!(opened.value.unwrap(), Bytes::from(b"compressible ".repeat(200)));
}

#[test]
fn what_version_1_wrote_about_an_absent_value_opens() {
    let golden = &version_1()["absent"];
    assert_eq!(open::<Record>(&Serde::default(), golden).unwrap().value, None);
    assert_eq!(seal_absent(SCHEMA, &label(&tags())).unwrap().envelope, golden);
}

fn stored(at: u8, envelope: &'static [u8]) -> StoredValue {
    StoredValue {
        stamp: Stamp { epoch: Epoch([at; 8]), seq: u64::from(at) + 256 },
        stored_at: ServerTime::from_micros(1_780_000_000_000_000),
        expires_at: ServerTime::from_micros(1_780_000_900_000_000 + u64::from(at)),
        envelope: Bytes::from_static(envelope),
    }
}

#[test]
fn both_forms_of_a_stored_value_read_and_write_as_version_1_wrote_them() {
    let golden = version_1();
    let one = vec![stored(1, b"FW\x01\x01\0\0\0\0\x01...")];
    let several =
        [one.clone(), vec![stored(2, b"FW\x01\x01\0\0\0\0\x02"), stored(3, b"")]].concat();
    for (name, values) in [("stored-single", one), ("stored-several", several)] {
        let read: Vec<_> = variants(&golden[name]).collect();
        assert_eq!(read, values, "{name}");
        assert_eq!(write(&values), golden[name], "{name}");
    }
}

#[test]
fn the_bodies_of_the_log_read_and_write_as_version_1_wrote_them() {
    let golden = version_1();
    let changed = || Said::Changed(Bytes::from_static(b"key"));
    let bumped = Said::Bumped(Bytes::from_static(b"tag"));
    let keys = [Bytes::from_static(b"key"), Bytes::from_static(b"\0")];
    let changed_many = || Said::ChangedMany(keys.to_vec());
    for (name, written, said) in [
        ("body-invalidate", body::invalidate(b"key"), changed()),
        ("body-put", body::put(b"key"), changed()),
        ("body-invalidate-many", body::invalidate_many(keys.iter()), changed_many()),
        ("body-put-many", body::put_many(keys.iter()), changed_many()),
        ("body-bump", body::bump(b"tag"), bumped),
        ("body-clear", body::clear(), Said::Cleared),
    ] {
        assert_eq!(written, golden[name], "{name}");
        assert_eq!(body::read(&golden[name]), said, "{name}");
    }
}
