//! The command line: reads flags and commands, then serves, migrates or prints a token.

use std::{
    env,
    error::Error,
    io::{self, Write},
    ops::RangeInclusive,
    panic::{self, AssertUnwindSafe},
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use clap::{Arg, ArgAction, ArgMatches, Command};
use georoom::{
    config::{Config, Invalid, RESERVED, SETTINGS},
    domain::{
        id::UserId,
        time::Timestamp,
        token::{Keys, Token},
    },
    server::{Server, migrate},
    telemetry,
};
use tokio::signal::unix::{SignalKind, signal};

/// The time that the end waits for the runtime's blocking threads. Only queries that nobody waits for can still run
/// there.
const BLOCKING_TIMEOUT: Duration = Duration::from_millis(100);

/// The number of tasks that run before the runtime checks the network again. With tokio's default of 61 a caller with
/// little to do waits long beside a caller with much.
const EVENT_INTERVAL: u32 = 16;

/// The range of times that a minted token may be valid.
const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10 * 366 * 24 * 3600);

fn main() -> ExitCode {
    let matches = command().get_matches();
    // Each connection is a file. If the limit cannot be raised, the server goes on with the present one.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().event_interval(EVENT_INTERVAL).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            telemetry::print_error(format!("georoom: no threads: {e}"));
            return ExitCode::FAILURE;
        }
    };
    // The panic hook has logged the panic. The log must be written before the process ends.
    let ended = panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(&matches))))
        .unwrap_or_else(|_| Err("it panicked; its log has the place".into()));
    runtime.shutdown_timeout(BLOCKING_TIMEOUT);
    telemetry::finish();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            telemetry::print_error(format!("georoom: {e}"));
            ExitCode::FAILURE
        }
    }
}

fn command() -> Command {
    let flags = SETTINGS.iter().filter(|setting| !setting.is_secret).map(|setting| {
        let default = match setting.default {
            "" => String::new(),
            default => format!(" [default: {default}]"),
        };
        Arg::new(setting.name)
            .long(setting.name.to_ascii_lowercase().replace('_', "-"))
            .value_name("VALUE")
            .global(true)
            .help(format!("{} [env: {}]{default}", setting.help, setting.name))
    });
    Command::new("georoom")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Real-time location sharing: a location is a room")
        .after_help(format!(
            "Every flag is also an environment variable; an empty one counts as unset.\n\
             Not built yet, and refused when set: {}.",
            RESERVED.join(", ")
        ))
        .args(flags)
        .subcommand(
            Command::new("serve")
                .about("Migrate the database and serve until SIGTERM or SIGINT (the default)"),
        )
        .subcommand(Command::new("migrate").about("Migrate the database and exit"))
        .subcommand(
            Command::new("token")
                .about("Print a JWT signed with the first JWT_SECRET, for development")
                .arg(
                    Arg::new("user")
                        .long("user")
                        .value_name("ID")
                        .required(true)
                        .value_parser(|text: &str| text.parse::<UserId>().map_err(|e| e.detail))
                        .help("Id of the user: an integer from 0 to 2^53-1"),
                )
                .arg(Arg::new("name").long("name").value_name("NAME").help("Name of the user"))
                .arg(
                    Arg::new("admin")
                        .long("admin")
                        .action(ArgAction::SetTrue)
                        .help("Make the user an admin, who may do everything"),
                )
                .arg(
                    Arg::new("ttl")
                        .long("ttl")
                        .value_name("TIME")
                        .value_parser(ttl)
                        .default_value("1h")
                        .help("How long the token is valid, up to 10 years"),
                ),
        )
}

fn ttl(text: &str) -> Result<Duration, &'static str> {
    let ttl = humantime::parse_duration(text).ok().filter(|ttl| TTL.contains(ttl));
    ttl.ok_or("must be a time from 1s to 10y, such as 1h")
}

async fn run(matches: &ArgMatches) -> Result<(), Box<dyn Error>> {
    let flag = |name: &str| matches.try_get_one::<String>(name).ok().flatten().cloned();
    let config = Config::load(flag, |name| env::var(name))?;
    if let Some(("token", matches)) = matches.subcommand() {
        // The log is not started yet, so only the token goes to standard output.
        let token = mint(config.auth.keys.as_ref(), matches)?;
        let written = writeln!(io::stdout(), "{token}");
        return Ok(written.map_err(|e| Invalid::new("standard output", e.to_string()))?);
    }
    telemetry::start(config.log.format, &config.log.filter)
        .map_err(|e| Invalid::new("standard output", e.to_string()))?;
    match matches.subcommand_name() {
        Some("migrate") => Ok(migrate(&config).await?),
        _ => serve(config).await,
    }
}

fn mint(keys: Option<&Keys>, matches: &ArgMatches) -> Result<String, Invalid> {
    let ttl: Duration = *matches.get_one("ttl").expect("has a default");
    let token = Token {
        user: *matches.get_one("user").expect("is required"),
        name: matches.get_one("name").cloned(),
        is_admin: matches.get_flag("admin"),
        expires_at: Timestamp::from_millis(Timestamp::now().as_millis() + ttl.as_millis() as i64),
    };
    keys.and_then(|keys| keys.mint(&token))
        .ok_or_else(|| Invalid::new("JWT_SECRET", "is not set, and a token is minted with it"))
}

async fn serve(config: Config) -> Result<(), Box<dyn Error>> {
    // Signals are handled before the ports are taken, so that none is lost afterwards.
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|e| Invalid::new("SIGTERM", e.to_string()))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| Invalid::new("SIGINT", e.to_string()))?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let mut stop = pin!(stop);
    let server = tokio::select! {
        server = Server::bind(config) => server?,
        () = &mut stop => return Ok(()),
    };
    server.greet();
    Ok(server.serve(stop).await?)
}
