//! A loopback port that stays ours while nothing listens on it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A loopback port held for as long as this value lives, on which nothing listens.
///
/// A test that kills a server and starts it again must get the same port back, although other tests
/// ask the kernel for free ports all the time. The port is bound, but not listened on: connections
/// to it are refused, the kernel gives it to nobody else, and a program that sets `SO_REUSEADDR`
/// before it listens, as Redis does, may still take it.
///
/// Only Linux shares a port that way. Elsewhere the port is free again as soon as it is chosen, and
/// whoever starts a server on it must be ready for a lost race.
#[derive(Debug)]
pub struct ReservedPort {
    port: u16,
    _socket: Option<TcpSocket>,
}

impl ReservedPort {
    /// Reserves a free port.
    ///
    /// # Errors
    /// The operating system's error, when no port or no descriptor is left.
    pub fn any() -> io::Result<Self> {
        Self::bind(0)
    }

    /// Reserves this `port`.
    ///
    /// # Errors
    /// `AddrInUse` when somebody listens on it.
    pub fn exactly(port: u16) -> io::Result<Self> {
        Self::bind(port)
    }

    /// Returns the port's number.
    pub fn get(&self) -> u16 {
        self.port
    }

    fn bind(port: u16) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        let port = socket.local_addr()?.port();
        Ok(Self { port, _socket: cfg!(target_os = "linux").then_some(socket) })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn reserved_port_refuses_connections_and_can_be_listened_on() {
        let port = ReservedPort::any().unwrap();
        let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, port.get())).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        TcpListener::bind((Ipv4Addr::LOCALHOST, port.get())).unwrap();
    }

    #[test]
    fn port_that_is_listened_on_cannot_be_reserved() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = ReservedPort::exactly(listener.local_addr().unwrap().port()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
