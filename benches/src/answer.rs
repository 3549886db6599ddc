//! What a bench found out, in the form that `cargo xtask bench` reads.

use std::io::Write as _;
use std::path::Path;
use std::{env, fs, io};

use serde::Serialize;

use crate::contest::Spread;

/// The folder for answers; without it an answer is shown and not kept.
const OUT: &str = "FLEETWIDE_BENCH_OUT";

/// The answer to one question.
#[derive(Debug, Serialize)]
pub struct Answer {
    question: &'static str,
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// One ratio, or one count where a question is about counts.
#[derive(Debug, Serialize)]
pub struct Row {
    name: String,
    ratio_median: f64,
    ratio_low: f64,
    ratio_high: f64,
    target: Option<String>,
    note: Option<String>,
}

impl Row {
    /// A row without a target.
    pub fn new(name: impl Into<String>, spread: Spread) -> Self {
        let Spread { median, low, high } = spread;
        Self {
            name: name.into(),
            ratio_median: median,
            ratio_low: low,
            ratio_high: high,
            target: None,
            note: None,
        }
    }

    /// Sets what the median should be: `<= 1.3` or `>= 0.85`.
    #[must_use]
    pub fn target(self, target: impl Into<String>) -> Self {
        Self { target: Some(target.into()), ..self }
    }

    /// Adds a remark.
    #[must_use]
    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }
}

impl Answer {
    /// An answer without rows yet.
    pub fn new(question: &'static str) -> Self {
        Self { question, rows: Vec::new(), notes: Vec::new() }
    }

    /// Whether somebody asked for an answer to keep; otherwise a developer is looking.
    pub fn is_kept() -> bool {
        env::var_os(OUT).is_some()
    }

    /// Adds a row, and shows it: a bench takes a while.
    pub fn row(&mut self, row: Row) {
        let Row { name, ratio_median, ratio_low, ratio_high, .. } = &row;
        let spread = format!("{ratio_low:.2} .. {ratio_high:.2}");
        let target = row.target.as_deref().unwrap_or("");
        show(&format!("  {name:<58} {ratio_median:>8.2}   {spread:<20} {target}"));
        self.rows.push(row);
    }

    /// Adds a paragraph under the table.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Keeps the answer as `name` in the folder that the runner named, if it named one.
    ///
    /// # Panics
    /// If the file cannot be written: a run without an answer must fail.
    pub fn keep(&self, name: &str) {
        let Some(folder) = env::var_os(OUT) else { return };
        let file = Path::new(&folder).join(name).with_extension("json");
        let json = serde_json::to_vec_pretty(self).expect("an answer is plain data");
        fs::write(&file, json)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    }
}

fn show(line: &str) {
    // A reader who went away is no reason to stop measuring.
    let _ = writeln!(io::stdout().lock(), "{line}");
}
