//! Fanfare, Socket.IO on Node and socketioxide, measured side by side in one run: server CPU per
//! delivery, latency, and memory per idle session.
//!
//! `audience` and `phase` say what is published to whom, `target` runs the servers, `client` loads them, `measure` asks
//! the operating system, `trial` puts them together, `report` prints. `peers`, `idle`, `connects`, `shards`, `publish`
//! and `storm` are the subjects. Nothing here knows more of Fanfare than its flags and its contract.

mod args;
mod audience;
mod binaries;
mod client;
mod connects;
mod event;
mod idle;
mod measure;
mod peers;
mod phase;
mod publish;
mod report;
mod shards;
mod storm;
mod target;
mod trial;

use clap::Parser as _;

use args::{Args, Subject};
use binaries::Binaries;
use target::Kind;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    args.check()?;
    let own = || Binaries::prepare(&[Kind::Fanfare], args.given());
    match args.subject {
        Subject::Peers => peers::run(&args).await,
        Subject::Idle => peers::run_idle(&args).await,
        Subject::Connect => {
            let kinds = args.targets();
            let binaries = Binaries::prepare(&kinds, args.given())?;
            connects::run(&binaries, &kinds, args.rounds, args.connects as usize).await
        }
        Subject::Shards => {
            let (binaries, sessions) = (own()?, args.shard_sessions as usize);
            let program = binaries.program(Kind::Fanfare)?;
            shards::run(program, &args.shards, args.rounds, sessions, args.shard_events).await
        }
        Subject::Publish => publish::run(own()?.program(Kind::Fanfare)?, args.rounds, args.seconds).await,
        Subject::Storm => {
            storm::run(&own()?, args.rounds, args.storm_sessions as usize, args.storm_missed).await
        }
    }
}
