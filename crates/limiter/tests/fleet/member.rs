//! One process of the fleet.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleetwide_core_traits::Namespace;
use fleetwide_limiter::{GcraQuota, Leasing, Limiter, Quota, Source, Unavailable, WindowQuota};
use fleetwide_redis_backend::{Redis, RedisExecutor, RedisUrl};
use tokio::time::{Instant, sleep};

/// What the fleet does with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Window,
    Gcra,
    LeasedWindow,
    LeasedGcra,
    /// GCRA in an outage, each by its share.
    Share,
    /// A window that does not end while a primary does.
    Failover,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Window,
        Self::Gcra,
        Self::LeasedWindow,
        Self::LeasedGcra,
        Self::Share,
        Self::Failover,
    ];

    /// Cells that a process has in hand at most.
    pub(crate) const CELLS_MAX: u32 = 12;
    /// How long they are good.
    pub(crate) const LIFETIME: Duration = Duration::from_millis(100);
    /// By how many a share is divided.
    pub(crate) const ASSUMED: u32 = 32;

    pub(crate) fn window(self) -> WindowQuota {
        match self {
            Self::Failover => WindowQuota::new(9_000, Duration::from_secs(3600)),
            Self::LeasedWindow => WindowQuota::new(1_000, Duration::from_millis(400)),
            // So long that a restart which lost the count would show.
            _ => WindowQuota::new(700, Duration::from_secs(3)),
        }
        .unwrap()
    }

    pub(crate) fn gcra(self) -> GcraQuota {
        let second = Duration::from_secs(1);
        match self {
            Self::LeasedGcra => GcraQuota::new(2_000, second, 1_000),
            // Both divide by the instances.
            Self::Share => GcraQuota::new(500, second, 640),
            _ => GcraQuota::new(250, second, 400),
        }
        .unwrap()
    }

    pub(crate) fn leasing(self) -> Option<Leasing> {
        let leasing = Leasing::new().cells_max(Self::CELLS_MAX).lifetime(Self::LIFETIME);
        matches!(self, Self::LeasedWindow | Self::LeasedGcra).then_some(leasing)
    }

    /// All who lease are quiet together half of the time, so that there is something left to lease.
    fn quiet(self, now_us: u64) -> Duration {
        const HALF_US: u64 = 300_000;
        let into_us = now_us % (2 * HALF_US);
        let is_quiet = self.leasing().is_some() && into_us >= HALF_US;
        Duration::from_micros(if is_quiet { 2 * HALF_US - into_us } else { 0 })
    }

    fn quota(self) -> Quota {
        match self {
            Self::Window | Self::LeasedWindow | Self::Failover => self.window().into(),
            Self::Gcra | Self::LeasedGcra | Self::Share => self.gcra().into(),
        }
    }

    fn unavailable(self) -> Unavailable {
        let share = Unavailable::LocalShare { instances: Self::ASSUMED };
        if self == Self::Share { share } else { Unavailable::Deny }
    }

    /// Calls in a row, and the pause after them.
    fn pace(self) -> (usize, Duration) {
        let (calls, millis) = if self.leasing().is_some() { (20, 60) } else { (1, 20) };
        (calls, Duration::from_millis(millis))
    }
}

/// What a process is told on its command line.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) kind: Kind,
    pub(crate) number: usize,
    /// Where its lines go.
    pub(crate) lines: PathBuf,
    pub(crate) url: String,
}

impl Order {
    const PREFIX: &str = "member:";

    /// One word, which the test runner in the process takes for the name of a test that there is not.
    pub(crate) fn to_arg(&self) -> String {
        let kind = Kind::ALL.iter().position(|&kind| kind == self.kind).expect("it is of them");
        let Self { number, lines, url, .. } = self;
        format!("{}{kind},{number},{},{url}", Self::PREFIX, lines.display())
    }

    pub(crate) fn parse(arg: &str) -> Option<Self> {
        let words: Vec<&str> = arg.strip_prefix(Self::PREFIX)?.splitn(4, ',').collect();
        Some(Self {
            kind: Kind::ALL[words[0].parse::<usize>().ok()?],
            number: words[1].parse().ok()?,
            lines: words[2].into(),
            url: words[3].to_owned(),
        })
    }

    /// Calls and writes until the process is killed, or at last for so long.
    pub(crate) async fn carry_out(self, at_most: Duration) {
        let until = Instant::now() + at_most;
        let limiter = self.limiter();
        let mut lines = File::options().create(true).append(true).open(&self.lines).unwrap();
        let cost = 1 + self.number as u64 % 3;
        let (calls, pause) = self.kind.pace();
        while Instant::now() < until {
            let (mut refused, mut text) = (0, String::new());
            for _ in 0..calls {
                let begin = now_us();
                let decision = limiter.check_cost("one", cost).await.unwrap();
                let end = now_us();
                if self.kind == Kind::Failover && decision.source() == Source::Shared {
                    let cost = if decision.is_allowed() { cost } else { 0 };
                    writeln!(text, "shared {begin} {end} {cost}").unwrap();
                } else if decision.is_allowed() {
                    let source = decision.source();
                    self.assert_may_allow(source);
                    writeln!(text, "{} {begin} {end} {cost}", source.name()).unwrap();
                } else {
                    refused += 1;
                }
            }
            if refused > 0 {
                writeln!(text, "refused {refused}").unwrap();
            }
            lines.write_all(text.as_bytes()).unwrap();
            sleep(pause + self.kind.quiet(now_us())).await;
        }
    }

    fn assert_may_allow(&self, source: Source) {
        let is_right = match source {
            Source::Shared => true,
            Source::Leased => self.kind.leasing().is_some(),
            Source::LocalShare => self.kind == Kind::Share,
            _ => false,
        };
        assert!(is_right, "{source:?} has allowed a call of {:?}", self.kind);
    }

    /// Of every second process without a memory of refusals, which keeps many calls from the server.
    fn limiter(&self) -> Limiter<RedisExecutor> {
        let [soon, later] = [10, 50].map(Duration::from_millis);
        let url = RedisUrl::parse(&self.url).unwrap();
        let redis = Redis::builder(url).reconnect_backoff(soon, later).build().unwrap();
        let namespace = Namespace::new("fleet").unwrap();
        let limiter = Limiter::builder(redis.executor(), &namespace, "test", self.kind.quota())
            .on_unavailable(self.kind.unavailable())
            .deadline(Duration::from_millis(400))
            .probe_every(Duration::from_millis(20));
        let limiter = match self.kind.leasing() {
            Some(leasing) => limiter.leased(leasing),
            None => limiter,
        };
        let is_forgetful = self.number.is_multiple_of(2) || self.kind == Kind::Failover;
        let limiter = if is_forgetful { limiter.deny_cache(Duration::ZERO) } else { limiter };
        limiter.build().unwrap()
    }
}

/// By the clock that all share.
pub(crate) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}
