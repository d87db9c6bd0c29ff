//! Standard output is data, standard error is progress and logs.

use std::io::Write as _;

use serde::Serialize;

use crate::{cli::Format, failure::Failure};

/// Writes data to standard output. A closed pipe (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::from_error("write to standard output", &error))
        }
        _ => Ok(()),
    }
}

/// Writes a line for people to standard error.
pub(crate) fn note(text: &str) {
    // Where standard error is closed nobody is left to tell.
    let _unheard = writeln!(anstream::stderr(), "{text}");
}

/// Writes a line with the time of day to standard error.
pub(crate) fn say(text: &str) {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (hours, minutes, seconds) = (since / 3600 % 24, since / 60 % 60, since % 60);
    note(&format!("{hours:02}:{minutes:02}:{seconds:02}Z {text}"));
}

/// Prints data for machines, or `text` for people.
pub(crate) fn print_as<T: Serialize>(
    format: Format,
    data: &T,
    text: impl FnOnce(bool) -> String,
) -> Result<(), Failure> {
    match format {
        Format::Text => print(&text(false)),
        Format::Wide => print(&text(true)),
        Format::Json => {
            let json = serde_json::to_string_pretty(data)
                .map_err(|error| Failure::from_error("write JSON", &error))?;
            print(&(json + "\n"))
        }
        Format::Yaml => {
            let yaml = serde_yaml::to_string(data)
                .map_err(|error| Failure::from_error("write YAML", &error))?;
            print(&yaml)
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
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
