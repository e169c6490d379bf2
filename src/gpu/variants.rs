//! Which variant of a kernel a device runs: the one table, keyed by what the adapter says it is.
//!
//! There are two families of matrix kernels. *Registers* (`linear.wgsl`, `conv2d.wgsl`, `conv3x3.wgsl`) keeps a tile of 16 pixels × 8
//! channels in each invocation and reads everything else from memory: 2.7 FLOP for each byte loaded in a linear layer, 4 in a 3×3
//! convolution. A software adapter has no other memory than that, and its barriers are expensive: there a run takes a third of the
//! CPU time that it takes with tiles in workgroup memory (lavapipe, `undiffuse sample www/models/emoji64 --prompt "a happy cat"
//! --steps 8 --device gpu --kernels registers`: 1.0 s; tiled-64x64: 2.7 s). A GPU does many more FLOP than that in the time of a
//! byte, even from its cache, so it would wait for loads most of the time.
//!
//! *Tiled* (`tiled.wgsl`) loads the operands once for a workgroup. Per byte from memory, with f32 operands (f16 weights in brackets),
//! and per byte from workgroup memory, of which a compute unit delivers about one for two FLOP:
//!
//! | tile   | FLOP per byte | of workgroup memory | invocations | registers for sums |
//! |--------|---------------|---------------------|-------------|--------------------|
//! | 128×64 | 21 (26)       | 2.0                 | 128         | 64                 |
//! | 64×64  | 16 (21)       | 2.0                 | 64          | 64                 |
//! | 64×32  | 11 (13)       | 1.3                 | 64          | 32                 |
//!
//! The two smaller ones have a *lean* variant each, which holds nothing for the next step in registers while it multiplies. On GCN it
//! takes 128 and 84 registers, and the others 180, 196 and 128 (Mesa 25.0, `RADV_FORCE_FAMILY=renoir undiffuse-bench isa --network sd15
//! --kernels NAME`): two and three subgroups have room in a SIMD then, instead of one, one and two, and hide each other's loads.
//!
//! The larger tile is ahead while there are enough of them to fill the device and enough registers for them. Where there are too
//! few, at the small levels of a UNet, the depth is split over workgroups, whose sums are added up afterwards. Sums are f32
//! everywhere. Weights stored as f16 can stay so in workgroup memory, which rounds nothing; it saves a quarter of that memory's
//! traffic, where converting on each load is free. Activations are never rounded.

use std::collections::HashMap;
use std::rc::Rc;
use std::str::FromStr;

use super::capabilities::{Capabilities, Class};
use super::storage::Storage;
use crate::graph::{Graph, Node, Op, WeightId};

/// A tile of the tiled matrix kernel, as rows × channels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Tile {
    /// 128 × 64.
    T128x64,
    /// 64 × 64.
    T64x64,
    /// 64 × 32.
    T64x32,
    /// 64 × 64, in fewer registers.
    T64x64Lean,
    /// 64 × 32, in fewer registers.
    T64x32Lean,
}

impl Tile {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::T128x64, Self::T64x64, Self::T64x32, Self::T64x64Lean, Self::T64x32Lean];

    /// Rows and channels.
    pub fn sizes(self) -> [usize; 2] {
        match self {
            Self::T128x64 => [128, 64],
            Self::T64x64 | Self::T64x64Lean => [64, 64],
            Self::T64x32 | Self::T64x32Lean => [64, 32],
        }
    }

    /// Whether a step is loaded when it is needed, and not held in registers while the one before is multiplied.
    pub fn lean(self) -> bool {
        matches!(self, Self::T64x64Lean | Self::T64x32Lean)
    }

    /// Workgroups of 64 invocations for `product`, unless its depth is split; a larger one counts as several.
    fn workgroups(self, product: Product) -> usize {
        self.tiles(product) * self.invocations() as usize / 64
    }

    /// The number of tiles that cover the result of `product`.
    fn tiles(self, product: Product) -> usize {
        let [rows, channels] = self.sizes();
        product.rows.div_ceil(rows) * product.channels.div_ceil(channels)
    }

    /// Invocations of a workgroup that computes one.
    pub const fn invocations(self) -> u32 {
        match self {
            Self::T128x64 => 128,
            _ => 64,
        }
    }
}

