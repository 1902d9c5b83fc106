//! Compares the general operations of every device with loops in `f64`.

#[path = "common/again.rs"]
mod again;

use std::panic::{AssertUnwindSafe, catch_unwind};

use again::again;
use glowflow_kernels::Precision;
use glowflow_kernels::cuda::{self, Tuning};
use glowflow_kernels::expr::{Expr, Op, checkerboard, constant, input, old};
use glowflow_kernels::{
    BatchNorm, Conv, Cpu, Cuda, Depthwise, Device, Gemm, GemmBatch, Grid, Matrix, MatrixMut, Noise,
    Normalizer, Primitives, Real, Repeated, RngStream, Rule, Strided, Training, Update, View, ViewMut,
};

/// Numbers uniform on `[-1, 1)`, other ones for each seed.
fn numbers(seed: u64, len: usize) -> Vec<f64> {
    let stream = RngStream { seed, id: 0 };
    (0..len).map(|i| 2.0 * stream.uniform(i as u64)[0] - 1.0).collect()
}

/// The environment variable of [`Tuning::rows_at_once`] in tests that run again with another value.
const ROWS: &str = "GLOWFLOW_TEST_CUDA_ROWS";

/// A GPU, emulated if there is none, with the settings given by the environment.
fn gpu(precision: Precision) -> Option<Cuda> {
    let mut tuning = Tuning::default();
    if let Ok(rows) = std::env::var(ROWS) {
        tuning.rows_at_once = rows.parse().unwrap();
    }
    cuda_emulator::gpu(|folders| Cuda::with_tuning(0, precision, folders, tuning))
}

fn upload<D: Device>(device: &D, numbers: &[f64]) -> D::Buffer {
    device.upload(&numbers.iter().map(|&x| D::Real::of(x)).collect::<Vec<_>>())
}

fn download<D: Device>(device: &D, buffer: &D::Buffer) -> Vec<f64> {
    device.download(buffer).unwrap().into_iter().map(D::Real::wide).collect()
}

/// Asserts that every number is within `tolerance` of the largest one.
#[track_caller]
fn close(have: &[f64], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(have.len(), want.len(), "{what}");
    let largest = want.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
    for (i, (have, want)) in have.iter().zip(want).enumerate() {
        assert!((have - want).abs() <= tolerance * largest, "{what}: number {i} is {have}, not {want}");
    }
}

const fn at(start: usize, strides: [usize; 3]) -> Strided {
    Strided { start, strides }
}

fn place(at: Strided, [i, j, k]: [usize; 3]) -> usize {
    at.start + i * at.strides[0] + j * at.strides[1] + k * at.strides[2]
}

fn indices([a, b, c]: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| [i, j, k])))
}

/// The value of an expression for one element.
fn value(f: &Expr, pixel: usize, inputs: &[f64], old: f64) -> f64 {
    let mut stack: Vec<f64> = vec![];
    for op in f.ops() {
        let mut pop = || stack.pop().unwrap();
        let value = match *op {
            Op::Input(index) => inputs[index],
            Op::Old => old,
            Op::Constant(value) => value,
            Op::Checkerboard { width, parity } => {
                f64::from(u8::from((pixel / width + pixel % width + parity).is_multiple_of(2)))
            }
            Op::Neg => -pop(),
            Op::Abs => pop().abs(),
            Op::Exp => pop().exp(),
            Op::Log => pop().ln(),
            Op::Tanh => pop().tanh(),
            Op::Sigmoid => 1.0 / (1.0 + (-pop()).exp()),
            Op::Softplus => {
                let x = pop();
                x.max(0.0) + (-x.abs()).exp().ln_1p()
            }
            Op::Sqrt => pop().sqrt(),
            Op::Relu => pop().max(0.0),
            Op::Step => f64::from(u8::from(pop() > 0.0)),
            Op::Add | Op::Sub | Op::Mul | Op::Div => {
                let (y, x) = (pop(), pop());
                match op {
                    Op::Add => x + y,
                    Op::Sub => x - y,
                    Op::Mul => x * y,
                    _ => x / y,
                }
            }
        };
        stack.push(value);
    }
    assert_eq!(stack.len(), 1);
    stack[0]
}

/// An element-wise case: the expression, the shape, and the views of inputs and output.
struct Case {
    name: &'static str,
    f: Expr,
    shape: [usize; 3],
    inputs: Vec<Strided>,
    out: Strided,
}

/// The length that a view requires of a buffer.
fn len_of(shape: [usize; 3], view: Strided) -> usize {
    place(view, shape.map(|len| len - 1)) + 1
}

fn maps() -> Vec<Case> {
    let channel = at(0, [0, 0, 1]);
    let case =
        |name, f, shape, inputs: &[Strided], out| Case { name, f, shape, inputs: inputs.to_vec(), out };
    let whole = |[_, b, c]: [usize; 3]| at(0, [b * c, c, 1]);
    let mut cases = vec![
        case("copy", input(0), [1, 1, 700], &[channel], channel),
        case("constant", constant(1.5), [3, 1, 5], &[], whole([3, 1, 5])),
        case("old alone", old() * constant(2.0), [2, 3, 5], &[], whole([2, 3, 5])),
        case("a single element", old() + input(0), [1, 1, 1], &[at(3, [7, 8, 9])], at(2, [0, 0, 0])),
        case(
            "a number twice",
            input(0) * input(0) - input(0),
            [2, 3, 5],
            &[whole([2, 3, 5])],
            whole([2, 3, 5]),
        ),
        case(
            "the output's first value is read late",
            (input(0) + constant(1.0)) * old() + old(),
            [3, 5, 7],
            &[whole([3, 5, 7])],
            whole([3, 5, 7]),
        ),
        case(
            "normalisation",
            ((input(0) - input(1)) / (input(2) + constant(2.0)).sqrt()).relu(),
            [3, 35, 6],
            &[whole([3, 35, 6]), channel, channel],
            whole([3, 35, 6]),
        ),
        case(
            "many channels",
            input(0) * input(1) + input(2),
            [2, 3, 1300],
            &[whole([2, 3, 1300]), channel, at(1, [1, 0, 0])],
            whole([2, 3, 1300]),
        ),
        case(
            "more elements than one thread takes",
            input(0) * input(1) + old() * input(2),
            [5, 2100, 3],
            &[whole([5, 2100, 3]), channel, at(0, [1, 0, 0])],
            whole([5, 2100, 3]),
        ),
        case(
            "half of the channels",
            (old() - input(0)) * (-input(1)).exp(),
            [2, 9, 5],
            &[at(5, [90, 10, 1]), at(0, [45, 5, 1])],
            at(5, [90, 10, 1]),
        ),
        case("every other channel", input(0) + old(), [2, 9, 3], &[at(1, [54, 6, 2])], at(0, [54, 6, 2])),
        case("transposition", input(0), [2, 31, 17], &[at(0, [527, 1, 31])], at(0, [527, 17, 1])),
        case("the other transposition", input(0), [2, 31, 17], &[at(0, [527, 17, 1])], at(0, [527, 1, 31])),
        case("interleaved places", input(0), [1, 2, 2], &[at(0, [0, 2, 1])], at(0, [0, 3, 2])),
        case(
            "a number per pixel",
            input(0) * input(1),
            [3, 20, 4],
            &[whole([3, 20, 4]), at(0, [0, 1, 0])],
            whole([3, 20, 4]),
        ),
        case(
            "one number",
            input(0) + input(1),
            [2, 300, 2],
            &[at(4, [0, 0, 0]), whole([2, 300, 2])],
            whole([2, 300, 2]),
        ),
        case(
            "a large stack",
            input(0) + (input(1) * (input(0) - (input(1) + (input(0) * (input(1) - (input(0) / input(2))))))),
            [2, 3, 50],
            &[whole([2, 3, 50]), channel, at(0, [0, 0, 1])],
            whole([2, 3, 50]),
        ),
        case(
            "both operands computed",
            (input(0) + input(1)) * (input(0) - input(1)),
            [1, 5, 6],
            &[whole([1, 5, 6]), channel],
            whole([1, 5, 6]),
        ),
    ];
    for (width, parity, channels) in [(4, 0, 3), (5, 1, 2), (1, 0, 4), (7, 1, 1)] {
        let shape = [3, width * 6, channels];
        let f = checkerboard(width, parity) * input(0) + checkerboard(width, parity + 1) * old();
        cases.push(case("checkerboard", f, shape, &[whole(shape)], whole(shape)));
    }
    cases.push(case(
        "a transposed checkerboard",
        checkerboard(4, 1) + input(0),
        [2, 12, 3],
        &[at(0, [36, 3, 1])],
        at(0, [36, 1, 12]),
    ));
    for f in [
        -input(0),
        input(0).abs(),
        input(0).exp(),
        (input(0) * input(0)).ln(),
        (constant(3.0) * input(0)).tanh(),
        (constant(30.0) * input(0)).sigmoid(),
        (constant(30.0) * input(0)).softplus(),
        (constant(200.0) * input(0)).softplus(),
        input(0).abs().sqrt(),
        input(0).relu(),
        input(0).step(),
        input(0) / (input(0) + constant(2.0)),
    ] {
        cases.push(case("a function", f, [1, 1, 600], &[channel], channel));
    }
    cases
}

