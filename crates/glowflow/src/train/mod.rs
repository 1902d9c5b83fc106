//! Training: configuration, the optimiser's steps, checkpoints, and runs in a folder.

mod adapt;
mod changes;
pub mod checkpoint;
mod class_names;
mod config;
mod divergence;
mod eyes;
mod fine_tune;
mod folder;
mod images;
mod muon;
mod numbers;
pub mod observer;
pub mod observers;
mod pace;
mod pass;
mod picture_clock;
mod presets;
mod recorded;
mod run;
mod state;
mod statistics;
mod trained;
mod trainer;
mod waiting;

pub(crate) use adapt::set_channels;
pub use adapt::{Adapt, Adapted, adapt};
pub use changes::Changes;
pub(crate) use changes::absolute;
pub use class_names::class_names;
pub use config::{CONFIG, DataConfig, EdgeType, Optimizer, RunConfig, Schedule, TrainConfig};
pub(crate) use config::{merge, override_table, with_preset, wrong};
pub use folder::{BEST, METRICS};
pub(crate) use folder::{check_free, check_portraits_stay_visible, lock};
pub(crate) use images::Images;
pub use images::{TrainAndTest, hold_out};
pub use observer::{Event, Observer};
pub use presets::names as preset_names;
pub use run::{
    Best, Job, Limits, Options, Summary, follow, resume, resume_as, resume_on, run_folder, train, train_as,
    train_on,
};
pub use state::{Progress, StepReport, TrainState};
pub use trained::{Evaluated, Trained, evaluated, recorded_config, trained};
pub use trainer::Trainer;
pub(crate) use waiting::unless_stopped;
