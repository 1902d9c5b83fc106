//! Attribute tables: matching with images, parsing, and errors.

use std::path::{Path, PathBuf};

use glowflow_data::portraits::Portraits;
use glowflow_data::{Attributes, Dataset, Error, ImageShape, OpenOptions, open, save_png};

/// A folder with images of these names, and a table with this text next to it.
struct Labelled {
    _folder: tempfile::TempDir,
    images: std::sync::Arc<dyn Dataset>,
    table: PathBuf,
}

fn labelled(names: &[&str], text: impl AsRef<[u8]>) -> Labelled {
    let folder = tempfile::tempdir().unwrap();
    let shape = ImageShape { height: 2, width: 2, channels: 1 };
    for name in names {
        let path = folder.path().join("images").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        save_png(&path, shape, &[7; 4]).unwrap();
    }
    let table = folder.path().join("attributes.csv");
    std::fs::write(&table, text).unwrap();
    let images = open(&folder.path().join("images"), &OpenOptions::default()).unwrap().train;
    Labelled { _folder: folder, images, table }
}

fn read(names: &[&str], text: impl AsRef<[u8]>) -> Result<Attributes, Error> {
    let labelled = labelled(names, text);
    Attributes::read(&labelled.table, &*labelled.images)
}

const YES: Option<bool> = Some(true);
const NO: Option<bool> = Some(false);

#[test]
fn ones_are_yes_zeros_and_minus_ones_no_and_empty_fields_unknown() {
    let attributes = read(
        &["a.png", "b.png", "c.png"],
        "image,Smiling,Hat,Beard\nb.png, 1,0,\na.png,-1,+1,1\nelsewhere.png,1,1,1\n",
    )
    .unwrap();
    assert_eq!(attributes.names(), ["Smiling", "Hat", "Beard"]);
    assert_eq!(attributes.of(0), [NO, YES, YES]);
    assert_eq!(attributes.of(1), [YES, NO, None]);
    assert_eq!(attributes.of(2), [None, None, None], "an image without a row");
    assert!(attributes.left_out().is_empty());
}

#[test]
fn columns_of_other_things_are_left_out_and_named() {
    let attributes =
        read(&["a.png", "b.png"], "image,age,Hat,left_eye_x\na.png,31,1,0\nb.png,1,0,0.5\n").unwrap();
    assert_eq!(attributes.names(), ["Hat"]);
    assert_eq!(attributes.left_out(), [r#"age ("31" for a.png)"#, r#"left_eye_x ("0.5" for b.png)"#]);
    assert_eq!([attributes.of(0), attributes.of(1)], [[YES], [NO]]);
}

#[test]
fn rows_match_by_path_or_unambiguous_file_name() {
    let attributes = read(&["x/a.png", "y/b.png"], "image,Hat\nx/a.png,1\nb.png,0\n").unwrap();
    assert_eq!([attributes.of(0), attributes.of(1)], [[YES], [NO]]);
    // Two images are called a.png: only the path distinguishes them.
    let attributes = read(&["x/a.png", "y/a.png"], "image,Hat\nx/a.png,1\na.png,0\n").unwrap();
    assert_eq!([attributes.of(0), attributes.of(1)], [[YES], [None]]);
}

#[test]
fn files_that_are_not_attribute_tables_are_refused() {
    for (text, words) in [
        (&b""[..], "no column of attributes"),
        (b"image,Hat\n", "no column of attributes"),
        (b"image,age\na.png,31\n", "found age (\"31\" for a.png)"),
        (b"image,Hat,Hat\na.png,1,0\n", "two columns are named \"Hat\""),
        (b"image Hat Beard\na.png 1\n", "line 2 has 2 fields"),
        (b"image,Hat,Beard\na.png,\"1\nb.png,0,1\n", "line 2 has 2 fields"),
        (b"image,Hat\n\na.png,1\nb.png,0,5\n", "line 4 has 3 fields"),
        (b"image,Hat\nz.png,1\n", "names \"z.png\", the data \"a.png\""),
        (b"image,Hat\n\xe9.png,1\n", "read as Windows-1252"),
        (b"a.png,1\na.png,1\n", "header line of column names"),
        (b"PK\x03\x04\x14\x00workbook", "Excel"),
        (b"\xd0\xcf\x11\xe0 workbook", "Excel"),
        (b"image,Hat\na.png,\0\n", "zero bytes"),
        (b"\xff\xfei\0m\0a\0g\0e\0,\0H\0\n", "damaged UTF-16LE"),
    ] {
        let error = read(&["a.png"], text).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("attributes.csv"), "{words:?} is missing: {error}");
    }
    let Labelled { images, .. } = labelled(&["a.png"], "");
    let error = Attributes::read(Path::new("missing.csv"), &*images).unwrap_err();
    assert!(matches!(error, Error::Read { .. }) && error.to_string().contains("missing.csv"), "{error}");
}

#[test]
fn fields_missing_at_the_end_of_a_row_are_unknown() {
    let text = "image;Hat;Beard;Smiling\na.png;1;0;1\nb.png;1\nc.png\n";
    let attributes = read(&["a.png", "b.png", "c.png"], text).unwrap();
    assert_eq!([0, 1, 2].map(|image| attributes.of(image)), [[YES, NO, YES], [YES, None, None], [None; 3]]);
    let notice = "2 rows lack fields at the end, such as line 3; those count as unknown";
    assert_eq!(attributes.notices(), [notice]);
}

#[test]
fn images_of_many_folders_may_share_their_names() {
    let names: Vec<String> = (0..40).flat_map(|p| (0..5).map(move |i| format!("{p:02}/{i}.png"))).collect();
    let rows: Vec<String> = names.iter().zip(0..).map(|(name, at)| format!("{name},{}\n", at % 2)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let attributes = read(&names, format!("image,Hat\n{}", rows.concat())).unwrap();
    assert!((0..names.len()).all(|image| attributes.of(image) == [Some(image % 2 == 1)]));
    assert!(attributes.notices().is_empty());
}

#[test]
fn endless_and_huge_files_are_refused() {
    let labelled = labelled(&["a.png"], "");
    let (images, table) = (&labelled.images, &labelled.table);
    std::fs::OpenOptions::new().write(true).open(table).unwrap().set_len(1 << 42).unwrap();
    let error = Attributes::read(table, &**images).unwrap_err().to_string();
    assert!(error.contains("256 MiB"), "{error}");
    #[cfg(unix)]
    assert!(Attributes::read(Path::new("/dev/zero"), &**images).is_err());
}

/// Parses a table; returns Smiling and Hat of a.png (yes, no) and b.png (no, unknown), or an error.
#[track_caller]
fn reads(text: impl AsRef<[u8]>) -> Attributes {
    let text = text.as_ref();
    let attributes = read(&["a.png", "b.png"], text)
        .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(text)));
    assert_eq!(attributes.names(), ["Smiling", "Hat"], "{:?}", String::from_utf8_lossy(text));
    assert_eq!(
        [attributes.of(0), attributes.of(1)],
        [[YES, NO], [NO, None]],
        "{:?}",
        String::from_utf8_lossy(text)
    );
    attributes
}

