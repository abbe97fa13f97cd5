//! Query parameters: their definitions, their OpenAPI descriptions, and the parser.
//!
//! Each parameter is a constant, and one method of [`Parameters`] parses it. Parsing collects all
//! errors, so that one response reports every parameter that is wrong.

use std::marker::PhantomData;

use actix_web::web::Query;
use chrono::{DateTime, Datelike, Days, NaiveDate, SecondsFormat, Utc};
use serde::de::DeserializeOwned;
use utoipa::IntoParams;
use utoipa::openapi::path::{self, ParameterBuilder, ParameterIn};
use utoipa::openapi::{KnownFormat, ObjectBuilder, Required, SchemaFormat, Type};

use super::cursor::{CursorError, ListId};
use super::format::ResponseFormat;
use super::problem::{ApiError, ParameterProblem};
use crate::domain::{Granularity, Interval, Order, OrganizationId, Page, SimCardId, Window, Zone};

pub const START: Parameter = Parameter::new(
    "start",
    "Start of the interval: a date, which stands for its midnight in `tz`, or an RFC 3339 \
     date-time.",
    instant("2020-02-01"),
);
pub const END: Parameter = Parameter::new(
    "end",
    "End of the interval: a date, which is included as a whole day in `tz`, or an RFC 3339 \
     date-time, which is excluded.",
    instant("2020-02-28"),
);
pub const EVERY: Parameter = Parameter::new(
    "every",
    "Width of the buckets: a number of hours, days, weeks or months (`6hour`, `1day`), where the \
     number 1 can be omitted (`day`), or an ISO 8601 duration of one unit (`PT6H`).",
    Values::Text {
        hint: "ex: 1day / 1hour",
        pattern: Some(
            "^([1-9][0-9]{0,3}|)(hour|day|week|month)$|^PT[1-9][0-9]{0,3}H$|^P[1-9][0-9]{0,3}[DWM]$",
        ),
        example: Some("1day"),
    },
);
pub const TZ: Parameter = Parameter::new(
    "tz",
    "IANA time zone of dates, buckets and the response; `UTC` by default.",
    Values::Text {
        hint: "ex: UTC / Europe/Berlin",
        pattern: None,
        example: Some("Europe/Berlin"),
    },
);
pub const FILL: Parameter = Parameter::new(
    "fill",
    "`zero` returns buckets without usage too; `none`, the default, omits them.",
    Values::Words(&["none", "zero"]),
);
pub const SORT: Parameter = Parameter::new(
    "sort",
    "Order of the items: by bytes descending (`-bytes`, the default), by bytes ascending, or by \
     identifier.",
    Values::Words(&["-bytes", "bytes", "id"]),
);
pub const ORGANIZATION: Parameter = Parameter::new(
    "organization",
    "Limits the list to the SIM cards of this organization.",
    identifier("x00g8"),
);
pub const SIM_CARD: Parameter = Parameter::new(
    "simcard",
    "Limits the list to assignments of this SIM card.",
    Values::Text {
        hint: "ex: 89440001",
        pattern: None,
        example: Some("89440001"),
    },
);
pub const PREFIX: Parameter = Parameter::new(
    "q",
    "Limits the list to assignments whose SIM card or organization identifier starts with this \
     text.",
    identifier("8944"),
);
pub const PAGE: Parameter = Parameter::new(
    "page",
    "Page number; 1 by default.",
    Values::Number {
        default: 1,
        max: Page::MAX_NUMBER,
    },
);
pub const SIZE: Parameter = Parameter::new(
    "size",
    "Items per page. The default is 50 in JSON; CSV and NDJSON return all items by default.",
    Values::Number {
        default: Page::DEFAULT_SIZE,
        max: Page::MAX_SIZE,
    },
);
pub const CURSOR: Parameter = Parameter::new(
    "cursor",
    "Start of the page, copied from the `next` link of the page before. It overrides `page`, and \
     is valid only if all other parameters stay the same.",
    Values::Text {
        hint: "copied from next",
        pattern: Some("^[A-Za-z0-9_-]+$"),
        example: None,
    },
);
pub const FORMAT: Parameter = Parameter::new(
    "format",
    "Format of the response; by default it is negotiated by the `Accept` header.",
    Values::Words(&["json", "csv", "ndjson"]),
);

