"""Writes seed inputs of the fuzz targets to seeds/TARGET, from files of the tests and from generated ones.

Usage: seeds.py [FOLDER]. Checkpoints of other programs in FOLDER (.pt, .pth, .npz, .safetensors) are seeds of `import`.
"""

import base64
import gzip
import io
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CRATES = HERE.parent / "crates"
RUN = CRATES / "glowflow-cli/tests/fixtures/first_format/run"
MODELS = CRATES / "glowflow/tests/fixtures"
PORTRAITS = CRATES / "glowflow/pretrained/portraits"
LARGEST = 1 << 20
WEBP = (
    "UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==",  # lossless
    "UklGRiQAAABXRUJQVlA4IBgAAAAwAQCdASoBAAEAAwA0JaQAA3AA/vuUAAA=",  # lossy
)
TABLES = (
    "image,Smiling,Eyeglasses\nann.jpg,1,-1\nbob.jpg,-1,\nphotos/zoë.jpg,yes,NA\n",
    "2\nSmiling Male\nann.jpg  1 -1\nbob.jpg -1  1\n",
    'name;"Hat ""x""";note\nann;1;text\n"photos/ann.png";0;\n',
    ",file_name,Hat\n0,ann.jpg,True\n1,bob.jpg,False\n",
)
REQUESTS = (
    "GET /",
    "GET /api/v1/info",
    "GET /api/v1/openapi.json",
    "GET /api/v1/decode/@?show=difference",
    'POST /api/v1/sample\n{"count": 2, "temperature": 0.7, "seed": 1}',
    'POST /api/v1/manipulate\n{"id": "@", "amounts": {"Smiling": 0.7}, "from": {"Blond_Hair": -1}, "frames": 3, "format": "gif"}',
    'POST /api/v1/mix\n{"a": "@", "b": "@", "at": [0.5, 1e3], "path": "spherical"}',
    'POST /api/v1/walk\n{"ids": ["@", "@"], "frames": 2, "closed": true, "format": "apng"}',
    'POST /api/v1/blend\n{"ids": ["@", "@"], "weights": [1, 2.5]}',
    'PUT /api/v1/eyes\n{"faces": true, "eyes": [[0.39, 0.51], [0.61, 0.51]]}',
)


def npy(shape: tuple[int, ...], contents: bytes, kind: str = "|u1", version: int = 1) -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + contents


def idx(shape: tuple[int, ...], contents: bytes) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + contents


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, contents in entries.items():
            archive.writestr(zipfile.ZipInfo(name), contents, method)
    return file.getvalue()


def tar(mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        entry = tarfile.TarInfo("a.png")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"\x89PNG"))
    return file.getvalue()


def bmp(side: int) -> bytes:
    pixels = bytes(range(3 * side)) * side
    size = 54 + len(pixels)
    header = b"BM" + struct.pack("<IHHIIiiHHIIiiII", size, 0, 0, 54, 40, side, side, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    return header + pixels


def text(string: str) -> bytes:
    return b"X" + struct.pack("<I", len(string.encode())) + string.encode()


def state(storage: str = "FloatStorage") -> bytes:
    """The pickle of a state dictionary of two tensors, views of one storage of 64 numbers."""
    pickle = b"\x80\x02ccollections\nOrderedDict\n)R("
    for name, offset, shape, strides in (("a.weight", 0, (4, 3), (3, 1)), ("a.bias", 12, (4,), (1,))):
        sizes = [b"(" + b"".join(b"K" + bytes([size]) for size in part) + b"t" for part in (shape, strides)]
        pickle += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(("
        pickle += text("storage") + b"ctorch\n" + storage.encode() + b"\n" + text("0") + text("cpu") + b"K\x40tQ"
        pickle += b"K" + bytes([offset]) + sizes[0] + sizes[1] + b"\x89ccollections\nOrderedDict\n)RtR"
    return pickle + b"u."


def legacy() -> bytes:
    magic = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
    machine = b"\x80\x02}(" + text("little_endian") + b"\x88u."
    keys = b"\x80\x02](" + text("0") + b"e."
    head = b"\x80\x02\x8a\x0a" + magic + b"." + b"\x80\x02M\xe9\x03." + machine + state() + keys
    return head + struct.pack("<q64f", 64, *range(64))


def seeds(checkpoints: Path | None) -> dict[str, list[bytes]]:
    images = npy((2, 4, 4, 3), bytes(range(96)))
    labels = npy((2,), struct.pack("<2q", 0, 1), "<i8")
    digits = idx((2, 4, 4), bytes(range(32)))
    pictures = [path.read_bytes() for path in sorted((RUN.parent / "pictures").glob("*.png"))[:1]]
    pictures += [(CRATES / "glowflow-faces/tests/pictures/astronaut.jpg").read_bytes(), bmp(4)]
    pictures += [base64.b64decode(picture) for picture in WEBP]
    arrays = {"images.npy": images, "labels.npy": labels}
    weights = npy((2, 3), struct.pack("<6f", *range(6)), "<f4", version=2)
    found = sorted(checkpoints.rglob("*")) if checkpoints else []
    found = [path for path in found if path.suffix in {".npz", ".pt", ".pth", ".safetensors"}]
    small = [path.read_bytes() for path in sorted(MODELS.glob("*.safetensors"))]
    return {
        "attributes": [table.encode() for table in TABLES] + [TABLES[0].encode("utf-16")],
        "card": [(PORTRAITS / "config.json").read_bytes()],
        "checkpoint": [(RUN / "checkpoint.safetensors").read_bytes()],
        "cifar": [bytes([label % 10 for label in range(3073)]) * 2],
        "config": [(RUN / "config.toml").read_bytes(), (PORTRAITS / "config.toml").read_bytes()],
        "data_file": [images, digits, gzip.compress(digits, mtime=0), zipped(arrays), tar("w"), tar("w:gz"), *pictures]
        + [zipped(arrays, zipfile.ZIP_DEFLATED), zipped({"a.png": pictures[0]})],
        "data_labels": [idx((4,), bytes([0, 1, 2, 1])), gzip.compress(idx((4,), bytes(4)), mtime=0)],
        "directions": [(RUN / "directions.safetensors").read_bytes()],
        "eyes": [(PORTRAITS / "eyes.toml").read_bytes(), b"faces = false\n"],
        "image": pictures,
        "import": [zipped({"archive/data.pkl": state(), "archive/data/0": bytes(256)}), legacy()]
        + [zipped({"a.npy": weights}), *(path.read_bytes() for path in found)],
        "import_pickle": [state(), state("HalfStorage")],
        "latents": [(RUN.parent / "pictures.latents").read_bytes()],
        "metrics": [(RUN / "metrics.jsonl").read_bytes()],
        "model": [(RUN / "model.safetensors").read_bytes(), *(model for model in small if len(model) < 1 << 17)],
        "npz_array": [images + labels, images, weights],
        "study": [path.read_bytes() for path in sorted((CRATES / "glowflow/src/study/builtin").glob("*.toml"))],
        "web": [request.encode() for request in REQUESTS] + [b"POST /api/v1/encode\n" + pictures[0]],
    }


def main() -> None:
    for target, inputs in seeds(Path(sys.argv[1]) if len(sys.argv) > 1 else None).items():
        folder = HERE / "seeds" / target
        folder.mkdir(parents=True, exist_ok=True)
        for number, contents in enumerate(inputs):
            if len(contents) <= LARGEST:
                (folder / f"{number:02}").write_bytes(contents)


if __name__ == "__main__":
    main()
