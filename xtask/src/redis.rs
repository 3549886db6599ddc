//! Finding `redis-server`, or installing it with the system's own package manager.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::{Failure, Outcome};
use crate::process::{self, is_program, on_path};

/// Names the server's program; tests read it as well.
pub(crate) const REDIS_SERVER: &str = "REDIS_SERVER";

/// Valkey is the same server under another name; several distributions carry only that one.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// Where servers are, though not every user's `PATH` leads there.
const FOLDERS: [&str; 5] =
    ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin", "/usr/sbin", "/snap/bin"];

/// The server to use, if there is one.
///
/// # Errors
/// If `REDIS_SERVER` names something that is no program: to go on with another server than the one
/// asked for would answer a question nobody asked.
pub(crate) fn find() -> Outcome<Option<PathBuf>> {
    if let Some(named) = env::var_os(REDIS_SERVER).filter(|value| !value.is_empty()) {
        let named = PathBuf::from(named);
        if is_program(&named) {
            return Ok(Some(named));
        }
        let text = format!("{REDIS_SERVER} is `{}`, which is no program", named.display());
        return Err(Failure::new(text));
    }
    let in_folder = |folder: &&str| PROGRAMS.map(|program| Path::new(folder).join(program));
    let on_path = PROGRAMS.iter().filter_map(|program| on_path(program));
    Ok(on_path.chain(FOLDERS.iter().flat_map(in_folder)).find(|file| is_program(file)))
}

/// The server to use, installed first if the machine has none.
///
/// # Errors
/// One line that says what to do, if it cannot be installed from here.
pub(crate) fn find_or_install() -> Outcome<PathBuf> {
    if let Some(found) = find()? {
        return Ok(found);
    }
    let manager = MANAGERS.iter().find(|manager| on_path(manager.program).is_some());
    let installed = manager.map_or_else(
        || Err(Failure::new("no package manager that is known here was found")),
        Manager::install,
    );
    if let Err(failure) = installed {
        return Err(Failure::new(format!(
            "redis-server is not on this machine and could not be installed ({failure}); install \
             Redis 6.2 or later, or set {REDIS_SERVER} to the program"
        )));
    }
    find()?.ok_or_else(|| {
        Failure::new(format!("redis-server was installed but not found; set {REDIS_SERVER}"))
    })
}

/// The version as the server itself says it, such as `7.0.15`.
pub(crate) fn version(server: &Path) -> Outcome<String> {
    let line = process::output(Command::new(server).arg("--version"))?;
    let version = line.split_whitespace().find_map(|word| word.strip_prefix("v="));
    Ok(version.unwrap_or_else(|| line.trim()).to_owned())
}

/// How one package manager is asked.
struct Manager {
    program: &'static str,
    /// Fetches the list of packages; empty if `install` does so by itself.
    refresh: &'static [&'static str],
    install: &'static [&'static str],
    /// Tried in order: newer distributions carry only Valkey.
    packages: &'static [&'static str],
    needs_root: bool,
}

const MANAGERS: [Manager; 5] = [
    Manager {
        program: "apt-get",
        refresh: &["update", "-q"],
        install: &["install", "-q", "-y", "--no-install-recommends"],
        packages: &["redis-server", "valkey-server"],
        needs_root: true,
    },
    Manager {
        program: "dnf",
        refresh: &[],
        install: &["install", "-y", "--setopt=install_weak_deps=False"],
        packages: &["redis", "valkey"],
        needs_root: true,
    },
    Manager {
        program: "apk",
        refresh: &[],
        install: &["add", "--no-cache"],
        packages: &["redis", "valkey"],
        needs_root: true,
    },
    Manager {
        program: "pacman",
        refresh: &[],
        install: &["-Sy", "--noconfirm", "--needed"],
        packages: &["valkey", "redis"],
        needs_root: true,
    },
    Manager {
        program: "brew",
        refresh: &[],
        install: &["install"],
        packages: &["redis", "valkey"],
        needs_root: false,
    },
];

impl Manager {
    fn install(&self) -> Outcome {
        eprintln!("redis-server was not found: installing it with {}", self.program);
        let service = KeptOff::before_install(self)?;
        let installed = self.try_packages();
        service.after_install(self)?;
        installed
    }

    fn try_packages(&self) -> Outcome {
        if !self.refresh.is_empty() {
            // One foreign source that does not answer is no reason to give up.
            if let Err(failure) = process::run(self.command(self.program)?.args(self.refresh)) {
                eprintln!("{failure}; going on with the list of packages that is there");
            }
        }
        let mut last = Failure::new("there is no package to try");
        for package in self.packages {
            match process::run(self.command(self.program)?.args(self.install).arg(package)) {
                Ok(()) => return Ok(()),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    /// `program` with the rights that installing needs, and without questions to anybody.
    fn command(&self, program: &str) -> Outcome<Command> {
        let mut command = if !self.needs_root || rustix::process::geteuid().is_root() {
            Command::new(program)
        } else if may_sudo() {
            let mut command = Command::new("sudo");
            command.args(["-n", "env", "DEBIAN_FRONTEND=noninteractive", program]);
            command
        } else {
            return Err(Failure::new(format!(
                "{program} needs root, and sudo asks for a password"
            )));
        };
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        Ok(command)
    }
}

fn may_sudo() -> bool {
    let mut probe = Command::new("sudo");
    probe.args(["-n", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// Keeps Debian's package from starting a server on port 6379 and at each boot: only the program is
/// wanted, and whoever already uses that port must not notice.
struct KeptOff(bool);

impl KeptOff {
    const UNIT: &'static str = "redis-server.service";

    fn before_install(manager: &Manager) -> Outcome<Self> {
        // The folder exists where systemd runs the machine, and not in a container.
        let applies = manager.program == "apt-get" && Path::new("/run/systemd/system").is_dir();
        if applies {
            process::run(manager.command("systemctl")?.args(["mask", Self::UNIT]))?;
        }
        Ok(Self(applies))
    }

    fn after_install(self, manager: &Manager) -> Outcome {
        if !self.0 {
            return Ok(());
        }
        process::run(manager.command("systemctl")?.args(["unmask", Self::UNIT]))?;
        let mut disable = manager.command("systemctl")?;
        // It fails when the install failed and there is no such unit, which is as good.
        let _ = disable.args(["disable", Self::UNIT]).stderr(Stdio::null()).status();
        Ok(())
    }
}