fn views<'a, B>(buffers: &'a [B], places: &[Strided]) -> Vec<View<'a, B>> {
    buffers.iter().zip(places).map(|(buffer, &at)| View { buffer, at }).collect()
}

/// The inputs of a case, and the initial output, with additional numbers at its end that must not change.
fn arrays(case: &Case) -> (Vec<Vec<f64>>, Vec<f64>) {
    let inputs = case.inputs.iter().enumerate();
    let inputs = inputs.map(|(i, &at)| numbers(i as u64 + 1, len_of(case.shape, at))).collect();
    (inputs, numbers(0, len_of(case.shape, case.out) + 3))
}

fn check_maps<D: Primitives>(device: &D, tolerance: f64) {
    for case in maps() {
        let Case { name, f, shape, inputs: places, out } = &case;
        let (inputs, mut want) = arrays(&case);
        let buffers: Vec<_> = inputs.iter().map(|input| upload(device, input)).collect();
        let mut have = upload(device, &want);
        for index in indices(*shape) {
            let of: Vec<f64> =
                inputs.iter().zip(places).map(|(input, &at)| input[place(at, index)]).collect();
            let to = &mut want[place(*out, index)];
            *to = value(f, index[1], &of, *to);
        }
        device.map(f, *shape, &views(&buffers, places), ViewMut { buffer: &mut have, at: *out });
        close(&download(device, &have), &want, tolerance, &format!("{name} {f:?}"));
    }
}

fn reductions() -> Vec<Case> {
    let mut cases = vec![];
    let (image, channel, pixel, one) = ([1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]);
    for shape in [
        [3, 35, 6],
        [2, 700, 3],
        [1, 40, 600],
        [3, 2, 5000],
        [40, 3, 2],
        [1, 1, 5],
        [2, 1, 70_000],
        [1, 12_000, 5],
    ] {
        let [_, b, c] = shape;
        let whole = at(0, [b * c, c, 1]);
        let case = |name, f, second, out| {
            let out = at(1, out);
            Case { name, f, shape, inputs: vec![whole, at(0, second)], out }
        };
        for out in [image, channel, pixel, one] {
            cases.push(case("a sum", input(0), one, out));
            cases.push(case("products", input(0) * input(1), whole.strides, out));
            cases.push(case("deviations", (input(0) - input(1)) * (input(0) - input(1)), channel, out));
            cases.push(case("a part", checkerboard(5, 1) * input(0) * input(1), image, out));
            cases.push(case("constants", constant(1.0), one, out));
        }
        cases.push(case("two axes that stay", input(0), one, [c, 0, 1]));
        cases.push(case("two others", input(0), one, [0, c, 1]));
        cases.push(case("the first two", input(0), one, [b, 1, 0]));
        cases.push(case("transposed", input(0), one, [1, 0, shape[0]]));
        cases.push(case("nothing summed", input(0) + input(1), one, whole.strides));
    }
    let strided = vec![at(3, [80, 8, 2])];
    cases.push(Case {
        name: "strided",
        f: input(0),
        shape: [3, 10, 2],
        inputs: strided,
        out: at(0, [0, 0, 3]),
    });
    let transposed = vec![at(0, [0, 1, 50])];
    cases.push(Case {
        name: "columns",
        f: input(0),
        shape: [1, 50, 20],
        inputs: transposed,
        out: at(0, [0, 0, 1]),
    });
    cases
}

fn check_reductions<D: Primitives>(device: &D, most: usize, tolerance: f64) {
    for case in reductions().iter().filter(|case| case.shape.iter().product::<usize>() <= most) {
        let Case { name, f, shape, inputs: places, out } = case;
        let (inputs, before) = arrays(case);
        let buffers: Vec<_> = inputs.iter().map(|input| upload(device, input)).collect();
        for accumulate in [false, true] {
            let mut want = before.clone();
            if !accumulate {
                indices(*shape).for_each(|index| want[place(*out, index)] = 0.0);
            }
            for index in indices(*shape) {
                let of: Vec<f64> =
                    inputs.iter().zip(places).map(|(input, &at)| input[place(at, index)]).collect();
                want[place(*out, index)] += value(f, index[1], &of, f64::NAN);
            }
            let mut have = upload(device, &before);
            let inputs = views(&buffers, places);
            device.reduce(f, *shape, &inputs, ViewMut { buffer: &mut have, at: *out }, accumulate);
            let what = format!("{name} {f:?} of {shape:?} into {out:?}, accumulate: {accumulate}");
            close(&download(device, &have), &want, tolerance, &what);
        }
    }
}

/// A matrix product by its definition.
fn product(
    gemm: Gemm,
    a: &[f64],
    a_stride: usize,
    b: &[f64],
    b_stride: usize,
    c: &mut [f64],
    c_stride: usize,
) {
    for i in 0..gemm.m {
        for j in 0..gemm.n {
            let a = |p| if gemm.a_transposed { a[p * a_stride + i] } else { a[i * a_stride + p] };
            let b = |p| if gemm.b_transposed { b[j * b_stride + p] } else { b[p * b_stride + j] };
            let sum: f64 = (0..gemm.k).map(|p| a(p) * b(p)).sum();
            let c = &mut c[i * c_stride + j];
            *c = if gemm.accumulate { *c + sum } else { sum };
        }
    }
}

