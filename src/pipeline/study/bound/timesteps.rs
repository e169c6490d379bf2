//! The choice of the terms of a bound that are computed.

use crate::noise::TorchCpu;
use crate::pipeline::error::Error;
use crate::pipeline::options::{BoundOptions, Timesteps};

/// The timesteps that are asked for, ascending, each with how many of the bound's it stands for; and whether these are a part of
/// its own.
pub(super) fn timesteps(options: &BoundOptions, all: usize) -> Result<(Vec<(usize, f64)>, bool), Error> {
    let last = all - 1;
    // One of each part of t = 1 … T−1 that `of` chooses by the part's length, after t = 0.
    let parts = |count: usize, of: &mut dyn FnMut(usize) -> usize| match (1..=all).contains(&count) {
        true => {
            let mut chosen = vec![(0, 1.0)];
            let mut from = 1;
            for left in (1..count).rev() {
                let growth = libm::pow(all as f64 / from as f64, 1.0 / left as f64);
                let to = ((from as f64 * growth).round() as usize).clamp(from + 1, all + 1 - left);
                chosen.push((from + of(to - from), (to - from) as f64));
                from = to;
            }
            Ok(chosen)
        }
        false => Err(Error::option("terms", count, format!("expected a number of terms from 1 to {all}"))),
    };
    match &options.timesteps {
        Timesteps::All => Ok(((0..all).map(|t| (t, 1.0)).collect(), false)),
        Timesteps::List(list) => {
            if let Some(past) = list.iter().find(|&&t| t > last) {
                return Err(Error::option("timesteps", past, format!("expected whole numbers from 0 to {last}")));
            }
            if list.is_empty() {
                return Err(Error::option("timesteps", "a list of none", "give at least one"));
            }
            let listed: Vec<usize> = (0..all).filter(|t| list.contains(t)).collect();
            let between = listed.iter().filter(|&&t| t > 0).count();
            let stands_for = |t| if t == 0 { 1.0 } else { last as f64 / between as f64 };
            Ok((listed.into_iter().map(|t| (t, stands_for(t))).collect(), false))
        }
        Timesteps::Spread(count) => Ok((parts(*count, &mut |length| (length - 1) / 2)?, true)),
        Timesteps::Drawn(count) => {
            let mut stream = TorchCpu::new(options.seed);
            let mut draw = |length: usize| {
                let share = stream.rand(1).first().copied().unwrap_or_default();
                ((f64::from(share) * length as f64) as usize).min(length - 1)
            };
            Ok((parts(*count, &mut draw)?, true))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(timesteps: Timesteps, all: usize) -> Vec<(usize, f64)> {
        super::timesteps(&BoundOptions { timesteps, seed: 5, ..BoundOptions::default() }, all).unwrap().0
    }

    #[test]
    fn spread_terms_stand_for_all_others_however_many_there_are() {
        for all in [1, 2, 3, 10, 57, 1000] {
            for count in (1..=all).step_by(1 + all / 30).chain([all]) {
                for timesteps in [Timesteps::Spread(count), Timesteps::Drawn(count)] {
                    let asked = asked(timesteps, all);
                    assert_eq!((asked.len(), asked[0]), (count, (0, 1.0)));
                    assert!(asked.windows(2).all(|pair| pair[0].0 < pair[1].0), "ascending and without repetition");
                    assert!(asked.iter().all(|&(t, _)| t < all));
                    let others: f64 = asked[1..].iter().map(|(_, stands_for)| stands_for).sum();
                    assert_eq!(others, if count == 1 { 0.0 } else { (all - 1) as f64 }, "{count} of {all}");
                }
            }
            assert_eq!(asked(Timesteps::Spread(all), all), asked(Timesteps::All, all));
        }
    }

    #[test]
    fn a_list_is_sorted_and_each_of_it_stands_for_as_many() {
        assert_eq!(asked(Timesteps::List(vec![8, 0, 3, 8]), 11), [(0, 1.0), (3, 5.0), (8, 5.0)]);
        assert_eq!(asked(Timesteps::List(vec![7]), 11), [(7, 10.0)]);
    }

    #[test]
    fn what_is_no_choice_of_timesteps_is_refused() {
        for (timesteps, message) in [
            (Timesteps::List(vec![3, 10]), "`timesteps` is 10: expected whole numbers from 0 to 9"),
            (Timesteps::List(vec![]), "`timesteps` is a list of none: give at least one"),
            (Timesteps::Spread(0), "`terms` is 0: expected a number of terms from 1 to 10"),
            (Timesteps::Drawn(11), "`terms` is 11: expected a number of terms from 1 to 10"),
        ] {
            let options = BoundOptions { timesteps, ..BoundOptions::default() };
            assert_eq!(super::timesteps(&options, 10).unwrap_err().to_string(), message);
        }
    }
}
