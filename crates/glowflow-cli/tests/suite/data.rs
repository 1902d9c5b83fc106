//! Data folders as users have them, from the command line.

use std::path::PathBuf;
use std::sync::LazyLock;

use crate::common::{TINY, command, outcome, read_image, run, save_image, shared_folder};

/// A folder with a model in `run`, trained for one step.
static WORLD: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = shared_folder("data");
    for i in 0..8 {
        save_image(&folder.join(format!("images/{i}.png")), i);
    }
    run(&folder, &format!("train --data images --out run --steps 1 {TINY}")).ok();
    folder
});

fn score_names(stdout: &str) -> Vec<&str> {
    stdout.lines().skip(1).filter_map(|line| line.split(',').next()).collect()
}

#[test]
fn files_left_out_and_splits_are_reported() {
    let folder = WORLD.join("mixed");
    for i in 0..3 {
        save_image(&folder.join(format!("train/{i}.png")), i);
    }
    save_image(&folder.join("test/4.png"), 4);
    std::fs::write(folder.join("test/IMG_1.HEIC"), b"\0\0\0\x18ftypheic").unwrap();
    std::fs::write(WORLD.join("mixed.csv"), "image,Even\n0.png,1\n1.png,0\n2.png,1\n").unwrap();
    for line in ["score --model run --data mixed", "eval --model run --data mixed"] {
        let outcome = run(&WORLD, line).ok();
        assert!(outcome.stderr.contains("train (3 images) is the training set"), "{outcome:?}");
        let used = "using the test set (1 image); the training set (3 images) is not used";
        assert!(outcome.stderr.contains(used), "{outcome:?}");
        assert!(outcome.stderr.contains("1 HEIC image, such as test/IMG_1.HEIC"), "{outcome:?}");
    }
    let scores = run(&WORLD, "score --model run --data mixed").ok();
    assert_eq!(score_names(&scores.stdout), ["test/4.png"]);
    let outcome = run(&WORLD, "attributes --model run --data mixed --labels mixed.csv");
    assert!(outcome.stderr.contains("HEIC"), "{outcome:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn any_name_can_be_encoded_and_decoded() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let folder = WORLD.join("names");
    let long = [&[b'x'; 251][..], b".png"].concat();
    let latin: Vec<u8> = [&[0xE9; 251][..], b".png"].concat();
    let names: [&[u8]; 8] = [&long, &latin, b"\xe8.png", b"\xe9.png", b"a.png", b"A.png", b"a", b"a\nb.png"];
    for (name, seed) in names.iter().zip(0..) {
        save_image(&WORLD.join("image.png"), seed);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::rename(WORLD.join("image.png"), folder.join(OsStr::from_bytes(name))).unwrap();
    }
    run(&WORLD, "encode --model run --data names --out names.latents").ok();
    let outcome = run(&WORLD, "decode --model run --latents names.latents --out-dir names-out").ok();
    assert!(outcome.stdout.contains("8 images"), "{outcome:?}");
    let written: Vec<_> = std::fs::read_dir(WORLD.join("names-out")).unwrap().collect();
    assert_eq!(written.len(), 8);
    let decoded = read_image(&WORLD.join(r"names-out/\xe9.png"));
    let original = std::fs::read(folder.join(OsStr::from_bytes(b"\xe9.png"))).unwrap();
    assert_eq!(decoded, image::load_from_memory(&original).unwrap().to_rgb8());
}

/// With fewer open files than the loader threads request at once, images are read slightly later, and none is
/// reported as broken.
#[test]
#[cfg(target_os = "linux")]
fn a_shortage_of_open_files_does_not_break_images() {
    let program = command(&WORLD, "").get_program().to_owned();
    for limit in 4..7 {
        let mut shell = std::process::Command::new("sh");
        shell
            .current_dir(&*WORLD)
            .arg("-c")
            .arg(format!("ulimit -n {limit}; exec \"$0\" --device cpu score --model run --data images"));
        shell.arg(&program);
        let outcome = outcome(shell);
        let names = score_names(&outcome.stdout);
        // Either the command succeeds, or its message names the shortage.
        let whole = names.len() == 8 && !outcome.stderr.contains("skipped");
        let refused = outcome.code == Some(1) && outcome.stderr.contains("Too many open files");
        assert!(whole || refused, "{limit}: {outcome:?}");
        assert!(limit < 6 || whole, "{limit}: {outcome:?}");
    }
}