fn check_products<D: Primitives>(device: &D, shapes: &[[usize; 3]], tolerance: f64) {
    for &[m, n, k] in shapes {
        for bits in 0..16 {
            let [a_transposed, b_transposed, accumulate, strided] = [1, 2, 4, 8].map(|bit| bits & bit > 0);
            let gemm = Gemm { m, n, k, a_transposed, b_transposed, accumulate };
            let (start, gap) = if strided { (5, 3) } else { (0, 0) };
            let (a_rows, a_stride) = if a_transposed { (k, m + gap) } else { (m, k + gap) };
            let (b_rows, b_stride) = if b_transposed { (n, k + gap) } else { (k, n + gap) };
            let a = numbers(1, start + a_rows * a_stride);
            let b = numbers(2, start + b_rows * b_stride);
            let before = numbers(3, start + m * (n + gap));
            let mut want = before.clone();
            product(gemm, &a[start..], a_stride, &b[start..], b_stride, &mut want[start..], n + gap);
            let mut have = upload(device, &before);
            device.gemm(
                gemm,
                Matrix { buffer: &upload(device, &a), start, stride: a_stride },
                Matrix { buffer: &upload(device, &b), start, stride: b_stride },
                MatrixMut { buffer: &mut have, start, stride: n + gap },
            );
            close(&download(device, &have), &want, tolerance, &format!("{gemm:?}, strided: {strided}"));
        }
    }
}

/// Matrices one after the other with gaps, and matrices whose rows lie between those of the others.
fn check_product_batches<D: Primitives>(device: &D, tolerance: f64) {
    const COUNT: usize = 3;
    let (start, [m, n, k]) = (4, [6, 5, 7]);
    for bits in 0..16 {
        let [a_transposed, b_transposed, accumulate, interleaved] = [1, 2, 4, 8].map(|bit| bits & bit > 0);
        let gemm = Gemm { m, n, k, a_transposed, b_transposed, accumulate };
        let a = if a_transposed { [k, m] } else { [m, k] };
        let b = if b_transposed { [n, k] } else { [k, n] };
        // Stride of the rows, distance of the matrices, and numbers of the buffer.
        let place = |[rows, columns]: [usize; 2]| {
            if interleaved {
                (COUNT * columns, columns, start + rows * COUNT * columns)
            } else {
                (columns + 1, rows * (columns + 1) + 2, start + COUNT * (rows * (columns + 1) + 2))
            }
        };
        let [(a_stride, a_next, a_len), (b_stride, b_next, b_len), (c_stride, c_next, c_len)] =
            [a, b, [m, n]].map(place);
        let (a, b, before) = (numbers(1, a_len), numbers(2, b_len), numbers(3, c_len));
        let mut want = before.clone();
        for i in 0..COUNT {
            let (a, b) = (&a[start + i * a_next..], &b[start + i * b_next..]);
            product(gemm, a, a_stride, b, b_stride, &mut want[start + i * c_next..], c_stride);
        }
        let mut have = upload(device, &before);
        device.gemm_batch(
            GemmBatch { gemm, count: COUNT, distances: [a_next, b_next, c_next] },
            Matrix { buffer: &upload(device, &a), start, stride: a_stride },
            Matrix { buffer: &upload(device, &b), start, stride: b_stride },
            MatrixMut { buffer: &mut have, start, stride: c_stride },
        );
        let what = format!("{COUNT} of {gemm:?}, interleaved: {interleaved}");
        close(&download(device, &have), &want, tolerance, &what);
    }
}

const CONVS: [Conv; 10] = [
    Conv { grid: Grid { batch: 0, height: 2, width: 2 }, inputs: 2, outputs: 3, kernel: 3 },
    Conv { grid: Grid { batch: 1, height: 1, width: 1 }, inputs: 2, outputs: 3, kernel: 3 },
    Conv { grid: Grid { batch: 2, height: 3, width: 5 }, inputs: 3, outputs: 4, kernel: 3 },
    Conv { grid: Grid { batch: 3, height: 6, width: 4 }, inputs: 8, outputs: 5, kernel: 1 },
    Conv { grid: Grid { batch: 2, height: 7, width: 6 }, inputs: 5, outputs: 3, kernel: 5 },
    Conv { grid: Grid { batch: 1, height: 2, width: 9 }, inputs: 1, outputs: 1, kernel: 7 },
    Conv { grid: Grid { batch: 3, height: 9, width: 11 }, inputs: 33, outputs: 40, kernel: 3 },
    Conv { grid: Grid { batch: 0, height: 4, width: 4 }, inputs: 16, outputs: 16, kernel: 3 },
    Conv { grid: Grid { batch: 3, height: 2, width: 6 }, inputs: 16, outputs: 48, kernel: 3 },
    Conv { grid: Grid { batch: 5, height: 14, width: 12 }, inputs: 32, outputs: 16, kernel: 3 },
];

/// For each pixel and tap of a convolution, the pixel that the tap refers to: `(row, tap, other row)`.
fn taps(Conv { grid, kernel, .. }: Conv) -> Vec<(usize, usize, usize)> {
    let mut taps = vec![];
    for row in 0..grid.rows() {
        let (y, x) = (row / grid.width % grid.height, row % grid.width);
        for tap in 0..kernel * kernel {
            let (v, u) = (y + tap / kernel, x + tap % kernel);
            let reach = kernel / 2;
            if (reach..grid.height + reach).contains(&v) && (reach..grid.width + reach).contains(&u) {
                let image = row / grid.pixels();
                taps.push((row, tap, image * grid.pixels() + (v - reach) * grid.width + u - reach));
            }
        }
    }
    taps
}

fn check_patches<D: Primitives>(device: &D, tolerance: f64) {
    for conv in CONVS {
        let Conv { grid, inputs, kernel, .. } = conv;
        let (rows, columns) = (grid.rows(), conv.columns());
        let (x, d_columns) = (numbers(1, rows * inputs), numbers(2, rows * columns));
        let mut want = vec![0.0; rows * columns];
        let mut sums = vec![0.0; rows * inputs];
        for (row, tap, other) in taps(conv) {
            for c in 0..inputs {
                let column = row * columns + tap * inputs + c;
                want[column] = x[other * inputs + c];
                sums[other * inputs + c] += d_columns[column];
            }
        }
        let mut patches = device.scratch(rows * columns);
        device.im2col(grid, inputs, kernel, &upload(device, &x), &mut patches);
        close(&download(device, &patches), &want, tolerance, &format!("im2col {conv:?}"));
        for accumulate in [false, true] {
            let mut dx = upload(device, &x);
            device.col2im(grid, inputs, kernel, &upload(device, &d_columns), &mut dx, accumulate);
            let before = |i: usize| if accumulate { x[i] } else { 0.0 };
            let want: Vec<f64> = sums.iter().enumerate().map(|(i, sum)| before(i) + sum).collect();
            close(&download(device, &dx), &want, tolerance, &format!("col2im {conv:?}"));
        }
    }
}

