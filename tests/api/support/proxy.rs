//! A way to MySQL that can be cut, counted and slowed down, and that loses what it is told to lose.
//!
//! It follows the packets clients send, so the connection has to be in the clear: [`Proxy::url`] says so.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedWriteHalf},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use super::{
    TestDatabase,
    noise::{self, DATABASE_AWAY},
};

/// The first byte of a packet with SQL text in it.
const QUERY: u8 = 3;
/// The first byte of one that only asks whether the server is there.
const PING: u8 = 14;

/// What of a COMMIT gets lost, and the connection with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// MySQL has committed and says so to nobody.
    Answer,
    /// MySQL is never asked to commit.
    Request,
    /// What would follow the answer; nobody hears of it.
    Rest,
}

/// What the proxy does and what it has seen.
#[derive(Debug)]
struct Traffic {
    /// Packets that ask MySQL for something.
    commands: AtomicU64,
    commits: AtomicU64,
    /// The next COMMIT loses this.
    next: Mutex<Option<Loss>>,
    /// One COMMIT in so many loses its answer or its request, by turns; 0: none.
    one_in: AtomicU64,
    /// How much longer a COMMIT takes, in milliseconds.
    slower: AtomicU64,
    /// How much longer every request takes, in milliseconds.
    farther: AtomicU64,
    /// No request goes on.
    is_held: watch::Sender<bool>,
    losses: watch::Sender<u64>,
    /// How often all connections were ended, and how the last time.
    ends: watch::Sender<(u64, End)>,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// Both sides hear of it.
    Cut,
    /// MySQL does not, and goes on waiting for the client.
    Orphaned,
    /// Neither does, and nothing comes through any more.
    Silent,
}

impl Traffic {
    /// A COMMIT goes by: what of it is to be lost?
    fn commit(&self) -> Option<Loss> {
        let commits = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
        let one_in = self.one_in.load(Ordering::SeqCst);
        let turn = (one_in > 0 && commits.is_multiple_of(one_in)).then(|| match commits / one_in % 2 {
            0 => Loss::Request,
            _ => Loss::Answer,
        });
        self.next.lock().unwrap().take().or(turn)
    }
}

/// Between a server and its database.
pub struct Proxy {
    addr: SocketAddr,
    /// The database as seen through it.
    pub url: String,
    accepting: JoinHandle<()>,
    traffic: Arc<Traffic>,
}

impl Proxy {
    /// Before a database; on a free port, or where an earlier one was cut.
    pub async fn start(database: &TestDatabase, on: Option<SocketAddr>) -> Self {
        Self::before(&database.url, on).await
    }

    /// The same before whatever database is at this URL.
    pub async fn before(url: &str, on: Option<SocketAddr>) -> Self {
        let (credentials, rest) = url.split_once('@').expect("mysql://root@…");
        let (mysql, name) = rest.split_once('/').expect("a database");
        let to = mysql.to_owned();
        let any = "127.0.0.1:0".parse().expect("an address");
        let listener = TcpListener::bind(on.unwrap_or(any)).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let url = format!("{credentials}@{addr}/{name}?ssl-mode=DISABLED");
        let traffic = Arc::new(Traffic {
            commands: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            next: Mutex::new(None),
            one_in: AtomicU64::new(0),
            slower: AtomicU64::new(0),
            farther: AtomicU64::new(0),
            is_held: watch::Sender::new(false),
            losses: watch::Sender::new(0),
            ends: watch::Sender::new((0, End::Cut)),
        });
        let seen = traffic.clone();
        let accepting = tokio::spawn(async move {
            // Dropped with the task, and the connections with it.
            let mut connections = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.expect("accept");
                let far = TcpStream::connect(&to).await.expect("MySQL");
                connections.spawn(carry(near, far, seen.clone()));
            }
        });
        Self { addr, url, accepting, traffic }
    }

    /// Cuts every connection; the address can be had again.
    pub async fn cut(self) -> SocketAddr {
        noise::expect(&DATABASE_AWAY);
        self.accepting.abort();
        let _ = self.accepting.await;
        self.addr
    }

    /// Ends every connection there is; new ones are carried as before.
    pub fn end_all(&self, how: End) {
        noise::expect(&DATABASE_AWAY);
        self.traffic.ends.send_modify(|(count, last)| (*count, *last) = (*count + 1, how));
    }

    /// Packets that asked MySQL for something, and how many of them were a COMMIT, so far.
    pub fn counts(&self) -> (u64, u64) {
        let Traffic { commands, commits, .. } = &*self.traffic;
        (commands.load(Ordering::SeqCst), commits.load(Ordering::SeqCst))
    }

    /// The next COMMIT loses this; `None`: nothing after all.
    pub fn lose_next(&self, loss: Option<Loss>) {
        noise::expect(&DATABASE_AWAY);
        *self.traffic.next.lock().unwrap() = loss;
    }

    /// One COMMIT in so many loses its answer or its request, by turns; 0: none.
    pub fn lose_one_in(&self, commits: u64) {
        noise::expect(&DATABASE_AWAY);
        self.traffic.one_in.store(commits, Ordering::SeqCst);
    }

    /// Makes every COMMIT take that much longer.
    pub fn slow_down(&self, by: Duration) {
        self.traffic.slower.store(by.as_millis() as u64, Ordering::SeqCst);
    }

    /// Makes every request to MySQL take that much longer on its way.
    pub fn move_away(&self, by: Duration) {
        self.traffic.farther.store(by.as_millis() as u64, Ordering::SeqCst);
    }

    /// Keeps every request that comes from now on, until `act` is done.
    pub async fn hold_during<T>(&self, act: impl Future<Output = T>) -> T {
        self.traffic.is_held.send_replace(true);
        let result = act.await;
        self.traffic.is_held.send_replace(false);
        result
    }

    /// How often something was lost.
    pub fn losses(&self) -> watch::Receiver<u64> {
        self.traffic.losses.subscribe()
    }
}

