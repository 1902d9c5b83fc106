"""Times glowflow and PyTorch in interleaved runs on one machine, and prints a Markdown table.

    python peers/compare.py --what train-step --levels 3 --steps 8 --hidden 512 --batch 16 --image 32 --rounds 7

Every program is a live, warmed-up process that waits on its stdin while the others run. The order of
runs rotates, so that drift of the machine (heat, other processes) affects all of them alike. A short
trial first selects the PyTorch variants to time: the fastest, and all close to it. The table compares
with the fastest of these, by the median of the timed runs.

`--what memory` runs one process per measurement instead, because a peak cannot be reset.

With `--device cuda` the GPU is measured: the CPU load is recorded, but does not suppress ratios.
"""

import argparse
import importlib.util
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
VARIANTS = ("eager", "channels_last", "linear", "compile", "compile_channels_last", "compile_linear")
REALNVP_VARIANTS = tuple(variant for variant in VARIANTS if not variant.endswith("linear"))
GRAPHS = tuple(variant + "_graphs" for variant in VARIANTS)
# Variants up to this factor slower than the best of the trial are still timed, because the trial is short and
# noisy.
CLOSE = 1.05
# CPU time of other processes, in cores, above which no ratio is printed. Threads that synchronise many times
# per step lose far more time to a competing process than it uses, and PyTorch loses most: such a run
# would overstate glowflow's advantage without bound.
QUIET = 0.1

# By default glibc returns large freed blocks to the kernel and faults them in again at the next step.
# PyTorch is faster if they are kept, and in huge pages. The environment is read only at process start.
KEEP_MEMORY = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=17179869184:"
                                 "glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=268435456"}
# For the smallest peak, the opposite: every large block is returned immediately (a fixed threshold does not grow).
RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "131072"}


def torch_command(args, mode, variant, *extra):
    command = [sys.executable, str(HERE / f"{args.architecture}_torch.py"), mode, "--variant", variant]
    names = ["levels", "hidden", "batch", "image", "threads"]
    names += ["steps", "coupling", "precision", "device"] if args.architecture == "glow" else ["blocks"]
    for name in names:
        command += [f"--{name}", str(getattr(args, name))]
    return command + list(extra)


def rust_command(args, *extra):
    settings = {"model.architecture": args.architecture, "model.levels": args.levels, "model.hidden": args.hidden,
                "model.image": f"[{args.image},{args.image},3]", "train.batch": args.batch}
    if args.architecture == "realnvp":
        settings["model.blocks"] = args.blocks
    else:
        settings["model.steps"] = args.steps
    if args.coupling != "affine":
        settings["model.coupling"] = f'"{args.coupling}"'
    command = [args.rust, "bench", *shlex.split(args.rust_args), "--precision", args.precision, *extra]
    for setting in [f"{k}={v}" for k, v in settings.items()] + args.rust_set:
        command += ["--set", setting]
    return command


def cuda_libraries():
    """Folders with CUDA's libraries: those of pip packages, whose layout varies between releases, and of the toolkit."""
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in spec.submodule_search_locations] if spec else []
    found = [library.parent for root in roots for name in ("libnvrtc.so", "libcublas.so", "libcublasLt.so")
             for library in sorted(root.glob(f"**/{name}*"))]
    found += [folder for folder in (Path("/usr/local/cuda/lib64"),) if folder.is_dir()]
    return list(dict.fromkeys(map(str, found)))


def environment(args, **more):
    if args.device == "cuda":
        named = os.environ.get("GLOWFLOW_CUDA_LIBRARIES")
        more["GLOWFLOW_CUDA_LIBRARIES"] = ":".join(([named] if named else []) + cuda_libraries())
    return {**os.environ, "RAYON_NUM_THREADS": str(args.threads), **more}


