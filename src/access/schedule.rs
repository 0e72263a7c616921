//! When a rule holds: weekly windows on a site's own clock, with holidays. A window is a stretch of the clock on the wall, so that
//! daylight saving needs no rule of its own: an hour that does not exist is in no window, an hour that comes twice is in it twice.
//!
//! Nothing here reads a clock. A time zone's rules are looked up once, when a [`Calendar`] is made.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::types::Wall;

/// A minute of the day, `00:00` to `24:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay(u16);

/// A day of the week, or any day that is a holiday.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
    /// A holiday, whatever its day of the week.
    Holiday,
}

/// A day of one year (`2026-12-24`) or of every year (`12-24`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HolidayDate {
    /// One day.
    Once(Date),
    /// That month and day each year.
    Yearly(i8, i8),
}

/// A day or a minute on the site's clock: `2026-12-24` or `2026-12-24T18:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LocalMoment {
    /// The whole day.
    Day(Date),
    /// A moment of it.
    Moment(DateTime),
}

impl TryFrom<String> for TimeOfDay {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no time of day: use HH:MM from 00:00 to 24:00");
        let two = |part: &str| (part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse::<u16>().ok());
        let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
        let (hours, minutes) = two(hours).flatten().zip(two(minutes).flatten()).ok_or_else(wrong)?;
        let whole = hours * 60 + minutes;
        if minutes < 60 && whole <= 24 * 60 { Ok(Self(whole)) } else { Err(wrong()) }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl TryFrom<String> for HolidayDate {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no date: use YYYY-MM-DD, or MM-DD for every year");
        if text.len() == 10 {
            return text.parse().map(Self::Once).map_err(|_| wrong());
        }
        // A leap year, so that 02-29 can be a holiday where it exists.
        let date: Date = (text.len() == 5).then(|| format!("2024-{text}").parse().ok()).flatten().ok_or_else(wrong)?;
        Ok(Self::Yearly(date.month(), date.day()))
    }
}

impl fmt::Display for HolidayDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HolidayDate::Once(date) => write!(f, "{date}"),
            HolidayDate::Yearly(month, day) => write!(f, "{month:02}-{day:02}"),
        }
    }
}

impl TryFrom<String> for LocalMoment {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no day or moment: use YYYY-MM-DD or YYYY-MM-DDTHH:MM, on the site's clock");
        // What names a zone or an offset would be read as if it did not.
        let is_plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b':' | b'T'));
        match text.len() {
            10 => text.parse().map(Self::Day).map_err(|_| wrong()),
            16 | 19 if is_plain => text.parse().map(Self::Moment).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for LocalMoment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocalMoment::Day(date) => write!(f, "{date}"),
            LocalMoment::Moment(moment) => write!(f, "{moment}"),
        }
    }
}

macro_rules! as_text {
    ($($name:ident),*) => { $(
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    )* };
}
as_text!(TimeOfDay, HolidayDate, LocalMoment);

impl Day {
    fn of(weekday: Weekday) -> Self {
        match weekday {
            Weekday::Monday => Day::Mon,
            Weekday::Tuesday => Day::Tue,
            Weekday::Wednesday => Day::Wed,
            Weekday::Thursday => Day::Thu,
            Weekday::Friday => Day::Fri,
            Weekday::Saturday => Day::Sat,
            Weekday::Sunday => Day::Sun,
        }
    }
}

/// One stretch of the day, on some days. One that ends before it begins ends on the next day, and is its first day's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct WindowSettings {
    /// The days on which it begins: `mon` to `sun`, and `holiday` for days that are one.
    pub days: Vec<Day>,
    /// From this minute on.
    pub from: TimeOfDay,
    /// Up to this minute; `24:00` is the day's end.
    pub to: TimeOfDay,
}

/// A day off, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HolidaySettings {
    /// For people to read.
    pub name: String,
    /// The day: `2026-12-24`, or `12-24` for every year.
    pub date: HolidayDate,
    /// The last day where it is more than one; for days of one year only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<HolidayDate>,
}

impl HolidaySettings {
    /// Whether the day is one of it.
    pub fn covers(&self, day: Date) -> bool {
        match (self.date, self.to) {
            (HolidayDate::Once(first), Some(HolidayDate::Once(last))) => (first..=last).contains(&day),
            (HolidayDate::Once(date), _) => date == day,
            (HolidayDate::Yearly(month, date), _) => day.month() == month && day.day() == date,
        }
    }
}

/// A site's clock: its time zone and its holidays.
#[derive(Debug, Clone)]
pub struct Calendar {
    zone: TimeZone,
    holidays: Vec<HolidaySettings>,
}

impl Calendar {
    /// Looks the zone up by its IANA name; `None` when there is none of that name.
    pub fn new(zone: &str, holidays: &[HolidaySettings]) -> Option<Self> {
        Some(Self { zone: TimeZone::get(zone).ok()?, holidays: holidays.to_vec() })
    }

