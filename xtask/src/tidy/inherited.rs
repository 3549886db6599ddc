//! Members take every dependency from the workspace table, so that a version stands in one place.

/// One line for each dependency in a member's manifest that does not say `workspace = true`.
pub(crate) fn violations(package: &str, manifest: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut section = "";
    let mut own_table = None;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            wrong.extend(own_table.take());
            section = line.trim_matches(['[', ']']);
            own_table = table_of_one(section);
        } else if inherits(line) {
            own_table = None;
        } else if is_dependency_section(section) {
            wrong.extend(entry(line));
        }
    }
    wrong.extend(own_table);
    wrong
        .into_iter()
        .map(|name| format!("{package} does not inherit {name} (`{name}.workspace = true`)"))
        .collect()
}

fn inherits(line: &str) -> bool {
    let spaceless: String = line.chars().filter(|c| !c.is_whitespace()).collect();
    spaceless.contains("workspace=true")
}

/// `[dependencies]`, `[dev-dependencies]`, `[target.'cfg(unix)'.dependencies]` and so on.
fn is_dependency_section(section: &str) -> bool {
    section.rsplit('.').next().is_some_and(|last| last.ends_with("dependencies"))
}

/// `tokio` of `[dependencies.tokio]`, whose lines are its settings.
fn table_of_one(section: &str) -> Option<&str> {
    let (parent, name) = section.rsplit_once('.')?;
    is_dependency_section(parent).then_some(name)
}

/// The name a line begins with; a continued list of features begins with none.
fn entry(line: &str) -> Option<&str> {
    let (name, _) = line.split_once('=')?;
    let name = name.trim();
    name.starts_with(|c: char| c.is_ascii_alphanumeric()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::violations;

    #[test]
    fn inherited_dependencies_are_in_order_in_every_spelling() {
        let manifest = "\
[package]
name = \"x\"
version = \"1\"
[dependencies]
bytes.workspace = true
serde = { workspace = true, optional = true }
tokio = { workspace = true, features = [
    \"net\",
] }
[target.'cfg(unix)'.dependencies]
rustix = { workspace = true }
[dev-dependencies.proptest]
workspace = true
";
        assert!(violations("x", manifest).is_empty());
    }

    #[test]
    fn a_version_of_ones_own_is_named() {
        let manifest = "\
[dependencies]
bytes = \"1\"
rand = { version = \"0.9\" }
[dev-dependencies.proptest]
version = \"1\"
[lints]
workspace = true
";
        let named = violations("x", manifest).join("\n");
        for name in ["bytes", "rand", "proptest"] {
            assert!(named.contains(&format!("x does not inherit {name} ")), "{named}");
        }
        assert_eq!(named.lines().count(), 3);
    }
}
