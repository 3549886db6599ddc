//! The task that holds the subscriptions of a handle.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::Signal;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisResult,
    Value,
};
use tokio::select;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::Order;
use super::queue::Queue;
use crate::dial::Opened;
use crate::shared::Shared;
use crate::trouble::Trouble;

/// How often a silent connection is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(2);
/// How long a refused subscription waits for its next attempt.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Listens until the handle is gone; then all subscriptions end.
pub(crate) async fn run(shared: Arc<Shared>, orders: UnboundedReceiver<Order>) {
    let stop = shared.stop.clone();
    let mut listener = Listener { shared, orders, topics: HashMap::new(), refused: None };
    select! {
        () = stop.cancelled() => {}
        () = listener.listen() => {}
    }
    listener.close();
}

struct Listener {
    shared: Arc<Shared>,
    orders: UnboundedReceiver<Order>,
    topics: HashMap<Bytes, Topic>,
    /// Until when no subscription is tried, after the server refused one.
    refused: Option<Instant>,
}

/// One channel and who wants it.
#[derive(Default)]
struct Topic {
    members: Vec<Member>,
    standing: Standing,
}

struct Member {
    queue: Arc<Queue>,
    /// Whether it was told `Ready`, and so gets messages.
    ready: bool,
}

/// How a channel stands with the server, by its own acknowledgements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Absent,
    Asked,
    Stands,
    Leaving,
}

/// One connection that listens.
struct Ear {
    connection: MultiplexedConnection,
    heard: UnboundedReceiver<PushInfo>,
    driver: AbortHandle,
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A request on its way. One at a time: what the server says next to a channel then always belongs
/// to the last thing that was asked about it.
type Request = Pin<Box<dyn Future<Output = Result<RedisResult<()>, Trouble>> + Send>>;

impl Listener {
    async fn listen(&mut self) {
        let mut backoff = self.shared.backoff();
        loop {
            self.until_wanted().await;
            let why = match self.open().await {
                Ok(mut ear) => {
                    let born = Instant::now();
                    let why = self.attend(&mut ear).await;
                    self.lose();
                    backoff.reset_after(born.elapsed());
                    why
                }
                Err(why) => why,
            };
            self.shared.board.bus((!self.topics.is_empty()).then_some(why));
            self.obey_during(sleep(backoff.pause())).await;
        }
    }

    /// Does nothing as long as nobody listens.
    async fn until_wanted(&mut self) {
        while self.topics.is_empty() {
            match self.orders.recv().await {
                Some(order) => self.obey(order),
                // Every sender is in the handle, so the end of the task is near.
                None => std::future::pending().await,
            }
        }
    }

