//! What the calls of one limiter say of its candidate, and the step that asks both.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use fleetwide_core_traits::{
    BackendError, Executor, ExecutorExt, Key, Malformed, RejectionKind, Told,
};
use parking_lot::Mutex;

use super::report::{Agreement, Divergence, FlippingKey, Opinion, ShadowReport};
use super::top::{Entry, Top};
use crate::algorithm::Algorithm;
use crate::key_share::KeyShare;
use crate::op::{Batch, Compared, Shadowed};
use crate::telemetry::ShadowTelemetry;
use crate::{Answer, PolicyName, Quota, Shadow};

/// What was seen of one candidate.
pub(crate) struct Ledger {
    shadow: Shadow,
    keys: KeyShare,
    policy: PolicyName,
    /// Keyed anew in each process: what it makes of a name says nothing to who can guess names.
    hasher: RandomState,
    /// By whether the real quota allows, and then by whether the candidate's does.
    counts: [[AtomicU64; 2]; 2],
    unjudged: AtomicU64,
    failed: AtomicU64,
    top: Mutex<Top>,
    first: OnceLock<Divergence>,
    telemetry: ShadowTelemetry,
}

impl Ledger {
    pub(crate) fn new(shadow: Shadow, policy: &PolicyName) -> Self {
        Self {
            shadow,
            keys: KeyShare::new(shadow.share),
            policy: policy.clone(),
            hasher: RandomState::new(),
            counts: Default::default(),
            unjudged: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            top: Mutex::default(),
            first: OnceLock::new(),
            telemetry: ShadowTelemetry::new(policy),
        }
    }

    pub(crate) const fn candidate(&self) -> Quota {
        self.shadow.candidate
    }

    /// Whether it is tried on what the user calls `name`.
    pub(crate) fn tries(&self, name: &[u8]) -> bool {
        self.keys.has(name)
    }

    /// Makes the step of `costs` of `key` and of the candidate's key `beside`.
    ///
    /// # Errors
    /// Those of the real step; never one of the candidate's.
    pub(crate) async fn ask<E: Executor, A: Algorithm>(
        &self,
        executor: &E,
        quota: A,
        [key, beside]: [&Key; 2],
        costs: Vec<u32>,
    ) -> Result<Told<Vec<Compared>>, BackendError> {
        let keys = [key.clone(), beside.clone()];
        let Some(step) = Shadowed::new(quota, self.shadow.candidate, keys, costs.clone()) else {
            return Err(Malformed::new("a batch", "none").into());
        };
        let told = match executor.run_told(&step).await {
            Err(error) if may_be_of_candidate(&error) => {
                let alone = Batch::new(quota, key.clone(), costs.clone()).ok_or(error)?;
                let Told { reply, epoch } = executor.run_told(&alone).await?;
                Told { reply: reply.into_iter().map(Compared::alone).collect(), epoch }
            }
            told => told?,
        };
        for (cost, compared) in costs.into_iter().zip(&told.reply) {
            self.note(key, cost, compared);
        }
        Ok(told)
    }

    fn note(&self, key: &Key, cost: u32, compared: &Compared) {
        let Some(candidate) = &compared.candidate else {
            self.failed.fetch_add(1, Ordering::Relaxed);
            self.telemetry.failed();
            return self.unjudged();
        };
        let real = compared.answer.verdict.is_allowed;
        let other = candidate.verdict.is_allowed;
        self.counts[usize::from(real)][usize::from(other)].fetch_add(1, Ordering::Relaxed);
        self.telemetry.judged(real, other);
        if real != other {
            self.note_flip(key, cost, &compared.answer, candidate);
        }
    }

    fn note_flip(&self, key: &Key, cost: u32, real: &Answer, candidate: &Answer) {
        let id = self.hasher.hash_one(key.tag());
        let written = || self.written(key, id).into_boxed_str();
        self.top.lock().count(id, real.verdict.is_allowed, written);
        if self.first.get().is_some() {
            return;
        }
        let divergence = Divergence {
            key: self.written(key, id),
            cost,
            // That of the one which allowed it; the other one says none.
            at: real.at.max(candidate.at),
            real: Opinion::of(real),
            candidate: Opinion::of(candidate),
        };
        if self.first.set(divergence.clone()).is_ok() {
            self.telemetry.diverged(&divergence);
        }
    }

    /// Counts a call that the candidate has not seen.
    pub(crate) fn unjudged(&self) {
        self.unjudged.fetch_add(1, Ordering::Relaxed);
        self.telemetry.unjudged();
    }

    /// What stands for the key in reports: its name as it is in the tag, or digits.
    fn written(&self, key: &Key, id: u64) -> String {
        if !self.shadow.is_showing {
            return format!("{id:016x}");
        }
        // `{namespace:limiter:policy/name}`, in which neither part before the name has ':' or '/'.
        let tag = String::from_utf8_lossy(key.tag());
        let name = tag.trim_matches(['{', '}']).splitn(3, ':').last().unwrap_or_default();
        let name = name.strip_prefix(self.policy.as_str()).unwrap_or(name);
        name.strip_prefix('/').unwrap_or(name).to_owned()
    }

    pub(crate) fn report(&self) -> ShadowReport {
        let count = |real: usize, other: usize| self.counts[real][other].load(Ordering::Relaxed);
        let agreement = Agreement {
            both_allow: count(1, 1),
            both_deny: count(0, 0),
            only_real_allows: count(1, 0),
            only_candidate_allows: count(0, 1),
        };
        let flipping = |entry: Entry| FlippingKey {
            key: entry.key.into_string(),
            only_real_allows: entry.only_real,
            only_candidate_allows: entry.only_candidate,
            over: entry.over,
        };
        ShadowReport {
            candidate: self.shadow.candidate,
            share: self.shadow.share,
            agreement,
            unjudged: self.unjudged.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            flipping: self.top.lock().sorted().into_iter().map(flipping).collect(),
            first_divergence: self.first.get().cloned(),
        }
    }
}

/// Whether a step that wrote nothing may have failed for the candidate's key alone: in memory, where
/// a step is refused as a whole for a cell of another kind, or for the room of one.
fn may_be_of_candidate(error: &BackendError) -> bool {
    match error {
        BackendError::Full { .. } => true,
        BackendError::Rejected(rejection) => rejection.kind == RejectionKind::WrongType,
        _ => false,
    }
}
