//! What a socket was sent and has not read yet, end to end: the kernel and a proxy between say nothing
//! of it, because they take whatever comes.
//!
//! Over WebSocket a ping frame now and then asks for confirmation, which every client answers by itself;
//! over long-polling the next poll is one. A socket that owes too much is sent nothing more for now.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, IoSlice},
    net::Shutdown,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::{io::ReadBuf, net::TcpStream, sync::Notify, time::sleep};

use super::{counts::Sockets, frames::PING, road::Road};

/// A socket may owe the confirmation of so many bytes, for so long.
const WINDOW: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(3);
/// Confirmation is asked for after so many bytes, or so much time with fewer: who reads it, wakes up and answers, and
/// each answer costs as much as a delivery. Together with [`PATIENCE`] it is how long what was sent may be unread.
const ASK_EVERY_BYTES: usize = WINDOW / 4;
const ASK_EVERY: Duration = Duration::from_secs(2);

/// How long what was said last may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often a client may try to connect to other namespaces than the main one.
const WANDERINGS: u8 = 2;
/// Links that are made at once, and so lie side by side: a room goes through those of all its members, and memory
/// that is scattered costs more than all that is done with it.
const TOGETHER: usize = 64;
/// While something is waited for that nobody tells.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The account of one socket, and its way out if it has a WebSocket.
#[derive(Debug, Default)]
pub struct Link {
    /// Nothing more goes over it.
    is_cut: AtomicBool,
    /// And will be cut.
    is_ending: AtomicBool,
    /// How often the client wanted another namespace.
    wanderings: AtomicU8,
    /// Written by whoever sends, and when confirmations come; held while frames go to the kernel.
    state: Mutex<State>,
    /// Something that was to be sent before waits. Written under the lock of what waits (`outlet.rs`): who reads the
    /// value of a moment ago sends beside what is just being handed out, or once more later.
    is_owed: AtomicBool,
    /// Told when a socket that was sent nothing more, or nothing of what it has missed, has read.
    opened: Arc<Notify>,
    /// All there are, to be counted among them.
    sockets: Arc<Sockets>,
}

#[derive(Debug, Default)]
struct State {
    account: Account,
    road: Road,
    /// How often it is among the sockets, by transport: twice for a moment, where a client connects again.
    counted: u8,
    /// Why it was cut, if that was our doing.
    why: Option<Why>,
}

/// Why a connection is ended from this end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
    /// For too long its client took nothing, or read nothing of what it was sent.
    Unread,
    /// More waited for it than may.
    TooMuchWaits,
    /// It was promised every version, and is too slow for that.
    StalledInReplay,
    /// It had not read what it may no longer see.
    Withdrawn,
    /// It had not read what it was sent before its token ended.
    TokenEnded,
    /// What came is not as its protocol has it.
    Malformed,
}

/// A socket that is counted, until this is dropped.
#[derive(Debug)]
pub struct Counted(Arc<Link>);

impl Drop for Counted {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.counted = state.counted.saturating_sub(1);
        self.0.sockets.over(state.road.was_opened()).dec();
    }
}

/// What became of frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sent {
    /// They are on their way.
    Yes,
    /// The socket is to be sent nothing for now.
    No,
    /// They would overtake something, or there is no WebSocket: the library is to send them.
    Elsewhere,
}

#[derive(Debug, Default)]
struct Account {
    /// All that was ever sent, in bytes.
    sent: u64,
    /// Of that, not confirmed.
    unread: usize,
    /// Of that, what polls were answered with.
    answered: usize,
    /// When confirmation was asked for, and of how much of it.
    asked: Option<(Instant, usize)>,
    /// When confirmation was last asked for.
    last_asked: Option<Instant>,
}

impl Account {
    fn is_open(&self, now: Instant) -> bool {
        self.unread < WINDOW && self.asked.is_none_or(|(at, _)| now.duration_since(at) < PATIENCE)
    }

    fn has_room(&self, now: Instant) -> bool {
        self.unread < WINDOW / 2 && self.is_open(now)
    }

