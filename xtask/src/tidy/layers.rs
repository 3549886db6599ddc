//! Who may know whom. A capability that knew a backend, or another capability, could no longer be
//! used alone, and the client library could no longer be exchanged in one place.

/// A package and the names of all it is shipped with: normal and build dependencies.
#[derive(Debug)]
pub(crate) struct Crate<'a> {
    pub(crate) name: &'a str,
    pub(crate) dependencies: Vec<&'a str>,
}

/// Every package of ours starts like this, except `fleetwide` itself and `xtask`.
const PREFIX: &str = "fleetwide-";
const CORE: &str = "core-traits";
const FACADE: &str = "fleetwide";
const HTTP: &str = "http";
const TESTKIT: &str = "testkit";
const REDIS_BACKEND: &str = "redis-backend";
const TWO_TIER_CACHE: &str = "two-tier-cache";
const SESSION_CACHE: &str = "session-cache";
const BACKENDS: [&str; 2] = ["mem-backend", REDIS_BACKEND];
const CAPABILITIES: [&str; 8] = [
    TWO_TIER_CACHE,
    "pubsub-invalidation",
    "limiter",
    "breaker",
    "redlock",
    "idempotency",
    "dedup",
    SESSION_CACHE,
];

/// Named by the Redis backend alone, so that a new client library touches one crate.
const CLIENT_LIBRARIES: [&str; 2] = ["redis", "deadpool-redis"];

/// One line for each dependency that a layer must not have, and for each package in no layer.
pub(crate) fn violations(crates: &[Crate<'_>]) -> Vec<String> {
    crates.iter().flat_map(violations_of).collect()
}

fn violations_of(one: &Crate<'_>) -> Vec<String> {
    let Some(layer) = Layer::of(one.name) else {
        let name = one.name;
        return vec![format!("{name} is in no layer: give it one in xtask/src/tidy/layers.rs")];
    };
    let forbidden = one.dependencies.iter().filter(|dependency| !layer.may_know(dependency));
    forbidden.map(|dependency| format!("{} must not depend on {dependency}", one.name)).collect()
}

/// Where a package stands; a layer knows only what is below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Core,
    MemBackend,
    RedisBackend,
    Capability,
    /// Stands on the cache, as an application would.
    SessionCache,
    /// Stands on capabilities, whatever backend they have; the facade names it again.
    Http,
    Facade,
    Node,
    Testkit,
    /// Runs the facade as an application does, and breaks it with the testkit.
    Chaos,
    Xtask,
    /// Compares with anything, and nobody depends on it.
    Benches,
}

impl Layer {
    fn of(package: &str) -> Option<Self> {
        let layer = match short(package) {
            CORE => Self::Core,
            REDIS_BACKEND => Self::RedisBackend,
            FACADE => Self::Facade,
            HTTP => Self::Http,
            "node" => Self::Node,
            SESSION_CACHE => Self::SessionCache,
            TESTKIT => Self::Testkit,
            "chaos" => Self::Chaos,
            "xtask" => Self::Xtask,
            "benches" => Self::Benches,
            name if BACKENDS.contains(&name) => Self::MemBackend,
            name if CAPABILITIES.contains(&name) => Self::Capability,
            _ => return None,
        };
        Some(layer)
    }

    fn may_know(self, dependency: &str) -> bool {
        if self == Self::Benches {
            return true;
        }
        if CLIENT_LIBRARIES.contains(&dependency) {
            return self == Self::RedisBackend;
        }
        if Self::of(dependency).is_none() {
            // Ours without a layer is reported by itself; the rest are other people's crates.
            return true;
        }
        let dependency = short(dependency);
        match self {
            Self::Core | Self::Xtask => false,
            Self::MemBackend | Self::RedisBackend | Self::Capability | Self::Testkit => {
                dependency == CORE
            }
            Self::SessionCache => [CORE, TWO_TIER_CACHE].contains(&dependency),
            Self::Facade => {
                [CORE, HTTP].contains(&dependency)
                    || BACKENDS.contains(&dependency)
                    || CAPABILITIES.contains(&dependency)
            }
            Self::Http => dependency == CORE || CAPABILITIES.contains(&dependency),
            Self::Node => [FACADE, HTTP].contains(&dependency),
            Self::Chaos => [FACADE, CORE, TESTKIT].contains(&dependency),
            Self::Benches => true,
        }
    }
}