/// Matrix kernels, for asking for them by name: `registers`, `tiled`, or one tile, `tiled-128x64`, `tiled-64x64`, `tiled-64x32`,
/// `tiled-64x64-lean`, `tiled-64x32-lean`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MatrixKernels {
    /// Tiles in registers.
    Registers,
    /// Tiles in workgroup memory: this one, or the one that suits.
    Tiled(Option<Tile>),
}

impl MatrixKernels {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Registers,
        Self::Tiled(None),
        Self::Tiled(Some(Tile::T128x64)),
        Self::Tiled(Some(Tile::T64x64)),
        Self::Tiled(Some(Tile::T64x32)),
        Self::Tiled(Some(Tile::T64x64Lean)),
        Self::Tiled(Some(Tile::T64x32Lean)),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Registers => "registers",
            Self::Tiled(None) => "tiled",
            Self::Tiled(Some(Tile::T128x64)) => "tiled-128x64",
            Self::Tiled(Some(Tile::T64x64)) => "tiled-64x64",
            Self::Tiled(Some(Tile::T64x32)) => "tiled-64x32",
            Self::Tiled(Some(Tile::T64x64Lean)) => "tiled-64x64-lean",
            Self::Tiled(Some(Tile::T64x32Lean)) => "tiled-64x32-lean",
        }
    }
}

impl FromStr for MatrixKernels {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|family| family.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("there are no kernels called \"{name}\"; there are {known}")
        })
    }
}

/// The kernels that a device runs. Clones share what was measured.
#[derive(Clone, PartialEq, Debug)]
pub struct Variants {
    /// `None`: the kernels that keep their tiles in registers.
    tiles: Option<Tiles>,
    /// The only tile to use.
    only: Option<Tile>,
    /// Tilings that were found to be fastest, whatever the table says.
    measured: Rc<Measured>,
}

/// The fastest tilings that were found on an adapter, for products with weights stored so.
pub type Measured = HashMap<(Product, Storage), Tiling>;

/// A row of the table: how a class of GPUs runs the tiled kernels.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Tiles {
    /// Arithmetic rate with each of [`Tile::ALL`] where there is enough work, relative to the best of them.
    rates: [f32; 5],
    /// Workgroups of 64 invocations from which on the device is busy.
    fill: usize,
    /// Whether f16 weights stay f16 in workgroup memory.
    half: bool,
}

/// The product that a matrix kernel computes: [rows, depth] × [depth, channels].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Product {
    /// Pixels or tokens of the result.
    pub rows: usize,
    /// Channels of the result.
    pub channels: usize,
    /// Steps of 16 input channels of one kernel tap.
    pub steps: usize,
}

/// How a product is cut up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tiling {
    /// The tile.
    pub tile: Tile,
    /// Parts of the depth; if there are several, their sums are added up by a second kernel.
    pub splits: usize,
}

/// How a product is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// By the kernels that keep their tiles in registers.
    Registers,
    /// By the tiled kernel.
    Tiled {
        /// How it is cut up.
        tiling: Tiling,
        /// Whether the weights are f16 in workgroup memory.
        half: bool,
    },
}

impl Variants {
    /// The kernels that a device runs, if nobody asks for others.
    pub fn new(capabilities: Capabilities, asked: Option<MatrixKernels>) -> Self {
        let tiles = Tiles::of(capabilities);
        let (tiles, only) = match asked {
            None => ((capabilities.class != Class::Software).then_some(tiles), None),
            Some(MatrixKernels::Registers) => (None, None),
            Some(MatrixKernels::Tiled(only)) => (Some(tiles), only),
        };
        Self { tiles, only, measured: Rc::default() }
    }

    /// Prefers what was measured from now on.
    pub fn set_measured(&mut self, measured: Measured) {
        self.measured = Rc::new(measured);
    }

