//! Timed steps: a claim with a deadline in its state, and the time itself.

use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Wire};

/// Claims a register that nobody holds.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The register.
    pub key: [Key; 1],
    /// Any bytes that name the claimant.
    pub holder: Bytes,
    /// How long the claim lasts.
    pub lasts: Duration,
    /// How long the register is kept; longer than the claim lasts, or the same.
    pub ttl: Duration,
}

/// Who holds a register, and what it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Any bytes that name the holder.
    pub holder: Bytes,
    /// When the claim ends.
    pub until: ServerTime,
}

// KEYS[1] string  "<until µs>:<holder>";  ARGV holder, µs that it lasts, ttl in ms
// returns { until µs, holder } of whoever holds it now
static CLAIM: Script = Script::timed(
    "suite.claim",
    &["local held = redis.call('GET', KEYS[1])
       if held then
         local colon = string.find(held, ':', 1, true)
         local till = tonumber(string.sub(held, 1, colon - 1))
         if till > now then return { till, string.sub(held, colon + 1) } end
       end
       local till = now + tonumber(ARGV[2])
       local value = string.format('%.0f', till) .. ':' .. ARGV[1]
       redis.call('SET', KEYS[1], value, 'PX', ARGV[3])
       return { till, ARGV[1] }"],
);

impl AtomicOp for Claim {
    type State = Claimed;
    type Reply = Claimed;

    fn script(&self) -> &'static Script {
        &CLAIM
    }

    fn keys(&self) -> &[Key] {
        &self.key
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.bytes(&self.holder);
        to.uint(self.lasts.as_micros() as u64);
        to.uint(self.ttl.as_millis() as u64);
    }

    fn apply(
        &self,
        cells: &[Option<&Claimed>],
        now: ServerTime,
        out: &mut Effects<Claimed>,
    ) -> Claimed {
        if let Some(held) = cells[0].filter(|held| held.until > now) {
            return held.clone();
        }
        let claimed = Claimed { holder: self.holder.clone(), until: now.plus(self.lasts) };
        out.put(0, claimed.clone(), self.ttl);
        claimed
    }

    fn decode(&self, reply: Wire) -> Result<Claimed, Malformed> {
        let [until, holder] = reply.into_array()?;
        let until = ServerTime::from_micros(until.into_unsigned()?);
        Ok(Claimed { holder: holder.into_bytes()?, until })
    }
}

/// Answers the time by which the executor decides.
#[derive(Clone, Debug)]
pub struct Now {
    /// Says which server; nothing is read or written.
    pub key: [Key; 1],
}

static NOW: Script = Script::timed("suite.now", &["return now"]);

impl AtomicOp for Now {
    type State = Claimed;
    type Reply = ServerTime;

    fn script(&self) -> &'static Script {
        &NOW
    }

    fn keys(&self) -> &[Key] {
        &self.key
    }

    fn args(&self, _: &mut dyn ArgSink) {}

    fn apply(
        &self,
        _: &[Option<&Claimed>],
        now: ServerTime,
        _: &mut Effects<Claimed>,
    ) -> ServerTime {
        now
    }

    fn decode(&self, reply: Wire) -> Result<ServerTime, Malformed> {
        Ok(ServerTime::from_micros(reply.into_unsigned()?))
    }
}
