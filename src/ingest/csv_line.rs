//! Splits one line of CSV (RFC 4180) into fields, and finds columns in a header.

use csv_core::{ReadRecordResult, Reader};

/// A header that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("the header is empty; name the columns in the first line")]
    Empty,
    #[error("the header is {0}")]
    Malformed(SplitError),
    #[error("the header has the column {name} twice; remove or rename one")]
    DuplicateColumn { name: &'static str },
    #[error(
        "the header has no column {name} (it has: {present}); name the columns in the first line"
    )]
    MissingColumn { name: &'static str, present: String },
}

/// A line that is not CSV.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SplitError {
    #[error(
        "not a line of CSV: a quote is not closed; close it, or write each quote within a field twice"
    )]
    UnclosedQuote,
    #[error(
        "not a line of CSV: there is a carriage return within the line; remove it, or end lines \
         with a line feed"
    )]
    CarriageReturn,
}

/// The column names of a header, in lower case, with `_` replaced by `-`.
pub(super) struct Columns {
    names: Vec<String>,
}

impl Columns {
    pub fn parse(line: &[u8]) -> Result<Self, HeaderError> {
        if line.trim_ascii().is_empty() {
            return Err(HeaderError::Empty);
        }
        let mut splitter = Splitter::default();
        let fields = splitter.split(line).map_err(HeaderError::Malformed)?;
        let name = |field| {
            String::from_utf8_lossy(field)
                .trim()
                .to_ascii_lowercase()
                .replace('_', "-")
        };
        Ok(Self {
            names: fields.iter().map(name).collect(),
        })
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The index of an optional column.
    pub fn find(&self, name: &'static str) -> Result<Option<usize>, HeaderError> {
        let mut found = (0..self.names.len()).filter(|&index| self.names[index] == name);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(HeaderError::DuplicateColumn { name }),
            (index, None) => Ok(index),
        }
    }

    /// The index of a required column.
    pub fn require(&self, name: &'static str) -> Result<usize, HeaderError> {
        self.find(name)?.ok_or_else(|| HeaderError::MissingColumn {
            name,
            present: self.names.join(", "),
        })
    }
}

/// Splits lines into unquoted fields, reusing its buffers.
pub(super) struct Splitter {
    reader: Reader,
    output: Vec<u8>,
    ends: Vec<usize>,
}

impl Default for Splitter {
    fn default() -> Self {
        Self {
            reader: Reader::new(),
            output: vec![0; 256],
            ends: vec![0; 16],
        }
    }
}

/// The fields of one line.
pub(super) struct CsvFields<'a> {
    output: &'a [u8],
    ends: &'a [usize],
}

impl<'a> CsvFields<'a> {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.len()).map(|index| self.get(index))
    }

    pub fn get(&self, index: usize) -> &'a [u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.output[start..self.ends[index]]
    }
}

impl Splitter {
    /// Splits a line without a line end.
    ///
    /// # Errors
    /// Returns an error if a quote is not closed or there is a carriage return outside of quotes.
    pub fn split(&mut self, line: &[u8]) -> Result<CsvFields<'_>, SplitError> {
        // The reader would skip carriage returns before the first field.
        if line.first() == Some(&b'\r') {
            return Err(SplitError::CarriageReturn);
        }
        // Enough room: unquoting never lengthens a field, the line end below adds at most one byte,
        // and a line has at most one more field than it has bytes.
        self.output.resize(self.output.len().max(line.len() + 1), 0);
        self.ends.resize(self.ends.len().max(line.len() + 1), 0);
        self.reader.reset();
        let (result, _, written, ends) =
            self.reader
                .read_record(line, &mut self.output, &mut self.ends);
        if result == ReadRecordResult::Record {
            return Err(SplitError::CarriageReturn);
        }
        // The line end completes the record unless a quote is still open.
        let (result, _, more, more_ends) =
            self.reader
                .read_record(b"\n", &mut self.output[written..], &mut self.ends[ends..]);
        if result != ReadRecordResult::Record {
            return Err(SplitError::UnclosedQuote);
        }
        let (written, ends) = (written + more, ends + more_ends);
        Ok(CsvFields {
            output: &self.output[..written],
            ends: &self.ends[..ends],
        })
    }
}
