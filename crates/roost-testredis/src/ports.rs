//! Ports for servers that must be told one, or must come back on the same one. Listeners that can
//! take port 0 should do that instead.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Below the range from which systems draw ports for outgoing connections and for port 0 (32768 and
/// up on Linux, 49152 elsewhere): a port from here stays free while its server is down.
const RANGE: std::ops::Range<u16> = 21_000..32_000;

/// How many ports are tried; enough unless the machine has none left.
const ATTEMPTS: usize = 1_000;

/// Ports handed out by this process, so that it never hands one out twice.
static TAKEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// A loopback port that nothing listens on, and that this process is not given again.
///
/// Another process could still take it before the caller does; a caller that cannot listen should
/// ask for another.
///
/// # Panics
/// If no port can be had.
pub fn free_port() -> u16 {
    let random = RandomState::new();
    for attempt in 0..ATTEMPTS {
        let offset = random.hash_one(attempt) % u64::from(RANGE.end - RANGE.start);
        let port = RANGE.start + u16::try_from(offset).expect("the range is smaller than u16");
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = !taken.contains(&port);
        if fresh && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            taken.insert(port);
            return port;
        }
    }
    panic!("no free port on 127.0.0.1 between {} and {}", RANGE.start, RANGE.end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct_and_can_be_listened_on() {
        let ports: HashSet<u16> = (0..20).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 20);
        for port in ports {
            assert!(RANGE.contains(&port));
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }
}
