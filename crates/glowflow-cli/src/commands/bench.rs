//! `bench`: times of training steps and of sampling.

use std::io::{BufRead, Write};

use anyhow::{Context, bail};
use glowflow::Architecture;
use glowflow::bench::Bench;
use glowflow::train::RunConfig;
use serde_json::json;

use super::{check_given_once, print_json, say, tell};
use crate::{ExitCode, args};

pub fn bench(args: &args::Bench, common: &args::Common) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.repeat > 0, "--repeat must be at least 1, got 0");
    let options = [
        (args.backprop.is_some(), "--backprop", "train.backprop"),
        (args.precision.is_some(), "--precision", "train.precision"),
    ];
    check_given_once(&args.overrides, &options)?;
    let mut config = RunConfig::resolve(args.preset.as_deref(), args.config.as_deref(), &args.overrides)?;
    config.train.backprop = args.backprop.unwrap_or(config.train.backprop);
    let batch = config.train.batch;
    config.train.precision = args.precision.unwrap_or(config.train.precision);
    config.model.unread().iter().for_each(|notice| tell(notice));
    let mut bench = Bench::new(common.open(config.train.precision)?, config)?;
    if args.serve {
        for line in std::io::stdin().lock().lines() {
            let line = line.context("reading a request")?;
            let seconds = match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["train", count] => bench.train(count.parse().context("reading a count")?)?,
                ["sample", count] => bench.sample(count.parse().context("reading a count")?)?,
                _ => bail!("expected \"train N\" or \"sample N\", got {line:?}"),
            };
            print_json(&json!({ "seconds": seconds }))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.memory {
        bench.train(2)?;
        print_json(&serde_json::to_value(bench.memory())?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let median = |mut seconds: Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
    };
    bench.train(2)?;
    let (train, sample) = (median(bench.train(args.repeat)?), median(bench.sample(args.repeat)?));
    if common.json {
        print_json(&json!({ "train_step_seconds": train, "sample_batch_seconds": sample, "batch": batch }))?;
    } else {
        say!("training step  {:8.1} ms, {:8.1} images/s", 1e3 * train, batch as f64 / train);
        say!("sampling       {:8.1} ms, {:8.1} images/s", 1e3 * sample, batch as f64 / sample);
    }
    Ok(ExitCode::SUCCESS)
}
