//! Names of topics, and patterns that select them; parsed once.

use std::fmt;
use std::sync::Arc;

/// Bytes that a topic or a pattern may have.
const BYTES_MAX: usize = 256;

/// What an event is about, such as `orders:42:paid`. Cheap to clone.
///
/// 1 to 256 bytes of text without control characters and without `*`, which patterns use.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// Selects topics: `*` stands for any text, also for none, and everything else for itself.
///
/// `orders:*` selects `orders:42` and `orders:42:paid`; `*:paid` selects the second. The same
/// bounds as for a [`Topic`] hold.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Arc<str>);

/// Why a text is no topic or pattern.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// It has no character.
    #[error("a topic must not be empty")]
    Empty,
    /// It has more than 256 bytes.
    #[error("a topic may have 256 bytes, this one has {0}")]
    TooLong(usize),
    /// It has a control character, such as a line break.
    #[error("a topic must not have a control character")]
    Control,
    /// A topic has a `*`, which only a pattern may.
    #[error("a topic must not have a '*'; only a pattern may")]
    Star,
}

impl Topic {
    /// Parses a topic.
    ///
    /// # Errors
    /// [`TopicError`] if it is empty, too long, or has a character that it may not have.
    pub fn new(text: &str) -> Result<Self, TopicError> {
        check(text)?;
        if text.contains('*') {
            return Err(TopicError::Star);
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`TopicError`] if it is empty, too long, or has a control character.
    pub fn new(text: &str) -> Result<Self, TopicError> {
        check(text)?;
        Ok(Self(text.into()))
    }

    /// Selects every topic.
    pub fn all() -> Self {
        Self("*".into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it selects `topic`. Takes at most the product of both lengths.
    pub fn selects(&self, topic: &Topic) -> bool {
        selects(self.0.as_bytes(), topic.0.as_bytes())
    }
}

impl From<&Topic> for Pattern {
    /// Selects this topic and no other.
    fn from(topic: &Topic) -> Self {
        Self(topic.0.clone())
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

fn check(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        Err(TopicError::Empty)
    } else if text.len() > BYTES_MAX {
        Err(TopicError::TooLong(text.len()))
    } else if text.chars().any(char::is_control) {
        Err(TopicError::Control)
    } else {
        Ok(())
    }
}

/// Goes on with the last `*` whenever what follows it does not fit: an earlier one need never be
/// tried again, because the later one can take over whatever it would.
fn selects(pattern: &[u8], topic: &[u8]) -> bool {
    let (mut at, mut in_topic) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while in_topic < topic.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            last_star = Some((at, in_topic));
        } else if pattern.get(at) == Some(&topic[in_topic]) {
            at += 1;
            in_topic += 1;
        } else if let Some((after_star, taken)) = &mut last_star {
            *taken += 1;
            (at, in_topic) = (*after_star, *taken);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn selected<'a>(pattern: &str, topics: &[&'a str]) -> Vec<&'a str> {
        let pattern = Pattern::new(pattern).unwrap();
        topics
            .iter()
            .copied()
            .filter(|topic| pattern.selects(&Topic::new(topic).unwrap()))
            .collect()
    }

    #[test]
    fn a_star_stands_for_any_text_and_for_none() {
        let topics = ["registry:", "registry:a", "registry:a:b", "registry", "x:registry:a"];
        assert_eq!(selected("registry:*", &topics), ["registry:", "registry:a", "registry:a:b"]);
        assert_eq!(selected("*:a", &topics), ["registry:a", "x:registry:a"]);
        assert_eq!(selected("*gistr*:*", &topics).len(), 4);
        assert_eq!(selected("registry", &topics), ["registry"]);
        assert_eq!(selected("*", &topics).len(), 5);
    }

    #[test]
    fn a_topic_is_checked_once() {
        assert_eq!(Topic::new(""), Err(TopicError::Empty));
        assert_eq!(Topic::new(&"x".repeat(257)), Err(TopicError::TooLong(257)));
        assert_eq!(Topic::new("a\nb"), Err(TopicError::Control));
        assert_eq!(Topic::new("a*"), Err(TopicError::Star));
        assert_eq!(Topic::new("größe/ü 1").unwrap().as_str(), "größe/ü 1");
    }

    /// Tries every split at every star.
    fn slow(pattern: &[u8], topic: &[u8]) -> bool {
        match pattern.split_first() {
            None => topic.is_empty(),
            Some((b'*', rest)) => (0..=topic.len()).any(|taken| slow(rest, &topic[taken..])),
            Some((byte, rest)) => topic.first() == Some(byte) && slow(rest, &topic[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_pattern_selects_what_trying_everything_selects(
            pattern in "[ab*]{1,8}", topic in "[ab]{1,10}",
        ) {
            prop_assert_eq!(
                selects(pattern.as_bytes(), topic.as_bytes()),
                slow(pattern.as_bytes(), topic.as_bytes()),
            );
        }
    }
}
