//! Taking down what happens, from any number of threads.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use super::wire::{Encoder, MAGIC};
use super::{Event, History, Mark, Outcome, Process, Read, Seen, Span, Target, WriteId};

/// Reads that are held back before they go to the file together.
const BUFFER_BYTES: usize = 64 * 1024;
/// Some ten million reads.
const BYTES_MAX_DEFAULT: usize = 256 * 1024 * 1024;

/// Takes down operations, in memory or into a file. Cheap to clone: all clones are one recorder.
///
/// Writes and loads are in the file before the call returns, so that a process may be killed at any
/// moment: what others can see of it is on record. Reads follow in batches.
///
/// A recorder never makes a test fail by itself: a file that cannot be written is reported by
/// [`finish`](Self::finish).
///
/// # Examples
/// ```
/// use fleetwide_testkit::{FoundIn, Mark, Recorder};
///
/// # fn main() -> std::io::Result<()> {
/// let recorder = Recorder::in_memory();
/// let client = recorder.client(1, 1);
/// // The cache under test is asked between the two calls of each span.
/// let load = client.load(7);
/// load.found(100, &[]);
/// let write = client.invalidate(7);
/// write.ok();
/// let read = client.read(7);
/// read.found(100, FoundIn::L1, Mark::Verified);
/// assert_eq!(recorder.finish()?.events()?.len(), 4);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    writes: AtomicU32,
    bytes_max: usize,
    sink: Mutex<Sink>,
}

struct Sink {
    encoder: Encoder,
    /// What is not in the file yet; all of it without a file.
    bytes: Vec<u8>,
    file: Option<(File, Arc<Path>)>,
    /// Reads that found no room.
    lost: u64,
    error: Option<io::Error>,
}

impl Recorder {
    /// A recorder that keeps at most 256 MiB, some ten million reads. Further reads are not kept.
    pub fn in_memory() -> Self {
        Self::in_memory_of(BYTES_MAX_DEFAULT, machine_clock)
    }

    /// The same with another bound in bytes, and a clock of ns, as for simulated time.
    pub fn in_memory_of(bytes_max: usize, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self::new(None, bytes_max, Box::new(clock))
    }

    /// A recorder that writes to a new file at `path`. The clock is the machine's monotonic one,
    /// suspend included, so files of several processes of one machine fit together.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn to_file(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = File::create(path.as_ref())?;
        let recorder = Self::new(
            Some((file, path.as_ref().into())),
            BYTES_MAX_DEFAULT,
            Box::new(machine_clock),
        );
        recorder.shared.sink.lock().flush();
        Ok(recorder)
    }

    fn new(
        file: Option<(File, Arc<Path>)>,
        bytes_max: usize,
        clock: Box<dyn Fn() -> u64 + Send + Sync>,
    ) -> Self {
        let bytes = MAGIC.to_vec();
        let sink = Sink { encoder: Encoder::default(), bytes, file, lost: 0, error: None };
        let (writes, sink) = (AtomicU32::new(0), Mutex::new(sink));
        Self { shared: Arc::new(Shared { clock, writes, bytes_max, sink }) }
    }

    /// The moment now, ns.
    pub fn now(&self) -> u64 {
        (self.shared.clock)()
    }

    /// The view of one client of one cache instance.
    pub fn client(&self, process: Process, session: u32) -> Client {
        Client { recorder: self.clone(), process, session }
    }

    /// Takes down an event as it is, such as a fault that the test has caused.
    pub fn record(&self, event: &Event) {
        let mut sink = self.shared.sink.lock();
        let is_read = matches!(event, Event::Read(_));
        if is_read && sink.file.is_none() && sink.bytes.len() >= self.shared.bytes_max {
            sink.lost += 1;
            return;
        }
        let Sink { encoder, bytes, .. } = &mut *sink;
        encoder.write(event, bytes);
        if !is_read || sink.bytes.len() >= BUFFER_BYTES {
            sink.flush();
        }
    }

    /// How many reads found no room.
    pub fn lost(&self) -> u64 {
        self.shared.sink.lock().lost
    }

    /// What was recorded so far.
    ///
    /// # Errors
    /// The first error in writing the file, if there was one.
    pub fn finish(&self) -> io::Result<History> {
        let mut sink = self.shared.sink.lock();
        sink.flush();
        match (sink.error.take(), &sink.file) {
            (Some(error), _) => Err(error),
            (None, Some((_, path))) => Ok(History::from_files([path])),
            (None, None) => Ok(History::from_bytes(&sink.bytes[..])),
        }
    }

    fn new_write(&self, process: Process) -> WriteId {
        let number = self.shared.writes.fetch_add(1, Relaxed);
        WriteId(u64::from(process) << 32 | u64::from(number))
    }
}

impl Sink {
    fn flush(&mut self) {
        let Some((file, _)) = &mut self.file else { return };
        // One call for whole events; the kernel keeps it when the process is killed after it.
        if let Err(error) = file.write_all(&self.bytes) {
            self.error.get_or_insert(error);
        }
        self.bytes.clear();
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.flush();
    }
}

/// ns since boot, suspend included; the same for all processes of a machine.
fn machine_clock() -> u64 {
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let now = clock_gettime(CLOCK);
    u64::try_from(now.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000) + now.tv_nsec as u64
}

