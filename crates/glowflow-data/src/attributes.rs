//! Yes/no attributes of images. Unlike classes, an image can have any number of them.
//!
//! The first line of an attribute table holds column names. One column holds the image names; every other
//! column that contains only yes (1, true, yes) and no (0, -1, false, no) is an attribute. Empty fields, `NA`
//! and the like mean unknown.
//!
//! ```csv
//! image,Smiling,Eyeglasses
//! ann.jpg,1,-1
//! bob.jpg,-1,
//! ```

use std::cmp::Reverse;
use std::collections::HashSet;
use std::path::Path;

use unicode_normalization::UnicodeNormalization;

use crate::answer::answer;
use crate::image_names::{Closeness, Found, ImageNames, normal};
use crate::leftovers::{agree, counted};
use crate::portraits::{ATTRIBUTES, Portraits};
use crate::table::{Row, Table};
use crate::{Dataset, Error, table, text};

/// Yes/no attributes of the images of a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    names: Vec<String>,
    /// `[images, names]`; all unknown for images without a row in the table.
    values: Vec<Option<bool>>,
    left_out: Vec<String>,
    notices: Vec<String>,
}

impl Attributes {
    /// Reads a table and matches its rows with the images of `dataset`.
    ///
    /// Fields are separated by commas, semicolons, tabs, bars or blanks; the text is UTF-8, UTF-16 or
    /// Windows-1252. An image is matched by its name in the dataset, else by its file name in another folder,
    /// without the extension or with another extension, if the match is unambiguous.
    ///
    /// # Errors
    /// [`Error::Read`] if the file cannot be read; [`Error::Malformed`] if it is not an attribute table,
    /// repeats an attribute name, or matches none of the dataset's images.
    pub fn read(path: &Path, dataset: &dyn Dataset) -> Result<Self, Error> {
        let text = text::read(path)?;
        let encoding = text.notice.as_ref().map_or(String::new(), |notice| format!(" ({notice})"));
        let mut attributes =
            table::parse(&text.text).and_then(|table| Self::of_table(&table, dataset)).map_err(
                |problem| Error::Malformed { path: path.to_owned(), problem: format!("{problem}{encoding}") },
            )?;
        attributes.notices.extend(text.notice.map(|notice| format!("{}: {notice}", path.display())));
        Ok(attributes)
    }

    fn of_table(table: &Table, dataset: &dyn Dataset) -> Result<Self, String> {
        let names = ImageNames::of(dataset);
        let images = image_column(table, &names);
        let is_image = |name: &str| matches!(names.find(name), Found::One(_, Closeness::Equal));
        if let Some(name) = table.columns.get(images).filter(|name| is_image(name)) {
            return Err(format!(
                "its first line is the row of image {name:?}; add a header line of column names"
            ));
        }
        let Columns { kept, left_out } = Columns::of(table, images)?;
        if kept.is_empty() || table.rows.is_empty() {
            let found = left_out.first().map_or(String::new(), |found| format!("; found {found}"));
            return Err(format!(
                "no column of attributes: below a header line, one column should contain image names, and others \
                 only 1 for yes and 0 or -1 for no, separated by commas{found}"
            ));
        }
        let pairs = Pairs::find(table, images, &names, dataset.len());
        if pairs.rows.iter().all(Vec::is_empty) && pairs.ambiguous_images.is_empty() {
            return Err(format!(
                "none of its images are in the data: the table names {:?}, the data {:?}",
                &table.rows[0].fields[images],
                if dataset.is_empty() { String::new() } else { dataset.name(0) }
            ));
        }
        let mut values = Vec::with_capacity(dataset.len() * kept.len());
        let mut contradictory = vec![];
        for (image, rows) in pairs.rows.iter().enumerate() {
            let mut contradicts = false;
            for &column in &kept {
                let answers = rows.iter().filter_map(|&row| answer(&table.rows[row].fields[column]).ok()?);
                let (yes, no) = answers.fold((false, false), |(yes, no), a| (yes || a, no || !a));
                contradicts |= yes && no;
                values.push((yes != no).then_some(yes));
            }
            if contradicts {
                contradictory.push(image);
            }
        }
        let mut notices = pairs.notices(table, images, dataset);
        if let Some(&image) = contradictory.first() {
            notices.push(format!(
                "{} {} contradictory rows, such as {}; those attributes count as unknown",
                counted(contradictory.len(), "image"),
                agree(contradictory.len(), "has", "have"),
                dataset.name(image)
            ));
        }
        notices.extend(table.notice.clone());
        if let Some(announced) = table.announced.filter(|&rows| rows != table.rows.len()) {
            notices.push(format!("the table declares {announced} rows but has {}", table.rows.len()));
        }
        let names = kept.iter().map(|&c| attribute_name(&table.columns[c])).collect();
        Ok(Self { names, values, left_out, notices })
    }

