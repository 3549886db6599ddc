//! What lies where: nothing unexpected at the top, the same rooms in each crate, no file of things
//! to be done some day.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::failure::{Failure, Outcome};

/// All that may lie at the top; whoever adds something there says so here.
const TOP: [&str; 26] = [
    ".cargo",
    ".ci",
    ".config",
    ".dockerignore",
    ".editorconfig",
    ".git",
    ".gitattributes",
    ".github",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "benches",
    "clippy.toml",
    "crates",
    "deny.toml",
    "deploy",
    "docs",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "target",
    "xtask",
];

/// What editors and systems leave about on a developer's machine.
const NOT_OURS: [&str; 4] = [".DS_Store", ".idea", ".vscode", ".zed"];

/// The files that a reader finds in each crate.
const ROOMS: [&str; 4] = ["Cargo.toml", "README.md", "CHANGELOG.md", "src"];

/// One line for each file or folder that is in the wrong place or missing.
pub(crate) fn violations(root: &Path) -> Outcome<Vec<String>> {
    let mut wrong: Vec<String> = listed(root)?.iter().filter_map(|path| at_top(path)).collect();
    for folder in listed(&root.join("crates"))?.iter().filter(|path| path.is_dir()) {
        let missing = ROOMS.iter().filter(|room| !folder.join(room).exists());
        wrong.extend(missing.map(|room| format!("{} has no {room}", folder.display())));
    }
    for folder in ["benches", "crates", "deploy", "docs", "xtask"] {
        find_lists_of_things_to_do(&root.join(folder), &mut wrong)?;
    }
    let from_root = format!("{}/", root.display());
    Ok(wrong.into_iter().map(|line| line.replace(&from_root, "")).collect())
}

fn at_top(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    if is_list_of_things_to_do(path) {
        return Some(described(path));
    }
    let known = TOP.contains(&name) || NOT_OURS.contains(&name);
    (!known).then(|| format!("{name} does not belong at the top (see xtask/src/tidy/files.rs)"))
}

fn find_lists_of_things_to_do(folder: &Path, found: &mut Vec<String>) -> Outcome {
    if !folder.is_dir() {
        return Ok(());
    }
    for path in listed(folder)? {
        if path.is_dir() && !path.is_symlink() {
            find_lists_of_things_to_do(&path, found)?;
        } else if is_list_of_things_to_do(&path) {
            found.push(described(&path));
        }
    }
    Ok(())
}

fn is_list_of_things_to_do(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem.eq_ignore_ascii_case("todo"))
}

fn described(path: &Path) -> String {
    format!("{} is a list of things to do: do them, or open an issue", path.display())
}

fn listed(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let paths = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>());
    let mut paths: Vec<PathBuf> =
        paths.map_err(Failure::cannot(format!("list {}", folder.display())))?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{at_top, is_list_of_things_to_do};

    #[test]
    fn a_stranger_at_the_top_is_named() {
        assert!(at_top(Path::new("/repo/scratch.txt")).is_some());
        assert!(at_top(Path::new("/repo/TODO.md")).is_some());
        assert!(at_top(Path::new("/repo/README.md")).is_none());
    }

    #[test]
    fn a_list_of_things_to_do_is_known_by_its_name() {
        for name in ["todo", "TODO.md", "docs/Todo.txt"] {
            assert!(is_list_of_things_to_do(Path::new(name)), "{name}");
        }
        assert!(!is_list_of_things_to_do(Path::new("docs/todo_app.md")));
    }
}
