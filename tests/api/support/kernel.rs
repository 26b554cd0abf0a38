//! What the kernel knows of TCP connections, whatever the two ends know.

use std::{collections::HashMap, fs, net::SocketAddrV4};

/// How many connections to this address the server has not ended.
pub fn connections(gateway: &str) -> usize {
    not_ended(gateway).len()
}

/// The ports at the other end of connections to this address that the server has not ended.
pub fn not_ended(url: &str) -> Vec<u16> {
    let addr: SocketAddrV4 = url.strip_prefix("http://").expect("a URL").parse().expect("an address");
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(addr.ip().octets()), addr.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("/proc");
    let other_end = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let is_local = fields.next() == Some(&local);
        let (_, port) = fields.next()?.split_once(':')?;
        // 01: established, 04: the end waits behind what is not taken, 08: only the other end has ended it.
        let is_open = is_local && matches!(fields.next(), Some("01" | "04" | "08"));
        is_open.then(|| u16::from_str_radix(port, 16).expect("a port"))
    };
    table.lines().filter_map(other_end).collect()
}

/// What the kernel has of connections that this end has not read, by this end's port: in bytes. One look for all,
/// because a machine with many connections takes its time over it.
pub fn on_their_way(ports: &[u16]) -> HashMap<u16, usize> {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let mut bytes: HashMap<u16, usize> = ports.iter().map(|port| (*port, 0)).collect();
    for line in table.lines().skip(1) {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let mut port = || {
            let (_, port) = fields.next().expect("an address").rsplit_once(':').expect("a port");
            u16::from_str_radix(port, 16).expect("a number")
        };
        let (near, far) = (port(), port());
        let (sending, received) =
            fields.nth(1).and_then(|queues| queues.split_once(':')).expect("two queues");
        let number = |queue| usize::from_str_radix(queue, 16).expect("a number");
        if let Some(bytes) = bytes.get_mut(&near) {
            *bytes += number(received);
        } else if let Some(bytes) = bytes.get_mut(&far) {
            *bytes += number(sending);
        }
    }
    bytes
}
