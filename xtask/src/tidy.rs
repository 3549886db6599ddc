//! `cargo xtask tidy`: the rules of this workspace that no compiler knows. `tests/tidy.rs` runs the
//! same check among the ordinary tests.

mod documented;
mod files;
mod inherited;
mod layers;
mod named_tests;

use std::collections::BTreeSet;
use std::fs;

use crate::failure::{Failure, Outcome};
use crate::metadata::{DependencyKind, Workspace};

/// Checks all rules and names every violation, not only the first.
pub(crate) fn run() -> Outcome {
    let workspace = Workspace::read()?;
    let mut violations = files::violations(&workspace.root)?;
    violations.extend(layers::violations(&crates(&workspace)));
    violations.extend(documentation(&workspace)?);
    violations.extend(named_tests::violations(&workspace.root)?);
    for package in &workspace.packages {
        let manifest = fs::read_to_string(&package.manifest_path)
            .map_err(Failure::cannot(format!("read {}", package.manifest_path.display())))?;
        violations.extend(inherited::violations(&package.name, &manifest));
    }
    if violations.is_empty() {
        println!("tidy: {} packages keep the workspace's rules", workspace.packages.len());
        return Ok(());
    }
    for violation in &violations {
        eprintln!("tidy: {violation}");
    }
    Err(Failure::new(format!("{} violations", violations.len())))
}

fn crates(workspace: &Workspace) -> Vec<layers::Crate<'_>> {
    workspace
        .packages
        .iter()
        .map(|package| layers::Crate {
            name: &package.name,
            // Tests may reach for anything; what is shipped may not.
            dependencies: package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind != Some(DependencyKind::Dev))
                .map(|dependency| dependency.name.as_str())
                .collect(),
        })
        .collect()
}

fn documentation(workspace: &Workspace) -> Outcome<Vec<String>> {
    let used: BTreeSet<&str> = workspace
        .packages
        .iter()
        .flat_map(|package| &package.dependencies)
        .filter(|dependency| dependency.path.is_none())
        .map(|dependency| dependency.name.as_str())
        .collect();
    let read = |file: &str| {
        fs::read_to_string(workspace.root.join(file))
            .map_err(Failure::cannot(format!("read {file}")))
    };
    Ok(documented::violations(&used, &read("Cargo.toml")?, &read(documented::PAGE)?))
}
