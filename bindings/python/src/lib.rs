//! The extension module `glowflow._native`.
//!
//! Its functions take arguments of exact types; `glowflow/_arguments.py` checks and converts user input. All
//! computation runs without the GIL ([`errors::compute`]), training and studies in a separate thread
//! ([`interruptible`]).

mod arrays;
mod command_line;
mod convert;
mod devices;
mod directions;
mod errors;
mod images;
mod interruptible;
mod latents;
mod model;
mod observer;
mod portraits;
mod study;
mod training;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("DeviceError", py.get_type::<errors::DeviceError>())?;
    module.add("Diverged", py.get_type::<errors::Diverged>())?;
    module.add_class::<model::Model>()?;
    module.add_class::<directions::Directions>()?;
    module.add_function(wrap_pyfunction!(latents::interpolate, module)?)?;
    module.add_function(wrap_pyfunction!(model::pretrained_names, module)?)?;
    module.add_function(wrap_pyfunction!(model::check_config, module)?)?;
    module.add_function(wrap_pyfunction!(training::train_in_folder, module)?)?;
    module.add_function(wrap_pyfunction!(training::preset_names, module)?)?;
    module.add_function(wrap_pyfunction!(training::run_classes, module)?)?;
    module.add_function(wrap_pyfunction!(portraits::portraits, module)?)?;
    module.add_function(wrap_pyfunction!(study::run_study, module)?)?;
    module.add_function(wrap_pyfunction!(study::study_names, module)?)?;
    module.add_function(wrap_pyfunction!(convert::convert, module)?)?;
    module.add_function(wrap_pyfunction!(command_line::command_line, module)?)?;
    Ok(())
}
