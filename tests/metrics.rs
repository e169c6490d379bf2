//! Distances between sets of features: against scipy's and numpy's numbers, and in cases whose answer is known.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::common::{Tally, read_json, reference};
use pollster::block_on;
use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors};
use undiffuse::metrics::{
    Error, FeatureSpace, INCEPTION_CONVERSION, Moments, Rows, Statistics, StatisticsFile, deal, frechet,
    frechet_distance, kid,
};
use undiffuse::noise::TorchCpu;
use undiffuse::weights::{DirectorySource, MemorySource};

/// The tensors of a file, with all of their digits.
fn read_f64(path: &Path) -> HashMap<String, (Vec<usize>, Vec<f64>)> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let values = |dtype, data: &[u8]| -> Vec<f64> {
        match dtype {
            Dtype::F64 => data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
            Dtype::I64 => data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
            other => panic!("{}: a tensor of {other:?}", path.display()),
        }
    };
    file.iter().map(|(name, t)| (name.to_owned(), (t.shape().to_vec(), values(t.dtype(), t.data())))).collect()
}

fn space(dimension: usize) -> FeatureSpace {
    FeatureSpace { extractor: "test".to_owned(), fingerprint: "0123456789abcdef".to_owned(), dimension }
}

fn gaussian(mean: &[f64], covariance: &[f64]) -> Statistics {
    let (mean, covariance) = (mean.to_vec(), covariance.to_vec());
    let space = space(mean.len());
    Statistics { mean, covariance, count: None, space, made_from: "numbers".to_owned() }
}

/// The statistics of features `[pictures, dimension]`, gathered `rows` at a time.
fn gather(features: &[f64], dimension: usize, rows: usize) -> Statistics {
    moments(features, dimension, rows).statistics(space(dimension), "features".to_owned()).unwrap()
}

fn moments(features: &[f64], dimension: usize, rows: usize) -> Moments {
    let mut moments = Moments::new(dimension);
    features.chunks(rows * dimension).for_each(|block| moments.push(block).unwrap());
    moments
}

/// Normal features, of which each is mixed from those before it.
fn correlated(count: usize, dimension: usize, seed: u64) -> Vec<f64> {
    let mut stream = TorchCpu::new(seed);
    let draws = stream.randn(count * dimension);
    let mix = |row: &[f32]| -> Vec<f64> {
        let mut before = 0.0;
        row.iter()
            .map(|&value| {
                before = 0.6 * before + f64::from(value);
                before
            })
            .collect()
    };
    draws.chunks(dimension).flat_map(mix).collect()
}

#[test]
fn the_frechet_distance_is_scipys() {
    let folder = reference("metrics");
    let tensors = read_f64(&folder.join("frechet.safetensors"));
    let cases = read_json(&folder.join("frechet.json"));
    let mut tally = Tally::default();
    for case in cases["cases"].as_array().expect("a list of cases") {
        let name = case["name"].as_str().unwrap();
        let tensor = |part: &str| tensors.get(&format!("{name}/{part}"));
        let number = |key: &str| case[key].as_f64().unwrap_or_else(|| panic!("{name}: {key}"));
        let (by_root, by_eigenvalues) = (number("distance_sqrtm"), number("distance_symmetric_eig"));
        let mut pairs = Vec::new();
        if let [Some(mu1), Some(sigma1), Some(mu2), Some(sigma2)] = ["mu1", "sigma1", "mu2", "sigma2"].map(tensor) {
            pairs.push(("statistics", gaussian(&mu1.1, &sigma1.1), gaussian(&mu2.1, &sigma2.1)));
        }
        if let [Some((shape, one)), Some((_, other))] = ["features1", "features2"].map(tensor) {
            for rows in [1, 7, 100, 1000] {
                pairs.push(("features", gather(one, shape[1], rows), gather(other, shape[1], rows)));
            }
        }
        if pairs.is_empty() {
            tally.skip(name, "neither features nor statistics");
        }
        for (what, one, other) in pairs {
            let dimension = one.mean.len();
            let trace = |s: &Statistics| s.covariance.iter().step_by(dimension + 1).sum::<f64>();
            let traces = trace(&one) + trace(&other);
            // The two formulas of the reference part where covariances have no full rank, to a few 1e-8.
            let singular = (by_root - by_eigenvalues).abs() > 1e-9 * by_root.abs();
            let near_zero = by_root.abs() < 1e-9 * traces;
            let allowed = match (near_zero, singular) {
                (true, _) => 1e-12 * traces,
                (_, true) => 1e-4 * by_eigenvalues,
                _ => 1e-6 * by_root,
            };
            for (order, distance) in
                [("", frechet_distance(&one, &other)), (" the other way round", frechet_distance(&other, &one))]
            {
                let distance = distance.unwrap();
                let off = (distance - by_eigenvalues).abs();
                println!("{name}, by {what}{order}: {distance}, off by {off:.1e} of {allowed:.1e}");
                match off <= allowed {
                    true => tally.passed(),
                    false => tally.fail(format!("{name}, by {what}{order}: {distance}, expected {by_eigenvalues}")),
                }
            }
        }
    }
    tally.finish("Fréchet distances");
}

