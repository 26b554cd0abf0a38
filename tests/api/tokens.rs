//! Keys and tokens from outside: settings that are refused, `georoom token`, and secrets that nobody sees.

use std::time::Duration;

use georoom::domain::{
    id::UserId,
    time::Timestamp,
    token::{Keys, Token},
};
use reqwest::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::timeout,
};

use crate::support::{
    Db, TestDatabase, TestServer,
    process::{Process, command, run, signal},
    tokens::{ED25519, SECRET},
};

const OLD: &str = "older-older-older-older-older-older";
const P384: &str = "\
-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE2RszMssOMGd3rY4+Apz4REyEAoYL1ZaK
iV+YvTSvjE/1QdK0dOXIljzAn5B/Cvn+/KVfqtCKdjjwfxxyQqnMw/vN/Sc1C1Pw
UbYKVkGKI8kXkFnRHiyAFaql+iRlCF2Q
-----END PUBLIC KEY-----
";
const PRIVATE: &str = "\
-----BEGIN PRIVATE KEY-----
aHVudGVyMi1odW50ZXIyLWh1bnRlcjItaHVudGVyMi0=
-----END PRIVATE KEY-----
";

/// A file with this text; removed when dropped.
struct File(String);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("georoom_{name}_{}", std::process::id()));
        std::fs::write(&path, text).expect("a file");
        Self(path.to_str().expect("UTF-8").to_owned())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn keys(secret: &str) -> Keys {
    let mut keys = Keys::default();
    keys.add_secrets(secret).expect("a secret");
    keys
}

#[tokio::test]
async fn a_key_that_cannot_be_used_stops_the_start_with_one_line() {
    let [empty, text, private, p384, good] = [
        File::new("empty", "\n"),
        File::new("text", SECRET),
        File::new("private", &[ED25519, PRIVATE].concat()),
        File::new("p384", &[ED25519, P384].concat()),
        File::new("good", ED25519),
    ];
    let short_after_long = format!("{SECRET} hunter2");
    let cases = [
        (vec![("JWT_SECRET", "hunter2")], "JWT_SECRET: each secret must have 32 bytes or more"),
        (vec![("JWT_SECRET", &*short_after_long)], "JWT_SECRET: each secret must have 32 bytes or more"),
        (vec![("JWT_SECRET_FILE", "/nowhere/secret")], "JWT_SECRET_FILE: No such file"),
        (vec![("JWT_SECRET_FILE", &*empty.0)], "JWT_SECRET: is empty"),
        (
            vec![("JWT_SECRET", SECRET), ("JWT_SECRET_FILE", &*text.0)],
            "JWT_SECRET_FILE: is set beside JWT_SECRET",
        ),
        (vec![("JWT_PUBLIC_KEY_FILE", "/nowhere/key")], "JWT_PUBLIC_KEY_FILE: No such file"),
        (vec![("JWT_PUBLIC_KEY_FILE", &*text.0)], "JWT_PUBLIC_KEY_FILE: must be PEM"),
        (vec![("JWT_PUBLIC_KEY_FILE", &*private.0)], "JWT_PUBLIC_KEY_FILE: has a private key"),
        (
            vec![("JWT_PUBLIC_KEY_FILE", &*p384.0)],
            "JWT_PUBLIC_KEY_FILE: block 2: an EC key must be of the curve P-256",
        ),
        (vec![("JWT_SECRET", SECRET), ("OPEN_MODE", "true")], "OPEN_MODE: with a key there is no open mode"),
        (
            vec![("JWT_PUBLIC_KEY_FILE", &*good.0), ("OPEN_MODE", "true")],
            "OPEN_MODE: with a key there is no open mode",
        ),
    ];
    for (settings, says) in cases {
        let own = [("API_ADDR", "127.0.0.1:0"), ("GATEWAY_ADDR", "127.0.0.1:0"), ("RUST_LOG", "trace")];
        let ended = run(&[own.to_vec(), settings].concat(), &[]).await;
        assert_eq!(ended.code, Some(1), "{says}: {ended:?}");
        assert!(ended.stderr.starts_with(&format!("georoom: {says}")), "{says}: {}", ended.stderr);
        assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{says}: {}", ended.stderr);
        for shown in ["hunter2", "aHVudGVy", "MHYwEAYH"] {
            assert!(!format!("{}{}", ended.stderr, ended.stdout).contains(shown), "{says}: {ended:?}");
        }
    }
}

#[tokio::test]
async fn with_a_key_any_address_is_served_nothing_is_open_and_no_log_has_a_secret() {
    let [public, secrets] =
        [File::new("public", ED25519), File::new("secrets", &format!("{SECRET}\n{OLD}\n"))];
    let database = TestDatabase::create(Db::Sqlite).await;
    for (name, value) in
        [("JWT_SECRET", SECRET), ("JWT_SECRET_FILE", &secrets.0), ("JWT_PUBLIC_KEY_FILE", &public.0)]
    {
        let settings = [
            ("DATABASE_URL", database.url.as_str()),
            ("API_ADDR", "0.0.0.0:0"),
            ("GATEWAY_ADDR", "0.0.0.0:0"),
            ("RUST_LOG", "trace"),
            (name, value),
        ];
        let log = Process::start(&settings).await.stop().await.whole().await;
        let log = serde_json::to_string(&log).unwrap();
        for absent in ["open mode", SECRET, OLD, "MCowBQ"] {
            assert!(!log.contains(absent), "{name}: {absent} in {log}");
        }
    }
    database.drop().await;
}

