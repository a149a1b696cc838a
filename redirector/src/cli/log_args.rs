//! How a long-running command logs.

use clap::{Args, ValueEnum};

use crate::{
    agent,
    cli::{exit::Exit, io::Env},
};

/// Level and format of the log.
#[derive(Args, Debug)]
pub(crate) struct LogArgs {
    /// Log level: error, warn, info, debug, trace, or a filter such as redirector::dns=debug
    #[arg(long, value_name = "LEVEL", env = "REDIRECTOR_LOG", default_value = "info")]
    log_level: String,
    /// Log format
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        env = "REDIRECTOR_LOG_FORMAT",
        default_value_t = LogFormat::Text
    )]
    log_format: LogFormat,
}

impl LogArgs {
    /// Begins to log.
    pub(crate) fn start(&self, env: &Env<'_>) -> anyhow::Result<()> {
        let as_json = self.log_format == LogFormat::Json;
        agent::start_logging(&self.log_level, as_json, env.variable)
            .map_err(|error| Exit::Usage.because(error.to_string()))
    }
}

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Lines of text
    Text,
    /// One JSON object per line
    Json,
}
