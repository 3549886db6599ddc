//! From answers to the page, without a look at the world.

use std::fmt::Write as _;

use serde::Deserialize;

/// What one bench found out.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    question: String,
    rows: Vec<Row>,
    #[serde(default)]
    notes: Vec<String>,
}

/// One measured ratio against the floor that ran in the same process and the same run.
#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    ratio_median: f64,
    ratio_low: f64,
    ratio_high: f64,
    /// `<= 1.3` or `>= 0.85`; other text is shown and not judged.
    target: Option<String>,
    note: Option<String>,
}

const INTRODUCTION: &str = "\
# Benchmarks

Every number is a ratio: what we measure divided by its floor, the least that could do the same
work, run in turns with it in the same process. A ratio says what a layer costs, and it holds on
other machines far better than times do. *Spread* is the lowest and the highest ratio of the
rounds. Where a target is missed, the note says what stands in the way.
";

/// The whole page. It carries no date, so that a second run changes what has changed and no more.
pub(crate) fn render(
    answers: &[Answer],
    machine: &[(&'static str, String)],
    command: &str,
) -> String {
    let mut page = format!("{INTRODUCTION}\nWritten by `{command}` on:\n\n");
    for (name, value) in machine {
        line(&mut page, &format!("- {name}: {value}"));
    }
    for answer in answers {
        section(&mut page, answer);
    }
    page
}

fn section(page: &mut String, answer: &Answer) {
    line(page, &format!("\n## {}\n", answer.question));
    line(page, "| case | ratio, median | spread | target | met | note |");
    line(page, "| --- | ---: | ---: | ---: | --- | --- |");
    for row in &answer.rows {
        let Row { name, ratio_median, ratio_low, ratio_high, .. } = row;
        let target = row.target.as_deref().unwrap_or("");
        let met = match is_met(target, *ratio_median) {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        let cells = [
            cell(name),
            format!("{ratio_median:.2}"),
            format!("{ratio_low:.2} .. {ratio_high:.2}"),
            cell(target),
            met.to_owned(),
            cell(row.note.as_deref().unwrap_or("")),
        ];
        line(page, &format!("| {} |", cells.join(" | ")));
    }
    for note in &answer.notes {
        line(page, &format!("\n{note}"));
    }
}

/// Whether the ratio keeps its target; `None` if the target is no bound.
fn is_met(target: &str, ratio: f64) -> Option<bool> {
    let (below, bound) = match target.split_at_checked(2)? {
        ("<=", bound) => (true, bound),
        (">=", bound) => (false, bound),
        _ => return None,
    };
    let bound: f64 = bound.trim().trim_end_matches('x').parse().ok()?;
    Some(if below { ratio <= bound } else { ratio >= bound })
}

/// A bar or a line break inside a cell would break the table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn line(page: &mut String, text: &str) {
    writeln!(page, "{text}").expect("writing into a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::{is_met, render};

    #[test]
    fn the_page_shows_ratio_spread_target_and_what_missed_it() {
        let answer = r#"{"question":"What does an L1 hit cost?","rows":[
            {"name":"L1 hit","ratio_median":1.204,"ratio_low":1.1,"ratio_high":1.35,"target":"<= 1.3"},
            {"name":"L2 | 64","ratio_median":0.8,"ratio_low":0.7,"ratio_high":0.9,
             "target":">= 0.85","note":"decoding"}],"notes":["Floor: a bare moka hit."]}"#;
        let answer = serde_json::from_str(answer).expect("the form that the benches write");
        let page = render(&[answer], &[("CPU", "fast, 2 cores".to_owned())], "cargo xtask bench");
        let expected = "\
Written by `cargo xtask bench` on:

- CPU: fast, 2 cores

## What does an L1 hit cost?

| case | ratio, median | spread | target | met | note |
| --- | ---: | ---: | ---: | --- | --- |
| L1 hit | 1.20 | 1.10 .. 1.35 | <= 1.3 | yes |  |
| L2 \\| 64 | 0.80 | 0.70 .. 0.90 | >= 0.85 | **no** | decoding |

Floor: a bare moka hit.
";
        assert!(page.ends_with(expected), "{page}");
    }

    #[test]
    fn a_target_is_judged_only_if_it_is_a_bound() {
        assert_eq!(is_met("<= 1.3", 1.3), Some(true));
        assert_eq!(is_met("<=1.3x", 1.31), Some(false));
        assert_eq!(is_met(">= 0.85", 0.9), Some(true));
        assert_eq!(is_met("none yet", 0.9), None);
        assert_eq!(is_met("", 0.9), None);
    }
}