#[test]
fn tables_of_many_writers_are_read() {
    for text in [
        "image,Smiling,Hat\na.png,1,0\nb.png,0,\n",
        // Excel: another separator, empty columns and rows, and the separator in the first line.
        "image;Smiling;Hat\r\na.png;1;0\r\nb.png;0;\r\n",
        "image,Smiling,Hat,,\na.png,1,0,,\nb.png,0,,,\n,,,,\n,,,,\n",
        "sep=;\r\nimage;Smiling;Hat;\r\na.png;1,0;0,0;\r\nb.png;-1,0;;\r\n;;;\r\n",
        "\"sep=\t\"\nimage\tSmiling\tHat\na.png\t1\t0\nb.png\t0\t\n",
        "image\tSmiling\tHat\na.png\t1\t0\nb.png\t0\t\n",
        "image|Smiling|Hat\na.png|1|0\nb.png|0|\n",
        // Classic Mac OS line endings.
        "image,Smiling,Hat\ra.png,1,0\rb.png,0,\r",
        // pandas: a leading column of row numbers.
        ",image_id,Smiling,Hat\n0,a.png,1,-1\n1,b.png,-1,\n",
        ",image_id,Smiling,Hat\n0,a.png,True,False\n1,b.png,False,NaN\n",
        ",Smiling,Hat,path\n0,1.0,0.0,a.png\n1,0.0,,b.png\n",
        // R: the first column has no name, and text is quoted.
        "\"Smiling\",\"Hat\"\n\"a.png\",TRUE,FALSE\n\"b.png\",FALSE,NA\n",
        "\"Smiling\" \"Hat\"\n\"a.png\" TRUE FALSE\n\"b.png\" FALSE NA\n",
        // CelebA: the number of rows first, blanks between fields, no name for the first column.
        "2\nSmiling Hat \na.png  1 -1\nb.png -1  ?\n",
        "image Smiling Hat\na.png 1 0\nb.png 0 NA\n",
        "Smiling Hat\na.png 1 0\nb.png 0 NA\n",
        // A separator at the end of each row, blank lines, blanks around fields, quotes.
        "image,Smiling,Hat\na.png,1,0,\n\nb.png,0,,\n",
        "\n\nimage , Smiling,Hat\n a.png , yes,no\n\"b.png\", N , null\n",
        "\"image\",\"Smiling\",\"Hat\"\n\"a.png\",\"1\",\"0\"\n\"b.png\",\"0\",\"\"\n",
    ] {
        let attributes = reads(text);
        assert!(
            attributes.left_out().is_empty() && attributes.notices().is_empty(),
            "{text}: {attributes:?}"
        );
    }
    // R with a single attribute, whose header is one field.
    for text in
        ["\"Smiling\"\n\"a.png\" TRUE\n\"b.png\" FALSE\n", "\"Smiling\"\n\"a.png\",TRUE\n\"b.png\",FALSE\n"]
    {
        let attributes = read(&["a.png", "b.png"], text).unwrap();
        assert_eq!(
            (attributes.names(), attributes.of(0), attributes.of(1)),
            (&["Smiling".into()][..], &[YES][..], &[NO][..])
        );
    }
    // Commas in names are no separators.
    let attributes = read(&["a,b.png", "c,d.png"], "Smiling Hat\na,b.png 1 0\nc,d.png 0 1\n").unwrap();
    assert_eq!(
        (attributes.names(), attributes.of(1)),
        (&["Smiling".into(), "Hat".into()][..], &[NO, YES][..])
    );
    let fewer = reads("3\nSmiling Hat\na.png 1 -1\nb.png -1 ?\n");
    assert!(fewer.notices()[0].contains("declares 3 rows but has 2"), "{:?}", fewer.notices());
}

