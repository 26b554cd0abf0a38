//! The servers that are compared. Each is started on the server's core and stopped when it is dropped.

use std::{
    env, fmt, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::machine::{Cores, CpuTime, pin_self, resident};

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The server of this repository.
    Georoom,
    /// A server of Node's http, socket.io and mysql2.
    Node,
    /// The server of Node, with a transaction for each PUT: it locks and reads the row, changes it and adds to a history.
    Naive,
    /// The server of Node with the engine `eiows`.
    Eiows,
    /// A server without database that makes one `send` to each member.
    Floor,
}

impl Kind {
    /// All kinds, in the order of the table's columns.
    pub const ALL: [Self; 5] = [Self::Georoom, Self::Node, Self::Naive, Self::Eiows, Self::Floor];

    /// Returns the name of its database that is reached over this link, if it has one.
    pub fn database(self, link: Link) -> Option<String> {
        (self != Self::Floor).then(|| format!("georoom_bench_{self}_{link:?}").to_lowercase())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Georoom => "georoom",
            Self::Node => "node",
            Self::Naive => "naive",
            Self::Eiows => "eiows",
            Self::Floor => "floor",
        })
    }
}

/// The link over which a server reaches MySQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Link {
    /// TCP without encryption.
    Tcp,
    /// TCP with TLS, the default of both drivers if MySQL has a certificate.
    Tls,
    /// A Unix socket.
    Unix,
}

impl Link {
    /// All links, in the order of the table.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Tls, Self::Unix];

    /// Returns the query of a database URL that selects this link; `socket` is the path of MySQL's Unix socket.
    fn query(self, socket: &str) -> String {
        match self {
            Self::Tcp => "ssl-mode=DISABLED".to_owned(),
            Self::Tls => "ssl-mode=REQUIRED".to_owned(),
            Self::Unix => format!("ssl-mode=DISABLED&socket={socket}"),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Unix => "a Unix socket",
        })
    }
}

/// The addresses of MySQL.
#[derive(Clone, Debug)]
pub struct MySqlAddress {
    /// The URL `mysql://user@host:port`.
    pub url: String,
    /// The path of its Unix socket.
    pub socket: String,
}

/// Returns the folder of the repository.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("bench/ is in the repository").to_owned()
}

/// A running server.
pub struct Server {
    /// The kind.
    pub kind: Kind,
    /// The address of its HTTP API.
    pub api: SocketAddr,
    /// The address for sockets.
    pub gateway: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts a server with an empty database, and waits until it takes connections.
    pub fn start(kind: Kind, mysql: &MySqlAddress, link: Link, cores: Cores) -> Result<Self, String> {
        let failed = |what: &str, e: std::io::Error| format!("{kind}: {what}: {e}");
        let log = env::current_exe().map_err(|e| failed("path", e))?.with_file_name(format!("{kind}.log"));
        let (api, gateway) = (free_address(), free_address());
        let mut command = match kind {
            Kind::Georoom => Command::new(
                env::var_os("BENCH_GEOROOM")
                    .map_or_else(|| repository().join("target/release/georoom"), Into::into),
            ),
            Kind::Floor => {
                Command::new(env::current_exe().map_err(|e| failed("path", e))?.with_file_name("floor"))
            }
            Kind::Node | Kind::Naive | Kind::Eiows => {
                let mut node = Command::new("node");
                node.arg(repository().join("bench/peers/node/server.mjs"));
                node
            }
        };
        let database = kind.database(link).unwrap_or_default();
        let url = format!("{}/{database}?{}", mysql.url.trim_end_matches('/'), link.query(&mysql.socket));
        let said = fs::File::create(&log).map_err(|e| failed("log", e))?;
        // The caller's settings are left out, because they are named like georoom's.
        command
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("API_ADDR", api.to_string())
            .env("GATEWAY_ADDR", gateway.to_string())
            .env("DATABASE_URL", url)
            .env("RATE_LIMITS", "off")
            .env("RUST_LOG", "warn")
            .env("NODE_ENV", "production")
            .env("ENGINE", kind.to_string())
            .stdin(Stdio::null())
            .stdout(said.try_clone().map_err(|e| failed("log", e))?)
            .stderr(said);
        // A child begins on the core of its parent, and sizes itself by the number of cores it has.
        pin_self(cores.server).map_err(|e| failed("pin", e))?;
        let child = command.spawn();
        pin_self(cores.others).map_err(|e| failed("pin", e))?;
        let child = child.map_err(|e| failed("start", e))?;
        let mut server = Self { kind, api, gateway, child };
        let deadline = Instant::now() + Duration::from_secs(30);
        while ![api, gateway].iter().all(|address| TcpStream::connect(address).is_ok()) {
            let ended = server.child.try_wait().ok().flatten().is_some();
            if ended || Instant::now() > deadline {
                let said = fs::read_to_string(&log).unwrap_or_default();
                let said: String = said.chars().take(600).collect();
                return Err(format!("{kind} did not start: {}", said.trim()));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Returns the CPU time that it has used so far.
    pub fn cpu(&self) -> CpuTime {
        CpuTime::of(self.child.id())
    }

    /// Returns its resident memory in KiB.
    pub fn resident(&self) -> u64 {
        resident(self.child.id()).unwrap_or(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address")
}
