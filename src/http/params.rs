//! Query parameters: how each is written, and which of them a request got wrong.
//!
//! A reader collects every problem, so that one answer names them all. It also learns which names a path knows by
//! what is asked of it, so a name that nobody asked for cannot pass unnoticed.

use actix_web::web::Query;
use chrono::{DateTime, Datelike, Days, NaiveDate, SecondsFormat, Utc};
use serde::de::DeserializeOwned;

use super::cursor;
use super::format::Format;
use super::problem::{ApiError, ParameterProblem};
use crate::domain::{Granularity, Interval, Order, OrganizationId, Page, Window, Zone};

/// The parameter's name.
pub const START: &str = "start";
/// The parameter's name.
pub const END: &str = "end";
/// The parameter's name.
pub const EVERY: &str = "every";
/// The parameter's name.
pub const PAGE: &str = "page";
/// The parameter's name.
pub const CURSOR: &str = "cursor";
const TZ: &str = "tz";
const FILL: &str = "fill";
const SIZE: &str = "size";
const SORT: &str = "sort";
const FORMAT: &str = "format";
const ORGANIZATION: &str = "organization";
const PREFIX: &str = "q";

/// What a parameter can be, as the end of a sentence.
fn hint(name: &str) -> String {
    match name {
        START | END => "(ex: 2020-01-31 / 2020-01-31T12:00:00Z)".to_owned(),
        EVERY => "(ex: 1day / 1hour)".to_owned(),
        TZ => "(ex: UTC / Europe/Berlin)".to_owned(),
        FILL => "(none / zero)".to_owned(),
        PAGE => format!("(1 to {})", Page::MAX_NUMBER),
        SIZE => format!("(1 to {})", Page::MAX_SIZE),
        CURSOR => "(as next has it)".to_owned(),
        SORT => "(-bytes / bytes / id)".to_owned(),
        FORMAT => "(json / csv / ndjson)".to_owned(),
        _ => "(ex: x00g8)".to_owned(),
    }
}

/// Which page, and whether anybody asked for its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paging {
    /// The page.
    pub page: Page,
    /// Whether the size was given.
    pub has_size: bool,
}

impl Paging {
    /// Whether all rows are asked for rather than a page.
    #[must_use]
    pub fn is_unbounded(self, format: Format) -> bool {
        format != Format::Json && !self.has_size
    }

    /// The rows that are asked for, from the list's beginning or from behind a place in it. In JSON it is one more than
    /// the page has, which shows whether there is a next one.
    #[must_use]
    pub fn window(self, format: Format, is_behind_place: bool) -> Window {
        if self.is_unbounded(format) {
            return Window::ALL;
        }
        let offset = if is_behind_place {
            0
        } else {
            self.page.offset()
        };
        Window {
            offset,
            limit: Some(self.page.size() + i64::from(format == Format::Json)),
        }
    }

    /// How many of the rows that were read are on the page, and whether it has a next one.
    #[must_use]
    pub fn shown(self, read: usize) -> (usize, bool) {
        let size = usize::try_from(self.page.size()).unwrap_or(usize::MAX);
        (read.min(size), read > size)
    }
}

/// The organization that a list is narrowed to, as it was asked for.
#[derive(Debug, Default)]
pub struct OrganizationFilter(Option<String>);

impl OrganizationFilter {
    /// The organization, if there is one.
    ///
    /// # Errors
    /// What cannot be an identifier belongs to nobody.
    pub fn organization(&self) -> Result<Option<OrganizationId>, ApiError> {
        self.0
            .as_deref()
            .map(OrganizationId::parse)
            .transpose()
            .map_err(|_| self.nobody_knows())
    }

    /// Nobody knows the organization.
    #[must_use]
    pub fn nobody_knows(&self) -> ApiError {
        ApiError::NoOrganization(self.0.clone().unwrap_or_default())
    }
}

/// A parameter was refused, and the reader knows why.
#[derive(Debug)]
pub struct Refused;

/// Reads the parameters of one request.
#[derive(Debug)]
pub struct Parameters {
    given: Vec<(String, String)>,
    known: Vec<&'static str>,
    problems: Vec<ParameterProblem>,
    is_unacceptable: bool,
}

