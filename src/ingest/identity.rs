//! Finds an open source in the ledger (`ingest_sources`) and checks that the part already stored
//! has not changed.
//!
//! A file is recognised by its lines, not by its name, because files are rotated, renamed, compressed
//! and copied. Its fingerprint is compared with those in the ledger:
//!
//! 1. All of its lines are the first lines of a stored file: it is already ingested.
//! 2. Its first lines are all that is stored of a file: it is that file, and has grown.
//! 3. It shares records with a stored file: it is refused as a changed copy. At least half of the
//!    records of either must occur in the other, and at least three; or, if both have the same name,
//!    a tenth and one. After a stored beginning, this applies to the lines that follow.
//! 4. Otherwise it is new.
//!
//! Fewer common records do not make a copy, because equal records in different files are different
//! records.

use std::io::Read;

use anyhow::{Context as _, anyhow, bail};

use super::failure::Failure;
use super::fingerprint::{Fingerprint, Sample};
use super::lines::{StreamPosition, is_timeout};
use super::scan::Scan;
use super::session::Session;
use super::source::{OpenSource, Source};
use crate::db::{self, KnownSource, SimilarFile, SourceIdentity, StoredFingerprint};

/// The size of a read while hashing the stored part.
const BLOCK_BYTES: usize = 256 * 1024;

/// What is known of a source.
pub(super) enum Identified {
    /// It is to be read after its stored part.
    ToRead(KnownSource),
    /// It has no line that is not in this source.
    AlreadyIngested(KnownSource),
}

