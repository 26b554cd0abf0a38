//! A MySQL of a test's own, to be killed, stopped and started again. It ends with the test.

use std::{
    env,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use sea_orm::{ConnectOptions, Database, DatabaseConnection};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use super::{
    noise::{self, DATABASE_AWAY},
    site::addrs,
};

/// Longer than any start on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// From the start on: somebody who may come from any address, and a database.
const INIT: &str = "CREATE USER 'root'@'%' IDENTIFIED BY '';\n\
                    GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;\n\
                    CREATE DATABASE georoom CHARACTER SET latin1;\n";

/// Should the tests be killed outright, mysqld goes too.
const GUARDED: &str = r#"command -v setpriv >/dev/null && exec setpriv --pdeathsig KILL "$@"; exec "$@""#;

pub struct Mysqld {
    folder: PathBuf,
    /// Of this one alone, so that it can be had again after every end.
    addr: SocketAddr,
    server: Option<Child>,
}

impl Mysqld {
    /// With an empty database; not started yet.
    pub async fn new() -> Self {
        // Who has one of their own stops it.
        noise::expect(&DATABASE_AWAY);
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("georoom-mysqld-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = env::temp_dir().join(name);
        let template = template().await;
        copy(&template, &folder);
        Self { folder, addr: addrs().0, server: None }
    }

    /// One that answers.
    pub async fn started() -> Self {
        let mut mysqld = Self::new().await;
        mysqld.start().await;
        mysqld
    }

    /// Its database.
    pub fn url(&self) -> String {
        format!("mysql://root@{}/georoom", self.addr)
    }

    /// A connection of the test's own; closed when dropped.
    pub async fn open(&self) -> DatabaseConnection {
        let mut options = ConnectOptions::new(self.url());
        options.max_connections(1).sqlx_logging(false);
        Database::connect(options).await.expect("the test's MySQL")
    }

    /// Returns when it accepts connections, and when that was.
    pub async fn start(&mut self) -> Instant {
        assert!(self.server.is_none(), "it runs");
        let server = command(&self.folder)
            .arg(format!("--bind-address={}", self.addr.ip()))
            .arg(format!("--port={}", self.addr.port()))
            .arg(format!("--socket={}", self.folder.join("socket").display()))
            .arg(format!("--pid-file={}", self.folder.join("pid").display()))
            .args(["--mysqlx=OFF", "--skip-name-resolve"])
            .spawn();
        self.server = Some(server.expect("mysqld"));
        let answers = async {
            while !greets(self.addr).await {
                sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(PATIENCE, answers).await.is_err() {
            panic!("{}", log(&self.folder));
        }
        Instant::now()
    }

    /// kill -9; it is gone when this returns.
    pub fn kill(&mut self) {
        let mut server = self.server.take().expect("it runs");
        server.kill().expect("kill");
        server.wait().expect("its end");
    }

    /// STOP, CONT.
    pub fn signal(&self, name: &str) {
        let pid = self.server.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().expect("kill").success());
        // Each thread stops when it comes to know of it.
        while name == "STOP" && !is_stopped(&pid) {
            std::thread::yield_now();
        }
    }
}

/// Have all threads of a process stopped?
fn is_stopped(pid: &str) -> bool {
    let mut threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    threads.all(|thread| {
        let stat = fs::read_to_string(thread.expect("a thread").path().join("stat"));
        // One that has ended meanwhile does nothing either.
        stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
    })
}

impl Drop for Mysqld {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.kill();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A data folder to copy, made once for a version of MySQL: that takes longer than many a test.
async fn template() -> PathBuf {
    static MAKING: Mutex<()> = Mutex::const_new(());
    let _one = MAKING.lock().await;
    let version = Command::new(mysqld()).arg("--version").output().expect("mysqld").stdout;
    let version = String::from_utf8(version).expect("a version");
    let (_, version) = version.split_once("Ver ").expect("a version");
    let version = version.split_whitespace().next().expect("a version");
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mysqld-{version}"));
    if !made.exists() {
        // Whole or not at all, also beside another run of the tests.
        let making = made.with_extension(format!("new-{}", std::process::id()));
        fs::create_dir_all(making.join("tmp")).expect("a folder");
        let init = making.join("init.sql");
        fs::write(&init, INIT).expect("a file");
        let mut server = command(&making)
            .arg("--initialize-insecure")
            .arg(format!("--init-file={}", init.display()))
            .spawn()
            .expect("mysqld");
        assert!(server.wait().expect("its end").success(), "{}", log(&making));
        if fs::rename(&making, &made).is_err() {
            fs::remove_dir_all(making).expect("its own");
        }
    }
    made
}

fn mysqld() -> String {
    env::var("TEST_MYSQLD").expect("TEST_MYSQLD: run `make test`, or `tests/services/run cargo test`")
}

/// The durable defaults stay.
fn command(folder: &Path) -> Command {
    let log = File::options().create(true).append(true).open(folder.join("log")).expect("a log");
    let mut command = Command::new("sh");
    command
        .args(["-c", GUARDED, "sh", &mysqld(), "--no-defaults", "--user=root"])
        .arg(format!("--datadir={}", folder.join("data").display()))
        .arg(format!("--tmpdir={}", folder.join("tmp").display()))
        .args(["--secure-file-priv=NULL", "--performance-schema=OFF", "--innodb-redo-log-capacity=16M"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log);
    command
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-R").args([from, to]).status().expect("cp");
    assert!(status.success(), "{} cannot be copied", from.display());
}

/// Does it say hello? A listener alone is not enough.
async fn greets(addr: SocketAddr) -> bool {
    let greeting = async {
        let mut head = [0; 5];
        TcpStream::connect(addr).await.ok()?.read_exact(&mut head).await.ok()?;
        Some(head[4])
    };
    // Protocol 10; an error is 255.
    timeout(Duration::from_secs(5), greeting).await == Ok(Some(10))
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap_or_else(|e| e.to_string())
}
