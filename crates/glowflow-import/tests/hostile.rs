//! Damaged and hostile files yield an error or a model, never a panic, with memory proportional to the file.
//!
//! `GLOWFLOW_IMPORT_MUTATIONS` sets the number of mutated files, 300 by default.

#[path = "suite/common/mod.rs"]
mod common;

use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use common::torch::{Pickle, archive, packed};
use common::{FIXTURES, fixture, settings};
use glowflow_import::{Checkpoint, Source, import};
use zip::{CompressionMethod, ZipArchive};

/// Random numbers (xorshift64*), the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end.max(1) as u64) as usize
    }
}

/// Mutates `bytes`, usually within the first `head` bytes.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>, head: usize) {
    for _ in 0..1 + random.below(4) {
        let within = if random.below(4) > 0 { head.min(bytes.len()) } else { bytes.len() };
        let at = random.below(within);
        match random.below(8) {
            0 => bytes.truncate(at),
            1 => {
                let end = (at + 1 + random.below(64)).min(bytes.len());
                bytes.drain(at..end);
            }
            2 => {
                let end = (at + 1 + random.below(64)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            3 => {
                let end = (at + 1 + random.below(8)).min(bytes.len());
                bytes[at..end].fill([0, 0xff][random.below(2)]);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = if random.below(2) == 0 {
                        *byte ^ (1 << random.below(8))
                    } else {
                        random.below(256) as u8
                    };
                }
            }
        }
    }
}

/// The zip archive with a mutated pickle and matching checksums.
fn with_mutated_pickle(random: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let mut zip = ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut entries: Vec<(String, Vec<u8>)> = vec![];
    for index in 0..zip.len() {
        let mut file = zip.by_index(index).unwrap();
        let name = zip_name(&mut file);
        let mut contents = vec![];
        file.read_to_end(&mut contents).unwrap();
        if name.ends_with("data.pkl") {
            let head = contents.len();
            mutate(random, &mut contents, head);
        }
        entries.push((name, contents));
    }
    let entries: Vec<_> =
        entries.iter().map(|(name, contents)| (name.as_str(), contents.as_slice())).collect();
    archive(&entries)
}

fn zip_name<R: Read>(file: &mut zip::read::ZipFile<'_, R>) -> String {
    file.name().map(|name| name.into_owned()).unwrap_or_default()
}

/// Held by the tests that measure the memory of this process.
static MEASURING: Mutex<()> = Mutex::new(());

/// Peak memory of this process in bytes; `None` on systems without `/proc`.
fn peak_memory() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(1024 * line.split_whitespace().nth(1)?.parse::<usize>().ok()?)
}

