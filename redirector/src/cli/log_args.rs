//! How a long-running command logs.

use clap::{Args, ValueEnum};

/// Level and format of the log.
#[derive(Args, Debug)]
pub(crate) struct LogArgs {
    /// Log level: error, warn, info, debug, trace, or a filter such as redirector::dns=debug
    #[arg(long, value_name = "LEVEL", env = "REDIRECTOR_LOG", default_value = "info")]
    pub(crate) log_level: String,
    /// Log format
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        env = "REDIRECTOR_LOG_FORMAT",
        default_value_t = LogFormat::Text
    )]
    pub(crate) log_format: LogFormat,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines of text
    Text,
    /// One JSON object per line
    Json,
}
