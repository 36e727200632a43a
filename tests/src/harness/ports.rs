//! Free TCP ports on loopback.

use std::net::TcpListener;

use super::HarnessError;

/// Sets of ports tried before giving up.
const TRIES: u32 = 200;

/// The first of `count` consecutive ports that are free now. Somebody else may take one before it is used; callers
/// that can let the system choose should.
///
/// # Errors
/// None found.
pub fn free_ports(count: u16) -> Result<u16, HarnessError> {
    let bind = |port| TcpListener::bind(("127.0.0.1", port));
    for _ in 0..TRIES {
        let first = bind(0).and_then(|listener| listener.local_addr()).map_err(HarnessError::system("a free port"))?;
        let first = first.port();
        // All held at once, so that they are free together.
        let held: Vec<_> = (0..count).map_while(|offset| bind(first.checked_add(offset)?).ok()).collect();
        if held.len() == usize::from(count) {
            return Ok(first);
        }
    }
    Err(HarnessError::system("consecutive free ports")(std::io::Error::other("none found")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_ports_are_found_free() {
        let first = free_ports(3).unwrap();
        let held: Vec<_> = (first..first + 3).map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap()).collect();
        assert_eq!(held.len(), 3);
    }
}
