//! No reply of a server, however wrong, makes a decoder panic.

use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{Append, Epoch, LogCell, Meta};
use fleetwide_core_traits::{AtomicOp, Namespace, ServerTime, Tag, Ttl, Wire};
use proptest::prelude::*;

use super::{
    Agree, Bump, Clear, EntryKeys, Fill, Hold, Invalidate, InvalidateMany, Lease, Lookup,
    LookupMany, OnePut, Put, PutMany, Reader, Release, Renew, SetGuard, Versions, Wake, tags_key,
};

fn wire() -> impl Strategy<Value = Wire> {
    let leaf = prop_oneof![
        Just(Wire::Nil),
        any::<i64>().prop_map(Wire::Int),
        (0i64..3).prop_map(Wire::Int),
        prop::collection::vec(any::<u8>(), 0..80).prop_map(|bytes| Wire::Bytes(bytes.into())),
        prop::collection::vec(any::<u8>(), 32).prop_map(|bytes| Wire::Bytes(bytes.into())),
    ];
    leaf.prop_recursive(2, 16, 4, |inner| prop::collection::vec(inner, 0..5).prop_map(Wire::Array))
}

fn decodes(op: &impl AtomicOp<State = LogCell>, reply: &Wire) {
    let _ = op.decode(reply.clone());
}

fn append(tag: &Tag) -> Append {
    Append::new(tag, Epoch([1; 8]), [2; 8], [3; 8], 4, Bytes::from_static(b"body")).unwrap()
}

proptest! {
    #[test]
    fn any_reply_decodes_or_is_an_error(reply in wire()) {
        let tag = Namespace::new("ns").unwrap().tag("cache", b"name").unwrap();
        let keys = EntryKeys::new(&tag, b"key").unwrap();
        let wake = || Wake::new(&tag, b"key");
        let reader = Reader { schema: 0, now: Some(ServerTime::from_micros(1)) };
        let (ttl, second) = (Ttl::MAX, Duration::from_secs(1));
        decodes(&Lookup::new(&tag, &Append::keys(&tag).0, b"key", reader).unwrap(), &reply);
        decodes(&Lease::new(&keys, [0; 8], second, Epoch([0; 8]), 0), &reply);
        decodes(&Renew::new(&keys, [0; 8], second), &reply);
        decodes(&Release::new(&keys, [0; 8], wake()), &reply);
        decodes(&Fill::new(&keys, [0; 8], Bytes::new(), ttl, wake(), Vec::new()), &reply);
        decodes(&Put::new(&keys, append(&tag), Bytes::new(), ttl, true, None), &reply);
        decodes(&Invalidate::new(&keys, append(&tag)), &reply);
        decodes(&SetGuard::end(&keys, append(&tag), [0; 8]), &reply);
        decodes(&Hold::new(&keys, [0; 8], second), &reply);
        decodes(&Bump::new(&tag, append(&tag), Bytes::from_static(b"t"), 9), &reply);
        let tags = [Bytes::from_static(b"t"), Bytes::from_static(b"u")];
        decodes(&Versions::new(&tags_key(&tag), &tags), &reply);
        decodes(&Agree::new(&tag, Bytes::new()), &reply);
        decodes(&Clear::new(&tag, append(&tag)), &reply);
        let names = || [&b"key"[..], b"other"].into_iter();
        decodes(&LookupMany::new(&tag, &Append::keys(&tag).0, names(), reader).unwrap(), &reply);
        decodes(&InvalidateMany::new(&tag, names(), append(&tag)).unwrap(), &reply);
        let (wire, envelope) = (Bytes::from_static(b"key"), Bytes::new());
        let put = OnePut { wire, envelope, ttl, tagged: true };
        decodes(&PutMany::new(&tag, vec![put], append(&tag), None).unwrap(), &reply);
    }

    /// Lengths that lie, variants that are cut, and whatever else a string of L2 may hold.
    #[test]
    fn any_string_of_l2_is_taken_apart_without_a_panic(
        parts in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u8>(), 0..60), any::<bool>()), 0..5),
        schema in 0u32..2,
    ) {
        let mut raw = b"\xffFWvar\x00\x01".to_vec();
        for (len, variant, honest) in parts {
            raw.extend(if honest { variant.len() as u32 } else { len }.to_be_bytes());
            raw.extend(variant);
        }
        let now = Some(ServerTime::from_micros(1));
        for from in 0..raw.len().min(12) {
            let raw = Bytes::copy_from_slice(&raw[from..]);
            let found = Reader { schema, now }.find(&raw, &Meta::default());
            prop_assert!(found.own.is_none_or(|own| own.envelope.len() + 32 <= raw.len()));
        }
    }
}