#[test]
fn the_kernel_distance_is_numpys() {
    let tensors = read_f64(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/features/kid.safetensors"));
    let [real, generated] = ["real", "generated"].map(|name| &tensors[name]);
    let dimension = real.0[1];
    let close = |found: f64, expected: f64| assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1.0));
    close(kid::mmd2(&real.1, &generated.1, dimension).unwrap(), tensors["mmd2"].1[0]);
    let rows = |set: &str, subset: usize| -> Vec<f64> {
        let (shape, numbers) = &tensors[&format!("subsets.{set}")];
        let chosen = &numbers[subset * shape[1]..][..shape[1]];
        chosen.iter().flat_map(|&row| tensors[set].1[row as usize * dimension..][..dimension].to_vec()).collect()
    };
    let expected = &tensors["subsets.mmd2"].1;
    for (subset, &expected) in expected.iter().enumerate() {
        close(kid::mmd2(&rows("real", subset), &rows("generated", subset), dimension).unwrap(), expected);
    }

    let sets = [real, generated].map(|(_, features)| Set { features, dimension });
    let whole = kid::kid(&sets[0], &sets[1].first(40), kid::Options::default()).unwrap();
    assert_eq!((whole.subsets, whole.subset_size), (100, 40), "of 50 and 40 pictures");
    // The mean over subsets of the real set is close to what all of it gives.
    assert!((whole.value - tensors["mmd2"].1[0]).abs() < 0.1 * tensors["mmd2"].1[0].abs(), "{whole:?}");
    let same_size = kid::kid(&sets[0].first(40), &sets[1], kid::Options::default()).unwrap();
    assert_eq!((same_size.subsets, same_size.subset_size), (1, 40), "all subsets would be the same");
    close(same_size.value, kid::mmd2(&real.1[..40 * dimension], &generated.1, dimension).unwrap());
}

struct Set<'a> {
    features: &'a [f64],
    dimension: usize,
}

impl Set<'_> {
    fn first(&self, count: usize) -> Set<'_> {
        Set { features: &self.features[..count * self.dimension], dimension: self.dimension }
    }
}

impl Rows for Set<'_> {
    fn count(&self) -> usize {
        self.features.len() / self.dimension
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn gather(&self, pictures: &[usize]) -> Result<Vec<f64>, Error> {
        let rows = pictures.iter().flat_map(|&i| &self.features[i * self.dimension..][..self.dimension]);
        Ok(rows.copied().collect())
    }
}

/// The groups of a set of generated pictures.
fn split(features: &[f64], dimension: usize, groups: usize) -> Vec<Moments> {
    let dealt = deal(features.len() / dimension, groups);
    let mut moments = vec![Moments::new(dimension); groups];
    for (row, group) in features.chunks(dimension).zip(dealt) {
        moments[group].push(row).unwrap();
    }
    moments
}

