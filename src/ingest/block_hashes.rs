//! Compares the second read of a file with its first, so that what is stored is what was scanned,
//! even if another program writes to the file in between.

use std::io::{self, Read};

use super::line_hash::hash_block;

/// The size of a block.
const BLOCK_BYTES: usize = 256 * 1024;

/// Reads whole blocks, unless the input ends.
struct Blocks<R> {
    input: R,
    buffer: Vec<u8>,
    /// The length of the block.
    length: usize,
    /// How much of it was returned.
    returned: usize,
}

impl<R: Read> Blocks<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            buffer: vec![0; BLOCK_BYTES],
            length: 0,
            returned: 0,
        }
    }

    /// Reads the next block, of at most `longest` bytes. After an error, the block has what was read
    /// before.
    fn next(&mut self, longest: usize) -> io::Result<()> {
        self.clear();
        while self.length < longest {
            match self.input.read(&mut self.buffer[self.length..longest]) {
                Ok(0) => break,
                Ok(read) => self.length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.length = 0;
        self.returned = 0;
    }

    fn block(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let rest = &self.buffer[self.returned..self.length];
        let taken = rest.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&rest[..taken]);
        self.returned += taken;
        taken
    }

    fn is_returned(&self) -> bool {
        self.returned == self.length
    }
}

/// Hashes the blocks of what it reads.
pub(super) struct HashingReader<R> {
    blocks: Blocks<R>,
    hashes: BlockHashes,
    /// The error after the last block.
    error: Option<io::Error>,
}

/// The hashes of a file's blocks.
#[derive(Debug, Default)]
pub(super) struct BlockHashes {
    hashes: Vec<u64>,
    bytes: u64,
}

impl<R: Read> HashingReader<R> {
    pub fn new(input: R) -> Self {
        Self {
            blocks: Blocks::new(input),
            hashes: BlockHashes::default(),
            error: None,
        }
    }

    /// The hashes of what was read.
    pub fn into_hashes(self) -> BlockHashes {
        self.hashes
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.blocks.is_returned() {
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            self.error = self.blocks.next(BLOCK_BYTES).err();
            let block = self.blocks.block();
            if block.is_empty() {
                return self.error.take().map_or(Ok(0), Err);
            }
            self.hashes.hashes.push(hash_block(block));
            self.hashes.bytes += block.len() as u64;
        }
        Ok(self.blocks.take(buffer))
    }
}

/// Returns a block only after comparing it with the first read.
pub(super) struct VerifyingReader<R> {
    blocks: Blocks<R>,
    hashes: std::vec::IntoIter<u64>,
    /// How many bytes are still to be read.
    left: u64,
}

impl<R: Read> VerifyingReader<R> {
    /// Reads as much of `input` as was hashed.
    pub fn new(input: R, hashes: BlockHashes) -> Self {
        Self {
            blocks: Blocks::new(input),
            hashes: hashes.hashes.into_iter(),
            left: hashes.bytes,
        }
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.blocks.is_returned() && self.left > 0 {
            let length = usize::try_from(self.left).unwrap_or(usize::MAX);
            let read = self.blocks.next(length.min(BLOCK_BYTES));
            let is_same = self.hashes.next() == Some(hash_block(self.blocks.block()));
            if read.is_err() || !is_same {
                // Nothing of it is returned.
                self.blocks.clear();
                self.left = 0;
                read?;
                return Err(io::Error::other(
                    "its content has changed since ingest began to read it, and the changed part is not \
                     stored; run again when nothing writes to it, except at its end",
                ));
            }
            self.left -= self.blocks.block().len() as u64;
        }
        Ok(self.blocks.take(buffer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(content: &[u8]) -> BlockHashes {
        let mut reader = HashingReader::new(content);
        let mut read = vec![];
        reader.read_to_end(&mut read).unwrap();
        assert!(read == content);
        reader.into_hashes()
    }

    #[test]
    fn a_changed_block_is_not_returned() {
        let content = vec![1; 2 * BLOCK_BYTES + 10];
        let read = |content: &[u8], hashes| {
            let mut read = vec![];
            let result = VerifyingReader::new(content, hashes).read_to_end(&mut read);
            (read.len(), result.is_ok())
        };
        let grown = [&content[..], b"more"].concat();
        for same in [&content, &grown] {
            assert_eq!(read(same, hashes(&content)), (content.len(), true));
        }
        assert_eq!(read(b"", hashes(b"")), (0, true));
        for (changed, verified) in [
            (0, 0),
            (BLOCK_BYTES, BLOCK_BYTES),
            (2 * BLOCK_BYTES + 9, 2 * BLOCK_BYTES),
        ] {
            let mut other = content.clone();
            other[changed] = 2;
            assert_eq!(read(&other, hashes(&content)), (verified, false));
            assert_eq!(
                read(&content[..changed], hashes(&content)),
                (verified, false)
            );
        }
    }
}
