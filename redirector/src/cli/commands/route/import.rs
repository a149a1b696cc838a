//! `route import` and `route export`.

use std::{
    convert::Infallible,
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::diff::print_diff;
use crate::{
    cli::{
        context::Context,
        exit::Exit,
        io::Env,
        output::{Format, OutputArgs},
    },
    control::{
        Client,
        api::{self, Export as Exported, ImportRequest},
    },
    route::{self, RawRoute, export},
};

/// Larger than any list of routes that fits into a pool.
const LARGEST_FILE: u64 = 32 << 20;

/// How often the progress of an import is reported.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// `route import`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector route import executor-private-dns.yaml --dry-run
  redirector route import executor-private-dns.yaml
  redirector route export | ssh other-host redirector route import -

Reads `executorPrivateDNS.routes` (source, destination, resolverIP) out of a larger YAML file, \
the [[routes]] of a TOML file, or JSON. Imports all routes or none.")]
pub(crate) struct Import {
    /// The file; `-` is standard input
    file: PathBuf,
    /// Print the difference, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove routes of earlier imports and of the command line that are not in this file. Refused
    /// if the configuration file has a route that is not in it
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl Import {
    pub(super) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let text = read(env, &self.file)?;
        let parsed = route::import::parse_named(&self.file, &text)?;
        if let Some(warning) =
            route::import::old_wildcards_warning(&self.file, &parsed.old_wildcards)
        {
            env.warn(&warning)?;
        }
        let routes = parsed.routes.iter().map(RawRoute::from).collect();
        let request = ImportRequest { routes, replace: self.replace, dry_run: self.dry_run };
        let imported = context.ask(async |client| {
            let progress = report_progress(&client, env.err);
            tokio::select! {
                imported = client.import(&request) => imported,
                never = progress => match never {},
            }
        })?;
        self.output.print(env, &imported, |env| print_diff(env, &imported))?;
        for warning in &imported.warnings {
            env.warn(warning)?;
        }
        Ok(Exit::Done)
    }
}

/// Writes how many routes are live, every few seconds, as long as an import takes.
async fn report_progress(client: &Client, err: &mut dyn Write) -> Infallible {
    loop {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        // A failure is for the import itself to report.
        let Ok(progress) = client.progress().await else { continue };
        let api::Progress { routes, live, waiting, .. } = progress;
        let waits = match waiting {
            0 => String::new(),
            some => format!("; {some} wait for the answer about their destination"),
        };
        let _ = writeln!(err, "redirector: {live} of {routes} routes are live{waits}");
    }
}

fn read(env: &mut Env<'_>, file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        env.input.take(LARGEST_FILE + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(file)
            .and_then(|opened| opened.take(LARGEST_FILE + 1).read_to_string(&mut text))
    };
    let read = read.with_context(|| format!("failed to read {}", file.display()))?;
    if read as u64 > LARGEST_FILE {
        return Err(Exit::Usage.because(format!(
            "{} is larger than {} MiB",
            file.display(),
            LARGEST_FILE >> 20
        )));
    }
    Ok(text)
}

/// `route export`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector route export > routes.toml
  redirector route export -o json")]
pub(crate) struct Export {
    /// Output format
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        value_name = "FORMAT",
        default_value_t = ExportFormat::Toml
    )]
    format: ExportFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// The `[[routes]]` of a configuration file
    Toml,
    /// One JSON object
    Json,
    /// The same as YAML
    Yaml,
}

impl Export {
    pub(super) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let exported: Exported = context.ask(async |client| client.export().await)?;
        let format = match self.format {
            ExportFormat::Toml => Format::Table,
            ExportFormat::Json => Format::Json,
            ExportFormat::Yaml => Format::Yaml,
        };
        let toml = export::export(&exported.routes, export::Format::Toml);
        OutputArgs { format }.print(env, &exported, |env| write!(env.out, "{toml}"))?;
        Ok(Exit::Done)
    }
}