/// A convolution and its gradients by definition: `[y, dx, dweight]`, added to the arrays.
fn convolve(conv: Conv, x: &[f64], weight: &[f64], dy: &[f64], [y, dx, dweight]: [&mut [f64]; 3]) {
    let Conv { inputs, outputs, .. } = conv;
    for (row, tap, other) in taps(conv) {
        for o in 0..outputs {
            for c in 0..inputs {
                let w = o * conv.columns() + tap * inputs + c;
                y[row * outputs + o] += weight[w] * x[other * inputs + c];
                dx[other * inputs + c] += weight[w] * dy[row * outputs + o];
                dweight[w] += dy[row * outputs + o] * x[other * inputs + c];
            }
        }
    }
}

fn check_convolutions<D: Primitives>(device: &D, convs: &[Conv], tolerance: f64) {
    for &conv in convs {
        let rows = conv.grid.rows();
        let (x, dy) = (numbers(1, rows * conv.inputs), numbers(2, rows * conv.outputs));
        let weight = numbers(3, conv.outputs * conv.columns());
        for accumulate in [false, true] {
            // Their initial contents are overwritten or added to.
            let before = [dy.clone(), x.clone(), weight.clone()];
            let mut want = before.clone().map(|x| if accumulate { x } else { vec![0.0; x.len()] });
            convolve(conv, &x, &weight, &dy, want.each_mut().map(|want| &mut want[..]));
            let mut have = before.map(|before| upload(device, &before));
            let [y, dx, dweight] = &mut have;
            let [x, weight, dy] = [&x, &weight, &dy].map(|x| upload(device, x));
            device.conv(conv, &x, &weight, y, accumulate);
            device.conv_backward_input(conv, &weight, &dy, dx, accumulate);
            device.conv_backward_weight(conv, &x, &dy, dweight, accumulate);
            for (what, (have, want)) in ["y", "dx", "dweight"].iter().zip(have.iter().zip(&want)) {
                close(&download(device, have), want, tolerance, &format!("{what} of {conv:?}"));
            }
        }
    }
}

const NORMS: [BatchNorm; 7] = [
    BatchNorm { rows: 0, channels: 3 },
    BatchNorm { rows: 1, channels: 1 },
    BatchNorm { rows: 9, channels: 6 },
    BatchNorm { rows: 65, channels: 8 },
    BatchNorm { rows: 70, channels: 57 },
    BatchNorm { rows: 1030, channels: 3 },
    BatchNorm { rows: 2100, channels: 17 },
];

/// Shapes of depthwise convolutions: windows larger than the image, channels that do not fill a vector, lines
/// that do not fill a block, windows of every size, and a larger one.
const DEPTHWISE: [Depthwise; 7] = [
    Depthwise { grid: Grid { batch: 1, height: 1, width: 1 }, channels: 1, kernel: 7 },
    Depthwise { grid: Grid { batch: 2, height: 3, width: 5 }, channels: 17, kernel: 7 },
    Depthwise { grid: Grid { batch: 3, height: 9, width: 11 }, channels: 4, kernel: 3 },
    Depthwise { grid: Grid { batch: 2, height: 8, width: 16 }, channels: 32, kernel: 7 },
    Depthwise { grid: Grid { batch: 3, height: 4, width: 6 }, channels: 5, kernel: 1 },
    Depthwise { grid: Grid { batch: 2, height: 5, width: 19 }, channels: 3, kernel: 5 },
    Depthwise { grid: Grid { batch: 2, height: 6, width: 7 }, channels: 3, kernel: 9 },
];

fn check_depthwise<D: Primitives>(device: &D, tolerance: f64) {
    for conv in DEPTHWISE {
        let Depthwise { grid, channels, kernel } = conv;
        let (len, taps_len, start) = (conv.len(), conv.taps_len(), 3);
        let (x, dy, taps) = (numbers(1, len), numbers(2, len), numbers(3, start + taps_len));
        let mut y = vec![0.0; len];
        let (mut dx, mut dtaps) = (numbers(4, len), numbers(5, start + taps_len));
        let [dx_before, dtaps_before] = [&dx, &dtaps].map(|values| upload(device, values));
        let patch = Conv { grid, inputs: channels, outputs: channels, kernel };
        for (to, tap, from) in self::taps(patch) {
            for c in 0..channels {
                let (to, from, tap) = (to * channels + c, from * channels + c, start + tap * channels + c);
                y[to] += x[from] * taps[tap];
                dx[from] += dy[to] * taps[tap];
                dtaps[tap] += x[from] * dy[to];
            }
        }
        let (x, dy, taps) = (upload(device, &x), upload(device, &dy), upload(device, &taps));
        let mut have = device.scratch(len);
        device.depthwise(conv, &x, (&taps, start), &mut have);
        close(&download(device, &have), &y, tolerance, &format!("{conv:?}"));
        let mut have = dx_before;
        device.depthwise_backward_input(conv, (&taps, start), &dy, &mut have);
        close(&download(device, &have), &dx, tolerance, &format!("{conv:?}, by input"));
        let mut have = dtaps_before;
        device.depthwise_backward_taps(conv, &x, &dy, (&mut have, start));
        close(&download(device, &have), &dtaps, tolerance, &format!("{conv:?}, by taps"));
    }
}

