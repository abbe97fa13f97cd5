//! Finds an open source in the ledger (`ingest_sources`) and checks that the part already stored
//! has not changed.
//!
//! A file is recognised by its lines, not by its name, because files are rotated, renamed, compressed
//! and copied. Its fingerprint is compared with those in the ledger, and added to them, while no other
//! process does the same:
//!
//! 1. All of its lines are the first lines of a stored file: it is already ingested.
//! 2. Its first lines are all that is stored of a file: it is that file, and has grown.
//! 3. It shares records with a stored file, or one that another process is ingesting: it is refused as
//!    a changed copy; [`Copied::refuse_copies`] has the numbers. After a stored beginning, this applies
//!    to the lines that follow.
//! 4. Otherwise it is new.
//!
//! Fewer common records do not make a copy, because equal records in different files are different
//! records.

use std::io::Read;

use anyhow::{Context as _, anyhow, bail};

use super::failure::Failure;
use super::fingerprint::{
    Fingerprint, KnownRecords, Overlap, Sample, as_float, lines_after_digests, records_up_to,
};
use super::line_hash::hash_line;
use super::lines::{StreamPosition, is_timeout};
use super::scan::Scan;
use super::session::Session;
use super::source::{OpenSource, Source};
use crate::db::{
    self, FileRegistration, FoundRecord, KnownSource, SimilarFile, SourceIdentity,
    StoredFingerprint, WriteError,
};

/// The size of a read while hashing the stored part.
const BLOCK_BYTES: usize = 256 * 1024;

/// What is known of a source.
pub(super) enum Identified {
    /// It is to be read after its stored part.
    ToRead(KnownSource),
    /// It has no line that is not in this source.
    AlreadyIngested(KnownSource),
}

/// How sources are identified.
#[derive(Clone, Copy)]
pub(super) struct IdentifyOptions<'a> {
    /// The name of standard input. Without one, it belongs to this run only and cannot be resumed.
    pub source_id: Option<&'a str>,
    /// Whether a file is accepted that shares records with others.
    pub as_new: bool,
    /// Whether a last line without a line end is complete.
    pub complete: bool,
    /// The number of this run.
    pub run: i64,
}

/// Finds the source in the ledger, or adds it.
///
/// # Errors
/// Returns an error if the source is a changed copy of a stored one, or if the database is
/// unreachable or rejects a statement.
pub(super) async fn identify(
    session: &mut Session<'_>,
    opened: &OpenSource,
    options: IdentifyOptions<'_>,
) -> Result<Identified, Failure> {
    let identity = match (&opened.scan, options.source_id) {
        (Some(scan), _) => return identify_file(session, opened, scan, options).await,
        (None, Some(name)) => SourceIdentity::Stream(name.to_owned()),
        (None, None) => SourceIdentity::Run(options.run),
    };
    let known = session
        .repeat(async |connection| db::enter_source(connection, &identity, &opened.name).await)
        .await?;
    Ok(Identified::ToRead(known))
}

async fn identify_file(
    session: &mut Session<'_>,
    opened: &OpenSource,
    scan: &Scan,
    options: IdentifyOptions<'_>,
) -> Result<Identified, Failure> {
    let fingerprint = &scan.fingerprint;
    // Most files of a folder that is ingested again have not changed.
    let unchanged = session
        .repeat(async |connection| db::find_whole_file(connection, end(fingerprint)).await)
        .await?;
    if let Some(known) = unchanged {
        return Ok(Identified::AlreadyIngested(known));
    }
    let stored = to_store(fingerprint, path_hash(&opened.source));
    let identified = session
        .repeat(async |connection| {
            let registration = FileRegistration::begin(connection).await?;
            register(registration, opened, fingerprint, &stored, options).await
        })
        .await?;
    let identified = identified.map_err(Failure::of_source)?;
    if let Identified::ToRead(known) = &identified {
        session.set_claimed(known.id);
    }
    Ok(identified)
}

