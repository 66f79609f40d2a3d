//! Dates as signatures write them, in UTC.

const DAY_MS: u64 = 24 * 3600 * 1000;

/// `20130524`
pub(super) fn date(now_ms: u64) -> String {
    let (year, month, day) = civil(now_ms / DAY_MS);
    format!("{year:04}{month:02}{day:02}")
}

/// `20130524T000000Z`
pub(super) fn date_time(now_ms: u64) -> String {
    let seconds = now_ms % DAY_MS / 1000;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{}T{hour:02}{minute:02}{second:02}Z", date(now_ms))
}

/// Year, month and day of a day since 1970, in the Gregorian calendar. Counted in eras of 400 years
/// that begin on the first of March, so that a leap day is the last one of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leaps = day_of_era / 1460 + day_of_era / 146_096 - day_of_era / 36_524;
    let year_of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::{civil, date, date_time};

    #[test]
    fn known_days() {
        assert_eq!(date_time(0), "19700101T000000Z");
        assert_eq!(date_time(1_369_353_600_000), "20130524T000000Z");
        assert_eq!(date_time(951_782_400_000 + 86_399_999), "20000229T235959Z");
        assert_eq!(date(4_107_542_400_000), "21000301");
    }

    /// Every day of 400 years follows the one before.
    #[test]
    fn no_day_is_skipped() {
        let leap =
            |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
        let mut expected = (1970, 1, 1);
        for days in 0..146_097 {
            assert_eq!(civil(days), expected);
            let (year, month, day) = expected;
            let length = match month {
                2 => 28 + u64::from(leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == length => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
    }
}