    /// Attributes by their values `[images, names]`; `None` is unknown.
    ///
    /// ```
    /// use glowflow_data::Attributes;
    ///
    /// let values = vec![Some(true), None, Some(false), Some(true)];
    /// let attributes = Attributes::of_values(vec!["Hat".into(), "Smiling".into()], values).unwrap();
    /// assert_eq!(attributes.of(1), [Some(false), Some(true)]);
    /// assert!(Attributes::of_values(vec!["Hat".into(), "Smiling".into()], vec![None]).is_none());
    /// ```
    ///
    /// Returns `None` if the values are not a whole number of images.
    pub fn of_values(names: Vec<String>, values: Vec<Option<bool>>) -> Option<Self> {
        let whole = !names.is_empty() && values.len().is_multiple_of(names.len());
        whole.then(|| Self { names, values, left_out: vec![], notices: vec![] })
    }

    /// Attributes that the generator of [`Portraits`] drew.
    pub fn of_portraits(portraits: &Portraits) -> Self {
        let values = (0..portraits.len())
            .flat_map(|image| portraits.attributes(image).map(|(_, present)| Some(present)))
            .collect();
        Self { names: ATTRIBUTES.map(str::to_owned).to_vec(), values, left_out: vec![], notices: vec![] }
    }

    /// The attributes of a subset of the images: image `i` of the result is image `images[i]` here.
    ///
    /// # Panics
    /// If an index is out of range.
    #[must_use]
    pub fn of_subset(&self, images: &[usize]) -> Self {
        let values = images.iter().flat_map(|&image| self.of(image)).copied().collect();
        Self { values, ..self.clone() }
    }

    /// The attributes' names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Columns that contain values other than yes and no, each with an example.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Remarks about the table for the user, such as rows that match no image.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The attributes of image `image`; `None` for unknown.
    ///
    /// # Panics
    /// If the index is out of range.
    pub fn of(&self, image: usize) -> &[Option<bool>] {
        &self.values[image * self.names.len()..][..self.names.len()]
    }
}

/// The column of image names: the first, unless another one matches more images.
fn image_column(table: &Table, names: &ImageNames) -> usize {
    let nameless = |column: usize| table.columns[column].is_empty();
    let enough = table.rows.len().min(names.len()).div_ceil(2);
    let mut best: Option<(_, usize)> = None;
    for column in 0..table.columns.len() {
        let fields = table.rows.iter().map(|row| &row.fields[column]);
        if column > 0 && fields.clone().all(|field| answer(field).is_ok()) {
            continue;
        }
        let (mut found, mut equal) = (HashSet::new(), 0);
        for field in fields {
            if let Found::One(image, closeness) = names.find(field) {
                found.insert(image);
                equal += usize::from(closeness == Closeness::Equal);
            }
        }
        // pandas prepends an unnamed column with row numbers.
        let rank = (found.len(), equal, !nameless(column), Reverse(column));
        if best.is_none_or(|(other, _)| rank > other) {
            best = Some((rank, column));
        }
        if !nameless(column) && found.len() >= enough.max(1) {
            break;
        }
    }
    best.map_or(0, |(_, column)| column)
}

/// Columns other than the image names.
struct Columns {
    /// Columns that are attributes.
    kept: Vec<usize>,
    /// Names of the other columns, each with a field that is neither yes nor no.
    left_out: Vec<String>,
}

impl Columns {
    fn of(table: &Table, images: usize) -> Result<Self, String> {
        let (mut kept, mut left_out) = (vec![], vec![]);
        for (column, name) in table.columns.iter().enumerate().filter(|(column, _)| *column != images) {
            if name.is_empty() {
                // An unnamed first column holds row numbers.
                if column > 0 {
                    left_out.push(format!("column {} without a name", column + 1));
                }
                continue;
            }
            let same = |&other: &usize| {
                other != images && attribute_name(&table.columns[other]) == attribute_name(name)
            };
            if (0..column).any(|other| same(&other)) {
                return Err(format!("two columns are named {name:?}; rename one of them"));
            }
            match table.rows.iter().find(|row| answer(&row.fields[column]).is_err()) {
                None => kept.push(column),
                Some(Row { fields, .. }) => {
                    left_out.push(format!("{name} ({:?} for {})", &fields[column], &fields[images]));
                }
            }
        }
        Ok(Self { kept, left_out })
    }
}

