//! Damaged and hostile files yield an error or a model, never a panic, with memory proportional to the file.
//!
//! `GLOWFLOW_IMPORT_MUTATIONS` sets the number of mutated files, 300 by default.

#[path = "suite/common/mod.rs"]
mod common;

use std::io::{Cursor, Read};
use std::path::Path;

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

/// Peak memory of this process in bytes; `None` on systems without `/proc`.
fn peak_memory() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(1024 * line.split_whitespace().nth(1)?.parse::<usize>().ok()?)
}

#[test]
fn mutated_checkpoints_are_errors_or_models() {
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
}
