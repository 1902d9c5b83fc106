//! Distribution of the parts of a batch over ranks.

use std::ops::Range;

use crate::RanksError;

/// Returns the consecutive parts of a batch that `rank` of `size` computes.
///
/// Each of several ranks has `parts / size` parts, which must be a power of two: the rank's parts are then a
/// subtree of the [tree](crate::Tree) over all parts, and the sum has the same bits for every valid `size`. A
/// single rank has the whole tree, with any number of parts.
///
/// ```
/// use glowflow_ranks::parts_of;
///
/// assert_eq!(parts_of(1, 2, 8)?, 4..8);
/// let error = parts_of(0, 3, 8).unwrap_err().to_string();
/// assert!(error.ends_with("valid numbers of ranks: 1, 2, 4, 8"));
/// # Ok::<(), glowflow_ranks::RanksError>(())
/// ```
pub fn parts_of(rank: usize, size: usize, parts: usize) -> Result<Range<usize>, RanksError> {
    let fits = |size: usize| match size {
        1 => parts > 0,
        _ => parts.is_multiple_of(size) && (parts / size).is_power_of_two(),
    };
    if size == 0 || !fits(size) {
        let fit = (1..=parts).filter(|&size| fits(size)).collect();
        return Err(RanksError::Parts { parts, ranks: size, fit });
    }
    let each = parts / size;
    Ok(rank * each..(rank + 1) * each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rank_has_a_power_of_two_of_parts() {
        assert_eq!(parts_of(0, 1, 1), Ok(0..1));
        assert_eq!(parts_of(0, 1, 12), Ok(0..12));
        assert_eq!(parts_of(2, 3, 12), Ok(8..12));
        let refused = |size, parts| match parts_of(0, size, parts) {
            Err(RanksError::Parts { fit, .. }) => fit,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(2, 12), [1, 3, 6, 12]); // 6 parts per rank
        assert_eq!(refused(8, 4), [1, 2, 4]);
        assert_eq!(refused(0, 2), [1, 2]);
        assert_eq!(refused(1, 0), []);
    }
}