fn attribute_name(column: &str) -> String {
    column.nfc().collect()
}

/// The matching of rows with images.
struct Pairs {
    /// Rows of each image.
    rows: Vec<Vec<usize>>,
    /// Rows that match no image.
    spare_rows: Vec<usize>,
    /// Rows that match several images, with two of them.
    ambiguous_rows: Vec<(usize, [usize; 2])>,
    /// Images that several contradictory rows match, with two of the rows.
    ambiguous_images: Vec<(usize, [usize; 2])>,
    /// Images matched by a similar name, with the row.
    guessed: Vec<(usize, usize)>,
}

impl Pairs {
    fn find(table: &Table, column: usize, names: &ImageNames, images: usize) -> Self {
        let mut pairs = Self {
            rows: vec![],
            spare_rows: vec![],
            ambiguous_rows: vec![],
            ambiguous_images: vec![],
            guessed: vec![],
        };
        let mut of_image: Vec<Vec<(Closeness, usize)>> = vec![vec![]; images];
        for (r, row) in table.rows.iter().enumerate() {
            match names.find(&row.fields[column]) {
                Found::None => pairs.spare_rows.push(r),
                Found::One(image, closeness) => of_image[image].push((closeness, r)),
                Found::Several(a, b) => pairs.ambiguous_rows.push((r, [a, b])),
            }
        }
        for (image, found) in of_image.into_iter().enumerate() {
            let closest = found.iter().map(|&(closeness, _)| closeness).min();
            let (close, far): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|(closeness, _)| Some(*closeness) == closest);
            pairs.spare_rows.extend(far.into_iter().map(|(_, row)| row));
            let mut rows: Vec<usize> = close.into_iter().map(|(_, row)| row).collect();
            let name = |row: usize| normal(&table.rows[row].fields[column]);
            let other = rows.iter().find(|&&row| name(row) != name(rows[0])).copied();
            match (other, closest) {
                (Some(other), Some(closest)) if closest != Closeness::Equal => {
                    pairs.ambiguous_images.push((image, [rows[0], other]));
                    rows.clear();
                }
                (_, Some(closest)) if closest > Closeness::PartOfPath => pairs.guessed.push((image, rows[0])),
                _ => {}
            }
            pairs.rows.push(rows);
        }
        pairs.spare_rows.sort_unstable();
        pairs
    }

    /// Remarks for the user.
    fn notices(&self, table: &Table, column: usize, dataset: &dyn Dataset) -> Vec<String> {
        let name = |row: usize| match &table.rows[row].fields[column] {
            "" => format!("line {}", table.rows[row].line),
            name => name.to_owned(),
        };
        let (mut notices, mut alone) = (vec![], vec![]);
        if let Some(&row) = self.spare_rows.first() {
            let (spare, rows) = (self.spare_rows.len(), table.rows.len());
            alone.push(format!("{spare} of {rows} rows name no image, such as {}", name(row)));
        }
        let known: HashSet<usize> = self.ambiguous_images.iter().map(|(image, _)| *image).collect();
        let without: Vec<usize> =
            (0..self.rows.len()).filter(|i| self.rows[*i].is_empty() && !known.contains(i)).collect();
        if let Some(&image) = without.first() {
            let (count, images) = (without.len(), self.rows.len());
            alone.push(format!("{count} of {images} images have no row, such as {}", dataset.name(image)));
        }
        if !alone.is_empty() {
            notices.push(alone.join("; "));
        }
        if let Some(&(row, [a, b])) = self.ambiguous_rows.first() {
            notices.push(format!(
                "{} {} several images, such as {} ({} or {}); {} ignored",
                counted(self.ambiguous_rows.len(), "row"),
                agree(self.ambiguous_rows.len(), "matches", "match"),
                name(row),
                dataset.name(a),
                dataset.name(b),
                agree(self.ambiguous_rows.len(), "it is", "they are")
            ));
        }
        if let Some(&(image, [a, b])) = self.ambiguous_images.first() {
            notices.push(format!(
                "{} {} several rows, such as {} ({} or {}); {} none",
                counted(self.ambiguous_images.len(), "image"),
                agree(self.ambiguous_images.len(), "matches", "match"),
                dataset.name(image),
                name(a),
                name(b),
                agree(self.ambiguous_images.len(), "it gets", "they get")
            ));
        }
        if let Some(&(image, row)) = self.guessed.first() {
            notices.push(format!(
                "{} found under similar names, such as {} for {}",
                counted(self.guessed.len(), "image"),
                dataset.name(image),
                name(row)
            ));
        }
        notices
    }
}
