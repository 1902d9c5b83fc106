//! `README.md` of a model: YAML header, table of facts, and usage.

use std::fmt::Write;

use super::{Card, EvaluationCard};
use crate::Architecture;

/// Start of the last line of an unchanged README.
const MARK: &str = "<!-- Written by glowflow, and again after more training unless it is edited: ";
/// End of that line.
const MARK_END: &str = " -->\n";

/// Returns whether the text ends with its own checksum.
pub fn is_unchanged(text: &str) -> bool {
    let Some((body, end)) = text.rsplit_once(MARK) else { return false };
    end.strip_suffix(MARK_END).is_some_and(|sum| sum == checksum(body))
}

fn checksum(body: &str) -> String {
    format!("{:08x}", crc32fast::hash(body.as_bytes()))
}

/// The complete file.
pub fn text(card: &Card) -> String {
    let body = format!("{}{}{}", head(card), table(card), usage(card));
    format!("{body}{MARK}{}{MARK_END}", checksum(&body))
}

/// A string in YAML: JSON strings are valid YAML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Display name of the architecture.
fn architecture(card: &Card) -> &str {
    match &*card.architecture {
        "glow" => "Glow",
        "realnvp" => "RealNVP",
        "nice" => "NICE",
        other => other,
    }
}

fn head(card: &Card) -> String {
    let [height, width, _] = card.model.image();
    let license = if card.license.is_empty() { String::new() } else { format!(" {}", quoted(&card.license)) };
    let mut head = format!(
        "---\nlibrary_name: glowflow\nlicense:{license}\npipeline_tag: unconditional-image-generation\ntags:\n- \
         normalizing-flow\n- {}\n",
        card.architecture
    );
    if let Some((evaluation, bits)) = card.evaluation.as_ref().and_then(|e| Some((e, e.bits_per_dim?))) {
        let data = quoted(if card.data.name.is_empty() { "unknown" } else { &card.data.name });
        let name = quoted(&format!("{}-{height}x{width}", card.architecture));
        let label = quoted(&format!("bits/dim, {}", evaluation.label));
        let _ = write!(
            head,
            "model-index:\n- name: {name}\n  results:\n  - task:\n      type: unconditional-image-generation\n    dataset:\n      \
             name: {data}\n      type: {data}\n    metrics:\n    - type: bits_per_dim\n      value: {bits:.4}\n      name: {label}\n"
        );
    }
    head + "---\n\n"
}

/// Text for a table cell.
fn cell(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace(['\r', '\n'], " ")
}

fn table(card: &Card) -> String {
    let [height, width, channels] = card.model.image();
    let on =
        if card.data.name.is_empty() { String::new() } else { format!(", trained on {}", card.data.name) };
    let mut text =
        format!("# {}, {height}×{width}{}\n\n| | |\n| --- | --- |\n", architecture(card), cell(&on));
    let mut row = |name: &str, value: &str| _ = writeln!(text, "| {name} | {} |", cell(value));
    row("architecture", &settings(card));
    row("image", &format!("{height}×{width}×{channels}, {} bits", card.model.bits()));
    row("parameters", &card.parameters.to_string());
    if card.model.classes() > 0 {
        let names = card.data.classes.join(", ");
        let colon = if names.is_empty() { "" } else { ": " };
        row("classes", &format!("{}{colon}{names}", card.model.classes()));
    }
    row("dequantisation", card.model.noise().name());
    let data = &card.data;
    if !data.name.is_empty() {
        row("data", &format!("{}: {} training and {} test images", data.name, data.images, data.test_images));
    }
    let training = &card.training;
    if training.steps > 0 {
        row(
            "training",
            &format!(
                "{} steps of {} images, seed {}, precision {}, {}",
                training.steps, training.batch, training.seed, training.precision, training.device
            ),
        );
    }
    if let Some(evaluation) = &card.evaluation {
        row("bits/dim", &bits(evaluation, training.steps));
        row("inverse error", &inverse(evaluation));
    }
    if let Some(best) = card.best.filter(|best| best.step != training.steps) {
        let label = card.evaluation.as_ref().map_or(String::new(), |e| format!(", {}", e.label));
        row(
            "`best.safetensors`",
            &format!("{:.4} bits/dim{label}, after step {}", best.bits_per_dim, best.step),
        );
    }
    row("file", &format!("`{}`, fingerprint `{}`", card.file, card.fingerprint));
    row("version", &format!("glowflow {}", card.glowflow_version));
    row("licence", if card.license.is_empty() { "not specified" } else { &card.license });
    text
}

/// Keys of the architecture with their values.
fn settings(card: &Card) -> String {
    let mut settings = architecture(card).to_owned();
    if let Ok(serde_json::Value::Object(keys)) = serde_json::to_value(&card.model) {
        for (key, value) in keys {
            if !["architecture", "image", "bits", "classes"].contains(&key.as_str()) {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let _ = write!(settings, ", {key} {value}");
            }
        }
    }
    settings
}

fn bits(evaluation: &EvaluationCard, steps: u64) -> String {
    let Some(bits) = evaluation.bits_per_dim else { return "not finite".to_owned() };
    let error = evaluation.standard_error.map_or(String::new(), |error| format!(" ± {error:.4}"));
    let at =
        if evaluation.step == steps { String::new() } else { format!(", after step {}", evaluation.step) };
    format!("{bits:.4}{error}, {}, {} test images{at}", evaluation.label, evaluation.images)
}

fn inverse(evaluation: &EvaluationCard) -> String {
    let error = evaluation.inverse_error.map_or("not finite".to_owned(), |error| format!("{error:.1e}"));
    format!("{error}; {} of {} images invert exactly", evaluation.exact, evaluation.inverted)
}

fn usage(card: &Card) -> String {
    let model =
        if card.file == crate::model::MODEL { "FOLDER".to_owned() } else { format!("FOLDER/{}", card.file) };
    let mut text = format!(
        "\n## Usage\n\n```console\n$ glowflow sample --model {model} --out samples.png\n$ glowflow serve --model {model}\n```\n\n\
         ```python\nimport glowflow\n\nmodel = glowflow.Model.from_pretrained(\"{model}\")\nimages = model.sample(16)\n```\n\n\
         ```rust\nlet model = glowflow::Model::from_pretrained(\"{model}\")?;\nlet samples = model.sample(16, 0.7, &[], 0)?;\n```\n\n"
    );
    if card.model.classes() > 0 {
        text = text
            .replace("sample --model", "sample --class 0 --model")
            .replace("sample(16)", "sample(16, labels=0)")
            .replace("&[], 0", "&[0; 16], 0");
    }
    if !card.training.config.is_empty() {
        let config = card.training.config.trim_end();
        let table: toml::Table = config.parse().unwrap_or_default();
        let value = |section: &str, key: &str| table.get(section)?.get(key)?.as_str();
        let test = if value("data", "test").is_some() { " --test-data DATA" } else { "" };
        let (from, source) = match value("train", "from_fingerprint") {
            Some(fingerprint) => {
                (" --from MODEL", format!(", and the model with the fingerprint {fingerprint}"))
            }
            None => ("", String::new()),
        };
        let _ = write!(
            text,
            "## Training\n\n`glowflow train --config FILE{from} --data DATA{test} --steps {}` with this file{source}:\n\n\
             ```toml\n{config}\n```\n\n",
            card.training.steps
        );
    }
    text
}
