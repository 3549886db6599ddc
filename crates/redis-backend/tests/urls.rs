//! Every form of an address, and no way to get a password out of one.

use fleetwide_redis_backend::{
    Address, BuildError, Feature, Host, Protocol, Redis, RedisUrl, Tls, Topology, UrlError,
};
use proptest::prelude::*;

fn parse(text: &str) -> RedisUrl {
    RedisUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[track_caller]
fn shown(text: &str, expected: &str) {
    assert_eq!(parse(text).to_string(), expected, "{text}");
}

#[test]
fn one_server_has_many_forms() {
    shown("redis://cache", "redis://cache:6379/0");
    shown("  redis://cache \n", "redis://cache:6379/0");
    shown("REDIS://cache:7000/3", "redis://cache:7000/3");
    shown("valkey://cache/", "redis://cache:6379/0");
    shown("rediss://cache", "rediss://cache:6379/0");
    shown("valkeys://cache?db=4", "rediss://cache:6379/4");
    shown("redis://:pw@cache", "redis://***@cache:6379/0");
    shown("redis://user@cache", "redis://***@cache:6379/0");
    shown("redis://u:p@[::1]:7000/1", "redis://***@[::1]:7000/1");
    shown("redis://[fe80::1%eth0]", "redis://[fe80::1%eth0]:6379/0");
    shown("unix:///run/redis.sock", "unix:///run/redis.sock?db=0");
    shown("redis+unix:///run/r.sock?db=2&user=u&pass=p", "unix://***@/run/r.sock?db=2");
    assert_eq!(parse("redis://h?protocol=resp3").protocol(), Protocol::Resp3);
    assert_eq!(parse("redis://h").protocol(), Protocol::Resp2);
    assert_eq!(parse("rediss://h#insecure").tls(), Tls::Insecure);
    assert!(!parse("redis://:@h").has_credentials());
    assert!(!parse("redis://@h").has_credentials());
}

#[test]
fn sentinels_are_found_in_every_form_that_clients_write() {
    let three = "redis+sentinel://a:26379,b:26379,c:26379/mymaster/0";
    for text in [
        "redis+sentinel://a:26379,b:26379,c:26379/mymaster",
        "redis-sentinel://a,b,c/mymaster/0",
        "redis-sentinel://a,b,c/0#mymaster",
        "valkey+sentinel://a,b,c?master=mymaster",
        "redis+sentinel://a,b,c?sentinelServiceName=mymaster",
        "redis://a:26379,b:26379,c:26379?sentinelMasterId=mymaster",
        "redis://a,b,c/0?sentinelMasterId=mymaster",
    ] {
        shown(text, three);
    }
    shown("rediss-sentinel://u:p@a/m/2", "rediss+sentinel://***@a:26379/m/2");
    // To a plain parser this is one server, and writes would go to the Sentinel.
    let one = parse("redis://a?sentinelMasterId=m");
    let Topology::Sentinel { sentinels, master, .. } = one.topology() else { panic!("{one:?}") };
    assert_eq!(sentinels, &[Host { name: "a".into(), port: 26379 }]);
    assert_eq!(master, "m");
    let own = parse("redis+sentinel://a/m?sentinelUsername=x&sentinelPassword=hush");
    assert!(!format!("{own:?} {own}").contains("hush"));
}

#[test]
fn clusters_name_their_first_nodes() {
    shown("redis+cluster://a,b:7001", "redis+cluster://a:6379,b:7001");
    shown("rediss-cluster://u:p@[::1],b", "rediss+cluster://***@[::1]:6379,b:6379");
}

#[test]
fn wrong_part_is_named() {
    for (text, error) in [
        ("", UrlError::Blank),
        ("redis://a b", UrlError::Blank),
        ("cache:6379", UrlError::Scheme),
        ("http://cache", UrlError::Scheme),
        ("redis+http://cache", UrlError::Scheme),
        ("redis://", UrlError::Host),
        ("redis://:7000", UrlError::Host),
        ("redis://a/b", UrlError::Database),
        ("redis://a/1/2", UrlError::Database),
        ("redis://a/1?db=1", UrlError::Database),
        ("redis://a/4294967295", UrlError::Database),
        ("redis://a/-1", UrlError::Database),
        ("redis://a/+1", UrlError::Database),
        ("redis://a:port", UrlError::Port),
        ("redis://a:0", UrlError::Port),
        ("redis://a:+1", UrlError::Port),
        ("redis://a:65536", UrlError::Port),
        ("redis://[::1", UrlError::Host),
        ("redis://[::1]x", UrlError::Port),
        ("redis://[zz]", UrlError::Host),
        ("redis://::1", UrlError::Host),
        ("redis://a,b", UrlError::SeveralHosts),
        ("redis://a,,b?sentinelMasterId=m", UrlError::Host),
        ("redis+sentinel://a", UrlError::Master),
        ("redis+sentinel://a/?master=", UrlError::Master),
        ("redis+cluster://a/1", UrlError::ClusterDatabase),
        ("redis://a?protocol=4", UrlError::Protocol),
        ("redis://a?color=red", UrlError::Query),
        ("redis://a?db", UrlError::Query),
        ("redis://a?db=1&db=2", UrlError::Query),
        ("redis://u@a?user=u", UrlError::Query),
        ("redis://a?sentinelPassword=x", UrlError::Query),
        ("redis://a#insecure", UrlError::Fragment),
        ("rediss://a#other", UrlError::Fragment),
        ("unix://relative/path", UrlError::SocketPath),
        ("unix://", UrlError::SocketPath),
        // A password that was not encoded: said instead of pointing at a host or a port.
        ("redis://u:p/w@a", UrlError::Credentials),
        ("redis://u:p#w@a", UrlError::Credentials),
        ("redis://u:p?w@a", UrlError::Credentials),
        ("redis://u:100%@a", UrlError::Credentials),
        ("redis://u:%ff@a", UrlError::Credentials),
    ] {
        assert_eq!(RedisUrl::parse(text), Err(error), "{text}");
    }
}

#[test]
fn encoded_credentials_are_what_they_were() {
    let plain = parse("redis://u%40x:p%2Fw%3F%23%25@a");
    assert_eq!(plain, parse("redis://a?user=u%40x&pass=p%2Fw%3F%23%25"));
    assert_eq!(parse("redis://:p@ss@a"), parse("redis://:p%40ss@a"), "the last @ counts");
    assert_eq!(parse("redis://:a:b@a"), parse("redis://:a%3Ab@a"), "the first : counts");
}

#[test]
fn parts_of_an_environment_make_an_address() {
    let parts = |host, password| RedisUrl::from_parts(host, 7000, password, 2);
    assert_eq!(parts("cache", None), Ok(parse("redis://cache:7000/2")));
    assert_eq!(parts("cache", Some("")), Ok(parse("redis://cache:7000/2")));
    assert_eq!(parts("cache", Some("p/w")), Ok(parse("redis://:p%2Fw@cache:7000/2")));
    assert_eq!(parts("::1", None), Ok(parse("redis://[::1]:7000/2")));
    assert_eq!(parts("[::1]", None), Ok(parse("redis://[::1]:7000/2")));
    assert_eq!(parts("/run/r.sock", None), Ok(parse("unix:///run/r.sock?db=2")));
    assert_eq!(parts("a b", None), Err(UrlError::Host));
    assert_eq!(parts("", None), Err(UrlError::Host));
    assert_eq!(RedisUrl::from_parts("a", 0, None, 0), Err(UrlError::Port));
    assert_eq!(RedisUrl::from_parts("a", 1, None, u32::MAX), Err(UrlError::Database));
}

#[test]
fn socket_is_a_path() {
    let socket = parse("unix:///run/with%20space.sock");
    let path = std::path::PathBuf::from("/run/with space.sock");
    assert_eq!(socket.topology(), &Topology::Single(Address::Unix(path)));
}

#[tokio::test]
async fn what_is_not_supported_yet_is_said_when_it_is_built() {
    for (text, feature) in [
        ("rediss://a", Feature::Tls),
        ("redis+sentinel://a/m", Feature::Sentinel),
        ("redis://a?sentinelMasterId=m", Feature::Sentinel),
        ("redis+cluster://a", Feature::Cluster),
    ] {
        let built = Redis::builder(parse(text)).build().map(drop);
        assert_eq!(built, Err(BuildError::NotSupportedYet(feature)), "{text}");
    }
}

#[tokio::test]
async fn settings_that_make_no_sense_are_named() {
    let plain = || Redis::builder(parse("redis://127.0.0.1:1"));
    let zero = std::time::Duration::ZERO;
    let long = std::time::Duration::from_secs(9);
    for (builder, setting) in [
        (plain().connect_timeout(zero), "connect_timeout"),
        (plain().command_timeout(zero), "command_timeout"),
        (plain().command_timeout(long), "total_timeout"),
        (plain().connections(0), "connections"),
        (plain().in_flight_max(0), "in_flight_max"),
        (plain().reconnect_backoff(long, zero), "reconnect_backoff"),
        (plain().subscriber_messages_max(0), "subscriber_messages_max"),
        (plain().exclusive_connections(0, long), "exclusive_connections"),
        (plain().client_name("two words"), "client_name"),
    ] {
        let error = builder.build().map(drop).unwrap_err();
        assert!(matches!(error, BuildError::Setting { name, .. } if name == setting), "{error}");
    }
}

/// Everything that a program could print about `text`.
fn said_about(text: &str) -> String {
    match RedisUrl::parse(text) {
        Ok(url) => {
            let builder = format!("{:?}", Redis::builder(url.clone()));
            format!("{url:?} {url} {builder}")
        }
        Err(error) => format!("{error:?} {error}"),
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |encoded, byte| format!("{encoded}%{byte:02x}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_an_address_or_an_error(text in ".{0,80}") {
        let _ = said_about(&text);
    }

    #[test]
    fn anything_behind_a_scheme_is_an_address_or_an_error(
        scheme in "(redis|rediss|valkey|unix|redis\\+unix|redis-sentinel|redis\\+cluster)://",
        rest in "[a-z0-9:@/?#%,.=&\\[\\]-]{0,60}",
    ) {
        let _ = said_about(&format!("{scheme}{rest}"));
    }

    /// The password is a word that no message has by itself, with anything beside it, encoded or
    /// not. Whatever an address with it is taken for, the word is not shown.
    #[test]
    fn no_password_is_ever_shown(
        scheme in "(redis|rediss|unix|redis\\+unix|redis\\+sentinel|redis\\+cluster|http|)(://)?",
        user in "[a-z@:/]{0,5}",
        before in "[!-~]{0,6}",
        after in "[!-~]{0,6}",
        rest in "[a-z0-9.:,/?=&#\\[\\]]{0,30}",
        db in 0_u32..9,
    ) {
        let password = format!("{before}XyZZy{after}");
        let encoded = percent_encoded(&password);
        for text in [
            format!("{scheme}{user}:{password}@host{rest}"),
            format!("{scheme}{password}@host{rest}"),
            format!("{scheme}u:{encoded}@host{rest}"),
            format!("{scheme}host/{db}?pass={encoded}"),
            format!("{scheme}host/m?sentinelPassword={encoded}"),
            format!("unix:///run/redis.sock?user=u&pass={encoded}"),
        ] {
            let said = said_about(&text);
            prop_assert!(!said.contains("XyZZy"), "{text} -> {said}");
        }
        let parts = RedisUrl::from_parts("host", 6379, Some(&password), db).unwrap();
        let said = format!("{parts:?} {parts}");
        prop_assert!(!said.contains("XyZZy"), "{}", said);
    }

    #[test]
    fn encoded_password_is_understood(password in "[ -~\u{e0}-\u{ff}]{1,20}") {
        let encoded = percent_encoded(&password);
        let parsed = parse(&format!("redis://:{encoded}@host"));
        prop_assert_eq!(parsed, RedisUrl::from_parts("host", 6379, Some(&password), 0).unwrap());
    }
}