    /// So many bytes are on their way.
    fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.unread += bytes;
    }

    /// Is it time to ask for confirmation? Then it counts as asked.
    fn asks(&mut self, now: Instant) -> bool {
        let is_due = self.asked.is_none()
            && self.unread > 0
            && (self.unread >= ASK_EVERY_BYTES
                || self.last_asked.is_none_or(|last| now.duration_since(last) >= ASK_EVERY));
        if is_due {
            self.asked = Some((now, self.unread));
            self.last_asked = Some(now);
        }
        is_due
    }
}

impl Link {
    fn new(opened: &Arc<Notify>, sockets: &Arc<Sockets>) -> Arc<Self> {
        Arc::new(Self { opened: opened.clone(), sockets: sockets.clone(), ..Self::default() })
    }

    /// Its socket is connected.
    pub fn counted(self: &Arc<Self>) -> Counted {
        let mut state = self.state.lock();
        state.counted = state.counted.saturating_add(1);
        self.sockets.over(state.road.was_opened()).inc();
        Counted(self.clone())
    }

    /// Of a WebSocket that is no session's.
    pub(super) fn of_its_own(stream: TcpStream) -> Arc<Self> {
        let link = Arc::<Self>::default();
        // It has none.
        let _ = link.has_stream(stream, false);
        link
    }

    /// Has the socket read enough to be sent more?
    pub fn is_open(&self) -> bool {
        !self.is_cut() && self.state.lock().account.is_open(Instant::now())
    }

    /// Has the socket read so much that it may be sent what it has missed? The other half of what it may have
    /// unread is for what is new.
    pub fn has_room(&self) -> bool {
        !self.is_cut() && self.state.lock().account.has_room(Instant::now())
    }

    /// Does something wait for the socket?
    pub fn is_owed(&self) -> bool {
        self.is_owed.load(Ordering::Relaxed)
    }

    /// Something waits for the socket, or nothing any more.
    pub fn owe(&self, something: bool) {
        self.is_owed.store(something, Ordering::Relaxed);
    }

