//! How stores share one limit: the largest stores shrink, and small ones are not affected.

/// After stores have shrunk, 1/`SLACK` of the limit is free, so that they do not have to shrink
/// again soon.
const SLACK: usize = 16;

/// The size to which larger stores must shrink, so that all together leave some of `max` free.
/// `None` if no store must shrink.
pub(crate) fn level(sizes: &mut [usize], max: usize) -> Option<usize> {
    if sizes.iter().sum::<usize>() <= max {
        return None;
    }
    sizes.sort_unstable();
    let (mut rest, mut count) = (max - max / SLACK, sizes.len());
    for size in sizes {
        if *size > rest / count {
            return Some(rest / count);
        }
        rest -= *size;
        count -= 1;
    }
    None
}

/// The growth of a store in bytes. Store sizes are far below the range of `isize`.
pub(crate) fn growth(before: usize, after: usize) -> isize {
    let number = |size| isize::try_from(size).unwrap_or(isize::MAX);
    number(after) - number(before)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_left_fits_and_the_small_ones_keep_theirs(
            sizes in proptest::collection::vec(0..1000_usize, 1..20),
            max in 16..5000_usize,
        ) {
            let total: usize = sizes.iter().sum();
            let level = level(&mut sizes.clone(), max);
            prop_assert_eq!(level.is_some(), total > max);
            if let Some(level) = level {
                let left: usize = sizes.iter().map(|size| *size.min(&level)).sum();
                prop_assert!(left <= max - max / SLACK);
                // Not much more than necessary is freed: rounding costs less than one unit per
                // store.
                prop_assert!(left + sizes.len() > max - max / SLACK);
            }
        }
    }
}
