//! The script and its pure twin give the same replies and leave the same state, whatever the
//! histories and however ids collide; and no reply makes a decoder panic.

use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{AtomicOp, ExecutorExt, Key, Malformed, Namespace, Tag, Ttl, Wire};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_redis_backend::{Redis, RedisExecutor, RedisUrl};
use fleetwide_testkit::{RedisServer, Reply, RespConnection, seed, unique_namespace};
use proptest::prelude::*;
use rand::Rng;
use rand::rngs::StdRng;

use super::{Allot, IdCell, IdOf, PlaceOf, place_key};
use crate::id::ShortId;

const HISTORIES: usize = 300;
const STEPS: usize = 30;
const PLACES: [&str; 4] = ["1.a/k", "1.b/k", "1.c/k", "1.d/k"];

fn id(text: &str) -> ShortId {
    text.parse().unwrap()
}

/// Ids that all places fight for: they agree in the first lengths, and the longest is nearly always
/// the place's own.
fn candidates(place: usize, rng: &mut StdRng) -> [ShortId; 4] {
    let own = if rng.random_bool(0.1) { 9 } else { place };
    let tail = |len: usize, own: usize| format!("{}{own}", "7".repeat(len - 1));
    [id(&tail(8, 0)), id(&tail(10, place / 2)), id(&tail(13, place / 3)), id(&tail(26, own))]
}

struct Twins {
    admin: RespConnection,
    redis: RedisExecutor,
    memory: MemExecutor,
    shard: Tag,
    /// All keys that a history can touch.
    touched: Vec<Key>,
}

impl Twins {
    async fn step<O>(&self, what: &str, op: O)
    where
        O: AtomicOp<State = IdCell, Reply: PartialEq + std::fmt::Debug>,
    {
        let (shared, local) = (self.redis.run(&op).await, self.memory.run(&op).await);
        assert_eq!(shared, local, "reply of {what}: left is the script's");
    }

    async fn random_step(&mut self, rng: &mut StdRng) {
        let at = rng.random_range(0..PLACES.len());
        let candidates = candidates(at, rng);
        let ttl = Ttl::clamped(Duration::from_secs(rng.random_range(600..900)));
        let place = Bytes::from_static(PLACES[at].as_bytes());
        let op = Allot::new(&self.shard, place, candidates, ttl).unwrap();
        for key in op.keys() {
            if !self.touched.contains(key) {
                self.touched.push(key.clone());
            }
        }
        match rng.random_range(0..10) {
            // As when the server has evicted it.
            0 if !self.touched.is_empty() => {
                let key = &self.touched[rng.random_range(0..self.touched.len())];
                self.admin.command(&[b"DEL".as_slice(), key.as_bytes()]).await.unwrap();
                self.memory.run(&Lost([key.clone()])).await.unwrap();
            }
            1 => {
                let op = IdOf::new(&self.shard, &candidates[3]).unwrap();
                self.step("id of", op).await;
            }
            2 => {
                let id = candidates[rng.random_range(0..4)];
                self.step("place of", PlaceOf::new(&self.shard, &id).unwrap()).await;
            }
            _ => self.step("allot", op).await,
        }
    }

    async fn compare_states(&mut self) {
        for key in &self.touched {
            let local = self.memory.peek_state::<IdCell>(key).map(|cell| match cell {
                IdCell::Id(id) => Bytes::copy_from_slice(id.as_str().as_bytes()),
                IdCell::Place(place) => place,
            });
            let shared = self.admin.command(&[b"GET".as_slice(), key.as_bytes()]).await.unwrap();
            let shared = match shared {
                Reply::Bulk(bytes) => Some(Bytes::from(bytes.to_vec())),
                Reply::Nil => None,
                other => panic!("{other:?}"),
            };
            assert_eq!(shared, local, "{key:?}: left is the script's");
            if shared.is_some() {
                let left = self.admin.command(&[b"PTTL".as_slice(), key.as_bytes()]).await;
                assert!(matches!(left.unwrap(), Reply::Integer(1..)), "{key:?} lives for ever");
            }
        }
    }
}

/// Empties a cell, as a server does that evicts.
struct Lost([Key; 1]);

