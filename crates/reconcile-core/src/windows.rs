//! Maintenance windows: whether one is open at a moment, and when the next one opens.
//!
//! A window opens at the local times of its time zone that fit its cron expression. A time that the
//! clocks skip in spring comes as much later as they jump; one that they repeat in autumn counts once.

use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use reconcile_spec::{Cron, valid::Window};

/// Windows that follow each other without a gap are one; so many of them are for ever.
const CHAIN: usize = 64;
/// A leap day on a given weekday comes within 40 years.
const HORIZON_DAYS: u32 = 40 * 366;

/// A moment, in seconds since 1970, as people write it: `2026-11-22 14:30Z`.
pub fn written(moment: u64) -> String {
    timestamp(moment).map_or_else(|| "-".to_owned(), |at| at.strftime("%F %H:%MZ").to_string())
}

/// Whether one of the windows is open `now`, in seconds since 1970.
pub fn is_open(windows: &[Window], now: u64) -> bool {
    let Some(now) = timestamp(now) else { return false };
    windows.iter().any(|window| closing(window, now).is_some())
}

/// Until when one of the windows is open, in seconds since 1970; None where none is, or where they
/// follow each other without an end.
pub fn closes(windows: &[Window], now: u64) -> Option<u64> {
    let now = timestamp(now)?;
    let closing = |at| windows.iter().filter_map(|window| closing(window, at)).max();
    let mut end = closing(now)?;
    for _ in 0..CHAIN {
        match closing(end) {
            Some(later) => end = later,
            None => return u64::try_from(end.as_second()).ok(),
        }
    }
    None
}

/// When the first of the windows opens after `now`, in seconds since 1970.
pub fn opens(windows: &[Window], now: u64) -> Option<u64> {
    let (opens, _) = first_opening(windows, now)?;
    u64::try_from(opens.as_second()).ok()
}

/// When the first of the windows opens after `now`, in its own time zone: `Sat 2026-11-28 02:00
/// Europe/Berlin`.
pub fn next(windows: &[Window], now: u64) -> Option<String> {
    let (opens, window) = first_opening(windows, now)?;
    let local = opens.to_zoned(TimeZone::get(&window.timezone).ok()?);
    Some(format!("{} {}", local.strftime("%a %F %H:%M"), window.timezone))
}

fn first_opening(windows: &[Window], now: u64) -> Option<(Timestamp, &Window)> {
    let now = timestamp(now)?;
    let openings = windows.iter().filter_map(|window| Some((next_opening(window, now)?, window)));
    openings.min_by_key(|(opens, _)| *opens)
}

fn timestamp(seconds: u64) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
}

/// When a window that is open closes; None where it is shut, or its time zone unknown, which the
/// reading of the file refuses.
fn closing(window: &Window, now: Timestamp) -> Option<Timestamp> {
    let zone = TimeZone::get(&window.timezone).ok()?;
    let length = i64::try_from(window.duration_s).ok()?.seconds();
    let today = zone.to_datetime(now).date();
    // A day more at the start: the clocks may have been moved in between.
    let mut day = zone.to_datetime(now.checked_sub(length).ok()?).date().yesterday().ok()?;
    let mut last = None;
    while day <= today {
        for opens in openings(&window.cron, &zone, day) {
            let closes = opens.checked_add(length).ok()?;
            if opens <= now && now < closes {
                last = last.max(Some(closes));
            }
        }
        day = day.tomorrow().ok()?;
    }
    last
}

fn next_opening(window: &Window, now: Timestamp) -> Option<Timestamp> {
    let zone = TimeZone::get(&window.timezone).ok()?;
    let mut day = zone.to_datetime(now).date().yesterday().ok()?;
    for _ in 0..HORIZON_DAYS {
        let found = openings(&window.cron, &zone, day).find(|opens| *opens > now);
        if found.is_some() {
            return found;
        }
        day = day.tomorrow().ok()?;
    }
    None
}

/// The moments of a local day at which a cron expression fires, in order.
fn openings<'a>(
    cron: &'a Cron,
    zone: &'a TimeZone,
    day: Date,
) -> impl Iterator<Item = Timestamp> + 'a {
    let part = |value: i8| u8::try_from(value).unwrap_or(0);
    let weekday = part(day.weekday().to_sunday_zero_offset());
    let fires = cron.fires_on(part(day.day()), part(day.month()), weekday);
    let times = cron.times().filter(move |_| fires);
    times.filter_map(move |(hour, minute)| {
        let local = day.at(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0);
        zone.to_ambiguous_timestamp(local).compatible().ok()
    })
}
