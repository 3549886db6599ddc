//! One connection through the proxy: two readers, two writers, one task.

use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::talk::Talk;
use super::{Direction, Fault, Faults, Live, Shared, reset};

/// One read; [`CHUNKS_MAX`] of them are what a direction buffers.
const CHUNK_BYTES: usize = 16 * 1024;
const CHUNKS_MAX: usize = 64;

/// What travels in one direction.
enum Item {
    Bytes { arrived: Instant, bytes: Bytes },
    End,
}

pub(super) async fn run(mut client: TcpStream, shared: Arc<Shared>, _live: Live) {
    let mut cuts = shared.cuts.subscribe();
    let server = tokio::select! {
        _ = cuts.changed() => None,
        server = reach_server(&shared) => server,
    };
    if let Some(mut server) = server {
        tokio::select! {
            _ = cuts.changed() => reset(&server),
            _ = pump(&mut client, &mut server, &shared) => return,
        }
    }
    reset(&client);
}

/// Connects to the target; `None` if that fails and no fault hides the failure from the client.
async fn reach_server(shared: &Shared) -> Option<TcpStream> {
    let mut faults = shared.faults.subscribe();
    loop {
        if let Ok(server) = TcpStream::connect(shared.target()).await {
            return Some(server);
        }
        match faults.borrow_and_update().of(Direction::ToClient) {
            Fault::Stall | Fault::Discard => {}
            Fault::Pass | Fault::Delay(_) | Fault::Throttle(_) => return None,
        }
        faults.changed().await.ok()?;
    }
}

/// Returns when both directions have ended, or when either side cannot be written to any more.
async fn pump(client: &mut TcpStream, server: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let (server_items, server_queue) = mpsc::channel(CHUNKS_MAX);
    let (client_items, client_queue) = mpsc::channel(CHUNKS_MAX);
    let talk = Mutex::new(Talk::default());
    let faults = || shared.faults.subscribe();
    tokio::try_join!(
        read_requests(from_client, server_items, client_items.clone(), &talk, shared),
        read_replies(from_server, client_items, &talk, &shared.counts.from_server),
        deliver(Direction::ToServer, server_queue, to_server, faults(), &shared.counts.to_server),
        deliver(Direction::ToClient, client_queue, to_client, faults(), &shared.counts.to_client),
    )?;
    Ok(())
}

async fn read_requests(
    mut from: ReadHalf<'_>,
    to_server: mpsc::Sender<Item>,
    to_client: mpsc::Sender<Item>,
    talk: &Mutex<Talk>,
    shared: &Shared,
) -> io::Result<()> {
    while let Some(bytes) = read_chunk(&mut from, &shared.counts.from_client).await {
        let lie = shared.faults.borrow().lie.clone();
        let routed = talk.lock().requests(&bytes, lie.as_ref());
        shared.counts.lies.fetch_add(routed.lies, Ordering::SeqCst);
        send(&to_server, routed.to_server).await?;
        send(&to_client, routed.to_client).await?;
    }
    to_server.send(Item::End).await.map_err(io::Error::other)
}

async fn read_replies(
    mut from: ReadHalf<'_>,
    to_client: mpsc::Sender<Item>,
    talk: &Mutex<Talk>,
    received: &AtomicU64,
) -> io::Result<()> {
    while let Some(bytes) = read_chunk(&mut from, received).await {
        let bytes = talk.lock().replies(bytes);
        send(&to_client, bytes).await?;
    }
    to_client.send(Item::End).await.map_err(io::Error::other)
}

/// Reads what has come; `None` at the end of the connection, however it ended.
async fn read_chunk(from: &mut ReadHalf<'_>, received: &AtomicU64) -> Option<Bytes> {
    let mut bytes = BytesMut::with_capacity(CHUNK_BYTES);
    let length = from.read_buf(&mut bytes).await.ok()?;
    received.fetch_add(length as u64, Ordering::SeqCst);
    (length > 0).then(|| bytes.freeze())
}

async fn send(to: &mpsc::Sender<Item>, bytes: Bytes) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let item = Item::Bytes { arrived: Instant::now(), bytes };
    to.send(item).await.map_err(io::Error::other)
}

/// Writes what comes out of the queue, as the fault of this direction allows.
async fn deliver(
    direction: Direction,
    mut queue: mpsc::Receiver<Item>,
    mut to: WriteHalf<'_>,
    mut faults: watch::Receiver<Faults>,
    delivered: &AtomicU64,
) -> io::Result<()> {
    while let Some(item) = queue.recv().await {
        match item {
            Item::Bytes { arrived, mut bytes } => {
                while let Some(now) = due(direction, &mut faults, arrived, &mut bytes).await {
                    to.write_all(&now).await?;
                    delivered.fetch_add(now.len() as u64, Ordering::SeqCst);
                }
            }
            Item::End => {
                wait_until_not_hidden(direction, &mut faults).await;
                return to.shutdown().await;
            }
        }
    }
    Ok(())
}

/// Waits until some of `bytes` may be delivered and takes them; `None` when none are left.
async fn due(
    direction: Direction,
    faults: &mut watch::Receiver<Faults>,
    arrived: Instant,
    bytes: &mut Bytes,
) -> Option<Bytes> {
    while !bytes.is_empty() {
        let fault = faults.borrow_and_update().of(direction);
        match fault {
            Fault::Pass => return Some(bytes.split_off(0)),
            Fault::Discard => return None,
            Fault::Stall => faults.changed().await.ok()?,
            Fault::Delay(delay) => tokio::select! {
                () = sleep_until(arrived + delay) => return Some(bytes.split_off(0)),
                _ = faults.changed() => {}
            },
            Fault::Throttle(rate) => {
                let (piece, pause) = throttled(rate, bytes.len());
                tokio::select! {
                    () = sleep(pause) => return Some(bytes.split_to(piece)),
                    _ = faults.changed() => {}
                }
            }
        }
    }
    None
}

/// Returns how many of `left` bytes come next, and how long they take: about 10 ms, or one byte.
fn throttled(bytes_per_second: u32, left: usize) -> (usize, Duration) {
    let rate = NonZeroU32::new(bytes_per_second).unwrap_or(NonZeroU32::MIN).get();
    let piece = (rate as usize / 100).clamp(1, left);
    (piece, Duration::from_secs_f64(piece as f64 / f64::from(rate)))
}

async fn wait_until_not_hidden(direction: Direction, faults: &mut watch::Receiver<Faults>) {
    let is_shown = |faults: &Faults| !matches!(faults.of(direction), Fault::Stall | Fault::Discard);
    // An error means that the proxy is gone, and this task with it.
    let _ = faults.wait_for(is_shown).await;
}
