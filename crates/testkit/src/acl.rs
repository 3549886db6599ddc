//! The least rights, read from the page that operators copy them from.

use std::sync::LazyLock;

/// The page that documents the rights. It is compiled in, so a test cannot run with other ones.
const PAGE: &str = include_str!("../../../docs/redis-acl.md");

/// What the documented line begins with.
const COMMAND: &str = "ACL SETUSER ";

/// The rights of one Redis user, as `docs/redis-acl.md` lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    user: String,
    rules: Vec<String>,
}

impl Acl {
    /// Returns what `docs/redis-acl.md` grants: the user that every test connects as.
    ///
    /// # Panics
    /// If the page has no line that starts with `ACL SETUSER`, which would leave tests without a
    /// user, or if the line has no `>password` to put a test's own password in the place of.
    pub fn documented() -> &'static Self {
        static DOCUMENTED: LazyLock<Acl> = LazyLock::new(|| {
            Acl::parse(PAGE)
                .expect("docs/redis-acl.md holds one `ACL SETUSER` line with a password")
        });
        &DOCUMENTED
    }

    /// Returns the user's name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns the names of the granted commands, lower case, as `script|load`.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().filter_map(|rule| rule.strip_prefix('+'))
    }

    /// Returns the rules for [`user`](Self::user) with `password` in place of the documented one.
    pub fn rules_with(&self, password: &str) -> String {
        let with_password = |rule: &String| match rule.strip_prefix('>') {
            Some(_) => format!(">{password}"),
            None => rule.clone(),
        };
        self.rules.iter().map(with_password).collect::<Vec<_>>().join(" ")
    }

    fn parse(page: &str) -> Option<Self> {
        let line = page.lines().find_map(|line| line.strip_prefix(COMMAND))?;
        let mut words = line.split_whitespace().map(str::to_owned);
        let acl = Self { user: words.next()?, rules: words.collect() };
        acl.rules.iter().any(|rule| rule.starts_with('>')).then_some(acl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_user_is_fleetwide_and_may_not_list_flush_or_configure() {
        let acl = Acl::documented();
        assert_eq!(acl.user(), "fleetwide");
        let forbidden = ["keys", "scan", "flushdb", "flushall", "config", "monitor"];
        let granted: Vec<_> = acl.commands().filter(|name| forbidden.contains(name)).collect();
        assert!(granted.is_empty(), "{granted:?} must never be needed");
        assert!(acl.rules.iter().all(|rule| !rule.starts_with("+@")), "categories are too wide");
    }

    #[test]
    fn every_granted_command_is_explained_and_every_explained_one_is_granted() {
        let mut explained: Vec<String> = PAGE
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter_map(|line| line.split(" | ").next())
            .flat_map(|names| names.split(", "))
            .map(|name| name.trim_matches('`').replace("\\|", "|"))
            .collect();
        let mut granted: Vec<_> = Acl::documented().commands().map(str::to_owned).collect();
        explained.sort();
        granted.sort();
        assert_eq!(explained, granted);
    }

    #[test]
    fn test_password_replaces_the_documented_one() {
        let rules = Acl::documented().rules_with("s3cret");
        assert!(rules.contains(" >s3cret ") && !rules.contains("change-me"), "{rules}");
    }

    #[test]
    fn page_without_a_password_is_refused() {
        assert_eq!(Acl::parse("ACL SETUSER fleetwide on nopass +get"), None);
        assert_eq!(Acl::parse("no line at all"), None);
    }
}
