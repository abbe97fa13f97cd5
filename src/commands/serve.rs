//! `simusage serve`

use std::process::ExitCode;

use clap::Args;

use crate::config::Config;
use crate::http;

/// Options of `serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simusage serve
  simusage serve --listen 127.0.0.1:9000
  simusage serve --listen :8000 --allow-anonymous
  simusage serve --log-format json

On SIGTERM or SIGINT, the server finishes the requests in flight and exits. [serve] in config.toml has more settings.")]
pub struct ServeArgs {
    /// Address and port to listen on [default: serve.listen in the settings]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Accept unauthenticated requests on any address until the first token is created
    #[arg(long)]
    pub allow_anonymous: bool,
}

pub(super) async fn run(args: &ServeArgs, config: &Config) -> anyhow::Result<ExitCode> {
    http::serve(config, args.allow_anonymous).await?;
    Ok(ExitCode::SUCCESS)
}
