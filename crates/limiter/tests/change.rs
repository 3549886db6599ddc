//! Quotas that change under way, for all calls or for one, over both backends: what was spent stays
//! spent, and nothing that was remembered or bought by the old one stands against the new one.
//!
//! One clock moves this process and the server, and it stands still unless the test moves it.

#[path = "support/clocked.rs"]
mod clocked;
mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use clocked::{Backend, Counted, HOUR, backends};
use fleetwide_core_traits::{Clock, MonoTime, ServerTime};
use fleetwide_limiter::{
    CheckError, ConfigError, Leasing, Limiter, Quota, QuotaChangeError, Refunded, Source,
};
use fleetwide_testkit::{SimClock, eventually};

/// How long an event of these tests may take; they take milliseconds.
const SOON: Duration = Duration::from_secs(20);

/// `max` cells an hour, counted in each way; the even pace is the same for all maxima.
fn quotas(max: u64) -> [Quota; 5] {
    [
        Quota::gcra(10, HOUR, max).unwrap(),
        Quota::sliding_window(max, HOUR).unwrap(),
        Quota::token_bucket(10, HOUR, max).unwrap(),
        Quota::fixed_window(max, HOUR).unwrap(),
        Quota::sliding_log(max, HOUR).unwrap(),
    ]
}

async fn exhaust(limiter: &Limiter<Counted>, key: &str) {
    while limiter.check(key).await.unwrap().is_allowed() {}
}

async fn source(limiter: &Limiter<Counted>, key: &str) -> Source {
    limiter.check(key).await.unwrap().source()
}

// Red when the counts of a new quota begin anew, and when the quota stays as it was.
#[tokio::test]
async fn what_was_spent_stays_spent_when_the_quota_is_raised_or_lowered() {
    for backend in backends().await {
        for (way, ten) in quotas(10).into_iter().enumerate() {
            let limiter = backend.options(&format!("q{way}"), ten).build().unwrap();
            let clone = limiter.clone();
            assert_eq!(limiter.check_cost("ada", 8).await.unwrap().remaining(), 2);
            limiter.set_quota(quotas(15)[way]).unwrap();
            assert_eq!(clone.quota(), quotas(15)[way], "clones are one limiter");
            assert_eq!(clone.check("ada").await.unwrap().remaining(), 6);
            limiter.set_quota(quotas(5)[way]).unwrap();
            let lowered = limiter.check("ada").await.unwrap();
            assert!(!lowered.is_allowed() && lowered.remaining() == 0, "{ten:?}");
            assert_eq!(limiter.check_cost("ada", 6).await.unwrap_err(), oversize(6, 5));
            limiter.set_quota(ten).unwrap();
            assert_eq!(limiter.peek("ada").await.unwrap().remaining(), 1);
        }
    }
}

const fn oversize(cost: u64, max: u32) -> CheckError {
    CheckError::Oversize { cost, max }
}

// Red when the refusals of before are not void.
#[tokio::test]
async fn raise_is_felt_at_once_by_who_was_refused_before_it() {
    for backend in backends().await {
        for (way, ten) in quotas(10).into_iter().enumerate() {
            let limiter = backend.options(&format!("q{way}"), ten).build().unwrap();
            exhaust(&limiter, "ada").await;
            assert_eq!(source(&limiter, "ada").await, Source::Remembered);
            limiter.set_quota(quotas(12)[way]).unwrap();
            assert_eq!(limiter.check("ada").await.unwrap().remaining(), 1, "{ten:?}");
        }
    }
}

/// A clock that does something once, in the middle of what asks it for the time.
#[derive(Clone)]
struct Hooked {
    clock: SimClock,
    hook: Arc<Mutex<Option<Hook>>>,
}

type Hook = Box<dyn FnOnce() + Send>;

impl Hooked {
    fn new(backend: &Backend) -> Self {
        Self { clock: backend.clock.clone(), hook: Arc::default() }
    }

    fn once(&self, hook: impl FnOnce() + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }

    fn disarm(&self) -> bool {
        self.hook.lock().unwrap().take().is_none()
    }
}

impl Clock for Hooked {
    fn now(&self) -> MonoTime {
        let hook = self.hook.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        self.clock.now()
    }

    fn server_time(&self) -> ServerTime {
        self.clock.server_time()
    }
}

// Red when it is not asked whether the quota is still the one of the question.
#[tokio::test]
async fn refusal_by_the_quota_of_before_is_not_remembered_under_the_new_one() {
    let backend = Backend::memory();
    for (way, ten) in quotas(10).into_iter().enumerate() {
        let clock = Hooked::new(&backend);
        let options = || backend.options(&format!("q{way}"), ten);
        let limiter = options().clock(Arc::new(clock.clone())).build().unwrap();
        exhaust(&options().build().unwrap(), "ada").await;
        let changing = limiter.clone();
        // The call has begun, and has not asked yet.
        clock.once(move || changing.set_quota(quotas(12)[way]).unwrap());
        assert!(!limiter.check("ada").await.unwrap().is_allowed());
        assert!(clock.disarm(), "the quota was changed");
        assert_eq!(limiter.check("ada").await.unwrap().remaining(), 1, "{ten:?}");
    }
}