    /// How `product` is computed with weights stored as `storage`.
    pub fn choose(&self, product: Product, storage: Storage) -> Choice {
        let Some(tiles) = &self.tiles else { return Choice::Registers };
        let half = tiles.half && storage == Storage::F16;
        if let Some(&tiling) = self.measured.get(&(product, storage)).filter(|_| self.only.is_none()) {
            return Choice::Tiled { tiling, half };
        }
        let costs = self.tiles_and_rates(tiles).map(|(tile, rate)| {
            let splits = tiles.splits(product, tile);
            (Tiling { tile, splits }, tiles.cost(product, tile, splits) / rate)
        });
        let best = costs.reduce(|best, next| if next.1 < best.1 { next } else { best });
        best.map_or(Choice::Registers, |(tiling, _)| Choice::Tiled { tiling, half })
    }

    /// The tilings worth measuring for `product`: every tile, with half, as many and twice the splits that the table gives it. Nothing
    /// where there is no choice.
    pub fn candidates(&self, product: Product) -> Vec<Tiling> {
        let Some(tiles) = &self.tiles else { return Vec::new() };
        let mut candidates = Vec::new();
        for (tile, _) in self.tiles_and_rates(tiles) {
            let usual = tiles.splits(product, tile);
            for splits in [usual, usual.div_ceil(2), 2 * usual] {
                let tiling = Tiling { tile, splits: product.whole_splits(splits) };
                if splits <= product.most_splits() && !candidates.contains(&tiling) {
                    candidates.push(tiling);
                }
            }
        }
        candidates
    }

    /// Whether attention is tiled in workgroup memory (`flash_attention.wgsl`), by the same reasons as matrix products; a software
    /// adapter has its scores in memory (`attention.wgsl`).
    pub fn flash_attention(&self) -> bool {
        self.tiles.is_some()
    }

    fn tiles_and_rates(&self, tiles: &Tiles) -> impl Iterator<Item = (Tile, f32)> {
        let only = self.only;
        Tile::ALL.into_iter().zip(tiles.rates).filter(move |(tile, _)| only.is_none_or(|only| only == *tile))
    }
}

impl Product {
    /// The product that `node` of `graph` computes, if it is a convolution or a linear layer, and its matrix.
    pub fn of(graph: &Graph, node: &Node) -> Option<(Self, WeightId)> {
        let (Op::Conv2d { weight, .. } | Op::Linear { weight, .. }) = node.op else { return None };
        let (&[channels, inputs, ref taps @ ..], elements) = (&graph.weight(weight).shape[..], node.elements()) else {
            return None;
        };
        let steps = inputs.div_ceil(16) * taps.iter().product::<usize>();
        Some((Self { rows: elements.checked_div(channels)?, channels, steps }, weight))
    }

    /// The most splits: with more, adding them up takes as long as multiplying.
    fn most_splits(self) -> usize {
        /// Steps of a split: 256 channels are 64 FLOP for each byte of a sum that is written and read again.
        const STEPS: usize = 16;
        /// Bytes of all sums.
        const SUM_BYTES: usize = 32 << 20;
        let sums = 4usize.saturating_mul(self.rows).saturating_mul(self.channels);
        (self.steps / STEPS).min(SUM_BYTES / sums.max(1)).max(1)
    }

    /// Whether it can be cut up so: no split is left without a step, and there are not too many.
    pub fn admits(self, Tiling { splits, .. }: Tiling) -> bool {
        (1..=self.most_splits()).contains(&splits) && self.whole_splits(splits) == splits
    }

    /// `splits`, or a few less, so that none is left without a step.
    fn whole_splits(self, splits: usize) -> usize {
        self.steps.div_ceil(self.steps.div_ceil(splits).max(1)).max(1)
    }
}