/// One client of one cache instance: what it does is recorded under its numbers.
///
/// Each call begins a span, which must be made before the operation is started and ended after it
/// has answered. A span that is dropped says that the operation has no answer.
#[derive(Clone)]
pub struct Client {
    recorder: Recorder,
    process: Process,
    session: u32,
}

impl Client {
    /// Begins a write of the origin, which is to have `version` after it.
    pub fn origin(&self, key: u64, version: u64) -> OriginSpan {
        OriginSpan { recorder: self.recorder.clone(), start: self.recorder.now(), key, version }
    }

    /// Begins a load: called by the loader, as the first thing that it does.
    pub fn load(&self, key: u64) -> LoadSpan {
        let Self { recorder, process, .. } = self.clone();
        LoadSpan { start: recorder.now(), recorder, process, key, alone: false }
    }

    /// Begins an invalidation of a key.
    pub fn invalidate(&self, key: u64) -> WriteSpan {
        self.write(Target::Key(key), None, &[])
    }

    /// Begins a put of a version.
    pub fn put(&self, key: u64, version: u64, tags: &[u64]) -> WriteSpan {
        self.write(Target::Key(key), Some(version), tags)
    }

    /// Begins a bump of a tag.
    pub fn bump(&self, tag: u64) -> WriteSpan {
        self.write(Target::Tag(tag), None, &[])
    }

    /// Begins a clear.
    pub fn clear(&self) -> WriteSpan {
        self.write(Target::Everything, None, &[])
    }

    fn write(&self, target: Target, version: Option<u64>, tags: &[u64]) -> WriteSpan {
        let Self { recorder, process, session } = self.clone();
        let (start, write) = (recorder.now(), recorder.new_write(process));
        let tags = tags.to_vec();
        recorder.record(&Event::Begun { start, write, process, session, target, version, tags });
        WriteSpan { recorder, write, answered: false }
    }

    /// Begins a read.
    pub fn read(&self, key: u64) -> ReadSpan<'_> {
        ReadSpan { client: self, start: self.recorder.now(), key, at_least: None }
    }
}

/// A write of the origin under way.
#[must_use = "a span is ended when the origin has answered"]
pub struct OriginSpan {
    recorder: Recorder,
    start: u64,
    key: u64,
    version: u64,
}

impl OriginSpan {
    /// The origin has the version.
    pub fn done(self) {
        let at = Span { start: self.start, end: self.recorder.now() };
        self.recorder.record(&Event::Origin { at, key: self.key, version: self.version });
    }
}

/// A load under way. One that fails is dropped: it has no value that anybody could see.
#[must_use = "a span is ended when the value is there"]
pub struct LoadSpan {
    recorder: Recorder,
    start: u64,
    process: Process,
    key: u64,
    alone: bool,
}

impl LoadSpan {
    /// It may overlap others: no other load can serve its read, which has a token or leaves L2 out.
    pub fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// The loader has a value: called as the last thing before it returns.
    pub fn found(self, version: u64, tags: &[u64]) {
        let Self { recorder, start, process, key, alone } = self;
        let (at, tags) = (Span { start, end: recorder.now() }, tags.to_vec());
        recorder.record(&Event::Load { at, process, key, version, tags, alone });
    }
}

/// A write of the cache under way. Dropped without an answer, it counts as possible for ever.
#[must_use = "a span is ended when the write has answered"]
pub struct WriteSpan {
    recorder: Recorder,
    write: WriteId,
    answered: bool,
}

impl WriteSpan {
    /// The write's name, which stands for its token.
    pub const fn id(&self) -> WriteId {
        self.write
    }

    /// It returned Ok.
    pub fn ok(self) -> WriteId {
        self.ended(Outcome::Ok)
    }

    /// It returned that it is queued.
    pub fn queued(self) {
        self.ended(Outcome::Queued);
    }

    /// It returned that its outcome is not known, and that it is queued.
    pub fn unknown(self) {
        self.ended(Outcome::Unknown);
    }

    fn ended(mut self, outcome: Outcome) -> WriteId {
        self.answered = true;
        let end = self.recorder.now();
        self.recorder.record(&Event::Ended { end, write: self.write, outcome });
        self.write
    }
}

impl Drop for WriteSpan {
    fn drop(&mut self) {
        if !self.answered {
            let (end, write) = (self.recorder.now(), self.write);
            self.recorder.record(&Event::Ended { end, write, outcome: Outcome::Dropped });
        }
    }
}

/// A read under way. One that is dropped has seen nothing, and is not recorded.
#[must_use = "a span is ended when the read has answered"]
pub struct ReadSpan<'a> {
    client: &'a Client,
    start: u64,
    key: u64,
    at_least: Option<WriteId>,
}

impl ReadSpan<'_> {
    /// It has to reflect this write.
    pub fn at_least(self, write: WriteId) -> Self {
        Self { at_least: Some(write), ..self }
    }

    /// It found this.
    pub fn found(self, version: u64, tier: super::FoundIn, mark: Mark) {
        self.ended(Some(Seen { version, tier, mark }));
    }

    /// It found nothing.
    pub fn missed(self) {
        self.ended(None);
    }

    fn ended(self, seen: Option<Seen>) {
        let Self { client: Client { recorder, process, session }, start, key, at_least } = self;
        let at = Span { start, end: recorder.now() };
        let (process, session) = (*process, *session);
        recorder.record(&Event::Read(Read { at, process, session, key, seen, at_least }));
    }
}