/// Compares a file with those in the ledger, and adds it. The inner error is that it is refused.
async fn register(
    registration: FileRegistration<'_>,
    opened: &OpenSource,
    fingerprint: &Fingerprint,
    stored: &StoredFingerprint,
    options: IdentifyOptions<'_>,
) -> Result<anyhow::Result<Identified>, WriteError> {
    let name = &*opened.name;
    let identity = SourceIdentity::File(fingerprint.identity());
    let hashes: Vec<i64> = fingerprint
        .looked_up()
        .map(|sample| sample.hash.cast_signed())
        .collect();
    let similar = registration
        .find_files(&identity, stored.path, &hashes)
        .await?;
    let whole = |file: &&SimilarFile| contains(file, fingerprint, options.complete);
    if let Some(whole) = similar.iter().find(whole)
        && !must_be_read_again(whole, fingerprint)
    {
        return Ok(Ok(Identified::AlreadyIngested(whole.known.clone())));
    }
    let continued = similar
        .iter()
        .filter(|file| is_continued(file, fingerprint))
        .max_by_key(|file| (file.known.line, file.known.position));
    if !options.as_new {
        let copied = Copied {
            name,
            fingerprint,
            continued,
        };
        if let Err(refused) = copied.refuse_copies(&similar) {
            return Ok(Err(refused));
        }
        let has_records = |file: &&SimilarFile| !file.fingerprint.samples.is_empty();
        if similar.iter().filter(has_records).count() > 1 {
            let found = registration.find_records(&hashes).await?;
            if let Err(refused) = copied.refuse_collection(&found, &similar) {
                return Ok(Err(refused));
            }
        }
    }
    let known = match continued {
        None => registration.enter(&identity, name).await?,
        Some(file) => {
            let known = file.known.clone();
            if known.stored == 0 && known.position > 0 && registration.reset_source(&known).await? {
                log::info!(
                    "{name}: none of its records are stored and {} were rejected; reading it from the start",
                    known.rejected
                );
                KnownSource {
                    position: 0,
                    line: 0,
                    prefix_hash: vec![],
                    batches: known.batches + 1,
                    rejected: 0,
                    ..known
                }
            } else {
                known
            }
        }
    };
    registration.claim(known.id, stored).await?;
    Ok(Ok(Identified::ToRead(known)))
}

/// Whether none of the file's records was stored.
fn must_be_read_again(file: &SimilarFile, fingerprint: &Fingerprint) -> bool {
    file.known.stored == 0 && lines_of(file) == fingerprint.lines()
}

/// The number of lines that are stored, without a last one that has no line end.
fn lines_of(file: &SimilarFile) -> u64 {
    u64::try_from(file.known.line).unwrap_or_default()
}

/// The number of lines whose records may be stored. Of a file that another process is ingesting, these
/// are all.
fn lines_to_compare(file: &SimilarFile) -> u64 {
    let lines = lines_of(file);
    let had = lines_had(file);
    if file.is_claimed || had == lines + 1 {
        had.max(lines)
    } else {
        lines
    }
}

/// The number of lines that the file had when it was last read.
fn lines_had(file: &SimilarFile) -> u64 {
    let had = file.fingerprint.ends.first().map_or(0, |end| end.0);
    u64::try_from(had).unwrap_or_default()
}

/// Whether all lines are among the stored lines of `file`. Where `file` has a line, one that is cut and no
/// whole record is taken for its beginning, unless it is complete.
fn contains(file: &SimilarFile, fingerprint: &Fingerprint, complete: bool) -> bool {
    let lines = fingerprint.lines();
    has_first_lines(file, fingerprint, lines, fingerprint.chain())
        || (fingerprint.last_is_cut
            && !complete
            && lines > 1
            && lines <= lines_of(file)
            && has_first_lines(
                file,
                fingerprint,
                lines - 1,
                fingerprint.chain_before_last(),
            ))
}

