//! Studies: a set of configurations, trained on one data set with equal budgets and several seeds.
//!
//! A study's folder:
//!
//! | file | |
//! | --- | --- |
//! | `study.toml` | the resolved study, itself a study file |
//! | `CONFIGURATION/seed-N/` | an ordinary run, with its training time in `study.json` |
//! | `study.csv` | held-out bits/dim of every evaluation |
//! | `study.png` | the same as curves: a line a configuration, a band over seeds |
//! | `study.md` | a table of the finished runs |
//!
//! Runs are ordered by seed, then by configuration, so that a partial study is balanced.

mod builtin;
mod check;
mod folder;
mod form;
mod outcome;
mod plan;
mod record;
mod results;
mod run;
mod summary;

pub use builtin::{Scale, names as builtin_names};
pub use outcome::{FILES, Outcome};
pub use plan::{Budget, Configuration, Overrides, Study};
pub use run::{Options, run};
pub use summary::Row;
