//! The one sort of the crate: each type that the standard library's sorts are compiled for costs the module some kilobytes.

/// The indices of `keys` in the ascending order of these; of equal keys the first comes first.
pub fn ascending(keys: impl Iterator<Item = (u64, u64)>) -> Vec<usize> {
    let mut keys: Vec<_> = keys.zip(0..).collect();
    sort(&mut keys);
    keys.into_iter().map(|(_, index)| index).collect()
}

/// Brings `items` into the ascending order of their keys; equal ones stay in their order.
pub fn sort_by_key<T>(items: &mut Vec<T>, key: impl Fn(&T) -> (u64, u64)) {
    let order = ascending(items.iter().map(key));
    let mut taken: Vec<Option<T>> = items.drain(..).map(Some).collect();
    items.extend(order.into_iter().filter_map(|index| taken[index].take()));
}

/// Brings `values` into the order of [`f64::total_cmp`].
pub fn sort_floats(values: &mut [f64]) {
    // As unsigned numbers, negative ones have their bits turned round and the others come after them.
    let key = |value: &f64| {
        let bits = value.to_bits();
        bits ^ if value.is_sign_negative() { u64::MAX } else { 1 << 63 }
    };
    let order = ascending(values.iter().map(|value| (key(value), 0)));
    let sorted: Vec<f64> = order.into_iter().map(|index| values[index]).collect();
    values.copy_from_slice(&sorted);
}

fn sort(keys: &mut [((u64, u64), usize)]) {
    keys.sort_unstable();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_in_the_order_of_their_keys_and_equal_ones_stay_in_theirs() {
        let mut items = vec![(2, 0, 'a'), (1, 7, 'b'), (1, 3, 'c'), (2, 0, 'd'), (0, 9, 'e')];
        sort_by_key(&mut items, |&(first, second, _)| (first, second));
        assert_eq!(items.iter().map(|item| item.2).collect::<String>(), "ecbad");
    }

    #[test]
    fn numbers_come_in_their_total_order() {
        let mut values = vec![1.0, f64::NAN, -0.0, f64::INFINITY, 0.0, -2.5, f64::MIN_POSITIVE, -f64::NAN, -1e300];
        let mut expected = values.clone();
        expected.sort_by(f64::total_cmp);
        sort_floats(&mut values);
        assert!(values.iter().zip(&expected).all(|(value, expected)| value.to_bits() == expected.to_bits()));
    }
}