/// Carries bytes both ways until one side is done or the connection is to be cut.
async fn carry(near: TcpStream, far: TcpStream, traffic: Arc<Traffic>) {
    // A delay of the network's own would be taken for the server's.
    near.set_nodelay(true).expect("nodelay");
    far.set_nodelay(true).expect("nodelay");
    let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.into_split(), far.into_split());
    let mut packets = Packets::default();
    let mut ends = traffic.ends.subscribe();
    let (mut requests, mut answers) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            _ = ends.changed() => {
                let end = ends.borrow().1;
                match end {
                    End::Cut => {}
                    End::Orphaned => {
                        drop((from_near, to_near));
                        // As long as MySQL keeps it.
                        while matches!(from_far.read(&mut answers).await, Ok(1..)) {}
                    }
                    End::Silent => std::future::pending().await,
                }
                return;
            }
            read = from_near.read(&mut requests) => {
                let Ok(read @ 1..) = read else { return };
                sleep(Duration::from_millis(traffic.farther.load(Ordering::SeqCst))).await;
                let _ = traffic.is_held.subscribe().wait_for(|is_held| !is_held).await;
                match forward(&requests[..read], &mut packets, &mut to_far, &traffic).await {
                    Ok(None) => {}
                    Ok(Some(loss)) => {
                        traffic.losses.send_modify(|losses| *losses += 1);
                        if loss != Loss::Request {
                            // It says that MySQL has done it; nobody hears it.
                            let Ok(read) = from_far.read(&mut answers).await else { return };
                            if loss == Loss::Rest {
                                let _ = to_near.write_all(&answers[..read]).await;
                                std::future::pending().await
                            }
                        }
                        return;
                    }
                    Err(_) => return,
                }
            }
            read = from_far.read(&mut answers) => {
                let Ok(read @ 1..) = read else { return };
                if to_near.write_all(&answers[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Hands on what a client has sent; says what of it is to be lost.
async fn forward(
    sent: &[u8],
    packets: &mut Packets,
    to: &mut OwnedWriteHalf,
    traffic: &Traffic,
) -> std::io::Result<Option<Loss>> {
    let mut loss = None;
    for packet in packets.read(sent) {
        if packet.0.first() != Some(&PING) {
            traffic.commands.fetch_add(1, Ordering::SeqCst);
        }
        if packet.ends_a_transaction() {
            loss = traffic.commit().or(loss);
            sleep(Duration::from_millis(traffic.slower.load(Ordering::SeqCst))).await;
        }
    }
    if loss != Some(Loss::Request) {
        to.write_all(sent).await?;
    }
    Ok(loss)
}

/// What a client sends, put together again: a length of three bytes, a number, and so many bytes.
#[derive(Default)]
struct Packets {
    unread: Vec<u8>,
}

struct Packet(Vec<u8>);

impl Packets {
    /// The packets that begin a command and end in these bytes.
    fn read(&mut self, bytes: &[u8]) -> Vec<Packet> {
        self.unread.extend_from_slice(bytes);
        let mut whole = Vec::new();
        while let [a, b, c, number, rest @ ..] = self.unread.as_slice() {
            let length = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
            let Some(packet) = rest.get(..length) else { break };
            // Later ones continue a handshake or a long command.
            if *number == 0 {
                whole.push(Packet(packet.to_vec()));
            }
            self.unread.drain(..4 + length);
        }
        whole
    }
}

impl Packet {
    /// COMMIT, alone or behind other statements.
    fn ends_a_transaction(&self) -> bool {
        let [QUERY, sql @ ..] = self.0.as_slice() else { return false };
        let sql = sql.trim_ascii_end();
        let sql = sql.strip_suffix(b";").unwrap_or(sql);
        sql.len() >= 6 && sql[sql.len() - 6..].eq_ignore_ascii_case(b"COMMIT")
    }
}
