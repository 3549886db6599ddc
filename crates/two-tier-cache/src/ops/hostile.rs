//! No reply of a server, however wrong, makes a decoder panic.

use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{Append, Epoch, LogCell};
use fleetwide_core_traits::{AtomicOp, Namespace, Tag, Ttl, Wire};
use proptest::prelude::*;

use super::{
    Bump, Clear, EntryKeys, Fill, Invalidate, Lease, Lookup, Put, Release, Renew, Versions, Wake,
    tags_key,
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
        let (ttl, second) = (Ttl::MAX, Duration::from_secs(1));
        decodes(&Lookup::new(&tag, &Append::keys(&tag).0, b"key").unwrap(), &reply);
        decodes(&Lease::new(&keys, [0; 8], second, Epoch([0; 8])), &reply);
        decodes(&Renew::new(&keys, [0; 8], second), &reply);
        decodes(&Release::new(&keys, [0; 8], wake()), &reply);
        decodes(&Fill::new(&keys, [0; 8], Bytes::new(), ttl, wake(), Vec::new()), &reply);
        decodes(&Put::new(&keys, append(&tag), Bytes::new(), ttl, true, None), &reply);
        decodes(&Invalidate::new(&keys, append(&tag)), &reply);
        decodes(&Bump::new(&tag, append(&tag), Bytes::from_static(b"t"), 9), &reply);
        let tags = [Bytes::from_static(b"t"), Bytes::from_static(b"u")];
        decodes(&Versions::new(&tags_key(&tag), &tags), &reply);
        decodes(&Clear::new(&tag, append(&tag)), &reply);
    }
}
