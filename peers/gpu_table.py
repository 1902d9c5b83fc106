"""Measures glowflow and PyTorch on one GPU within a few minutes, and prints one Markdown table.

    python3 peers/gpu_table.py --rust PATH [--minutes 9.5] [--out DIR] [--only ROW...] [--data CIFAR_DIR]

Every row has a time budget. A row that exceeds it is stopped, a row that no longer fits is left out, and
a row that fails is reported with its last lines; the next row then runs. The table lists all of these.
The folder `--out` gets `table.md`, `results.json` with every single time, rewritten after each row, and
`log.txt` with the programs' stderr.

As in `compare.py`, whose functions this uses, live and warm processes are interleaved in rotating order.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import compare

# The most promising PyTorch variants on a GPU; compare.py tries all of them, without a time limit. The last one
# needs no compiler, so it gives a result even if compilation fails.
CANDIDATES = ("compile_channels_last_graphs", "compile_linear_graphs", "channels_last_graphs")
SAMPLERS = ("compile_channels_last_graphs", "channels_last_graphs")
FALLBACK = ("compile_channels_last", "channels_last")
MEMORY_VARIANTS = ("channels_last", "linear", "compile_channels_last")
TURNS = 5
TURN_SECONDS = 0.7


class Failed(Exception):
    """A program failed, or exceeded its row's time."""


def kill_group(process):
    """Stops a program with its helpers, which have a separate process group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Run:
    """State shared by all rows: the clock, the folder, the environment, and the live programs."""

    def __init__(self, args):
        self.args, self.out = args, Path(args.out)
        self.end = time.monotonic() + 60 * args.minutes
        self.deadline, self.servers, self.results = self.end, [], {}
        self.out.mkdir(parents=True, exist_ok=True)
        self.log_lock = threading.Lock()
        (self.out / "log.txt").write_text("")
        self.environment = compare.environment(args)

    def left(self):
        """Seconds until the current row must end."""
        return max(self.deadline - time.monotonic(), 0.1)

    def say(self, *words):
        compare.say(f"[{60 * self.args.minutes - (self.end - time.monotonic()):5.0f} s]", *words)

    def log(self, title, text):
        with self.log_lock, (self.out / "log.txt").open("a") as log:
            log.write(f"==== {title}\n{text.rstrip()}\n")

    def save(self):
        about = {"machine": self.machine, "arguments": vars(self.args), "rows": self.results}
        (self.out / "results.json").write_text(json.dumps(about, indent=1) + "\n")

    def output(self, title, command, lines=1, env=None):
        """The last lines of a program's output; a program that exceeds the row's deadline is killed."""
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(command, text=True, env=env or self.environment, process_group=0,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
            late = False
            try:
                printed, _ = process.communicate(timeout=self.left())
            except subprocess.TimeoutExpired:
                late = True
                kill_group(process)
                printed, _ = process.communicate()
            errors.seek(0)
            text = printed + errors.read()
        self.log(f"{title}: {shlex.join(command)}", text)
        if late:
            raise Failed(f"{title}: not done in time; {tail(text)}")
        if process.returncode:
            raise Failed(f"{title}: exit status {process.returncode}; {tail(text)}")
        return printed.strip().splitlines()[-lines:]

    def json(self, title, command):
        """The JSON object on the last line of a program's output."""
        printed = self.output(title, command)
        try:
            return json.loads(printed[-1])
        except (IndexError, ValueError):
            raise Failed(f"{title}: no JSON on its last line: {printed}") from None


class Contender(compare.Server):
    """A server whose answers must arrive before the row's deadline."""

    def __init__(self, run, name, command):
        self.run, self.errors = run, tempfile.TemporaryFile("w+")
        super().__init__(name, command, run.environment, stderr=self.errors)
        run.servers.append(self)

    def ask(self, what, count, share=1.0):
        """Requests times, and waits for at most this share of the row's remaining time."""
        limit, start = share * self.run.left(), time.monotonic()
        timer = threading.Timer(limit, kill_group, [self.process])
        timer.start()
        try:
            return super().ask(what, count)
        except (SystemExit, ValueError) as error:
            late = time.monotonic() - start >= limit
            why = f"{self.name} was not done in {limit:.0f} s" if late else str(error).split(":")[0]
            raise Failed(f"{why}; {tail(self.close())}") from None
        finally:
            timer.cancel()

    def close(self):
        """Stops the process if it is alive, and logs its output."""
        if self not in self.run.servers:
            return ""
        self.run.servers.remove(self)
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            pass
        kill_group(self.process)  # the compiler's helpers, too
        self.process.wait()
        self.process.stdout.close()
        self.errors.seek(0)
        text = self.errors.read()
        self.errors.close()
        self.run.log(f"{self.name}: {shlex.join(self.process.args)}", text)
        return text


