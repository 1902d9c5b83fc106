//! Roles of arrays in an archive, derived from their names: `x_train`, `trainImages`, `val_labels`, `y` …

/// The part of a dataset that an array belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Named as training data.
    Train,
    /// No part in the name.
    Whole,
    Test,
    Validation,
}

/// Contents of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Images; among several arrays the lowest rank wins.
    Images(usize),
    /// Labels; among several arrays the lowest rank wins.
    Labels(usize),
    /// A recognised name that is neither, such as masks.
    Neither,
    Unknown,
}

/// Names of image arrays, the least ambiguous first.
const IMAGES: [&str; 9] = ["images", "image", "imgs", "img", "pictures", "photos", "x", "data", "pixels"];
const LABELS: [&str; 6] = ["labels", "label", "y", "targets", "target", "class"];
const OTHERS: [&str; 13] = [
    "mask",
    "masks",
    "seg",
    "segmentation",
    "segmentations",
    "depth",
    "depths",
    "box",
    "boxes",
    "landmarks",
    "keypoints",
    "embeddings",
    "features",
];

/// Part and contents of the array `name`.
pub(crate) fn role(name: &str) -> (Part, Content) {
    let words = words(name);
    let has = |known: &[&str]| words.iter().any(|word| known.contains(&word.as_str()));
    let part = if has(&["test", "testing", "eval"]) {
        Part::Test
    } else if has(&["val", "valid", "validation", "dev"]) {
        Part::Validation
    } else if has(&["train", "training"]) {
        Part::Train
    } else {
        Part::Whole
    };
    let first = |known: &[&str]| known.iter().position(|known| words.iter().any(|word| word == known));
    let content = if has(&OTHERS) {
        Content::Neither
    } else if let Some(rank) = first(&LABELS) {
        Content::Labels(rank)
    } else if let Some(rank) = first(&IMAGES) {
        Content::Images(rank)
    } else {
        Content::Unknown
    };
    (part, content)
}

/// The words of a name in lower case: `val_labels`, `val/labels`, `valLabels` and `Xtrain` have two.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![];
    let mut previous = '_';
    for c in name.chars() {
        let starts = !previous.is_alphanumeric() || previous.is_lowercase() && c.is_uppercase();
        if c.is_alphanumeric() {
            if starts {
                words.push(String::new());
            }
            let word = words.last_mut();
            word.into_iter().for_each(|word| word.extend(c.to_lowercase()));
        }
        previous = c;
    }
    for at in 0..words.len() {
        // `xtrain`, `ytest`.
        if let Some(rest) = words[at].strip_prefix(['x', 'y'])
            && ["train", "test", "val", "valid"].contains(&rest)
        {
            let rest = rest.to_owned();
            words[at].truncate(1);
            words.push(rest);
        }
    }
    words
}