/// Sixty sets of pictures of one kind: what a standard error is there to foretell.
#[test]
fn standard_errors_are_the_spread_of_distances_over_new_pictures() {
    let dimension = 6;
    let real = correlated(3000, dimension, 1);
    let statistics = gather(&real, dimension, 500);
    let shifted = |seed| correlated(500, dimension, seed).iter().map(|v| 1.2 * v + 0.3).collect::<Vec<_>>();
    let mut distances: [Vec<f64>; 2] = Default::default();
    let mut squares: [Vec<f64>; 2] = Default::default();
    for seed in 100..160 {
        let generated = shifted(seed);
        let fid = frechet::with_standard_error(&statistics, &split(&generated, dimension, 20)).unwrap();
        let plain = frechet_distance(&statistics, &gather(&generated, dimension, 500)).unwrap();
        assert!((fid.value - plain).abs() < 1e-9 * plain, "in groups {}, at once {plain}", fid.value);
        let [x, y] = [&real, &generated].map(|features| Set { features, dimension });
        let options = kid::Options { subsets: 20, subset_size: 300, ..Default::default() };
        let kid = kid::kid(&x, &y, options).unwrap();
        for (index, (value, error)) in
            [(fid.value, fid.standard_error), (kid.value, kid.standard_error)].iter().enumerate()
        {
            distances[index].push(*value);
            squares[index].push(error.unwrap().powi(2));
        }
    }
    let mean = |list: &[f64]| list.iter().sum::<f64>() / list.len() as f64;
    for (name, distances, squares) in [("FID", &distances[0], &squares[0]), ("KID", &distances[1], &squares[1])] {
        let deviations: Vec<f64> = distances.iter().map(|d| (d - mean(distances)).powi(2)).collect();
        let (spread, foretold) = (mean(&deviations).sqrt(), mean(squares).sqrt());
        println!("{name} {:.4}: spread {spread:.4}, standard error {foretold:.4}", mean(distances));
        // Of 60 distances the spread is known to a tenth.
        assert!((0.7..1.4).contains(&(foretold / spread)), "{name}: spread {spread}, standard error {foretold}");
    }
}

#[test]
fn two_pictures_give_a_distance_and_no_standard_error_and_one_gives_neither() {
    let one = gather(&correlated(9, 2, 1), 2, 9);
    let few = split(&[0.0, 1.0, 2.0, 2.0], 2, 2);
    let estimate = frechet::with_standard_error(&one, &few).unwrap();
    assert!(estimate.value > 0.0 && estimate.standard_error.is_none(), "{estimate:?}");
    let error = frechet::with_standard_error(&one, &few[..1]).unwrap_err();
    assert_eq!(error.to_string(), "a covariance of 1 picture: at least 2 are needed");
    let sets = [&[0.0, 1.0, 2.0, 2.0][..], &[0.0, 1.0]].map(|features| Set { features, dimension: 2 });
    let error = kid::kid(&sets[0], &sets[1], kid::Options::default()).unwrap_err();
    assert_eq!(error.to_string(), "a kernel distance of 1 picture: at least 2 are needed");
    let kid = kid::kid(&sets[0], &sets[0], kid::Options::default()).unwrap();
    assert!(kid.value.is_finite() && kid.standard_error.is_none(), "{kid:?}");
}

#[test]
fn features_of_another_network_are_refused() {
    let one = gather(&correlated(9, 2, 1), 2, 9);
    let with = |space: FeatureSpace| Statistics { space, ..one.clone() };
    let message = |other: &Statistics| frechet_distance(&one, other).unwrap_err().to_string();
    let other = with(FeatureSpace { extractor: "inception".into(), ..space(2) });
    assert!(message(&other).contains("2 features of `inception` with the weights 0123456789ab"), "{}", message(&other));
    let other = with(FeatureSpace { fingerprint: "ffff".into(), ..space(2) });
    assert!(message(&other).contains("with the weights ffff"), "{}", message(&other));
    let other = gather(&correlated(9, 3, 1), 3, 9);
    assert!(message(&other).contains("3 features of `test`"), "{}", message(&other));
    // What is not known is not held against it.
    frechet_distance(&one, &with(FeatureSpace { fingerprint: String::new(), ..space(2) })).unwrap();
}

