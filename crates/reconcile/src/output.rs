//! Standard output is data, standard error is progress and logs.

use std::{fmt, io::Write as _};

use serde::Serialize;
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::{cli::Format, failure::Failure};

/// Writes data to standard output. A closed pipe (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_open(text).map(drop)
}

/// The same; false where nobody reads any more.
pub(crate) fn print_open(text: &str) -> Result<bool, Failure> {
    let mut stdout = anstream::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::from_error("write to standard output", &error)),
        Ok(()) => Ok(true),
    }
}

/// Writes a line for people to standard error.
pub(crate) fn note(text: &str) {
    // Where standard error is closed nobody is left to tell.
    let _unheard = writeln!(anstream::stderr(), "{text}");
}

/// Writes a line with the time of day to standard error.
pub(crate) fn say(text: &str) {
    note(&format!("{} {text}", clock()));
}

/// Prints data for machines, or `text` for people.
pub(crate) fn print_as<T: Serialize>(
    format: Format,
    data: &T,
    text: impl FnOnce(bool) -> String,
) -> Result<(), Failure> {
    print(&as_text(format, data, text)?)
}

/// Data for machines, or `text` for people.
pub(crate) fn as_text<T: Serialize>(
    format: Format,
    data: &T,
    text: impl FnOnce(bool) -> String,
) -> Result<String, Failure> {
    match format {
        Format::Text => Ok(text(false)),
        Format::Wide => Ok(text(true)),
        Format::Json => serde_json::to_string_pretty(data)
            .map(|json| json + "\n")
            .map_err(|error| Failure::from_error("write JSON", &error)),
        Format::Yaml => {
            serde_yaml::to_string(data).map_err(|error| Failure::from_error("write YAML", &error))
        }
    }
}

/// Logs to standard error. `RECONCILE_LOG` takes a filter of `tracing-subscriber`.
///
/// bollard, hyper and russh never log below `info`: bollard logs payloads at debug, secrets included.
pub(crate) fn log_to_stderr(verbose: u8) {
    let default = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let asked = std::env::var("RECONCILE_LOG").unwrap_or_else(|_| default.to_owned());
    let mut filter = tracing_subscriber::EnvFilter::new(asked);
    let caps = reconcile_swarm::LOG_DIRECTIVES.iter().chain(&["russh=warn"]);
    for directive in caps.filter_map(|directive| directive.parse().ok()) {
        filter = filter.add_directive(directive);
    }
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match verbose {
        // Among lines for people a word of warning looks like them.
        0 if std::env::var_os("RECONCILE_LOG").is_none() => {
            log.with_ansi(false).event_format(Calm).init();
        }
        _ => log.init(),
    }
}

/// Log entries as [`say`] writes lines.
struct Calm;

impl<S, N> FormatEvent<S, N> for Calm
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let word =
            if *event.metadata().level() == tracing::Level::ERROR { "error" } else { "warning" };
        write!(writer, "{} {word}: ", clock())?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// The time of day.
fn clock() -> String {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (hours, minutes, seconds) = (since / 3600 % 24, since / 60 % 60, since % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}Z")
}