impl Parameters {
    /// Decodes a query string.
    #[must_use]
    pub fn parse(query: &str) -> Self {
        Self {
            given: decode(query),
            known: Vec::new(),
            problems: Vec::new(),
            is_unacceptable: false,
        }
    }

    /// Says that the parameters cannot be left out.
    pub fn require(&mut self, names: &[&'static str]) {
        for name in names {
            if !self.has(name) {
                self.problem(
                    name,
                    format!("Query parameter '{name}' is required. {}", hint(name)),
                );
            }
        }
    }

    /// The time zone, UTC where nothing is said.
    pub fn zone(&mut self) -> Option<Zone> {
        // No zone has a blank in its name, so one stands for a plus that was not encoded.
        self.choice(TZ, Zone::UTC, |text| text.replace(' ', "+").parse().ok())
    }

    /// The first instant asked for. A date is its midnight.
    pub fn start(&mut self, zone: Zone) -> Option<DateTime<Utc>> {
        let text = self.value(START)?;
        let instant = match parse_date(&text) {
            Some(date) => Some(zone.day_start(date)),
            None => parse_instant(&text),
        };
        self.or_refuse(START, &text, instant.filter(is_writable))
    }

    /// The first instant behind what is asked for. A date is included, so it is the next day's midnight.
    pub fn end(&mut self, zone: Zone) -> Option<DateTime<Utc>> {
        let text = self.value(END)?;
        let instant = match parse_date(&text) {
            Some(date) => date
                .checked_add_days(Days::new(1))
                .map(|next| zone.day_start(next)),
            None => parse_instant(&text),
        };
        self.or_refuse(END, &text, instant.filter(is_writable))
    }

    /// The interval between the two; what is not given is the edge of all time.
    pub fn interval(
        &mut self,
        start: Option<DateTime<Utc>>,
        end: Option<DateTime<Utc>>,
    ) -> Option<Interval> {
        let all_time = Interval::RECORDABLE;
        let (from, until) = (
            start.unwrap_or(all_time.start()),
            end.unwrap_or(all_time.end()),
        );
        let interval = Interval::new(from, until).ok();
        if interval.is_none() {
            // The one that was given is the one that can be changed.
            let (name, order, other) = if start.is_some() {
                (START, "before", until)
            } else {
                (END, "after", from)
            };
            let edge = if name == START {
                "the interval's end"
            } else {
                "the interval's start"
            };
            let other = rfc3339(other);
            self.problem(
                name,
                format!(
                    "Query parameter '{name}' must be {order} {edge}, {other}. {}",
                    hint(name)
                ),
            );
        }
        interval
    }

    /// The width of the buckets.
    pub fn every(&mut self) -> Option<Granularity> {
        let text = self.value(EVERY)?;
        let granularity = text.parse().ok();
        self.or_refuse(EVERY, &text, granularity)
    }

    /// Refuses a value that can be read, for a reason that lies elsewhere.
    pub fn refuse(&mut self, name: &'static str, value: &str, reason: &str) {
        self.problem(
            name,
            format!("Query parameter '{name}' cannot be {value}: {reason}."),
        );
    }

    /// Whether buckets without usage are answered, too.
    pub fn fill(&mut self) -> Option<bool> {
        self.choice(FILL, false, |text| match text {
            "none" => Some(false),
            "zero" => Some(true),
            _ => None,
        })
    }

    /// The order of a list, most bytes first where nothing is said.
    pub fn order(&mut self) -> Option<Order> {
        self.choice(SORT, Order::MostBytes, |text| match text {
            "-bytes" => Some(Order::MostBytes),
            "bytes" => Some(Order::FewestBytes),
            "id" => Some(Order::Id),
            _ => None,
        })
    }

    /// The format, `accepted` by the request's header where nothing else is said.
    pub fn format(&mut self, accepted: Option<Format>) -> Option<Format> {
        self.is_unacceptable = accepted.is_none() && !self.has(FORMAT);
        self.choice(FORMAT, accepted.unwrap_or(Format::Json), Format::named)
    }

    /// The page, the first one of the usual size where nothing else is said.
    pub fn paging(&mut self) -> Option<Paging> {
        let number = self.whole_number(PAGE, 1, Page::MAX_NUMBER);
        let has_size = self.has(SIZE);
        let size = self.whole_number(SIZE, Page::DEFAULT_SIZE, Page::MAX_SIZE);
        Some(Paging {
            page: Page::new(number?, size?)?,
            has_size,
        })
    }

    /// Where a page begins, as an earlier answer has put it.
    pub fn cursor(&mut self) -> Option<String> {
        self.value(CURSOR)
    }

    /// The place that a cursor stands for, which must fit into what the digest is of, a `series` or `list`.
    ///
    /// # Errors
    /// It is none, or one of something else.
    pub fn place<Place: DeserializeOwned>(
        &mut self,
        cursor: Option<String>,
        digest: &str,
        what: &str,
        fits: impl FnOnce(&Place) -> bool,
    ) -> Result<Option<Place>, Refused> {
        let Some(text) = cursor else { return Ok(None) };
        let place = cursor::read(digest, &text).filter(fits);
        if place.is_none() {
            self.refuse(CURSOR, &text, &format!("it is not of this {what}"));
        }
        place.map(Some).ok_or(Refused)
    }

    /// How an identifier begins.
    pub fn prefix(&mut self) -> Option<String> {
        self.value(PREFIX)
    }

    /// The organization to filter by.
    pub fn organization_filter(&mut self) -> OrganizationFilter {
        OrganizationFilter(self.value(ORGANIZATION))
    }

    /// Ends the reading: all that was read, or all that was wrong.
    ///
    /// # Errors
    /// Every problem found, and every parameter nobody asked for; or that no format is acceptable.
    pub fn finish<T>(mut self, read: Option<T>) -> Result<T, ApiError> {
        let known = self.known.join(", ");
        let unknown: Vec<_> = self
            .given
            .iter()
            .map(|(name, _)| name)
            .filter(|name| !self.known.contains(&name.as_str()))
            .collect();
        for name in unknown {
            let detail = format!("Query parameter '{name}' is unknown. (known: {known})");
            self.problems.push(ParameterProblem {
                parameter: name.clone(),
                detail,
            });
        }
        match read {
            Some(_) if self.problems.is_empty() && self.is_unacceptable => {
                Err(ApiError::NotAcceptable)
            }
            Some(read) if self.problems.is_empty() => Ok(read),
            _ => Err(ApiError::Parameters(self.problems)),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| given == name)
    }

    /// The parameter as one of the values it can have.
    fn choice<T>(
        &mut self,
        name: &'static str,
        default: T,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        if !self.has(name) {
            self.known.push(name);
            return Some(default);
        }
        let text = self.value(name)?;
        let value = read(&text);
        self.or_refuse(name, &text, value)
    }

    /// The text of a parameter that is given once and is not empty.
    fn value(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        let mut values = self
            .given
            .iter()
            .filter(|(given, _)| given == name)
            .map(|(_, value)| value.clone());
        let first = values.next()?;
        let complaint = match values.next() {
            Some(_) => "is given more than once",
            None if first.is_empty() => "is empty",
            None => return Some(first),
        };
        self.problem(
            name,
            format!("Query parameter '{name}' {complaint}. {}", hint(name)),
        );
        None
    }

    /// The parameter as a number from 1 to `max`.
    fn whole_number(&mut self, name: &'static str, default: i64, max: i64) -> Option<i64> {
        self.choice(name, default, |text| {
            // The parser of numbers would take a sign.
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse()
                .ok()
                .filter(|number| digits && (1..=max).contains(number))
        })
    }

    fn or_refuse<T>(&mut self, name: &'static str, text: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.problem(
                name,
                format!("Query parameter '{name}' cannot be {text}. {}", hint(name)),
            );
        }
        value
    }

    fn problem(&mut self, name: &str, detail: String) {
        self.problems.push(ParameterProblem {
            parameter: name.to_owned(),
            detail,
        });
    }
}

