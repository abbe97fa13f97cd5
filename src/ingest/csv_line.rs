//! One line of CSV (RFC 4180), and the columns of a header.

use csv_core::{ReadRecordResult, Reader};

/// The names of a header, in lower case with `-` for `_`.
pub(super) struct Columns {
    names: Vec<String>,
}

impl Columns {
    /// Reads a header.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        if line.trim_ascii().is_empty() {
            return Err("the header is empty".to_owned());
        }
        let mut splitter = Splitter::default();
        let fields = splitter
            .split(line)
            .ok_or("the header is not a line of CSV")?;
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

    /// How many columns there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The index of a column, if there is one of that name.
    pub fn find(&self, name: &str) -> Result<Option<usize>, String> {
        let mut found = (0..self.names.len()).filter(|&index| self.names[index] == name);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(format!("the header has the column {name} twice")),
            (index, None) => Ok(index),
        }
    }

    /// The index of a column that must be there.
    pub fn require(&self, name: &str) -> Result<usize, String> {
        let missing = || {
            let names = self.names.join(", ");
            format!(
                "the header has no column {name} (it has: {names}); name the columns in the first line"
            )
        };
        self.find(name)?.ok_or_else(missing)
    }
}

/// Splits one line into its fields, unquoted.
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
pub(super) struct Fields<'a> {
    output: &'a [u8],
    ends: &'a [usize],
}

impl<'a> Fields<'a> {
    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// A field by its index.
    pub fn get(&self, index: usize) -> &'a [u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.output[start..self.ends[index]]
    }
}

impl Splitter {
    /// The fields, or `None` if a quote is not closed.
    pub fn split(&mut self, line: &[u8]) -> Option<Fields<'_>> {
        // Unquoting only shortens, the line end below may add one, and every field but the first has a comma.
        self.output.resize(self.output.len().max(line.len() + 1), 0);
        self.ends.resize(self.ends.len().max(line.len() + 1), 0);
        self.reader.reset();
        let (result, _, written, ends) =
            self.reader
                .read_record(line, &mut self.output, &mut self.ends);
        if result == ReadRecordResult::Record {
            return None;
        }
        // The line end closes the record, unless it stands inside quotes.
        let (result, _, more, more_ends) =
            self.reader
                .read_record(b"\n", &mut self.output[written..], &mut self.ends[ends..]);
        if result != ReadRecordResult::Record {
            return None;
        }
        let (written, ends) = (written + more, ends + more_ends);
        Some(Fields {
            output: &self.output[..written],
            ends: &self.ends[..ends],
        })
    }
}
