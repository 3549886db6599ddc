//! Which machine the numbers come from: ratios travel between machines, but not between all.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use crate::failure::Outcome;
use crate::{process, redis};

/// Lines such as `CPU: ...`, in the order in which they are shown.
pub(crate) fn describe(server: &Path) -> Outcome<Vec<(&'static str, String)>> {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let kernel = process::output(Command::new("uname").arg("-srm"))?;
    let rustc = process::output(Command::new("rustc").arg("--version"))?;
    Ok(vec![
        ("CPU", format!("{}, {cores} cores", cpu_model())),
        ("memory", memory()),
        ("system", kernel.trim().to_owned()),
        ("compiler", rustc.trim().to_owned()),
        ("Redis", format!("{}, on the same machine, over loopback", redis::version(server)?)),
    ])
}

fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = value(&info, "model name").or_else(|| value(&info, "Model"));
    named.or_else(|| sysctl("machdep.cpu.brand_string")).unwrap_or_else(|| "unnamed".to_owned())
}

fn memory() -> String {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = value(&info, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let bytes = kib.map(|kib| kib * 1024).or_else(|| sysctl("hw.memsize")?.parse().ok());
    bytes.map_or_else(|| "unknown".to_owned(), |bytes| format!("{} GiB", bytes >> 30))
}

/// The value in a file of `name : value` lines.
fn value(info: &str, name: &str) -> Option<String> {
    let mut pairs = info.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

/// macOS keeps in `sysctl` what Linux keeps in `/proc`.
fn sysctl(name: &str) -> Option<String> {
    let output = Command::new("sysctl").args(["-n", name]).output().ok()?;
    let value = String::from_utf8(output.stdout).ok()?;
    Some(value.trim().to_owned()).filter(|value| output.status.success() && !value.is_empty())
}