/// Whether the first lines, of which `chain` is the hash, are the first lines of `file`.
fn has_first_lines(file: &SimilarFile, fingerprint: &Fingerprint, lines: u64, chain: u64) -> bool {
    begins_like(file, fingerprint, lines)
        && (lines_after_digests(lines) == 0
            || file
                .fingerprint
                .ends
                .contains(&(lines.cast_signed(), chain.cast_signed())))
}

/// Whether the first lines are among the stored lines of `file`, except perhaps the last of them,
/// after which there is no digest.
fn begins_like(file: &SimilarFile, fingerprint: &Fingerprint, lines: u64) -> bool {
    lines <= lines_of(file)
        && !file.fingerprint.digests.is_empty()
        && fingerprint
            .first_difference(&file.fingerprint.digests, lines)
            .is_none()
}

/// Whether the stored lines of `file` are the first lines.
fn is_continued(file: &SimilarFile, fingerprint: &Fingerprint) -> bool {
    let lines = lines_of(file);
    let agrees = |lines| {
        lines <= fingerprint.lines()
            && fingerprint
                .first_difference(&file.fingerprint.digests, lines)
                .is_none()
    };
    if file.fingerprint.digests.is_empty() {
        return false;
    }
    if lines > 0 {
        return agrees(lines);
    }
    // Nothing is stored yet, or only a line without a line end. The lines that the file had must
    // still be there; the last one may have been longer.
    let had = lines_had(file);
    agrees(had) || (agrees(had.saturating_sub(1)) && (had > 1 || file.has_same_path))
}

/// A file that may be a changed copy.
struct Copied<'a> {
    name: &'a str,
    fingerprint: &'a Fingerprint,
    /// The file of which it has the stored lines at its beginning.
    continued: Option<&'a SimilarFile>,
}