/// The names and values of a query string.
fn decode(query: &str) -> Vec<(String, String)> {
    // Whatever is no valid escape stands for itself, so there is no query string that cannot be decoded.
    Query::<Vec<(String, String)>>::from_query(query)
        .map(Query::into_inner)
        .unwrap_or_default()
}

/// A date as RFC 3339 writes it. chrono alone would take signs, blanks and missing zeros.
fn parse_date(text: &str) -> Option<NaiveDate> {
    let strict = text.len() == 10
        && text.bytes().enumerate().all(|(index, byte)| match index {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    if strict {
        NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()
    } else {
        None
    }
}

/// A date-time with offset as RFC 3339 writes it, without what is finer than a microsecond: the database keeps none.
fn parse_instant(text: &str) -> Option<DateTime<Utc>> {
    let parsed = DateTime::parse_from_rfc3339(text).or_else(|error| {
        // In a query string a "+" is a space, and a client that did not encode it means the offset's sign.
        match text
            .len()
            .checked_sub("+02:00".len())
            .filter(|sign| text.as_bytes()[*sign] == b' ')
        {
            Some(sign) => {
                DateTime::parse_from_rfc3339(&format!("{}+{}", &text[..sign], &text[sign + 1..]))
            }
            None => Err(error),
        }
    });
    DateTime::from_timestamp_micros(parsed.ok()?.timestamp_micros())
}

/// Whether RFC 3339 can write the instant, whose years have four digits.
fn is_writable(instant: &DateTime<Utc>) -> bool {
    (1..=9999).contains(&instant.year())
}

/// An instant as answers carry it: to the second, or finer where it is.
#[must_use]
pub fn rfc3339(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// A query string with another page, and where that begins if it is known. All else stays as the client wrote it.
#[must_use]
pub fn with_page(query: &str, number: i64, cursor: Option<&str>) -> String {
    let is_other = |pair: &&str| {
        decode(pair)
            .iter()
            .any(|(name, _)| name != PAGE && name != CURSOR)
    };
    let others = query.split('&').filter(is_other).map(str::to_owned);
    let place = cursor.map(|cursor| format!("{CURSOR}={cursor}"));
    others
        .chain([format!("{PAGE}={number}")])
        .chain(place)
        .collect::<Vec<_>>()
        .join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn start(text: &str) -> Option<DateTime<Utc>> {
        Parameters::parse(&format!("start={text}")).start(Zone::UTC)
    }

    fn end(text: &str) -> Option<DateTime<Utc>> {
        Parameters::parse(&format!("end={text}")).end(Zone::UTC)
    }

    /// The details of what is wrong with a query string, read like that of a time series.
    fn problems(query: &str) -> Vec<String> {
        let mut parameters = Parameters::parse(query);
        parameters.require(&[START, END, EVERY]);
        let (start, end) = (parameters.start(Zone::UTC), parameters.end(Zone::UTC));
        let interval = if start.is_some() && end.is_some() {
            parameters.interval(start, end)
        } else {
            None
        };
        let (every, page) = (parameters.every(), parameters.paging());
        let read = interval.zip(every).zip(page);
        match parameters.finish(read) {
            Ok(_) => Vec::new(),
            Err(ApiError::Parameters(problems)) => {
                problems.into_iter().map(|problem| problem.detail).collect()
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_date_covers_its_whole_day() {
        assert_eq!(start("2020-01-31"), Some(at("2020-01-31T00:00:00Z")));
        assert_eq!(end("2020-01-31"), Some(at("2020-02-01T00:00:00Z")));
        assert_eq!(
            end("2020-01-31T00:00:00Z"),
            Some(at("2020-01-31T00:00:00Z"))
        );
    }

    #[test]
    fn an_offset_is_read_whether_its_sign_is_encoded_or_not() {
        for text in [
            "2020-01-01T00:00:00%2B02:00",
            "2020-01-01T00:00:00+02:00",
            "2019-12-31T20:00:00-02:00",
        ] {
            assert_eq!(start(text), Some(at("2019-12-31T22:00:00Z")), "{text}");
        }
    }

    #[test]
    fn what_is_finer_than_a_microsecond_is_cut_off() {
        assert_eq!(
            start("2020-01-01T00:00:00.1234567Z"),
            Some(at("2020-01-01T00:00:00.123456Z"))
        );
        assert_eq!(
            start("1960-01-01T00:00:00.9999999Z"),
            Some(at("1960-01-01T00:00:00.999999Z"))
        );
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "hello",
            "2020-1-1",
            "2020-02-30",
            "%202020-01-1",
            "2020-01-01T00:00:00",
            "2020-01-01T00:00",
            "2020-01-01T25:00:00Z",
            "20200101",
            "1577836800",
            "2020-01-01Z",
            "0000-01-01",
            "0001-01-01T00:00:00%2B02:00",
            "10000-01-01",
            "+2020-01-01",
        ] {
            assert_eq!(start(text), None, "{text} was accepted");
        }
        assert_eq!(end("9999-12-31"), None, "the day behind has five digits");
    }

    #[test]
    fn problems_are_told_in_the_words_that_clients_know() {
        assert_eq!(
            problems("start=2020-01-01&end=2020-01-31&every=hello"),
            ["Query parameter 'every' cannot be hello. (ex: 1day / 1hour)"]
        );
        assert_eq!(
            problems("start=2020-01-01&end=2020-01-31"),
            ["Query parameter 'every' is required. (ex: 1day / 1hour)"]
        );
    }

    #[test]
    fn every_problem_is_told_at_once() {
        assert_eq!(
            problems("start=&end=x&every=1day&every=1day&page=0&size=1001&sise=5"),
            [
                "Query parameter 'start' is empty. (ex: 2020-01-31 / 2020-01-31T12:00:00Z)",
                "Query parameter 'end' cannot be x. (ex: 2020-01-31 / 2020-01-31T12:00:00Z)",
                "Query parameter 'every' is given more than once. (ex: 1day / 1hour)",
                "Query parameter 'page' cannot be 0. (1 to 1000000000)",
                "Query parameter 'size' cannot be 1001. (1 to 1000)",
                "Query parameter 'sise' is unknown. (known: start, end, every, page, size)",
            ]
        );
    }

    #[test]
    fn an_interval_must_not_be_empty() {
        assert_eq!(
            problems("start=2020-02-01&end=2020-01-31&every=1day"),
            [
                "Query parameter 'start' must be before the interval's end, 2020-02-01T00:00:00Z. \
              (ex: 2020-01-31 / 2020-01-31T12:00:00Z)"
            ]
        );
        assert!(problems("start=2020-01-31&end=2020-01-31&every=1day").is_empty());
        let mut parameters = Parameters::parse("");
        assert_eq!(
            parameters.interval(None, Some(at("1969-01-01T00:00:00Z"))),
            None
        );
        assert_eq!(parameters.problems[0].parameter, END);
        assert_eq!(parameters.interval(None, None), Some(Interval::RECORDABLE));
    }

    #[test]
    fn page_numbers_have_no_sign_and_do_not_overflow() {
        for text in [
            "-1",
            "%2B1",
            "1.5",
            "",
            "x",
            "1000000001",
            "99999999999999999999999",
            "%201",
        ] {
            assert_eq!(
                Parameters::parse(&format!("page={text}")).paging(),
                None,
                "{text}"
            );
        }
        assert_eq!(
            Parameters::parse("page=1000000000&size=1000")
                .paging()
                .map(|paging| paging.page),
            Page::new(1_000_000_000, 1000)
        );
        assert_eq!(
            Parameters::parse("").paging().map(|paging| paging.page),
            Page::new(1, 50)
        );
    }

    #[test]
    fn the_next_page_differs_in_its_number_alone() {
        assert_eq!(with_page("", 2, None), "page=2");
        assert_eq!(
            with_page("start=2020-01-01T00:00:00+02:00&page=1&size=5", 2, None),
            "start=2020-01-01T00:00:00+02:00&size=5&page=2"
        );
        assert_eq!(
            with_page("p%61ge=1&every=1%64ay&cursor=x", 2, Some("y")),
            "every=1%64ay&page=2&cursor=y"
        );
    }

    proptest! {
        #[test]
        fn no_query_string_panics(query in ".*") {
            problems(&query);
            let _ = with_page(&query, 1, None);
        }

        #[test]
        fn no_value_panics(value in "[0-9TZ:. +é-]{0,40}") {
            start(&value);
            end(&value);
        }

        #[test]
        fn what_an_answer_says_is_read_back(micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000) {
            let instant = DateTime::from_timestamp_micros(micros).unwrap();
            prop_assert_eq!(start(&rfc3339(instant)), Some(instant));
            prop_assert_eq!(end(&rfc3339(instant)), Some(instant));
        }
    }
}
