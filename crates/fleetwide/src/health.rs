//! How the backend of each role is doing.

use fleetwide_core_traits::Health;

#[cfg(feature = "redis")]
pub use fleetwide_redis_backend::Info;

/// Stands for a server's `INFO` in a build without the feature `redis`, where there is none.
#[cfg(not(feature = "redis"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info(());

/// The health of each role at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetHealth {
    pub(crate) roles: Vec<RoleHealth>,
}

/// The health of one role.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoleHealth {
    /// `cache`, `events` or `limiter`.
    pub name: &'static str,
    /// Whether a Redis is configured for it. Without one it is in memory, and always up.
    pub enabled: bool,
    /// How it is doing.
    pub health: Health,
}

/// Where a fleet keeps its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// In this process alone.
    Memory,
    /// In Redis, for at least one of its roles.
    Redis,
}

impl FleetHealth {
    /// The roles, in a fixed order.
    pub fn roles(&self) -> impl Iterator<Item = &RoleHealth> {
        self.roles.iter()
    }

    /// The worst of all roles.
    pub fn overall(&self) -> Health {
        let worst = self.roles.iter().map(|role| &role.health).max_by_key(|health| rank(health));
        worst.cloned().unwrap_or(Health::Up)
    }

    /// Which role cannot be reached and why, if there is one: `cache: connection refused`.
    pub fn unreachable(&self) -> Option<String> {
        self.roles.iter().find_map(|role| match &role.health {
            Health::Down { reason, .. } => Some(format!("{}: {reason}", role.name)),
            _ => None,
        })
    }
}

fn rank(health: &Health) -> u8 {
    match health {
        Health::Up => 0,
        Health::Down { .. } => 2,
        _ => 1,
    }
}

impl Mode {
    /// `memory` or `redis`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
        }
    }
}

#[cfg(test)]
mod tests {
    use fleetwide_core_traits::MonoTime;

    use super::*;

    fn health(cache: Health, events: Health) -> FleetHealth {
        let role = |name, health| RoleHealth { name, enabled: true, health };
        FleetHealth { roles: vec![role("cache", cache), role("events", events)] }
    }

    #[test]
    fn the_worst_role_decides_and_only_a_role_that_is_down_makes_unready() {
        let since = MonoTime::from_micros(1);
        let degraded = Health::Degraded { reason: "slow".to_owned(), since };
        let down = Health::Down { reason: "refused".to_owned(), since };
        assert_eq!(health(Health::Up, Health::Up).overall(), Health::Up);
        assert_eq!(health(degraded.clone(), Health::Up).unreachable(), None);
        let mixed = health(degraded, down.clone());
        assert_eq!(mixed.overall(), down);
        assert_eq!(mixed.unreachable().as_deref(), Some("events: refused"));
    }
}