/// Batch normalisation with a ReLU and its gradient, by definition.
fn check_norms<D: Primitives>(device: &D, tolerance: f64) {
    for norm in NORMS {
        let BatchNorm { rows, channels } = norm;
        let of_channel = |values: &[f64], c: usize| -> Vec<f64> {
            (0..rows).map(|row| values[row * channels + c]).collect()
        };
        // Far from 0, so that a single-precision sum of squares would lose the variance.
        let x: Vec<f64> = numbers(1, rows * channels).iter().map(|x| 20.0 + x).collect();
        let (dy, before) = (numbers(2, rows * channels), numbers(3, rows * channels));
        let means = |values: Vec<f64>| values.iter().sum::<f64>() / rows as f64;
        let mean: Vec<f64> = (0..channels).map(|c| means(of_channel(&x, c))).collect();
        let variance = |c: usize| means(of_channel(&x, c).iter().map(|x| (x - mean[c]).powi(2)).collect());
        let variance: Vec<f64> = (0..channels).map(variance).collect();
        let what = format!("{norm:?}");
        let [x_there, dy_there] = [&x, &dy].map(|values| upload(device, values));
        if rows > 0 {
            let mut moments = device.scratch(2 * channels);
            device.moments(norm, &x_there, &mut moments);
            let have = download(device, &moments);
            // The error of a mean of numbers near 20 is 20 times that of numbers near 1.
            close(&have[..channels], &mean, tolerance, &format!("means of {what}"));
            close(&have[channels..], &variance, 20.0 * tolerance, &format!("variances of {what}"));
        }

        let inverse = variance.iter().map(|variance| 1.0 / (variance + 0.1).sqrt());
        let statistics: Vec<f64> = mean.iter().copied().chain(inverse).collect();
        let bias = numbers(4, channels + 2);
        let [statistics_there, bias_there] = [&statistics, &bias].map(|values| upload(device, values));
        let by = Normalizer { statistics: &statistics_there, bias: &bias_there, bias_start: 2 };
        let standardized = |i: usize| {
            let c = i % channels;
            (x[i] - statistics[c]) * statistics[channels + c]
        };
        let output = |i: usize| standardized(i) + bias[2 + i % channels];
        let want: Vec<f64> = (0..rows * channels).map(|i| output(i).max(0.0)).collect();
        let mut y = device.scratch(rows * channels);
        device.norm_relu(norm, by, &x_there, &mut y);
        close(&download(device, &y), &want, 20.0 * tolerance, &format!("ReLU of {what}"));

        // In single precision an output near 0 may have the other sign.
        let dy: Vec<f64> = (0..dy.len()).map(|i| if output(i).abs() < 1e-4 { 0.0 } else { dy[i] }).collect();
        let dy_there = if dy.is_empty() { dy_there } else { upload(device, &dy) };
        let g: Vec<f64> = (0..dy.len()).map(|i| if output(i) > 0.0 { dy[i] } else { 0.0 }).collect();
        let products: Vec<f64> = (0..dy.len()).map(|i| g[i] * standardized(i)).collect();
        let sums: Vec<f64> = [&g, &products]
            .into_iter()
            .flat_map(|values| (0..channels).map(|c| of_channel(values, c).iter().sum()))
            .collect();
        for bits in 0..4 {
            let [constants, accumulate] = [1, 2].map(|bit| bits & bit > 0);
            let want: Vec<f64> = (0..dy.len())
                .map(|i| {
                    let (c, share) = (i % channels, if constants { 0.0 } else { 1.0 / rows as f64 });
                    let centred = g[i] - share * (sums[c] + standardized(i) * sums[channels + c]);
                    f64::from(u8::from(accumulate)) * before[i] + statistics[channels + c] * centred
                })
                .collect();
            let (mut dx, mut totals) = (upload(device, &before), device.zeros(2 * channels));
            device.norm_relu_backward(
                norm,
                by,
                constants,
                &x_there,
                &dy_there,
                &mut totals,
                &mut dx,
                accumulate,
            );
            let what = format!("{what}, constants: {constants}, accumulate: {accumulate}");
            close(&download(device, &dx), &want, 20.0 * tolerance, &format!("dx of {what}"));
            close(&download(device, &totals), &sums, 20.0 * tolerance, &format!("sums of {what}"));
        }
    }
}

/// A slice of a stream is the same numbers, wherever it begins in a block.
fn check_uniform_slices<D: Primitives<Real = f32>>(device: &D) {
    let stream = RngStream { seed: 5, id: 6 };
    let mut all = device.scratch(2060);
    device.uniform(stream, 1, &mut all);
    let all = device.download(&all).unwrap();
    let pixels = [0; 2050];
    for first in [0, 1, 2, 3, 4, 7, 10] {
        for len in [1, 2, 6, 2050] {
            let (mut slice, mut noise) = (device.scratch(len), device.scratch(len));
            device.uniform_from(stream, first as u64, &mut slice);
            assert_eq!(
                device.download(&slice).unwrap(),
                all[first..first + len],
                "{len} numbers from {first}"
            );
            device.dequantize(&pixels[..len], 8, Noise::Uniform(stream, first as u64), &mut noise);
            let have = device.download(&noise).unwrap();
            let want = all[first..first + len].iter().map(|u| u / 256.0 - 0.5);
            assert!(have.into_iter().eq(want), "noise of {len} pixels from {first}");
        }
    }
}

/// Slices of buffers, and nothing else, are read and written.
fn check_slices<D: Primitives<Real = f32>>(device: &D) {
    let mut buffer = device.upload(&[0.0, 1.0, 2.0, 3.0, 4.0]);
    assert_eq!(device.read(&buffer, 1..3).unwrap(), [1.0, 2.0]);
    assert_eq!(device.read(&buffer, 5..5).unwrap(), [0.0; 0]);
    device.write(&mut buffer, 3, &[7.0, 8.0]);
    device.write(&mut buffer, 5, &[]);
    assert_eq!(device.download(&buffer).unwrap(), [0.0, 1.0, 2.0, 7.0, 8.0]);
}

fn check_uniform<D: Primitives>(device: &D) {
    for (images, length) in [(1, 1), (3, 7), (2, 2050)] {
        let stream = RngStream { seed: 5, id: u64::MAX - 1 };
        let mut out = device.scratch(images * length);
        device.uniform(stream, images, &mut out);
        let have = download(device, &out);
        for (i, have) in have.into_iter().enumerate() {
            let stream = RngStream { id: stream.id.wrapping_add((i / length) as u64), ..stream };
            let (block, word) = (i % length / 4, i % length % 4);
            assert_eq!(have, stream.uniform(block as u64)[word], "number {i} of {images} images of {length}");
        }
    }
}

fn check_add_scaled<D: Primitives>(device: &D, tolerance: f64) {
    let (from, to) = (numbers(1, 700), numbers(2, 700));
    let mut have = upload(device, &to);
    device.add_scaled(699, &upload(device, &from), -0.25, &mut have);
    let mut want: Vec<f64> = from.iter().zip(&to).map(|(from, to)| to - 0.25 * from).collect();
    want[699] = to[699];
    close(&download(device, &have), &want, tolerance, "add_scaled");
}

