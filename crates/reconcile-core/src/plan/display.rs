//! A plan as text for people: stable, and readable without colour.

use std::fmt::Write as _;

use super::{Held, Impact, Plan, Step, Verb};

/// The plan as text. `details` shows every changed field.
pub fn text(plan: &Plan, details: bool) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_plan(&mut text, plan, details);
    text
}

fn write_plan(text: &mut String, plan: &Plan, details: bool) -> std::fmt::Result {
    if plan.is_converged() {
        writeln!(text, "Cluster {} is as desired: nothing to do.", plan.cluster)?;
        return write_warnings(text, plan);
    }
    let paused: Vec<_> = plan.paused().collect();
    let queued: Vec<_> = plan.queued().collect();
    let by_pause = |held: &&Held| paused.iter().any(|step| step.object == held.object);
    let stalled: Vec<_> = plan.stalled().filter(|held| !by_pause(held)).collect();
    write!(text, "Plan for cluster {}: {}", plan.cluster, counted(plan.steps.len(), "step"))?;
    let impacts = [Impact::Reload, Impact::Restart, Impact::Switchover].map(|impact| {
        let steps = plan.steps.iter().filter(|step| step.impact == impact).count();
        (steps, impact.word())
    });
    let mut some = impacts.iter().filter(|(steps, _)| *steps > 0).peekable();
    if some.peek().is_some() {
        let words: Vec<_> = some.map(|(steps, word)| counted(*steps, word)).collect();
        write!(text, " ({})", words.join(", "))?;
    }
    if !queued.is_empty() {
        write!(text, ", {} queued", queued.len())?;
    }
    if !paused.is_empty() {
        write!(text, ", {} held by the pause", counted(paused.len(), "step"))?;
    }
    writeln!(text, ", {} held.", stalled.len())?;
    let width = plan.steps.len().max(paused.len()).to_string().len();
    for step in &plan.steps {
        write_step(text, step, width, false, details)?;
    }
    if let Some(reason) = paused.first().and_then(|step| plan.reason(&step.object)) {
        writeln!(text, "\nWould be done, were it not {reason}")?;
        for step in &paused {
            write_step(text, step, width, true, details)?;
        }
    }
    let restarts = &plan.without_pause.as_deref().unwrap_or(plan).restarts;
    if !restarts.is_empty() {
        let restarts: Vec<_> = restarts.iter().map(ToString::to_string).collect();
        writeln!(text, "\nThen: restarts of PostgreSQL, one by one: {}", restarts.join(", "))?;
    }
    if !queued.is_empty() {
        writeln!(text, "\nQueued, after the steps above:")?;
        for held in queued {
            writeln!(text, "  . {}: {}", held.object, held.reason)?;
        }
    }
    if !stalled.is_empty() {
        writeln!(text, "\nHeld:")?;
        for held in stalled {
            writeln!(text, "  ? {}: {}", held.object, held.reason)?;
        }
    }
    write_warnings(text, plan)
}

fn write_warnings(text: &mut String, plan: &Plan) -> std::fmt::Result {
    for warning in &plan.warnings {
        writeln!(text, "\nWarning: {warning}")?;
    }
    Ok(())
}

fn write_step(
    text: &mut String,
    step: &Step,
    width: usize,
    paused: bool,
    details: bool,
) -> std::fmt::Result {
    let mark = match step.verb {
        Verb::Create => '+',
        Verb::Update => '~',
        Verb::Start | Verb::Join | Verb::Restart | Verb::HandOver => '>',
        Verb::Await => '.',
        Verb::Claim => '=',
        Verb::Remove | Verb::Stop => '-',
    };
    write!(
        text,
        "  {:>width$} {mark} {} {}: {}",
        step.id,
        step.verb.word(),
        step.object,
        step.reason
    )?;
    if step.impact != Impact::None {
        write!(text, " [{}]", step.impact.word())?;
    }
    if paused {
        write!(text, " [held by the pause]")?;
    }
    writeln!(text)?;
    if details {
        for change in &step.changes {
            let field = &change.field;
            match (&change.from, &change.to) {
                (None, Some(to)) => writeln!(text, "  {:>width$}     + {field}: {to}", "")?,
                (Some(from), None) => writeln!(text, "  {:>width$}     - {field}: {from}", "")?,
                (Some(from), Some(to)) => {
                    writeln!(text, "  {:>width$}     ~ {field}: {from} -> {to}", "")?;
                }
                (None, None) => {}
            }
        }
    }
    Ok(())
}

/// `1 step`, `2 steps`.
pub fn counted(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}