// Red without the word to the others: the clock stands still, so what is remembered would be for ever.
#[tokio::test]
async fn raise_voids_what_other_instances_remember_when_they_hear_of_it() {
    for backend in backends().await {
        let [slow, fast] = [1, 10].map(|max| Quota::gcra(max, HOUR, 10).unwrap());
        let [one, other] = [0; 2].map(|_| backend.with_bus("test", slow).build().unwrap());
        exhaust(&other, "ada").await;
        one.set_quota(fast).unwrap();
        let is_asked = async || source(&other, "ada").await == Source::Shared;
        eventually(SOON, "a refusal that is asked about again", is_asked).await;
        // It still decides by its own quota, until it is told to change it too.
        assert!(!other.check("ada").await.unwrap().is_allowed());
        let twelve = Quota::gcra(10, HOUR, 12).unwrap();
        other.set_quota(twelve).unwrap();
        assert_eq!(other.check("ada").await.unwrap().remaining(), 1);
    }
}

#[tokio::test]
async fn quota_of_another_algorithm_is_refused_and_changes_nothing() {
    let backend = Backend::memory();
    for (way, ten) in quotas(10).into_iter().enumerate() {
        let limiter = backend.options(&format!("q{way}"), ten).build().unwrap();
        for (other, quota) in quotas(12).into_iter().enumerate().filter(|(other, _)| *other != way)
        {
            assert_eq!(limiter.set_quota(quota), Err(QuotaChangeError::OtherAlgorithm), "{other}");
            let error = limiter.check_with_quota("ada", 1, quota).await.unwrap_err();
            assert_eq!(error, CheckError::OtherAlgorithm);
        }
        assert_eq!(limiter.quota(), ten);
        assert_eq!(limiter.check("ada").await.unwrap().remaining(), 9);
    }
}

#[tokio::test]
async fn receipt_from_before_a_change_of_the_maximum_is_still_good() {
    for backend in backends().await {
        for (way, ten) in quotas(10).into_iter().enumerate() {
            let limiter = backend.options(&format!("q{way}"), ten).build().unwrap();
            let grant = limiter.check_with_receipt("ada", 4).await.unwrap();
            limiter.set_quota(quotas(12)[way]).unwrap();
            assert_eq!(limiter.check("ada").await.unwrap().remaining(), 7);
            assert_eq!(limiter.refund(grant.receipt.unwrap()).await.unwrap(), Refunded::All);
            assert_eq!(limiter.peek("ada").await.unwrap().remaining(), 11, "{ten:?}");
        }
    }
}

fn leased(backend: &Backend, max: u64) -> Limiter<Counted> {
    let quota = Quota::sliding_window(max, HOUR).unwrap();
    backend.options("leased", quota).leased(Leasing::new()).build().unwrap()
}

/// Calls until cells are in hand; how many calls that takes.
async fn warm_up(limiter: &Limiter<Counted>) -> u32 {
    for calls in 1..100_000 {
        if source(limiter, "hot").await == Source::Leased {
            return calls;
        }
        tokio::task::yield_now().await;
    }
    panic!("nothing is bought")
}

// Red when what is in hand stays there: calls would be allowed that the lowered limit refuses.
#[tokio::test]
async fn lowered_limit_is_not_passed_with_cells_that_were_bought_before() {
    for backend in backends().await {
        let limiter = leased(&backend, 10_000);
        let mut spent = warm_up(&limiter).await;
        while spent < 100 {
            spent += u32::from(limiter.check("hot").await.unwrap().is_allowed());
            tokio::task::yield_now().await;
        }
        limiter.set_quota(Quota::sliding_window(100, HOUR).unwrap()).unwrap();
        for _ in 0..50 {
            let decision = limiter.check("hot").await.unwrap();
            assert!(!decision.is_allowed() && decision.source() != Source::Leased);
        }
        // What was in hand has gone back, so all that counts is what was used.
        let is_back = async || {
            limiter.set_quota(Quota::sliding_window(1_000, HOUR).unwrap()).unwrap();
            limiter.peek("hot").await.unwrap().remaining() == 1_000 - spent
        };
        eventually(SOON, "what was not used", is_back).await;
        limiter.shutdown().await;
    }
}

// Red when it is not asked whether the quota is still the one of the purchase.
#[tokio::test]
async fn what_is_bought_by_the_quota_of_before_is_not_used_under_the_new_one() {
    let backend = Backend::memory();
    let clock = Hooked::new(&backend);
    let [large, small] = [10_000, 50].map(|max| Quota::sliding_window(max, HOUR).unwrap());
    let options = backend.options("leased", large).leased(Leasing::new());
    let limiter = options.clock(Arc::new(clock.clone())).build().unwrap();
    for _ in 0..60 {
        let _ = limiter.check("hot").await.unwrap();
    }
    for _ in 0..10_000 {
        let _ = limiter.check("hot").await.unwrap();
        let changing = limiter.clone();
        // A purchase has begun, if there is one, and has not asked yet.
        clock.once(move || changing.set_quota(small).unwrap());
        tokio::task::yield_now().await;
        if clock.disarm() {
            break;
        }
    }
    assert_eq!(limiter.quota(), small, "something was bought");
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert!(!limiter.check("hot").await.unwrap().is_allowed());
    limiter.shutdown().await;
}