    /// What the clock on the site's wall says; `None` beyond the calendar's years.
    pub fn local(&self, at: Wall) -> Option<DateTime> {
        Some(self.zone.to_datetime(Timestamp::from_millisecond(at.0).ok()?))
    }

    /// The same with its offset, for people to read.
    pub fn describe(&self, at: Wall) -> String {
        let Ok(stamp) = Timestamp::from_millisecond(at.0) else { return "a moment beyond the calendar".to_owned() };
        stamp.to_zoned_datetime(self.zone.clone()).strftime("%Y-%m-%d %a %H:%M:%S %:z (%Q)").to_string()
    }

    /// The holiday's name, where the day is one.
    pub fn holiday(&self, day: Date) -> Option<&str> {
        self.holidays.iter().find(|holiday| holiday.covers(day)).map(|holiday| holiday.name.as_str())
    }

    /// When a moment of the site's clock begins. In the hour that does not exist it is moved on, in the one that comes twice it is the
    /// first.
    pub fn begins(&self, moment: LocalMoment) -> Option<Wall> {
        let local = match moment {
            LocalMoment::Day(day) => day.at(0, 0, 0, 0),
            LocalMoment::Moment(moment) => moment,
        };
        self.zone.to_timestamp(local).ok().map(|stamp| Wall(stamp.as_millisecond()))
    }

    /// When it is over: a day at its end, a moment at itself.
    pub fn ends(&self, moment: LocalMoment) -> Option<Wall> {
        match moment {
            LocalMoment::Day(day) => self.begins(LocalMoment::Day(day.tomorrow().ok()?)),
            LocalMoment::Moment(_) => self.begins(moment),
        }
    }
}

/// A weekly schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    windows: Vec<WindowSettings>,
    ignore_holidays: bool,
}

impl Schedule {
    /// With `ignore_holidays` a holiday is the day of the week that it falls on.
    pub fn new(windows: &[WindowSettings], ignore_holidays: bool) -> Self {
        Self { windows: windows.to_vec(), ignore_holidays }
    }

    /// Whether it holds at this moment; beyond the calendar it never does.
    pub fn holds(&self, calendar: &Calendar, at: Wall) -> bool {
        let Some(local) = calendar.local(at) else { return false };
        #[expect(clippy::cast_sign_loss, reason = "hours and minutes of a day are never negative")]
        let minute = local.hour() as u16 * 60 + local.minute() as u16;
        let today = local.date();
        let yesterday = today.yesterday().ok();
        self.windows.iter().any(|window| {
            let (from, to) = (window.from.0, window.to.0);
            let is_overnight = to <= from;
            let since_today = minute >= from && (minute < to || is_overnight) && self.begins_on(window, today, calendar);
            let since_yesterday = || minute < to && yesterday.is_some_and(|day| self.begins_on(window, day, calendar));
            since_today || (is_overnight && since_yesterday())
        })
    }

    fn begins_on(&self, window: &WindowSettings, day: Date, calendar: &Calendar) -> bool {
        let is_holiday = calendar.holiday(day).is_some();
        let by_weekday = !is_holiday || self.ignore_holidays;
        (by_weekday && window.days.contains(&Day::of(day.weekday()))) || (is_holiday && window.days.contains(&Day::Holiday))
    }