#[test]
fn text_of_any_common_encoding_is_read() {
    let table = "image,Smiling,Hat\na.png,1,0\nb.png,0,\n";
    let words: Vec<u16> = table.encode_utf16().collect();
    let little: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let big: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    for text in [
        [b"\xEF\xBB\xBF", table.as_bytes()].concat(),
        [b"\xFF\xFE", &little[..]].concat(),
        [b"\xFE\xFF", &big[..]].concat(),
        little.clone(),
        big.clone(),
    ] {
        assert!(reads(text).notices().is_empty());
    }
    // Windows-1252, with a warning.
    let attributes = read(&["é.png"], b"image,H\xe4t\n\xe9.png,1\n").unwrap();
    assert_eq!((attributes.names(), attributes.of(0)), (&["Hät".to_owned()][..], &[YES][..]));
    assert!(attributes.notices()[0].contains("Windows-1252"), "{:?}", attributes.notices());
}

#[test]
fn names_of_attributes_may_hold_separators() {
    let attributes = read(&["a.png"], "image;Hair, blond;a=b\na.png;1;0\n").unwrap();
    assert_eq!(attributes.names(), ["Hair, blond", "a=b"]);
    let attributes = read(&["a.png"], "image;Hair, blond\na.png;1\n").unwrap();
    assert_eq!(attributes.names(), ["Hair, blond"]);
    let attributes = read(&["a.png"], "image,\"Hair, blond\",a=b\na.png,1,0\n").unwrap();
    assert_eq!(attributes.names(), ["Hair, blond", "a=b"]);
}

#[test]
fn images_are_found_by_the_names_that_people_write() {
    let decomposed = "cafe\u{301}.png";
    for (image, name) in [
        ("a.png", "a.png"),
        ("a.png", "images/a.png"),
        ("a.png", "./a.png"),
        ("a.png", "/home/me/images/a.png"),
        ("a.png", r"C:\images\a.png"),
        ("x/a.png", "a.png"),
        ("x/a.png", r"x\a.png"),
        ("x/a.png", "images/x/a.png"),
        ("a.png", "a"),
        ("a.png", "a.PNG"),
        ("A.PNG", "a.png"),
        ("a.png", "a.jpg"),
        ("john.smith.png", "john.smith"),
        ("a.png", "\"'a.png'\""),
        (decomposed, "café.png"),
        ("café.png", decomposed),
        (decomposed, "CAFÉ"),
    ] {
        let attributes = read(&[image, "other.png"], format!("image,Hat\n{name},1\nother.png,0\n"))
            .unwrap_or_else(|error| panic!("{name} for {image}: {error}"));
        let found = (0..2).filter(|&i| attributes.of(i) == [YES]).count();
        assert_eq!(found, 1, "{name} for {image}");
        assert!(attributes.notices().iter().all(|notice| !notice.contains("rows name no image")));
    }
}

