//! Compression of single messages (RFC 7692, section 7.2): no message refers to an earlier one.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// The end of a sync flush; it is omitted on the wire.
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];
/// How much the output grows per step.
const STEP_BYTES: usize = 4096;

thread_local! {
    static COMPRESS: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
    static DECOMPRESS: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// Compresses a message; `None` if that fails.
pub(crate) fn compress(payload: &[u8]) -> Option<Vec<u8>> {
    COMPRESS.with_borrow_mut(|compress| {
        compress.reset();
        let mut out = Vec::with_capacity(payload.len() / 2 + 64);
        let mut rest = payload;
        loop {
            let before = compress.total_in();
            compress.compress_vec(rest, &mut out, FlushCompress::Sync).ok()?;
            let taken = usize::try_from(compress.total_in() - before).ok()?;
            rest = rest.get(taken..)?;
            // There is space left, so the output is complete.
            if rest.is_empty() && out.len() < out.capacity() {
                break;
            }
            out.reserve(STEP_BYTES);
        }
        out.ends_with(&TAIL).then(|| out.truncate(out.len() - TAIL.len()))?;
        Some(out)
    })
}

/// A message that cannot be decompressed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not valid compressed data.
    Invalid,
    /// It is larger than allowed.
    TooLarge,
}

/// Decompresses a message to at most `bytes_max` bytes.
pub(crate) fn decompress(payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, Fault> {
    DECOMPRESS.with_borrow_mut(|decompress| {
        decompress.reset(false);
        let mut out = Vec::new();
        for part in [payload, &TAIL] {
            let mut rest = part;
            loop {
                if out.len() > bytes_max {
                    return Err(Fault::TooLarge);
                }
                out.reserve(STEP_BYTES);
                let (taken, made) = (decompress.total_in(), decompress.total_out());
                let status = decompress.decompress_vec(rest, &mut out, FlushDecompress::Sync);
                let status = status.map_err(|_| Fault::Invalid)?;
                let taken = usize::try_from(decompress.total_in() - taken).map_err(|_| Fault::Invalid)?;
                let made = decompress.total_out() - made;
                rest = &rest[taken..];
                let is_stuck = taken == 0 && made == 0;
                if status == Status::StreamEnd || (rest.is_empty() && out.len() < out.capacity()) || is_stuck
                {
                    break;
                }
            }
        }
        if out.len() > bytes_max { Err(Fault::TooLarge) } else { Ok(out) }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_are_read_back(parts in proptest::collection::vec("[a-z]{0,40}", 0..200)) {
            let text = parts.concat();
            let compressed = compress(text.as_bytes()).unwrap();
            prop_assert_eq!(decompress(&compressed, text.len()), Ok(text.clone().into_bytes()));
            if !text.is_empty() {
                prop_assert_eq!(decompress(&compressed, text.len() - 1), Err(Fault::TooLarge));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _any = decompress(&bytes, 10_000);
        }
    }

    #[test]
    fn a_bomb_costs_no_more_than_the_bound() {
        let bomb = compress(&vec![0; 10 << 20]).unwrap();
        assert!(bomb.len() < 60_000);
        assert_eq!(decompress(&bomb, 64 << 10), Err(Fault::TooLarge));
    }
}