/// Finds the source in the ledger, or adds it. Standard input is identified by `source_id`; without
/// one, it belongs to this run only and cannot be resumed. With `as_new`, a file that shares records
/// with others is not refused.
///
/// # Errors
/// Returns an error if the source is a changed copy of a stored one, or if the database is
/// unreachable or rejects a statement.
pub(super) async fn identify(
    session: &mut Session<'_>,
    opened: &OpenSource,
    source_id: Option<&str>,
    as_new: bool,
    run: i64,
) -> Result<Identified, Failure> {
    let identity = match (&opened.scan, source_id) {
        (Some(scan), _) => return identify_file(session, opened, scan, as_new).await,
        (None, Some(name)) => SourceIdentity::Stream(name.to_owned()),
        (None, None) => SourceIdentity::Run(run),
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
    as_new: bool,
) -> Result<Identified, Failure> {
    let fingerprint = &scan.fingerprint;
    let name = &*opened.name;
    // Most files of a folder that is ingested again have not changed.
    let unchanged = session
        .repeat(async |connection| db::find_whole_file(connection, end(fingerprint)).await)
        .await?;
    if let Some(known) = unchanged {
        return Ok(Identified::AlreadyIngested(known));
    }
    let identity = SourceIdentity::File(fingerprint.identity());
    let hashes: Vec<i64> = fingerprint
        .looked_up()
        .map(|sample| sample.hash.cast_signed())
        .collect();
    let similar = session
        .repeat(async |connection| db::find_files(connection, &identity, name, &hashes).await)
        .await?;
    if let Some(whole) = similar.iter().find(|file| contains(file, fingerprint))
        && !must_be_read_again(whole, fingerprint)
    {
        return Ok(Identified::AlreadyIngested(whole.known.clone()));
    }
    let continued = similar
        .iter()
        .filter(|file| is_continued(file, fingerprint, name))
        .max_by_key(|file| (file.known.line, file.known.position));
    if !as_new {
        refuse_copies(opened, fingerprint, &similar, continued).map_err(Failure::of_source)?;
    }
    let stored = to_store(fingerprint);
    let Some(continued) = continued else {
        let known = session
            .repeat(async |connection| db::enter_file(connection, &identity, name, &stored).await)
            .await?;
        return Ok(Identified::ToRead(known));
    };
    let mut known = continued.known.clone();
    if known.stored == 0
        && known.position > 0
        && session
            .repeat(async |connection| db::reset_source(connection, &known).await)
            .await?
    {
        log::info!(
            "{name}: none of its records are stored and {} were rejected; reading it from the start",
            known.rejected
        );
        known = KnownSource {
            position: 0,
            line: 0,
            prefix_hash: vec![],
            batches: known.batches + 1,
            rejected: 0,
            ..known
        };
    }
    session
        .repeat(async |connection| db::set_fingerprint(connection, known.id, &stored).await)
        .await?;
    Ok(Identified::ToRead(known))
}

/// Whether none of the file's records was stored.
fn must_be_read_again(file: &SimilarFile, fingerprint: &Fingerprint) -> bool {
    file.known.stored == 0 && lines_of(file) == fingerprint.lines()
}

/// The number of lines that are stored, without a last one that has no line end.
fn lines_of(file: &SimilarFile) -> u64 {
    u64::try_from(file.known.line).unwrap_or_default()
}

/// Whether all lines are certainly among the stored lines of `file`.
fn contains(file: &SimilarFile, fingerprint: &Fingerprint) -> bool {
    begins_like(file, fingerprint)
        && (fingerprint.lines_after_digests() == 0
            || file.fingerprint.ends.contains(&end(fingerprint)))
}

/// Whether the lines are among the stored lines of `file`, except perhaps the last ones, which have
/// no digest.
fn begins_like(file: &SimilarFile, fingerprint: &Fingerprint) -> bool {
    let lines = lines_of(file);
    fingerprint.lines() <= lines
        && !file.fingerprint.digests.is_empty()
        && first_difference(file, fingerprint, lines).is_none()
}

/// Whether the stored lines of `file` are the first lines.
fn is_continued(file: &SimilarFile, fingerprint: &Fingerprint, name: &str) -> bool {
    let lines = lines_of(file);
    let agrees = |lines| {
        lines <= fingerprint.lines() && first_difference(file, fingerprint, lines).is_none()
    };
    if file.fingerprint.digests.is_empty() {
        return false;
    }
    if lines > 0 {
        return agrees(lines);
    }
    // Nothing is stored yet, or only a line without a line end. The lines that the file had must
    // still be there; the last one may have been longer.
    let had = file.fingerprint.ends.first().map_or(0, |end| end.0);
    let had = u64::try_from(had).unwrap_or_default();
    agrees(had) || (agrees(had.saturating_sub(1)) && (had > 1 || file.known.name == name))
}

fn first_difference(file: &SimilarFile, fingerprint: &Fingerprint, lines: u64) -> Option<u64> {
    fingerprint.first_difference(&file.fingerprint.digests, lines)
}

/// Refuses a file that is mostly stored already, other than as the beginning of `continued`.
fn refuse_copies(
    opened: &OpenSource,
    fingerprint: &Fingerprint,
    similar: &[SimilarFile],
    continued: Option<&SimilarFile>,
) -> anyhow::Result<()> {
    let start = continued.map_or(0, lines_of);
    let continued_id = continued.map(|file| file.known.id);
    let others = similar
        .iter()
        .filter(|file| Some(file.known.id) != continued_id && file.known.position > 0);
    for file in others {
        let known = &file.known;
        if continued.is_none() && begins_like(file, fingerprint) && known.stored > 0 {
            bail!(
                "{}: all of its lines except the last {} are stored already (from {}, {}), and the last lines \
                 cannot be compared; leave the file out if it is an older version of {2}, or pass \
                 --as-new to store all of its records",
                opened.name,
                fingerprint.lines_after_digests(),
                known.name,
                when(known)
            );
        }
        let samples: Vec<Sample> = file
            .fingerprint
            .samples
            .iter()
            .map(|&(hash, line)| Sample {
                hash: hash.cast_unsigned(),
                line: line.cast_unsigned(),
            })
            .collect();
        let (found, in_common) = fingerprint.in_common(&samples, start);
        let new = fingerprint.records().saturating_sub(start);
        let theirs = u64::try_from(known.stored + known.rejected).unwrap_or_default();
        let (least_found, least_share) = if known.name == *opened.name {
            (1, 0.1)
        } else {
            (3, 0.5)
        };
        if found < least_found || in_common < least_share * as_float(new.min(theirs)) {
            continue;
        }
        let difference = first_difference(file, fingerprint, lines_of(file))
            .filter(|_| continued.is_none())
            .map_or_else(String::new, |line| {
                format!("; line {line} is the first that differs")
            });
        bail!(
            "{}: about {:.0} of its {} {}records are stored already (from {}, {}){difference}. \
             The stored records would count twice. Write only the missing records to a separate file and \
             ingest that, or pass --as-new if all records are new and only look the same",
            opened.name,
            in_common.min(as_float(new.min(theirs))),
            new,
            if start > 0 { "new " } else { "" },
            known.name,
            when(known)
        );
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for estimates only")]
fn as_float(number: u64) -> f64 {
    number as f64
}

/// The number of lines and the digest of all of them, as stored.
fn end(fingerprint: &Fingerprint) -> (i64, i64) {
    (
        fingerprint.lines().cast_signed(),
        fingerprint.chain().cast_signed(),
    )
}

fn to_store(fingerprint: &Fingerprint) -> StoredFingerprint {
    let mut samples: Vec<(i64, i64)> = fingerprint
        .samples()
        .map(|sample| (sample.hash.cast_signed(), sample.line.cast_signed()))
        .collect();
    samples.sort_unstable();
    StoredFingerprint {
        digests: fingerprint.digests().to_vec(),
        ends: vec![end(fingerprint)],
        samples,
    }
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
