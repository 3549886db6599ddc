//! Variables as text, and the values they take.

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Where the values of variables come from.
///
/// A variable that is set to the empty text counts as not set: Compose files and Helm charts pass
/// empty values on for what nobody has chosen.
pub struct Vars {
    lookup: Box<dyn Fn(&'static str) -> Option<OsString> + Send + Sync>,
}

impl Vars {
    /// The variables of this process.
    pub fn process() -> Self {
        Self { lookup: Box::new(env::var_os::<&str>) }
    }

    /// These variables and no others, for tests and for settings from elsewhere.
    pub fn fixed<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<OsString>,
    {
        let pairs: HashMap<String, OsString> =
            pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { lookup: Box::new(move |name| pairs.get(name).cloned()) }
    }

    /// The text of `name`; `None` if it is not set or empty.
    ///
    /// # Errors
    /// [`EnvError`] if the value is not UTF-8.
    pub fn text(&self, name: &'static str) -> Result<Option<String>, EnvError> {
        match (self.lookup)(name) {
            None => Ok(None),
            Some(value) if value.is_empty() => Ok(None),
            Some(value) => match value.into_string() {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(EnvError::new(name, "text in UTF-8")),
            },
        }
    }

    /// The whole number of `name`, or `default` if it is not set.
    ///
    /// # Errors
    /// [`EnvError`] if it is no number, or not in `range`.
    pub fn number(
        &self,
        name: &'static str,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, EnvError> {
        let Some(text) = self.text(name)? else { return Ok(default) };
        // `u64::from_str` takes a leading '+', which no document of ours promises.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| digits && range.contains(number)).ok_or_else(|| {
            let (least, most) = range.into_inner();
            EnvError::new(name, format!("a whole number from {least} to {most}"))
        })
    }

    /// The duration of `name`, given in whole milliseconds, or `default` if it is not set.
    ///
    /// # Errors
    /// [`EnvError`] if it is no number, zero, or longer than `max`.
    pub fn millis(
        &self,
        name: &'static str,
        max: Duration,
        default: Duration,
    ) -> Result<Duration, EnvError> {
        let whole = |duration: Duration| duration.as_millis() as u64;
        match self.number(name, 1..=whole(max), whole(default)) {
            Ok(millis) => Ok(Duration::from_millis(millis)),
            Err(error) => Err(EnvError::new(name, format!("{} (milliseconds)", error.takes))),
        }
    }

    /// The value that `choices` gives for the word in `name`, or `default` if it is not set.
    ///
    /// # Errors
    /// [`EnvError`] if the word is none of them.
    pub fn choice<T: Copy>(
        &self,
        name: &'static str,
        choices: &[(&str, T)],
        default: T,
    ) -> Result<T, EnvError> {
        let Some(word) = self.text(name)? else { return Ok(default) };
        let chosen = choices.iter().find(|(choice, _)| *choice == word);
        chosen.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = choices.iter().map(|(choice, _)| format!("`{choice}`")).collect();
            EnvError::new(name, format!("one of {}", words.join(", ")))
        })
    }
}

impl fmt::Debug for Vars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Some of the values are secrets.
        f.debug_struct("Vars").finish_non_exhaustive()
    }
}

/// A variable with a value that it does not take.
///
/// Its text names the variable and what it takes, in one line, and never the value: that may be,
/// or may be next to, a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} takes {takes}")]
pub struct EnvError {
    variable: &'static str,
    takes: String,
}

impl EnvError {
    /// `takes` completes the sentence '`variable` takes ...'.
    pub fn new(variable: &'static str, takes: impl Into<String>) -> Self {
        Self { variable, takes: takes.into() }
    }

    /// The name of the variable.
    pub fn variable(&self) -> &'static str {
        self.variable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: &str) -> Result<u64, EnvError> {
        Vars::fixed([("N", value)]).number("N", 1..=100, 7)
    }

    #[test]
    fn what_is_empty_is_not_set() {
        assert_eq!(number(""), Ok(7));
        assert_eq!(Vars::fixed([("N", "")]).text("N"), Ok(None));
        assert_eq!(Vars::fixed([("N", "")]).choice("N", &[("a", 1)], 2), Ok(2));
    }

    #[test]
    fn a_wrong_number_is_told_with_the_range() {
        for wrong in ["0", "101", "-1", "+5", "5 ", "five", "1e2", "99999999999999999999"] {
            let error = number(wrong).unwrap_err();
            assert_eq!(error.to_string(), "N takes a whole number from 1 to 100", "{wrong}");
        }
        assert_eq!(number("100"), Ok(100));
    }

    #[test]
    fn a_wrong_word_is_told_with_the_choices() {
        let error = Vars::fixed([("W", "c")]).choice("W", &[("a", 1), ("b", 2)], 1).unwrap_err();
        assert_eq!(error.to_string(), "W takes one of `a`, `b`");
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text_are_an_error_and_no_panic() {
        use std::os::unix::ffi::OsStringExt;
        let vars = Vars::fixed([("N", OsString::from_vec(vec![0xff]))]);
        assert_eq!(vars.text("N").unwrap_err().to_string(), "N takes text in UTF-8");
    }
}
