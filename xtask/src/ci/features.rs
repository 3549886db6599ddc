//! Each feature alone, and none: what only compiles because another crate switched something on
//! breaks here and not at the user's.

use crate::failure::Outcome;
use crate::metadata::{BENCHES, Package, Workspace};
use crate::process::{self, cargo};

/// Checks the library of every crate that has features, in each of its smallest forms.
pub(crate) fn run() -> Outcome {
    let workspace = Workspace::read()?;
    let mut checked = 0;
    for package in workspace.packages.iter().filter(|package| package.name != BENCHES) {
        for choice in choices(package) {
            let features = choice.unwrap_or_default();
            println!("{} with {}", package.name, choice.unwrap_or("no features"));
            let what = ["check", "--quiet", "-p", &package.name, "--lib", "--no-default-features"];
            process::run(cargo().args(what).args(["--features", features]))?;
            checked += 1;
        }
    }
    println!("{checked} combinations compile");
    Ok(())
}

/// None, then each feature by itself. A crate without features has been checked by clippy.
fn choices(package: &Package) -> Vec<Option<&str>> {
    let is_library = package.targets.iter().any(|target| target.is("lib"));
    let features = package.features.keys().map(String::as_str).filter(|name| *name != "default");
    let mut choices: Vec<Option<&str>> = features.map(Some).collect();
    if !is_library || choices.is_empty() {
        return Vec::new();
    }
    choices.insert(0, None);
    choices
}

#[cfg(test)]
mod tests {
    use super::choices;
    use crate::metadata::Package;

    fn package(kind: &str, features: &str) -> Package {
        let json = format!(
            r#"{{"name":"x","manifest_path":"/x","dependencies":[],"features":{features},
            "targets":[{{"name":"x","kind":["{kind}"]}}]}}"#
        );
        serde_json::from_str(&json).expect("the text above has the form that cargo writes")
    }

    #[test]
    fn none_and_each_feature_but_the_default_are_checked() {
        let features = r#"{"default":["a"],"a":[],"b":[]}"#;
        assert_eq!(choices(&package("lib", features)), [None, Some("a"), Some("b")]);
        assert!(choices(&package("bin", features)).is_empty());
        assert!(choices(&package("lib", r#"{"default":[]}"#)).is_empty());
    }
}
