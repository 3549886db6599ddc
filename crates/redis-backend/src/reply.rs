//! From the client library's values and errors to ours.

use bytes::Bytes;
use fleetwide_core_traits::{BackendError, Malformed, Outage, Rejection, Wire};
use redis::{ErrorKind, RedisError, ServerError, Value};

/// The reply of one command: an answer, or the server's refusal.
pub(crate) fn answer(value: Value) -> Result<Wire, BackendError> {
    match value {
        Value::ServerError(error) => Err(BackendError::Rejected(rejection(&error))),
        value => Ok(wire(value)?),
    }
}

/// Takes over the bytes; only nested lists are rebuilt.
pub(crate) fn wire(value: Value) -> Result<Wire, Malformed> {
    Ok(match value {
        Value::Nil => Wire::Nil,
        Value::Int(int) => Wire::Int(int),
        Value::BulkString(bytes) => Wire::Bytes(Bytes::from(bytes)),
        Value::Okay => Wire::Bytes(Bytes::from_static(b"OK")),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => {
            Wire::Bytes(Bytes::from(text))
        }
        Value::Array(items) | Value::Set(items) => list(items)?,
        Value::Map(pairs) => list(pairs.into_iter().flat_map(|(key, value)| [key, value]))?,
        Value::Attribute { data, .. } => wire(*data)?,
        Value::Double(double) => Wire::Bytes(Bytes::from(double.to_string())),
        Value::Boolean(is) => Wire::Int(i64::from(is)),
        Value::ServerError(_) => {
            return Err(Malformed::new("a value", "an error inside of a list"));
        }
        Value::Push { .. } => return Err(Malformed::new("a reply", "a message")),
        _ => return Err(Malformed::new("a reply", "a value of an unknown kind")),
    })
}

fn list(items: impl IntoIterator<Item = Value>) -> Result<Wire, Malformed> {
    items.into_iter().map(wire).collect::<Result<_, _>>().map(Wire::Array)
}

/// Sorts an error reply.
pub(crate) fn rejection(error: &ServerError) -> Rejection {
    let text = error.details().unwrap_or_default();
    // A server that does not know a command repeats its arguments, which may be anything.
    let text = text.split_once(", with args beginning with").map_or(text, |(text, _)| text);
    Rejection::new(code_of(error.code(), text), text)
}

/// Servers before version 7 hide the code of an error inside a script in the text, as in
/// `ERR Error running script (…): @user_script:3: -OOM command not allowed …`.
fn code_of<'a>(code: &'a str, text: &'a str) -> &'a str {
    let hidden = text.split_once(": -").and_then(|(_, rest)| rest.split(' ').next());
    match hidden {
        Some(word) if code == "ERR" && word.bytes().all(|byte| byte.is_ascii_uppercase()) => word,
        _ => code,
    }
}

/// Sorts what the client library says in place of a reply. The request was on its way by then.
pub(crate) fn failure(error: &RedisError) -> BackendError {
    if error.kind() == ErrorKind::Parse {
        return BackendError::Malformed(Malformed::new("a reply", "bytes that are none"));
    }
    BackendError::Unknown(Outage::Disconnected(error.to_string()))
}

#[cfg(test)]
mod tests {
    use fleetwide_core_traits::RejectionKind;

    use super::*;

    fn parsed(bytes: &[u8]) -> Value {
        redis::parse_redis_value(bytes).unwrap()
    }

    fn refusal(bytes: &[u8]) -> Rejection {
        match answer(parsed(bytes)) {
            Err(BackendError::Rejected(rejection)) => rejection,
            other => panic!("{other:?} is no refusal"),
        }
    }

    #[test]
    fn code_of_an_error_is_found_also_inside_a_script_of_an_old_server() {
        let new = refusal(b"-OOM command not allowed when used memory > 'maxmemory'.\r\n");
        assert_eq!(new.kind, RejectionKind::OutOfMemory);
        let old = refusal(
            b"-ERR Error running script (call to f_ab): @user_script:1: -OOM command not allowed\r\n",
        );
        assert_eq!(old.kind, RejectionKind::OutOfMemory);
        assert_eq!(refusal(b"-ERR no: -such thing\r\n").kind, RejectionKind::Other);
    }

    #[test]
    fn arguments_of_an_unknown_command_do_not_reach_an_error() {
        let unknown =
            refusal(b"-ERR unknown command 'NO', with args beginning with: 'token' 's3cret' \r\n");
        assert_eq!(unknown.message, "unknown command 'NO'");
    }

    #[test]
    fn error_inside_of_a_list_is_no_panic_and_no_value() {
        let nested = answer(parsed(b"*2\r\n:1\r\n-ERR no\r\n"));
        assert!(matches!(nested, Err(BackendError::Malformed(_))), "{nested:?}");
    }

    #[test]
    fn values_of_either_protocol_become_the_same() {
        let two = answer(parsed(b"*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n$-1\r\n")).unwrap();
        let three = answer(parsed(b"%2\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n_\r\n")).unwrap();
        assert_eq!(two, three);
        assert_eq!(answer(parsed(b"#t\r\n")).unwrap(), Wire::Int(1));
        assert_eq!(answer(parsed(b"+OK\r\n")).unwrap(), Wire::Bytes(Bytes::from_static(b"OK")));
    }
}
