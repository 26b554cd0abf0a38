//! `TCP_NODELAY` on sockets that a library has opened and does not hand out.
//!
//! sqlx 0.9.0 leaves Nagle's algorithm on. The end of a statement that is longer than one segment then waits until the
//! database has acknowledged the segments before it, and the database delays that by 40 ms. A test fails as soon as sqlx
//! sets the option itself: then this crate can go. It is a crate of its own because it needs `unsafe`.

use std::io;

/// Sets the option on every TCP socket of this process that does not have it yet. Returns the number of those sockets.
///
/// # Errors
/// The reason why the open descriptors cannot be listed.
#[cfg(unix)]
pub fn set_everywhere() -> io::Result<usize> {
    use std::os::fd::{BorrowedFd, RawFd};

    let mut changed = 0;
    for entry in std::fs::read_dir("/dev/fd")? {
        let Some(descriptor) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        // SAFETY: the owner of the descriptor may close it meanwhile. It is borrowed for two system calls only, which take
        // it by its number: they fail, or meet the descriptor that has the number by then. No memory depends on it, and
        // the option harms no TCP socket of this process.
        #[expect(unsafe_code, reason = "nothing else leads to a socket that its owner does not hand out")]
        let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let socket = socket2::SockRef::from(&socket);
        // An error means that it is no TCP socket, or is closed.
        if matches!(socket.tcp_nodelay(), Ok(false)) && socket.set_tcp_nodelay(true).is_ok() {
            changed += 1;
        }
    }
    Ok(changed)
}

/// Sets nothing, because this system cannot list descriptors.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn set_everywhere() -> io::Result<usize> {
    Ok(0)
}

#[cfg(all(test, unix))]
mod tests {
    use std::time::Duration;

    use sqlx::{Connection, MySqlConnection};
    use tokio::{net::TcpListener, time::timeout};

    /// If this fails because sqlx has set the option, remove the crate.
    #[tokio::test]
    async fn sqlx_needs_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        super::set_everywhere().unwrap();
        let url = format!("mysql://root@{}/any", listener.local_addr().unwrap());
        // The connection waits for the greeting of a database.
        let connecting = tokio::spawn(async move { MySqlConnection::connect(&url).await.map(drop) });
        let (accepted, _) = timeout(Duration::from_secs(10), listener.accept()).await.unwrap().unwrap();
        accepted.set_nodelay(true).unwrap();
        assert_eq!(super::set_everywhere().unwrap(), 1, "the socket of sqlx");
        assert_eq!(super::set_everywhere().unwrap(), 0);
        connecting.abort();
    }
}
