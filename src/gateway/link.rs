//! What a socket was sent and has not read yet, end to end: the kernel and a proxy between say nothing
//! of it, because they take whatever comes.
//!
//! Over WebSocket a ping frame now and then asks for confirmation, which every client answers by itself;
//! over long-polling the next poll is one. A socket that owes too much is sent nothing more for now.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{net::TcpStream, sync::Notify, time::sleep};

/// A socket may owe the confirmation of so many bytes, for so long.
const WINDOW: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(4);
/// Confirmation is asked for after so many bytes, or so much time with fewer.
const ASK_EVERY_BYTES: usize = WINDOW / 4;
const ASK_EVERY: Duration = Duration::from_secs(1);

/// While something is waited for that nobody tells.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The account of one socket.
#[derive(Debug, Default)]
pub struct Link {
    /// Told when a socket that was sent nothing more, or nothing of what it has missed, has read.
    opened: Arc<Notify>,
    /// Written by whoever sends, and when confirmations come.
    account: Mutex<Account>,
    /// Its WebSocket, if it has one.
    stream: OnceLock<Weak<TcpStream>>,
    /// Nothing more goes over it.
    is_cut: AtomicBool,
}

#[derive(Debug, Default)]
struct Account {
    /// All that was ever sent, in bytes.
    sent: u64,
    /// Of that, not confirmed.
    unread: usize,
    /// When confirmation was asked for, and of how much of it.
    asked: Option<(Instant, usize)>,
    /// When confirmation was last asked for.
    last_asked: Option<Instant>,
}

impl Account {
    fn is_open(&self) -> bool {
        self.unread < WINDOW && self.asked.is_none_or(|(at, _)| at.elapsed() < PATIENCE)
    }

    fn has_room(&self) -> bool {
        self.unread < WINDOW / 2 && self.is_open()
    }
}

impl Link {
    fn new(opened: &Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { opened: opened.clone(), ..Self::default() })
    }

    /// Has the socket read enough to be sent more?
    pub fn is_open(&self) -> bool {
        !self.is_cut() && self.account.lock().is_open()
    }

    /// Has the socket read so much that it may be sent what it has missed? The other half of what it may have
    /// unread is for what is new.
    pub fn has_room(&self) -> bool {
        !self.is_cut() && self.account.lock().has_room()
    }

    /// So many bytes are on their way.
    pub fn sent(&self, bytes: usize) {
        let mut account = self.account.lock();
        account.sent += bytes as u64;
        account.unread += bytes;
        if self.stream.get().is_none() && account.asked.is_none() {
            // The client polls again by itself.
            account.asked = Some((Instant::now(), 0));
        }
    }

    /// A poll has come: whatever was answered to earlier ones is read.
    pub fn polled(&self) {
        if self.stream.get().is_none() {
            self.read(|account| *account = Account { sent: account.sent, ..Account::default() });
        }
    }

    fn read(&self, what: impl FnOnce(&mut Account)) {
        let mut account = self.account.lock();
        let before = (account.is_open(), account.has_room());
        what(&mut account);
        if (account.is_open(), account.has_room()) > before {
            self.opened.notify_one();
        }
    }

    /// Asks for confirmation soon; returns a mark behind all that was sent, for [`Link::has_read_to`].
    pub fn mark(&self) -> u64 {
        let mut account = self.account.lock();
        account.last_asked = None;
        account.sent
    }

    /// Has the socket read everything before this mark, as far as is known?
    pub fn has_read_to(&self, mark: u64) -> bool {
        let account = self.account.lock();
        account.sent - account.unread as u64 >= mark
    }

    /// Has the socket read everything, as far as is known?
    pub fn has_read(&self) -> bool {
        self.account.lock().unread == 0
    }

    /// From now on there is a WebSocket; `false`: there was one before, which counts.
    pub(super) fn has_stream(&self, stream: &Arc<TcpStream>) -> bool {
        let is_first = self.stream.set(Arc::downgrade(stream)).is_ok();
        if is_first {
            self.account.lock().asked = None;
        }
        is_first
    }

    /// Is it time to ask for confirmation? Then it counts as asked.
    pub(super) fn asks(&self) -> bool {
        let mut account = self.account.lock();
        let is_due = account.asked.is_none()
            && account.unread > 0
            && (account.unread >= ASK_EVERY_BYTES
                || account.last_asked.is_none_or(|last| last.elapsed() >= ASK_EVERY));
        if is_due {
            let now = Instant::now();
            account.asked = Some((now, account.unread));
            account.last_asked = Some(now);
        }
        is_due
    }

    /// What was asked for is confirmed.
    pub(super) fn confirmed(&self) {
        self.read(|account| {
            if let Some((_, bytes)) = account.asked.take() {
                account.unread = account.unread.saturating_sub(bytes);
            }
        });
    }

    /// Has confirmation been missing for so long?
    pub(super) fn is_unanswered_for(&self, time: Duration) -> bool {
        self.account.lock().asked.is_some_and(|(at, _)| at.elapsed() > time)
    }

    /// Was it ended by [`Link::cut`]?
    pub fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }

    /// Ends the connection at once, whatever waits to be sent; the client connects again. Not the library's
    /// disconnect, which waits in the same queue and tells the client to stay away.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
        if let Some(stream) = self.stream.get().and_then(Weak::upgrade) {
            cut(&stream);
        }
    }
}

/// Ends a connection without waiting for its other end.
pub(super) fn cut(stream: &TcpStream) {
    // Gone already, if either fails.
    let _ = stream.set_zero_linger();
    let _ = socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Both);
}

/// The links by the ids of their sessions, for requests that name one.
#[derive(Debug, Default)]
pub struct Links {
    /// Told when a socket that was sent nothing more has read.
    pub opened: Arc<Notify>,
    /// Written when a session connects and when its requests look for it.
    by_session: Mutex<HashMap<String, Weak<Link>>>,
}

impl Links {
    /// The link of a session, new if it has none yet.
    pub fn of(&self, session: &str) -> Arc<Link> {
        let mut links = self.by_session.lock();
        if let Some(link) = links.get(session).and_then(Weak::upgrade) {
            return link;
        }
        if links.len() == links.capacity() {
            links.retain(|_, link| link.strong_count() > 0);
        }
        let link = Link::new(&self.opened);
        links.insert(session.to_owned(), Arc::downgrade(&link));
        link
    }

    /// A link whose session is not known yet.
    pub fn nameless(&self) -> Arc<Link> {
        Link::new(&self.opened)
    }

    /// Waits until those who poll have everything.
    pub async fn polled(&self) {
        let is_waiting = |link: Arc<Link>| link.stream.get().is_none() && !link.has_read() && !link.is_cut();
        while self.by_session.lock().values().filter_map(Weak::upgrade).any(is_waiting) {
            sleep(LOOK_AGAIN).await;
        }
    }

    /// The link of a session that has one.
    pub fn find(&self, session: &str) -> Option<Arc<Link>> {
        self.by_session.lock().get(session)?.upgrade()
    }

    /// Names the link of a session.
    pub fn insert(&self, session: &str, link: &Arc<Link>) {
        self.by_session.lock().insert(session.to_owned(), Arc::downgrade(link));
    }

    /// Ends every connection at once.
    pub fn cut(&self) {
        self.by_session.lock().values().filter_map(Weak::upgrade).for_each(|link| link.cut());
    }

    /// The session has ended.
    pub fn remove(&self, session: &str) {
        self.by_session.lock().remove(session);
    }
}