    /// Sends whole frames, all or none. `now`: for many sockets the clock is looked at once.
    pub fn send(&self, frames: &[IoSlice<'_>], now: Instant) -> Sent {
        if self.is_cut() || self.is_owed() {
            return Sent::No;
        }
        let mut state = self.state.lock();
        let State { account, road, .. } = &mut *state;
        if !account.is_open(now) {
            return Sent::No;
        }
        if !road.is_clear() {
            return Sent::Elsewhere;
        }
        account.sent(frames.iter().map(|frame| frame.len()).sum());
        match account.asks(now) {
            // In one go: a ping by itself costs as much as they do.
            true => road.put(&[frames, &[IoSlice::new(&PING)]].concat()),
            false => road.put(frames),
        }
        Sent::Yes
    }

    /// The library is about to be given an event or an ack of so many bytes.
    pub fn give(&self, bytes: usize) {
        let State { account, road, .. } = &mut *self.state.lock();
        road.give();
        account.sent(bytes);
        if !road.was_opened() && account.asked.is_none() {
            // The client polls again by itself.
            account.asked = Some((Instant::now(), 0));
        }
    }

    /// How often that was.
    #[cfg(test)]
    pub fn given(&self) -> u64 {
        self.state.lock().road.given()
    }

    /// The library did not take it.
    pub fn take_back(&self) {
        self.state.lock().road.take_back();
    }

    /// A poll has come: whatever was answered to earlier ones is read.
    pub fn polled(&self) {
        self.read(|State { account, road, .. }| {
            if !road.was_opened() {
                account.unread = account.unread.saturating_sub(std::mem::take(&mut account.answered));
                account.asked = (account.unread > 0).then(|| (Instant::now(), 0));
            }
        });
    }

    /// A poll is answered.
    pub fn answered(&self, body: &[u8], has_lengths: bool) {
        let State { account, road, .. } = &mut *self.state.lock();
        // What cannot be followed counts as everything.
        let is_all = road.polled(body, has_lengths).is_none_or(|is_all| is_all);
        account.answered = if is_all { account.unread } else { account.answered + body.len() };
    }

    /// The client wants another namespace, of which there is none; `false`: once too often.
    pub fn may_wander(&self) -> bool {
        self.wanderings.fetch_add(1, Ordering::Relaxed) < WANDERINGS
    }

    fn read(&self, what: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let before = (state.account.is_open(now), state.account.has_room(now));
        what(&mut state);
        if (state.account.is_open(now), state.account.has_room(now)) > before {
            self.opened.notify_one();
        }
    }

    /// Asks for confirmation; returns a mark behind all that was sent, for [`Link::has_read_to`].
    pub fn mark(&self) -> u64 {
        let state = &mut *self.state.lock();
        state.account.last_asked = None;
        state.ask();
        state.account.sent
    }

    /// The same mark, and nothing is asked.
    pub fn sent(&self) -> u64 {
        self.state.lock().account.sent
    }

    /// Has the socket read everything before this mark, as far as is known?
    pub fn has_read_to(&self, mark: u64) -> bool {
        let account = &self.state.lock().account;
        account.sent - account.unread as u64 >= mark
    }

    /// Has the socket read everything, as far as is known?
    pub fn has_read(&self) -> bool {
        self.state.lock().account.unread == 0
    }

    /// From now on there is a WebSocket.
    ///
    /// # Errors
    /// The stream: there was one before, which counts.
    pub(super) fn has_stream(&self, stream: TcpStream, is_upgrade: bool) -> Result<(), TcpStream> {
        let State { account, road, counted, .. } = &mut *self.state.lock();
        road.open(stream, is_upgrade)?;
        account.asked = None;
        self.sockets.over(false).dec_by((*counted).into());
        self.sockets.over(true).inc_by((*counted).into());
        Ok(())
    }

    /// The WebSocket is gone, and with it the session.
    pub(super) fn lost_stream(&self) {
        self.cut();
        self.state.lock().road.close();
    }

    /// What the library is to read.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.state.lock().road.poll_read(cx, buffer)
    }

    /// What the library has to write.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state.lock();
        let written = ready!(state.road.poll_write(cx, bytes))?;
        state.ask();
        Poll::Ready(Ok(written))
    }

    /// The library has nothing more to write.
    pub(super) fn shut_down(&self) -> io::Result<()> {
        match self.state.lock().road.stream() {
            Some(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            None => Ok(()),
        }
    }

    /// Is there nothing of ours that waits for the kernel? If there will be, `reader` is woken.
    pub(super) fn is_drained(&self, reader: &Waker) -> bool {
        self.state.lock().road.is_drained(reader)
    }

    /// Messages of the client, and confirmations, have come.
    pub(super) fn heard(&self, messages: usize, is_confirmed: bool) {
        self.read(|state| {
            (0..messages).for_each(|_| state.road.heard());
            if is_confirmed && let Some((_, bytes)) = state.account.asked.take() {
                state.account.unread = state.account.unread.saturating_sub(bytes);
            }
            state.ask();
        });
    }

    /// Has confirmation been missing for so long?
    pub(super) fn is_unanswered_for(&self, time: Duration) -> bool {
        self.state.lock().account.asked.is_some_and(|(at, _)| at.elapsed() > time)
    }

    /// Was it ended by [`Link::cut`]?
    pub fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }

    /// Is it about to be?
    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    /// Ends the connection of a client that does not read.
    pub fn give_up(&self, why: Why) {
        if self.end(Some(why)) {
            self.sockets.given_up.inc();
        }
    }

    /// Ends the connection for a reason of ours.
    pub fn cut_for(&self, why: Why) {
        self.end(Some(why));
    }

    /// Ends the connection at once, whatever waits to be sent; the client connects again. Not the library's
    /// disconnect, which waits in the same queue and tells the client to stay away.
    pub fn cut(&self) {
        self.end(None);
    }

    /// `true`: it had not ended before.
    fn end(&self, why: Option<Why>) -> bool {
        let mut state = self.state.lock();
        let is_first = !self.is_cut.swap(true, Ordering::Relaxed);
        if is_first {
            state.why = why;
        }
        if let Some(stream) = state.road.stream() {
            // Without waiting for its other end. Gone already, if either fails.
            let _ = stream.set_zero_linger();
            let _ = SockRef::from(stream).shutdown(Shutdown::Both);
        }
        is_first
    }

    /// Why it was ended; `None`: not from here, or not at all.
    pub fn why(&self) -> Option<Why> {
        self.state.lock().why
    }
}

