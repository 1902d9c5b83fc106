//! Studies: sets of configurations, trained on one dataset with equal budgets and several seeds.
//!
//! Files in a study's folder:
//!
//! | file | |
//! | --- | --- |
//! | `study.toml` | the resolved study, itself a study file |
//! | `CONFIGURATION/seed-N/` | an ordinary run, with its training time in `study.json` |
//! | `CONFIGURATION/seed-N-xM/` | the same with M times the budget: the baseline's curve |
//! | `study.csv` | held-out bits/dim of every evaluation |
//! | `study.png` | the same as curves: one line per configuration, with a band over seeds |
//! | `study.md` | a table of the finished runs |
//!
//! Runs are ordered by seed, then by configuration, so that a partial study is balanced.
//!
//! A study with a `curve` compares its configurations with the first, the baseline. The baseline is also
//! trained with multiples of the budget. Each run ends with `scores.csv`, the bits/dim of every held-out
//! image, and the study also writes `study.comparison.csv`: differences paired by image, and compute
//! multipliers ([`Multiplier`]). A budget of minutes is then converted to steps by a calibration, which is
//! cached in `study.speed.json`.

mod budget;
mod builtin;
mod check;
mod comparison;
mod comparison_tables;
mod curve;
mod folder;
mod form;
mod outcome;
mod plan;
mod record;
mod results;
mod run;
mod runs;
mod scores;
mod speed;
mod summary;

pub use budget::{Budget, Evaluations};
pub use builtin::{Scale, names as builtin_names};
pub use comparison::{Arm, Comparison, CurvePoint};
pub use curve::{Curve, Multiplier};
pub use outcome::Outcome;
pub use plan::{Configuration, Overrides, Study};
pub use run::{Options, run};
pub use runs::{Baseline, RunId};
pub use scores::{Paired, Summary};
pub use summary::Row;
