//! Training: configuration, the optimiser's steps, checkpoints, and runs in a folder.

mod adapt;
mod changes;
pub mod checkpoint;
mod config;
mod divergence;
mod eyes;
mod fine_tune;
mod folder;
mod images;
mod journal;
mod pace;
mod pictures;
mod presets;
mod run;
mod state;
mod statistics;
mod trained;
mod trainer;
mod waiting;
mod watch;

pub use adapt::{Adapt, Adapted, adapt};
pub use changes::Changes;
pub(crate) use changes::absolute;
pub use config::{CONFIG, DataConfig, Optimizer, RunConfig, Schedule, TrainConfig};
pub(crate) use config::{merge, override_table, wrong};
pub(crate) use folder::lock;
pub use folder::{BEST, METRICS};
pub use journal::{LastEvaluation, last_evaluation};
pub use presets::names as preset_names;
pub(crate) use presets::preset;
pub use run::{Best, Limits, Options, Summary, resume, run_folder, train, train_on};
pub use state::{Progress, StepReport, TrainState};
pub use trained::{Trained, trained};
pub use trainer::Trainer;
pub(crate) use waiting::unless_stopped;
pub use watch::{StepDone, Watch};