impl State {
    /// Asks for confirmation between two frames, if it is time.
    fn ask(&mut self) {
        if self.road.is_between() && self.account.asks(Instant::now()) {
            self.road.put(&[IoSlice::new(&PING)]);
        }
    }
}

/// The links by the ids of their sessions, for requests that name one.
#[derive(Debug)]
pub struct Links {
    /// Told when a socket that was sent nothing more has read.
    pub opened: Arc<Notify>,
    /// Written when a session connects and when its requests look for it.
    by_session: Mutex<HashMap<String, Weak<Link>>>,
    /// Those of sessions that were ended while they polled, and when, oldest first: to be refused until the
    /// library has found them gone.
    ended: Mutex<VecDeque<(Instant, Arc<Link>)>>,
    /// How long that takes.
    heartbeat: Duration,
    sockets: Arc<Sockets>,
    /// Made, and nobody's yet.
    spare: Mutex<Vec<Arc<Link>>>,
}

impl Links {
    /// None yet; sockets that are not heard of for so long are gone.
    pub fn new(heartbeat: Duration, sockets: Sockets) -> Self {
        Self {
            opened: Arc::default(),
            by_session: Mutex::default(),
            ended: Mutex::default(),
            heartbeat,
            sockets: Arc::new(sockets),
            spare: Mutex::default(),
        }
    }

    /// Ends a connection a moment later: what was said last is to be read.
    pub fn end_soon(self: &Arc<Self>, link: &Arc<Link>) {
        if link.is_ending.swap(true, Ordering::Relaxed) {
            return;
        }
        let (links, link) = (self.clone(), link.clone());
        tokio::spawn(async move {
            sleep(LAST_WORDS).await;
            link.cut();
            if !link.state.lock().road.was_opened() {
                let mut ended = links.ended.lock();
                let is_gone = |at: &Instant| at.elapsed() > links.heartbeat + LAST_WORDS;
                while ended.pop_front_if(|(at, _)| is_gone(at)).is_some() {}
                ended.push_back((Instant::now(), link));
            }
        });
    }

    /// The link of a session, new if it has none yet.
    pub fn of(&self, session: &str) -> Arc<Link> {
        let mut links = self.by_session.lock();
        if let Some(link) = links.get(session).and_then(Weak::upgrade) {
            return link;
        }
        forget_ended(&mut links);
        let link = self.nameless();
        links.insert(session.to_owned(), Arc::downgrade(&link));
        link
    }

    /// A link whose session is not known yet.
    pub fn nameless(&self) -> Arc<Link> {
        let mut spare = self.spare.lock();
        if spare.is_empty() {
            spare.extend(std::iter::repeat_with(|| Link::new(&self.opened, &self.sockets)).take(TOGETHER));
        }
        spare.pop().expect("made above")
    }

    /// Waits until those who poll have everything.
    pub async fn polled(&self) {
        let is_waiting =
            |link: Arc<Link>| !link.state.lock().road.was_opened() && !link.has_read() && !link.is_cut();
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
        let mut links = self.by_session.lock();
        forget_ended(&mut links);
        links.insert(session.to_owned(), Arc::downgrade(link));
    }

    /// Ends every connection at once.
    pub fn cut(&self) {
        self.by_session.lock().values().filter_map(Weak::upgrade).for_each(|link| link.cut());
    }
}

/// Before it would grow.
fn forget_ended(links: &mut HashMap<String, Weak<Link>>) {
    if links.len() == links.capacity() {
        links.retain(|_, link| link.strong_count() > 0);
    }
}
