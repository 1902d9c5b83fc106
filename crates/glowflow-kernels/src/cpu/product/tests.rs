//! Compares every kernel of this processor with literal sums, at sizes around the block sizes.

use half::bf16;
use num_traits::Float;
use rayon::prelude::*;

use super::*;
use crate::cpu::Workspace;
use crate::cpu::buffer::Pool;
use crate::cpu::element::Element;
use crate::cpu::isa::Isa;
use crate::cpu::panels::{DEPTH, Panels};
use crate::random::RngStream;
use crate::real::Real;

fn workspace<E: Element>(isa: Isa) -> Workspace<E> {
    Workspace::new(isa, Pool::default(), Pool::default())
}

/// The instruction sets of this processor, and AMX, emulated if necessary.
fn available<E: Element>() -> Vec<Isa> {
    let mut found = E::available();
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if E::GROUP == 2 {
        found.push(if Isa::has_amx() {
            Isa::Amx
        } else {
            super::amx::emulator::install();
            Isa::AmxEmulated
        });
    }
    found
}

/// Numbers that an element represents exactly.
fn numbers<E: Element>(id: u64, len: usize) -> Vec<E::Sum> {
    let uniform = |i| RngStream { seed: 1, id }.uniform(i)[0] - 0.5;
    (0..len as u64).map(|i| E::of_sum(E::Sum::of(uniform(i))).to_sum()).collect()
}

fn panels<E: Element>(work: &Workspace<E>, columns: usize, rows: &[E::Sum]) -> Panels<E> {
    Panels::of_rows(work, columns, rows)
}

fn pack<E: Element>(work: &Workspace<E>, k: usize, n: usize, b: &[E::Sum]) -> Packed<E> {
    Packed::of_rows(work, k, n, |i, j, to| to.copy_from_slice(&b[i * n + j..][..to.len()]))
}

/// `a·b` with `b` in `packed`, tile by tile, row-major.
fn multiply<E: Element>(work: &Workspace<E>, k: usize, a: &[E::Sum], packed: &Packed<E>) -> Vec<E::Sum> {
    let a = panels(work, k, a);
    let mut c = vec![E::Sum::nan(); a.view().data.len() / a.cut.stride() * packed.n];
    product_into_rows(a.view(), packed, &mut c);
    c
}

fn against_sums<E: Element>(tolerance: f64) {
    for isa in available::<E>() {
        let work = workspace::<E>(isa);
        for (rows, k, n) in [
            (1, 1, 1),
            (5, 3, 7),
            (6, 16, 16),
            (13, 40, 33),
            (29, 7, 70),
            (40, 35, 300),
            (150, 65, 9),
            (600, 33, 40),
        ] {
            let (a, b) = (numbers::<E>(0, rows * k), numbers::<E>(1, k * n));
            let (bias, mask) = (numbers::<E>(2, n), numbers::<E>(3, rows * n));
            // Columns of a matrix with at least `2·k` rows, in which every second row is halved.
            let columns: Vec<Vec<E::Sum>> = (0..n)
                .map(|j| {
                    let at = |i: usize| {
                        if i.is_multiple_of(2) && i / 2 < k { b[i / 2 * n + j].wide() * 2.0 } else { 9.0 }
                    };
                    (0..2 * k + 3).map(|i| E::Sum::of(at(i))).collect()
                })
                .collect();
            let by_columns = Packed::of_columns(&work, k, n, 2, |j| (&columns[j][..], E::Sum::of(0.5)));
            let packed = pack(&work, k, n, &b).with_bias(bias.iter().copied());
            let bytes = |packed: &Packed<E>| bytemuck::cast_slice::<E, u8>(&packed.panels).to_vec();
            assert!(bytes(&by_columns) == bytes(&packed), "{isa:?}: packed by columns and by rows");

            let want: Vec<f64> = (0..rows * n)
                .map(|at| {
                    let (r, j) = (at / n, at % n);
                    let sum: f64 = (0..k).map(|p| a[r * k + p].wide() * b[p * n + j].wide()).sum();
                    sum + bias[j].wide()
                })
                .collect();
            for (at, (c, want)) in multiply(&work, k, &a, &packed).iter().zip(&want).enumerate() {
                assert!(
                    (c.wide() - want).abs() <= tolerance,
                    "{isa:?} {rows}x{k}x{n}: {c}, not {want} at {at}"
                );
            }

            // Converts to panels, rounded to their element type, with zeros in the padding columns.
            let (a, mask_in_panels) = (panels(&work, k, &a), panels(&work, n, &mask));
            for name in ["relu", "mask"] {
                let mut c = Panels::scratch(&work, rows, n);
                let (cut, tiles) = (c.cut, mask_in_panels.view().tiles());
                c.tiles_mut().zip(a.view().tiles()).zip(tiles).for_each(|((c, a), mask)| {
                    let finish = if name == "relu" { Finish::Relu } else { Finish::Mask(mask) };
                    product(a, &packed, Out::Panels(c, finish));
                });
                let want = want.iter().zip(&mask).map(|(&sum, &mask)| match name {
                    "relu" => sum.max(0.0),
                    _ if mask.wide() > 0.0 => sum,
                    _ => 0.0,
                });
                let want: Vec<E::Sum> = want.map(E::Sum::of).collect();
                let want = panels(&work, n, &want);
                let rounding = if E::GROUP == 2 { 1.0 / 256.0 } else { 0.0 };
                for (c, want) in c.view().data.iter().zip(want.view().data) {
                    let (c, want) = (c.to_sum().wide(), want.to_sum().wide());
                    let allowed = tolerance + rounding * want.abs();
                    assert!(
                        (c - want).abs() <= allowed,
                        "{isa:?} {rows}x{k}x{n} {name} {cut:?}: {c}, not {want}"
                    );
                }
            }
        }
    }
}

