//! Logit of pixels, the first layer of RealNVP (Dinh, Sohl-Dickstein and Bengio 2016, section 4.1):
//!
//! ```text
//! p = α + (1 − 2α)·(v + ½)     x = log p − log(1 − p)     log|det| = Σ (log(1 − 2α) − log p − log(1 − p))
//! ```
//!
//! for images `v` in [−½, ½), with α = 0.05. The inverse can leave that range by 0.0556.

use glowflow_kernels::expr::{Expr, constant, input, old};
use glowflow_kernels::{Direction, Primitives};

use super::views::{Dims, PER_IMAGE, read, write};
use super::{BackwardPass, Context, Layer, Prepared, Save, Saved, Shape, Shapes, State, Tensor};

/// α.
const ALPHA: f64 = 0.05;
/// 1 − 2α.
const WIDTH: f64 = 1.0 - 2.0 * ALPHA;

/// The logit of images in [−½, ½).
#[derive(Clone, Copy, Debug)]
pub struct Logit;

/// p of v.
fn p(v: Expr) -> Expr {
    constant(ALPHA) + constant(WIDTH) * (v + constant(0.5))
}

/// v of x.
fn v(x: Expr) -> Expr {
    (x.sigmoid() - constant(ALPHA)) / constant(WIDTH) - constant(0.5)
}

impl<D: Primitives> Layer<D> for Logit {
    fn shapes(&self, input: Shape) -> Shapes {
        Shapes::same(input)
    }

    fn prepare(&self, _: &Context<'_, D>, _: Direction) -> Box<dyn Prepared<D>> {
        Box::new(*self)
    }
}

impl<D: Primitives> Prepared<D> for Logit {
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, _: Save) -> Saved {
        let State { x, logp, .. } = state;
        let dims = Dims::of(x.grid, x.channels);
        let each = read(&x.data, dims.each());
        let log = |p: Expr| constant(WIDTH.ln()) - p.clone().ln() - (constant(1.0) - p).ln();
        cx.device.reduce(&log(p(input(0))), dims.shape(), &[each], write(logp, PER_IMAGE), true);
        let f = p(old()).ln() - (constant(1.0) - p(old())).ln();
        cx.device.map(&f, dims.shape(), &[], write(&mut x.data, dims.each()));
        Saved::NOTHING
    }

    fn inverse(&self, cx: &Context<'_, D>, state: &mut State<D>) {
        let Tensor { grid, channels, data } = &mut state.x;
        let dims = Dims::of(*grid, *channels);
        cx.device.map(&v(old()), dims.shape(), &[], write(data, dims.each()));
    }

    fn backward(&self, pass: &mut BackwardPass<'_, D>, _: Saved) {
        let BackwardPass { cx, state, dx, dlogp, .. } = pass;
        let dims = Dims::of(state.x.grid, state.x.channels);
        // With p = sigmoid(x): dx/dv = (1 − 2α)/(p·(1 − p)), d log|det|/dv = (1 − 2α)·(2p − 1)/(p·(1 − p)).
        let p = || input(0).sigmoid();
        let by_log_det = constant(*dlogp) * (constant(2.0) * p() - constant(1.0));
        let f = constant(WIDTH) * (old() + by_log_det) / (p() * (constant(1.0) - p()));
        let x = read(&state.x.data, dims.each());
        cx.device.map(&f, dims.shape(), &[x], write(dx, dims.each()));
        self.inverse(cx, state);
    }
}