pub const CSV: Parameter = Parameter::new(
    "csv",
    "How CSV has identifiers that a spreadsheet would take for a formula, such as `=1+1`: `safe`, the default, \
     writes `\"'=1+1\"`; `raw` leaves them as they are.",
    Values::Words(&["safe", "raw"]),
);

/// The definition of a query parameter.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    pub name: &'static str,
    description: &'static str,
    values: Values,
    is_required: bool,
}

#[derive(Debug, Clone, Copy)]
enum Values {
    /// One of these words; the first is the default.
    Words(&'static [&'static str]),
    /// A whole number from 1 to `max`.
    Number { default: i64, max: i64 },
    Text {
        /// Ends the error about a wrong value.
        hint: &'static str,
        pattern: Option<&'static str>,
        example: Option<&'static str>,
    },
}

const fn instant(example: &'static str) -> Values {
    Values::Text {
        hint: "ex: 2020-01-31 / 2020-01-31T12:00:00Z",
        pattern: Some(
            "^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?([Zz]|[+ -][0-9]{2}:[0-9]{2}))?$",
        ),
        example: Some(example),
    }
}

const fn identifier(example: &'static str) -> Values {
    Values::Text {
        hint: "ex: x00g8",
        pattern: None,
        example: Some(example),
    }
}

impl Parameter {
    const fn new(name: &'static str, description: &'static str, values: Values) -> Self {
        Self {
            name,
            description,
            values,
            is_required: false,
        }
    }

    /// The parameter where requests must have it.
    pub const fn required(self) -> Self {
        Self {
            is_required: true,
            ..self
        }
    }

    /// The parameter where an endpoint gives it another meaning.
    pub const fn described(self, description: &'static str) -> Self {
        Self {
            description,
            ..self
        }
    }

    fn hint(&self) -> String {
        match self.values {
            Values::Words(words) => format!("({})", words.join(" / ")),
            Values::Number { max, .. } => format!("(1 to {max})"),
            Values::Text { hint, .. } => format!("({hint})"),
        }
    }

    fn to_openapi(self) -> path::Parameter {
        let schema = ObjectBuilder::new();
        let (schema, example) = match self.values {
            Values::Words(words) => (
                schema
                    .schema_type(Type::String)
                    .enum_values(Some(words.iter().copied())),
                None,
            ),
            Values::Number { max, .. } => (
                schema
                    .schema_type(Type::Integer)
                    .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
                    .minimum(Some(1_i64))
                    .maximum(Some(max)),
                None,
            ),
            Values::Text {
                pattern, example, ..
            } => (schema.schema_type(Type::String).pattern(pattern), example),
        };
        ParameterBuilder::new()
            .name(self.name)
            .parameter_in(ParameterIn::Query)
            .description(Some(self.description))
            .required(if self.is_required {
                Required::True
            } else {
                Required::False
            })
            .schema(Some(schema))
            .example(example.map(Into::into))
            .build()
    }
}

/// A request whose query string is parsed.
pub trait Endpoint {
    /// The parameters it accepts, in the order in which an error lists them.
    const PARAMETERS: &'static [Parameter];
}

/// The requested rows and their format.
#[derive(Debug)]
pub struct Paging {
    pub page: Page,
    has_size: bool,
    pub format: ResponseFormat,
    /// Whether CSV has identifiers as they are.
    pub is_raw_csv: bool,
    cursor: Option<String>,
}

impl Paging {
    /// Whether all rows are requested, rather than a page.
    #[must_use]
    pub fn is_unbounded(&self) -> bool {
        self.format != ResponseFormat::Json && !self.has_size
    }