#[tokio::test]
async fn with_a_key_no_page_may_call_that_is_not_listed() {
    let page = "http://localhost:5173";
    for (origins, allowed) in [("", false), ("https://map.example.org", false), (page, true)] {
        let server =
            TestServer::start_with(Db::Sqlite, &[("JWT_SECRET", SECRET), ("CORS_ORIGINS", origins)]).await;
        let get = server.http.get(format!("{}/healthz", server.api)).header("Origin", page);
        let answer = get.send().await.unwrap();
        assert_eq!(answer.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), allowed, "{origins}");
        server.stop().await;
    }
}

#[tokio::test]
async fn the_greeting_says_how_to_come_by_a_token() {
    let database = TestDatabase::create(Db::Sqlite).await;
    let public = File::new("greeting", ED25519);
    // With a public key alone nothing can be minted here.
    for (key, can_mint) in [(("JWT_SECRET", SECRET), true), (("JWT_PUBLIC_KEY_FILE", &*public.0), false)] {
        let read = greeting(&database, key).await;
        for part in ["-H \"Authorization: Bearer $TOKEN\"", "auth: { token: TOKEN }"] {
            assert!(read.contains(part), "{part}: {read}");
        }
        assert_eq!(read.contains("georoom token --user 1"), can_mint, "{read}");
        assert_eq!(read.contains("private key"), !can_mint, "{read}");
        assert!(!read.contains("open mode"), "{read}");
    }
    database.drop().await;
}

/// What a server with this key prints when it starts.
async fn greeting(database: &TestDatabase, key: (&str, &str)) -> String {
    let settings = [
        ("DATABASE_URL", database.url.as_str()),
        ("API_ADDR", "127.0.0.1:0"),
        ("GATEWAY_ADDR", "127.0.0.1:0"),
        key,
    ];
    let mut child = command(&settings, &[]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut read = String::new();
    while !read.contains("join_room") {
        let line = timeout(Duration::from_secs(30), lines.next_line()).await.expect("a line, soon");
        read = format!("{read}{}\n", line.unwrap().expect("the greeting before the end"));
    }
    signal(&child, "TERM").await;
    assert!(child.wait().await.unwrap().success());
    read
}

#[tokio::test]
async fn a_minted_token_stands_alone_and_is_taken() {
    // No database: none is asked.
    let other = [("DATABASE_URL", "mysql://root@127.0.0.1:1/x"), ("RUST_LOG", "trace")];
    let secrets = File::new("mint", &format!("\u{feff}{SECRET}\n{OLD}\n"));
    let hour = Duration::from_secs(3600);
    let user = |id| UserId::new(id).unwrap();
    let cases = [
        (("JWT_SECRET", SECRET), vec!["--user", "7"], (user(7), None, false), hour),
        (
            ("JWT_SECRET_FILE", secrets.0.as_str()),
            vec!["--user", "9007199254740991", "--name", "Ada ж", "--admin", "--ttl", "10m"],
            (user((1 << 53) - 1), Some("Ada ж".to_owned()), true),
            hour / 6,
        ),
        (
            ("JWT_SECRET", SECRET),
            vec!["--user=0", "--ttl=10y"],
            (user(0), None, false),
            Duration::from_secs(315_576_000),
        ),
    ];
    for (secret, args, (user, name, is_admin), ttl) in cases {
        let before = Timestamp::now();
        let ended = run(&[&other[..], &[secret]].concat(), &[vec!["token"], args].concat()).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
        let token = ended.stdout.strip_suffix('\n').expect("one line");
        let token = keys(SECRET).verify(token, Timestamp::now()).unwrap();
        let valid = token.expires_at.as_millis() - before.as_millis();
        let ttl = ttl.as_millis() as i64;
        assert!((ttl - 1_000..ttl + 30_000).contains(&valid), "{valid} ms");
        assert_eq!(token, Token { user, name, is_admin, expires_at: token.expires_at });
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_minted_is_an_error_that_says_why() {
    let public = File::new("verify_only", ED25519);
    for settings in [vec![], vec![("JWT_PUBLIC_KEY_FILE", &*public.0)]] {
        let ended = run(&settings, &["token", "--user", "7"]).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        assert_eq!(ended.stderr, "georoom: JWT_SECRET: is not set, and a token is minted with it\n");
    }
    let bad = [
        (vec![], "--user"),
        (vec!["--user", "ada"], "--user"),
        (vec!["--user", ""], "--user"),
        (vec!["--user=-1"], "--user"),
        (vec!["--user", "9007199254740992"], "--user"),
        (vec!["--user", "7", "--ttl", "soon"], "--ttl"),
        (vec!["--user", "7", "--ttl", "3600"], "--ttl"),
        (vec!["--user", "7", "--ttl", "0s"], "--ttl"),
        (vec!["--user", "7", "--ttl", "11y"], "--ttl"),
    ];
    for (args, names) in bad {
        let ended = run(&[("JWT_SECRET", SECRET)], &[vec!["token"], args.clone()].concat()).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains(names) && !ended.stderr.contains(SECRET), "{args:?}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn help_shows_how_to_mint_and_no_secret() {
    let secret = [("JWT_SECRET", SECRET)];
    let help = run(&secret, &["--help"]).await.stdout;
    let minting = run(&secret, &["token", "--help"]).await.stdout;
    assert!(help.contains("token ") && !help.contains("--jwt-secret"), "{help}");
    assert!(help.contains("--jwt-public-key-file"), "{help}");
    for part in ["--user <ID>", "--name <NAME>", "--admin", "--ttl <TIME>", "[default: 1h]"] {
        assert!(minting.contains(part), "{part}: {minting}");
    }
    assert!(!format!("{help}{minting}").contains("hunter2"));
}