/// `limiter` of `fleetwide-limiter`. Somebody else's `http` or `limiter` is not ours.
fn short(package: &str) -> &str {
    match package.strip_prefix(PREFIX) {
        Some(short) => short,
        None if [FACADE, "xtask"].contains(&package) => package,
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::{CAPABILITIES, Crate, violations};

    fn check(name: &str, dependencies: &[&str]) -> String {
        violations(&[Crate { name, dependencies: dependencies.to_vec() }]).join("; ")
    }

    #[test]
    fn every_layer_may_know_what_is_below_it() {
        for (name, below) in [
            ("fleetwide-core-traits", &["serde", "http"][..]),
            ("fleetwide-mem-backend", &["fleetwide-core-traits", "moka"]),
            ("fleetwide-redis-backend", &["fleetwide-core-traits", "redis", "deadpool-redis"]),
            ("fleetwide-limiter", &["fleetwide-core-traits", "tokio"]),
            (
                "fleetwide-session-cache",
                &["fleetwide-core-traits", "fleetwide-two-tier-cache", "lru"],
            ),
            (
                "fleetwide",
                &[
                    "fleetwide-session-cache",
                    "fleetwide-limiter",
                    "fleetwide-http",
                    "fleetwide-redis-backend",
                    "tracing",
                ],
            ),
            ("fleetwide-http", &["fleetwide-limiter", "fleetwide-core-traits", "http"]),
            ("fleetwide-node", &["fleetwide", "fleetwide-http", "axum"]),
            ("fleetwide-chaos", &["fleetwide", "fleetwide-core-traits", "fleetwide-testkit"]),
            ("fleetwide-benches", &["redis", "fleetwide-limiter", "fleetwide-mem-backend"]),
        ] {
            assert_eq!(check(name, below), "", "{name}");
        }
    }

    #[test]
    fn a_capability_that_knows_a_backend_or_another_capability_is_named() {
        for capability in CAPABILITIES.map(|short| format!("fleetwide-{short}")) {
            for above in ["fleetwide-mem-backend", "fleetwide-redis-backend", "fleetwide", "redis"]
            {
                let expected = format!("{capability} must not depend on {above}");
                assert_eq!(check(&capability, &["fleetwide-core-traits", above]), expected);
            }
        }
        assert_eq!(
            check("fleetwide-two-tier-cache", &["fleetwide-pubsub-invalidation"]),
            "fleetwide-two-tier-cache must not depend on fleetwide-pubsub-invalidation"
        );
    }

    #[test]
    fn sessions_stand_on_the_cache_alone_and_nothing_but_the_facade_on_them() {
        for (name, wrong) in [
            ("fleetwide-session-cache", "fleetwide-pubsub-invalidation"),
            ("fleetwide-two-tier-cache", "fleetwide-session-cache"),
            ("fleetwide-idempotency", "fleetwide-session-cache"),
            ("fleetwide-limiter", "fleetwide-two-tier-cache"),
        ] {
            assert_eq!(check(name, &[wrong]), format!("{name} must not depend on {wrong}"));
        }
    }

    #[test]
    fn the_bottom_knows_nothing_of_ours_and_the_top_only_the_facade() {
        for (name, wrong) in [
            ("fleetwide-core-traits", "fleetwide-mem-backend"),
            ("fleetwide-mem-backend", "deadpool-redis"),
            ("fleetwide-redis-backend", "fleetwide-mem-backend"),
            ("fleetwide-node", "fleetwide-redis-backend"),
            ("fleetwide-node", "redis"),
            ("fleetwide-http", "fleetwide"),
            ("fleetwide-http", "fleetwide-mem-backend"),
            ("fleetwide-limiter", "fleetwide-http"),
            ("fleetwide-limiter", "fleetwide-testkit"),
            ("fleetwide-node", "fleetwide-chaos"),
            ("fleetwide-chaos", "fleetwide-two-tier-cache"),
            ("fleetwide-chaos", "redis"),
            ("xtask", "fleetwide"),
        ] {
            assert_eq!(check(name, &[wrong]), format!("{name} must not depend on {wrong}"));
        }
    }

    #[test]
    fn a_new_package_has_to_be_given_a_layer() {
        assert!(check("fleetwide-novelty", &[]).contains("is in no layer"));
    }
}
