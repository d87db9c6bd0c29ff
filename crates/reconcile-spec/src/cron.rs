//! Five-field cron expressions of maintenance windows. No clock here: the caller brings the
//! broken-down local time.

use std::collections::BTreeSet;
use std::fmt;

/// A cron expression of five fields: minute, hour, day of month, month, day of week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    text: String,
    minutes: BTreeSet<u8>,
    hours: BTreeSet<u8>,
    days: BTreeSet<u8>,
    months: BTreeSet<u8>,
    weekdays: BTreeSet<u8>,
    /// Either day field restricts; if both do, a day that fits one of them fits (POSIX).
    both_days_restrict: bool,
}

/// A text that is no cron expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Other than five fields.
    #[error(
        "{text:?} has {found} fields; a cron expression has five: minute hour day month weekday"
    )]
    Fields {
        /// The refused text.
        text: String,
        /// How many fields it has.
        found: usize,
    },
    /// A field out of its range, or not understood.
    #[error("{part:?} is no {field} ({low}-{high})")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// The refused part.
        part: String,
        /// Least value.
        low: u8,
        /// Greatest value.
        high: u8,
    },
}

const MONTHS: &[&str] =
    &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// One field's name, range, and the names its values may have.
struct Field {
    name: &'static str,
    low: u8,
    high: u8,
    names: &'static [&'static str],
}

impl Field {
    fn fault(&self, part: &str) -> CronError {
        CronError::Field { field: self.name, part: part.to_owned(), low: self.low, high: self.high }
    }

    fn value(&self, text: &str) -> Option<u8> {
        let lower = text.to_ascii_lowercase();
        let named = (self.low..).zip(self.names).find(|(_, name)| **name == lower);
        let value = match named {
            Some((value, _)) => value,
            None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok()?,
            None => return None,
        };
        (self.low..=self.high).contains(&value).then_some(value)
    }

    fn parse(&self, text: &str) -> Result<BTreeSet<u8>, CronError> {
        let mut values = BTreeSet::new();
        for part in text.split(',') {
            let fault = || self.fault(part);
            let (range, step) = match part.split_once('/') {
                None => (part, None),
                Some((range, step)) => {
                    let step = step.parse::<u8>().ok().filter(|step| *step > 0);
                    (range, Some(step.ok_or_else(fault)?))
                }
            };
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (self.low, self.high),
                Some((first, last)) => {
                    (self.value(first).ok_or_else(fault)?, self.value(last).ok_or_else(fault)?)
                }
                None => {
                    let value = self.value(range).ok_or_else(fault)?;
                    // `5/15` means from 5 on in steps of 15.
                    (value, if step.is_some() { self.high } else { value })
                }
            };
            if first > last {
                return Err(fault());
            }
            values.extend((first..=last).step_by(usize::from(step.unwrap_or(1))));
        }
        Ok(values)
    }
}

impl Cron {
    /// The expression as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the expression fires in the minute of that local time: minute 0–59, hour 0–23,
    /// day of the month 1–31, month 1–12, weekday 0–6 from Sunday.
    pub fn fires(&self, minute: u8, hour: u8, day: u8, month: u8, weekday: u8) -> bool {
        self.fires_on(day, month, weekday)
            && self.minutes.contains(&minute)
            && self.hours.contains(&hour)
    }

    /// Whether the expression fires at some time of that local day.
    pub fn fires_on(&self, day: u8, month: u8, weekday: u8) -> bool {
        let day_of_month = self.days.contains(&day);
        let day_of_week = self.weekdays.contains(&weekday);
        let fitting_day = if self.both_days_restrict {
            day_of_month || day_of_week
        } else {
            day_of_month && day_of_week
        };
        fitting_day && self.months.contains(&month)
    }

    /// The hours and minutes at which it fires on such a day, in order.
    pub fn times(&self) -> impl Iterator<Item = (u8, u8)> + '_ {
        self.hours.iter().flat_map(|hour| self.minutes.iter().map(|minute| (*hour, *minute)))
    }
}

impl std::str::FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(CronError::Fields { text: text.to_owned(), found: fields.len() });
        };
        let field = |name, low, high, names| Field { name, low, high, names };
        let mut weekdays = field("day of the week", 0, 7, WEEKDAYS).parse(weekday)?;
        // Both 0 and 7 are Sunday.
        if weekdays.remove(&7) {
            weekdays.insert(0);
        }
        Ok(Self {
            text: text.to_owned(),
            minutes: field("minute", 0, 59, &[]).parse(minute)?,
            hours: field("hour", 0, 23, &[]).parse(hour)?,
            days: field("day of the month", 1, 31, &[]).parse(day)?,
            months: field("month", 1, 12, MONTHS).parse(month)?,
            weekdays,
            both_days_restrict: !day.starts_with('*') && !weekday.starts_with('*'),
        })
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl serde::Serialize for Cron {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}
