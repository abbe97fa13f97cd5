//! `simusage health`

use std::process::ExitCode;

use clap::Args;

use crate::config::Config;
use crate::http;

/// Options of `health`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simusage health
  simusage health --ready

It requests /livez from the server that the same settings start, at serve.metrics_listen or else at serve.listen, over
TLS if the server uses it, and prints nothing if that succeeds. The certificate is not verified.")]
pub struct HealthArgs {
    /// Request /readyz, which also needs the database
    #[arg(long)]
    pub ready: bool,
}

pub(super) async fn run(args: &HealthArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let (serve, path) = (
        config.serve.clone(),
        if args.ready { "/readyz" } else { "/livez" },
    );
    tokio::task::spawn_blocking(move || http::probe(&serve, path)).await??;
    Ok(ExitCode::SUCCESS)
}
