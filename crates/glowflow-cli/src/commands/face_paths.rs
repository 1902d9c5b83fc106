//! Output paths of `align` and `crop`: one per input image, and more for additional faces.

use std::collections::HashSet;
use std::path::PathBuf;

use super::picture_paths::{key, picture_paths};

/// Distinct paths below the output folder.
pub struct FacePaths {
    first: Vec<PathBuf>,
    /// Keys of these paths and of their parent folders.
    taken: HashSet<String>,
}

impl FacePaths {
    pub fn new(images: &[PathBuf]) -> Self {
        let names: Vec<String> = images.iter().map(|image| image.to_string_lossy().into_owned()).collect();
        let first = picture_paths(&names);
        let taken = first.iter().flat_map(|path| path.ancestors()).map(key).collect();
        Self { first, taken }
    }

    /// Returns the path for a face of an image, both counted from 0: `x.png`, then `x.face2.png`, with a
    /// number appended if that name is taken.
    pub fn of(&self, image: usize, face: usize) -> PathBuf {
        let first = &self.first[image];
        if face == 0 {
            return first.clone();
        }
        let stem = first.file_stem().unwrap_or_default().to_string_lossy();
        let stem = format!("{stem}.face{}", face + 1);
        let mut path = first.with_file_name(format!("{stem}.png"));
        let mut number = 1;
        while self.taken.contains(&key(&path)) {
            number += 1;
            path = first.with_file_name(format!("{stem}-{number}.png"));
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_but_for_a_picture_s_ending() {
        let images = ["000001.jpg", "a/b.c.PNG", "a/x.jpg", "a/x.png", "no ending", "mr.smith"];
        let paths = FacePaths::new(&images.map(PathBuf::from));
        let firsts: Vec<_> = (0..images.len()).map(|image| paths.of(image, 0)).collect();
        let expected = ["000001.png", "a/b.c.png", "a/x-2.png", "a/x.png", "no ending.png", "mr.smith.png"];
        assert_eq!(firsts, expected.map(PathBuf::from));
    }

    #[test]
    fn further_faces_replace_no_picture() {
        let paths = FacePaths::new(&["x.png", "x.face2.png", "X.FACE3.jpg"].map(PathBuf::from));
        let faces: Vec<_> = (0..3).map(|face| paths.of(0, face)).collect();
        assert_eq!(faces, ["x.png", "x.face2-2.png", "x.face3-2.png"].map(PathBuf::from));
        assert_eq!(paths.of(1, 1), PathBuf::from("x.face2.face2.png"));
    }
}