#[test]
fn what_is_not_a_number_is_refused_where_it_comes_in() {
    let mut moments = Moments::new(3);
    moments.push(&[1.0; 6]).unwrap();
    let error = moments.push(&[0.0, 1.0, 2.0, 0.0, f64::NAN, 2.0]).unwrap_err();
    assert!(error.to_string().starts_with("feature 1 of picture 3 is not finite"), "{error}");
    assert_eq!(moments.count(), 2, "nothing of that block was taken");
    assert!(matches!(moments.push(&[1.0; 4]), Err(Error::Length { found: 4, expected: 6, .. })));
    let mut statistics = gather(&correlated(9, 2, 1), 2, 9);
    statistics.covariance[3] = f64::INFINITY;
    assert!(matches!(frechet_distance(&statistics, &statistics), Err(Error::NotFinite { .. })));
    statistics.covariance.pop();
    assert!(matches!(frechet_distance(&statistics, &statistics), Err(Error::Length { found: 3, expected: 4, .. })));
}

/// `statistics` as a file in memory, after `change` to its text.
fn read_changed(statistics: &Statistics, change: &dyn Fn(String) -> String) -> Result<StatisticsFile, Error> {
    let bytes = statistics.to_file(false).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = change(String::from_utf8(bytes[8..8 + length].to_vec()).unwrap());
    let header = format!("{header:<width$}", width = header.len().next_multiple_of(8));
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[8 + length..]].concat();
    let mut source = MemorySource::new();
    source.insert("a", file);
    block_on(StatisticsFile::read(&source, "a"))
}