/// Operations reject buffers that are too short and invalid views.
fn check_refusals<D: Primitives>(device: &D) {
    let refused = |what: &str, words: &str, work: &mut dyn FnMut()| {
        let panic = catch_unwind(AssertUnwindSafe(work)).expect_err(what);
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default();
        assert!(text.contains(words), "{what}: {text}");
    };
    let buffer = |len| device.zeros(len);
    let channel = at(0, [0, 0, 1]);
    let short = [View { buffer: &buffer(4), at: channel }];
    refused("map", "input 0 is a buffer of 4 numbers, and element 4 is needed", &mut || {
        device.map(&input(0), [1, 1, 5], &short, ViewMut { buffer: &mut buffer(5), at: channel });
    });
    refused("map", "the output is a buffer of 3 numbers, and element 3", &mut || {
        device.map(&input(0), [1, 1, 4], &short, ViewMut { buffer: &mut buffer(3), at: channel });
    });
    refused("map", "0 inputs for an expression of 1", &mut || {
        device.map(&input(0), [1, 1, 4], &[], ViewMut { buffer: &mut buffer(4), at: channel });
    });
    refused("map", "stride of 0", &mut || {
        device.map(&input(0), [1, 2, 4], &short, ViewMut { buffer: &mut buffer(4), at: channel });
    });
    refused("reduce", "reads the output", &mut || {
        device.reduce(&old(), [1, 2, 4], &[], ViewMut { buffer: &mut buffer(4), at: channel }, false);
    });
    refused("reduce", "the output is a buffer of 3 numbers", &mut || {
        device.reduce(&constant(1.0), [1, 2, 4], &[], ViewMut { buffer: &mut buffer(3), at: channel }, false);
    });
    let gemm = Gemm { m: 2, n: 3, k: 4, a_transposed: false, b_transposed: false, accumulate: false };
    let product = |lens: [usize; 3], stride| {
        let [a, b, mut c] = lens.map(buffer);
        let (a, b) = (Matrix { buffer: &a, start: 0, stride: 4 }, Matrix { buffer: &b, start: 0, stride: 3 });
        device.gemm(gemm, a, b, MatrixMut { buffer: &mut c, start: 0, stride });
    };
    product([8, 12, 6], 3);
    refused("gemm", "A is a buffer of 7", &mut || product([7, 12, 6], 3));
    refused("gemm", "B is a buffer of 11", &mut || product([8, 11, 6], 3));
    refused("gemm", "C is a buffer of 5", &mut || product([8, 12, 5], 3));
    refused("gemm", "rows of 3 numbers overlap", &mut || product([8, 12, 6], 2));
    let products = |distances: [usize; 3], len| {
        let (a, b, mut c) = (buffer(8), buffer(12), buffer(len));
        let (a, b) = (Matrix { buffer: &a, start: 0, stride: 4 }, Matrix { buffer: &b, start: 0, stride: 3 });
        let batch = GemmBatch { gemm, count: 2, distances };
        device.gemm_batch(batch, a, b, MatrixMut { buffer: &mut c, start: 0, stride: 3 });
    };
    products([0, 0, 6], 12);
    refused("gemm_batch", "C is a buffer of 11", &mut || products([0, 0, 6], 11));
    refused("gemm_batch", "A is a buffer of 8", &mut || products([1, 0, 6], 12));
    refused("gemm_batch", "which begin 5 numbers apart", &mut || products([0, 0, 5], 12));
    let grid = Grid { batch: 1, height: 2, width: 2 };
    refused("im2col", "x is a buffer of 7", &mut || device.im2col(grid, 2, 3, &buffer(7), &mut buffer(72)));
    refused("im2col", "columns is a buffer of 71", &mut || {
        device.im2col(grid, 2, 3, &buffer(8), &mut buffer(71));
    });
    refused("col2im", "x is a buffer of 7", &mut || {
        device.col2im(grid, 2, 3, &buffer(72), &mut buffer(7), false);
    });
    refused("conv", "", &mut || {
        let conv = Conv { grid, inputs: 2, outputs: 2, kernel: 3 };
        device.conv(conv, &buffer(8), &buffer(36), &mut buffer(7), false);
    });
    // An empty operation needs no memory.
    device.map(&input(0), [1, 0, 4], &short, ViewMut { buffer: &mut buffer(0), at: channel });
    let mut sums = upload(device, &[1.0; 4]);
    device.reduce(&input(0), [1, 0, 4], &short, ViewMut { buffer: &mut sums, at: channel }, true);
    assert_eq!(download(device, &sums), [1.0; 4]);
    device.reduce(&input(0), [1, 0, 4], &short, ViewMut { buffer: &mut sums, at: channel }, false);
    assert_eq!(download(device, &sums), [0.0; 4]);
}

#[test]
fn maps_are_right() {
    check_maps(&Cpu::<f64>::new(), 1e-13);
    check_maps(&Cpu::<f32>::new(), 1e-5);
}

#[test]
fn reductions_are_right() {
    check_reductions(&Cpu::<f64>::new(), usize::MAX, 1e-12);
    check_reductions(&Cpu::<f32>::new(), usize::MAX, 1e-5);
}

/// The shapes of products: with few terms, none, many, and enough to be split.
const PRODUCTS: [[usize; 3]; 9] = [
    [1, 1, 1],
    [3, 5, 7],
    [17, 33, 40],
    [70, 6, 65],
    [2, 3, 0],
    [0, 3, 2],
    [5, 34, 2200],
    [40, 9, 5000],
    [100, 70, 130],
];

#[test]
fn products_are_right() {
    check_products(&Cpu::<f64>::new(), &PRODUCTS, 1e-12);
    check_products(&Cpu::<f32>::new(), &PRODUCTS, 1e-4);
    check_product_batches(&Cpu::<f64>::new(), 1e-12);
    check_product_batches(&Cpu::<f32>::new(), 1e-5);
}

#[test]
fn patches_are_right() {
    check_patches(&Cpu::<f64>::new(), 1e-14);
    check_patches(&Cpu::<f32>::new(), 1e-6);
}

#[test]
fn convolutions_are_right() {
    check_convolutions(&Cpu::<f64>::new(), &CONVS, 1e-13);
    check_convolutions(&Cpu::<f32>::new(), &CONVS, 1e-5);
    // Enough rows that the weight gradient is summed in parts.
    let large = Conv { grid: Grid { batch: 5, height: 30, width: 31 }, inputs: 3, outputs: 2, kernel: 3 };
    check_convolutions(&Cpu::<f64>::new(), &[large], 1e-12);
}

/// Compares a device's own convolution with the one expressed in other operations.
#[test]
fn convolutions_are_products_with_patches() {
    let device = Cpu::<f64>::new();
    for conv in CONVS {
        let (rows, columns) = (conv.grid.rows(), conv.columns());
        let [x, weight] =
            [rows * conv.inputs, conv.outputs * columns].map(|len| upload(&device, &numbers(1, len)));
        let (mut y, mut want) = (device.scratch(rows * conv.outputs), device.scratch(rows * conv.outputs));
        device.conv(conv, &x, &weight, &mut y, false);
        let mut patches = device.scratch(rows * columns);
        device.im2col(conv.grid, conv.inputs, conv.kernel, &x, &mut patches);
        let (m, n, k) = (rows, conv.outputs, columns);
        device.gemm(
            Gemm { m, n, k, a_transposed: false, b_transposed: true, accumulate: false },
            Matrix { buffer: &patches, start: 0, stride: k },
            Matrix { buffer: &weight, start: 0, stride: k },
            MatrixMut { buffer: &mut want, start: 0, stride: n },
        );
        close(&download(&device, &y), &download(&device, &want), 1e-13, &format!("{conv:?}"));
    }
}

#[test]
fn depthwise_convolutions_are_right() {
    check_depthwise(&Cpu::<f64>::new(), 1e-13);
    check_depthwise(&Cpu::<f32>::new(), 1e-5);
}

#[test]
fn norms_are_right() {
    check_norms(&Cpu::<f64>::new(), 1e-13);
    check_norms(&Cpu::<f32>::new(), 1e-6);
}

#[test]
fn uniform_numbers_are_those_of_their_streams() {
    check_uniform(&Cpu::<f64>::new());
    check_uniform(&Cpu::<f32>::new());
    check_uniform_slices(&Cpu::<f32>::new());
}

#[test]
fn slices_are_read_and_written() {
    check_slices(&Cpu::<f32>::new());
}

#[test]
fn scaled_arrays_are_added() {
    check_add_scaled(&Cpu::<f64>::new(), 1e-15);
    check_add_scaled(&Cpu::<f32>::new(), 1e-6);
}

#[test]
fn wrong_views_are_refused() {
    check_refusals(&Cpu::<f64>::new());
}