/// AMX is used on request only.
#[test]
fn amx_is_not_a_default() {
    assert!(!<bf16 as Element>::available().contains(&Isa::Amx));
}

#[test]
fn products_are_sums() {
    against_sums::<f32>(1e-5);
    against_sums::<f64>(1e-13);
    // Products of bf16 are exact in f32.
    against_sums::<bf16>(1e-5);
}

#[test]
fn not_a_number_is_not_hidden() {
    fn check<E: Element>() {
        for isa in available::<E>() {
            let work = workspace::<E>(isa);
            let packed = pack(&work, 3, 40, &numbers::<E>(1, 120));
            let a = panels(&work, 3, &[E::Sum::of(1.0), E::Sum::nan(), E::Sum::of(1.0)]);
            let mut c = Panels::scratch(&work, 1, 40);
            c.tiles_mut()
                .zip(a.view().tiles())
                .for_each(|(c, a)| product(a, &packed, Out::Panels(c, Finish::Relu)));
            assert!(c.view().data[..40].iter().all(|c| c.to_sum().is_nan()), "{isa:?}");
        }
    }
    check::<f32>();
    check::<f64>();
    check::<bf16>();
}

#[test]
fn a_row_has_the_same_bits_in_any_batch() {
    fn check<E: Element>() {
        for isa in available::<E>() {
            let work = workspace::<E>(isa);
            let (rows, k, n) = (29, 50, 40);
            let a = numbers::<E>(0, rows * k);
            let packed = pack(&work, k, n, &numbers::<E>(1, k * n));
            let whole = multiply(&work, k, &a, &packed);
            for r in 0..rows {
                let alone = multiply(&work, k, &a[r * k..(r + 1) * k], &packed);
                assert_eq!(alone, whole[r * n..(r + 1) * n], "{isa:?} row {r}");
            }
        }
    }
    check::<f32>();
    check::<bf16>();
}

#[test]
fn transposed_products_are_sums_on_top_of_what_is_there() {
    fn check<E: Element>(tolerance: f64) {
        for isa in available::<E>() {
            let work = workspace::<E>(isa);
            for (rows, m, n) in
                [(2 * DEPTH + 71, 9, 13), (DEPTH + 70, 40, 33), (37, 33, 70), (75, 600, 40), (3, 1, 1)]
            {
                let (a, b) = (numbers::<E>(0, rows * m), numbers::<E>(1, rows * n));
                let (mut c, mut sums) = (vec![E::Sum::of(1.0); m * n], vec![E::Sum::of(2.0); m]);
                let (in_panels_a, in_panels_b) = (panels(&work, m, &a), panels(&work, n, &b));
                let (view_a, view_b) = (in_panels_a.view(), in_panels_b.view());
                transposed_products(
                    &work,
                    vec![Gradient { a: view_a, b: view_b, c: &mut c, sums: &mut sums }],
                );
                for i in 0..m {
                    for j in 0..n {
                        let want: f64 =
                            1.0 + (0..rows).map(|r| a[r * m + i].wide() * b[r * n + j].wide()).sum::<f64>();
                        let c = c[i * n + j].wide();
                        assert!(
                            (c - want).abs() < tolerance,
                            "{isa:?} {rows}x{m}x{n} at {i}, {j}: {c}, not {want}"
                        );
                    }
                    let want: f64 = 2.0 + (0..rows).map(|r| a[r * m + i].wide()).sum::<f64>();
                    assert!((sums[i].wide() - want).abs() < tolerance, "{isa:?} sum of column {i}");
                }
            }
        }
    }
    check::<f64>(1e-12);
    check::<f32>(1e-4);
    check::<bf16>(1e-4);
}

#[test]
fn elements_are_rounded_to_the_nearest() {
    for bits in (0..=u32::MAX).step_by(65_537 / 3) {
        let x = f32::from_bits(bits);
        let (mine, want) = (<bf16 as Element>::of_sum(x), bf16::from_f32(x));
        assert!(mine.to_bits() == want.to_bits() || (x.is_nan() && mine.is_nan()), "{x}: {mine}, not {want}");
    }
}