    /// Takes orders while `work` goes on.
    async fn obey_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            select! {
                done = &mut work => return done,
                Some(order) = self.orders.recv() => self.obey(order),
            }
        }
    }

    async fn open(&mut self) -> Result<Ear, Trouble> {
        let shared = Arc::clone(&self.shared);
        let target = &shared.target;
        let within = target.connect_timeout;
        let opened = self.obey_during(timeout(within, open(&shared))).await;
        opened.unwrap_or_else(|_| Err(Trouble::ConnectTimeout(target.address.to_string(), within)))
    }

    /// Listens on one connection, and says in the end why it is one no longer.
    async fn attend(&mut self, ear: &mut Ear) -> Trouble {
        let mut ticks = interval(PING_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut request: Option<Request> = None;
        let mut one_by_one = false;
        loop {
            if request.is_none() {
                request = self.next_request(ear, one_by_one);
            }
            let busy = request.is_some();
            let pause = self.refused.unwrap_or_else(Instant::now);
            select! {
                Some(order) = self.orders.recv() => self.obey(order),
                heard = ear.heard.recv() => match heard {
                    Some(push) => {
                        if let Err(why) = self.hear(push) {
                            return why;
                        }
                    }
                    None => return Trouble::Closed,
                },
                done = poll_request(&mut request), if busy => {
                    request = None;
                    match self.settle(done, ear) {
                        Ok(refused) => one_by_one |= refused,
                        Err(why) => return why,
                    }
                }
                _ = ticks.tick(), if !busy => request = Some(self.ping(ear)),
                () = tokio::time::sleep_until(pause), if self.refused.is_some() => {
                    self.refused = None;
                }
            }
        }
    }

    /// What to ask the server next, if anything: to leave what nobody wants, then to join what
    /// somebody wants.
    fn next_request(&mut self, ear: &Ear, one_by_one: bool) -> Option<Request> {
        let wanted = |topic: &Topic| !topic.members.is_empty();
        let mut names = Vec::new();
        for (name, topic) in &mut self.topics {
            if topic.standing == Standing::Stands && !wanted(topic) {
                topic.standing = Standing::Leaving;
                names.push(name.clone());
            }
        }
        let within = self.shared.limits.command_timeout;
        let mut connection = ear.connection.clone();
        if !names.is_empty() {
            return Some(in_time(within, async move {
                connection.unsubscribe(arguments(&names)).await
            }));
        }
        if self.refused.is_some() {
            return None;
        }
        let limit = if one_by_one { 1 } else { usize::MAX };
        for (name, topic) in &mut self.topics {
            if topic.standing == Standing::Absent && wanted(topic) && names.len() < limit {
                topic.standing = Standing::Asked;
                names.push(name.clone());
            }
        }
        (!names.is_empty())
            .then(|| in_time(within, async move { connection.subscribe(arguments(&names)).await }))
    }

    fn ping(&self, ear: &Ear) -> Request {
        let mut connection = ear.connection.clone();
        in_time(self.shared.limits.command_timeout, async move {
            connection.send_packed_command(&redis::cmd("PING")).await?.extract_error().map(drop)
        })
    }

    /// Looks at the end of a request. `Ok(true)` if the server refused it.
    fn settle(
        &mut self,
        done: Result<RedisResult<()>, Trouble>,
        ear: &mut Ear,
    ) -> Result<bool, Trouble> {
        // The acknowledgements came before the end of the request.
        while let Ok(push) = ear.heard.try_recv() {
            self.hear(push)?;
        }
        let refused = match done? {
            Ok(()) => None,
            Err(error) => match Trouble::from_library(&error) {
                why @ (Trouble::Closed | Trouble::Garbage) => return Err(why),
                why => Some(why),
            },
        };
        let open = |topic: &Topic| matches!(topic.standing, Standing::Asked | Standing::Leaving);
        match refused {
            // An end without an acknowledgement of each channel: not what Redis does.
            None if self.topics.values().any(open) => Err(Trouble::Garbage),
            None => Ok(false),
            Some(why) => {
                for topic in self.topics.values_mut().filter(|topic| open(topic)) {
                    topic.standing = Standing::Absent;
                }
                self.refused = Some(Instant::now() + REFUSED_PAUSE);
                self.shared.board.bus(Some(why));
                Ok(true)
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Join(name, queue) => {
                let topic = self.topics.entry(name).or_default();
                let ready = topic.standing == Standing::Stands;
                if ready {
                    queue.push(Signal::Ready);
                }
                topic.members.push(Member { queue, ready });
            }
            Order::Leave(name) => {
                let Some(topic) = self.topics.get_mut(&name) else { return };
                topic.members.retain(|member| !member.queue.has_left());
                if topic.members.is_empty() && topic.standing == Standing::Absent {
                    self.topics.remove(&name);
                }
            }
        }
    }

    fn hear(&mut self, push: PushInfo) -> Result<(), Trouble> {
        let mut data = push.data.into_iter();
        let mut next_bytes = || match data.next() {
            Some(Value::BulkString(bytes)) => Some(Bytes::from(bytes)),
            _ => None,
        };
        match push.kind {
            PushKind::Message => {
                let (Some(name), Some(payload)) = (next_bytes(), next_bytes()) else {
                    return Err(Trouble::Garbage);
                };
                if let Some(topic) = self.topics.get(&name) {
                    for member in topic.members.iter().filter(|member| member.ready) {
                        member.queue.message(&payload);
                    }
                }
            }
            PushKind::Subscribe => self.joined(&next_bytes().ok_or(Trouble::Garbage)?),
            PushKind::Unsubscribe => self.parted(&next_bytes().ok_or(Trouble::Garbage)?),
            PushKind::Disconnection => return Err(Trouble::Closed),
            // Nothing else was asked for.
            _ => {}
        }
        Ok(())
    }

    fn joined(&mut self, name: &Bytes) {
        if let Some(topic) = self.topics.get_mut(name) {
            topic.standing = Standing::Stands;
            for member in topic.members.iter_mut().filter(|member| !member.ready) {
                member.ready = true;
                member.queue.push(Signal::Ready);
            }
        }
        if self.topics.values().all(|topic| topic.standing == Standing::Stands) {
            self.shared.board.bus(None);
        }
    }

    fn parted(&mut self, name: &Bytes) {
        if let Some(topic) = self.topics.get_mut(name) {
            // Who joined meanwhile is subscribed anew.
            topic.standing = Standing::Absent;
            if topic.members.is_empty() {
                self.topics.remove(name);
            }
        }
    }

    /// The connection is gone: whoever was ready is told, and nothing stands.
    fn lose(&mut self) {
        self.refused = None;
        self.topics.retain(|_, topic| {
            topic.standing = Standing::Absent;
            topic.members.retain(|member| !member.queue.has_left());
            for member in topic.members.iter_mut().filter(|member| member.ready) {
                member.ready = false;
                member.queue.push(Signal::Lost);
            }
            !topic.members.is_empty()
        });
    }

    /// The bus is gone: all subscriptions end, also those that were just asked for.
    fn close(mut self) {
        self.lose();
        self.orders.close();
        while let Ok(order) = self.orders.try_recv() {
            self.obey(order);
        }
        for member in self.topics.values().flat_map(|topic| &topic.members) {
            member.queue.close();
        }
    }
}

async fn open(shared: &Shared) -> Result<Ear, Trouble> {
    let (pushes, heard) = unbounded_channel();
    let credentials = &shared.target.credentials;
    let mut info =
        RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
    if let Some(user) = &credentials.user {
        info = info.set_username(user);
    }
    if credentials.user.is_some() || credentials.password.is_some() {
        info = info.set_password(credentials.password.as_deref().unwrap_or_default());
    }
    let config = AsyncConnectionConfig::new().set_push_sender(pushes);
    let Opened { connection, driver, .. } = shared.target.open(&info, config).await?;
    let driver = shared.tasks.spawn(driver).abort_handle();
    Ok(Ear { connection, heard, driver })
}

fn in_time(
    within: Duration,
    request: impl Future<Output = RedisResult<()>> + Send + 'static,
) -> Request {
    Box::pin(async move { timeout(within, request).await.map_err(|_| Trouble::Hung(within)) })
}

fn arguments(names: &[Bytes]) -> Vec<&[u8]> {
    names.iter().map(AsRef::as_ref).collect()
}

async fn poll_request(request: &mut Option<Request>) -> Result<RedisResult<()>, Trouble> {
    match request {
        Some(request) => request.await,
        None => std::future::pending().await,
    }
}
