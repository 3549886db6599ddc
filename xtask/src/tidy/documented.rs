//! Each crate of others that we name has its reason in `docs/dependencies.md`, and nothing else has.

use std::collections::BTreeSet;

/// Where the reasons stand, as rows that begin with the crate's name in backticks.
pub(crate) const PAGE: &str = "docs/dependencies.md";

/// One line for each crate in `used` without a reason, and for each reason without a crate in the
/// root manifest.
pub(crate) fn violations(used: &BTreeSet<&str>, root_manifest: &str, page: &str) -> Vec<String> {
    let documented: BTreeSet<&str> = page.lines().filter_map(documented).collect();
    let declared: BTreeSet<&str> = declared(root_manifest).collect();
    let missing = used.difference(&documented);
    let stale = documented.difference(&declared);
    let missing = missing.map(|name| format!("{name} has no reason in {PAGE}"));
    let stale = stale.map(|name| format!("{PAGE} speaks of {name}, which nothing depends on"));
    missing.chain(stale).collect()
}

/// The name at the start of a table row or list item: `` | `serde` | `` or `` - `serde`: ``.
fn documented(line: &str) -> Option<&str> {
    let row = line.strip_prefix("| ").or_else(|| line.strip_prefix("- "))?;
    let (name, _) = row.strip_prefix('`')?.split_once('`')?;
    Some(name)
}

/// The names in `[workspace.dependencies]`.
fn declared(root_manifest: &str) -> impl Iterator<Item = &str> {
    let in_table = root_manifest
        .lines()
        .skip_while(|line| line.trim() != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['));
    in_table.filter_map(|line| line.split_once('=').map(|(name, _)| name.trim()))
}

#[cfg(test)]
mod tests {
    use super::violations;

    const MANIFEST: &str =
        "[workspace.dependencies]\nserde = \"1\"\ntokio = \"1\"\n\n[profile.dev]\n";

    #[test]
    fn a_crate_without_a_reason_and_a_reason_without_a_crate_are_named() {
        let page = "| crate | why |\n| --- | --- |\n| `serde` | derives |\n| `rayon` | gone |\n";
        assert_eq!(
            violations(&["serde", "tokio"].into(), MANIFEST, page),
            [
                "tokio has no reason in docs/dependencies.md",
                "docs/dependencies.md speaks of rayon, which nothing depends on",
            ]
        );
    }

    #[test]
    fn reasons_for_all_and_only_the_crates_in_use_are_in_order() {
        let page = "| `serde` | derives |\n- `tokio`: the runtime\n";
        assert!(violations(&["serde", "tokio"].into(), MANIFEST, page).is_empty());
    }
}
