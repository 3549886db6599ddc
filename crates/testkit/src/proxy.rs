//! A bad network between a client and a server, switched by the test.

mod connection;
mod frame;
mod talk;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: they are passed on at once.
    #[default]
    Pass,
    /// Each byte arrives this much later; nothing is reordered, and the rate stays.
    Delay(Duration),
    /// They wait until another fault is set, and arrive then, as after a short partition.
    Stall,
    /// They are lost, and so is the end of a connection: the other side believes it is still up.
    Discard,
    /// At most this many bytes per second, at least 1, arrive on each connection.
    Throttle(u32),
}

/// Which way bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Requests.
    ToServer,
    /// Replies and messages.
    ToClient,
}

/// What a [`Proxy`] has done so far.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProxyStats {
    /// Connections accepted and not refused.
    pub accepted: u64,
    /// Connections refused.
    pub refused: u64,
    /// Connections that are open now.
    pub live: u64,
    /// Bytes that clients sent, whatever became of them.
    pub bytes_from_client: u64,
    /// Bytes that the server sent, whatever became of them.
    pub bytes_from_server: u64,
    /// Bytes that arrived at the server.
    pub bytes_to_server: u64,
    /// Bytes that arrived at clients.
    pub bytes_to_client: u64,
    /// Requests that were answered with a lie.
    pub lies: u64,
}

/// A TCP proxy on a loopback port, with faults that can be switched at any time.
///
/// A fault holds for bytes that are on their way and for all that follow, on open and on new
/// connections. Each direction of each connection buffers about 1 MiB and then stops reading.
/// Dropping the proxy closes all its connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl Proxy {
    /// Starts a proxy for `target` that passes everything on.
    ///
    /// The target may be down: a client's connection is then reset, as long as no fault hides it.
    ///
    /// # Errors
    /// The operating system's error, when no port is left.
    ///
    /// # Panics
    /// If called outside a Tokio runtime.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::new(target));
        let accepting = tokio::spawn(accept(listener, shared.clone())).abort_handle();
        Ok(Self { port, shared, accepting })
    }

    /// Returns the proxy's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns where the proxy listens.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Returns `url` with the proxy in place of its host and port.
    ///
    /// # Panics
    /// If `url` has no `://`, or names no host, as that of a unix socket.
    pub fn url_like(&self, url: &str) -> String {
        let (scheme, rest) = url.split_once("://").expect("the URL must have a scheme");
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        assert!(!authority.is_empty(), "a URL without a host cannot lead through a proxy");
        let user = authority.rfind('@').map_or("", |at| &authority[..=at]);
        format!("{scheme}://{user}{}{path}", self.addr())
    }

    /// Leads new connections to `target`, as when an address is given to another server. Open ones
    /// stay where they are; [`cut`](Self::cut) ends them.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock() = target;
    }

    /// Ends all faults. What was lost stays lost.
    pub fn pass(&self) {
        self.shared.faults.send_replace(Faults::default());
    }

    /// Ends all connections and then all faults.
    ///
    /// The end of a loss that a real network could have: TCP loses the tail of a connection and
    /// never bytes out of its middle, so a connection that lost some must not go on.
    ///
    /// # Cancel safety
    /// A dropped call leaves the proxy refusing.
    pub async fn pass_anew(&self) {
        self.refuse();
        while self.stats().live > 0 {
            self.cut();
            sleep(Duration::from_millis(1)).await;
        }
        self.pass();
    }

    /// Sets the fault of one direction and leaves the other as it is.
    pub fn set(&self, direction: Direction, fault: Fault) {
        self.shared.faults.send_modify(|faults| match direction {
            Direction::ToServer => faults.to_server = fault,
            Direction::ToClient => faults.to_client = fault,
        });
    }

    /// Delays both directions, so that a round trip takes `each_way` twice.
    pub fn delay(&self, each_way: Duration) {
        self.set_both(Fault::Delay(each_way));
    }

    /// Makes every connection half-open: it is accepted and stays up, and all that is sent is lost.
    pub fn hold(&self) {
        self.set_both(Fault::Discard);
    }

    /// Stops the traffic in both directions until the next [`pass`](Self::pass), which delivers it.
    pub fn stall(&self) {
        self.set_both(Fault::Stall);
    }

    /// Silently loses what travels in one direction.
    pub fn drop_bytes(&self, direction: Direction) {
        self.set(direction, Fault::Discard);
    }

    /// Limits each direction of each connection to this many bytes per second.
    pub fn throttle(&self, bytes_per_second: u32) {
        self.set_both(Fault::Throttle(bytes_per_second));
    }

    /// Resets all open connections, on both sides. New ones work.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Resets every new connection at once. Open ones are left alone.
    pub fn refuse(&self) {
        self.shared.faults.send_modify(|faults| faults.refusing = true);
    }

    /// Answers every request with these raw `bytes`. The server never sees the request.
    ///
    /// Each connection's answers stay in order. A connection that has subscribed is told no lies,
    /// because what it receives are no answers.
    pub fn lie(&self, bytes: impl Into<Bytes>) {
        self.set_lie(None, bytes.into());
    }

    /// Answers every `command`, such as `GET`, with these raw `bytes`, and passes the others on.
    /// Otherwise like [`lie`](Self::lie).
    pub fn lie_to(&self, command: &str, bytes: impl Into<Bytes>) {
        self.set_lie(Some(command.to_owned()), bytes.into());
    }

    /// Returns what the proxy has done so far.
    pub fn stats(&self) -> ProxyStats {
        let counts = &self.shared.counts;
        let read = |count: &AtomicU64| count.load(Ordering::SeqCst);
        ProxyStats {
            accepted: read(&counts.accepted),
            refused: read(&counts.refused),
            live: read(&counts.live),
            bytes_from_client: read(&counts.from_client),
            bytes_from_server: read(&counts.from_server),
            bytes_to_server: read(&counts.to_server),
            bytes_to_client: read(&counts.to_client),
            lies: read(&counts.lies),
        }
    }

    fn set_both(&self, fault: Fault) {
        self.shared.faults.send_modify(|faults| {
            faults.to_server = fault;
            faults.to_client = fault;
        });
    }

    fn set_lie(&self, command: Option<String>, answer: Bytes) {
        let lie = Some(Lie { command, answer });
        self.shared.faults.send_modify(|faults| faults.lie = lie);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The task owns the listener and all connections.
        self.accepting.abort();
    }
}

