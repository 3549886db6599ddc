//! Whatever a request has in its head, it gets an answer, and its key stays in its place.

mod common;

use common::{an_hour, app, by};
use fleetwide_http::client::{ForwardingField, TrustedProxies};
use fleetwide_http::rate_limit::{
    BearerToken, ClientAddress, KeyExtractor, KeySecret, PeerAddr, RequestKey, TenantHeader,
};
use http::{HeaderValue, Request};
use proptest::prelude::*;

/// Values of fields: bytes as HTTP lets them through, and what parsers stumble over.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(prop_oneof![Just(b'\t'), 32u8..=126, 128u8..=255], 0..20),
        "(Bearer |for=|\"|\\\\|,|;|=|\\[|\\]|::1|10\\.0\\.0\\.1|203\\.0\\.113\\.7|unknown|%|:0|%eth0){1,12}"
            .prop_map(String::into_bytes),
        Just(vec![b'a'; 5000]),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

fn fields() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let name = prop::sample::select(vec![
        "x-forwarded-for",
        "forwarded",
        "authorization",
        "x-tenant-id",
        "x-real-ip",
    ]);
    prop::collection::vec((name, value()), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_request_is_answered(fields in fields(), field: bool, peer: [u8; 4], count in 0u8..3) {
        let field = if field { ForwardingField::Forwarded } else { ForwardingField::XForwardedFor };
        let proxies = match count {
            0 => TrustedProxies::networks(["10.0.0.0/8", "192.0.0.0/3"]).unwrap(),
            count => TrustedProxies::count(count).unwrap(),
        };
        let secret = KeySecret::new("a secret of sixteen").unwrap();
        let key = TenantHeader::new()
            .or_tenant("anonymous")
            .and(BearerToken::new(secret).or(ClientAddress::new(proxies.field(field))));
        let mut request = Request::get("/").extension(PeerAddr(peer.into()));
        for (name, value) in &fields {
            request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let head = request.body(()).unwrap().into_parts().0;

        let mut extracted = RequestKey::default();
        let result = key.extract(&head, &mut extracted);
        prop_assert!(extracted.as_bytes().len() <= RequestKey::BYTES_MAX);
        if let Err(error) = &result {
            let said = error.to_string();
            prop_assert!(said.len() < 100 && said.is_ascii(), "{said}");
        }

        let layer = by(key, an_hour(1)).build().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut request = Request::get("/").extension(PeerAddr(peer.into()));
        *request.headers_mut().unwrap() = head.headers;
        let reply = runtime.block_on(app(&layer).send(request));
        prop_assert_eq!(reply.status, if result.is_ok() { 200 } else { 400 });
    }
}