def tail(text, lines=4):
    """The end of a log as one short line for a table."""
    kept = [line.strip() for line in text.strip().splitlines() if line.strip()][-lines:]
    return " / ".join(kept).replace("|", "¦")[-500:] or "it wrote nothing"


def model(run, **changes):
    """Arguments of compare.py's commands: the published CIFAR-10 model, with changes."""
    settings = {"device": run.args.device, "rust": run.args.rust, "rust_args": run.args.rust_args, "rust_set": [],
                "threads": run.args.threads, "levels": 3, "steps": 32, "hidden": 512, "batch": 256, "image": 32,
                "coupling": "affine", "precision": "bf16"} | changes
    if run.args.tiny:
        settings |= {"levels": min(settings["levels"], 2), "steps": min(settings["steps"], 2), "hidden": 16,
                     "batch": min(settings["batch"], 4), "image": 8}
        settings["precision"] = "f32" if settings["precision"] == "bf16" else settings["precision"]
    return argparse.Namespace(**settings)


def variants(run, names):
    """Variants to try: no graphs without a GPU, and no compiler in a tiny run."""
    if run.args.device == "cuda":
        return names
    return tuple(dict.fromkeys(name.removesuffix("_graphs").removeprefix("compile_") for name in names))


def flops_per_image(m):
    """Model FLOPs of training on one image: forward, and twice that for the input and weight gradients.

    The products of the coupling networks, edge channels included, of 1x1 convolutions and of priors. The recomputation
    in a reversible step does not count.
    """
    sums, size, channels = 0, m.image, 3
    for level in range(m.levels):
        size, channels = size // 2, channels * 4
        outputs = channels if m.coupling == "affine" else channels // 2
        network = 9 * (channels // 2 + 1) * m.hidden + m.hidden ** 2 + 9 * (m.hidden + 1) * outputs
        sums += size ** 2 * m.steps * (network + channels ** 2)
        if level < m.levels - 1:
            sums += size ** 2 * 9 * (channels // 2 + 1) * channels
            channels //= 2
    return 3 * 2 * sums


def start_torch(run, m, mode, names):
    """One PyTorch process per variant. They load concurrently, and compute only on request."""
    return [Contender(run, f"PyTorch {name}", compare.torch_command(m, mode, name, "--serve",
                                                                    "--compile-mode", run.args.compile_mode))
            for name in names]


def start_rust(run, commands, row):
    """One glowflow process per command, by name. Without the program, only PyTorch is timed."""
    servers = []
    for name, command in commands.items():
        try:
            servers.append(Contender(run, name, command))
        except OSError as error:
            row.setdefault("failures", []).append(f"{name}: {error}")
    return servers


def warm_up(run, servers, what, row):
    """Warms up servers one after the other; records those that fail in the row, and returns the others."""
    ready = []
    for server in servers:
        try:
            start = time.monotonic()
            server.ask(what, 3, share=0.5)  # leaves time for the others if one hangs
            server.trial = statistics.median(server.ask(what, 5, share=0.5))
        except Failed as error:
            row.setdefault("failures", []).append(str(error))
            run.say(error)
            continue
        run.say(f"{server.name} {1e3 * server.trial:.2f} ms, ready in {time.monotonic() - start:.0f} s")
        row.setdefault("trial", {})[server.name] = server.trial
        ready.append(server)
    return ready


def keep_fast(servers):
    """Returns the servers that may be the fastest, and stops the others to free their GPU memory."""
    bar = compare.CLOSE * min((s.trial for s in servers), default=0)
    for server in servers:
        if server.trial > bar:
            server.close()
    return [s for s in servers if s.trial <= bar]


def by_turns(run, servers, what, row):
    """Times live servers in interleaved runs; every time is recorded in the row."""
    turns = row["turns"] = {s.name: [] for s in servers}
    for turn in range(TURNS):
        shift = turn % max(len(servers), 1)
        for server in servers[shift:] + servers[:shift]:
            if server not in run.servers:  # it failed in an earlier round
                continue
            try:
                turns[server.name].append(server.ask(what, min(max(int(TURN_SECONDS / server.trial), 3), 50)))
            except Failed as error:
                row.setdefault("failures", []).append(str(error))
    row["median"] = {name: statistics.median(t for turn in times for t in turn) for name, times in turns.items() if times}


def compete(run, m, what, names, glowflow, row):
    """Interleaved times of PyTorch's fastest variants and glowflow's modes. `glowflow`: name and arguments of each."""
    mode = {"train": "train-step", "sample": "sample"}[what]
    row["batch"] = m.batch
    row["flops_per_image"] = flops_per_image(m)
    ready = warm_up(run, start_torch(run, m, mode, variants(run, names)), what, row)
    if not ready:  # perhaps graphs do not work here
        ready = warm_up(run, start_torch(run, m, mode, variants(run, FALLBACK)), what, row)
    contenders = keep_fast(ready)
    rust = start_rust(run, {name: compare.rust_command(m, "--serve", *extra) for name, extra in glowflow}, row)
    by_turns(run, contenders + warm_up(run, rust, what, row), what, row)
    for server in list(run.servers):
        server.close()


def fastest(row, prefix):
    """Name and median of the fastest program whose name has this prefix, or (None, None)."""
    times = [(seconds, name) for name, seconds in row.get("median", {}).items() if name.startswith(prefix)]
    seconds, name = min(times, default=(None, None))
    return name, seconds


# Rows: each fills in its results as it goes, so that measurements before a failure are kept.

def ceilings(run, row):
    row |= run.json("ceilings", [sys.executable, str(compare.HERE / "glow_torch.py"), "ceilings", "--device", run.args.device])


def parity(run, row):
    if not run.args.tests:
        row["left_out"] = "no --tests"
        return
    row["last_line"] = " ".join(run.output("parity", ["sh", "-c", f"exec 2>&1; {run.args.tests}"])) or "(it printed nothing)"


def memory_model(run, depth):
    return model(run, levels=6, image=256, coupling="additive", batch=8, steps=depth)


def training_batches(run):
    return (4,) if run.args.tiny else tuple(run.args.batches)


def sampling(run, batch):
    return model(run, levels=6, image=256, coupling="additive", batch=batch)


def compile_ahead(run, row):
    """Fills the compiler's cache on disk for all shapes concurrently, so that later rows do not wait one after the other.

    The code for one step of flow does not depend on the number of steps, so the models are shallow. Nothing is timed
    during compilation, because these processes share the GPU.
    """
    if run.args.device == "cpu":
        row["left_out"] = "there is no GPU to compile for"
        return
    jobs = [("train-step", name, model(run, steps=2, batch=batch), ()) for batch in training_batches(run) for name in CANDIDATES]
    for batch in (1, 32):
        m = sampling(run, batch)
        m.steps = 2
        jobs += [("sample", name, m, ()) for name in SAMPLERS]
    jobs.append(("memory", MEMORY_VARIANTS[-1], memory_model(run, 2), ("--checkpoint",)))
    jobs = [job for job in jobs if job[1].startswith("compile")]
    environment = run.environment | {"TORCHINDUCTOR_COMPILE_THREADS": str(max(run.args.threads // len(jobs), 2))}

    def compile_one(job):
        mode, name, m, extra = job
        command = compare.torch_command(m, mode, name.removesuffix("_graphs"), "--warmup", "1", "--repeat", "1",
                                        "--compile-mode", run.args.compile_mode, *extra)
        title, start = f"compile {mode} {name}, batch {m.batch}", time.monotonic()
        try:
            run.output(title, command, env=environment)
        except Failed as error:
            row["failures"].append(str(error))
            return
        row["seconds"][title] = time.monotonic() - start
        run.say(title, "is done")

    row["seconds"], row["failures"] = {}, []
    with ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(compile_one, jobs))


def training(run, row):
    names = CANDIDATES
    ways = [(f"glowflow {way}", ("--backprop", way)) for way in ("stored", "reversible")]
    for batch in training_batches(run):
        if run.left() < (40 if run.args.device == "cuda" else 5):
            row.setdefault("failures", []).append(f"no time was left for batch {batch}")
            continue
        part = row.setdefault("batches", {})[batch] = {}
        run.say(f"training, batch {batch}")
        compete(run, model(run, batch=batch), "train", names, ways, part)
        run.save()
        best, _ = fastest(part, "PyTorch")
        if best:  # only the best variant for the other batch sizes
            names = (best.removeprefix("PyTorch "),)


def precisions(run, row):
    """A training step of glowflow in each precision."""
    commands = {}
    for precision in ("f32", "tf32", "bf16"):
        m = model(run, batch=64)
        m.precision = precision
        commands[f"glowflow {precision}"] = compare.rust_command(m, "--serve", "--backprop", "stored")
    by_turns(run, warm_up(run, start_rust(run, commands, row), "train", row), "train", row)


def tuning(run, row):
    """A stored training step versus the number of rows of hidden activations computed at once, with glowflow's own
    kernels for whole networks, for hidden layers, and without them."""
    commands = {}
    for rows in (32768, 65536, 131072):
        for hidden in ("on", "layers", "off"):
            settings = ["env", f"GLOWFLOW_CUDA_ROWS={rows}", f"GLOWFLOW_CUDA_HIDDEN={hidden}"]
            command = compare.rust_command(model(run, batch=512), "--serve", "--backprop", "stored")
            commands[f"{rows} {hidden}"] = settings + command
    by_turns(run, warm_up(run, start_rust(run, commands, row), "train", row), "train", row)


def samples(run, row):
    for batch in (1, 32):
        if run.left() < (25 if run.args.device == "cuda" else 5):
            row.setdefault("failures", []).append(f"no time was left for batch {batch}")
            continue
        part = row.setdefault("batches", {})[batch] = {}
        run.say(f"sampling, batch {batch}")
        compete(run, sampling(run, batch), "sample", SAMPLERS, [("glowflow", ("--backprop", "stored"))], part)
        run.save()


def memory(run, row):
    """glowflow at every depth that fits; PyTorch at both ends. PyTorch's variants run concurrently: peaks are per process."""
    depths = row["depths"] = {}
    row["failures"] = []
    shallow, deep, between = (1, 2, ()) if run.args.tiny else (4, 48, (16, 32))

    def measure(name, depth, command):
        try:
            found = run.json(f"{name}, K {depth}", command)
            peak = found.get("device_peak_bytes")
            if peak is None and run.args.device == "cpu":
                peak = found["peak_rss"]
            if peak is None:
                raise Failed(f"{name}, K {depth}: no device_peak_bytes in {found}")
            found["work"] = peak - found["state_bytes"]
            depths.setdefault(depth, {})[name] = found
            run.say(f"{name}, K {depth}: {found['work'] / 2**20:.0f} MiB")
        except (Failed, KeyError, OSError) as error:
            why = str(error) if isinstance(error, Failed) else f"{name}, K {depth}: {type(error).__name__}: {error}"
            row["failures"].append(why)
            run.say(why)

    def glowflow(depth):
        measure("glowflow reversible", depth,
                compare.rust_command(memory_model(run, depth), "--memory", "--backprop", "reversible"))

    def pytorch(job):
        depth, variant = job
        measure(f"PyTorch checkpoint {variant}", depth,
                compare.torch_command(memory_model(run, depth), "memory", variant, "--checkpoint"))

    # Two glowflow runs first, alone on the GPU in case the reported value covers the whole card.
    for depth in (shallow, deep):
        glowflow(depth)
    names = variants(run, MEMORY_VARIANTS)
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(pytorch, [(depth, name) for depth in (shallow, deep) for name in names]))
    for depth in between:
        if run.left() > 15:
            glowflow(depth)


def last_number(records, key):
    """The last step with a value for a key, and the value."""
    return next(((r["step"], r[key]) for r in reversed(records) if isinstance(r.get(key), (int, float))), None)


def cifar(run, row):
    if not run.args.data:
        row["left_out"] = "no --data"
        return
    # The training clock excludes loading before it, and an evaluation, samples and a checkpoint after it.
    row["minutes"] = minutes = round((run.left() - run.args.train_margin) / 60, 2)
    if minutes < 0.1:
        raise Failed(f"{run.left():.0f} s are left, too few to train in")
    folder = Path(run.args.run_out or run.out / "run")
    if folder.exists():
        shutil.rmtree(folder)
    command = [run.args.rust, "train", *shlex.split(run.args.rust_args), "--data", run.args.data, "--preset",
               "tiny32" if run.args.tiny else "cifar10", "--minutes", str(minutes), *shlex.split(run.args.train_args),
               "--out", str(folder)]
    try:
        run.output("train", command)
    finally:  # the log counts even if the run had to be stopped
        log = folder / "metrics.jsonl"
        if log.exists():
            # A killed run may have an unfinished last line.
            lines = log.read_text(errors="replace").split("\n")[:-1]
            records = [json.loads(line) for line in lines]
            row["last_step"] = records[-1]["step"] if records else 0
            row["test"] = last_number(records, "test_bits_per_dim")
            row["train"] = last_number(records, "train_bits_per_dim")
        if folder.parent != run.out:
            for name in ("metrics.jsonl", "samples.png", "curve.png"):
                if (folder / name).exists():
                    shutil.copy(folder / name, run.out / name)


# Name, function, maximum duration in seconds, minimum remaining seconds to start it.
ROWS = (("ceilings", ceilings, 60, 15), ("parity", parity, 150, 20), ("compile", compile_ahead, 150, 60),
        ("train", training, 220, 60), ("precision", precisions, 45, 20), ("sample", samples, 110, 40),
        ("memory", memory, 110, 40), ("tuning", tuning, 60, 30), ("cifar10", cifar, 3600, 90))


def image_rate(part, name, seconds, peak):
    rate = part["batch"] / seconds
    share = f" ({rate * part['flops_per_image'] / peak * 100:.1f} %)" if peak else ""
    return f"{name} {rate:,.0f}{share}"


def training_lines(row, peak):
    lines = []
    for batch, part in row.get("batches", {}).items():
        name, seconds = fastest(part, "PyTorch")
        torch = image_rate(part, name.removeprefix("PyTorch "), seconds, peak) if name else "–"
        ours = [(n.removeprefix("glowflow "), s) for n, s in part.get("median", {}).items() if n.startswith("glowflow")]
        cells = "; ".join(image_rate(part, n, s, peak) for n, s in ours) or "–"
        ratios = " / ".join(f"{seconds / s:.2f}" for _, s in ours) if name else ""
        share = " (share of the bf16 peak)" if peak else ""
        lines.append(f"| CIFAR-10 training, batch {batch}, images/s{share} | {cells} | {torch} | {ratios or '–'} |")
    return lines


def sample_lines(row):
    lines = []
    for batch, part in row.get("batches", {}).items():
        (theirs, slow), (ours, fast) = fastest(part, "PyTorch"), fastest(part, "glowflow")
        torch = f"{theirs.removeprefix('PyTorch ')} {1e3 * slow / part['batch']:.2f}" if theirs else "–"
        mine = f"{1e3 * fast / part['batch']:.2f}" if ours else "–"
        lines.append(f"| sampling 256×256, K 32, batch {batch}, ms/image | {mine} | {torch} | "
                     f"{f'{slow / fast:.2f}' if ours and theirs else '–'} |")
    return lines


def memory_lines(row):
    lines = []
    for depth, found in sorted(row.get("depths", {}).items()):
        ours = found.get("glowflow reversible")
        theirs = min(((v["work"], k) for k, v in found.items() if k.startswith("PyTorch")), default=None)
        mine = f"{ours['work'] / 2**20:.0f}" if ours else "–"
        torch = f"{theirs[1].removeprefix('PyTorch ')} {theirs[0] / 2**20:.0f}" if theirs else "–"
        ratio = f"{theirs[0] / ours['work']:.2f}" if ours and theirs and ours["work"] > 0 else "–"
        lines.append(f"| memory of a training step, 256×256, batch 8, K {depth}, MiB | {mine} | {torch} | {ratio} |")
    return lines


def single_lines(rows):
    """The rows with a single line."""
    lines = []
    if "bf16_flops_per_second" in (found := rows.get("ceilings", {})):
        lines.append(f"| ceilings by torch: copy, bf16 product | | {found['copy_bytes_per_second'] / 1e12:.3g} TB/s, "
                     f"{found['bf16_flops_per_second'] / 1e12:.4g} TFLOP/s | |")
    if "last_line" in (found := rows.get("parity", {})):
        lines.append(f"| parity: last line | {tail(found['last_line'])} | | |")
    if found := rows.get("precision", {}).get("median"):
        steps = ", ".join(f"{name.removeprefix('glowflow ')} {1e3 * seconds:.1f}" for name, seconds in found.items())
        lines.append(f"| training step stored, batch 64, ms | {steps} | | |")
    if found := rows.get("tuning", {}).get("median"):
        steps = ", ".join(f"{name} {1e3 * seconds:.1f}" for name, seconds in found.items())
        lines.append(f"| training step stored, batch 512, by rows at once and own kernels, ms | {steps} | | |")
    found = rows.get("cifar10", {})
    if "minutes" in found:
        text = "; ".join(f"{key} {found[key][1]:.3f} bits/dim at step {found[key][0]}" for key in ("test", "train") if found.get(key))
        lines.append(f"| CIFAR-10, {found['minutes']} minutes of training | {text or '–'} | | |")
    return lines


def notes(rows):
    """Rows left out, failures, and variants tried."""
    lines = []
    for name, row in rows.items():
        parts = [("", row)] + [(f", batch {batch}", part) for batch, part in row.get("batches", {}).items()]
        if "left_out" in row:
            lines.append(f"- {name}: left out, {row['left_out']}")
        for where, part in parts:
            if part.get("trial"):
                lines.append(f"- {name}{where}: trial " + ", ".join(f"{n} {1e3 * s:.2f} ms" for n, s in part["trial"].items()))
            lines += [f"- {name}{where}: **failed**: {why}" for why in part.get("failures", [])]
        if "error" in row:
            lines.append(f"- {name}: **failed**: {row['error']}")
    return lines


def table(run):
    rows = run.results
    peak = rows.get("ceilings", {}).get("bf16_flops_per_second")
    about = run.machine
    return "\n".join(
        [f"{about.get('gpu', 'No GPU: ' + about['cpu'])}; PyTorch {about['torch']}; {about['glowflow']} ({about['commit']}); "
         + ("a tiny trial of this script, no measurement" if run.args.tiny else
            "bf16, hidden 512, only the GPU has to be idle"), "",
         "| | glowflow | PyTorch | PyTorch's time or memory ÷ glowflow's |", "| --- | --- | --- | --- |"]
        + single_lines(rows) + training_lines(rows.get("train", {}), peak) + sample_lines(rows.get("sample", {}))
        + memory_lines(rows.get("memory", {})) + [""] + notes(rows)
        + ["", "Seconds: " + ", ".join(f"{name} {row['took']:.0f}" for name, row in rows.items() if "took" in row) + "."])


def measure_row(run, name, function, budget, needed):
    row = run.results[name] = {}
    remaining = run.end - time.monotonic()
    if remaining < (5 if run.args.tiny else needed):
        row["left_out"] = f"{max(remaining, 0):.0f} s were left, {needed} are needed"
        return
    start = time.monotonic()
    run.deadline = min(start + budget, run.end)
    run.say(f"{name}, at most {run.left():.0f} s")
    try:
        function(run, row)
    except (Exception, SystemExit) as error:  # any error: the next row must still run
        row["error"] = tail(str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}")
        run.say(f"{name} failed: {row['error']}")
    finally:
        for server in list(run.servers):
            server.close()
    row["took"] = time.monotonic() - start


def arguments():
    parser = argparse.ArgumentParser(description="glowflow and PyTorch on one GPU, in one table")
    parser.add_argument("--rust", required=True, metavar="PATH", help="the glowflow program")
    parser.add_argument("--rust-args", metavar="ARGS", help="more arguments for it; default \"--device cuda:0\"")
    parser.add_argument("--minutes", type=float, default=9.5, help="when everything has to be done")
    parser.add_argument("--out", default="gpu-table", metavar="DIR", help="folder for table, times and log")
    parser.add_argument("--only", nargs="+", choices=[row[0] for row in ROWS], metavar="ROW",
                        help="of " + ", ".join(row[0] for row in ROWS))
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 512, 128],
                        help="of training, in order of importance")
    parser.add_argument("--compile-mode", default="default", help="of torch.compile, such as max-autotune-no-cudagraphs")
    parser.add_argument("--tests", metavar="CMD", help="a command that tests parity; its last line is reported")
    parser.add_argument("--data", metavar="DIR", help="CIFAR-10, to train on in the minutes that remain")
    parser.add_argument("--train-args", default="", metavar="ARGS", help="more arguments for this training")
    parser.add_argument("--run-out", metavar="DIR", help="folder of this training, OUT/run if not said; from elsewhere "
                        "its log and pictures are copied to OUT")
    parser.add_argument("--train-margin", type=float, default=75, help="seconds for what training does after its minutes")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    # To try this script without a GPU.
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rust_args is None:
        args.rust_args = "--device cuda:0" if args.device == "cuda" else ""
    return args


def main():
    args = arguments()
    run = Run(args)
    run.machine = compare.machine(args)
    for name, function, budget, needed in ROWS:
        if not args.only or name in args.only:
            measure_row(run, name, function, budget, needed)
            run.save()
            (run.out / "table.md").write_text(table(run) + "\n")
    print(table(run), flush=True)


if __name__ == "__main__":
    main()
