//! `TCP_NODELAY` on sockets that a library has opened and does not hand out.
//!
//! sqlx 0.9.0 leaves Nagle's algorithm on. The end of a statement longer than one segment then waits until the
//! database has acknowledged what came before it, which the database puts off for 40 ms. A test fails as soon as sqlx
//! sets the option itself: then this crate can go.

use std::io;

/// Sets the option on every TCP socket of this process that does not have it yet, and returns how many those were.
///
/// # Errors
/// The open descriptors cannot be listed.
#[cfg(unix)]
pub fn set_everywhere() -> io::Result<usize> {
    use std::os::fd::{BorrowedFd, RawFd};

    let mut changed = 0;
    for entry in std::fs::read_dir("/dev/fd")? {
        let Some(descriptor) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        // SAFETY: whoever owns the descriptor may close it meanwhile, so it is lent for two system calls only, which take
        // it by its number: they are refused, or meet whatever has the number by then. No memory depends on it, and no
        // TCP socket of this process is worse off with the option.
        #[expect(unsafe_code, reason = "nothing else leads to a socket that its owner does not hand out")]
        let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let socket = socket2::SockRef::from(&socket);
        // An error says that it is no TCP socket, or none any more.
        if matches!(socket.tcp_nodelay(), Ok(false)) && socket.set_tcp_nodelay(true).is_ok() {
            changed += 1;
        }
    }
    Ok(changed)
}

/// Does nothing where descriptors cannot be listed.
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

    /// When this fails because sqlx has set the option, remove the crate.
    #[tokio::test]
    async fn sqlx_needs_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        super::set_everywhere().unwrap();
        let url = format!("mysql://root@{}/any", listener.local_addr().unwrap());
        // It waits for the first words of a database.
        let connecting = tokio::spawn(async move { MySqlConnection::connect(&url).await.map(drop) });
        let (accepted, _) = timeout(Duration::from_secs(10), listener.accept()).await.unwrap().unwrap();
        accepted.set_nodelay(true).unwrap();
        assert_eq!(super::set_everywhere().unwrap(), 1, "the socket of sqlx");
        assert_eq!(super::set_everywhere().unwrap(), 0);
        connecting.abort();
    }
}
