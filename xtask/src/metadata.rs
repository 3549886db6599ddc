//! What cargo says about the workspace, reduced to what the commands ask.

use std::path::PathBuf;
use std::process::Stdio;

use serde::Deserialize;

use crate::failure::{Failure, Outcome};
use crate::process::{self, cargo};

/// The package that pulls in the peers it is compared with; nobody waits for it by default.
pub(crate) const BENCHES: &str = "fleetwide-benches";

/// The workspace as `cargo metadata --no-deps` describes it.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    #[serde(rename = "workspace_root")]
    pub(crate) root: PathBuf,
    #[serde(rename = "target_directory")]
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) features: std::collections::BTreeMap<String, Vec<String>>,
    pub(crate) targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` is a normal dependency.
    pub(crate) kind: Option<DependencyKind>,
    /// Only dependencies inside the workspace have a path.
    pub(crate) path: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DependencyKind {
    Dev,
    Build,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
}

impl Target {
    pub(crate) fn is(&self, kind: &str) -> bool {
        self.kind.iter().any(|own| own == kind)
    }
}

impl Workspace {
    pub(crate) fn read() -> Outcome<Self> {
        let json =
            process::output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
        serde_json::from_str(&json).map_err(Failure::cannot("understand `cargo metadata`"))
    }

    pub(crate) fn package(&self, name: &str) -> Outcome<&Package> {
        let found = self.packages.iter().find(|package| package.name == name);
        found.ok_or_else(|| Failure::new(format!("the workspace has no package `{name}`")))
    }
}

/// A program that cargo has built.
#[derive(Debug)]
pub(crate) struct Executable {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// Builds with `args` and returns the programs of one kind (`bin`, `example`) that came out.
///
/// Asking the build itself is right whatever target folder, profile or platform is configured.
pub(crate) fn build(args: &[&str], kind: &str) -> Outcome<Vec<Executable>> {
    let mut command = cargo();
    command.arg("build").args(args).arg("--message-format=json-render-diagnostics");
    let messages = process::output(command.stdin(Stdio::null()))?;
    let mut built: Vec<Executable> =
        messages.lines().filter_map(|line| executable(line, kind)).collect();
    built.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(built)
}

fn executable(message: &str, kind: &str) -> Option<Executable> {
    #[derive(Deserialize)]
    struct Artifact {
        target: Target,
        executable: Option<PathBuf>,
    }
    // Other kinds of messages lack these fields; they are not about artifacts.
    let artifact: Artifact = serde_json::from_str(message).ok()?;
    let path = artifact.executable.filter(|_| artifact.target.is(kind))?;
    Some(Executable { name: artifact.target.name, path })
}

#[cfg(test)]
mod tests {
    use super::executable;

    #[test]
    fn only_a_built_program_of_the_wanted_kind_is_taken() {
        let line = |kind: &str, path: &str| {
            format!(r#"{{"target":{{"name":"n","kind":["{kind}"]}},"executable":{path}}}"#)
        };
        let taken = |line: &str| executable(line, "bin").map(|found| found.name);
        assert_eq!(taken(&line("bin", "\"/t/n\"")).as_deref(), Some("n"));
        assert_eq!(taken(&line("lib", "null")), None);
        assert_eq!(taken(&line("example", "\"/t/n\"")), None);
        assert_eq!(taken(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
