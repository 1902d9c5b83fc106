//! The face detector, if the program was built with one.

#[cfg(feature = "faces")]
pub use glowflow_faces::{Detector, Face, Fitting, is_in_place};

#[cfg(not(feature = "faces"))]
pub use absent::{Detector, Face, Fitting, is_in_place};

/// True if the program was built with a detector.
pub const AVAILABLE: bool = cfg!(feature = "faces");

/// The same interface for builds without a detector; its `Detector` is uninhabited.
#[cfg(not(feature = "faces"))]
mod absent {
    use std::convert::Infallible;

    use glowflow_data::{Eyes, ImageShape};

    #[derive(Clone, Copy)]
    pub struct Face {
        pub eyes: [[f64; 2]; 2],
        pub box_: [f64; 4],
        pub score: f64,
    }

    pub enum Fitting {
        Aligned(Face),
        InPlace(Face),
        NoFace,
    }

    pub struct Detector(Infallible);

    impl Detector {
        pub fn new() -> anyhow::Result<Self> {
            anyhow::bail!("this program was built without face detection: build it with the feature `faces`")
        }

        pub fn detect(&self, _: &[u8], _: ImageShape) -> anyhow::Result<Vec<Face>> {
            match self.0 {}
        }

        pub fn fit(
            &self,
            _: &[u8],
            _: ImageShape,
            _: Eyes,
            _: ImageShape,
        ) -> anyhow::Result<(Vec<u8>, Fitting)> {
            match self.0 {}
        }
    }

    pub fn is_in_place(_: &Face, _: ImageShape, _: Eyes, _: ImageShape) -> bool {
        true
    }
}
