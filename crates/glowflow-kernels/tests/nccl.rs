//! Sums over several GPUs, which are emulated, as is NCCL. Ranks are threads with a GPU each.

#[path = "common/nccl.rs"]
mod emulated;

use std::sync::Arc;
use std::time::{Duration, Instant};

use emulated::{child, open};
use glowflow_kernels::{Communicator, Cuda, Device, DeviceError, Place, Repeated, Transport};
use glowflow_kernels::{Precision, cuda};

const LIMIT: Duration = Duration::from_secs(100);

fn transport(device: &Cuda) -> Arc<dyn Transport<Cuda>> {
    device.transport().unwrap().unwrap()
}

/// Calls `work` with every rank's device and connection, each in a thread. `None` if nothing can be emulated.
fn on_ranks<T: Send>(
    (size, group): (usize, usize),
    limit: Duration,
    work: impl Fn(usize, Cuda, Arc<dyn Communicator<Cuda>>) -> T + Sync,
) -> Option<Vec<T>> {
    let devices: Vec<Cuda> = (0..size).map(open).collect::<Option<_>>()?;
    let id = transport(&devices[0]).unique_id().unwrap();
    Some(std::thread::scope(|scope| {
        let (id, work) = (&id, &work);
        let start = |(rank, device): (usize, Cuda)| {
            scope.spawn(move || {
                let place = Place { rank, size, group };
                let communicator = transport(&device).connect(&device, id, place, limit).unwrap();
                work(rank, device, communicator)
            })
        };
        let threads: Vec<_> = devices.into_iter().enumerate().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }))
}

fn values(rank: usize, run: usize, len: usize) -> Vec<f32> {
    let value = |i: usize| ((rank * 7919 + run * 31 + i) as f32 * 0.7).sin() * 10f32.powi(i as i32 % 7);
    (0..len).map(value).collect()
}

