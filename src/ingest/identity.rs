//! Which source of the ledger an open source is, and whether what was stored of it is still what it begins with.
//!
//! A file is known by the hash of its first 4,096 bytes, or of all its bytes if it was shorter when it was first
//! seen; its name says nothing, because files are rotated, renamed, compressed and copied. So one file that begins
//! with the whole of another is taken for that file, grown.

use std::io::Read;

use anyhow::{Context as _, bail};

use super::lines::{StreamPosition, is_silence};
use super::session::Session;
use super::source::{Opened, Source};
use crate::db::{self, HEAD_BYTES, Identity, KnownSource, WriteError};

/// How much is read at once while looking for changes.
const BLOCK_BYTES: usize = 256 * 1024;

/// Finds the source in the ledger, or adds it. Standard input has the name `source_id`, or else is known to this
/// run alone.
///
/// # Errors
/// The database refuses or is away.
pub(super) async fn recognise(
    session: &mut Session<'_>,
    opened: &Opened,
    source_id: Option<&str>,
    run: i64,
) -> Result<KnownSource, WriteError> {
    let identity = match (&opened.source, source_id) {
        (Source::File(_), _) => return recognise_file(session, opened).await,
        (Source::Stdin, Some(name)) => Identity::Stream(name.to_owned()),
        (Source::Stdin, None) => Identity::Run(run),
    };
    session
        .repeat(async |connection| db::enter_source(connection, &identity, &opened.name).await)
        .await
}

async fn recognise_file(
    session: &mut Session<'_>,
    opened: &Opened,
) -> Result<KnownSource, WriteError> {
    let own = opened.head.len().min(HEAD_BYTES);
    let mut lengths = session
        .repeat(async |connection| db::head_lengths(connection).await)
        .await?;
    lengths.push(own);
    let beginning = |length: usize| {
        let head = opened.head.get(..length)?;
        Some(Identity::File {
            head_bytes: length,
            hash: blake3::hash(head).to_hex().to_string(),
        })
    };
    let beginnings: Vec<Identity> = lengths.into_iter().filter_map(beginning).collect();
    let found = session
        .repeat(async |connection| db::find_file(connection, &beginnings).await)
        .await?;
    let Some(identity) = beginning(own) else {
        return Err(WriteError::Refused("the file is empty".into()));
    };
    match found {
        // A shorter file of which nothing is stored, such as a header alone, must not stand in the way of every
        // other file that begins alike.
        Some(found) if found.position == 0 && found.head_bytes != i32::try_from(own).ok() => {
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

/// What lies before the place where reading goes on.
pub(super) struct Passed {
    pub place: StreamPosition,
    /// The first bytes of the source.
    pub beginning: Vec<u8>,
    /// Whether the place is not behind a line end.
    pub in_line: bool,
}

/// Reads over what is stored already, and compares it with what it was then. The first `longest` bytes are kept.
///
/// # Errors
/// The source cannot be read, or has changed.
pub(super) fn pass_over(
    opened: &mut Opened,
    known: &KnownSource,
    longest: usize,
) -> anyhow::Result<Passed> {
    let mut passed = Passed {
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
                    &format!(", and it has {} now", passed.place.position)
                )
            ),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted || is_silence(&error) => {
                continue;
            }
            Err(error) => {
                let place = format!("reading {} at byte {}", opened.name, passed.place.position);
                return Err(error).context(place);
            }
        };
        let piece = &block[..read];
        passed.place.hasher.update(piece);
        passed.place.position += read as u64;
        let missing = longest.saturating_sub(passed.beginning.len());
        passed
            .beginning
            .extend_from_slice(&piece[..missing.min(read)]);
        passed.in_line = piece.last() != Some(&b'\n');
    }
    passed.place.lines = u64::try_from(known.line).unwrap_or_default();
    if stored > 0 && passed.place.hasher.finalize().as_bytes().as_slice() != known.prefix_hash {
        bail!(
            "{}",
            changed(opened, known, ", and they have changed since")
        );
    }
    Ok(passed)
}

/// Refuses a source whose last line was stored as a record and goes on now: it was not yet whole then, and what is
/// stored can't be told from equal records of others. A line end that comes later is welcome.
///
/// # Errors
/// The line goes on.
pub(super) fn refuse_grown_line(
    opened: &Opened,
    known: &KnownSource,
    next: &[u8],
) -> anyhow::Result<()> {
    let ends_now =
        next.is_empty() || next.starts_with(b"\n") || next.starts_with(b"\r\n") || next == b"\r";
    let problem = format!(
        " with line {} as their last, which had no line end then and goes on now",
        known.line + 1
    );
    anyhow::ensure!(ends_now, "{}", changed(opened, known, &problem));
    Ok(())
}

/// Why a source cannot be gone on with, and what one can do.
fn changed(opened: &Opened, known: &KnownSource, problem: &str) -> String {
    let Opened { name, source, .. } = opened;
    let advice = match source {
        Source::File(_) => format!(
            "give the file back what it had, or, if all its records are others, ingest it as standard input: \
             simusage ingest - < {name}"
        ),
        Source::Stdin => {
            "repeat the stream from its beginning, or give other records another --source-id"
                .to_owned()
        }
    };
    let when = known.updated_at.format("%Y-%m-%d %H:%M UTC");
    format!(
        "{name}: its first {} bytes were ingested before (as {}, {when}){problem}; {advice}",
        known.position, known.name
    )
}