#[test]
fn mutated_checkpoints_are_errors_or_models() {
    let _measuring = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    let count = std::env::var("GLOWFLOW_IMPORT_MUTATIONS").ok().map_or(300, |count| count.parse().unwrap());
    let mut files = vec![];
    for (source, folder, names) in FIXTURES {
        let Some(folder) = fixture(folder) else { return };
        files.extend(names.iter().map(|name| (source, std::fs::read(folder.join(name)).unwrap())));
    }
    let largest = files.iter().map(|(_, bytes)| bytes.len()).max().unwrap();
    let before = peak_memory();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let mut random = Random(1);
    let mut models = 0;
    for number in 0..count {
        let (source, bytes) = &files[number % files.len()];
        let is_torch = bytes.starts_with(b"PK") && *source != Source::Openai;
        let bytes = if is_torch && random.below(2) == 0 {
            with_mutated_pickle(&mut random, bytes)
        } else {
            let mut bytes = bytes.clone();
            mutate(&mut random, &mut bytes, 16 << 10);
            bytes
        };
        std::fs::write(&path, bytes).unwrap();
        let imported = Checkpoint::read(&path).and_then(|file| import(file, *source, &settings(*source)));
        match imported.and_then(|imported| imported.model()) {
            Ok(model) => {
                assert!(model.weights.iter().all(|x| x.is_finite()));
                model.config.validate().unwrap();
                models += 1;
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    assert!(models > 0 && models < count, "{models} of {count}");
    if let (Some(before), Some(after)) = (before, peak_memory()) {
        let grown = after - before;
        assert!(grown < 64 * largest + (128 << 20), "{grown} bytes for files of {largest}");
    }
}

fn read(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    std::fs::write(&path, bytes).unwrap();
    Checkpoint::read(&path).unwrap_err().to_string()
}

/// A state dictionary with one tensor of this shape and these strides, on a storage of `len` numbers.
fn one_tensor(len: usize, offset: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let mut pickle = Pickle::default();
    pickle
        .raw(b"\x80\x02}")
        .text("w")
        .global("torch._utils", "_rebuild_tensor_v2")
        .raw(b"((")
        .text("storage");
    pickle.global("torch", "FloatStorage").text("0").text("cpu").int(len).raw(b"tQ");
    pickle.int(offset).ints(shape).ints(strides).raw(b"\x89NtRs");
    pickle.into_bytes()
}

#[test]
fn nothing_but_tensors_is_accepted() {
    let run = |pickle: &[u8]| read(&archive(&[("a/data.pkl", pickle)]));
    for (pickle, part) in [
        (&b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R."[..], "os.system"),
        (b"\x80\x02cbuiltins\neval\nX\x01\0\0\x001\x85R.", "builtins.eval"),
        (b"\x80\x02ctorch.nn.modules.conv\nConv2d\n)\x81.", "torch.nn.modules.conv.Conv2d"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "posix.system"),
        (b"\x80\x02N.", "does not hold a state dictionary"),
        (b"\x80\x02}.", "state_dict"),
        (b"(lp0\n.", "instruction"),
    ] {
        let error = run(pickle);
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(read(b"PK\x03\x04 and nothing more").contains("zip"));
    assert!(read(b"").contains("neither"));
    assert!(read(&archive(&[("a/constants.pkl", b""), ("a/data.pkl", b"N.")])).contains("TorchScript"));
    assert!(read(&archive(&[("a/byteorder", b"big"), ("a/data.pkl", b"N.")])).contains("byte order"));
}

#[test]
fn views_beyond_a_storage_are_errors() {
    let numbers = [0; 24];
    for (len, offset, shape, strides) in [
        (6, 0, &[7][..], &[1][..]),
        (6, 1, &[6], &[1]),
        (7, 0, &[7], &[1]),
        (6, 0, &[1 << 30, 1 << 30], &[0, 0]),
        (6, 0, &[1 << 30], &[0]),
        (1 << 30, 0, &[1 << 30], &[1]),
    ] {
        let pickle = one_tensor(len, offset, shape, strides);
        let error = read(&archive(&[("a/data.pkl", &pickle), ("a/data/0", &numbers)]));
        assert!(error.contains("w: "), "{error}");
    }
    let pickle = one_tensor(6, 0, &[6], &[1]);
    assert!(read(&archive(&[("a/data.pkl", &pickle)])).contains("no entry a/data/0"));
}

/// Memory and time of a small pickle stay small, however often it refers to a list or a text.
#[test]
fn pickles_that_multiply_their_contents_are_errors() {
    let _measuring = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    let before = peak_memory();
    // A shape, the items of a dictionary and the key of a storage, of a million entries or bytes each; each is
    // used a hundred thousand times.
    let million = 1 << 20;
    let uses = 100_000;
    let ones = || [b"(".as_slice(), &b"K\x01".repeat(million), b"tq\x00"].concat();

    let mut shapes = b"\x80\x02}X\x01\0\0\0w".to_vec();
    shapes.extend(b"ctorch._utils\n_rebuild_tensor_v2\nq\x01");
    shapes.extend(b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06tQq\x02");
    shapes.extend(ones());
    shapes.extend(b"h\x01(h\x02K\x00h\x00h\x00\x89NtR".repeat(uses));

    let mut pairs = b"\x80\x02ccollections\nOrderedDict\nq\x01".to_vec();
    pairs.extend([b"]q\x00(".as_slice(), &b"NN\x86".repeat(million), b"e"].concat());
    pairs.extend(b"h\x01h\x00\x85R".repeat(uses));

    let mut keys = b"\x80\x02ctorch\nFloatStorage\nq\x01X\x07\0\0\0storageq\x02".to_vec();
    keys.extend([b"X\0\0\x10\0".as_slice(), &b"k".repeat(million), b"q\x00"].concat());
    keys.extend(b"(h\x02h\x01h\x00NK\x01tQ".repeat(uses));

    for (pickle, part) in [(shapes, "up to 8"), (pairs, "share"), (keys, "1048576 bytes")] {
        let error = read(&archive(&[("a/data.pkl", &pickle)]));
        assert!(error.contains(part), "{part}: {error}");
    }

    // A key in an error is shortened, and shown once.
    let mut keys = [b"\x80\x02}X\0\0\x10\0".as_slice(), &b"\x01".repeat(million), b"q\x00Ns"].concat();
    keys.extend(b"h\x00Ns".repeat(20));
    keys.push(b'.');
    assert!(read(&archive(&[("a/data.pkl", &keys)])).len() < 2000);

    // The keys of values other than tensors are listed once.
    let mut names = one_tensor(1, 0, &[1], &[1]);
    assert_eq!(names.pop(), Some(b'.'));
    names.extend([b"X\0\0\x10\0".as_slice(), &b"n".repeat(million), b"q\xffNs"].concat());
    names.extend(b"h\xffNs".repeat(uses));
    names.push(b'.');
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("names.pt");
    std::fs::write(&path, archive(&[("a/data.pkl", &names), ("a/data/0", &[0; 4])])).unwrap();
    assert!(Checkpoint::read(&path).unwrap().ignored == ["n".repeat(million)]);

    if let (Some(before), Some(after)) = (before, peak_memory()) {
        assert!(after - before < 1 << 30, "{} bytes", after - before);
    }
}

#[test]
fn archives_that_unpack_to_much_more_are_errors() {
    let pickle = one_tensor(1 << 24, 0, &[1 << 24], &[1]);
    let zeros = vec![0; 4 << 24];
    let bytes = packed(&[("a/data.pkl", &pickle), ("a/data/0", &zeros)], CompressionMethod::Deflated);
    assert!(bytes.len() < 1 << 20);
    assert!(read(&bytes).contains("64 times"));
}

#[test]
fn folders_and_missing_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let error = |path: &Path| Checkpoint::read(path).unwrap_err().to_string();
    assert!(error(folder.path()).contains("is a folder"));
    assert!(error(&folder.path().join("none.pt")).contains("none.pt"));
    let tensorflow = folder.path().join("model_best_loss.ckpt.data-00000-of-00001");
    std::fs::write(&tensorflow, [0; 64]).unwrap();
    assert!(error(&tensorflow).contains("saved as .npz"));
    // Sparse files of a terabyte: a film, a disk image, and a header as long as the file.
    let huge = folder.path().join("huge.pt");
    for head in [&b"\0\0\0\x20ftypisom"[..], &[0; 16], b"\0\0\0\0\x80\0\0\0{}"] {
        std::fs::write(&huge, head).unwrap();
        std::fs::OpenOptions::new().write(true).open(&huge).unwrap().set_len(1 << 40).unwrap();
        assert!(error(&huge).contains("neither"));
    }
}