/// `((p₀ + p₁) + (p₂ + p₃)) + …`.
fn tree(parts: &[f32]) -> f32 {
    match parts.len() {
        1 => parts[0],
        count => {
            let (left, right) = parts.split_at(count.next_power_of_two() / 2);
            tree(left) + tree(right)
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
#[ignore = "a child of other tests"]
fn sums_of_ranks() {
    // More numbers than are under way at once between two ranks.
    const LEN: usize = 100_003;
    for (size, group) in [(1, 1), (2, 2), (4, 2), (3, 3), (4, 1), (4, 4)] {
        let runs = 4;
        let summed = on_ranks((size, group), LIMIT, |rank, device, communicator| {
            let (mut x, mut gradient) = (device.scratch(LEN), device.scratch(LEN));
            let mut repeated = Repeated::new();
            let mut results = vec![];
            for run in 0..runs {
                device.write(&mut x, 0, &values(rank, run, LEN));
                let (x, gradient) = (&x, &mut gradient);
                let result = repeated.run(&device, |device: &Cuda| {
                    device.copy(x, gradient);
                    // In two slices, of which one is short.
                    communicator.sum(device, gradient, 5..LEN);
                    communicator.sum(device, gradient, 0..5);
                    communicator.join(device);
                    device.copied(gradient, LEN)
                });
                communicator.wait(&device).unwrap();
                results.push(device.download(result).unwrap());
            }
            // Captures of sums go before the connection does.
            drop(repeated);
            results
        });
        let Some(summed) = summed else { return };
        for run in 0..runs {
            let parts: Vec<Vec<f32>> = (0..size).map(|rank| values(rank, run, LEN)).collect();
            let sum = |i: usize| tree(&parts.iter().map(|part| part[i]).collect::<Vec<_>>());
            let want: Vec<f32> = (0..LEN).map(sum).collect();
            for (rank, results) in summed.iter().enumerate() {
                let what = format!("{size} ranks in groups of {group}, rank {rank}, run {run}");
                assert!(bits(&results[run]) == bits(&want), "{what}");
            }
        }
    }
}

#[test]
fn sums_have_the_bits_of_the_tree() {
    child("sums_of_ranks", &[]);
}

/// Nothing is done before someone waits for it, which shows missing waits between streams.
#[test]
fn sums_wait_for_what_they_need() {
    child("sums_of_ranks", &[("CUDA_EMULATOR_LAZY", "1")]);
}

/// Sums twice, of which the second fails on both ranks; the devices work on.
#[test]
#[ignore = "a child of other tests"]
fn failing_sums() {
    let limit = Duration::from_millis(1500);
    let errors = on_ranks((2, 2), limit, |rank, device, communicator| {
        let weights = device.upload(&[1.0, 2.0]);
        let mut gradient = device.upload(&values(rank, 0, 64));
        communicator.sum(&device, &mut gradient, 0..64);
        communicator.join(&device);
        communicator.wait(&device).unwrap();

        let begin = Instant::now();
        communicator.sum(&device, &mut gradient, 0..64);
        communicator.join(&device);
        let error = communicator.wait(&device).unwrap_err();
        assert!(begin.elapsed() < Duration::from_secs(20), "{error}");
        assert_eq!(device.download(&weights).unwrap(), [1.0, 2.0]);
        // Nothing more is summed, and the failure stays.
        communicator.sum(&device, &mut gradient, 0..64);
        communicator.join(&device);
        assert_eq!(communicator.wait(&device).unwrap_err().to_string(), error.to_string());
        assert_eq!(device.download(&weights).unwrap(), [1.0, 2.0]);
        assert!(matches!(error, DeviceError::Failed { .. }), "{error:?}");
        error.to_string()
    });
    let Some(errors) = errors else { return };
    let late = "a sum over GPUs was not complete after 1.5 s";
    let remote = "remote process exited or there was a network error";
    let reported = std::env::var_os("NCCL_EMULATOR_ERROR").is_some();
    assert!(errors[0].contains(late), "{}", errors[0]);
    assert!(errors[1].contains(if reported { remote } else { late }), "{}", errors[1]);
}

#[test]
fn a_silent_rank_ends_sums_after_the_limit() {
    // Each sum has two groups of transfers: the third is the first of the second sum.
    child("failing_sums", &[("NCCL_EMULATOR_SILENT", "1:3")]);
}

#[test]
fn an_error_of_the_network_ends_sums() {
    child("failing_sums", &[("NCCL_EMULATOR_ERROR", "1:3")]);
}

#[test]
#[ignore = "a child of other tests"]
fn ranks_that_cannot_connect() {
    let Some(device) = open(0) else { return };
    let id = transport(&device).unique_id().unwrap();
    let connect = |rank, limit| {
        let place = Place { rank, size: 2, group: 2 };
        transport(&device).connect(&device, &id, place, limit).err().unwrap().to_string()
    };
    // Both have the same GPU.
    let errors = std::thread::scope(|scope| {
        let other = scope.spawn(|| connect(1, LIMIT));
        [connect(0, LIMIT), other.join().unwrap()]
    });
    for error in errors {
        assert!(error.contains("invalid usage"), "{error}");
    }
    // The other does not come.
    let alone = transport(&device);
    let id = alone.unique_id().unwrap();
    let place = Place { rank: 0, size: 2, group: 1 };
    let error = alone.connect(&device, &id, place, Duration::from_millis(300)).err().unwrap().to_string();
    assert!(error.contains("connecting the GPUs was not complete after 0.3 s"), "{error}");
    let error = alone.connect(&device, &id[1..], place, LIMIT).err().unwrap().to_string();
    assert!(error.contains("127 bytes"), "{error}");
}

#[test]
fn ranks_that_cannot_connect_get_the_reason() {
    child("ranks_that_cannot_connect", &[]);
}

#[test]
#[ignore = "a child of another test"]
fn nccl_that_cannot_be_used() {
    let Some(device) = open(0) else { return };
    match device.transport() {
        Err(error) => {
            assert!(matches!(&error, DeviceError::Unavailable { .. }), "{error:?}");
            let words = error.to_string();
            let old = words.contains("NCCL 2.13.4 is too old") && words.contains("2.14.0 or newer");
            assert!(old || words.contains("it must be off"), "{words}");
        }
        Ok(found) => assert!(found.is_none()),
    }
}

#[test]
fn nccl_may_be_old_or_unwanted() {
    child("nccl_that_cannot_be_used", &[("NCCL_EMULATOR_VERSION", "21304")]);
    child("nccl_that_cannot_be_used", &[(cuda::NCCL, "off")]);
    child("nccl_that_cannot_be_used", &[(cuda::NCCL, "on")]);
}

/// With a GPU and NCCL of this machine, a rank alone sends to itself.
#[test]
fn a_rank_alone_gets_its_own_numbers_from_nccl() {
    const LEN: usize = 10_000;
    let Ok(device) = Cuda::new(0, Precision::F32) else {
        eprintln!("skipped: this machine has no GPU");
        return;
    };
    let transport = match device.transport() {
        Ok(Some(transport)) => transport,
        Ok(None) => return,
        Err(error) => {
            eprintln!("skipped: {error}");
            return;
        }
    };
    println!("{}", transport.name());
    let place = Place { rank: 0, size: 1, group: 1 };
    let id = transport.unique_id().unwrap();
    let communicator = transport.connect(&device, &id, place, LIMIT).unwrap();
    let (mut x, mut gradient) = (device.scratch(LEN), device.scratch(LEN));
    let mut repeated = Repeated::new();
    for run in 0..4 {
        device.write(&mut x, 0, &values(0, run, LEN));
        let (x, gradient) = (&x, &mut gradient);
        let result = repeated.run(&device, |device: &Cuda| {
            device.copy(x, gradient);
            communicator.sum(device, gradient, 0..LEN);
            communicator.join(device);
            device.copied(gradient, LEN)
        });
        communicator.wait(&device).unwrap();
        assert!(bits(&device.download(result).unwrap()) == bits(&values(0, run, LEN)), "run {run}");
    }
    drop(repeated);
}
