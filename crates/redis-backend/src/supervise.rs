//! The tasks that keep the shared connections standing.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fleetwide_core_traits::Wire;
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::backoff::Backoff;
use crate::link::{Link, Standing};
use crate::shared::{Lane, Shared};
use crate::trouble::Trouble;

/// How often a server that refuses something is asked whether it still does.
const REFUSAL_LOOK: Duration = Duration::from_secs(1);
/// How long a refusal that cannot be asked about is held against the server after the last one.
const REFUSAL_QUIET: Duration = Duration::from_secs(5);

/// Keeps lane `index` served until the handle is gone.
pub(crate) async fn lane(shared: Arc<Shared>, index: usize) {
    let stop = shared.stop.clone();
    select! {
        () = stop.cancelled() => {}
        () = serve(&shared, index) => {}
    }
    if let Some(link) = shared.lanes[index].link.swap(None) {
        link.cut();
    }
    shared.board.lane(index, Some(Trouble::ShutDown));
    shared.tried.send_replace(true);
}

async fn serve(shared: &Shared, index: usize) {
    let mut backoff = shared.backoff();
    loop {
        let mut reasons = shared.scripts.reasons();
        match open(shared).await {
            Ok((link, standing)) => {
                let lane = &shared.lanes[index];
                let born = Instant::now();
                install(shared, index, Arc::new(link), standing);
                let why = attend(shared, index, standing, &mut reasons, &mut backoff).await;
                if let Some(link) = lane.link.swap(None) {
                    // Who still waits on it learns now that no reply will come.
                    link.cut();
                }
                shared.board.lane(index, Some(why));
                backoff.reset_after(born.elapsed());
            }
            Err(why) => {
                shared.board.lane(index, Some(why));
                shared.tried.send_replace(true);
            }
        }
        sleep(backoff.pause()).await;
    }
}

async fn open(shared: &Shared) -> Result<(Link, Standing), Trouble> {
    let number = shared.links.fetch_add(1, Ordering::Relaxed);
    let scripts = shared.scripts.all();
    let Shared { target, script_clock, histories, tasks, .. } = shared;
    Link::open(target, number, &scripts, *script_clock, histories, tasks).await
}

/// Gives a new connection to the callers, and tells what is known of the server.
fn install(shared: &Shared, index: usize, link: Arc<Link>, standing: Standing) {
    shared.lanes[index].link.store(Some(link));
    shared.histories.announce();
    judge(shared, standing);
    shared.board.lane(index, None);
    shared.tried.send_replace(true);
}

fn judge(shared: &Shared, standing: Standing) {
    shared.board.read_only(standing == Standing::Replica);
    match standing {
        Standing::CannotPersist => shared.board.refused(Trouble::CannotPersist),
        Standing::Serving => {
            shared.board.forget(&Trouble::CannotPersist);
            shared.board.forget(&Trouble::ReadOnly);
        }
        Standing::Replica | Standing::Silent => {}
    }
}

/// Whether the server is a replica: by its own word, or by what it refuses.
fn is_replica(shared: &Shared, standing: Standing) -> bool {
    match standing {
        Standing::Replica => true,
        Standing::Silent => shared.board.is_refusing(&Trouble::ReadOnly),
        Standing::Serving | Standing::CannotPersist => false,
    }
}

/// Watches over the connection of a lane, and says in the end why it is one no longer.
async fn attend(
    shared: &Shared,
    index: usize,
    standing: Standing,
    reasons: &mut watch::Receiver<u64>,
    backoff: &mut Backoff,
) -> Trouble {
    let lane = &shared.lanes[index];
    let within = shared.limits.command_timeout;
    // While the server is a replica, the address is tried again: it may lead to the primary soon.
    let mut look = pin!(sleep_until(Instant::now() + backoff.pause()));
    let mut replica = is_replica(shared, standing);
    loop {
        let Some(link) = lane.link.load_full() else { return Trouble::Closed };
        let outcome = select! {
            () = link.closed() => return Trouble::Closed,
            () = lane.doubt.notified() => link.probe(&shared.histories, within).await,
            Ok(()) = reasons.changed() => {
                // Loading takes the server longer than a PING, so it gets more time.
                let patience = within.max(shared.target.connect_timeout);
                let loaded = link.load(&shared.scripts.all(), shared.script_clock, patience).await;
                match loaded {
                    Ok(()) => continue,
                    Err(why) => Err(why),
                }
            }
            () = &mut look, if replica => redial(shared, index, &link).await,
        };
        let standing = match outcome {
            Ok(standing) => standing,
            Err(why) => return why,
        };
        judge(shared, standing);
        replica = is_replica(shared, standing);
        if replica {
            look.as_mut().reset(Instant::now() + backoff.pause());
        }
    }
}

/// Opens a second connection and, if that works, puts it in the place of the first, which serves
/// reads until then.
async fn redial(shared: &Shared, index: usize, old: &Arc<Link>) -> Result<Standing, Trouble> {
    let Ok((link, standing)) = open(shared).await else {
        return old.probe(&shared.histories, shared.limits.command_timeout).await;
    };
    shared.lanes[index].link.store(Some(Arc::new(link)));
    shared.histories.announce();
    retire(shared, Arc::clone(old));
    Ok(standing)
}

/// Lets the calls on `link` end before the connection does.
fn retire(shared: &Shared, link: Arc<Link>) {
    let (stop, grace) = (shared.stop.clone(), shared.limits.total_timeout);
    shared.tasks.spawn(async move {
        select! {
            () = stop.cancelled() => {}
            () = sleep(grace) => {}
        }
        link.cut();
    });
}

/// Looks whether what the server refused is still refused, as long as anything is.
pub(crate) async fn refusals(shared: Arc<Shared>) {
    let stop = shared.stop.clone();
    select! {
        () = stop.cancelled() => {}
        () = watch_refusals(&shared) => {}
    }
}

async fn watch_refusals(shared: &Arc<Shared>) {
    loop {
        shared.board.refusal.notified().await;
        while shared.board.has_refusals() {
            sleep(REFUSAL_LOOK).await;
            let asked = ask_about_memory(shared).await;
            if shared.board.is_refusing(&Trouble::CannotPersist) {
                // Its supervisor asks with PING, which such a server refuses too.
                shared.lanes.iter().for_each(|lane: &Lane| lane.doubt.notify_one());
            }
            shared.board.forget_quiet(REFUSAL_QUIET, |trouble| match trouble {
                Trouble::OutOfMemory => asked,
                Trouble::CannotPersist => true,
                _ => false,
            });
        }
    }
}

/// Whether the server could be asked about its memory; if there is room again, the refusal is
/// forgotten.
async fn ask_about_memory(shared: &Arc<Shared>) -> bool {
    if !shared.board.is_refusing(&Trouble::OutOfMemory) {
        return false;
    }
    let mut info = redis::cmd("INFO");
    info.arg("memory");
    let Ok(Wire::Bytes(text)) = shared.command(info, shared.budget()).await else { return false };
    let field = |name| crate::info::number(&text, name);
    let (Some(used), Some(max)) = (field("used_memory"), field("maxmemory")) else { return false };
    // What the server itself does not count against the limit.
    let exempt = field("mem_not_counted_for_evict").unwrap_or(0);
    if max == 0 || used.saturating_sub(exempt) <= max {
        shared.board.forget(&Trouble::OutOfMemory);
    }
    true
}