#[test]
fn features_of_no_numbers_are_refused() {
    struct Nothing;
    impl Rows for Nothing {
        fn count(&self) -> usize {
            5
        }

        fn dimension(&self) -> usize {
            0
        }

        fn gather(&self, _: &[usize]) -> Result<Vec<f64>, Error> {
            Ok(Vec::new())
        }
    }
    const MESSAGE: &str = "a picture has 0 numbers where 1 are expected";
    assert_eq!(kid::kid(&Nothing, &Nothing, kid::Options::default()).unwrap_err().to_string(), MESSAGE);
    let nothing = gaussian(&[], &[]);
    assert_eq!(frechet_distance(&nothing, &nothing).unwrap_err().to_string(), MESSAGE);
    let header = concat!(
        r#"{"mean":{"dtype":"F64","shape":[0],"data_offsets":[0,0]},"#,
        r#""covariance":{"dtype":"F64","shape":[0,0],"data_offsets":[0,0]},"#,
        r#""features":{"dtype":"F32","shape":[5,0],"data_offsets":[0,0]},"#,
        r#""__metadata__":{"format":"undiffuse.statistics","extractor":"test","fingerprint":"","dimension":"0","#,
        r#""count":"5","made_from":"nothing"}}"#
    );
    let mut source = MemorySource::new();
    source.insert("a", [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat());
    assert_eq!(block_on(StatisticsFile::read(&source, "a")).unwrap_err().to_string(), MESSAGE);
}

#[test]
fn the_distance_grows_with_the_covariances_whatever_their_size() {
    let [one, other] = [1, 2].map(|seed| gather(&correlated(30, 4, seed), 4, 30));
    let scaled = |statistics: &Statistics, exponent: i32| Statistics {
        mean: vec![0.0; 4],
        covariance: statistics.covariance.iter().map(|v| v * 2f64.powi(exponent)).collect(),
        ..statistics.clone()
    };
    let at = |a: i32, b: i32| frechet_distance(&scaled(&one, a), &scaled(&other, b)).unwrap();
    let plain = at(0, 0);
    for exponent in [-990, -700, -30, 30, 660, 980] {
        assert_eq!(at(exponent, exponent), plain * 2f64.powi(exponent), "2^{exponent}");
        let large = scaled(&one, exponent);
        let trace: f64 = large.covariance.iter().step_by(5).map(|v| v / 4.0).sum();
        let itself = frechet_distance(&large, &large).unwrap();
        assert!(itself <= 1e-12 * trace, "2^{exponent}: {itself} of {trace}");
    }
    // The smaller one is nothing beside the larger.
    let trace: f64 = one.covariance.iter().step_by(5).sum();
    let distance = at(900, -100) / 2f64.powi(900);
    assert!((distance / trace - 1.0).abs() < 1e-12, "{distance} of {trace}");
    // At the end of f64: the distance to itself is there, that to nothing is not.
    let covariance = [1e308, 0.0, 0.0, 1e308];
    let [largest, none] = [&covariance, &[0.0; 4]].map(|covariance| gaussian(&[0.0; 2], covariance));
    assert_eq!(frechet_distance(&largest, &largest).unwrap(), 0.0);
    let [left, right] = [-1e200, 1e200].map(|mean| gaussian(&[mean], &[1.0]));
    for (one, other) in [(&largest, &none), (&none, &largest), (&left, &right)] {
        let error = frechet_distance(one, other).unwrap_err();
        assert!(error.to_string().starts_with("the distance is not finite"), "{error}");
    }
}

#[test]
fn what_is_no_covariance_is_refused_and_rounding_is_not() {
    let of = |covariance: [f64; 4]| {
        let statistics = gaussian(&[0.0, 1.0], &covariance);
        frechet_distance(&statistics, &statistics).map_err(|error| error.to_string())
    };
    for (covariance, place) in [
        ([1.0, 0.0, 0.0, -1e-9], "row 1 and column 1"),
        ([-4.0, 0.0, 0.0, -4.0], "row 0 and column 0"),
        ([1.0, 0.5, 0.4, 1.0], "row 1 and column 0"),
        ([1e-8, 1e-8, 0.0, 1.0], "row 1 and column 0"),
        ([1.0, 2.0, 2.0, 1.0], "row 1 and column 0"),
        ([1.0, 1e300, 1e300, 1.0], "row 1 and column 0"),
    ] {
        let error = of(covariance).unwrap_err();
        assert!(
            error.starts_with(&format!("the covariance of numbers is none, at {place}")),
            "{covariance:?}: {error}"
        );
    }
    for covariance in [[1.0, 0.0, 0.0, -1e-17], [1.0, 0.5, 0.5 + 1e-7, 1.0], [1.0, 1.0 + 1e-7, 1.0 + 1e-7, 1.0]] {
        of(covariance).unwrap();
    }
}

#[test]
fn statistics_of_fewer_than_two_pictures_are_refused() {
    let statistics = gather(&correlated(9, 2, 1), 2, 9);
    for count in [0, 1] {
        let change = |text: String| text.replace("\"count\":\"9\"", &format!("\"count\":\"{count}\""));
        let error = read_changed(&statistics, &change).unwrap_err();
        assert!(matches!(error, Error::TooFew { needed: 2, .. }), "{count}: {error}");
    }
}

#[test]
fn a_kernel_distance_of_what_is_no_number_is_refused() {
    let mut features = correlated(9, 2, 1);
    features[2 * 5 + 1] = f64::NAN;
    let [damaged, whole] = [features, correlated(9, 2, 2)];
    let [damaged, whole] = [&damaged, &whole].map(|features| Set { features, dimension: 2 });
    for (one, other) in [(&damaged, &whole), (&whole, &damaged)] {
        let error = kid::kid(one, other, kid::Options::default()).unwrap_err().to_string();
        assert!(error.starts_with("feature 1 of picture 5 is not finite"), "{error}");
    }
}

#[test]
fn groups_of_another_dimension_are_refused() {
    let statistics = gather(&correlated(9, 3, 1), 3, 9);
    for groups in [split(&correlated(20, 2, 1), 2, 4), split(&correlated(20, 4, 1), 4, 4)] {
        let error = frechet::with_standard_error(&statistics, &groups).unwrap_err();
        assert!(matches!(error, Error::Length { expected: 3, .. }), "{error}");
        assert!(frechet::Reference::new(&statistics).unwrap().standard_error(&groups).is_err());
    }
    let mut moments = moments(&correlated(9, 3, 1), 3, 9);
    let before = moments.clone();
    moments.merge(&Moments::new(2)).unwrap_err();
    assert_eq!(moments, before);
}

#[test]
fn control_characters_do_not_reach_a_terminal() {
    let mut statistics = gather(&correlated(9, 2, 1), 2, 9);
    for (found, key) in [("test", "extractor"), ("0123456789abcdef", "fingerprint"), ("features", "made_from")] {
        let change =
            |text: String| text.replace(&format!("\"{key}\":\"{found}\""), &format!("\"{key}\":\"\\u001b[2J{found}\""));
        let error = read_changed(&statistics, &change).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}` in its metadata holds control characters")), "{error}");
        assert!(!error.contains('\u{1b}'));
    }
    // A folder may be called so, and the file of its statistics can be read.
    statistics.made_from = "9 pictures in a\nb\u{1b}c".to_owned();
    let read = read_changed(&statistics, &|text| text).unwrap();
    assert_eq!(read.statistics.made_from, "9 pictures in a\u{fffd}b\u{fffd}c");
}

#[test]
fn the_line_that_converts_inceptions_weights_is_the_one_that_was_tried() {
    let recipe = include_str!("../recipes/inception/README.md");
    assert!(recipe.lines().any(|line| line == INCEPTION_CONVERSION), "{INCEPTION_CONVERSION}");
    let message = Error::Pickle { file: "a'b$(c).pth".to_owned() }.to_string();
    assert!(message.ends_with(INCEPTION_CONVERSION) && message.starts_with("a'b$(c).pth: "), "{message}");
    assert_eq!(message.matches("a'b").count(), 1, "no name of a file in what is pasted into a shell: {message}");
}

#[test]
fn a_file_of_statistics_brings_back_every_bit_and_says_where_the_features_are() {
    let features = correlated(9, 4, 3);
    let mut statistics = gather(&features, 4, 2);
    statistics.made_from = "9 pictures in \"nowhere\"".to_owned();
    let stored: Vec<u8> = features.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect();
    let whole = [statistics.to_file(true).unwrap(), stored.clone()].concat();
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("a.safetensors");
    std::fs::write(&path, &whole).unwrap();
    let read = block_on(StatisticsFile::read(&DirectorySource::new(folder.path()), "a.safetensors")).unwrap();
    assert_eq!(read.statistics, statistics);
    let range = read.features.unwrap();
    assert_eq!(whole[range.start as usize..range.end as usize], stored);
    SafeTensors::deserialize(&whole).expect("the format's own crate reads it");

    let mut source = MemorySource::new();
    source.insert("b", statistics.to_file(false).unwrap());
    let read = block_on(StatisticsFile::read(&source, "b")).unwrap();
    assert_eq!(read, StatisticsFile { statistics: statistics.clone(), features: None });

    for length in 0..whole.len() {
        source.insert("cut", &whole[..length]);
        assert!(block_on(StatisticsFile::read(&source, "cut")).is_err(), "cut after {length} bytes");
    }
    for (find, replace, words) in [
        ("undiffuse.statistics", "undiffuse.statistiks", "holds no statistics"),
        ("\"count\":\"9\"", "\"count\":\"8\"", "`features` is [9, 4] of F32, its metadata calls for [8, 4]"),
        ("\"count\":\"9\"", "\"count\":\"x\"", "`count` is \"x\""),
        ("\"dimension\":\"4\"", "\"dimension\":\"3\"", "`mean` is [4] of F64, its metadata calls for [3]"),
        ("\"covariance\"", "\"covarianze\"", "no tensor `covariance`"),
        ("\"extractor\"", "\"extraktor\"", "lacks `extractor`"),
    ] {
        let (find, replace) = (find.as_bytes(), replace.as_bytes());
        let at = whole.windows(find.len()).position(|part| part == find).unwrap();
        let mut changed = whole.clone();
        changed[at..at + find.len()].copy_from_slice(replace);
        source.insert("changed", changed);
        let error = block_on(StatisticsFile::read(&source, "changed")).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Features of a few directions in many dimensions, and others that are zero throughout, as those of a network are.
    #[test]
    fn singular_covariances_give_the_distance_of_the_directions_that_they_have(
        rank in 0usize..5, dimension in 1usize..24, count in 2usize..40, scale in -6i32..6, seed in 0u64..1 << 40,
    ) {
        let rank = rank.min(dimension);
        let scale = 10f64.powi(scale);
        let narrow = |seed| correlated(count, rank.max(1), seed).iter().map(|v| v * scale).collect::<Vec<_>>();
        let [one, other] = [narrow(seed), narrow(seed + 1)];
        // A direction of the few becomes one of the many by a rotation: here by Householder's reflection about (1, …, 1).
        let widen = |features: &[f64]| -> Vec<f64> {
            features.chunks(rank.max(1)).flat_map(|row| {
                let row: Vec<f64> = (0..dimension).map(|i| row.get(i).copied().filter(|_| i < rank).unwrap_or(0.0)).collect();
                let sum: f64 = row.iter().sum();
                row.into_iter().map(|v| v - 2.0 * sum / dimension as f64).collect::<Vec<_>>()
            }).collect()
        };
        let wide = frechet_distance(&gather(&widen(&one), dimension, 16), &gather(&widen(&other), dimension, 16)).unwrap();
        let expected = match rank {
            0 => 0.0,
            _ => frechet_distance(&gather(&one, rank, 16), &gather(&other, rank, 16)).unwrap(),
        };
        // A zero eigenvalue that is found as 1e-16 of the largest counts with its root.
        prop_assert!((wide - expected).abs() <= 1e-6 * (expected + scale * scale), "{wide}, expected {expected}");
    }

    #[test]
    fn in_which_blocks_features_come_makes_no_difference(
        count in 2usize..60, dimension in 1usize..6, rows in 1usize..60, offset in -1e6f64..1e6, seed in 0u64..1 << 40,
    ) {
        let features: Vec<f64> = correlated(count, dimension, seed).iter().map(|v| v + offset).collect();
        let [once, blocks] = [count, rows].map(|rows| gather(&features, dimension, rows));
        // Twice over, as the textbook has it.
        let mean = |i: usize| features.iter().skip(i).step_by(dimension).sum::<f64>() / count as f64;
        let means: Vec<f64> = (0..dimension).map(mean).collect();
        for i in 0..dimension {
            for j in 0..dimension {
                let products = features.chunks(dimension).map(|row| (row[i] - means[i]) * (row[j] - means[j]));
                let expected = products.sum::<f64>() / (count - 1) as f64;
                for found in [&once, &blocks] {
                    let off = (found.covariance[i * dimension + j] - expected).abs();
                    prop_assert!(off <= 1e-9, "{i}, {j}: off by {off}");
                }
            }
        }
    }
}

/// `cargo test --release --test suite metrics:: -- --ignored --nocapture` prints the time.
#[test]
#[ignore = "takes minutes; for a measurement"]
fn sets_of_inceptions_dimension_have_a_distance_and_the_time_is_printed() {
    let dimension = 2048;
    for count in [4096, 300] {
        let [real, generated] = [1, 2].map(|seed| correlated(count, dimension, seed));
        let start = std::time::Instant::now();
        let [real, generated] = [real, generated].map(|features| gather(&features, dimension, 512));
        println!("{count} pictures: statistics of both {:.2?}", start.elapsed());
        let start = std::time::Instant::now();
        let distance = frechet_distance(&real, &generated).unwrap();
        println!("{count} pictures: distance {distance:.4} in {:.2?}", start.elapsed());
        assert!(distance > 0.0);
    }
    let [real, generated] = [1, 2].map(|seed| correlated(4096, dimension, seed));
    let (real, groups) = (gather(&real, dimension, 512), split(&generated, dimension, 20));
    let start = std::time::Instant::now();
    let estimate = frechet::with_standard_error(&real, &groups).unwrap();
    println!("4096 pictures in 20 groups: {estimate:?} in {:.2?}", start.elapsed());
}
