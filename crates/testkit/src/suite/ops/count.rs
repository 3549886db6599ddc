//! A counter with a limit, and a look at several of them.

use std::time::Duration;

use fleetwide_core_traits::{ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Wire};

/// Adds `by` to a counter, unless it would be above `limit` then.
#[derive(Clone, Debug)]
pub struct Count {
    /// The counter.
    pub key: [Key; 1],
    /// How much.
    pub by: u64,
    /// What it may reach.
    pub limit: u64,
    /// How long the counter is kept.
    pub ttl: Duration,
}

/// What [`Count`] and its like answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Whether it was counted.
    pub allowed: bool,
    /// Where the counter is.
    pub count: u64,
}

impl Count {
    /// Adds one, without a limit that matters, and keeps the counter for an hour.
    pub fn one(key: &Key) -> Self {
        let ttl = Duration::from_secs(3600);
        Self { key: [key.clone()], by: 1, limit: 1 << 52, ttl }
    }
}

// KEYS[1] string  the count;  ARGV by, limit, ttl in ms;  returns { allowed 0|1, count }
static COUNT: Script = Script::untimed(
    "suite.count",
    &["local count = tonumber(redis.call('GET', KEYS[1]) or 0)
       local sum = count + tonumber(ARGV[1])
       if sum > tonumber(ARGV[2]) then return { 0, count } end
       redis.call('SET', KEYS[1], string.format('%.0f', sum), 'PX', ARGV[3])
       return { 1, sum }"],
);

impl AtomicOp for Count {
    type State = u64;
    type Reply = Counted;

    fn script(&self) -> &'static Script {
        &COUNT
    }

    fn keys(&self) -> &[Key] {
        &self.key
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.uint(self.by);
        to.uint(self.limit);
        to.uint(self.ttl.as_millis() as u64);
    }

    fn apply(&self, cells: &[Option<&u64>], _: ServerTime, out: &mut Effects<u64>) -> Counted {
        let count = cells[0].copied().unwrap_or(0);
        let sum = count + self.by;
        if sum > self.limit {
            return Counted { allowed: false, count };
        }
        out.put(0, sum, self.ttl);
        Counted { allowed: true, count: sum }
    }

    fn decode(&self, reply: Wire) -> Result<Counted, Malformed> {
        Counted::read(reply)
    }
}

impl Counted {
    pub(super) fn read(reply: Wire) -> Result<Self, Malformed> {
        let [allowed, count] = reply.into_array()?;
        Ok(Self { allowed: allowed.into_int()? == 1, count: count.into_unsigned()? })
    }
}

/// Reads several counters in one native command.
#[derive(Clone, Debug)]
pub struct Read {
    /// The counters.
    pub keys: Vec<Key>,
}

impl Read {
    /// Reads one.
    pub fn one(key: &Key) -> Self {
        Self { keys: vec![key.clone()] }
    }
}

static READ: Script = Script::command("MGET");

impl AtomicOp for Read {
    type State = u64;
    type Reply = Vec<Option<u64>>;

    fn script(&self) -> &'static Script {
        &READ
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn args(&self, _: &mut dyn ArgSink) {}

    fn apply(
        &self,
        cells: &[Option<&u64>],
        _: ServerTime,
        _: &mut Effects<u64>,
    ) -> Vec<Option<u64>> {
        cells.iter().map(|cell| cell.copied()).collect()
    }

    fn decode(&self, reply: Wire) -> Result<Vec<Option<u64>>, Malformed> {
        let values = reply.into_vec()?.into_iter();
        values
            .map(|value| (value != Wire::Nil).then(|| value.into_unsigned()).transpose())
            .collect()
    }
}
