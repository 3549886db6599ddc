//! A write whose caller leaves is settled all the same: here at once, everywhere soon.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Node, PATIENCE, namespace, node, quick};
use fleetwide_core_traits::{BackendError, ErasedOp, Executor, Script};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_testkit::{Drops, Ended, eventually};
use fleetwide_two_tier_cache::{CacheTag, PutOptions};

/// An executor that takes its time over the next write when it is told to, and carries it out
/// before that time or after it.
#[derive(Clone)]
struct Dawdler {
    inner: MemExecutor,
    slow: Arc<AtomicBool>,
    /// Whether it has begun one.
    began: Arc<AtomicBool>,
    done_first: bool,
}

const WRITES: [&str; 6] = [
    "cache_put",
    "cache_invalidate",
    "cache_bump",
    "cache_clear",
    "cache_put_many",
    "cache_invalidate_many",
];

impl Executor for Dawdler {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        let is_write = WRITES.contains(&op.script().name());
        // One at a time: what is repeated later goes through.
        if !is_write || !self.slow.swap(false, Ordering::SeqCst) {
            return self.inner.execute(op).await;
        }
        self.began.store(true, Ordering::SeqCst);
        if self.done_first {
            self.inner.execute(op).await?;
        }
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        if self.done_first { Ok(()) } else { self.inner.execute(op).await }
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.inner.prepare(scripts);
    }
}

#[derive(Clone, Copy, Debug)]
enum Write {
    Put,
    Invalidate,
    Tag,
    Clear,
    PutMany,
    InvalidateMany,
}

fn key() -> String {
    "key".to_owned()
}

fn tag() -> CacheTag {
    CacheTag::new("tag").unwrap()
}

async fn write(node: &Node<Dawdler>, write: Write) {
    let cache = &node.cache;
    let _token = match write {
        Write::Put => cache.put(&key(), "new".to_owned()).await.unwrap(),
        Write::Invalidate => cache.invalidate(&key()).await.unwrap(),
        Write::Tag => cache.invalidate_tag(&tag()).await.unwrap(),
        Write::Clear => cache.clear().await.unwrap(),
        Write::PutMany => cache.put_many([(key(), "new".to_owned())]).await.unwrap(),
        Write::InvalidateMany => cache.invalidate_many(&[key()]).await.unwrap(),
    };
}

/// Red without the drop of `Undecided`: the old value stays in the L1 of both, and in L2.
async fn a_dropped_write_is_settled(kind: Write, done_first: bool) {
    let (memory, namespace) = (Memory::new(), namespace());
    let (slow, began) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let inner = memory.executor().clone();
    let executor =
        Dawdler { inner, slow: Arc::clone(&slow), began: Arc::clone(&began), done_first };
    let a = node(executor, memory.bus(), &namespace).await;
    let b = node(memory.executor().clone(), memory.bus(), &namespace).await;
    // The harness makes the future first, and polls it after that.
    let make = || {
        let (a, b, slow) = (&a, &b, &slow);
        async move {
            let old = PutOptions::default().tag(tag());
            b.cache.put_with(&key(), "old".to_owned(), old).await.unwrap();
            let warm = async || a.cache.get(&key()).await.is_some_and(|hit| *hit == "old");
            eventually(PATIENCE, "the old value", warm).await;
            slow.store(true, Ordering::SeqCst);
            write(a, kind).await;
        }
    };
    let mut dropped = 0;
    let check = async |ended| {
        slow.store(false, Ordering::SeqCst);
        let was_dropped = matches!(ended, Ended::Dropped(_));
        // Before that, nothing was asked for.
        if began.swap(false, Ordering::SeqCst) && was_dropped {
            dropped += 1;
            let here = a.cache.peek(&key());
            assert!(here.is_none_or(|hit| *hit != "old"), "served here after {kind:?}");
            let idle = async || a.cache.stats().queued == 0;
            eventually(PATIENCE, "the queue to be empty", idle).await;
            let gone = async || b.cache.get(&key()).await.is_none_or(|hit| *hit != "old");
            eventually(PATIENCE, "the old value to go", gone).await;
            // A load puts something current there again.
            let loaded = a.cache.get_or_load(&key(), quick("loaded")).await.unwrap();
            assert_ne!(*loaded, "old");
        }
    };
    Drops::new().run(make, check).await;
    assert!(dropped >= 3, "only {dropped} drops met the write");
}

#[tokio::test]
async fn a_dropped_put_leaves_nothing_old_behind() {
    a_dropped_write_is_settled(Write::Put, false).await;
    a_dropped_write_is_settled(Write::Put, true).await;
}

#[tokio::test]
async fn a_dropped_invalidation_leaves_nothing_old_behind() {
    a_dropped_write_is_settled(Write::Invalidate, false).await;
    a_dropped_write_is_settled(Write::Invalidate, true).await;
}

#[tokio::test]
async fn a_dropped_bump_of_a_tag_leaves_nothing_old_behind() {
    a_dropped_write_is_settled(Write::Tag, false).await;
}

#[tokio::test]
async fn a_dropped_clear_leaves_nothing_old_behind() {
    a_dropped_write_is_settled(Write::Clear, false).await;
}

#[tokio::test]
async fn a_dropped_write_of_many_keys_leaves_nothing_old_behind() {
    a_dropped_write_is_settled(Write::PutMany, false).await;
    a_dropped_write_is_settled(Write::InvalidateMany, false).await;
}
