//! Each format over the same values and the same lies.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::{DEPTH_MAX, VALUE_BYTES_MAX};

type Value = Vec<(String, Option<u32>)>;

const FORMATS: &[(Format, FormatId)] = &[
    #[cfg(feature = "bincode")]
    (Format::Bincode, FormatId::BINCODE),
    #[cfg(feature = "json")]
    (Format::Json, FormatId::JSON),
    #[cfg(feature = "msgpack")]
    (Format::MessagePack, FormatId::MESSAGE_PACK),
    #[cfg(feature = "postcard")]
    (Format::Postcard, FormatId::POSTCARD),
];

/// Any codec reads every format, so it does not matter which one is asked.
fn decode<V: Serialize + DeserializeOwned>(
    format: FormatId,
    bytes: &[u8],
) -> Result<V, CodecError> {
    Serde::new(FORMATS[0].0).decode(format, bytes)
}

fn encode<V: Serialize + DeserializeOwned>(format: Format, value: &V) -> Vec<u8> {
    let mut bytes = Vec::new();
    let id = Serde::new(format).encode(value, &mut bytes).unwrap();
    assert!(FORMATS.contains(&(format, id)));
    bytes
}

/// A type that contains itself in each way that a type can.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Nest {
    End,
    Boxed(Box<Nest>),
    Listed(Vec<Nest>),
    Mapped(BTreeMap<u8, Nest>),
    Named { inner: Option<Box<Nest>> },
}

fn nested(levels: usize, wrap: impl Fn(Nest) -> Nest) -> Nest {
    (0..levels).fold(Nest::End, |inner, _| wrap(inner))
}

