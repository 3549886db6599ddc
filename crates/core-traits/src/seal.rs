//! Protecting what leaves the process.

/// Encrypts, or signs, what a cache stores where others can read and write.
///
/// It stands below the codec and the compression: what is encrypted no longer gets smaller. Each
/// call carries a *context*, which is not stored; a sealed value must open only in the context that it
/// was sealed in, so that nobody can move it to another key, or change what stands in front of it.
pub trait Seal: Send + Sync + 'static {
    /// Appends the protected form of `plain` to `to`, bound to `context`.
    ///
    /// # Errors
    /// [`SealError`]; then nothing is stored.
    fn seal(&self, plain: &[u8], context: &[u8], to: &mut Vec<u8>) -> Result<(), SealError>;

    /// Takes the protection off what [`seal`](Self::seal) wrote in the same context.
    ///
    /// # Errors
    /// [`SealError`]; then it counts as a miss. Never panics, whatever the bytes are, and says nothing
    /// of them or of a key.
    fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Vec<u8>, SealError>;
}

/// Why something could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// It was sealed with a key that is not here: not yet, or no longer.
    #[error("it is sealed with key {0}, which is not here")]
    UnknownKey(u32),
    /// It is not what was sealed, or not where it was sealed.
    #[error("it is not what was sealed in this place")]
    Damaged,
    /// It could not be sealed.
    #[error("it cannot be sealed")]
    Failed,
}