def group_cpu_seconds(group):
    """CPU time used by the live processes of a process group."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # the process has ended
            continue
        if int(fields[2]) == group:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def machine_cpu_seconds():
    """CPU time used by the whole machine, and time stolen by its host."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Server:
    """A process with the serve protocol: a line "train 3" in, a line {"seconds": [...]} out."""

    def __init__(self, name, command, env, stderr=None):
        self.name, self.seconds, self.turns, self.idle, self.strangers = name, [], [], [], []
        # A separate process group, so that helpers (the compiler's workers) count as its CPU time.
        self.process = subprocess.Popen(command, env=env, text=True, process_group=0,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)

    def ask(self, what, count):
        try:
            print(what, count, file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SystemExit(f"{self.name} ended (exit status {self.process.wait()}): {' '.join(self.process.args)}")
        seconds = json.loads(line)["seconds"]
        if len(seconds) != count:
            raise SystemExit(f"{self.name} answered {len(seconds)} times to {what} {count}")
        return seconds

    def measure(self, what, count):
        """Like `ask`, and records the CPU time, in cores, used by everything else on the machine during the request."""
        begin, machine, own = time.perf_counter(), machine_cpu_seconds(), self.cpu()
        seconds = self.ask(what, count)
        machine, own = machine_cpu_seconds() - machine, self.cpu() - own
        elapsed = time.perf_counter() - begin
        # The counters tick every 10 ms, so a short request can give a slightly negative value.
        self.strangers.append((max(machine - own, 0.0), elapsed))
        return seconds

    def cpu(self):
        return group_cpu_seconds(self.process.pid)

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def drop_slow(servers):
    """Stops the variants that are clearly slower than the best."""
    bar = CLOSE * min(s.trial for s in servers)
    for server in servers:
        if server.trial > bar and server.process.poll() is None:
            server.close()


def trial(args, request):
    """Warms up and briefly times one process per variant; keeps those that may be the fastest."""
    servers = []
    for variant in args.variants:
        server = Server(f"PyTorch {variant}", torch_command(args, args.what, variant, "--serve"),
                        environment(args, **KEEP_MEMORY))
        start = time.perf_counter()
        server.ask(request, 3)  # includes compilation
        server.warmup = time.perf_counter() - start
        server.trial = statistics.median(server.measure(request, args.trial))
        say(f"trial: {server.name} {server.trial * 1e3:.1f} ms (warm-up {server.warmup:.0f} s)")
        servers.append(server)
        if args.device == "cuda":  # a dozen processes would not fit into the GPU's memory
            drop_slow(servers)
    drop_slow(servers)
    return servers, [s for s in servers if s.process.poll() is None]


def time_by_turns(args):
    request = {"train-step": "train", "sample": "sample"}[args.what]
    tried, contenders = trial(args, request)
    torch_names = [s.name for s in contenders]
    if args.rust:
        # Sampling does not depend on the backward mode: one entry is enough.
        for backprop in ("stored", "reversible") if request == "train" else ("stored",):
            name = f"glowflow {backprop}" if request == "train" else "glowflow"
            server = Server(name, rust_command(args, "--serve", "--backprop", backprop), environment(args))
            server.ask(request, 3)
            contenders.append(server)

    for turn in range(args.rounds):
        shift = turn % len(contenders)
        for server in contenders[shift:] + contenders[:shift]:
            others = [s for s in contenders if s is not server]
            before, start = sum(s.cpu() for s in others), time.perf_counter()
            server.turns.append(server.measure(request, args.per_round))
            elapsed = time.perf_counter() - start
            server.idle.append((sum(s.cpu() for s in others) - before) / elapsed)
        say(f"round {turn + 1} of {args.rounds}:", *(f"{s.name} {statistics.median(s.turns[-1]) * 1e3:.1f} ms;"
                                                     for s in contenders))
    for server in contenders:
        server.close()
        server.seconds = [t for turn in server.turns for t in turn]
        server.median = statistics.median(server.seconds)

    best = min((s for s in contenders if s.name in torch_names), key=lambda s: s.median)
    noted = [pair for s in {*tried, *contenders} for pair in s.strangers]
    strangers = sum(used for used, _ in noted) / sum(elapsed for _, elapsed in noted)
    quiet = strangers <= QUIET or args.device == "cuda"
    lines = ["| program | median ms | min–max ms | images/s | PyTorch's best ÷ this |", "| --- | ---: | ---: | ---: | ---: |"]
    for s in contenders:
        ratio = f"{best.median / s.median:.2f}" if quiet or args.allow_busy else "disturbed"
        lines.append(f"| {s.name} | {s.median * 1e3:.1f} | {min(s.seconds) * 1e3:.1f}–{max(s.seconds) * 1e3:.1f} "
                     f"| {args.batch / s.median:.1f} | {ratio} |")
    lines += ["", "Trial of the PyTorch variants: " + ", ".join(f"{s.name.split()[1]} {s.trial * 1e3:.0f} ms" for s in tried) + ".",
              f"While one worked, the waiting processes used at most {max(max(s.idle) for s in contenders) * 100:.1f} % of one core.",
              f"Everything else on the machine used {strangers:.2f} cores on average."
              + ("" if quiet else f" **Above {QUIET}: this run was disturbed, and no ratio of its times means anything.**")]
    results = {"best": best.name, "trial": {s.name: s.trial for s in tried},
               "turns": {s.name: s.turns for s in contenders}, "median": {s.name: s.median for s in contenders},
               "strangers_cores": strangers, "quiet": quiet, "idle_cores": {s.name: s.idle for s in contenders}}
    return lines, results


def run_json(command, env):
    """The last line of a program's output, as JSON."""
    done = subprocess.run(command, env=env, text=True, stdout=subprocess.PIPE)
    if done.returncode:
        raise SystemExit(f"exit status {done.returncode}: {' '.join(command)}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_memory(args):
    """Peak memory of training steps versus depth."""
    rows, peak = {}, "peak_rss" if args.device == "cpu" else "device_peak_bytes"
    for steps in args.depths:
        args.steps = steps
        row = rows[steps] = {}
        for name, extra in (("PyTorch autograd", ()), ("PyTorch checkpoint", ("--checkpoint",))):
            runs = []
            for variant in args.variants:
                run = run_json(torch_command(args, "memory", variant, *extra), environment(args, **RETURN_MEMORY))
                # PyTorch's libraries are not part of its training memory: the idle process's memory is subtracted.
                run["work"] = run[peak] - run["state_bytes"] - run.get("idle_rss", 0)
                runs.append(run)
            row[name] = min(runs, key=lambda run: run["work"])
        for backprop in ("stored", "reversible") if args.rust else ():
            run = run_json(rust_command(args, "--memory", "--backprop", backprop), environment(args))
            run["work"] = run[peak] - run["state_bytes"]
            row[f"glowflow {backprop}"] = run
        say(f"K {steps}:", *(f"{name} {run['work'] / 2**20:.0f} MiB;" for name, run in row.items()))
    names = list(next(iter(rows.values())))
    without = ("resident memory in MiB: without weights, gradients, moments and (PyTorch) the idle process / in all."
               if args.device == "cpu" else "device memory in MiB: without weights, gradients and moments / in all.")
    lines = [f"Peak {without}", "",
             "| K | " + " | ".join(names) + " |", "| ---: |" + " ---: |" * len(names)]
    for steps, row in rows.items():
        cells = [f"{run['work'] / 2**20:.0f} / {run[peak] / 2**20:.0f}" for run in row.values()]
        lines.append(f"| {steps} | " + " | ".join(cells) + " |")
    return lines, {"rows": rows}


def output(*command):
    """The standard output of a command, or "unknown"."""
    try:
        return subprocess.run(command, text=True, capture_output=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def gpu():
    """Name and driver of the GPU."""
    lines = output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader").splitlines()
    return lines[0].replace(", ", ", driver ") if lines else "unknown"


def machine(args):
    """Description of the machine and the versions."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    torch = output(sys.executable, "-c", "import torch; print(torch.__version__, torch.backends.cpu.get_cpu_capability())")
    about = {"gpu": gpu()} if args.device == "cuda" else {}
    return {**about, "cpu": cpu, "threads": args.threads, "load_before": os.getloadavg()[0],
            "kernel": platform.release(), "python": platform.python_version(), "torch": torch,
            "glowflow": output(args.rust, "--version") if args.rust else "not run",
            "commit": output("git", "-C", str(HERE), "describe", "--always", "--dirty")}


def arguments():
    parser = argparse.ArgumentParser(description="glowflow and PyTorch, in interleaved runs")
    parser.add_argument("--what", choices=("train-step", "sample", "memory"), default="train-step")
    parser.add_argument("--architecture", choices=("glow", "realnvp"), default="glow", help="realnvp: train-step on the CPU in f32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--levels", type=int, help="default 3; realnvp: 2")
    parser.add_argument("--steps", type=int, default=8, help="of flow in a level (Glow)")
    parser.add_argument("--blocks", type=int, default=8, help="residual blocks of a coupling network (RealNVP)")
    parser.add_argument("--hidden", type=int, help="default 512; memory: 256; realnvp: 64")
    parser.add_argument("--batch", type=int, help="default 16; memory: 8")
    parser.add_argument("--image", type=int, help="height and width; default 32; memory: 64")
    parser.add_argument("--coupling", choices=("affine", "additive"), default="affine")
    parser.add_argument("--precision", choices=("f32", "tf32", "bf16"), default="f32",
                        help="of both; bf16 is autocast in PyTorch; tf32 is for --device cuda")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--per-round", type=int, default=3, help="repetitions per turn")
    parser.add_argument("--trial", type=int, default=5, help="repetitions of each PyTorch variant in the trial")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS + GRAPHS, help="PyTorch variants to try; default all "
                        "(memory: those without the compiler, whose own memory would count against it)")
    parser.add_argument("--depths", type=int, nargs="+", default=[4, 8, 16, 32, 48], help="K for --what memory")
    parser.add_argument("--rust", default=str(HERE.parent / "target/release/glowflow"), help="the glowflow program")
    parser.add_argument("--rust-args", metavar="ARGS", help="more arguments for it; default the device that PyTorch "
                        "has: \"--device cpu\" or \"--device cuda:0\"")
    parser.add_argument("--rust-set", action="append", default=[], metavar="KEY=VALUE", help="another --set for it")
    parser.add_argument("--no-rust", dest="rust", action="store_const", const=None, help="PyTorch only")
    parser.add_argument("--allow-busy", action="store_true", help="print ratios even of a disturbed run")
    parser.add_argument("--json", metavar="FILE", help="write everything measured there")
    args = parser.parse_args()
    memory, cuda, glow = args.what == "memory", args.device == "cuda", args.architecture == "glow"
    if not glow and (args.what != "train-step" or cuda or args.precision != "f32" or args.coupling != "affine"):
        parser.error("realnvp is compared by --what train-step, on the CPU, in f32")
    if args.rust_args is None:
        args.rust_args = f"--device {'cuda:0' if cuda else 'cpu'}"
    for name, value in (("levels", 3 if glow else 2), ("hidden", 64 if not glow else 256 if memory else 512),
                        ("batch", 8 if memory else 16), ("image", 64 if memory else 32),
                        ("variants", REALNVP_VARIANTS if not glow else VARIANTS[:3] if memory else VARIANTS + GRAPHS if cuda
                         else VARIANTS)):
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def main():
    args = arguments()
    about = machine(args)
    if about["load_before"] > 0.5 and args.device == "cpu":
        say(f"warning: the load is {about['load_before']:.1f}: something else is running, and disturbs every number below")
    settings = {k: v for k, v in vars(args).items() if k not in ("json", "rust")}
    lines, results = measure_memory(args) if args.what == "memory" else time_by_turns(args)
    if args.architecture == "realnvp":
        depth, kind = f"{args.blocks} blocks, ", "RealNVP"
    else:
        depth, kind = "" if args.what == "memory" else f"K {args.steps}, ", args.coupling
    print(f"{args.what}: L {args.levels}, {depth}hidden {args.hidden}, batch {args.batch} of {args.image}×{args.image}, "
          f"{kind}, {args.precision}\n")
    print("\n".join(lines))
    measured = f"{about['gpu']} (only the GPU has to be idle); " if "gpu" in about else ""
    print(f"\n{measured}{about['cpu']}, {about['threads']} threads, load {about['load_before']:.2f} before; PyTorch {about['torch']}; "
          f"{about['glowflow']} ({about['commit']})")
    if args.json:
        Path(args.json).write_text(json.dumps({"machine": about, "settings": settings, **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
