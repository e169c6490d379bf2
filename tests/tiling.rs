//! How large pictures are cut into tiles.

use proptest::prelude::*;
use undiffuse::models::Tiling;

proptest! {
    #[test]
    fn tiles_cover_every_pixel_and_their_shares_add_up_to_one(
        length in 1usize..200, tile in 0usize..80, overlap in 0usize..60, scale in 1usize..9,
    ) {
        let tiling = Tiling::new(length, tile, overlap);
        let mut sums = vec![0f64; length * scale];
        for (index, start) in tiling.starts().iter().enumerate() {
            let weights = tiling.weights(index, scale);
            prop_assert_eq!(weights.len(), tiling.tile() * scale);
            for (sum, weight) in sums[start * scale..].iter_mut().zip(&weights) {
                prop_assert!((0.0..=1.0).contains(weight));
                *sum += f64::from(*weight);
            }
            prop_assert!(start + tiling.tile() <= length);
        }
        for (pixel, sum) in sums.iter().enumerate() {
            prop_assert!((sum - 1.0).abs() < 1e-6, "pixel {pixel} of {length}: {sum}");
        }
    }

    #[test]
    fn neighbours_have_what_was_asked_for_in_common_or_more(
        length in 1usize..400, tile in 1usize..80, overlap in 0usize..40,
    ) {
        let tiling = Tiling::new(length, tile, overlap);
        for pair in tiling.starts().windows(2) {
            prop_assert!(pair[0] + tiling.tile() >= pair[1] + overlap.min(tile / 2), "{tiling:?}");
        }
    }
}

#[test]
fn what_fits_is_one_tile_of_its_own_size_with_all_the_say() {
    let tiling = Tiling::new(20, 32, 8);
    assert_eq!((tiling.starts(), tiling.tile()), (&[0][..], 20));
    assert_eq!(tiling.weights(0, 4), [1.0; 80]);
}

#[test]
fn tiles_are_spread_evenly_and_are_as_few_as_possible() {
    assert_eq!(Tiling::new(64, 40, 10).starts(), [0, 24]);
    assert_eq!(Tiling::new(70, 40, 10).starts(), [0, 30]);
    assert_eq!(Tiling::new(71, 40, 10).starts(), [0, 15, 31]);
    assert_eq!(Tiling::new(128, 44, 11).starts(), [0, 28, 56, 84]);
}

#[test]
fn next_to_an_edge_that_another_tile_overlaps_a_tile_has_no_say_and_next_to_the_pictures_edge_it_has_all() {
    // Tiles at 0 and 24, with 16 pixels in common.
    let tiling = Tiling::new(64, 40, 16);
    let (first, second) = (tiling.weights(0, 1), tiling.weights(1, 1));
    assert_eq!(first[..24], [1.0; 24]);
    assert_eq!(second[16..], [1.0; 24]);
    assert!(first[36..].iter().chain(&second[..4]).all(|&weight| weight < 1e-8), "{first:?} {second:?}");
    assert!(first[24..].is_sorted_by(|a, b| a >= b), "{first:?}");
    assert!(second[..16].is_sorted(), "{second:?}");
}