    /// The rows to query, counted from the cursor if there is one. A JSON page queries one more
    /// than it shows, which tells whether there is a next page.
    #[must_use]
    pub fn window(&self) -> Window {
        if self.is_unbounded() {
            return Window::ALL;
        }
        let offset = if self.cursor.is_some() {
            0
        } else {
            self.page.offset()
        };
        Window {
            offset,
            limit: Some(self.page.size() + i64::from(self.format == ResponseFormat::Json)),
        }
    }

    /// Truncates the rows to the page, and returns the first row of the next one.
    pub fn truncate<Row>(&self, rows: &mut Vec<Row>) -> Option<Row> {
        let size = usize::try_from(self.page.size()).unwrap_or(usize::MAX);
        let next = (rows.len() > size).then(|| rows.swap_remove(size));
        rows.truncate(size);
        next
    }
}

/// The cursor is refused, which is already recorded as an error.
#[derive(Debug)]
pub struct Refused;

/// Parses the query string of an endpoint.
#[derive(Debug)]
pub struct Parameters<E> {
    given: Vec<(String, String)>,
    problems: Vec<ParameterProblem>,
    is_unacceptable: bool,
    has_forged_cursor: bool,
    not_found: Option<ApiError>,
    endpoint: PhantomData<E>,
}

impl<E: Endpoint> IntoParams for Parameters<E> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<path::Parameter> {
        let (required, optional): (Vec<&Parameter>, Vec<_>) = E::PARAMETERS
            .iter()
            .partition(|parameter| parameter.is_required);
        let parameters = required.into_iter().chain(optional);
        parameters.map(|parameter| parameter.to_openapi()).collect()
    }
}

impl<E: Endpoint> Parameters<E> {
    /// Decodes a query string, and checks that it has the required parameters.
    #[must_use]
    pub fn parse(query: &str) -> Self {
        let mut parameters = Self {
            given: decode(query),
            problems: Vec::new(),
            is_unacceptable: false,
            has_forged_cursor: false,
            not_found: None,
            endpoint: PhantomData,
        };
        for parameter in E::PARAMETERS {
            if parameter.is_required && !parameters.has(*parameter) {
                parameters.problem(*parameter, "is required");
            }
        }
        parameters
    }

    pub fn zone(&mut self) -> Option<Zone> {
        // No zone has a space in its name, so a space is a plus that was not encoded.
        self.optional(TZ, Zone::UTC, |text| text.replace(' ', "+").parse().ok())
    }

    /// The start of the interval, which is inclusive.
    pub fn start(&mut self, zone: Zone) -> Option<DateTime<Utc>> {
        self.given(START, |text| {
            let instant = match parse_date(text) {
                Some(date) => Some(zone.day_start(date)),
                None => parse_instant(text),
            };
            instant.filter(has_four_digit_year)
        })
    }

    /// The end of the interval, which is exclusive: a date stands for the next day's midnight.
    pub fn end(&mut self, zone: Zone) -> Option<DateTime<Utc>> {
        self.given(END, |text| {
            let instant = match parse_date(text) {
                Some(date) => date
                    .checked_add_days(Days::new(1))
                    .map(|next| zone.day_start(next)),
                None => parse_instant(text),
            };
            instant.filter(has_four_digit_year)
        })
    }

