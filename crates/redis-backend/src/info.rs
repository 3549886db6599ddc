//! What `INFO` says, and the four fields that people look at first.

use fleetwide_core_traits::{BackendError, Malformed};

/// Four fields of the server's `INFO`, from [`Redis::info`](crate::Redis::info).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// Commands since the server's start.
    pub total_commands_processed: u64,
    /// Commands per second, lately.
    pub instantaneous_ops_per_sec: u64,
    /// Memory in use, as text for people, such as `1.05M`.
    pub used_memory_human: String,
    /// Connections, ours included.
    pub connected_clients: u64,
}

impl Info {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, BackendError> {
        let missing = || Malformed::new("the usual fields of INFO", "a text without one of them");
        let count = |name| number(text, name).ok_or_else(missing);
        Ok(Self {
            total_commands_processed: count("total_commands_processed")?,
            instantaneous_ops_per_sec: count("instantaneous_ops_per_sec")?,
            used_memory_human: field(text, "used_memory_human").ok_or_else(missing)?.to_owned(),
            connected_clients: count("connected_clients")?,
        })
    }
}

/// The field `name` as a number.
pub(crate) fn number(text: &[u8], name: &str) -> Option<u64> {
    field(text, name)?.parse().ok()
}

pub(crate) fn field<'a>(text: &'a [u8], name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(text).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_a_field_is_malformed_and_no_zero() {
        let full = b"# Clients\r\nconnected_clients:3\r\ntotal_commands_processed:9\r\n\
            instantaneous_ops_per_sec:0\r\nused_memory_human:1.05M\r\n";
        let info = Info::parse(full).unwrap();
        assert_eq!((info.connected_clients, info.used_memory_human.as_str()), (3, "1.05M"));
        assert!(matches!(Info::parse(b"connected_clients:3"), Err(BackendError::Malformed(_))));
        assert!(Info::parse(b"\xff").is_err());
    }
}
