//! The Rust part of `overhead.py`: reads the lines `encode` and `sample`, and answers each with the time
//! taken in seconds.

use std::io::{self, BufRead, Write};
use std::time::Instant;

use glowflow::{Dequantization, Model};
use ndarray::Array4;

/// Images per batch.
const IMAGES: usize = 64;

fn main() {
    let path = std::env::args().nth(1).expect("usage: overhead MODEL");
    let model = Model::load(&path).expect("loading the model");
    let [height, width, channels] = model.config().image();
    let pixels = Array4::from_shape_fn((IMAGES, height, width, channels), |(n, y, x, c)| {
        ((31 * n + 7 * y + 13 * x + 5 * c) % 256) as u8
    });
    for line in io::stdin().lock().lines() {
        let start = Instant::now();
        match line.expect("reading a request").trim() {
            "encode" => drop(model.encode(pixels.view(), &[], Dequantization::Typical).expect("encoding")),
            "sample" => drop(model.sample(IMAGES, 0.7, &[], 1).expect("sampling")),
            request => panic!("unknown request {request:?}"),
        }
        println!("{}", start.elapsed().as_secs_f64());
        io::stdout().flush().expect("answering");
    }
}