#[test]
fn the_closest_name_matches_and_ties_match_nothing() {
    // An exact name takes precedence over a similar one.
    let attributes = read(&["a.png"], "image,Hat\na.jpg,0\nx/a.png,0\na.png,1\n").unwrap();
    assert_eq!(attributes.of(0), [YES]);
    assert!(attributes.notices()[0].starts_with("2 of 3 rows name no image, such as a.jpg"));
    // The path distinguishes two files of the same name.
    let attributes = read(&["x/a.png", "y/a.png"], "image,Hat\ndata/x/a.png,1\ndata/y/a.png,0\n").unwrap();
    assert_eq!([attributes.of(0), attributes.of(1)], [[YES], [NO]]);
    for (images, table, words) in [
        // One row for two images, and two rows for one.
        (
            &["x/a.png", "y/a.png"][..],
            "image,Hat\na.png,1\nx/a.png,1\n",
            "1 row matches several images, such as a.png (x/a.png or y/a.png); it is ignored",
        ),
        (&["a.png", "a.bmp.png"], "image,Hat\na.jpg,1\na.bmp.png,1\n", ""),
        (&["a.png", "b.png"], "image,Hat\nx/a.png,1\ny/a.png,1\nb.png,0\n", "x/a.png or y/a.png"),
        (
            &["a.png", "b.png"],
            "image,Hat\na.jpg,1\na.jpeg,1\nb.png,0\n",
            "1 image matches several rows, such as a.png (a.jpg or a.jpeg); it gets none",
        ),
    ] {
        let attributes = read(images, table).unwrap();
        let notices = attributes.notices().join("\n");
        assert!(notices.contains(words), "{words} is not in {notices}");
    }
    let attributes = read(&["a.png", "b.png"], "image,Hat\nx/a.png,1\ny/a.png,1\nb.png,0\n").unwrap();
    assert_eq!([attributes.of(0), attributes.of(1)], [[None], [NO]]);
}

#[test]
fn images_of_arrays_are_found_by_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.npy");
    let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (12, 1, 2), }\n";
    let front = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
    std::fs::write(&path, [front, (0..24).collect()].concat()).unwrap();
    let images = open(&path, &OpenOptions::default()).unwrap().train;
    let table = folder.path().join("table.csv");
    for text in [
        "index,Hat,Beard\n0,0,1\n1,1,0\n11,1,1\n",
        ",Hat,Beard\n0,0,1\n1,1,0\n11,1,1\n",
        "index,Hat,Beard\n0.0,0,1\n1.0,1,0\n11.0,1,1\n",
        "index;Hat;Beard\n00;0;1\n01;1;0\n11;1;1\n12;1;1\n",
    ] {
        std::fs::write(&table, text).unwrap();
        let attributes = Attributes::read(&table, &*images).unwrap();
        assert_eq!(attributes.names(), ["Hat", "Beard"], "{text}");
        assert_eq!([0, 1, 11].map(|i| attributes.of(i)), [[NO, YES], [YES, NO], [YES, YES]], "{text}");
        assert_eq!(attributes.of(5), [None, None]);
    }
}

#[test]
fn rows_and_images_without_partner_are_counted_and_named() {
    let names: Vec<String> = (0..6).map(|i| format!("{i:06}.png")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let rows = (0..6).map(|i| if i < 3 { format!("{i:06}.png,1\n") } else { format!("x{i:06}.png,0\n") });
    let attributes = read(&names, format!("image,Hat\n{}", rows.collect::<String>())).unwrap();
    assert_eq!(
        attributes.notices(),
        ["3 of 6 rows name no image, such as x000003.png; 3 of 6 images have no row, such as 000003.png"]
    );
    let attributes = read(&["a.png"], "image,Hat\na.png,1\n,1\n").unwrap();
    assert_eq!(attributes.notices(), ["1 of 2 rows name no image, such as line 3"]);
    assert!(read(&["a.png"], "image,Hat\na.png,1\n").unwrap().notices().is_empty());
}

#[test]
fn rows_of_one_image_are_united() {
    let table = "image,Hat,Beard,Smile\na.png,1,,0\na.png,1,0,1\nb.png,1,1,1\n";
    let attributes = read(&["a.png", "b.png"], table).unwrap();
    assert_eq!(attributes.of(0), [YES, NO, None], "the same, one of them unknown, contradictory");
    let notice = &attributes.notices()[0];
    assert!(notice.starts_with("1 image has contradictory rows, such as a.png;"), "{notice}");
}

#[test]
fn attributes_of_a_subset_are_those_of_its_images() {
    let attributes = read(&["a.png", "b.png", "c.png"], "image,Hat\na.png,1\nb.png,0\n").unwrap();
    let subset = attributes.of_subset(&[1, 2]);
    assert_eq!(
        (subset.names(), [subset.of(0), subset.of(1)]),
        (attributes.names(), [&[NO], &[None]].map(|x| &x[..]))
    );
}

#[test]
fn portraits_come_with_what_was_drawn() {
    let portraits = Portraits::new(5, 16, 3);
    let attributes = Attributes::of_portraits(&portraits);
    for image in 0..5 {
        let drawn = portraits.attributes(image);
        assert_eq!(attributes.names(), drawn.map(|(name, _)| name));
        assert_eq!(attributes.of(image), drawn.map(|(_, present)| Some(present)));
    }
}
