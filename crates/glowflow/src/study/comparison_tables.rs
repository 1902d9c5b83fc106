//! The comparison as a CSV file and as tables in Markdown.

use super::comparison::{Arm, Comparison};
use super::curve::Multiplier;
use super::summary::grouped;
use crate::{Draws, NoiseKind};

/// Relative difference between the speeds of the calibration and of the runs at which the tables mention it.
const DRIFT: f64 = 0.1;

const NONE: &str = "–";

/// One row per configuration.
pub fn csv(comparison: &Comparison) -> String {
    let mut csv = String::from(
        "configuration,bound,bits_per_dim,standard_error,seeds,difference,difference_error_over_images,\
         difference_error_over_seeds,time_multiplier,flops_multiplier,images_per_second,seconds,training_flops,\
         inverse_error,inverted,exact,peak_memory,variational_bits_per_dim,variational_standard_error\n",
    );
    for arm in &comparison.configurations {
        let paired = arm.difference;
        let fields = [
            // Names of configurations need no quotes.
            arm.configuration.clone(),
            text(arm.label.as_ref()),
            text(arm.bits_per_dim),
            text(arm.standard_error),
            arm.seeds.to_string(),
            text(paired.map(|paired| paired.mean)),
            text(paired.and_then(|paired| paired.error_over_images)),
            text(paired.and_then(|paired| paired.error_over_seeds)),
            text(arm.time_multiplier.map(exact)),
            text(arm.flops_multiplier.map(exact)),
            text(arm.images_per_second),
            text(arm.seconds),
            text(arm.training_flops),
            text(arm.inverse_error),
            arm.inverted.to_string(),
            arm.exact.to_string(),
            text(arm.peak_memory),
            text(arm.variational_bits_per_dim),
            text(arm.variational_standard_error),
        ];
        csv.push_str(&fields.join(","));
        csv.push('\n');
    }
    csv
}

/// All digits of a multiplier, prefixed with its relation.
fn exact(multiplier: Multiplier) -> String {
    match multiplier {
        Multiplier::Equal(times) => times.to_string(),
        Multiplier::Above(times) => format!(">{times}"),
        Multiplier::Below(times) => format!("<{times}"),
    }
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

/// The tables, with an explanation of their columns.
pub fn markdown(comparison: &Comparison) -> String {
    let Some(baseline) = comparison.configurations.first() else { return String::new() };
    let name = &baseline.configuration;
    let images = comparison
        .images
        .map_or(String::new(), |images| format!(" of {} held-out images", grouped(images as u128)));
    let label = baseline.label.as_deref().unwrap_or("bits/dim");
    let mut lines = vec![
        format!("## Compared with {name}"),
        String::new(),
        format!(
            "Bits/dim: {label}{images}, with averaged weights and one noise seed for all; mean ± standard error over seeds. \
             Difference: paired by image with the run of {name} with the same seed, ± standard error over images, and \
             over seeds. Multiplier: the training that {name} needs for the same bits/dim, divided by the \
             configuration's own, read off the curve below at equal time and at equal counted floating-point \
             operations, with its range at one standard error over seeds. Nothing is extrapolated."
        ),
        String::new(),
        "| configuration | bits/dim | seeds | difference | × time | × FLOPs | images/s | training FLOPs | inverse error | exact | peak memory |".into(),
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |".into(),
    ];
    lines.extend(comparison.configurations.iter().map(|arm| row(arm, baseline)));
    lines.extend([
        String::new(),
        format!("| {name} trained for | minutes | FLOPs | bits/dim | seeds |"),
        "| ---: | ---: | ---: | ---: | ---: |".into(),
    ]);
    for point in &comparison.curve {
        let (minutes, flops) = (point.seconds / 60.0, point.training_flops);
        let (bits, seeds) = (point.bits_per_dim, point.seeds);
        lines.push(format!("| × {} | {minutes:.2} | {flops:.2e} | {bits:.4} | {seeds} |", point.multiple));
    }
    lines.push(String::new());
    lines.extend(comparison.configurations.iter().filter_map(variational));
    lines.extend(comparison.configurations.iter().filter_map(drift));
    lines.join("\n")
}

fn row(arm: &Arm, baseline: &Arm) -> String {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    let plus_minus = |error: Option<f64>| error.map_or(String::new(), |error| format!(" ± {error:.4}"));
    let other = arm.label.as_ref().filter(|label| baseline.label.as_ref() != Some(label));
    let other = other.map_or(String::new(), |label| format!(", {label}"));
    let bits = arm.bits_per_dim.map(|bits| format!("{bits:.4}{}{other}", plus_minus(arm.standard_error)));
    let difference = arm.difference.map(|paired| {
        let seeds = paired.error_over_seeds.map_or(String::new(), |error| format!(" (seeds ± {error:.4})"));
        format!("{:+.4}{}{seeds}", paired.mean, plus_minus(paired.error_over_images))
    });
    let times = |multiplier: Option<Multiplier>, range: Option<[Multiplier; 2]>| {
        let range = range.map_or(String::new(), |[low, high]| format!(" [{low}, {high}]"));
        match multiplier {
            None if arm.configuration == baseline.configuration => "1".to_owned(),
            multiplier => or_none(multiplier.map(|times| format!("{times}{range}"))),
        }
    };
    let exact = if arm.inverted > 0 { format!("{} of {}", arm.exact, arm.inverted) } else { NONE.to_owned() };
    let fields = [
        arm.configuration.clone(),
        or_none(bits),
        arm.seeds.to_string(),
        or_none(difference),
        times(arm.time_multiplier, arm.time_multiplier_range),
        times(arm.flops_multiplier, arm.flops_multiplier_range),
        or_none(arm.images_per_second.map(|rate| format!("{rate:.0}"))),
        or_none(arm.training_flops.map(|flops| format!("{flops:.2e}"))),
        or_none(arm.inverse_error.map(|error| format!("{error:.1e}"))),
        exact,
        or_none(arm.peak_memory.map(|bytes| format!("{} MB", bytes / 1_000_000))),
    ];
    format!("| {} |", fields.join(" | "))
}

/// A line on the variational bound, if the model has one.
fn variational(arm: &Arm) -> Option<String> {
    let error = arm.variational_standard_error.map_or(String::new(), |error| format!(" ± {error:.4}"));
    let (name, bits) = (&arm.configuration, arm.variational_bits_per_dim?);
    let label = Draws::mean(NoiseKind::Variational, 1, 0);
    Some(format!(
        "{name}: {bits:.4}{error} bits/dim, {label}: not comparable with the bits/dim of the tables.\n"
    ))
}

/// A line on a machine that was faster or slower during the runs than during the calibration.
fn drift(arm: &Arm) -> Option<String> {
    let (counted, measured) = (arm.images_per_second?, arm.measured_images_per_second?);
    let ratio = measured / counted;
    ((ratio - 1.0).abs() > DRIFT).then(|| {
        format!(
            "{}: the runs trained at {measured:.0} images/s; times are computed with the {counted:.0} images/s of the calibration.\n",
            arm.configuration
        )
    })
}
