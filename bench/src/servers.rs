//! The servers that are compared: started on the server's core, stopped when dropped.

use std::{
    env, fmt, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::machine::{Cores, CpuTime, pin_self, resident};

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The server of this repository.
    Georoom,
    /// Node's http, socket.io, mysql2.
    Node,
    /// The same with the engine `eiows`.
    Eiows,
    /// A `send` to each member, and no database.
    Floor,
}

impl Kind {
    /// All, in the order of the table's columns.
    pub const ALL: [Self; 4] = [Self::Georoom, Self::Node, Self::Eiows, Self::Floor];

    /// The name of its database, if it has one.
    pub fn database(self) -> Option<String> {
        (self != Self::Floor).then(|| format!("georoom_bench_{self}"))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Georoom => "georoom",
            Self::Node => "node",
            Self::Eiows => "eiows",
            Self::Floor => "floor",
        })
    }
}

/// The repository, seen from this crate.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("bench/ is in it").to_owned()
}

/// A running server.
pub struct Server {
    /// Which.
    pub kind: Kind,
    /// Where it answers HTTP.
    pub api: SocketAddr,
    /// Where it takes sockets.
    pub gateway: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts it with an empty database and waits until it takes connections.
    pub fn start(kind: Kind, mysql: &str, cores: Cores) -> Result<Self, String> {
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
            Kind::Node | Kind::Eiows => {
                let mut node = Command::new("node");
                node.arg(repository().join("bench/peers/node/server.mjs"));
                node
            }
        };
        let database = kind.database().unwrap_or_default();
        let mysql = mysql.trim_end_matches('/');
        let url = match kind {
            // On loopback nobody encrypts; the driver of georoom would.
            Kind::Georoom => format!("{mysql}/{database}?ssl-mode=DISABLED"),
            _ => format!("{mysql}/{database}"),
        };
        let said = fs::File::create(&log).map_err(|e| failed("log", e))?;
        // Nothing of the caller's settings: they are named like georoom's.
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
        // A child has the core of whoever starts it, from its first instruction on: it sizes itself by that.
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

    /// Its CPU time so far.
    pub fn cpu(&self) -> CpuTime {
        CpuTime::of(self.child.id())
    }

    /// Its resident memory in KiB.
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
