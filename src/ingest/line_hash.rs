//! A fast 64-bit hash of lines and blocks. The ledger contains hashes of lines, so the function must
//! not change.

/// Odd numbers without a pattern (the digits of π).
const FACTORS: [u64; 4] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7345,
    0xa409_3822_299f_31d1,
    0x082e_fa98_ec4e_6c89,
];

/// Multiplies, and combines both halves of the product.
#[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

fn add_pair(hash: u64, pair: &[u8; 16]) -> u64 {
    fold(word(&pair[..8]) ^ FACTORS[1], word(&pair[8..]) ^ hash)
}

/// Hashes what follows the last whole 16 bytes, and the length of everything.
fn finish(mut hash: u64, rest: &[u8], length: u64) -> u64 {
    if !rest.is_empty() {
        let (left, right) = rest.split_at(rest.len().min(8));
        hash = fold(word(left) ^ FACTORS[1], word(right) ^ hash);
    }
    fold(hash ^ FACTORS[2] ^ length, FACTORS[3])
}

/// The hash of a line.
pub(super) fn hash_line(line: &[u8]) -> u64 {
    let (pairs, rest) = line.as_chunks();
    let hash = pairs.iter().fold(FACTORS[0], add_pair);
    finish(hash, rest, line.len() as u64)
}

/// The hash of all lines so far, from that of the lines before.
pub(super) fn chain(before: u64, line_hash: u64) -> u64 {
    fold(before.rotate_left(23) ^ line_hash, FACTORS[3])
}

/// Computes [`hash_line`] of a line that comes in pieces, without a carriage return at its end.
#[derive(Debug)]
pub(super) struct LineHasher {
    hash: u64,
    /// At most 16 bytes that are not hashed yet.
    rest: Vec<u8>,
    length: u64,
}

impl LineHasher {
    pub fn new() -> Self {
        Self {
            hash: FACTORS[0],
            rest: vec![],
            length: 0,
        }
    }

    pub fn update(&mut self, piece: &[u8]) {
        self.length += piece.len() as u64;
        let missing = (16 - self.rest.len()).min(piece.len());
        let (first, piece) = piece.split_at(missing);
        self.rest.extend_from_slice(first);
        // The last 16 bytes may end in a carriage return.
        let Some(pair) = self.rest.first_chunk::<16>().filter(|_| !piece.is_empty()) else {
            return;
        };
        self.hash = add_pair(self.hash, pair);
        let hashed = (piece.len() - 1) / 16 * 16;
        let (pairs, _) = piece[..hashed].as_chunks();
        self.hash = pairs.iter().fold(self.hash, add_pair);
        self.rest.clear();
        self.rest.extend_from_slice(&piece[hashed..]);
    }

    pub fn finish(&self) -> u64 {
        let rest = self.rest.strip_suffix(b"\r").unwrap_or(&self.rest);
        let removed = (self.rest.len() - rest.len()) as u64;
        let (pairs, rest) = rest.as_chunks();
        let hash = pairs.iter().fold(self.hash, add_pair);
        finish(hash, rest, self.length - removed)
    }
}

/// Hashes a block. Faster than [`hash_line`], because the parts of the block do not wait for each
/// other.
pub(super) fn hash_block(block: &[u8]) -> u64 {
    let mut lanes = [FACTORS[0], FACTORS[1], FACTORS[2], FACTORS[3]];
    let (groups, rest) = block.as_chunks::<64>();
    for group in groups {
        let (pairs, _) = group.as_chunks();
        for (lane, pair) in lanes.iter_mut().zip(pairs) {
            *lane = add_pair(*lane, pair);
        }
    }
    let hash = lanes.into_iter().fold(hash_line(rest), chain);
    chain(hash, block.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_never_change() {
        assert_eq!(
            [hash_line(b""), hash_line(b"0123456789abcdef!"), chain(0, 1)],
            [
                8_402_929_444_322_454_355,
                18_246_649_684_078_622_973,
                589_684_135_938_649_225
            ]
        );
    }

    #[test]
    fn different_content_has_different_hashes() {
        let different = [
            &b""[..],
            b"a",
            b"b",
            b"\0",
            b"\0\0",
            b"12345678",
            b"123456789",
            b"0123456789abcdef",
            b"0123456789abcdef\0",
        ];
        for hash in [hash_line, hash_block] {
            let hashes: std::collections::HashSet<u64> =
                different.iter().map(|line| hash(line)).collect();
            assert_eq!(hashes.len(), different.len());
        }
        let mut block = vec![7; 1_000];
        let hash = hash_block(&block);
        for index in 0..block.len() {
            block[index] = 8;
            assert_ne!(hash_block(&block), hash, "{index}");
            block[index] = 7;
        }
    }

    #[test]
    fn a_line_in_pieces_has_the_same_hash() {
        let line: Vec<u8> = (0..100).collect();
        assert_eq!(line[13], b'\r');
        for length in (0..line.len()).filter(|&length| length != 14) {
            for size in [1, 3, 15, 16, 17, 40] {
                let mut hasher = LineHasher::new();
                for piece in line[..length].chunks(size) {
                    hasher.update(piece);
                }
                assert_eq!(hasher.finish(), hash_line(&line[..length]));
                hasher.update(b"\r");
                assert_eq!(hasher.finish(), hash_line(&line[..length]));
            }
        }
    }
}
