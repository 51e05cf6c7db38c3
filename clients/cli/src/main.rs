//! `fanfare`: the only binary. Parses, sets up tracing, runs, and reports how it ended.

mod banner;
mod check;
mod dev;
mod files;
mod identity;
mod logging;
mod manual;
mod metrics;
mod notify;
mod reach;
mod relay;
mod run;
mod settings;
mod store;
mod subscribe;
mod token;
mod types;

use std::{
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

use settings::Command;

/// glibc retains the memory of a connection flood; jemalloc returns it (see `.cargo/config.toml`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = match settings::read(std::env::args_os()) {
        Ok(Some(cli)) => cli,
        Ok(None) => return ExitCode::SUCCESS,
        Err(settings::Error::Usage(error)) => error.exit(),
        Err(error) => {
            say(format_args!("fanfare: {error}"));
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(format_args!("fanfare: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async move {
        let logs = logging::start(&cli.log)?;
        let ended = match cli.command {
            Command::Dev(args) => dev::dev(args, &logs).await,
            Command::Server(args) => run::server(args, &logs).await,
            Command::Bridge(args) => run::bridge(args, &logs).await,
            Command::Notify(args) => notify::notify(args).await,
            Command::Subscribe(args) => subscribe::subscribe(*args).await,
            Command::Relay(args) => relay::relay(*args, &logs).await,
            Command::Token(args) => token::token(&args),
            Command::Types(args) => types::types(&args),
            Command::Check(args) => check::check(&args),
            Command::Completions(args) => manual::completions(&args),
            Command::Man(args) => manual::man(&args),
        };
        logs.finish();
        ended
    });
    // Does not wait for a thread that is blocked on standard input.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("fanfare: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes a line to standard error, if it is open.
fn say(line: fmt::Arguments<'_>) {
    let _closed = writeln!(io::stderr(), "{line}");
}