impl Copied<'_> {
    /// The number of lines at the beginning that are not compared.
    fn start(&self) -> u64 {
        self.continued.map_or(0, lines_of)
    }

    /// Refuses a file that is mostly stored already, or about to be, other than as the beginning of
    /// `continued`. At least half of the records of either must occur in the other, and at least three;
    /// or all of its records, and at least two; or, if both have the same path, a tenth and one.
    fn refuse_copies(&self, similar: &[SimilarFile]) -> anyhow::Result<()> {
        let start = self.start();
        let ours = self.fingerprint.known_after(start);
        let new = ours.records();
        for file in similar {
            let is_continued = self
                .continued
                .is_some_and(|continued| continued.known.id == file.known.id);
            if file.known.position == 0 && !file.is_claimed && !is_continued {
                continue;
            }
            if self.continued.is_none() {
                self.refuse_beginning(file)?;
            }
            let digests = &file.fingerprint.digests;
            let lines = lines_to_compare(file);
            let (theirs, records) = if is_continued {
                // Its beginning once more.
                let theirs = self.fingerprint.known_up_to(start);
                let records = theirs.records();
                (theirs, records)
            } else {
                let samples = file.fingerprint.samples.iter();
                let found = samples.map(|&(hash, line)| as_sample(hash, line));
                let theirs = KnownRecords::of_stored(digests, found, lines);
                (theirs, as_float(records_up_to(digests, lines)))
            };
            let overlap = ours.overlap(&theirs);
            let (least_found, least_share) = if file.has_same_path && !is_continued {
                (1, 0.1)
            } else if overlap.found == self.fingerprint.records_after(start) {
                (2, 0.5)
            } else {
                (3, 0.5)
            };
            if overlap.found < least_found || !reaches(overlap, least_share * new.min(records)) {
                continue;
            }
            if file.is_claimed {
                bail!(
                    "{}: another process is ingesting a file that has the same records ({}); run again \
                     when it has ended",
                    self.name,
                    file.known.name
                );
            }
            let difference = self
                .fingerprint
                .first_difference(digests, lines_of(file))
                .filter(|_| self.continued.is_none())
                .map_or_else(String::new, |lines| {
                    if lines.start() == lines.end() {
                        format!("; line {} is the first that differs", lines.end())
                    } else {
                        let (first, last) = lines.into_inner();
                        format!("; the first line that differs is between {first} and {last}")
                    }
                });
            let from = format!("from {}, {}", file.known.name, when(&file.known));
            return Err(self.refused(overlap, &from, &difference));
        }
        Ok(())
    }

    /// Refuses a file that begins like a stored one, if its last lines cannot be compared.
    fn refuse_beginning(&self, file: &SimilarFile) -> anyhow::Result<()> {
        let lines = self.fingerprint.lines();
        if !begins_like(file, self.fingerprint, lines) || file.known.stored == 0 {
            return Ok(());
        }
        let uncompared = lines_after_digests(lines);
        if uncompared == 0 {
            return Ok(());
        }
        bail!(
            "{}: all of its lines except the last {uncompared} are stored already (from {}, {}), and the last \
             lines cannot be compared; leave the file out if it is an older version of {1}, or pass \
             --as-new to store all of its records",
            self.name,
            file.known.name,
            when(&file.known)
        )
    }

    /// Refuses a file of which at least half of the records, and three, are stored from several files.
    fn refuse_collection(
        &self,
        found: &[FoundRecord],
        similar: &[SimilarFile],
    ) -> anyhow::Result<()> {
        let ours = self.fingerprint.known_after(self.start());
        let mut theirs = KnownRecords::default();
        for record in found {
            let sample = as_sample(record.hash, record.line);
            theirs.add_found(sample, record.files.cast_unsigned());
        }
        let overlap = ours.overlap(&theirs);
        if overlap.found < 3 || !reaches(overlap, 0.5 * ours.records()) {
            return Ok(());
        }
        let example = similar.first().map_or("", |file| &*file.known.name);
        let from = format!("from several files, such as {example}");
        Err(self.refused(overlap, &from, ""))
    }

    /// The error for a file with these records in common with others.
    fn refused(&self, overlap: Overlap, from: &str, difference: &str) -> anyhow::Error {
        let start = self.start();
        let records = self.fingerprint.records_after(start);
        anyhow!(
            "{}: {}{:.0} of its {records} {}records are stored already ({from}){difference}. \
             The stored records would count twice. Write only the missing records to a separate file and \
             ingest that, or pass --as-new if all records are new and only look the same",
            self.name,
            if overlap.deviation > 0.0 {
                "about "
            } else {
                ""
            },
            overlap.records.min(as_float(records)),
            if start > 0 { "new " } else { "" },
        )
    }
}

/// Whether there are so many common records, or, where they are estimated, may well be.
fn reaches(overlap: Overlap, records: f64) -> bool {
    overlap.records + 2.0 * overlap.deviation >= records
}

fn as_sample(hash: i64, line: i64) -> Sample {
    Sample {
        hash: hash.cast_unsigned(),
        line: line.cast_unsigned(),
    }
}

/// The number of lines and the hash of all of them, as stored.
fn end(fingerprint: &Fingerprint) -> (i64, i64) {
    (
        fingerprint.lines().cast_signed(),
        fingerprint.chain().cast_signed(),
    )
}

fn to_store(fingerprint: &Fingerprint, path: i64) -> StoredFingerprint {
    let mut samples: Vec<(i64, i64)> = fingerprint
        .samples()
        .map(|sample| (sample.hash.cast_signed(), sample.line.cast_signed()))
        .collect();
    samples.sort_unstable();
    StoredFingerprint {
        digests: fingerprint.digests().to_vec(),
        ends: vec![end(fingerprint)],
        samples,
        path,
    }
}

/// A hash of the absolute path, without symbolic links; of the given one if there is no such file, as
/// for a pipe.
fn path_hash(source: &Source) -> i64 {
    let Source::File(path) = source else {
        return 0;
    };
    let absolute = path.canonicalize();
    let path = absolute.as_ref().unwrap_or(path);
    hash_line(path.as_os_str().as_encoded_bytes()).cast_signed()
}

