//! How results are written: JSON lines, times, counts, rates.

use std::borrow::Cow;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use lastword::core::json;
use lastword::core::value::Record;
use serde_json::Value;

use super::failure::Failure;

/// A record's value for output.
pub(super) fn value_of(record: &Record) -> Result<Box<serde_json::value::RawValue>, Failure> {
    let line = json_line(&json::record_to_string(record)?).into_owned();
    Ok(serde_json::value::RawValue::from_string(line).expect("invariant: it is valid JSON"))
}

/// One record as a JSON line, fields as stored.
pub(super) fn record_line(
    table: &str,
    key: &str,
    record: &Record,
    deleted: bool,
) -> Result<String, Failure> {
    let (table, key) = (Value::from(table), Value::from(key));
    let mark = if deleted { r#","deleted":true"# } else { "" };
    let value = json::record_to_string(record)?;
    let line = format!(r#"{{"table":{table},"key":{key},"value":{value}{mark}}}"#);
    Ok(json_line(&line).into_owned())
}

/// Text for people, with control characters escaped: keys, fields and messages come from others,
/// and a terminal obeys what it is sent.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().map(|c| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    });
    Cow::Owned(escaped.collect())
}

/// JSON with the control characters escaped that JSON lets pass; they only occur inside strings.
pub(super) fn json_line(line: &str) -> Cow<'_, str> {
    if !line.contains(char::is_control) {
        return Cow::Borrowed(line);
    }
    let escaped = line.chars().map(|c| match c.is_control() {
        true => format!("\\u{:04x}", u32::from(c)),
        false => c.to_string(),
    });
    Cow::Owned(escaped.collect())
}

/// `1 batch`, `2 batches`.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", HumanCount(number), if number == 1 { one } else { many })
}

pub(super) fn batches(number: u64) -> String {
    counted(number, "batch", "batches")
}

pub(super) fn records(number: u64) -> String {
    counted(number, "record", "records")
}

/// A short duration for people.
pub(super) fn took(elapsed: Duration) -> String {
    let ms = elapsed.as_secs_f64() * 1000.0;
    match ms {
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1000.0),
    }
}

/// Per second; of nothing it is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
pub(super) fn rate(number: u64, elapsed: Duration) -> u64 {
    (number as f64 / elapsed.as_secs_f64().max(1e-6)) as u64
}

/// `23,311 records in 1.20 s (19,425 records/s)`.
pub(super) fn records_and_rate(number: u64, elapsed: Duration) -> String {
    let per_second = HumanCount(rate(number, elapsed));
    format!("{} in {} ({per_second} records/s)", records(number), took(elapsed))
}

/// A time of day, UTC; with the day if it is not today.
pub(super) fn clock(time_ms: i64) -> String {
    let (seconds, day) = (time_ms.div_euclid(1000), time_ms.div_euclid(86_400_000));
    let of_day = seconds.rem_euclid(86_400);
    let time = format!("{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60);
    if day == lastword::now_ms().div_euclid(86_400_000) {
        return time;
    }
    let (year, month, day) = civil(day);
    format!("{year:04}-{month:02}-{day:02} {time}")
}

/// Year, month and day of a day number since 1970-01-01 in the proleptic Gregorian calendar.
/// Source: H. Hinnant, "chrono-compatible low-level date algorithms".
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// `3 min ago`.
pub(super) fn ago(time_ms: i64) -> String {
    let seconds = lastword::now_ms().saturating_sub(time_ms).max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// A progress bar on stderr; silent where stderr is no terminal.
pub(super) fn progress(total: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let template = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
    let style = ProgressStyle::with_template(template).expect("invariant: the template is valid");
    bar.set_style(style);
    bar.set_message(what);
    bar
}

/// Bytes read or written so far, on stderr; silent where stderr is no terminal.
pub(super) fn bytes_progress() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{msg} {bytes} {bytes_per_sec}");
    bar.set_style(style.expect("invariant: the template is valid"));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times in `history` are dates people compare with their own calendar.
    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(-1), (1969, 12, 31));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_781), (2026, 11, 24));
        assert_eq!(clock(951_827_696_000), "2000-02-29 12:34:56");
    }

    /// R8.1. A key or message of another member could move the cursor, recolour the screen or hide
    /// lines of whoever listed it: a terminal obeys control characters.
    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(plain("n1 über 日本"), "n1 über 日本");
        assert_eq!(plain("a\u{1b}[2J\r\n\u{9b}b"), r"a\u{1b}[2J\r\n\u{9b}b");
        let record = json::parse_record("{\"a\":\"\u{9b}2J\u{7f}\"}").expect("a record");
        let line = record_line("t", "k\u{9b}", &record, false).expect("it is text");
        assert!(!line.contains(char::is_control), "{line:?}");
        let read: serde_json::Value = serde_json::from_str(&line).expect("it stays JSON");
        assert_eq!(
            (&read["key"], &read["value"]["a"]),
            (&"k\u{9b}".into(), &"\u{9b}2J\u{7f}".into())
        );
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(batches(1), "1 batch");
        assert_eq!(records(23_311), "23,311 records");
        assert_eq!(took(Duration::from_micros(900)), "0.9 ms");
        assert_eq!(took(Duration::from_millis(1234)), "1.23 s");
        assert_eq!(rate(500, Duration::from_millis(250)), 2000);
    }
}