/// Nobody's stack ends here: each level is read by a handful of nested calls, and a test's thread
/// has 2 MiB. Red without the bound of depth, as a crash of the test's process.
#[cfg(all(feature = "bincode", feature = "json", feature = "msgpack", feature = "postcard"))]
#[test]
fn bytes_that_nest_for_ever_are_an_error_and_no_overflow_of_the_stack() {
    let megabyte = 1 << 20;
    let (list_of_one, boxed_map) = ([2_u8, 1].repeat(megabyte), b"\x81\xa5Boxed".repeat(megabyte));
    let hostile: &[(FormatId, Vec<u8>)] = &[
        (FormatId::BINCODE, vec![1; megabyte]),
        (FormatId::BINCODE, list_of_one.clone()),
        (FormatId::BINCODE, [3, 1, 0].repeat(megabyte)),
        (FormatId::BINCODE, [4, 1].repeat(megabyte)),
        (FormatId::POSTCARD, vec![1; megabyte]),
        (FormatId::POSTCARD, list_of_one),
        (FormatId::POSTCARD, [3, 1, 0].repeat(megabyte)),
        (FormatId::POSTCARD, [4, 1].repeat(megabyte)),
        (FormatId::JSON, br#"{"Boxed":"#.repeat(megabyte)),
        (FormatId::JSON, br#"{"Listed":["#.repeat(megabyte)),
        (FormatId::MESSAGE_PACK, boxed_map),
        (FormatId::MESSAGE_PACK, b"\x81\xa6Listed\x91".repeat(megabyte)),
    ];
    for (format, bytes) in hostile {
        let error = decode::<Nest>(*format, bytes).unwrap_err();
        assert!(matches!(error, CodecError::Decode(_)), "{format:?}: {error}");
    }
    // Also where the type does not say how deep it goes.
    for (format, bytes) in [(FormatId::JSON, b"["), (FormatId::MESSAGE_PACK, b"\x91")] {
        let error = decode::<serde_json::Value>(format, &bytes.repeat(megabyte)).unwrap_err();
        assert!(matches!(error, CodecError::Decode(_)), "{format:?}: {error}");
        // Skipped over, not wanted.
        assert!(decode::<Skips>(format, &bytes.repeat(megabyte)).is_err());
    }
}

#[cfg(all(feature = "bincode", feature = "json", feature = "msgpack", feature = "postcard"))]
#[derive(Debug, Serialize, Deserialize)]
struct Skips {}

#[test]
fn a_value_as_deep_as_may_be_is_read_and_one_level_more_is_not() {
    for (format, id) in FORMATS {
        // Boxed: the enum alone counts, so the end of it is one level too.
        let deepest = nested(if *id == FormatId::JSON { 126 } else { DEPTH_MAX - 1 }, |inner| {
            Nest::Boxed(Box::new(inner))
        });
        let bytes = encode(*format, &deepest);
        assert_eq!(decode::<Nest>(*id, &bytes).as_ref(), Ok(&deepest), "{format:?}");
        let deeper = Nest::Boxed(Box::new(Nest::Boxed(Box::new(deepest))));
        assert!(decode::<Nest>(*id, &encode(*format, &deeper)).is_err(), "{format:?}");
        for wrap in [
            (|inner| Nest::Listed(vec![inner])) as fn(Nest) -> Nest,
            |inner| Nest::Mapped([(7, inner)].into()),
            |inner| Nest::Named { inner: Some(Box::new(inner)) },
        ] {
            let (shallow, deep) = (nested(30, wrap), nested(DEPTH_MAX, wrap));
            assert_eq!(decode::<Nest>(*id, &encode(*format, &shallow)), Ok(shallow));
            assert!(decode::<Nest>(*id, &encode(*format, &deep)).is_err(), "{format:?}");
        }
    }
}

/// Red without the bound of elements, in that it does not end: a list of units takes no bytes for
/// them, so nothing else stops it.
#[cfg(all(feature = "bincode", feature = "postcard"))]
#[test]
fn a_list_of_nothing_does_not_spin_for_as_long_as_its_length_says() {
    let endless = [
        (FormatId::BINCODE, vec![253, 255, 255, 255, 255, 255, 255, 255, 127]),
        (FormatId::POSTCARD, vec![255, 255, 255, 255, 255, 255, 255, 255, 127]),
    ];
    for (format, bytes) in endless {
        let error = decode::<Vec<()>>(format, &bytes).unwrap_err();
        assert!(matches!(error, CodecError::Decode(_)), "{format:?}: {error}");
    }
    // Nor a list of 65,535 such lists, each of which is short enough by itself.
    let lists = [vec![251, 255, 255], [251, 0, 255].repeat(65_535)].concat();
    let error = decode::<Vec<Vec<()>>>(FormatId::BINCODE, &lists).unwrap_err();
    assert!(matches!(error, CodecError::Decode(_)), "{error}");
}

/// A claimed length costs what the bytes can fill, not what it says.
#[test]
fn a_claimed_length_of_gigabytes_is_an_error() {
    let hostile: &[(FormatId, &[u8])] = &[
        #[cfg(feature = "bincode")]
        (FormatId::BINCODE, &[253, 0, 0, 0, 0, 0, 1, 0, 0]),
        #[cfg(feature = "msgpack")]
        (FormatId::MESSAGE_PACK, &[0xdb, 255, 255, 255, 255, b'x']),
        #[cfg(feature = "msgpack")]
        (FormatId::MESSAGE_PACK, &[0xdd, 255, 255, 255, 255, 0xc0]),
        #[cfg(feature = "postcard")]
        (FormatId::POSTCARD, &[255, 255, 255, 255, 255, 255, 255, 255, 127, 0]),
    ];
    for (format, bytes) in hostile {
        assert!(matches!(decode::<String>(*format, bytes), Err(CodecError::Decode(_))));
        assert!(matches!(decode::<Vec<String>>(*format, bytes), Err(CodecError::Decode(_))));
        assert!(matches!(decode::<BTreeMap<u8, u8>>(*format, bytes), Err(CodecError::Decode(_))));
    }
}

#[test]
fn bytes_left_over_are_an_error() {
    for (format, id) in FORMATS {
        let mut bytes = encode(*format, &vec![("a".to_owned(), Some(1_u32))]);
        bytes.push(0);
        assert_eq!(decode::<Value>(*id, &bytes), Err(CodecError::Trailing), "{format:?}");
    }
}

#[test]
fn more_bytes_than_a_value_may_have_are_an_error_both_ways() {
    let large = "x".repeat(VALUE_BYTES_MAX + 1);
    for (format, id) in FORMATS {
        let written = Serde::new(*format).encode(&large, &mut Vec::new());
        assert!(matches!(written, Err(CodecError::TooLarge(_) | CodecError::Encode(_))));
        let read = decode::<String>(*id, large.as_bytes());
        assert_eq!(read, Err(CodecError::TooLarge(large.len())));
    }
}

#[test]
fn an_unknown_format_is_an_error() {
    let error = decode::<Value>(FormatId(31), &[]);
    assert_eq!(error, Err(CodecError::UnknownFormat(FormatId(31))));
}

#[cfg(all(feature = "json", feature = "msgpack"))]
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Old {
    id: u32,
    name: String,
}

#[cfg(all(feature = "json", feature = "msgpack"))]
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct New {
    name: String,
    #[serde(default)]
    tags: Vec<String>,
    id: u32,
}

#[cfg(all(feature = "json", feature = "msgpack"))]
#[test]
fn a_self_describing_format_reads_older_and_newer_forms_of_a_type() {
    for (format, id) in
        [(Format::Json, FormatId::JSON), (Format::MessagePack, FormatId::MESSAGE_PACK)]
    {
        let old = Old { id: 7, name: "a".to_owned() };
        let new = New { name: "a".to_owned(), tags: Vec::new(), id: 7 };
        assert_eq!(decode(id, &encode(format, &old)), Ok(new));
        let new = New { name: "a".to_owned(), tags: vec!["t".to_owned()], id: 7 };
        assert_eq!(decode(id, &encode(format, &new)), Ok(old));
    }
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(value: Value) {
        for (format, id) in FORMATS {
            prop_assert_eq!(decode::<Value>(*id, &encode(*format, &value)).unwrap(), value.clone());
        }
    }

    #[test]
    fn any_bytes_decode_without_a_panic(bytes: Vec<u8>) {
        for (_, id) in FORMATS {
            let _ = decode::<Value>(*id, &bytes);
            let _ = decode::<Nest>(*id, &bytes);
        }
    }

    #[test]
    fn a_cut_value_is_an_error(value in prop::collection::vec((".*", any::<Option<u32>>()), 1..5), cut in 1usize..9) {
        for (format, id) in FORMATS {
            let bytes = encode(*format, &value);
            let keep = bytes.len().saturating_sub(cut);
            prop_assert!(decode::<Value>(*id, &bytes[..keep]).is_err());
        }
    }
}
