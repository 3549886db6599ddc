//! The Redis server of a bench, and the barest connection to it.

use std::time::Duration;

use fleetwide_redis_backend::{Redis, RedisUrl};
use fleetwide_testkit::RedisServer;
use futures_util::Stream;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, Msg};

/// A round of measuring must not end because this machine was busy elsewhere.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server of the bench's own, which ends with this value.
pub struct Server {
    server: RedisServer,
}

impl Server {
    /// Starts it.
    ///
    /// # Panics
    /// If there is no Redis on this machine; the text says what to do.
    pub async fn start() -> Self {
        let server = RedisServer::start().await.unwrap_or_else(|error| panic!("{error}"));
        Self { server }
    }

    /// Our handle on it, with default options but for the timeouts, connected.
    ///
    /// # Panics
    /// If it does not connect.
    pub async fn ours(&self) -> Redis {
        let url = RedisUrl::parse(&self.server.url()).expect("the test kit gives good URLs");
        let redis = Redis::builder(url).command_timeout(PATIENCE).total_timeout(PATIENCE).build();
        let redis = redis.expect("the options fit together");
        redis.ready(PATIENCE).await.expect("the server runs");
        redis
    }

    /// A bare multiplexed connection for the same user and with the same socket options as ours:
    /// the floor of everything that goes over the wire.
    ///
    /// # Panics
    /// If it does not connect.
    pub async fn bare(&self) -> MultiplexedConnection {
        self.connect(true).await
    }

    /// The same as the client library makes it by default, with Nagle's algorithm: it gathers
    /// small writes, which pays on a loopback device and costs on a network.
    ///
    /// # Panics
    /// If it does not connect.
    pub async fn bare_by_default(&self) -> MultiplexedConnection {
        self.connect(false).await
    }

    /// A subscription to `channel` over the client library, for the same user.
    ///
    /// # Panics
    /// If it does not connect.
    pub async fn bare_subscription(&self, channel: &str) -> impl Stream<Item = Msg> + use<> {
        let mut subscription = self.client(true).get_async_pubsub().await.expect("the server runs");
        subscription.subscribe(channel).await.expect("the user may subscribe");
        subscription.into_on_message()
    }

    /// Cuts all subscriptions, as a proxy or a failover does.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn cut_subscriptions(&self) {
        let cut = self.server.admin(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        cut.expect("an admin may do that");
    }

    /// Stops it where it stands (`SIGSTOP`): its connections stay open, and nothing answers.
    pub fn freeze(&self) {
        self.server.stop();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.server.cont();
    }

    /// A URL with all rights, for peers that need more commands than we do.
    pub fn url_for_peers(&self) -> String {
        self.server.admin_url()
    }

    fn client(&self, nodelay: bool) -> Client {
        let info = self.server.url().into_connection_info().expect("the test kit gives good URLs");
        let tcp = TcpSettings::default().set_nodelay(nodelay);
        Client::open(info.set_tcp_settings(tcp)).expect("a plain address")
    }

    async fn connect(&self, nodelay: bool) -> MultiplexedConnection {
        let client = self.client(nodelay);
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let connection = client.get_multiplexed_async_connection_with_config(&config);
        connection.await.expect("the server runs")
    }
}
