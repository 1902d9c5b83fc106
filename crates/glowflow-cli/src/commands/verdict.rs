//! Exit status of a command that has written its results.

use glowflow_data::Dataset;

use crate::ExitCode;

/// Fails with all problems, if any.
pub fn verdict(troubles: impl IntoIterator<Item = Option<String>>) -> anyhow::Result<ExitCode> {
    let troubles: Vec<String> = troubles.into_iter().flatten().collect();
    anyhow::ensure!(troubles.is_empty(), "{}", troubles.join("; "));
    Ok(ExitCode::SUCCESS)
}

/// A message about unreadable images of a dataset, unless they are accepted.
pub fn left_out(dataset: &dyn Dataset, accepted: bool) -> Option<String> {
    skipped(dataset.broken().len(), dataset.len(), accepted)
}

/// A message about `broken` of `all` images, unless they are accepted.
pub fn skipped(broken: usize, all: usize, accepted: bool) -> Option<String> {
    let (what, verb) = (if all == 1 { "image" } else { "images" }, if broken == 1 { "was" } else { "were" });
    (broken > 0 && !accepted)
        .then(|| format!("{broken} of {all} {what} {verb} skipped; pass --allow-broken to accept this"))
}

/// Fails unless the values of all written pictures are `finite`.
pub fn check_pictures(finite: bool) -> anyhow::Result<ExitCode> {
    verdict([unsound_pictures(finite)])
}

/// A message about pictures with non-finite values.
pub fn unsound_pictures(finite: bool) -> Option<String> {
    (!finite).then(|| {
        "some pictures contain NaN or infinite values, drawn black: train the model longer, or use a lower temperature \
         or smaller amounts"
            .to_owned()
    })
}

/// The first few names of a list, and the number of the others.
pub fn named<S: AsRef<str>>(names: &[S]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &more
}
