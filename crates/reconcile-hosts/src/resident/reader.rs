//! The quick reader, `probe/quick.pl`, as a resident: what it is asked, and what becomes of its answer.

use reconcile_core::probe::ProbeRequest;

use super::{Resident, Shells};
use crate::probe::{Marks, Sections, quick};

/// What came of asking the quick reader.
pub(super) enum Quick {
    /// All but the SQL, and the marks are the known ones.
    Told(Resident, Sections),
    /// Marks are not those that are known, so there is more to tell.
    Moved(Resident),
    /// Something is not as it was asked to be.
    Odd(Resident, String),
    /// It ended, or said what is no answer.
    Gone,
}

/// Asks the quick reader, which is started where it is not.
pub(super) async fn look(
    quick: Option<Resident>,
    way: &impl Shells,
    request: &ProbeRequest,
    marks: &Marks,
) -> Quick {
    let asked = async {
        let mut quick = if let Some(quick) = quick {
            quick
        } else {
            let mut quick = Resident::open(way).await?;
            quick.ask(quick::start).await?;
            // Only now it is the reader that reads: the shell would take more than its line.
            quick.send(&quick::program()).await?;
            quick
        };
        let question = quick::question(request, &quick.next_end());
        let Some(question) = question else {
            return Some((quick, Err("a name does not fit into a line".to_owned())));
        };
        let answer = quick.ask(|_| question).await?;
        let text = String::from_utf8_lossy(&answer[..answer.len().min(300)]);
        let told = match text.strip_prefix("odd: ") {
            Some(why) => Err(why.trim_end().to_owned()),
            None => Ok(Sections::parse(&answer).ok()?),
        };
        Some((quick, told))
    };
    let Some((quick, told)) = asked.await else { return Quick::Gone };
    match told {
        Ok(sections)
            if sections.text("marks") != marks.files
                || sections.text("sockets") != marks.sockets =>
        {
            Quick::Moved(quick)
        }
        Ok(sections) => Quick::Told(quick, sections),
        Err(why) => Quick::Odd(quick, why),
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
