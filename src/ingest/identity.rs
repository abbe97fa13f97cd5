//! Finds an open source in the ledger (`ingest_sources`) and checks that the part already stored
//! has not changed.
//!
//! A file is identified by the hash of its first 4,096 bytes, or of all its bytes if it was shorter
//! when first ingested. Its name is irrelevant, because files are rotated, renamed, compressed and
//! copied. A file that begins with the complete content of a shorter one is therefore treated as
//! the same file with lines appended.

use std::io::Read;

use anyhow::{Context as _, bail};

use super::lines::{StreamPosition, is_timeout};
use super::session::Session;
use super::source::{OpenSource, Source};
use crate::db::{self, HEAD_BYTES, KnownSource, SourceIdentity, WriteError};

/// The size of a read while hashing the stored part.
const BLOCK_BYTES: usize = 256 * 1024;

/// Finds the source in the ledger, or adds it. Standard input is identified by `source_id`; without
/// one, it belongs to this run only and cannot be resumed.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement.
pub(super) async fn identify(
    session: &mut Session<'_>,
    opened: &OpenSource,
    source_id: Option<&str>,
    run: i64,
) -> Result<KnownSource, WriteError> {
    let identity = match (&opened.source, source_id) {
        (Source::File(_), _) => return identify_file(session, opened).await,
        (Source::Stdin, Some(name)) => SourceIdentity::Stream(name.to_owned()),
        (Source::Stdin, None) => SourceIdentity::Run(run),
    };
    session
        .repeat(async |connection| db::enter_source(connection, &identity, &opened.name).await)
        .await
}

async fn identify_file(
    session: &mut Session<'_>,
    opened: &OpenSource,
) -> Result<KnownSource, WriteError> {
    let head_bytes = opened.head.len().min(HEAD_BYTES);
    let mut lengths = session
        .repeat(async |connection| db::head_lengths(connection).await)
        .await?;
    lengths.push(head_bytes);
    let identity_of = |length: usize| {
        let head = opened.head.get(..length)?;
        Some(SourceIdentity::File {
            head_bytes: length,
            hash: blake3::hash(head).to_hex().to_string(),
        })
    };
    let candidates: Vec<SourceIdentity> = lengths.into_iter().filter_map(identity_of).collect();
    let found = session
        .repeat(async |connection| db::find_file(connection, &candidates).await)
        .await?;
    let Some(identity) = identity_of(head_bytes) else {
        return Err(WriteError::Refused("the file is empty".into()));
    };
    match found {
        // A shorter file of which nothing is stored, such as one with only a header, must not match
        // every other file that begins with it, so this file takes over its row.
        Some(found)
            if found.position == 0 && found.head_bytes != i32::try_from(head_bytes).ok() =>
        {
            session
                .repeat(async |connection| db::rename_source(connection, found.id, &identity).await)
                .await?;
            Ok(found)
        }
        Some(found) => Ok(found),
        None => {
            session
                .repeat(async |connection| {
                    db::enter_source(connection, &identity, &opened.name).await
                })
                .await
        }
    }
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
                    &format!("but it now has only {}", passed.place.position)
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
    let problem = format!(
        "but line {}, which had no line end then, is longer now",
        known.line + 1
    );
    anyhow::ensure!(is_complete, "{}", changed(opened, known, &problem));
    Ok(())
}

/// The message for a source whose stored part has changed, ending in what to do.
fn changed(opened: &OpenSource, known: &KnownSource, problem: &str) -> String {
    let OpenSource { name, source, .. } = opened;
    let advice = match source {
        Source::File(_) => format!(
            "restore the file's original contents, or, if none of its records was stored before, ingest it from \
             standard input: simusage ingest - < {name}"
        ),
        Source::Stdin => {
            "replay the stream from its beginning, or use another --source-id for different records"
                .to_owned()
        }
    };
    let when = known.updated_at.format("%Y-%m-%d %H:%M UTC");
    format!(
        "{name}: its first {} bytes were ingested before (as {}, {when}), {problem}; {advice}",
        known.position, known.name
    )
}
