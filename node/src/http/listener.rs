//! Opens one listener per worker on the same address.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel may hold for us before we accept them; Linux clamps it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Opens `count` listeners on `address`; port 0 picks one free port for all of them. The kernel spreads new
/// connections over them. An address that another process listens on is refused, although `SO_REUSEPORT` alone would
/// let two processes of one user share it silently.
///
/// # Errors
/// What the operating system says.
pub fn bind_listeners(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    // Without SO_REUSEPORT this fails if anyone listens there.
    let probe = open(address, Sharing::Alone)?;
    let address = probe.local_addr()?;
    if count <= 1 {
        return Ok(vec![probe]);
    }
    drop(probe);
    (0..count).map(|_| open(address, Sharing::Workers)).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    Workers,
}

fn open(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted node must get its port back although old connections are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if sharing == Sharing::Workers {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_one_port_and_strangers_are_refused() {
        let listeners = bind_listeners("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
        assert_eq!(bind_listeners(address, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