    /// The interval from `start` to `end`, which default to the limits of recordable time.
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
            // Reports a parameter that the client gave.
            let (parameter, order, edge, instant) = if start.is_some() {
                (START, "before", "end", until)
            } else {
                (END, "after", "start", from)
            };
            let instant = rfc3339(instant);
            self.problem(
                parameter,
                &format!("must be {order} the interval's {edge}, {instant}"),
            );
        }
        interval
    }

    pub fn every(&mut self) -> Option<Granularity> {
        self.given(EVERY, |text| text.parse().ok())
    }

    /// Whether to return buckets without usage.
    pub fn fill(&mut self) -> Option<bool> {
        self.word(FILL).map(|word| word == "zero")
    }

    pub fn order(&mut self) -> Option<Order> {
        Some(match self.word(SORT)? {
            "bytes" => Order::FewestBytes,
            "id" => Order::Id,
            _ => Order::MostBytes,
        })
    }

    /// The organization of a list. One that cannot exist is not found, like any that does not.
    pub fn organization(&mut self) -> Option<OrganizationId> {
        let id = self.value(ORGANIZATION)?;
        self.found(OrganizationId::parse(&id).map_err(|_| ApiError::NoOrganization(id)))
    }

    /// The SIM card of a list. One that cannot exist is refused.
    pub fn sim_card(&mut self) -> Option<SimCardId> {
        self.given(SIM_CARD, |text| SimCardId::parse(text).ok())
    }

    /// The start of an identifier. PostgreSQL has no text with NUL, and no identifier has a control
    /// character.
    pub fn prefix(&mut self) -> Option<String> {
        let prefix = self.value(PREFIX)?;
        if !prefix.contains(char::is_control) {
            return Some(prefix);
        }
        let shown = prefix.escape_debug().to_string();
        self.refuse(PREFIX, &shown, "it contains a control character");
        None
    }

    /// The page, its cursor and its format, which defaults to the `negotiated` one.
    pub fn paging(&mut self, negotiated: Option<ResponseFormat>) -> Option<Paging> {
        let number = self.number(PAGE);
        let size = self.number(SIZE);
        let cursor = self.value(CURSOR);
        self.is_unacceptable = negotiated.is_none() && !self.has(FORMAT);
        let default = negotiated.unwrap_or(ResponseFormat::Json);
        let format = self.optional(FORMAT, default, ResponseFormat::named);
        let csv = self.word(CSV);
        Some(Paging {
            page: Page::new(number?, size?)?,
            has_size: self.has(SIZE),
            format: format?,
            is_raw_csv: csv? == "raw",
            cursor,
        })
    }

    /// Decodes the cursor, which must belong to the `list`. The error calls the list a `kind`.
    ///
    /// # Errors
    /// Returns an error if it is not a cursor, or one of another list.
    pub fn cursor<Cursor: DeserializeOwned>(
        &mut self,
        paging: &Paging,
        list: &ListId,
        kind: &str,
    ) -> Result<Option<Cursor>, Refused> {
        let Some(text) = &paging.cursor else {
            return Ok(None);
        };
        let read = list.read_cursor(text);
        match read {
            Ok(cursor) => return Ok(Some(cursor)),
            Err(CursorError::OtherList) => self.refuse_cursor(paging, kind),
            Err(CursorError::Forged) => {
                self.has_forged_cursor = true;
                self.refuse(
                    CURSOR,
                    text,
                    "this server did not create it; copy it from 'next' without changes",
                );
            }
        }
        Err(Refused)
    }

    /// Refuses a cursor that is not one of this `kind` of list.
    pub fn refuse_cursor(&mut self, paging: &Paging, kind: &str) {
        let text = paging.cursor.as_deref().unwrap_or_default();
        self.refuse(CURSOR, text, &format!("it is not a cursor of this {kind}"));
    }

    /// Refuses a value that is well-formed.
    pub fn refuse(&mut self, parameter: Parameter, value: &str, reason: &str) {
        let name = parameter.name;
        self.problems.push(ParameterProblem {
            parameter: name.to_owned(),
            detail: format!("Query parameter '{name}' cannot be {value}: {reason}."),
        });
    }

    /// Keeps the error for [`Self::finish`], because wrong parameters are reported first.
    pub fn found<T>(&mut self, found: Result<T, ApiError>) -> Option<T> {
        found.map_err(|error| self.not_found = Some(error)).ok()
    }

    /// Returns what was parsed, which is `None` only after an error.
    ///
    /// # Errors
    /// Returns all wrong and unknown parameters, a forged cursor among them; or else that no format is
    /// acceptable; or else that something does not exist.
    pub fn finish<T>(mut self, parsed: Option<T>) -> Result<T, ApiError> {
        let is_known = |name: &str| E::PARAMETERS.iter().any(|known| known.name == name);
        for (name, _) in self.given.iter().filter(|(name, _)| !is_known(name)) {
            let known: Vec<_> = E::PARAMETERS.iter().map(|known| known.name).collect();
            let known = match known.as_slice() {
                [] => "none".to_owned(),
                known => known.join(", "),
            };
            self.problems.push(ParameterProblem {
                parameter: name.clone(),
                detail: format!("Query parameter '{name}' is unknown. (known: {known})"),
            });
        }
        if self.has_forged_cursor {
            return Err(ApiError::ForgedCursor(self.problems));
        }
        if !self.problems.is_empty() {
            return Err(ApiError::Parameters(self.problems));
        }
        if self.is_unacceptable {
            return Err(ApiError::NotAcceptable);
        }
        match (parsed, self.not_found) {
            (_, Some(not_found)) => Err(not_found),
            (Some(parsed), None) => Ok(parsed),
            (None, None) => Err(ApiError::Parameters(self.problems)),
        }
    }

    fn has(&self, parameter: Parameter) -> bool {
        self.given.iter().any(|(given, _)| given == parameter.name)
    }

    /// The text of a parameter that is given exactly once and is not empty.
    fn value(&mut self, parameter: Parameter) -> Option<String> {
        let mut values = self
            .given
            .iter()
            .filter(|(given, _)| given == parameter.name)
            .map(|(_, value)| value.clone());
        let first = values.next()?;
        let problem = match values.next() {
            Some(_) => "is given more than once",
            None if first.is_empty() => "is empty",
            None => return Some(first),
        };
        self.problem(parameter, problem);
        None
    }

    /// The value of a parameter that is given.
    fn given<T>(
        &mut self,
        parameter: Parameter,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.value(parameter)?;
        let value = parse(&text);
        if value.is_none() {
            self.problem(parameter, &format!("cannot be {text}"));
        }
        value
    }

    /// The value of a parameter, or the default; `None` if the value is wrong.
    fn optional<T>(
        &mut self,
        parameter: Parameter,
        default: T,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        if self.has(parameter) {
            self.given(parameter, parse)
        } else {
            Some(default)
        }
    }

    fn word(&mut self, parameter: Parameter) -> Option<&'static str> {
        let Values::Words(words) = parameter.values else {
            return None;
        };
        let find = |text: &str| words.iter().copied().find(|word| *word == text);
        self.optional(parameter, words[0], find)
    }

    fn number(&mut self, parameter: Parameter) -> Option<i64> {
        let Values::Number { default, max } = parameter.values else {
            return None;
        };
        self.optional(parameter, default, |text| {
            // `parse` alone would accept a sign.
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse()
                .ok()
                .filter(|number| digits && (1..=max).contains(number))
        })
    }

    fn problem(&mut self, parameter: Parameter, problem: &str) {
        let (name, hint) = (parameter.name, parameter.hint());
        self.problems.push(ParameterProblem {
            parameter: name.to_owned(),
            detail: format!("Query parameter '{name}' {problem}. {hint}"),
        });
    }
}

