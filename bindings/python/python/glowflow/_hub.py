"""Folders of pretrained models: `model.safetensors`, `config.json` and a model card, as on the Hugging Face Hub."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from glowflow._native import pretrained_names

if TYPE_CHECKING:
    from glowflow._model import Model

MODEL, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


def folder(name_or_path: str | os.PathLike[str], revision: str | None, hub: dict[str, Any]) -> str:
    """Path of a model's local folder or file."""
    name = os.fspath(name_or_path)
    given = ", ".join(["revision"] * (revision is not None) + list(hub))
    if os.path.exists(name):
        if given:
            raise ValueError(f"{name} is a local path: leave out {given}")
        return name
    if name in pretrained_names():
        if given:
            raise ValueError(f"{name} comes with the package: leave out {given}")
        return name
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{name} does not exist: pass a folder, a model.safetensors, or a Hub id OWNER/NAME")
    try:
        import huggingface_hub
    except ImportError:
        raise ImportError(
            f"{name} is not a local path, and models of the Hub need huggingface_hub: pip install 'glowflow[hub]'"
        ) from None
    return huggingface_hub.snapshot_download(
        name, revision=revision, **{"allow_patterns": ["*.json", "*.md", "*.safetensors", "*.toml"], **hub}
    )


def check(path: str, model: Model) -> None:
    """Checks that `config.json` describes the model, if there is one."""
    config = os.path.join(path, CONFIG)
    if not os.path.isfile(config):
        return
    with open(config, encoding="utf-8") as file:
        try:
            written = json.load(file).get("model")
        except (AttributeError, ValueError) as error:
            raise ValueError(f"{config} is not a JSON object ({error})") from None
    if written is not None and written != json.loads(model.config.to_json()):
        raise ValueError(f"{config} describes another model than {MODEL}: remove one of them, or write both again")


def save(model: Model, path: str | os.PathLike[str], push_to_hub: bool, repo_id: str | None) -> None:
    """Writes the folder, and uploads it if requested."""
    if push_to_hub and repo_id is None:
        raise ValueError("push_to_hub needs repo_id='OWNER/NAME'")
    path = os.fspath(path)
    os.makedirs(path, exist_ok=True)
    model._native.save_pretrained(path)
    if push_to_hub:
        try:
            import huggingface_hub
        except ImportError:
            raise ImportError("push_to_hub needs huggingface_hub: pip install 'glowflow[hub]'") from None
        api = huggingface_hub.HfApi()
        api.create_repo(repo_id, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=path, allow_patterns=[MODEL, CONFIG, CARD])
