//! A run: breaks the fleet until enough was read, mends it, and judges.

use std::path::PathBuf;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep};

use crate::check::{Promise, Verdict, check};
use crate::clock::now_us;
use crate::faults::{Fault, Window};
use crate::fleet::{Fleet, RunError};
use crate::keys::Keys;
use crate::origin::Origin;
use crate::report::{Recovery, Report};
use crate::signs::{Phase, PhaseFile};

/// How long after its mending a node may take until it reads verified values again. The way back
/// has its pauses: a second between two attempts to connect, and to each of them a second.
const RECOVERY_MAX: Duration = Duration::from_secs(15);
/// How long the last invalidations may take when nothing is broken any more.
const FINISH_MAX: Duration = Duration::from_secs(30);
/// How long the nodes may take to see the last invalidations, with room for a busy machine. The
/// bound itself is the check's business.
const CONVERGE_MAX: Duration = Duration::from_secs(10);
/// How long a node may take to end.
const END_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a run does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What all randomness follows from. Which fault comes when is in it; how the processes then
    /// meet is not.
    pub seed: u64,
    /// The program of a node.
    pub program: PathBuf,
    /// Nodes.
    pub nodes: u32,
    /// Reads at least.
    pub reads: u64,
    /// The kinds that come at random; each comes once before any comes again.
    pub kinds: Vec<Fault>,
    /// Faults at least.
    pub faults: usize,
    /// Faults last so much of their usual time.
    pub scale: f64,
    /// Whether Redis is away for 25 s at the end.
    pub outage: bool,
    /// Tells a person how far it is.
    pub say: fn(&str),
}

impl Plan {
    /// Ten million reads, all kinds of faults, and the outage.
    pub fn long(program: PathBuf, seed: u64) -> Self {
        Self {
            seed,
            program,
            nodes: 4,
            reads: 10_000_000,
            kinds: Fault::RANDOM.to_vec(),
            faults: Fault::RANDOM.len(),
            scale: 1.0,
            outage: true,
            say: |_| {},
        }
    }

    /// A slice of some twenty seconds.
    #[must_use]
    pub fn quick(self) -> Self {
        Self { nodes: 3, reads: 100_000, faults: 10, scale: 0.4, outage: false, ..self }
    }
}

/// Runs `plan`.
///
/// # Errors
/// [`RunError`] if there is no verdict. No process is left behind in any case.
///
/// # Cancel safety
/// Dropping it kills all processes.
pub async fn run(plan: Plan) -> Result<Report, RunError> {
    let began = Instant::now();
    let keys = Keys { hot: 240, cold: 6000, nodes: plan.nodes };
    let fleet = Fleet::start(plan.program.clone(), plan.seed, keys).await?;
    let phase = PhaseFile::open(fleet.folder())?;
    let mut breaking = Breaking {
        fleet: &fleet,
        rng: StdRng::seed_from_u64(plan.seed),
        deck: Vec::new(),
        recoveries: Vec::new(),
        late: Vec::new(),
        plan: &plan,
    };
    breaking.recovered(Vec::new()).await?;
    breaking.break_it().await?;
    let (recoveries, mut late) = (breaking.recoveries, breaking.late);
    late.extend(finish(&fleet, &phase).await?);
    (plan.say)("all has ended; checking");
    let origin = Origin::open(&fleet.origin())?;
    let (lives, windows) = (fleet.lives(), fleet.windows());
    let checked = tokio::task::spawn_blocking(move || check(&lives, &windows, &origin));
    let mut verdict: Verdict = checked.await.map_err(std::io::Error::other)??;
    for what in late {
        verdict.broken(Promise::Recovery, 1, || what);
    }
    Ok(Report {
        seed: plan.seed,
        nodes: plan.nodes,
        lasted: began.elapsed(),
        windows: fleet.windows(),
        recoveries,
        verdict,
    })
}

/// The part in which things break.
struct Breaking<'a> {
    fleet: &'a Fleet,
    rng: StdRng,
    /// Kinds that have not come since it was last full.
    deck: Vec<Fault>,
    recoveries: Vec<Recovery>,
    /// What did not come back in time.
    late: Vec<String>,
    plan: &'a Plan,
}