/// What the proxy and its connections share.
#[derive(Debug)]
struct Shared {
    target: Mutex<SocketAddr>,
    faults: watch::Sender<Faults>,
    /// How often connections were cut.
    cuts: watch::Sender<u64>,
    counts: Counts,
}

impl Shared {
    fn new(target: SocketAddr) -> Self {
        let faults = watch::Sender::new(Faults::default());
        Self {
            target: Mutex::new(target),
            faults,
            cuts: watch::Sender::new(0),
            counts: Counts::default(),
        }
    }
}

impl Shared {
    fn target(&self) -> SocketAddr {
        *self.target.lock()
    }
}

#[derive(Debug, Clone, Default)]
struct Faults {
    to_server: Fault,
    to_client: Fault,
    lie: Option<Lie>,
    refusing: bool,
}

impl Faults {
    fn of(&self, direction: Direction) -> Fault {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }
}

/// The answer to one command, or to all.
#[derive(Debug, Clone)]
struct Lie {
    command: Option<String>,
    answer: Bytes,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
    live: AtomicU64,
    from_client: AtomicU64,
    from_server: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
    lies: AtomicU64,
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) if shared.faults.borrow().refusing => {
                    shared.counts.refused.fetch_add(1, Ordering::SeqCst);
                    reset(&client);
                }
                Ok((client, _)) => {
                    connections.spawn(connection::run(client, shared.clone(), Live::new(&shared)));
                }
                // The client was gone before it was accepted, or descriptors are short for now.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Makes the coming close of `stream` a reset, which the peer sees as an error and not as an end.
fn reset(stream: &TcpStream) {
    // An error means that the peer was faster and the connection is gone.
    let _ = stream.set_zero_linger();
}

/// Counts one connection for as long as it lives.
struct Live(Arc<Shared>);

impl Live {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.counts.accepted.fetch_add(1, Ordering::SeqCst);
        shared.counts.live.fetch_add(1, Ordering::SeqCst);
        Self(shared.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.counts.live.fetch_sub(1, Ordering::SeqCst);
    }
}