/// Sums of 300,000 numbers around 1000: in `f32` alone the error would be several per mille.
#[test]
fn large_sums_are_accurate() {
    let device = Cpu::<f32>::new();
    let (rows, channels) = (100_000, 3);
    let values: Vec<f64> =
        numbers(1, rows * channels).iter().map(|x| f64::from((1000.0 + x) as f32)).collect();
    let x = upload(&device, &values);
    let whole = at(0, [0, channels, 1]);
    for (len, strides) in [(channels, [0, 0, 1]), (1, [0, 0, 0])] {
        let mut want = vec![0.0; len];
        values.iter().enumerate().for_each(|(i, value)| want[i % channels % len] += value);
        let mut sums = device.scratch(len);
        let out = ViewMut { buffer: &mut sums, at: at(0, strides) };
        device.reduce(&input(0), [1, rows, channels], &[View { buffer: &x, at: whole }], out, false);
        for (have, want) in download(&device, &sums).iter().zip(want) {
            assert!((have / want - 1.0).abs() < 1e-7, "{have} for {want}");
        }
    }
}

/// All results with one thread have the same bits as with any number of threads.
#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let results = |threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let device = Cpu::<f32>::new();
            let conv =
                Conv { grid: Grid { batch: 4, height: 32, width: 32 }, inputs: 5, outputs: 7, kernel: 3 };
            let rows = conv.grid.rows();
            let x = upload(&device, &numbers(1, rows * conv.inputs));
            let dy = upload(&device, &numbers(2, rows * conv.outputs));
            let weight = upload(&device, &numbers(3, conv.outputs * conv.columns()));
            let [mut y, mut dx, mut dw] =
                [rows * conv.outputs, rows * conv.inputs, conv.outputs * conv.columns()]
                    .map(|len| device.zeros(len));
            device.conv(conv, &x, &weight, &mut y, true);
            device.conv_backward_input(conv, &weight, &dy, &mut dx, true);
            device.conv_backward_weight(conv, &x, &dy, &mut dw, true);
            let mut all = vec![y, dx, dw];
            let whole = at(0, [0, conv.inputs, 1]);
            let (shape, view) = ([1, rows, conv.inputs], View { buffer: &x, at: whole });
            for (len, strides) in [(conv.inputs, [0, 0, 1]), (rows, [0, 1, 0]), (1, [0, 0, 0])] {
                let mut sums = device.zeros(len);
                let out = ViewMut { buffer: &mut sums, at: at(0, strides) };
                device.reduce(&(input(0) * input(0).exp()), shape, &[view], out, true);
                all.push(sums);
            }
            let norm = BatchNorm { rows, channels: conv.inputs };
            let [mut moments, mut totals] = [(); 2].map(|()| device.zeros(2 * conv.inputs));
            device.moments(norm, &x, &mut moments);
            let by = Normalizer { statistics: &moments, bias: &weight, bias_start: 1 };
            let [mut y, mut dx] = [(); 2].map(|()| device.zeros(rows * conv.inputs));
            device.norm_relu(norm, by, &x, &mut y);
            device.norm_relu_backward(norm, by, false, &x, &dy, &mut totals, &mut dx, false);
            all.extend([moments, totals, y, dx]);
            let mut mapped = device.scratch(rows * conv.inputs);
            device.map(&input(0).tanh(), shape, &[view], ViewMut { buffer: &mut mapped, at: whole });
            all.push(mapped);
            for (a_transposed, [m, n, k]) in
                [(true, [5, 7, rows]), (false, [rows, 7, 5]), (true, [200, 7, 100])]
            {
                let mut c = device.scratch(m * n);
                device.gemm(
                    Gemm { m, n, k, a_transposed, b_transposed: false, accumulate: false },
                    Matrix { buffer: &x, start: 0, stride: if a_transposed { m } else { k } },
                    Matrix { buffer: &dy, start: 0, stride: n },
                    MatrixMut { buffer: &mut c, start: 0, stride: n },
                );
                all.push(c);
            }
            all.iter()
                .flat_map(|buffer| device.download(buffer).unwrap())
                .map(f32::to_bits)
                .collect::<Vec<_>>()
        })
    };
    let want = results(1);
    for threads in [2, 5] {
        assert!(results(threads) == want, "{threads} threads");
    }
}

/// Shapes of products on GPUs, which process all terms at once.
const PRODUCTS_ON_GPUS: [[usize; 3]; 7] =
    [[1, 1, 1], [3, 5, 7], [17, 33, 40], [2, 3, 0], [0, 3, 2], [5, 34, 600], [64, 24, 32]];

#[test]
fn maps_are_right_on_gpus() {
    let Some(gpu) = gpu(Precision::F32) else { return };
    check_maps(&gpu, 1e-5);
}

#[test]
fn reductions_are_right_on_gpus() {
    let Some(gpu) = gpu(Precision::F32) else { return };
    check_reductions(&gpu, 35_000, 1e-5);
}

#[test]
fn products_are_right_on_gpus() {
    for precision in [Precision::F32, Precision::Bf16] {
        let Some(gpu) = gpu(precision) else { return };
        check_products(&gpu, &PRODUCTS_ON_GPUS, 1e-5);
        check_product_batches(&gpu, 1e-5);
    }
}

#[test]
fn patches_and_convolutions_are_right_on_gpus() {
    let Some(gpu) = gpu(Precision::F32) else { return };
    check_patches(&gpu, 1e-6);
    check_convolutions(&gpu, &CONVS, 1e-5);
}

#[test]
fn depthwise_convolutions_are_right_on_gpus() {
    let Some(gpu) = gpu(Precision::F32) else { return };
    check_depthwise(&gpu, 1e-5);
}

#[test]
fn norms_are_right_on_gpus() {
    let Some(gpu) = gpu(Precision::F32) else { return };
    check_norms(&gpu, 1e-6);
}

#[test]
fn numbers_are_right_on_gpus() {
    let Some(gpu) = gpu(Precision::F32) else { return };
    check_uniform(&gpu);
    check_uniform_slices(&gpu);
    check_slices(&gpu);
    check_add_scaled(&gpu, 1e-6);
}

#[test]
fn wrong_views_are_refused_on_gpus() {
    let Some(gpu) = gpu(Precision::F32) else { return };
    check_refusals(&gpu);
}