fn when(known: &KnownSource) -> impl std::fmt::Display {
    known.updated_at.format("%Y-%m-%d %H:%M UTC")
}

/// The part of a source that is already stored.
pub(super) struct StoredPrefix {
    /// Where it ends and reading resumes.
    pub place: StreamPosition,
    /// Its first bytes, which contain the header of CSV.
    pub beginning: Vec<u8>,
    /// Whether it ends within a line.
    pub in_line: bool,
}

/// Reads the part that is already stored and compares its hash with the ledger. Keeps its first
/// `max_beginning` bytes.
///
/// # Errors
/// Returns an error if the source cannot be read or that part has changed.
pub(super) fn skip_stored(
    opened: &mut OpenSource,
    known: &KnownSource,
    max_beginning: usize,
) -> anyhow::Result<StoredPrefix> {
    let mut passed = StoredPrefix {
        place: StreamPosition::default(),
        beginning: vec![],
        in_line: false,
    };
    let stored = u64::try_from(known.position).unwrap_or_default();
    let mut block = vec![0; BLOCK_BYTES];
    while passed.place.position < stored {
        let wanted = usize::try_from(stored - passed.place.position)
            .unwrap_or(usize::MAX)
            .min(block.len());
        let read = match opened.input.read(&mut block[..wanted]) {
            Ok(0) => bail!(
                "{}",
                changed(
                    opened,
                    known,
                    &format!("but there are only {} now", passed.place.position)
                )
            ),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted || is_timeout(&error) => {
                continue;
            }
            Err(error) => {
                let context = format!("reading {} at byte {}", opened.name, passed.place.position);
                return Err(error).context(context);
            }
        };
        let piece = &block[..read];
        passed.place.hasher.update(piece);
        passed.place.position += read as u64;
        let missing = max_beginning.saturating_sub(passed.beginning.len());
        passed
            .beginning
            .extend_from_slice(&piece[..missing.min(read)]);
        passed.in_line = piece.last() != Some(&b'\n');
    }
    passed.place.lines = u64::try_from(known.line).unwrap_or_default();
    if stored > 0 && passed.place.hasher.finalize().as_bytes().as_slice() != known.prefix_hash {
        bail!("{}", changed(opened, known, "and have changed since"));
    }
    Ok(passed)
}

/// Refuses a source whose last line had no line end when it was stored as a record, and is longer
/// now: the stored record was incomplete, and it cannot be removed because equal records are
/// indistinguishable. A line end that was added since is accepted.
///
/// # Errors
/// Returns an error if the line is longer now.
pub(super) fn refuse_grown_line(
    opened: &OpenSource,
    known: &KnownSource,
    next: &[u8],
) -> anyhow::Result<()> {
    let is_complete =
        next.is_empty() || next.starts_with(b"\n") || next.starts_with(b"\r\n") || next == b"\r";
    if is_complete {
        return Ok(());
    }
    Err(anyhow!(
        "{}: line {}, which had no line ending when it was ingested ({}), has grown since. The record that \
         was stored cannot be changed: restore the line as it was, and put the \
         added text on a new line",
        opened.name,
        known.line + 1,
        when(known)
    ))
}

/// The message for a source whose stored part has changed, ending in what to do.
fn changed(opened: &OpenSource, known: &KnownSource, problem: &str) -> String {
    let OpenSource { name, source, .. } = opened;
    let advice = match source {
        // Its lines have been compared already.
        Source::File(_) => {
            "the change must be in its line endings or byte order mark; restore them, or write only the \
             missing records to a separate file"
        }
        Source::Stdin => {
            "replay the stream from its beginning, or use another --source-id for different records"
        }
    };
    format!(
        "{name}: its first {} bytes were ingested before (as {}, {}), {problem}; {advice}",
        known.position,
        known.name,
        when(known)
    )
}
