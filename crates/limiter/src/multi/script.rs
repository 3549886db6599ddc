//! The scripts of several levels, put together from those of one.
//!
//! Each kind of level is a function with a scope of its own, so that no name of one part meets that
//! of another, and none of them comes near the 200 names that a function may have.

use fleetwide_core_traits::Script;

/// A whole script of one level, as a function of what are its keys and its arguments.
macro_rules! function {
    ($name:literal, $algorithm:literal, [$($verb:literal),+]) => {
        concat!(
            $name, " = function(KEYS, ARGV)\n",
            include_str!("../lua/open.lua"),
            include_str!(concat!("../lua/", $algorithm, ".lua")),
            include_str!("../lua/settle.lua"),
            $(include_str!(concat!("../lua/", $algorithm, $verb)),)+
            include_str!("../lua/reply.lua"),
            "end\n"
        )
    };
}

/// The same for permits, whose answer is brought into the form of the others.
macro_rules! permits {
    ($name:literal, $verb:literal) => {
        concat!(
            $name,
            " = function(KEYS, ARGV)\n",
            "local function step()\n",
            include_str!("../lua/concurrency.lua"),
            include_str!(concat!("../lua/", $verb)),
            "end\n",
            "local reply = step()\n",
            "return { reply[1] == 1 and now or 0, reply[2], reply[3], 0 }\n",
            "end\n"
        )
    };
}

const PEEKS: &str = concat!(
    "local peeks = {}\n",
    function!("peeks[1]", "gcra", ["_peek.lua"]),
    function!("peeks[2]", "window", ["_peek.lua"]),
    function!("peeks[3]", "bucket", ["_peek.lua"]),
    function!("peeks[4]", "fixed", ["_peek.lua"]),
    function!("peeks[5]", "log", ["_peek.lua"]),
    permits!("peeks[6]", "concurrency_judge.lua"),
);

const CHECKS: &str = concat!(
    "local checks = {}\n",
    function!("checks[1]", "gcra", ["_check.lua", "_peek.lua"]),
    function!("checks[2]", "window", ["_check.lua", "_peek.lua"]),
    function!("checks[3]", "bucket", ["_check.lua", "_peek.lua"]),
    function!("checks[4]", "fixed", ["_check.lua", "_peek.lua"]),
    function!("checks[5]", "log", ["_check.lua", "_peek.lua"]),
    permits!("checks[6]", "concurrency_acquire.lua"),
);

const JUDGE: &str = include_str!("../lua/multi.lua");
const WRITE: &str = include_str!("../lua/multi_check.lua");

pub(super) static CHECK: Script =
    Script::timed("limiter.multi_check", &[PEEKS, CHECKS, JUDGE, WRITE, "return replies"]);
pub(super) static PEEK: Script =
    Script::timed("limiter.multi_peek", &[PEEKS, JUDGE, "return replies"]);
