//! What several levels answer together.

use crate::{Decision, PolicyName, Source, Verdict};

/// The answer to one call over several levels. A refusal is an answer, not an error.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a refusal that nobody looks at limits nothing"]
pub struct Ruling {
    /// Whether the caller may go on. What is left is what the scarcest level has; a refusal's
    /// `retry_after` is the longest of all levels: one microsecond earlier the call is refused, and
    /// at that time it is allowed, if nobody else spends meanwhile.
    pub decision: Decision,
    /// What each level says by itself, in their order. In a refusal, those that would allow the call
    /// were not debited.
    pub levels: Vec<LevelRuling>,
}

/// What one level says.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelRuling {
    /// The level.
    pub name: PolicyName,
    /// What it would decide alone.
    pub decision: Decision,
}

impl Ruling {
    /// Whether the caller may go on.
    pub const fn is_allowed(&self) -> bool {
        self.decision.is_allowed()
    }

    /// The level that refuses; of several, the one that does so for the longest time.
    pub fn refused_by(&self) -> Option<&PolicyName> {
        let refused = self.levels.iter().filter(|level| !level.decision.is_allowed());
        refused.max_by_key(|level| level.decision.retry_after()).map(|level| &level.name)
    }

    pub(super) fn of<'a>(
        names: impl Iterator<Item = &'a PolicyName>,
        verdicts: &[Verdict],
        source: Source,
    ) -> Self {
        let most = |number: fn(&Verdict) -> u64| verdicts.iter().map(number).max().unwrap_or(0);
        let all = Verdict {
            is_allowed: verdicts.iter().all(|verdict| verdict.is_allowed),
            remaining: verdicts.iter().map(|verdict| verdict.remaining).min().unwrap_or(0),
            retry_after_us: most(|verdict| verdict.retry_after_us),
            reset_after_us: most(|verdict| verdict.reset_after_us),
        };
        let level = |(name, verdict): (&PolicyName, &Verdict)| LevelRuling {
            name: name.clone(),
            decision: Decision::new(*verdict, source),
        };
        let levels = names.zip(verdicts).map(level).collect();
        Self { decision: Decision::new(all, source), levels }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    // Red with the wait of the first level that refuses, or of the last.
    #[test]
    fn ruling_waits_for_the_slowest_level_and_has_what_the_scarcest_has() {
        let names: Vec<PolicyName> =
            ["a", "b", "c", "d"].map(|name| PolicyName::new(name).unwrap()).into();
        let verdict = |wait: u64, left: u32| Verdict {
            is_allowed: wait == 0,
            remaining: left,
            retry_after_us: wait,
            reset_after_us: 10 * wait + 1,
        };
        let verdicts = [verdict(0, 9), verdict(5, 3), verdict(7, 4), verdict(6, 5)];
        let refused = Ruling::of(names.iter(), &verdicts, Source::Shared);
        assert_eq!(refused.decision.retry_after(), Some(Duration::from_micros(7)));
        assert_eq!(refused.refused_by().map(PolicyName::as_str), Some("c"));
        assert_eq!(refused.decision.reset_after(), Duration::from_micros(71));
        assert_eq!(
            (refused.decision.remaining(), refused.levels[0].decision.is_allowed()),
            (3, true)
        );
        let allowed = Ruling::of(names.iter(), &[verdict(0, 9), verdict(0, 2)], Source::Shared);
        assert!(allowed.is_allowed() && allowed.refused_by().is_none());
        assert_eq!(allowed.decision.remaining(), 2);
    }
}