impl Tiles {
    /// The table. Rates follow from the tiles' FLOP per byte and registers, and await their measurement on each make:
    ///
    /// - NVIDIA and AMD have 256 registers for an invocation and cache traffic to save: large tiles.
    /// - AMD's older chips have 256 as well, and 256 for all subgroups of a SIMD together: lean tiles. Their rates follow from the
    ///   instructions of a step, and for tiles that leave one subgroup from the compiler's estimate (`cargo xtask bench --only isa`).
    /// - Apple's and Intel's have about half as many before fewer invocations run at a time: small sums.
    /// - f16 in workgroup memory where an instruction takes f16 operands for an f32 sum at the rate of others; NVIDIA's and AMD's older
    ///   chips convert first, which takes the place of arithmetic, and RDNA 3 issues two multiply-adds at once of f32 operands alone.
    /// - The first counts are those of large chips: splitting in vain costs a few percent, an idle chip most of its rate.
    fn of(Capabilities { class, f16, .. }: Capabilities) -> Self {
        let (rates, fill, half) = match class {
            Class::Nvidia => ([1.0, 0.95, 0.7, 0.9, 0.65], 512, false),
            Class::Amd => ([1.0, 0.95, 0.7, 0.9, 0.65], 384, false),
            Class::Gcn => ([0.74, 0.76, 0.86, 1.0, 0.88], 256, false),
            Class::Apple => ([0.8, 0.9, 1.0, 0.85, 0.95], 128, true),
            Class::Intel => ([0.6, 0.7, 1.0, 0.65, 0.95], 128, true),
            Class::Software | Class::Other => ([0.7, 0.8, 1.0, 0.75, 0.95], 128, true),
        };
        Self { rates, fill, half: half && f16 }
    }

    /// The number of parts that the depth is split into with `tile`: as many as fill the device.
    fn splits(&self, product: Product, tile: Tile) -> usize {
        let groups = tile.workgroups(product).max(1);
        product.whole_splits(self.fill.div_ceil(groups).clamp(1, product.most_splits()))
    }

