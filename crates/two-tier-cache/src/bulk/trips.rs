//! How much goes to the server at once.

/// Keys that one step on the server touches. Enough that what a step costs by itself is shared by
/// many, and few enough that other clients of the server do not notice.
pub(super) const KEYS_PER_STEP: usize = 128;

/// Keys that one trip to the server carries; more go in several, one after the other, so that
/// neither side holds an unbounded request or reply.
pub(super) const KEYS_PER_TRIP: usize = 4096;

/// The same in steps.
pub(super) const STEPS_PER_TRIP: usize = KEYS_PER_TRIP / KEYS_PER_STEP;

/// Bytes of values that one trip to the server carries, unless a single one has more.
pub(super) const BYTES_PER_TRIP: usize = 4 << 20;

/// Splits `items` into groups of at most `count_max` and `bytes_max`, in their order. An item that has
/// more bytes by itself is a group by itself.
pub(super) fn grouped<T>(
    items: Vec<T>,
    count_max: usize,
    bytes_max: usize,
    bytes: impl Fn(&T) -> usize,
) -> Vec<Vec<T>> {
    let (mut groups, mut size) = (Vec::<Vec<T>>::new(), 0);
    for item in items {
        let more = bytes(&item);
        match groups.last_mut() {
            Some(group) if group.len() < count_max && size + more <= bytes_max => {
                size += more;
                group.push(item);
            }
            _ => {
                size = more;
                groups.push(vec![item]);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_keep_their_bounds_and_the_order() {
        let sizes = vec![4, 4, 4, 30, 1, 1, 1, 1];
        let groups = grouped(sizes, 3, 10, |size| *size);
        assert_eq!(groups, [vec![4, 4], vec![4], vec![30], vec![1, 1, 1], vec![1]]);
        assert!(grouped(Vec::<usize>::new(), 3, 10, |size| *size).is_empty());
    }
}
