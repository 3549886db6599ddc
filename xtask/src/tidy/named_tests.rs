//! The tests that the documentation names are there: a promise whose test was renamed or removed
//! would otherwise look as if it were kept.

use std::fs;
use std::path::Path;

use crate::failure::{Failure, Outcome};

/// One line for each test that a page names, as `crate/tests/file.rs::test`, and that is not there.
pub(crate) fn violations(root: &Path) -> Outcome<Vec<String>> {
    let mut wrong = Vec::new();
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        let cannot = || format!("read {}", folder.display());
        for entry in fs::read_dir(&folder).map_err(Failure::cannot(cannot()))? {
            let path = entry.map_err(Failure::cannot(cannot()))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let page = fs::read_to_string(&path)
                    .map_err(Failure::cannot(format!("read {}", path.display())))?;
                let name = path.strip_prefix(root).unwrap_or(&path).display();
                let missing = named(&page).filter(|(file, test)| !exists(root, file, test));
                wrong.extend(missing.map(|(file, test)| {
                    format!("{name} names the test {file}::{test}, which is not there")
                }));
            }
        }
    }
    Ok(wrong)
}

/// The code spans of a page that name a test: its file below `crates`, and its function.
fn named(page: &str) -> impl Iterator<Item = (&str, &str)> {
    let spans = page.split('`').skip(1).step_by(2);
    spans.filter_map(|span| span.split_once(".rs::"))
}

fn exists(root: &Path, file: &str, test: &str) -> bool {
    let source = fs::read_to_string(root.join("crates").join(format!("{file}.rs")));
    source.is_ok_and(|source| source.contains(&format!("fn {test}(")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_named_by_its_file_and_its_function() {
        let page =
            "| a | `limiter/tests/verbs.rs::a_b`, `Cache::put` | `x/src/y.rs::c` and d.rs::e |";
        let tests: Vec<_> = named(page).collect();
        assert_eq!(tests, [("limiter/tests/verbs", "a_b"), ("x/src/y", "c")]);
    }

    #[test]
    fn a_test_that_is_not_there_is_found_out() {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let here = |test| exists(root, "testkit/tests/orphans", test);
        assert!(here("victim_starts_a_server") && !here("victim_starts") && !here("no_such_test"));
        assert!(!exists(root, "testkit/tests/no_such_file", "victim_starts_a_server"));
    }
}