impl AtomicOp for Lost {
    type State = IdCell;
    type Reply = ();

    fn script(&self) -> &'static fleetwide_core_traits::Script {
        super::allot::script()
    }

    fn keys(&self) -> &[Key] {
        &self.0
    }

    fn args(&self, _to: &mut dyn fleetwide_core_traits::ArgSink) {}

    fn apply(
        &self,
        _cells: &[Option<&IdCell>],
        _now: fleetwide_core_traits::ServerTime,
        out: &mut fleetwide_core_traits::Effects<IdCell>,
    ) {
        out.delete(0);
    }

    fn decode(&self, _reply: Wire) -> Result<(), Malformed> {
        Ok(())
    }
}

/// Red when the script preferred a shorter id that is free to the one that the place has, and when
/// it took the id of another place: the twin did neither.
#[tokio::test]
async fn the_script_and_its_twin_agree_on_replies_and_states() {
    let seed = seed();
    let server = RedisServer::start().await.unwrap();
    let redis = Redis::builder(RedisUrl::parse(&server.url()).unwrap()).build().unwrap();
    redis.ready(Duration::from_secs(10)).await.unwrap();
    let namespace = Namespace::new(&unique_namespace()).unwrap();
    let mut rng = seed.rng();
    for history in 0..HISTORIES {
        let mut twins = Twins {
            admin: server.connect_admin().await.unwrap(),
            redis: redis.executor(),
            memory: Memory::new().executor().clone(),
            shard: super::shard(&namespace, &format!("h{history}"), "77").unwrap(),
            touched: Vec::new(),
        };
        for _ in 0..STEPS {
            twins.random_step(&mut rng).await;
        }
        twins.compare_states().await;
    }
}

/// What the directory promises, step by step, for places whose ids collide.
#[tokio::test]
async fn an_id_is_kept_and_never_taken_from_another_place() {
    let memory = Memory::new();
    let namespace = Namespace::new("ids").unwrap();
    let shard = super::shard(&namespace, "n", "77").unwrap();
    let (short, longer) = (id("77777777"), id("7777777777"));
    let rest = [id("7777777777777"), id("77777777777777777777777777")];
    let other = [id("7777777777778"), id("77777777777777777777777778")];
    let allot = |place: &'static str, rest: [ShortId; 2]| {
        let (shard, executor) = (shard.clone(), memory.executor().clone());
        async move {
            let candidates = [short, longer, rest[0], rest[1]];
            let place = Bytes::from_static(place.as_bytes());
            let op = Allot::new(&shard, place, candidates, Ttl::MAX).unwrap();
            executor.run(&op).await.unwrap()
        }
    };
    assert_eq!(allot("1.a/k", rest).await, Some(short));
    assert_eq!(allot("1.b/k", other).await, Some(longer));
    memory.executor().run(&Lost([place_key(&shard, &short).unwrap()])).await.unwrap();
    assert_eq!(allot("1.b/k", other).await, Some(longer), "kept, although a shorter one is free");
    assert_eq!(allot("1.a/k", rest).await, Some(short), "found again by the place's own record");
}

fn wire() -> impl Strategy<Value = Wire> {
    let leaf = prop_oneof![
        Just(Wire::Nil),
        any::<i64>().prop_map(Wire::Int),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Wire::Bytes(bytes.into())),
        "[0-9a-z]{8,26}".prop_map(|text| Wire::Bytes(text.into())),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| prop::collection::vec(inner, 0..5).prop_map(Wire::Array))
}

proptest! {
    #[test]
    fn any_reply_decodes_or_is_an_error(reply in wire()) {
        let shard = super::shard(&Namespace::new("ns").unwrap(), "n", "77").unwrap();
        let candidates = ["77777777", "7777777777", "7777777777777", "77777777777777777777777777"];
        let candidates = candidates.map(id);
        let op = Allot::new(&shard, Bytes::new(), candidates, Ttl::MAX).unwrap();
        let _ = op.decode(reply.clone());
        let _ = IdOf::new(&shard, &candidates[3]).unwrap().decode(reply.clone());
        let _ = PlaceOf::new(&shard, &candidates[0]).unwrap().decode(reply);
    }
}
