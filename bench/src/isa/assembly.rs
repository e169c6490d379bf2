//! AMD's machine code as Mesa prints it: what is in the loop that a kernel spends its time in.

use std::collections::HashMap;

/// Instructions of a loop by what executes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mix {
    /// Multiply-adds of floating point numbers, two for an instruction that does two.
    pub multiply_adds: usize,
    /// Other arithmetic on vectors.
    pub vector: usize,
    /// Loads from workgroup memory and stores to it.
    pub shared: usize,
    /// Loads from memory and stores to it.
    pub memory: usize,
}

/// The instructions of the innermost loop with most multiply-adds, or with most arithmetic where there are none; `None` if there is no
/// loop.
pub fn hottest_loop(assembly: &str) -> Option<Mix> {
    let code: Vec<&str> = assembly.lines().map(without_comment).filter(|line| !line.is_empty()).collect();
    let labels = code.iter().enumerate().filter_map(|(at, line)| Some((label(line)?, at)));
    let labels: HashMap<&str, usize> = labels.collect();
    // A loop is what lies between a branch and the label before it that it goes back to.
    let loops: Vec<(usize, usize)> = (code.iter().enumerate())
        .filter_map(|(at, line)| {
            let (name, target) = line.split_once(char::is_whitespace)?;
            let is_branch = name.starts_with("s_cbranch") || name == "s_branch";
            let &begin = labels.get(target.trim()).filter(|&&begin| is_branch && begin <= at)?;
            Some((begin, at))
        })
        .collect();
    let is_innermost = |&&(begin, end): &&(usize, usize)| {
        !loops.iter().any(|&(other, last)| (other, last) != (begin, end) && begin < other && last <= end)
    };
    let mixes = loops.iter().filter(is_innermost).map(|&(begin, end)| Mix::of(&code[begin..=end]));
    mixes.max_by_key(|mix| (mix.multiply_adds, mix.vector))
}

/// A line without what follows a semicolon, and without space around it.
fn without_comment(line: &str) -> &str {
    line.split(';').next().unwrap_or_default().trim()
}

/// The name of a label, `BB3:`.
fn label(line: &str) -> Option<&str> {
    line.strip_suffix(':').filter(|name| !name.contains(char::is_whitespace))
}

impl Mix {
    fn of(code: &[&str]) -> Self {
        let mut mix = Self::default();
        // RDNA 3 has instructions that are two, written with `::` between.
        for instruction in code.iter().flat_map(|line| line.split("::")).map(str::trim) {
            let name = instruction.split_whitespace().next().unwrap_or_default();
            match name {
                _ if is_multiply_add(name, instruction) => {
                    mix.multiply_adds += if name.starts_with("v_pk_") { 2 } else { 1 };
                }
                _ if name.starts_with("v_") => mix.vector += 1,
                _ if name.starts_with("ds_") => mix.shared += 1,
                _ if ["buffer_", "global_", "flat_"].iter().any(|prefix| name.starts_with(prefix)) => mix.memory += 1,
                _ => {}
            }
        }
        mix
    }
}

/// Whether an instruction of this name multiplies and adds floating point numbers. One that adds a constant zero only converts.
fn is_multiply_add(name: &str, instruction: &str) -> bool {
    let Some(rest) = name.strip_prefix("v_") else { return false };
    let rest = rest.strip_prefix("pk_").or_else(|| rest.strip_prefix("dual_")).unwrap_or(rest);
    let Some((operation, of)) = rest.split_once('_') else { return false };
    let is_operation = ["fma", "fmac", "fmaak", "fmamk", "mad", "mac", "madak", "madmk"].contains(&operation);
    let is_float =
        ["f16", "f32", "mix", "mixlo", "mixhi", "legacy"].contains(&of.split('_').next().unwrap_or_default());
    let added = instruction.split(',').nth(3).and_then(|operand| operand.split_whitespace().next());
    is_operation && is_float && !added.is_some_and(|operand| ["0", "-0", "neg(0)"].contains(&operand))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hottest_loop_is_the_innermost_one_with_most_multiply_adds() {
        let assembly = "
BB0:
\ts_mov_b32 s0, 0                    ; be800080
\tv_fma_f32 v9, v1, v2, v3           ; d513_0009
BB1:
\tv_fma_f32 v9, v1, v2, v3
\tv_fma_f32 v9, v1, v2, v3
\tv_fma_f32 v9, v1, v2, v3
BB2:
\tds_read_b128 v[4:7], v0 offset:16  ; d8fc0010
\tv_add_nc_u32_e32 v0, 16, v0
\tv_fmac_f32_e32 v1, v4, v5
\tv_fmac_f32_e32 v1, v6, v7
\ts_cbranch_scc1 BB2                 ; bf85fffa
BB3:
\tbuffer_load_dwordx4 v[0:3], v0, s[0:3], 0 offen
\tv_mul_lo_u32 v0, v1, v2
\ts_cbranch_scc0 BB3
\ts_branch BB1
BB4:
\ts_endpgm
";
        let expected = Mix { multiply_adds: 2, vector: 1, shared: 1, memory: 0 };
        assert_eq!(hottest_loop(assembly), Some(expected));
    }

    #[test]
    fn code_without_a_loop_has_none_whatever_it_looks_like() {
        for text in
            ["", "no code", "BB0:\n\ts_cbranch_execz BB1\nBB1:\n\ts_endpgm", "s_branch", "s_branch nowhere", ":\n:"]
        {
            assert_eq!(hottest_loop(text), None, "{text}");
        }
    }

    #[test]
    fn two_multiply_adds_of_one_instruction_count_twice_and_conversions_and_integers_do_not() {
        let names = [
            ("v_dual_fmac_f32 v0, v1, v2 :: v_dual_fmac_f32 v3, v4, v5", 2, 0),
            ("v_dual_fmac_f32 v0, v1, v2 :: v_dual_mov_b32 v3, v4", 1, 1),
            ("v_pk_fma_f32 v[0:1], v[2:3], v[4:5], v[0:1]", 2, 0),
            ("v_fma_mix_f32 v8, v46, v1, v2 op_sel_hi:[1,0,0]", 1, 0),
            ("v_fma_mix_f32 v8, v46, 1.0, neg(0) op_sel_hi:[1,0,0]", 0, 1),
            ("v_mac_f32_e32 v0, v1, v2", 1, 0),
            ("v_mad_u32_u24 v0, v1, v2, v3", 0, 1),
            ("v_mad_u64_u32 v[0:1], null, v1, v2, v[3:4]", 0, 1),
            ("v_cvt_f32_f16_e32 v0, v1", 0, 1),
        ];
        for (line, multiply_adds, vector) in names {
            let mix = hottest_loop(&format!("BB0:\n\t{line}\n\ts_branch BB0\n"));
            assert_eq!(mix, Some(Mix { multiply_adds, vector, ..Mix::default() }), "{line}");
        }
    }
}
