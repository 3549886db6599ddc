//! From an address to a connection that the client library drives.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures_util::future::select_ok;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};

use crate::cork::Cork;
use crate::first_words::{FirstWords, Overheard};
use crate::trouble::Trouble;
use crate::url::{Address, Credentials, Host, Protocol};

/// Everything that a new connection needs.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: Address,
    pub(crate) credentials: Credentials,
    pub(crate) db: u32,
    pub(crate) protocol: Protocol,
    pub(crate) client_name: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) socket: SocketOptions,
    /// How many calls are under way.
    pub(crate) in_flight: Arc<AtomicUsize>,
}

/// What the operating system is told about a TCP connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOptions {
    pub(crate) nodelay: bool,
    pub(crate) keepalive_idle: Duration,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_probes: u32,
    pub(crate) user_timeout: Duration,
}

/// Requests that wait to be written. A task that finds no place sleeps and is woken once more, so
/// with the library's 50 a crowd of 256 tasks spends a fifth more on each call. The places take
/// memory only while they are used, and calls as such are bounded before they come here.
const QUEUED_MAX: usize = 1024;

/// Moves bytes between the socket and the callers, until the connection ends.
pub(crate) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection that nobody has used yet.
pub(crate) struct Opened {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) driver: Driver,
    pub(crate) words: FirstWords,
}

impl Target {
    /// Opens a connection, without a word to the server except what `info` asks for.
    ///
    /// The library opens sockets too, but it has one message for all that can go wrong with a
    /// password, and it does not say when a connection has ended. Here the driver is in our hands:
    /// when it ends, the connection has.
    pub(crate) async fn open(
        &self,
        info: &RedisConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> Result<Opened, Trouble> {
        match &self.address {
            Address::Tcp(host) => {
                let stream = self.connect_tcp(host).await?;
                self.over(stream, info, config).await
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                let stream = tokio::net::UnixStream::connect(path).await;
                self.over(stream.map_err(|error| self.sorted(&error))?, info, config).await
            }
            #[cfg(not(unix))]
            Address::Unix(_) => Err(self.sorted(&io::Error::from(io::ErrorKind::Unsupported))),
        }
    }

    async fn over<S>(
        &self,
        stream: S,
        info: &RedisConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> Result<Opened, Trouble>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Each call has one deadline, and it is ours.
        let config = config
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_pipeline_buffer_size(QUEUED_MAX);
        let words = FirstWords::default();
        let overheard = Overheard::new(stream, words.clone());
        let stream = Cork::new(overheard, Arc::clone(&self.in_flight));
        match MultiplexedConnection::new_with_config(info, stream, config).await {
            Ok((connection, driver)) => Ok(Opened { connection, driver: Box::pin(driver), words }),
            Err(error) => Err(explain(&words, Trouble::from_library(&error))),
        }
    }

    async fn connect_tcp(&self, host: &Host) -> Result<TcpStream, Trouble> {
        let unresolved = || Trouble::Unresolved(host.name.clone());
        let found = lookup_host((host.name.as_str(), host.port)).await;
        let addresses: Vec<_> = found.map_err(|_| unresolved())?.collect();
        if addresses.is_empty() {
            return Err(unresolved());
        }
        // All at once: behind one name there can be an address that swallows packets.
        let attempts = addresses.into_iter().map(|address| Box::pin(TcpStream::connect(address)));
        let (stream, _) = select_ok(attempts).await.map_err(|error| self.sorted(&error))?;
        self.socket.set_on(&stream).map_err(|error| self.sorted(&error))?;
        Ok(stream)
    }

    fn sorted(&self, error: &io::Error) -> Trouble {
        Trouble::from_io(error, &self.address.to_string())
    }
}

/// The better reason of the two, when a connection turned out to be closed.
pub(crate) fn explain(words: &FirstWords, why: Trouble) -> Trouble {
    match (why, words.refusal()) {
        (Trouble::Closed, Some(refusal)) => Trouble::from_rejection(refusal),
        (why, _) => why,
    }
}

impl SocketOptions {
    fn set_on(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(self.nodelay)?;
        let socket = SockRef::from(stream);
        let keepalive = TcpKeepalive::new()
            .with_time(self.keepalive_idle)
            .with_interval(self.keepalive_interval);
        #[cfg(not(any(target_os = "openbsd", target_os = "haiku", target_os = "nto")))]
        let keepalive = keepalive.with_retries(self.keepalive_probes);
        socket.set_tcp_keepalive(&keepalive)?;
        // Keep-alive probes are not sent while data waits for an acknowledgement; this covers that.
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        socket.set_tcp_user_timeout(Some(self.user_timeout))?;
        Ok(())
    }
}