impl Breaking<'_> {
    async fn break_it(&mut self) -> Result<(), RunError> {
        let mut broken = 0;
        while broken < self.plan.faults || self.fleet.reads() < self.plan.reads {
            let mut faults = vec![self.draw()];
            if self.rng.random_ratio(1, 4) {
                faults.push(self.draw());
            }
            broken += faults.len();
            let windows = self.suffer(&faults).await?;
            self.progress(&windows);
            // Sometimes the next one comes before this one is over.
            if self.rng.random_ratio(3, 4) {
                self.recovered(windows).await?;
            }
            let calm = self.rng.random_range(100..2500);
            sleep(Duration::from_millis(calm).mul_f64(self.plan.scale)).await;
        }
        if self.plan.outage {
            let window = self.suffer(&[Fault::Outage]).await?;
            self.progress(&window);
            self.recovered(window).await?;
        }
        Ok(())
    }

    /// The next kind, each once before any comes again.
    fn draw(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.plan.kinds);
            self.deck.shuffle(&mut self.rng);
        }
        self.deck.pop().unwrap_or(Fault::Cut)
    }

    async fn suffer(&mut self, faults: &[Fault]) -> Result<Vec<Window>, RunError> {
        let rng = || StdRng::seed_from_u64(self.rng.random());
        let mut rngs: Vec<StdRng> = std::iter::repeat_with(rng).take(faults.len()).collect();
        let (fleet, scale) = (self.fleet, self.plan.scale);
        let one = |(fault, rng)| fleet.suffer(fault, rng, scale);
        let mut windows = Vec::new();
        match (faults, &mut *rngs) {
            ([first, second, ..], [a, b, ..]) => {
                let (one, other) = tokio::try_join!(one((*first, a)), one((*second, b)))?;
                windows.extend([one, other]);
            }
            ([first], [a]) => windows.push(one((*first, a)).await?),
            _ => {}
        }
        Ok(windows)
    }

    /// Waits until all nodes read verified values again, and notes how long that took.
    async fn recovered(&mut self, after: Vec<Window>) -> Result<(), RunError> {
        let mended = now_us();
        let deadline = Instant::now() + RECOVERY_MAX;
        loop {
            self.fleet.check_running()?;
            let statuses = self.fleet.statuses();
            if statuses.iter().all(|status| status.verified_at > mended) {
                let took = now_us() - mended;
                self.recoveries
                    .extend(after.iter().map(|window| Recovery::new(window.fault, took)));
                return Ok(());
            }
            if Instant::now() > deadline {
                let behind: Vec<usize> =
                    (0..statuses.len()).filter(|at| statuses[*at].verified_at <= mended).collect();
                let names: Vec<&str> = after.iter().map(|window| window.fault.name()).collect();
                self.late.push(format!(
                    "nodes {behind:?} were not verified {RECOVERY_MAX:?} after {names:?}, which \
                     ended at {mended}"
                ));
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn progress(&self, windows: &[Window]) {
        for Window { fault, node, from, to } in windows {
            let whom = node.map_or(String::new(), |node| format!(", node {node}"));
            let seconds = (to - from) as f64 / 1e6;
            (self.plan.say)(&format!(
                "{:>11} reads; {}{whom}: {seconds:.1} s",
                self.fleet.reads(),
                fault.name()
            ));
        }
    }
}

/// Ends the run, and says in words what was not as it should be in the end.
async fn finish(fleet: &Fleet, phase: &PhaseFile) -> Result<Vec<String>, RunError> {
    let mut wrong = Vec::new();
    phase.set(Phase::Settle)?;
    sleep(LOOK_EVERY * 10).await;
    phase.set(Phase::Finish)?;
    if !until(fleet, FINISH_MAX, |status| status.invalidated).await? {
        wrong.push(format!("not all nodes could write {FINISH_MAX:?} after the last fault"));
    } else if !until(fleet, CONVERGE_MAX, |status| status.converged).await? {
        let statuses = fleet.statuses();
        let behind = statuses.iter().map(|status| (!status.converged).then_some(status.behind));
        wrong.push(format!(
            "not all nodes read the last versions {CONVERGE_MAX:?} after they were written: {:?}",
            behind.collect::<Vec<_>>()
        ));
    }
    phase.set(Phase::End)?;
    if !fleet.ended(END_MAX).await? {
        wrong.push(format!("not all nodes have ended within {END_MAX:?}"));
    }
    Ok(wrong)
}

async fn until(
    fleet: &Fleet,
    within: Duration,
    holds: impl Fn(&crate::signs::Status) -> bool,
) -> Result<bool, RunError> {
    let deadline = Instant::now() + within;
    loop {
        fleet.check_running()?;
        if fleet.statuses().iter().all(&holds) {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        sleep(LOOK_EVERY).await;
    }
}
