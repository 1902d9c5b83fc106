//! The YuNet network: pixels to face candidates.
//!
//! At each of three strides, for every cell of a grid, it returns the probability of a face (`cls`), the
//! quality of its box (`obj`), the box (`bbox`: centre and logarithm of the size, in strides), and five
//! landmarks (`kps`: offsets in strides), the first two of which are the eyes.

use std::sync::Arc;

use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, ValueView, op_registry};

use crate::Error;

/// The model file; `weights/NOTICE` states its origin.
static WEIGHTS: &[u8] = include_bytes!("../weights/yunet_n_dynamic.onnx");
const STRIDES: [usize; 3] = [8, 16, 32];
const OUTPUTS: [&str; 4] = ["cls", "obj", "bbox", "kps"];
/// Values per cell of each output.
const WIDTHS: [usize; 4] = [1, 1, 4, 10];
/// Candidates with lower confidence are dropped.
const MIN_SCORE: f64 = 0.5;

/// A candidate, in pixels of the network's input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub score: f64,
    /// Left, top, right and bottom.
    pub bounds: [f64; 4],
    pub eyes: [[f64; 2]; 2],
}

/// The loaded network.
pub(crate) struct Network {
    model: Model,
    input: NodeId,
    /// By stride, then in the order of `OUTPUTS`.
    outputs: Vec<NodeId>,
    options: RunOptions,
}

impl Network {
    /// The sides of the input must be multiples of this.
    pub const MULTIPLE: usize = 32;

    pub fn load() -> Result<Self, Error> {
        let ops = op_registry!(
            Add, Concat, Conv, Gather, MaxPool, Relu, Reshape, Resize, Shape, Sigmoid, Transpose, Unsqueeze
        );
        let failed = |error: &dyn std::fmt::Display| Error::Network(error.to_string());
        let mut options = ModelOptions::with_ops(ops);
        options.prepack_weights(true);
        let model = options.load_static_slice(WEIGHTS).map_err(|error| failed(&error))?;
        let node = |name: &str| model.node_id(name).map_err(|error| failed(&error));
        let names = STRIDES.iter().flat_map(|stride| OUTPUTS.map(|output| format!("{output}_{stride}")));
        let outputs = names.map(|name| node(&name)).collect::<Result<_, _>>()?;
        let pool = ThreadPool::with_num_threads(rayon::current_num_threads());
        let options = RunOptions::default().with_thread_pool(Some(Arc::new(pool)));
        Ok(Self { input: node("input")?, model, outputs, options })
    }

    /// The faces in an image given as planes of blue, green and red from 0 to 255. Both sides are multiples
    /// of `MULTIPLE`.
    pub fn run(&self, planes: &[f32], height: usize, width: usize) -> Result<Vec<Candidate>, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::Network(error.to_string());
        let input = ValueView::from_shape([1, 3, height, width], planes).map_err(|error| failed(&error))?;
        let values = self
            .model
            .run(vec![(self.input, input.into())], &self.outputs, Some(self.options.clone()))
            .map_err(|error| failed(&error))?;
        let mut values = values.into_iter().map(|value| value.into_shape_vec::<f32, 3>());
        let mut candidates = vec![];
        for stride in STRIDES {
            let (columns, cells) = (width / stride, width / stride * (height / stride));
            let mut outputs = vec![];
            for cell in WIDTHS {
                let (shape, data) =
                    values.next().ok_or_else(|| failed(&"an output is missing"))?.map_err(|e| failed(&e))?;
                if shape != [1, cells, cell] {
                    return Err(failed(&format!("an output has the shape {shape:?}")));
                }
                outputs.push(data);
            }
            candidates.extend((0..cells).filter_map(|cell| candidate(&outputs, cell, columns, stride)));
        }
        Ok(candidates)
    }
}

/// The face of a cell, unless its confidence is too low.
fn candidate(outputs: &[Vec<f32>], cell: usize, columns: usize, stride: usize) -> Option<Candidate> {
    let value = |output: usize, i: usize| f64::from(outputs[output][cell * WIDTHS[output] + i]);
    let score = (value(0, 0).clamp(0.0, 1.0) * value(1, 0).clamp(0.0, 1.0)).sqrt();
    if score < MIN_SCORE {
        return None;
    }
    let (stride, column, row) = (stride as f64, (cell % columns) as f64, (cell / columns) as f64);
    let place = |output, i| [(column + value(output, i)) * stride, (row + value(output, i + 1)) * stride];
    let [x, y] = place(2, 0);
    let (width, height) = (value(2, 2).exp() * stride, value(2, 3).exp() * stride);
    let bounds = [x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0];
    let eyes = [place(3, 0), place(3, 2)];
    let finite = bounds.iter().chain(eyes.as_flattened()).all(|place| place.is_finite());
    (finite && eyes[0] != eyes[1]).then_some(Candidate { score, bounds, eyes })
}
