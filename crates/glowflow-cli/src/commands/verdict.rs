//! Whether a command that wrote its results succeeded.

use glowflow_data::Dataset;

use crate::ExitCode;

/// Fails with all that went wrong, if anything did.
pub fn verdict(troubles: impl IntoIterator<Item = Option<String>>) -> anyhow::Result<ExitCode> {
    let troubles: Vec<String> = troubles.into_iter().flatten().collect();
    anyhow::ensure!(troubles.is_empty(), "{}", troubles.join("; "));
    Ok(ExitCode::SUCCESS)
}

/// The images of a dataset that could not be read, unless that is accepted.
pub fn left_out(dataset: &dyn Dataset, accepted: bool) -> Option<String> {
    let (broken, all) = (dataset.broken().len(), dataset.len());
    let what = if broken == 1 { "image was" } else { "images were" };
    (broken > 0 && !accepted)
        .then(|| format!("{broken} of {all} {what} left out; pass --allow-broken to accept that"))
}

/// Fails unless the values of all pictures that were written are `finite`.
pub fn check_pictures(finite: bool) -> anyhow::Result<ExitCode> {
    verdict([unsound_pictures(finite)])
}

/// The trouble with pictures whose values are not all `finite`.
pub fn unsound_pictures(finite: bool) -> Option<String> {
    (!finite).then(|| {
        "some pictures have values that are not finite, drawn black: train the model longer, or use a lower temperature \
         or smaller amounts"
            .to_owned()
    })
}

/// The first few of a list of names, and how many more there are.
pub fn named<S: AsRef<str>>(names: &[S]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &more
}
