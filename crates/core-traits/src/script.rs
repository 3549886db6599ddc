//! A step as the server runs it.

use std::sync::OnceLock;

/// What a server runs for an op: a Lua script, or one native command that is atomic by itself.
///
/// A timed script starts with a prelude of ours that binds `now`, in µs since the Unix epoch. In
/// production that is the server's own `TIME`. Tests swap it for a last argument, so that they
/// can step the clock while everything else runs as it will in production.
#[derive(Debug)]
pub struct Script {
    name: &'static str,
    program: Program,
    sources: OnceLock<Sources>,
}

#[derive(Debug)]
enum Program {
    Timed(&'static [&'static str]),
    Untimed(&'static [&'static str]),
    Command,
}

#[derive(Debug)]
struct Sources {
    server: Source,
    argument: Source,
}

#[derive(Debug)]
struct Source {
    text: String,
    sha: String,
}

/// Where a timed script takes `now` from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScriptClock {
    /// The server's `TIME`.
    #[default]
    Server,
    /// The last argument, which the executor adds. For tests.
    Argument,
}

const NOW_FROM_SERVER: &str = "local time = redis.call('TIME')\n\
     local now = time[1] * 1000000 + time[2]\n";
const NOW_FROM_ARGUMENT: &str = "local now = tonumber(table.remove(ARGV))\n";

impl Script {
    /// A Lua script that finds the time in `now`. The parts are joined in their order.
    pub const fn timed(name: &'static str, parts: &'static [&'static str]) -> Self {
        Self { name, program: Program::Timed(parts), sources: OnceLock::new() }
    }

    /// A Lua script that needs no time, and so saves the server a call.
    pub const fn untimed(name: &'static str, parts: &'static [&'static str]) -> Self {
        Self { name, program: Program::Untimed(parts), sources: OnceLock::new() }
    }

    /// One native command, sent as `NAME key.. arg..`.
    pub const fn command(name: &'static str) -> Self {
        Self { name, program: Program::Command, sources: OnceLock::new() }
    }

    /// Its name, for logs and metrics; for a command, the command.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it is a native command, which has neither a source nor a hash.
    pub const fn is_command(&self) -> bool {
        matches!(self.program, Program::Command)
    }

    /// Whether an executor whose clock is an argument must add one.
    pub const fn is_timed(&self) -> bool {
        matches!(self.program, Program::Timed(_))
    }

    /// The whole text; empty for a command.
    pub fn source(&self, clock: ScriptClock) -> &str {
        &self.get(clock).text
    }

    /// The SHA-1 of the text in hex, by which the server knows it.
    pub fn sha(&self, clock: ScriptClock) -> &str {
        &self.get(clock).sha
    }

    fn get(&self, clock: ScriptClock) -> &Source {
        let sources = self.sources.get_or_init(|| match self.program {
            Program::Timed(parts) => Sources {
                server: Source::new(NOW_FROM_SERVER, parts),
                argument: Source::new(NOW_FROM_ARGUMENT, parts),
            },
            Program::Untimed(parts) => {
                Sources { server: Source::new("", parts), argument: Source::new("", parts) }
            }
            Program::Command => {
                Sources { server: Source::new("", &[]), argument: Source::new("", &[]) }
            }
        });
        match clock {
            ScriptClock::Server => &sources.server,
            ScriptClock::Argument => &sources.argument,
        }
    }
}

impl Source {
    fn new(prelude: &str, parts: &[&str]) -> Self {
        let text = parts.iter().fold(prelude.to_owned(), |mut text, part| {
            text.push_str(part);
            if !part.ends_with('\n') {
                text.push('\n');
            }
            text
        });
        let sha = sha1_smol::Sha1::from(&text).digest().to_string();
        Self { text, sha }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static ONE: Script = Script::timed("one", &["return now"]);

    #[test]
    fn only_the_prelude_differs_between_the_clocks() {
        let (server, argument) =
            (ONE.source(ScriptClock::Server), ONE.source(ScriptClock::Argument));
        assert!(server.contains("TIME") && !argument.contains("TIME"));
        assert_eq!(
            server.strip_prefix(NOW_FROM_SERVER).unwrap(),
            argument.strip_prefix(NOW_FROM_ARGUMENT).unwrap()
        );
        assert_ne!(ONE.sha(ScriptClock::Server), ONE.sha(ScriptClock::Argument));
        assert_eq!(ONE.sha(ScriptClock::Server).len(), 40);
    }
}