/// The names and values of a query string.
fn decode(query: &str) -> Vec<(String, String)> {
    // Invalid escapes are taken literally, so every query string can be decoded.
    Query::<Vec<(String, String)>>::from_query(query)
        .map(Query::into_inner)
        .unwrap_or_default()
}

/// Parses a date like RFC 3339. chrono alone would accept signs, spaces and missing zeros.
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

/// Parses an RFC 3339 date-time, truncated to microseconds, the precision of the database.
fn parse_instant(text: &str) -> Option<DateTime<Utc>> {
    let parsed = DateTime::parse_from_rfc3339(text).or_else(|error| {
        // In a query string "+" means a space, so a space is an offset's sign that was not encoded.
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

/// Whether RFC 3339 can express the instant.
fn has_four_digit_year(instant: &DateTime<Utc>) -> bool {
    (1..=9999).contains(&instant.year())
}

/// Formats an instant with as many fractional digits as it needs.
#[must_use]
pub fn rfc3339(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Replaces the page and the cursor in a query string, and leaves the rest as the client wrote it.
#[must_use]
pub fn with_page(query: &str, number: i64, cursor: Option<&str>) -> String {
    let is_other = |pair: &&str| {
        decode(pair)
            .iter()
            .any(|(name, _)| name != PAGE.name && name != CURSOR.name)
    };
    let others = query.split('&').filter(is_other).map(str::to_owned);
    let cursor = cursor.map(|cursor| format!("{}={cursor}", CURSOR.name));
    others
        .chain([format!("{}={number}", PAGE.name)])
        .chain(cursor)
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

    /// A time series without its optional parameters, but for the page.
    struct Series;

    impl Endpoint for Series {
        const PARAMETERS: &'static [Parameter] = &[
            START.required(),
            END.required(),
            EVERY.required(),
            PAGE,
            SIZE,
        ];
    }

    fn parse(query: &str) -> Parameters<Series> {
        Parameters::parse(query)
    }

    fn start(text: &str) -> Option<DateTime<Utc>> {
        parse(&format!("start={text}")).start(Zone::UTC)
    }

    fn end(text: &str) -> Option<DateTime<Utc>> {
        parse(&format!("end={text}")).end(Zone::UTC)
    }

    /// The errors about a query string.
    fn problems(query: &str) -> Vec<String> {
        let mut parameters = parse(query);
        let (start, end) = (parameters.start(Zone::UTC), parameters.end(Zone::UTC));
        let interval = if start.is_some() && end.is_some() {
            parameters.interval(start, end)
        } else {
            None
        };
        let (every, page) = (
            parameters.every(),
            parameters.paging(Some(ResponseFormat::Json)),
        );
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
    fn the_sign_of_an_offset_need_not_be_encoded() {
        for text in [
            "2020-01-01T00:00:00%2B02:00",
            "2020-01-01T00:00:00+02:00",
            "2019-12-31T20:00:00-02:00",
        ] {
            assert_eq!(start(text), Some(at("2019-12-31T22:00:00Z")), "{text}");
        }
    }

    #[test]
    fn instants_are_truncated_to_microseconds() {
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
    fn invalid_dates_are_refused() {
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
        assert_eq!(
            end("9999-12-31"),
            None,
            "the next day has a five-digit year"
        );
    }

    #[test]
    fn errors_have_the_text_that_clients_match() {
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
    fn all_errors_are_reported_at_once() {
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
        let mut parameters = parse("");
        parameters.problems.clear();
        assert_eq!(
            parameters.interval(None, Some(at("1969-01-01T00:00:00Z"))),
            None
        );
        assert_eq!(parameters.problems[0].parameter, END.name);
        assert_eq!(parameters.interval(None, None), Some(Interval::RECORDABLE));
    }

    #[test]
    fn page_numbers_have_no_sign_and_do_not_overflow() {
        let page = |query: &str| {
            let paging = parse(query).paging(Some(ResponseFormat::Json));
            paging.map(|paging| paging.page)
        };
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
            assert_eq!(page(&format!("page={text}")), None, "{text}");
        }
        assert_eq!(
            page("page=1000000000&size=1000"),
            Page::new(1_000_000_000, 1000)
        );
        assert_eq!(page(""), Page::new(1, 50));
    }

    #[test]
    fn the_next_page_differs_only_in_page_and_cursor() {
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
        fn formatted_instants_parse(micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000) {
            let instant = DateTime::from_timestamp_micros(micros).unwrap();
            prop_assert_eq!(start(&rfc3339(instant)), Some(instant));
            prop_assert_eq!(end(&rfc3339(instant)), Some(instant));
        }
    }
}
