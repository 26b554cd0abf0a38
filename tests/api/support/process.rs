//! The binary as an operator runs it: environment, flags, signals, exit code, log.

use std::{net::SocketAddr, process::Stdio, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::{
    Db, TestDatabase, TestServer, UNLIMITED,
    machine::{self, Share},
    noise::{self, Watch},
};

/// Longer than any start or stop on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The binary with these settings and no others; killed when dropped.
pub fn command(settings: &[(&str, &str)], args: &[&str]) -> Command {
    // What is measured is measured on a release build.
    let binary = std::env::var("GEOROOM_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_georoom").to_owned());
    let mut command = Command::new(binary);
    command
        .env_clear()
        .envs(settings.iter().copied())
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Sends a signal: TERM, INT, KILL.
pub async fn signal(child: &Child, name: &str) {
    let pid = child.id().expect("a running process").to_string();
    let status = Command::new("kill").args(["-s", name, &pid]).status().await.expect("kill");
    assert!(status.success());
}

/// Runs the binary to its end.
pub async fn run(settings: &[(&str, &str)], args: &[&str]) -> Ended {
    let output = timeout(PATIENCE, command(settings, args).output());
    let output = output.await.expect("the process ends by itself").expect("the binary");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// The log of a running process, line by line.
pub struct Log {
    lines: mpsc::UnboundedReceiver<Value>,
    /// Every line read so far.
    pub read: Vec<Value>,
}

impl Log {
    /// A line with this message, all of whose given fields are as given; waits for it.
    pub async fn find(&mut self, message: &str, fields: &[(&str, &str)]) -> Value {
        let wanted = |line: &Value| {
            line["message"] == message && fields.iter().all(|(name, value)| line[name] == *value)
        };
        if let Some(line) = self.read.iter().find(|line| wanted(line)) {
            return line.clone();
        }
        loop {
            let line = timeout(PATIENCE, self.lines.recv()).await;
            let line = line.unwrap_or_else(|_| panic!("no `{message}` with {fields:?} in {:#?}", self.read));
            let line = line.unwrap_or_else(|| panic!("no `{message}` before the end in {:#?}", self.read));
            self.read.push(line.clone());
            if wanted(&line) {
                return line;
            }
        }
    }

    /// All lines, once the process has ended.
    pub async fn whole(mut self) -> Vec<Value> {
        while let Some(line) = timeout(PATIENCE, self.lines.recv()).await.expect("the end") {
            self.read.push(line);
        }
        self.read
    }
}

/// A server in a process of its own, logging JSON. Once it has ended its log must be as its test has announced.
pub struct Process {
    pub api: String,
    pub gateway: String,
    pub log: Log,
    addrs: (SocketAddr, SocketAddr),
    child: Child,
    /// Reads the log; done when all of it is read.
    reader: JoinHandle<()>,
    _watch: Watch,
    _share: Arc<Share>,
}

impl Process {
    /// Starts on free ports and waits until it says where it listens.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let own =
            [("API_ADDR", "127.0.0.1:0"), ("GATEWAY_ADDR", "127.0.0.1:0"), ("LOG_FORMAT", "json"), UNLIMITED];
        Self::launch(command(&[&own, settings].concat(), &[])).await
    }

    /// The same of a command, whose log must be JSON.
    pub async fn launch(mut command: Command) -> Self {
        let share = machine::share().await;
        let mut child = command.stderr(Stdio::inherit()).spawn().expect("the binary");
        let mut output = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (line, lines) = mpsc::unbounded_channel();
        let watch = Watch::start();
        let reader = tokio::spawn(async move {
            let test = Handle::current().id();
            while let Some(text) = output.next_line().await.expect("lines of text") {
                let entry = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
                noise::record(test, &entry);
                // A test that does not read the log goes on all the same.
                let _ = line.send(entry);
            }
        });
        let mut log = Log { lines, read: Vec::new() };
        let started = log.find("started", &[]).await;
        let addr = |name: &str| started[name].as_str().expect(name).parse().expect(name);
        let addrs: (SocketAddr, SocketAddr) = (addr("api"), addr("gateway"));
        let (api, gateway) = (format!("http://{}", addrs.0), format!("http://{}", addrs.1));
        Self { api, gateway, log, addrs, child, reader, _watch: watch, _share: share }
    }

    /// Sends a signal: TERM, INT, KILL.
    pub async fn signal(&self, name: &str) {
        signal(&self.child, name).await;
    }

    /// For what the kernel knows of it.
    pub fn id(&self) -> u32 {
        self.child.id().expect("a running process")
    }

    /// Changes a limit of the running process, as `prlimit` spells it; no more than the given number.
    pub async fn limit(&self, name: &str, soft: &str) {
        let pid = self.child.id().expect("a running process").to_string();
        let args = ["--pid", &pid, &format!("--{name}={soft}:")];
        let status = Command::new("prlimit").args(args).status().await.expect("prlimit");
        assert!(status.success());
    }

    /// kill -9, this very moment.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("a running process");
        self.read_log().await;
    }

    /// Waits for the end, at most as long as the contract gives it; returns the exit code.
    pub async fn ended(mut self) -> Option<i32> {
        self.wait().await
    }

    /// SIGTERM; returns the log once the process has ended as it should.
    pub async fn stop(mut self) -> Log {
        self.signal("TERM").await;
        assert_eq!(self.wait().await, Some(0));
        self.log
    }

    async fn wait(&mut self) -> Option<i32> {
        let status = timeout(Duration::from_secs(10), self.child.wait());
        let status = status.await.expect("the end within 10 s").expect("a status");
        self.read_log().await;
        status.code()
    }

    /// Reads the rest of the log of a process that has ended.
    async fn read_log(&mut self) {
        timeout(PATIENCE, &mut self.reader).await.expect("the end of the log").expect("lines of JSON");
    }

    /// The same as a [`TestServer`], for tests that need its own limits or its log.
    pub async fn serve(db: Db, settings: &[(&str, &str)]) -> (TestServer, Log) {
        Self::serve_on(TestDatabase::create(db).await, settings).await
    }

    /// On a database that is there already, which `DATABASE_URL` may reach some other way.
    pub async fn serve_on(database: TestDatabase, settings: &[(&str, &str)]) -> (TestServer, Log) {
        let url = database.url.clone();
        let mut process = Self::start(&[&[("DATABASE_URL", url.as_str())], settings].concat()).await;
        let (_, unused) = mpsc::unbounded_channel();
        let log = std::mem::replace(&mut process.log, Log { lines: unused, read: Vec::new() });
        let (stop, stopped) = oneshot::channel();
        let addrs = process.addrs;
        let served = tokio::spawn(async move {
            drop(stopped.await);
            process.signal("TERM").await;
            assert_eq!(process.ended().await, Some(0));
        });
        (TestServer::at(addrs, database, stop, served), log)
    }
}
