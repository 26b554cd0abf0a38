//! A real nginx before a test server, with the project's own `nginx/nginx.conf` and `nginx/georoom.conf`.

use std::{
    env, fs,
    net::TcpListener,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use super::TestServer;

const CONF: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/nginx/georoom.conf");
const OUTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/nginx/nginx.conf");

/// A running nginx, killed when dropped.
pub struct Nginx {
    /// `http://127.0.0.1:port`; the API is at `/api`, the gateway at `/chat`.
    pub url: String,
    folder: PathBuf,
    process: Child,
}

impl Nginx {
    /// Starts it and waits until it answers.
    pub async fn start(server: &TestServer) -> Self {
        let program = env::var("TEST_NGINX").expect("TEST_NGINX: run `make test`, or `tests/services/run`");
        // Between the choice of a free port and its use by nginx somebody else may take it: then again.
        for _ in 0..5 {
            let port =
                TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number").port();
            let folder = new_folder();
            let conf = write_conf(&folder, server, port);
            let process = Command::new(&program)
                .arg("-c")
                .arg(&conf)
                .arg("-e")
                .arg(folder.join("start.log"))
                .stdin(Stdio::null())
                .spawn()
                .expect(&program);
            let mut nginx = Self { url: format!("http://127.0.0.1:{port}"), folder, process };
            if nginx.has_its_port().await {
                let answer = server.http.get(format!("{}/api/healthz", nginx.url)).send().await;
                assert_eq!(answer.expect("nginx answers").status(), 200);
                return nginx;
            }
            let log = nginx.logs();
            assert!(log.contains("Address already in use"), "nginx did not start: {log}");
        }
        panic!("nginx found no free port");
    }

    /// Everything it has logged.
    pub fn logs(&self) -> String {
        ["start.log", "access.log", "error.log"]
            .map(|name| fs::read_to_string(self.folder.join(name)).unwrap_or_default())
            .concat()
    }

    /// It writes its pid once it listens; `false` if it ended or cannot.
    async fn has_its_port(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.process.try_wait().expect("its state").is_none() {
            let pid = fs::read_to_string(self.folder.join("pid")).unwrap_or_default();
            if pid.trim() == self.process.id().to_string() {
                return true;
            }
            assert!(Instant::now() < deadline, "nginx does not start: {}", self.logs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn new_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("georoom_nginx_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = env::temp_dir().join(name);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// The project's files with other addresses and paths.
fn write_conf(folder: &Path, server: &TestServer, port: u16) -> PathBuf {
    let (api, gateway) = server.addrs;
    let here = folder.display();
    let site = changed(
        CONF,
        &[
            ("server georoom:3000;", format!("server {api};")),
            ("server georoom:3030;", format!("server {gateway};")),
            ("listen 80;", format!("listen 127.0.0.1:{port};")),
            ("/var/log/nginx/", format!("{here}/")),
        ],
    );
    fs::write(folder.join("site.conf"), site).expect("site.conf");

    // Else root's nginx wants its packager's user.
    let user = if fs::metadata(folder).expect("a folder").uid() == 0 { "user root;" } else { "" };
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|of| format!("    {of}_temp_path {here}/{of};\n"))
        .concat();
    let outer = changed(
        OUTER,
        &[
            // One process: a killed master would leave its workers behind.
            ("user nginx;", format!("{user}\ndaemon off;\nmaster_process off;")),
            ("/run/nginx.pid", format!("{here}/pid")),
            ("/var/log/nginx/error.log", format!("{here}/start.log")),
            // Of its packager; there are no files to serve.
            ("    include /etc/nginx/mime.types;\n", temp),
            ("/etc/nginx/conf.d/*.conf", format!("{here}/site.conf")),
        ],
    );
    let path = folder.join("nginx.conf");
    fs::write(&path, outer).expect("nginx.conf");
    path
}

/// A file of the project with something else in place of what must be in it.
fn changed(path: &str, changes: &[(&str, String)]) -> String {
    let mut text = fs::read_to_string(path).expect(path);
    for (from, to) in changes {
        assert!(text.contains(from), "{path}: `{from}`");
        text = text.replace(from, to);
    }
    text
}