    /// The next moment, within two weeks, from which on it is otherwise than now.
    pub fn next_change(&self, calendar: &Calendar, at: Wall) -> Option<Wall> {
        const MINUTE_MS: i64 = 60_000;
        let now = self.holds(calendar, at);
        let first = (at.0.div_euclid(MINUTE_MS)).saturating_add(1).saturating_mul(MINUTE_MS);
        let minutes = (0..14 * 24 * 60).map(|n| Wall(first.saturating_add(n * MINUTE_MS)));
        minutes.into_iter().find(|minute| self.holds(calendar, *minute) != now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin(holidays: &[HolidaySettings]) -> Calendar {
        Calendar::new("Europe/Berlin", holidays).unwrap()
    }

    fn at(text: &str) -> Wall {
        Wall(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    fn window(days: &[Day], from: &str, to: &str) -> WindowSettings {
        let time = |text: &str| TimeOfDay::try_from(text.to_owned()).unwrap();
        WindowSettings { days: days.to_vec(), from: time(from), to: time(to) }
    }

    #[test]
    fn what_is_no_time_date_or_zone_is_refused() {
        for text in ["", "7:00", "07:60", "24:01", "25:00", "07:00:00", "+7:00", "ab:cd", "७७:००"] {
            assert!(TimeOfDay::try_from(text.to_owned()).is_err(), "{text}");
        }
        for text in ["", "13-01", "02-30", "2026-02-29", "1-1", "26-12-24", "12/24", "१२-२४"] {
            assert!(HolidayDate::try_from(text.to_owned()).is_err(), "{text}");
        }
        for text in ["", "2026-13-01", "2026-12-24T25:00", "2026-12-24T18:00Z", "2026-12-24T18:00+02:00", "tomorrow"] {
            assert!(LocalMoment::try_from(text.to_owned()).is_err(), "{text}");
        }
        for zone in ["", "Europe/Atlantis", "../../etc/passwd"] {
            assert!(Calendar::new(zone, &[]).is_none(), "{zone}");
        }
    }

    #[test]
    fn a_window_holds_from_its_first_minute_to_just_before_its_last_on_the_sites_clock() {
        let office = Schedule::new(&[window(&[Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri], "07:00", "19:00")], false);
        let calendar = berlin(&[]);
        // A Friday; Berlin is an hour ahead in winter and two in summer.
        for (moment, expected) in [
            ("2026-11-27T05:59:59.999Z", false),
            ("2026-11-27T06:00:00Z", true),
            ("2026-11-27T17:59:59.999Z", true),
            ("2026-11-27T18:00:00Z", false),
            ("2026-07-03T05:00:00Z", true),
            ("2026-07-03T17:00:00Z", false),
            ("2026-11-28T10:00:00Z", false),
        ] {
            assert_eq!(office.holds(&calendar, at(moment)), expected, "{moment}");
        }
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let night = Schedule::new(&[window(&[Day::Fri], "22:00", "06:00")], false);
        let calendar = berlin(&[]);
        for (moment, expected) in [
            ("2026-11-27T20:59:00Z", false),
            ("2026-11-27T21:00:00Z", true),
            ("2026-11-28T04:59:00Z", true),
            ("2026-11-28T05:00:00Z", false),
            ("2026-11-27T04:00:00Z", false),
            ("2026-11-28T22:00:00Z", false),
        ] {
            assert_eq!(night.holds(&calendar, at(moment)), expected, "{moment}");
        }
    }

    #[test]
    fn a_holiday_is_no_day_of_the_week_unless_the_schedule_says_so() {
        let text = |text: &str| HolidayDate::try_from(text.to_owned()).unwrap();
        let calendar = berlin(&[
            HolidaySettings { name: "Christmas".into(), date: text("12-25"), to: None },
            HolidaySettings { name: "stocktaking".into(), date: text("2026-06-01"), to: Some(text("2026-06-03")) },
        ]);
        let days = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri];
        let office = Schedule::new(&[window(&days, "07:00", "19:00")], false);
        let porter = Schedule::new(&[window(&days, "07:00", "19:00")], true);
        let emergency = Schedule::new(&[window(&[Day::Holiday], "10:00", "12:00")], false);
        let told = |moment: &str| [&office, &porter, &emergency].map(|schedule| schedule.holds(&calendar, at(moment)));
        assert_eq!(told("2026-12-25T10:00:00Z"), [false, true, true]);
        assert_eq!(told("2026-12-24T10:00:00Z"), [true, true, false]);
        assert_eq!(told("2026-06-03T10:30:00Z"), [false, true, false]);
        assert_eq!(told("2026-06-04T09:30:00Z"), [true, true, false]);
        assert_eq!(told("2027-06-01T09:30:00Z"), [true, true, false]);
    }

    #[test]
    fn the_hour_that_does_not_exist_is_in_no_window_and_the_one_that_comes_twice_is_in_twice() {
        let early = Schedule::new(&[window(&[Day::Sun], "02:15", "02:45")], false);
        let calendar = berlin(&[]);
        let spring: Vec<i64> =
            (0..24 * 60).filter(|n| early.holds(&calendar, Wall(at("2026-03-28T23:00:00Z").0 + n * 60_000))).collect();
        assert!(spring.is_empty(), "02:30 does not exist on that day: {spring:?}");
        let autumn = (0..25 * 60).filter(|n| early.holds(&calendar, Wall(at("2026-10-24T22:00:00Z").0 + n * 60_000))).count();
        assert_eq!(autumn, 60);
        let ordinary = (0..24 * 60).filter(|n| early.holds(&calendar, Wall(at("2026-10-31T23:00:00Z").0 + n * 60_000))).count();
        assert_eq!(ordinary, 30);
    }

    #[test]
    fn the_last_minute_before_midnight_and_the_first_after_it_are_two_days_in_zones_of_half_hours_too() {
        let whole = Schedule::new(&[window(&[Day::Mon], "00:00", "24:00")], false);
        for (zone, begins, ends) in [
            ("Asia/Kolkata", "2026-11-29T18:30:00Z", "2026-11-30T18:30:00Z"),
            ("Asia/Kathmandu", "2026-11-29T18:15:00Z", "2026-11-30T18:15:00Z"),
            ("America/St_Johns", "2026-11-30T03:30:00Z", "2026-12-01T03:30:00Z"),
            ("Pacific/Kiritimati", "2026-11-29T10:00:00Z", "2026-11-30T10:00:00Z"),
        ] {
            let calendar = Calendar::new(zone, &[]).unwrap();
            let holds = |text: &str, ms: i64| whole.holds(&calendar, Wall(at(text).0 + ms));
            assert_eq!((holds(begins, -1), holds(begins, 0)), (false, true), "{zone}");
            assert_eq!((holds(ends, -1), holds(ends, 0)), (true, false), "{zone}");
        }
    }

    #[test]
    fn a_clock_that_changes_by_half_an_hour_leaves_out_and_repeats_half_an_hour() {
        let calendar = Calendar::new("Australia/Lord_Howe", &[]).unwrap();
        let early = Schedule::new(&[window(&[Day::Sun], "01:30", "02:00"), window(&[Day::Sun], "02:00", "02:30")], false);
        let held = |text: &str| (0..24 * 60).filter(|n| early.holds(&calendar, Wall(at(text).0 + n * 60_000))).count();
        // 02:00 becomes 02:30 on 4 October 2026, and becomes 01:30 on 5 April.
        assert_eq!((held("2026-10-03T13:30:00Z"), held("2026-04-04T13:00:00Z"), held("2026-11-07T13:00:00Z")), (30, 90, 60));
    }

    #[test]
    fn the_twenty_ninth_of_february_is_a_day_of_leap_years_alone() {
        let yearly = |date: &str| HolidaySettings {
            name: "feast".to_owned(),
            date: HolidayDate::try_from(date.to_owned()).unwrap(),
            to: None,
        };
        let calendar = berlin(&[yearly("02-29")]);
        let day = |text: &str| text.parse::<Date>().unwrap();
        assert_eq!(calendar.holiday(day("2028-02-29")), Some("feast"));
        for other in ["2027-02-28", "2027-03-01", "2028-02-28", "2028-03-01"] {
            assert_eq!(calendar.holiday(day(other)), None, "{other}");
        }
        let moment = |text: &str| LocalMoment::try_from(text.to_owned());
        assert!(moment("2027-02-29").is_err());
        assert_eq!(calendar.ends(moment("2028-02-29").unwrap()), Some(at("2028-02-29T23:00:00Z")));
    }

    #[test]
    fn a_night_through_either_change_of_the_clock_holds_to_its_last_minute_and_no_longer() {
        let night = Schedule::new(&[window(&[Day::Sat], "22:00", "06:00")], false);
        let calendar = berlin(&[]);
        for (begins, hours) in [("2026-03-28T21:00:00Z", 7), ("2026-10-24T20:00:00Z", 9), ("2026-11-07T21:00:00Z", 8)] {
            let holds = |minutes: i64| night.holds(&calendar, Wall(at(begins).0 + minutes * 60_000));
            let held = (-60..24 * 60).filter(|minute| holds(*minute)).collect::<Vec<i64>>();
            assert_eq!(held, (0..hours * 60).collect::<Vec<i64>>(), "{begins}");
        }
    }

    #[test]
    fn days_of_a_persons_time_begin_and_end_at_local_midnight_also_when_the_clock_changes() {
        let calendar = berlin(&[]);
        let moment = |text: &str| LocalMoment::try_from(text.to_owned()).unwrap();
        assert_eq!(calendar.begins(moment("2026-03-29")), Some(at("2026-03-28T23:00:00Z")));
        assert_eq!(calendar.ends(moment("2026-03-29")), Some(at("2026-03-29T22:00:00Z")));
        assert_eq!(calendar.begins(moment("2026-03-29T02:30")), Some(at("2026-03-29T01:30:00Z")), "moved on by the gap");
        assert_eq!(calendar.ends(moment("2026-10-25T02:30")), Some(at("2026-10-25T00:30:00Z")), "the first of the two");
        assert_eq!(calendar.ends(moment("9999-12-31")), None);
    }

    #[test]
    fn the_next_change_is_told_within_two_weeks() {
        let office = Schedule::new(&[window(&[Day::Mon], "07:00", "19:00")], false);
        let calendar = berlin(&[]);
        assert_eq!(office.next_change(&calendar, at("2026-11-27T12:34:56Z")), Some(at("2026-11-30T06:00:00Z")));
        assert_eq!(office.next_change(&calendar, at("2026-11-30T12:00:00Z")), Some(at("2026-11-30T18:00:00Z")));
        assert_eq!(Schedule::new(&[], false).next_change(&calendar, at("2026-11-27T12:00:00Z")), None);
        assert!(!office.holds(&calendar, Wall(i64::MAX)) && !office.holds(&calendar, Wall(i64::MIN)));
    }
}
