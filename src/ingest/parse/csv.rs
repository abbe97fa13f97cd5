//! Records in CSV (RFC 4180) with a header. A record is exactly one line: no field needs a line
//! end, and so an unclosed quote spoils only its own line.

use std::borrow::Cow;

use super::super::csv_line::{Columns, HeaderError, Splitter};
use super::super::reject::{Defect, Reason};
use super::field::{parse_bytes, parse_date};
use super::record::{UsageRecord, name};

/// The indexes of the columns that are read, and the number of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ingest) struct CsvHeader {
    columns: usize,
    sim_card: usize,
    bytes: usize,
    date: usize,
}

impl CsvHeader {
    /// Accepts the columns in any order and letter case, with `_` for `-`, and ignores other columns.
    pub fn parse(line: &[u8]) -> Result<Self, HeaderError> {
        let columns = Columns::parse(line)?;
        Ok(Self {
            columns: columns.len(),
            sim_card: columns.require(name::SIM_CARD)?,
            bytes: columns.require(name::BYTES)?,
            date: columns.require(name::DATE)?,
        })
    }
}

/// Parses the lines below a header.
pub(in crate::ingest) struct CsvParser {
    header: CsvHeader,
    splitter: Splitter,
}

impl CsvParser {
    pub fn new(header: CsvHeader) -> Self {
        Self {
            header,
            splitter: Splitter::default(),
        }
    }

    pub fn parse(&mut self, line: &[u8]) -> Result<UsageRecord<'_>, Defect> {
        let CsvHeader {
            columns,
            sim_card,
            bytes,
            date,
        } = self.header;
        let malformed = |detail: String| Defect::of_line(Reason::Malformed, detail);
        let fields = self
            .splitter
            .split(line)
            .map_err(|error| malformed(error.to_string()))?;
        if fields.len() != columns {
            return Err(malformed(format!(
                "the line has {} fields but the header has {columns} columns; quote fields that contain commas",
                fields.len()
            )));
        }
        let field = |index: usize, name: &'static str| {
            let text = fields.get(index);
            match std::str::from_utf8(text) {
                Ok("") => Err(Defect::missing(name)),
                Ok(text) => Ok(text),
                Err(_) => Err(malformed(format!(
                    "{name} is not valid UTF-8; convert the file to UTF-8"
                ))),
            }
        };
        let sim_card = field(sim_card, name::SIM_CARD)?;
        let bytes = parse_bytes(field(bytes, name::BYTES)?)?;
        let time_us = parse_date(field(date, name::DATE)?)?;
        Ok(UsageRecord {
            sim_card: Cow::Borrowed(sim_card),
            bytes,
            time_us,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(header: &str, line: &str) -> Result<UsageRecord<'static>, Defect> {
        let mut parser = CsvParser::new(CsvHeader::parse(header.as_bytes()).unwrap());
        let record = parser.parse(line.as_bytes())?;
        Ok(UsageRecord {
            sim_card: Cow::Owned(record.sim_card.into_owned()),
            ..record
        })
    }

    #[test]
    fn columns_are_found_by_name() {
        let expected = UsageRecord {
            sim_card: "89440001".into(),
            bytes: 1024,
            time_us: 1_645_142_400_000_000,
        };
        for (header, line) in [
            (
                "sim-card-id,bytes-used,date",
                "89440001,1024,2022-02-18T00:00:00Z",
            ),
            (
                "date,x,bytes_used,SIM_CARD_ID",
                "2022-02-18T00:00:00Z,,1024,89440001",
            ),
            (
                "\"date\", bytes-used ,sim-card-id",
                "\"2022-02-18T00:00:00Z\",\"1024\",89440001",
            ),
        ] {
            assert_eq!(parse(header, line).unwrap(), expected, "{header}");
        }
    }

    #[test]
    fn header_errors_name_the_missing_or_duplicate_column() {
        let problem = |header: &str| CsvHeader::parse(header.as_bytes()).unwrap_err().to_string();
        assert!(
            problem("sim-card-id,date")
                .starts_with("the header has no column bytes-used (it has: sim-card-id, date); ")
        );
        assert_eq!(
            problem("date,sim-card-id,bytes-used,date"),
            "the header has the column date twice; remove or rename one"
        );
        assert_eq!(
            problem("\"date"),
            "the header is not a line of CSV: a quote is not closed; close it, or write each quote \
             within a field twice"
        );
        assert!(
            problem("date,sim-card-id,bytes-used\rx")
                .contains(": there is a carriage return within the line; ")
        );
    }

    #[test]
    fn each_defect_has_its_reason() {
        let reason = |line: &str| {
            let defect = parse("sim-card-id,bytes-used,date", line).unwrap_err();
            (defect.reason, defect.field)
        };
        assert_eq!(reason("1,2"), (Reason::Malformed, None));
        assert_eq!(reason("1,2,3,4"), (Reason::Malformed, None));
        assert_eq!(
            reason("\"1,2,2022-02-18T00:00:00Z"),
            (Reason::Malformed, None)
        );
        assert_eq!(
            reason(",2,2022-02-18T00:00:00Z"),
            (Reason::MissingField, Some("sim-card-id"))
        );
        assert_eq!(
            reason("1,,2022-02-18T00:00:00Z"),
            (Reason::MissingField, Some("bytes-used"))
        );
        assert_eq!(
            reason("1,x,2022-02-18T00:00:00Z"),
            (Reason::InvalidBytes, Some("bytes-used"))
        );
        assert_eq!(reason("1,2,"), (Reason::MissingField, Some("date")));
        assert_eq!(reason("1,2,tomorrow"), (Reason::InvalidDate, Some("date")));
    }

    #[test]
    fn a_carriage_return_and_an_unclosed_quote_are_told_apart() {
        let detail = |line: &str| {
            parse("sim-card-id,bytes-used,date", line)
                .unwrap_err()
                .detail
        };
        assert!(detail("1,2\r3,4").contains("there is a carriage return within the line; "));
        assert!(detail("\r1,2,3").contains("there is a carriage return within the line; "));
        assert!(detail("1,\"2,3").contains("a quote is not closed; "));
        assert!(detail("1,\"2\r,3").contains("a quote is not closed; "));
    }

    #[test]
    fn an_unclosed_quote_spoils_only_its_own_line() {
        let mut parser = CsvParser::new(CsvHeader::parse(b"sim-card-id,bytes-used,date").unwrap());
        assert!(parser.parse(b"\"1,2,3").is_err());
        assert_eq!(parser.parse(b"1,2,2022-02-18T00:00:00Z").unwrap().bytes, 2);
    }

    proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut parser = CsvParser::new(CsvHeader::parse(b"sim-card-id,bytes-used,date").unwrap());
            let _ = parser.parse(&line);
            let _ = CsvHeader::parse(&line);
        }
    }
}
