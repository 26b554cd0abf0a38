//! The command line: which settings were given by flag, and what to do.

use std::{
    env::{self, VarError},
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use clap::{Arg, ArgMatches, Command};
use georoom::{
    config::{Config, Invalid, SETTINGS, Source},
    server::{Server, migrate},
    telemetry,
};
use tokio::signal::unix::{SignalKind, signal};

/// What is still running off the runtime's threads at the end is a query nobody waits for.
const LEFT_BEHIND: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let matches = command().get_matches();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("georoom: no threads: {e}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(run(&matches));
    runtime.shutdown_timeout(LEFT_BEHIND);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("georoom: {e}");
            ExitCode::FAILURE
        }
    }
}

fn command() -> Command {
    let flags = SETTINGS.iter().filter(|setting| !setting.secret && !setting.missing).map(|setting| {
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
    let missing: Vec<_> =
        SETTINGS.iter().filter(|setting| setting.missing).map(|setting| setting.name).collect();
    Command::new("georoom")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Real-time location sharing: a location is a room")
        .after_help(format!(
            "Every flag is also an environment variable; an empty one counts as unset.\n\
             Not built yet, and refused when set: {}.",
            missing.join(", ")
        ))
        .args(flags)
        .subcommand(
            Command::new("serve")
                .about("Migrate the database and serve until SIGTERM or SIGINT (the default)"),
        )
        .subcommand(Command::new("migrate").about("Migrate the database and exit"))
        .subcommand(Command::new("token").about("Mint a JWT for development (not built yet)").hide(true))
}

async fn run(matches: &ArgMatches) -> Result<(), Invalid> {
    let config = Config::load(|name| {
        let flag = matches.try_get_one::<String>(name).ok().flatten();
        Ok(match (flag, env::var(name)) {
            (Some(value), _) => Some((Source::Flag, value.clone())),
            (None, Ok(value)) => Some((Source::Environment, value)),
            (None, Err(VarError::NotPresent)) => None,
            (None, Err(VarError::NotUnicode(_))) => return Err(Invalid::new(name, "is not UTF-8")),
        })
    })?;
    telemetry::start(config.log_format, &config.log_filter);
    match matches.subcommand_name() {
        Some("migrate") => migrate(&config).await,
        Some("token") => Err(Invalid::new("token", "this version has no authentication yet")),
        _ => serve(config).await,
    }
}

async fn serve(config: Config) -> Result<(), Invalid> {
    // Before the ports are taken: from then on a signal must find somebody.
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
    server.serve(stop).await;
    Ok(())
}
