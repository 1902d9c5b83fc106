//! Which images have which attributes: yes/no labels, any number to an image, unlike classes.
//!
//! A table of attributes is a CSV file with a header: the first column holds the images' names, every other column that
//! holds nothing but 1 for yes and 0 or -1 for no is an attribute. Empty fields are unknown.
//!
//! ```csv
//! image,Smiling,Eyeglasses
//! ann.jpg,1,-1
//! bob.jpg,-1,
//! ```

use std::collections::HashMap;
use std::path::Path;

use crate::portraits::{ATTRIBUTES, Portraits};
use crate::{Dataset, Error};

/// Yes/no attributes of the images of a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    names: Vec<String>,
    /// `[images, names]`; images without a row in the table have nothing but unknowns.
    values: Vec<Option<bool>>,
    left_out: Vec<String>,
}

impl Attributes {
    /// Reads a table and finds its rows for the images of `dataset`, by their names there, or by the names of the files
    /// alone where no two images share one.
    ///
    /// # Errors
    /// [`Error::Read`] where the file cannot be read; [`Error::Malformed`] where it is no such table, names an image twice,
    /// or none of the dataset's.
    pub fn read(path: &Path, dataset: &dyn Dataset) -> Result<Self, Error> {
        let malformed = |problem: String| Error::Malformed { path: path.to_owned(), problem };
        let text =
            std::fs::read_to_string(path).map_err(|reason| Error::Read { path: path.to_owned(), reason })?;
        let mut table = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
        let columns: Vec<String> = match table.headers() {
            Ok(header) => header.iter().skip(1).map(str::to_owned).collect(),
            Err(error) => return Err(malformed(error.to_string())),
        };
        if let Some(twice) = (1..columns.len()).find(|&c| columns[..c].contains(&columns[c])) {
            return Err(malformed(format!("two columns are named {:?}; rename one of them", columns[twice])));
        }
        let mut rows: HashMap<String, Vec<String>> = HashMap::new();
        for row in table.records() {
            let row = row.map_err(|error| malformed(error.to_string()))?;
            let mut fields = row.iter().map(str::to_owned);
            let name = fields.next().unwrap_or_default();
            if rows.insert(name.clone(), fields.collect()).is_some() {
                return Err(malformed(format!("the image {name} has two rows; leave one of them out")));
            }
        }
        // Of each column, what is neither yes nor no, and of which image.
        let other = |c: usize| {
            rows.iter().filter(|(_, row)| answer(&row[c]).is_err()).map(|(image, row)| (image, &row[c])).min()
        };
        let mut kept = vec![];
        let mut left_out = vec![];
        for (c, column) in columns.iter().enumerate() {
            match other(c) {
                None => kept.push(c),
                Some((image, value)) => left_out.push(format!("{column} ({value:?} for {image})")),
            }
        }
        if kept.is_empty() || rows.is_empty() {
            let found = left_out.first().map_or(String::new(), |found| format!("; there is {found}"));
            return Err(malformed(format!(
                "no column of attributes: the first column should hold images' names, and others only 1 for yes \
                 and 0 or -1 for no, under a line of names, separated by commas{found}"
            )));
        }
        let mut values = Vec::with_capacity(dataset.len() * kept.len());
        let mut found = false;
        let names = Names::of(dataset);
        for image in 0..dataset.len() {
            let row = names.keys(dataset, image).find_map(|name| rows.get(&name));
            found |= row.is_some();
            values.extend(kept.iter().map(|&c| row.and_then(|row| answer(&row[c]).ok().flatten())));
        }
        if !found {
            let named = rows.keys().min().cloned().unwrap_or_default();
            return Err(malformed(format!(
                "none of its images is in the data: it names {named:?}, the data {:?}",
                if dataset.is_empty() { String::new() } else { dataset.name(0) }
            )));
        }
        let names = kept.iter().map(|&c| columns[c].clone()).collect();
        Ok(Self { names, values, left_out })
    }

    /// What the generator of [`Portraits`] drew.
    pub fn of_portraits(portraits: &Portraits) -> Self {
        let values = (0..portraits.len())
            .flat_map(|image| portraits.attributes(image).map(|(_, present)| Some(present)))
            .collect();
        Self { names: ATTRIBUTES.map(str::to_owned).to_vec(), values, left_out: vec![] }
    }

    /// The attributes' names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Columns of the table that hold other things than yes and no, each with such a thing.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// For each attribute, whether image `image` has it; `None` where nobody says.
    ///
    /// # Panics
    /// Where the dataset has no such image.
    pub fn of(&self, image: usize) -> &[Option<bool>] {
        &self.values[image * self.names.len()..][..self.names.len()]
    }
}

/// What a field says, or that it says something else.
fn answer(field: &str) -> Result<Option<bool>, ()> {
    match field {
        "" => Ok(None),
        "1" | "+1" => Ok(Some(true)),
        "0" | "-1" => Ok(Some(false)),
        _ => Err(()),
    }
}

/// Under which names a dataset's images may be found in a table.
struct Names {
    files_differ: bool,
}

impl Names {
    fn of(dataset: &dyn Dataset) -> Self {
        let mut files: Vec<String> = (0..dataset.len()).map(|i| file_name(&dataset.name(i))).collect();
        files.sort_unstable();
        Self { files_differ: files.windows(2).all(|pair| pair[0] != pair[1]) }
    }

    fn keys(&self, dataset: &dyn Dataset, image: usize) -> impl Iterator<Item = String> {
        let name = dataset.name(image);
        let file = self.files_differ.then(|| file_name(&name));
        std::iter::once(name).chain(file)
    }
}

fn file_name(name: &str) -> String {
    Path::new(name).file_name().map_or_else(|| name.to_owned(), |file| file.to_string_lossy().into_owned())
}