    /// The time of the product at the best rate, in units of this device.
    fn cost(&self, product: Product, tile: Tile, splits: usize) -> f32 {
        let [rows, channels] = tile.sizes();
        let busy = ((tile.workgroups(product) * splits) as f32 / self.fill as f32).min(1.0);
        (tile.tiles(product) * rows * channels) as f32 / busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [Class; 7] =
        [Class::Software, Class::Nvidia, Class::Amd, Class::Gcn, Class::Apple, Class::Intel, Class::Other];

    #[test]
    fn software_adapters_keep_their_tiles_in_registers_unless_they_are_asked_not_to() {
        let product = Product { rows: 8192, channels: 320, steps: 180 };
        for class in CLASSES {
            let choice = Variants::new(Capabilities::of_class(class, true), None).choose(product, Storage::F16);
            assert_eq!(choice == Choice::Registers, class == Class::Software, "{class:?}");
            let asked = Variants::new(Capabilities::of_class(class, true), Some(MatrixKernels::Registers))
                .choose(product, Storage::F16);
            assert_eq!(asked, Choice::Registers, "{class:?}");
            for tile in Tile::ALL {
                let choice = Variants::new(Capabilities::of_class(class, true), Some(MatrixKernels::Tiled(Some(tile))))
                    .choose(product, Storage::F16);
                assert!(matches!(choice, Choice::Tiled { tiling, .. } if tiling.tile == tile), "{class:?}: {choice:?}");
            }
        }
    }

    #[test]
    fn weights_are_f16_in_workgroup_memory_only_where_that_rounds_nothing_and_shaders_know_it() {
        let product = Product { rows: 100, channels: 100, steps: 10 };
        for class in CLASSES {
            for storage in Storage::ALL {
                for f16 in [false, true] {
                    let choice = Variants::new(Capabilities::of_class(class, f16), Some(MatrixKernels::Tiled(None)))
                        .choose(product, storage);
                    let Choice::Tiled { half, .. } = choice else { panic!("{choice:?}") };
                    assert!(!half || (f16 && storage == Storage::F16), "{class:?}, {storage:?}");
                }
            }
        }
    }

    #[test]
    fn every_split_of_a_product_has_steps_and_their_sums_have_a_bounded_size() {
        let sizes = [1, 2, 63, 64, 65, 154, 512, 2048, 8192, 262_144];
        for class in CLASSES {
            let variants = Variants::new(Capabilities::of_class(class, true), Some(MatrixKernels::Tiled(None)));
            for rows in sizes {
                for channels in [1, 4, 33, 320, 1280, 10_240] {
                    for steps in [1, 15, 16, 31, 32, 80, 180, 720, 1440] {
                        let product = Product { rows, channels, steps };
                        let choice = variants.choose(product, Storage::F32);
                        let Choice::Tiled { tiling: Tiling { splits, .. }, .. } = choice else { panic!("{choice:?}") };
                        let per_split = steps.div_ceil(splits);
                        assert!((splits - 1) * per_split < steps, "{product:?}: {splits} splits of {per_split} steps");
                        assert!(splits == 1 || per_split >= 16, "{product:?}: {splits} splits of {per_split} steps");
                        assert!(splits == 1 || 4 * splits * rows * channels <= 32 << 20, "{product:?}: {splits}");
                    }
                }
            }
        }
    }

    #[test]
    fn large_products_get_large_tiles_on_large_chips_and_small_ones_are_split() {
        let tile_of = |class, rows, channels, steps| {
            Variants::new(Capabilities::of_class(class, true), None)
                .choose(Product { rows, channels, steps }, Storage::F16)
        };
        // The decoder at 512×512, and the middle of a UNet at 8×8.
        let Choice::Tiled { tiling: Tiling { tile, splits }, .. } = tile_of(Class::Nvidia, 262_144, 128, 72) else {
            panic!("registers")
        };
        assert_eq!((tile, splits), (Tile::T128x64, 1));
        let Choice::Tiled { tiling: Tiling { splits, .. }, .. } = tile_of(Class::Nvidia, 128, 1280, 720) else {
            panic!("registers")
        };
        assert!(splits > 4, "{splits}");
        let Choice::Tiled { tiling: Tiling { tile, .. }, .. } = tile_of(Class::Apple, 8192, 320, 180) else {
            panic!("registers")
        };
        assert_eq!(tile, Tile::T64x32);
    }

    #[test]
    fn lean_tiles_are_for_chips_with_few_registers() {
        let large = Product { rows: 8192, channels: 320, steps: 180 };
        let small = Product { rows: 64, channels: 32, steps: 8 };
        for class in CLASSES {
            let variants = Variants::new(Capabilities::of_class(class, true), Some(MatrixKernels::Tiled(None)));
            for product in [large, small] {
                let Choice::Tiled { tiling, .. } = variants.choose(product, Storage::F16) else { panic!("registers") };
                assert_eq!(tiling.tile.lean(), class == Class::Gcn, "{class:?}: {tiling:?}");
            }
        }
    }

    #[test]
    fn what_was_measured_is_preferred_to_the_table_unless_a_tile_is_asked_for() {
        let product = Product { rows: 2048, channels: 640, steps: 360 };
        let mut variants = Variants::new(Capabilities::of_class(Class::Nvidia, true), None);
        let Choice::Tiled { tiling: usual, .. } = variants.choose(product, Storage::F16) else { panic!("registers") };
        let candidates = variants.candidates(product);
        assert!(candidates.contains(&usual) && candidates.len() > 3, "{candidates:?}");
        for &tiling in &candidates {
            assert!(product.admits(tiling), "{tiling:?}");
            variants.set_measured(Measured::from([((product, Storage::F16), tiling)]));
            assert_eq!(variants.choose(product, Storage::F16), Choice::Tiled { tiling, half: false });
            assert_eq!(variants.choose(product, Storage::F32), Choice::Tiled { tiling: usual, half: false });
        }
        let mut asked =
            Variants::new(Capabilities::of_class(Class::Nvidia, true), Some(MatrixKernels::Tiled(Some(Tile::T64x32))));
        let small = asked.choose(product, Storage::F16);
        asked.set_measured(Measured::from([((product, Storage::F16), usual)]));
        assert_eq!(asked.choose(product, Storage::F16), small);
        assert_eq!(Variants::new(Capabilities::of_class(Class::Software, true), None).candidates(product), []);
    }

    #[test]
    fn families_have_names() {
        for family in MatrixKernels::ALL {
            assert_eq!(family.name().parse(), Ok(family));
        }
        let error = "fast".parse::<MatrixKernels>().unwrap_err();
        assert!(error.contains("\"fast\"") && error.contains("tiled-64x32"), "{error}");
    }
}
