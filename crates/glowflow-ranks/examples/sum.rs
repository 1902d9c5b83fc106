//! Sums vectors over the ranks of a job, and prints a hash of the results.
//!
//! ```console
//! $ mpirun -np 2 target/release/examples/sum --parts 8 --steps 3
//! rank 0: hash 2be87380b1c5ddcc
//! rank 1: hash 2be87380b1c5ddcc
//! ```
//!
//! The hash is the same for any valid number of ranks, and over any MPI. A rank that misses another prints
//! which one, and ends the job with exit code 75.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use glowflow_ranks::{
    Bucket, EXIT_CODE, Launcher, Mpi, Options, Ranks, RanksError, Tree, connect, parts_of, require_equal,
};

struct Arguments {
    /// Number of parts, which ranks share.
    parts: usize,
    /// Length of the vector.
    values: usize,
    /// Values of a bucket.
    bucket: usize,
    steps: u64,
    /// Limit of each wait, in seconds.
    limit: f64,
    /// Pause in each step, in milliseconds.
    pause: u64,
    /// Open MPI even in a process that is alone.
    always_mpi: bool,
    /// Rank whose pause has a hundred times the length, in one step.
    slow: Option<usize>,
    /// That step.
    slow_step: u64,
    /// Bytes that rank 0 broadcasts at the start.
    broadcast: usize,
    /// Sum the same values in each step, and print the median time of sums and gathers.
    time: bool,
    /// Folder for the files `process-RANK`, `hash-RANK` and `error-RANK`.
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let ranks = match start(&arguments) {
        Ok(ranks) => ranks,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    match run(&*ranks, &arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rank {}: {error}", ranks.rank());
            write(&arguments, "error", ranks.rank(), &error.to_string());
            if ranks.rank() != 0 {
                sleep(Duration::from_millis(500)); // rank 0 would save here
            }
            ranks.abort(EXIT_CODE);
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        parts: 8,
        values: 100_000,
        bucket: 30_000,
        steps: 3,
        limit: 30.0,
        pause: 0,
        always_mpi: false,
        slow: None,
        slow_step: 0,
        broadcast: 4,
        time: false,
        out: None,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--parts" => arguments.parts = number(&value()?)?,
            "--values" => arguments.values = number(&value()?)?,
            "--bucket" => arguments.bucket = number::<usize>(&value()?)?.max(1),
            "--steps" => arguments.steps = number(&value()?)?,
            "--limit" => arguments.limit = number(&value()?)?,
            "--pause" => arguments.pause = number(&value()?)?,
            "--slow" => arguments.slow = Some(number(&value()?)?),
            "--slow-step" => arguments.slow_step = number(&value()?)?,
            "--broadcast" => arguments.broadcast = number(&value()?)?,
            "--out" => arguments.out = Some(value()?.into()),
            "--always-mpi" => arguments.always_mpi = true,
            "--time" => arguments.time = true,
            _ => return Err(format!("unknown option {word}")),
        }
    }
    Ok(arguments)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}

fn start(arguments: &Arguments) -> Result<std::sync::Arc<dyn Ranks>, RanksError> {
    let options = Options { limit: Duration::from_secs_f64(arguments.limit) };
    if !arguments.always_mpi {
        return connect(&options);
    }
    let launcher = Launcher::detect(|name| std::env::var(name).ok())?;
    let job = Mpi::start(launcher.as_ref(), &options)?;
    let (rank, (local, neighbours)) = (job.rank(), job.local());
    let (host, library) = (&job.hosts()[rank], job.library());
    println!("rank {rank} of {} ({local} of {neighbours} on {host}): {library}", job.size());
    Ok(std::sync::Arc::new(job))
}

fn run(ranks: &dyn Ranks, arguments: &Arguments) -> Result<(), RanksError> {
    let (rank, size) = (ranks.rank(), ranks.size());
    write(arguments, "process", rank, &std::process::id().to_string());
    let mine = parts_of(rank, size, arguments.parts)?;
    require_equal(ranks, "number of values", &arguments.values.to_le_bytes())?;
    let mut state: Vec<u8> = match rank {
        0 => (0..arguments.broadcast).map(|i| (i / 3) as u8).collect(),
        _ => Vec::new(),
    };
    ranks.broadcast(&mut state)?;
    let mut hash = Hash::new();
    hash.add(&state);
    let add = |left: &mut Vec<f32>, right: Vec<f32>| {
        left.iter_mut().zip(right).for_each(|(left, right)| *left += right);
    };
    let mut times = [Vec::new(), Vec::new()];
    let mut total = Vec::new();
    for step in 0..arguments.steps {
        ranks.at(step);
        let is_slow = arguments.slow == Some(rank) && arguments.slow_step == step;
        let longer = if is_slow { 100 } else { 1 };
        sleep(Duration::from_millis(arguments.pause * longer));
        if step == 0 || !arguments.time {
            let mut tree = Tree::new();
            for part in mine.clone() {
                tree.push(gradient(part, step, arguments.values), add);
            }
            total = tree.finish(add).unwrap_or_default();
        }
        if arguments.time {
            ranks.gather(b"")?; // measure from a common start
        }
        let begin = Instant::now();
        // The end of the vector is ready first, as in a backward pass.
        let mut buckets = 0;
        for (i, values) in total.chunks(arguments.bucket).enumerate().rev() {
            ranks.start(Bucket { at: i * arguments.bucket, values: values.to_vec() });
            buckets += 1;
        }
        let sums = (0..buckets).map(|_| ranks.finished()).collect::<Result<Vec<_>, _>>()?;
        times[0].push(begin.elapsed());
        for bucket in sums {
            hash.add(&bucket.at.to_le_bytes());
            bucket.values.iter().for_each(|value| hash.add(&value.to_bits().to_le_bytes()));
        }
        // Messages of different lengths; concatenated, they are the same for any number of ranks.
        let likelihoods: Vec<u8> = mine.clone().flat_map(|part| vec![part as u8; 70 * part]).collect();
        if arguments.time {
            ranks.gather(b"")?;
        }
        let begin = Instant::now();
        let likelihoods = ranks.gather(&likelihoods)?;
        times[1].push(begin.elapsed());
        hash.add(&likelihoods.concat());
    }
    if arguments.time && rank == 0 {
        let [sum, gather] = times.map(median);
        println!("sum {:.2} ms, gather {:.3} ms", sum.as_secs_f64() * 1e3, gather.as_secs_f64() * 1e3);
    }
    println!("rank {rank}: hash {:016x}", hash.0);
    write(arguments, "hash", rank, &format!("{:016x}", hash.0));
    ranks.finish()
}

/// Returns a part of a vector, with magnitudes between 1e-5 and 1e5, for which the order of additions
/// matters.
fn gradient(part: usize, step: u64, values: usize) -> Vec<f32> {
    let mix = |number: u64, factor: u64| (number + 1).wrapping_mul(factor);
    let mut state = mix(part as u64, 0x9e37_79b9_7f4a_7c15) ^ mix(step, 0xd1b5_4a32_d192_ed03);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..values).map(|_| (next() - 0.5) * 10f32.powi((next() * 10.0) as i32 - 5)).collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn write(arguments: &Arguments, name: &str, rank: usize, text: &str) {
    if let Some(folder) = &arguments.out {
        let path = folder.join(format!("{name}-{rank}"));
        fs::write(&path, text).unwrap_or_else(|error| eprintln!("{}: {error}", path.display()));
    }
}

/// FNV-1a.
struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