// Red when leases go on by the terms of before.
#[tokio::test]
async fn leases_are_as_large_as_the_new_quota_lets_them_be() {
    for backend in backends().await {
        let limiter = leased(&backend, 100_000);
        warm_up(&limiter).await;
        // A 32nd of it is 3.
        limiter.set_quota(Quota::sliding_window(100, HOUR).unwrap()).unwrap();
        limiter.reset("hot").await.unwrap();
        let (mut spent, mut leased) = (0, 0);
        for _ in 0..60 {
            let decision = limiter.check("hot").await.unwrap();
            spent += u32::from(decision.is_allowed());
            leased += u32::from(decision.source() == Source::Leased);
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            let left = limiter.peek("hot").await.unwrap().remaining();
            assert!(left + spent <= 100 && left + spent >= 97, "{left} left of {spent}");
        }
        assert!(leased > 0, "they go on");
        limiter.shutdown().await;
    }
}

#[tokio::test]
async fn quota_that_leases_do_not_fit_is_refused_and_changes_nothing() {
    let backend = Backend::memory();
    let hour = Quota::sliding_window(100, HOUR).unwrap();
    let minutes = Duration::from_secs(600);
    let leasing = Leasing::new().lifetime(minutes);
    let limiter = backend.options("leased", hour).leased(leasing).build().unwrap();
    let short = Quota::sliding_window(100, minutes).unwrap();
    let max = minutes / 2;
    let error = ConfigError::LeaseLifetime { lifetime: minutes, max };
    assert_eq!(limiter.set_quota(short), Err(QuotaChangeError::Leases(error)));
    assert_eq!(limiter.quota(), hour);
}

// Red when it decides by the limiter's own quota, or counts by itself.
#[tokio::test]
async fn call_by_a_quota_of_its_own_spends_of_the_same_count() {
    for backend in backends().await {
        for (way, ten) in quotas(10).into_iter().enumerate() {
            let limiter = backend.options(&format!("q{way}"), ten).build().unwrap();
            let large = quotas(20)[way];
            let spent = limiter.check_with_quota("ada", 12, large).await.unwrap();
            assert_eq!((spent.is_allowed(), spent.remaining()), (true, 8), "{ten:?}");
            assert!(!limiter.check("ada").await.unwrap().is_allowed());
            assert_eq!(limiter.check_with_quota("ada", 8, large).await.unwrap().remaining(), 0);
            assert!(!limiter.check_with_quota("ada", 1, large).await.unwrap().is_allowed());
            let free = limiter.check_with_quota("ada", 0, large).await.unwrap();
            assert!(free.is_allowed());
            let error = limiter.check_with_quota("ada", 21, large).await.unwrap_err();
            assert_eq!(error, oversize(21, 20));
            assert_eq!(limiter.quota(), ten);
        }
    }
}

// Red when it recalls what the limiter's own quota refused, and when its own refusal is remembered.
#[tokio::test]
async fn call_by_a_quota_of_its_own_neither_uses_nor_leaves_a_remembered_refusal() {
    for backend in backends().await {
        let [small, ten, large] = [3, 10, 20].map(|max| Quota::sliding_window(max, HOUR).unwrap());
        let limiter = backend.limiter(ten);
        exhaust(&limiter, "ada").await;
        assert_eq!(source(&limiter, "ada").await, Source::Remembered);
        let allowed = limiter.check_with_quota("ada", 1, large).await.unwrap();
        assert_eq!((allowed.source(), allowed.remaining()), (Source::Shared, 9));
        assert_eq!(limiter.check_cost("eve", 3).await.unwrap().remaining(), 7);
        assert!(!limiter.check_with_quota("eve", 1, small).await.unwrap().is_allowed());
        assert_eq!(limiter.check("eve").await.unwrap().remaining(), 6);
    }
}

// Red when it takes what is in hand.
#[tokio::test]
async fn call_by_a_quota_of_its_own_uses_nothing_that_was_bought_ahead() {
    let backend = Backend::memory();
    let limiter = leased(&backend, 10_000);
    warm_up(&limiter).await;
    let quota = Quota::sliding_window(10_000, HOUR).unwrap();
    for _ in 0..20 {
        let decision = limiter.check_with_quota("hot", 1, quota).await.unwrap();
        assert_eq!(decision.source(), Source::Shared);
    }
    assert_eq!(source(&limiter, "hot").await, Source::Leased, "there are some");
    limiter.shutdown().await;
}
