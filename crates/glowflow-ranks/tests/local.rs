//! Ranks as threads of one process: sums, messages and failures without MPI.

use std::thread;
use std::time::{Duration, Instant};

use glowflow_ranks::{
    Absent, Alone, Bucket, EXIT_CODE, Local, Ranks, RanksError, Tree, parts_of, require_equal, sum,
};

const LIMIT: Duration = Duration::from_secs(20);

/// Runs `body` on each rank of a job, and returns the results in the order of ranks.
fn job<T: Send>(size: usize, limit: Duration, body: impl Fn(&dyn Ranks) -> T + Sync) -> Vec<T> {
    let ranks = Local::job(size, limit);
    thread::scope(|scope| {
        let threads: Vec<_> = ranks
            .iter()
            .map(|rank| {
                let body = &body;
                scope.spawn(move || body(rank))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Values of very different magnitudes, so that the order of additions affects the bits.
fn part(number: usize) -> Vec<f32> {
    (0..1000).map(|i| ((number * 1000 + i) as f32).sin() * 10f32.powi((i + number) as i32 % 9 - 4)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The sum over all parts, computed by the ranks.
fn sum_over(size: usize, parts: usize) -> Vec<Vec<u32>> {
    job(size, LIMIT, |ranks| {
        let add =
            |left: &mut Vec<f32>, right: Vec<f32>| left.iter_mut().zip(right).for_each(|(l, r)| *l += r);
        let mut tree = Tree::new();
        parts_of(ranks.rank(), size, parts).unwrap().for_each(|number| tree.push(part(number), add));
        ranks.start(Bucket { at: 0, values: tree.finish(add).unwrap() });
        bits(&ranks.finished().unwrap().values)
    })
}

#[test]
fn sums_have_the_same_bits_on_any_number_of_ranks() {
    for (parts, sizes) in [(8, &[1, 2, 4, 8][..]), (12, &[3, 6, 12]), (7, &[7]), (1, &[1])] {
        let want = bits(&sum((0..parts).map(part)));
        for &size in sizes {
            for (rank, got) in sum_over(size, parts).into_iter().enumerate() {
                assert_eq!(got, want, "{parts} parts on {size} ranks, rank {rank}");
            }
        }
    }
}

#[test]
fn the_order_of_additions_matters_for_these_parts() {
    let in_a_row =
        (1..8).fold(part(0), |sum, number| sum.iter().zip(part(number)).map(|(a, b)| a + b).collect());
    assert_ne!(bits(&in_a_row), bits(&sum((0..8).map(part))));
}

#[test]
fn nan_of_one_rank_is_in_the_sum_of_all() {
    let sums = job(4, LIMIT, |ranks| {
        let value = if ranks.rank() == 2 { f32::NAN } else { 1.0 };
        ranks.start(Bucket { at: 0, values: vec![1.0, value] });
        ranks.finished().unwrap().values
    });
    assert!(sums.iter().all(|sum| sum[0] == 4.0 && sum[1].is_nan()), "{sums:?}");
}

#[test]
fn buckets_return_in_the_order_of_their_start() {
    let lengths = [5, 0, 1, 1000, 3];
    let received = job(3, LIMIT, |ranks| {
        for (at, &length) in lengths.iter().enumerate() {
            ranks.start(Bucket { at, values: vec![at as f32; length] });
        }
        // Other operations are allowed while sums are in flight.
        assert_eq!(ranks.gather(&[ranks.rank() as u8]).unwrap(), [[0], [1], [2]]);
        lengths.map(|_| ranks.finished().unwrap())
    });
    for buckets in received {
        for (at, bucket) in buckets.into_iter().enumerate() {
            assert_eq!(bucket, Bucket { at, values: vec![3.0 * at as f32; lengths[at]] });
        }
    }
}

#[test]
fn messages_have_any_length() {
    job(3, LIMIT, |ranks| {
        let rank = ranks.rank();
        assert_eq!(
            ranks.gather(&vec![rank as u8; rank * 300]).unwrap(),
            [vec![], vec![1; 300], vec![2; 600]]
        );
        let mut bytes = if rank == 0 { vec![7; 100] } else { vec![1, 2] };
        ranks.broadcast(&mut bytes).unwrap();
        assert_eq!(bytes, [7; 100]);
        ranks.finish().unwrap();
    });
}

#[test]
fn a_missing_rank_is_named_within_the_limit() {
    let limit = Duration::from_millis(300);
    let begin = Instant::now();
    let errors = job(3, limit, |ranks| {
        ranks.at(4 + ranks.rank() as u64);
        (ranks.rank() != 1).then(|| ranks.gather(b"here").unwrap_err())
    });
    assert!(begin.elapsed() >= limit && begin.elapsed() < limit + LIMIT);
    let ranks = vec![Absent { rank: 1, host: String::new(), step: Some(5) }];
    let missing = |step| RanksError::Missing { waited: limit, step, ranks: ranks.clone() };
    assert_eq!(errors, [Some(missing(4)), None, Some(missing(6))]);
}

#[test]
fn a_sum_without_a_rank_is_an_error() {
    let errors = job(2, Duration::from_millis(100), |ranks| {
        (ranks.rank() == 0).then(|| {
            ranks.start(Bucket::default());
            ranks.finished().unwrap_err()
        })
    });
    assert!(matches!(&errors[0], Some(RanksError::Missing { ranks, .. }) if ranks[0].rank == 1));
}

#[test]
fn an_aborted_job_ends_on_all_ranks() {
    let errors = job(2, LIMIT, |ranks| {
        if ranks.rank() == 1 {
            ranks.abort(EXIT_CODE);
            return None;
        }
        ranks.finish().err()
    });
    assert_eq!(errors[0], Some(RanksError::Engine("rank 1 ended the job".into())));
}

#[test]
fn unlike_values_are_refused_on_all_ranks() {
    let results = job(4, LIMIT, |ranks| {
        require_equal(ranks, "version of glowflow", b"0.1.0").unwrap();
        require_equal(ranks, "data", &[ranks.rank() as u8 / 2])
    });
    assert!(results.iter().all(|result| *result == Err(RanksError::Unlike { what: "data", rank: 2 })));
}

#[test]
fn incorrect_use_is_an_error() {
    let errors = job(2, LIMIT, |ranks| {
        ranks.start(Bucket { at: 0, values: vec![0.0; 1 + ranks.rank()] });
        let unlike = ranks.finished().unwrap_err();
        assert!(ranks.finished().unwrap_err().to_string().contains("no bucket was started"));
        let mixed = if ranks.rank() == 0 { ranks.gather(b"").map(|_| ()) } else { ranks.finish() };
        (unlike, mixed.unwrap_err().to_string())
    });
    assert_eq!(errors[0].0, RanksError::Unlike { what: "bucket", rank: 1 });
    assert_eq!(errors[0].1, "rank 0 calls gather but rank 1 calls finish");
}

#[test]
fn a_process_alone_gets_its_own_values() {
    let alone = Alone::new();
    alone.start(Bucket { at: 3, values: vec![1.0] });
    alone.start(Bucket { at: 0, values: vec![f32::NAN] });
    assert_eq!(alone.finished().unwrap(), Bucket { at: 3, values: vec![1.0] });
    assert!(alone.finished().unwrap().values[0].is_nan());
    assert!(alone.finished().is_err());
    assert_eq!((alone.rank(), alone.size(), alone.local()), (0, 1, (0, 1)));
    assert_eq!(alone.gather(b"a").unwrap(), [b"a"]);
    alone.finish().unwrap();
}
