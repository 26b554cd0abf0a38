//! `make bench`: georoom and its peers in turns, one table. See README.md.

mod rows;

use std::{env, error::Error, process::ExitCode, time::Instant};

use bench::{
    load::Generator,
    machine::{Cores, Pinned, pin_self, raise_open_files},
    mysql::MySql,
    servers::{Kind, Link, MySqlAddress, Server},
    table::{Line, markdown, median},
};
use rows::{Bench, ROWS};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn setting(name: &str, default: u32) -> Result<u32, String> {
    match env::var(name) {
        Ok(text) if !text.is_empty() => {
            text.parse().ok().filter(|n| *n > 0).ok_or(format!("{name} is not a number above 0"))
        }
        _ => Ok(default),
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let names: Vec<_> = env::args().skip(1).collect();
    if let Some(unknown) = names.iter().find(|name| !ROWS.iter().any(|row| row.name == **name)) {
        let known: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        return Err(format!("no row is called {unknown}; there are {}", known.join(" ")).into());
    }
    let start = Instant::now();
    let mut bench = prepare()?;
    let _pinned = bench.mysqld.map(|pid| Pinned::new(pid, bench.cores.others)).transpose()?;
    pin_self(bench.cores.others)?;
    let version = bench.mysql.query("SELECT @@version")?.concat().concat();
    let missing_engine = match bench.start(Kind::Eiows, bench.link) {
        Ok(_) => {
            bench.kinds.insert(3, Kind::Eiows);
            None
        }
        Err(e) => Some(e.to_string()),
    };
    let (lines, is_whole) = measure(&mut bench, &names, start);
    for kind in Kind::ALL {
        for link in Link::ALL {
            bench.drop_database(kind, link)?;
        }
    }
    println!("{}", markdown(&lines, &bench.kinds));
    println!(
        "{} rounds, windows of {} s, {:.0} minutes; MySQL {version} over {}; each server on one core (also \
         its sends), generator and mysqld on another. Others took {:.0} % of the server's core and {:.0} % of \
         the other meanwhile (medians of windows).",
        bench.rounds,
        bench.seconds,
        start.elapsed().as_secs_f64() / 60.0,
        bench.link,
        100.0 * median(&bench.noise[0]),
        100.0 * median(&bench.noise[1]),
    );
    if let Some(reason) = missing_engine {
        let error = reason.lines().find(|line| line.trim_start().starts_with("Error"));
        println!(
            "\nWithout the engine eiows, which is not there: {}",
            error.unwrap_or("it did not start").trim()
        );
    }
    if is_whole { Ok(()) } else { Err("the table is not whole".into()) }
}

/// Reads the settings and connects to MySQL.
fn prepare() -> Result<Bench, Box<dyn Error>> {
    let (rounds, seconds) = (setting("BENCH_ROUNDS", 5)?, setting("BENCH_SECONDS", 4)?);
    let url = env::var("TEST_MYSQL_URL").map_err(|_| "TEST_MYSQL_URL is not set: use make bench")?;
    let link = match env::var("BENCH_TLS").as_deref() {
        Ok("on") => Link::Tls,
        Ok("off" | "") | Err(_) => Link::Tcp,
        Ok(_) => return Err("BENCH_TLS is neither on nor off".into()),
    };
    let mut mysql = MySql::connect(&url)?;
    let socket = mysql.query("SELECT @@socket")?.concat().concat();
    Ok(Bench {
        mysqld: pid(&mut mysql),
        address: MySqlAddress { url, socket },
        link,
        mysql,
        cores: Cores::choose()?,
        rounds: rounds as usize,
        seconds: f64::from(seconds),
        kinds: vec![Kind::Georoom, Kind::Node, Kind::Naive, Kind::Floor],
        files: raise_open_files() as usize,
        generator: Generator::new()?,
        noise: [Vec::new(), Vec::new()],
    })
}

/// Measures the named rows, or all of them. Returns whether every one could be measured.
fn measure(bench: &mut Bench, names: &[String], start: Instant) -> (Vec<Line>, bool) {
    let mut lines: Vec<Line> = Vec::new();
    let mut is_whole = true;
    for row in ROWS.iter().filter(|row| names.is_empty() || names.iter().any(|name| name == row.name)) {
        eprintln!("{} at {:.0} s", row.name, start.elapsed().as_secs_f64());
        let measured = (row.measure)(bench);
        bench.generator.clear();
        match measured {
            Ok(measured) => lines.extend(measured),
            // The other rows are kept.
            Err(e) => {
                is_whole = false;
                lines.push(Line::new(format!("{}: {e}", row.name), 0, Vec::new()));
            }
        }
    }
    (lines, is_whole)
}

/// Returns the process of mysqld, if it runs on this machine.
fn pid(mysql: &mut MySql) -> Option<u32> {
    let paths = mysql.query("SELECT @@datadir, @@pid_file").ok()?.concat();
    let path = std::path::Path::new(paths.first()?).join(paths.get(1)?);
    let pid = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    std::path::Path::new(&format!("/proc/{pid}")).exists().then_some(pid)
}

impl Bench {
    /// Starts a server with an empty database.
    pub fn start(&mut self, kind: Kind, link: Link) -> Result<Server, Box<dyn Error>> {
        self.drop_database(kind, link)?;
        if let Some(database) = kind.database(link) {
            self.mysql.query(&format!("CREATE DATABASE {database}"))?;
        }
        Ok(Server::start(kind, &self.address, link, self.cores)?)
    }

    fn drop_database(&mut self, kind: Kind, link: Link) -> Result<(), Box<dyn Error>> {
        if let Some(database) = kind.database(link) {
            self.mysql.query(&format!("DROP DATABASE IF EXISTS {database}"))?;
        }
        Ok(())
    }
}
