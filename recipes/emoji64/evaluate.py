"""Measures FID and KID of emoji64 by number of steps, by solver and by guidance, as its model card reports them.

    python evaluate.py SETS OUT [--undiffuse COMMAND] [--count 326]

SETS is `OUT/sets` of `recipes/emoji-features/render.mjs`. OUT gets `results.json`, to which each measurement is added as soon as it
is made, so that an interrupted run goes on where it was; `tables.md`; and `fid.svg`. Needs matplotlib.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE.parent.parent / "www/models/emoji64"

# The settings around which one is varied at a time: those of the model card.
USUAL = {"solver": "dpmpp_2m", "steps": 25, "guidance": 4.5}
STEPS = {"dpmpp_2m": [5, 8, 10, 15, 20, 25, 50, 100], "ddim": [5, 10, 25, 50]}
# Without lcm and tcd, which are for distilled networks, and flow_euler, which is for rectified flow.
# All of them come close to the same picture in many steps, so they are compared at few.
SOLVER_STEPS = 10
SOLVERS = [
    "ddpm", "ddim", "pndm", "lms", "euler", "euler_ancestral", "heun", "dpm2", "dpmpp_2m", "dpmpp_2s", "unipc", "deis",
]  # fmt: skip
GUIDANCE = [1.0, 2.0, 3.0, 4.5, 6.0, 7.5, 10.0]
REFERENCES = {"held-out": "pictures held out", "train": "training pictures"}

# What the training pictures themselves score, as perfect recall would.
RECALL = "train against held-out"


def settings():
    """Every setting to measure, each once."""
    wanted = [{**USUAL, "solver": solver, "steps": steps} for solver in STEPS for steps in STEPS[solver]]
    wanted += [{**USUAL, "solver": solver, "steps": SOLVER_STEPS} for solver in SOLVERS]
    wanted += [{**USUAL, "guidance": guidance} for guidance in GUIDANCE]
    return list({name(setting): setting for setting in wanted}.values())


def name(setting):
    return f"{setting['solver']}, {setting['steps']} steps, guidance {setting['guidance']}"


def run(command, *arguments):
    line = [*command.split(), "fid", *map(str, arguments), "--json"]
    return json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE).stdout)


def draw(setting, count):
    """What says how the pictures of a setting are drawn."""
    return [
        "--generated", MODEL, "--prompts", HERE / "prompts.txt", "--count", count, "--steps", setting["steps"],
        "--solver", setting["solver"], "--guidance-scale", setting["guidance"],
    ]  # fmt: skip


def measure(arguments, results, file):
    def keep(key, value):
        results[key] = value
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as folder:
        references = {key: pathlib.Path(folder, f"{key}.safetensors") for key in REFERENCES}
        if RECALL not in results:
            keep(RECALL, run(arguments.undiffuse, "--real", arguments.sets / "held-out", "--generated", arguments.sets / "train"))
        generated = pathlib.Path(folder, "generated.safetensors")
        for setting in settings():
            if name(setting) in results:
                continue
            print(name(setting), flush=True)
            found = {}
            for key, statistics in references.items():
                real = [arguments.sets / key, "--save-real", statistics]
                if statistics.exists():
                    real = [statistics]
                # Drawn once, and compared with each of the references.
                drawn = ["--generated", generated]
                if not found:
                    drawn = [*draw(setting, arguments.count), "--save-generated", generated]
                found[key] = run(arguments.undiffuse, "--real", *real, *drawn)
            keep(name(setting), found)


def row(title, found):
    cells = [title]
    for key in REFERENCES:
        of = found[key]
        cells.append("{value:.2f} ± {standard_error:.2f}".format(**of["fid"]))
        cells.append("{value:.3f} ± {standard_error:.3f}".format(**of["kid"]))
    return f"| {' | '.join(cells)} |"


def table(title, rows):
    head = [title, *(f"{what}, {of}" for of in REFERENCES.values() for what in ("FID", "KID"))]
    return "\n".join([f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *rows])


def tables(results):
    by_steps = [
        row(f"{steps}, {solver}", results[name({**USUAL, "solver": solver, "steps": steps})])
        for solver in STEPS
        for steps in STEPS[solver]
    ]
    by_solver = [row(solver, results[name({**USUAL, "solver": solver, "steps": SOLVER_STEPS})]) for solver in SOLVERS]
    by_guidance = [row(f"{scale:g}", results[name({**USUAL, "guidance": scale})]) for scale in GUIDANCE]
    return "\n\n".join([table("steps", by_steps), table("solver", by_solver), table("guidance", by_guidance)]) + "\n"


def plot(results, path):
    import matplotlib

    matplotlib.use("svg")
    # The same bytes each time.
    matplotlib.rcParams["svg.hashsalt"] = "undiffuse"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(11, 6.6), layout="constrained", sharey="row")
    colours = {"dpmpp_2m": "#1f6feb", "ddim": "#d1741f"}
    for line, (key, title) in enumerate(REFERENCES.items()):
        by_steps, by_solver, by_guidance = axes[line]

        def values(wanted):
            found = [results[name(setting)][key] for setting in wanted]
            return [of["fid"]["value"] for of in found], [of["fid"]["standard_error"] for of in found]

        for solver, colour in colours.items():
            steps = STEPS[solver]
            fid, error = values([{**USUAL, "solver": solver, "steps": count} for count in steps])
            by_steps.errorbar(steps, fid, error, marker="o", markersize=4, capsize=2, color=colour, label=solver)
        by_steps.set_xscale("log")
        ticks = STEPS["dpmpp_2m"]
        by_steps.set_xticks(ticks, [str(steps) for steps in ticks])
        by_steps.minorticks_off()
        by_steps.set_xlabel("steps")
        by_steps.set_ylabel(f"FID, {title}")
        fid, error = values([{**USUAL, "solver": solver, "steps": SOLVER_STEPS} for solver in SOLVERS])
        by_solver.bar(SOLVERS, fid, yerr=error, capsize=2, color="#8aa4c8")
        by_solver.tick_params(axis="x", rotation=90)
        by_solver.set_xlabel(f"solver, {SOLVER_STEPS} steps")
        fid, error = values([{**USUAL, "guidance": scale} for scale in GUIDANCE])
        by_guidance.errorbar(GUIDANCE, fid, error, marker="o", markersize=4, capsize=2, color=colours["dpmpp_2m"])
        by_guidance.set_xlabel("guidance scale")
        for axis in axes[line]:
            axis.grid(axis="y", color="#dddddd", linewidth=0.6)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_ylim(bottom=0)
            if key == "held-out":
                recall = results[RECALL]["fid"]["value"]
                axis.axhline(recall, color="#666666", linewidth=0.8, linestyle=":", label="the training pictures themselves")
        by_steps.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--undiffuse", default="undiffuse", help="the command, with options of all its calls if need be")
    parser.add_argument("--count", type=int, default=326, help="pictures of each setting; 326 is two of each prompt")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "results.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    measure(arguments, results, file)
    (arguments.out / "tables.md").write_text(tables(results), encoding="utf-8")
    plot(results, arguments.out / "fid.svg")


if __name__ == "__main__":
    main()