/// Captured operations read the current contents of their buffers when replayed, with the original program.
#[test]
fn captured_operations_are_done_again() {
    let Some(gpu) = gpu(Precision::F32) else { return };
    let conv = Conv { grid: Grid { batch: 2, height: 6, width: 5 }, inputs: 4, outputs: 4, kernel: 3 };
    let (rows, channels) = (conv.grid.rows(), conv.inputs);
    let weight = upload(&gpu, &numbers(1, channels * conv.columns()));
    let (whole, channel) = (at(0, [conv.grid.pixels() * channels, channels, 1]), at(0, [0, 0, 1]));
    let shape = [conv.grid.batch, conv.grid.pixels(), channels];
    let work = |device: &Cuda, x: &cuda::Buffer| {
        let (mut y, mut dx) = (device.scratch(rows * channels), device.scratch(rows * channels));
        let (mut dweight, mut mean) = (device.zeros(channels * conv.columns()), device.scratch(channels));
        device.conv(conv, x, &weight, &mut y, false);
        let sum = input(0) * constant(1.0 / rows as f64);
        let out = ViewMut { buffer: &mut mean, at: channel };
        device.reduce(&sum, shape, &[View { buffer: &y, at: whole }], out, false);
        let mut centred = device.scratch(rows * channels);
        let inputs = [View { buffer: &y, at: whole }, View { buffer: &mean, at: channel }];
        device.map(&(input(0) - input(1)), shape, &inputs, ViewMut { buffer: &mut centred, at: whole });
        device.conv_backward_input(conv, &weight, &centred, &mut dx, false);
        device.conv_backward_weight(conv, x, &centred, &mut dweight, true);
        let mut noise = device.scratch(8);
        device.uniform(RngStream { seed: 1, id: 2 }, 2, &mut noise);
        [centred, dx, dweight, noise]
    };
    let mut x = upload(&gpu, &numbers(2, rows * channels));
    let mut repeated = Repeated::new();
    for seed in 2..6 {
        let fresh = upload(&gpu, &numbers(seed, rows * channels));
        gpu.copy(&fresh, &mut x);
        let have = repeated.run(&gpu, |device| work(device, &x)).each_ref().map(|it| download(&gpu, it));
        let want = work(&gpu, &fresh).map(|buffer| download(&gpu, &buffer));
        assert!(have == want, "run {seed}");
    }
}

#[test]
fn results_are_right_in_any_order_of_blocks_and_threads() {
    again("right_on_gpus", &[("CUDA_EMULATOR_ORDER", "reverse")]);
}

#[test]
fn if_streams_wait_until_the_last_moment_results_are_right() {
    again("right_on_gpus", &[("CUDA_EMULATOR_LAZY", "1")]);
}

#[test]
fn results_are_right_for_any_parts_of_a_batch() {
    again("right_on_gpus", &[(ROWS, "20")]);
}

/// Newton–Schulz iterations as loops: matrices with more rows than columns are transposed first.
fn orthogonal(rows: usize, columns: usize, x: &[f64]) -> Vec<f64> {
    let transposed = |rows: usize, columns: usize, x: &[f64]| -> Vec<f64> {
        (0..rows * columns).map(|at| x[at % rows * columns + at / rows]).collect()
    };
    if rows > columns {
        return transposed(columns, rows, &orthogonal(columns, rows, &transposed(rows, columns, x)));
    }
    let product = |n: usize, k: usize, a: &[f64], b: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
        let sum = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b(l, j)).sum();
        (0..rows * n).map(|at| sum(at / n, at % n)).collect()
    };
    let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt() + 1e-7;
    let mut x: Vec<f64> = x.iter().map(|x| x / norm).collect();
    for _ in 0..5 {
        let a = product(rows, columns, &x, &|l, j| x[j * columns + l]);
        let square = product(rows, rows, &a, &|l, j| a[l * rows + j]);
        let b: Vec<f64> = a.iter().zip(&square).map(|(a, square)| -4.7750 * a + 2.0315 * square).collect();
        let change = product(columns, rows, &b, &|l, j| x[l * columns + j]);
        x = x.iter().zip(&change).map(|(x, change)| 3.4445 * x + change).collect();
    }
    x
}

fn orthogonalize_on<D: Primitives>(device: &D, name: &str, tolerance: f64) {
    let shapes = [[1, 1], [1, 6], [5, 1], [4, 40], [37, 9], [16, 16], [65, 130]];
    for (seed, [rows, columns]) in shapes.into_iter().enumerate() {
        for count in [1, 3] {
            let x = numbers(seed as u64, count * rows * columns);
            let have = device.orthogonalize(count, [rows, columns], upload(device, &x));
            let matrices = x.chunks(rows * columns);
            let want: Vec<f64> = matrices.flat_map(|x| orthogonal(rows, columns, x)).collect();
            close(
                &download(device, &have),
                &want,
                tolerance,
                &format!("{name}: {count} of {rows}x{columns}"),
            );
        }
    }
    let zeros = device.orthogonalize(2, [3, 7], device.zeros(42));
    assert_eq!(download(device, &zeros), [0.0; 42], "{name}: zeros");
}

#[test]
fn orthogonalized_matrices_are_their_definition() {
    orthogonalize_on(&Cpu::<f64>::new(), "f64", 1e-11);
    orthogonalize_on(&Cpu::<f32>::new(), "f32", 1e-4);
    for (precision, tolerance) in [(Precision::F32, 1e-4), (Precision::Bf16, 0.1)] {
        if let Some(gpu) = gpu(precision) {
            orthogonalize_on(&gpu, "GPU", tolerance);
        }
    }
}

/// Units whose ReLU is never active have no gradients. Their momenta decay, and must not make products slow by
/// becoming subnormal.
#[test]
fn tiny_rows_are_orthogonalized_to_zeros() {
    let device = Cpu::<f32>::new();
    let [rows, columns] = [4, 6];
    let orthogonalized = |scale: f64| {
        let mut x = numbers(9, rows * columns);
        x[2 * columns..3 * columns].iter_mut().for_each(|x| *x *= scale);
        download(&device, &device.orthogonalize(1, [rows, columns], upload(&device, &x)))
    };
    let (zero, tiny, small) = (orthogonalized(0.0), orthogonalized(1e-25), orthogonalized(1e-10));
    assert_eq!(tiny, zero);
    assert!(zero[2 * columns..3 * columns].iter().all(|&x| x == 0.0), "{zero:?}");
    assert!(small[2 * columns..3 * columns].iter().all(|&x| x != 0.0), "{small:?}");
}

#[test]
fn moments_without_gradients_become_zero() {
    let device = Cpu::<f32>::new();
    for rule in [Rule::Adam, Rule::Adamax] {
        let mut state = [1.0, 2e-38, 2e-38, 1.0].map(|value| device.upload(&[value; 5]));
        for count in 1..=100 {
            let [weights, first, second, ema] = &mut state;
            let mut gradient = device.zeros(5);
            let training = Training { weights, gradient: &mut gradient, first, second, ema };
            let update = Update {
                rule,
                learning_rate: 1e-3,
                beta1: 0.9,
                beta2: 0.99,
                epsilon: 1e-8,
                count,
                clip: None,
                ema_decay: 0.9,
            };
            assert!(device.update(&update, &[], training).unwrap().applied);
        }
        let [weights, first, second, ema] = &state;
        assert_eq!((&weights[..], &first[..], &ema[..]), (&[1.0; 5][..], &[0.0; 5][..], &[1.0; 5][..]));
        assert!(second.iter().all(|x| !x.is_subnormal()), "{rule:?}: {second:?}");
    }
}

/// The singular values of a well-conditioned matrix end up near 1, at any scale.
#[test]
fn orthogonalized_matrices_have_singular_values_near_1() {
    let device = Cpu::<f64>::new();
    for scale in [1e-3, 1.0, 1e6] {
        let x: Vec<f64> = numbers(3, 8 * 50).iter().map(|x| scale * x).collect();
        let x = device.orthogonalize(1, [8, 50], upload(&device, &x));
        let values = nalgebra::DMatrix::from_row_slice(8, 50, &download(&device, &x)).singular_values();
        assert!(values.iter().all(|value| (0.65..1.25).contains(value)), "{scale}: {values}");
    }
}
