"""Run: pytest tests/eval/test_report.py. The page of full runs, of half ones and of empty ones."""

import itertools
import json
import re
import shutil

import numpy as np
import pytest
from fake_run import CATEGORIES, make_metrics, make_workdir, read_lines, write_eval, write_lines
from parsed_page import read

from tiny_reasoning_jax import events
from tiny_reasoning_jax.errors import DamagedError, UserError
from tiny_reasoning_jax.eval.report import write_report
from tiny_reasoning_jax.eval.statistics import margin

SECTIONS = ("headline", "training", "accuracy", "samples", "data", "cost", "configuration")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run and its page; tests that change files copy it."""
    workdir = make_workdir(tmp_path_factory.mktemp("runs") / "reason")
    return workdir, write_report(workdir)


def numbers(text):
    """The percentages with their intervals in a page's tables."""
    return re.findall(r">(\d+\.\d) <small>(\d+\.\d\u2013\d+\.\d)</small>", text)


def shown(share, ci95):
    return f"{100 * share:.1f}", f"{100 * ci95[0]:.1f}\u2013{100 * ci95[1]:.1f}"


def load_tasks(workdir, label):
    return json.loads((workdir / "eval" / "results.json").read_text())[label]["tasks"]


def test_page_of_a_finished_run_tells_the_whole_story(finished):
    workdir, path = finished
    text, page = read(path)
    assert path == workdir / "report.html" and path.stat().st_size < 2_000_000
    assert not list(workdir.glob("*.tmp"))
    positions = [text.index(f'id="{name}"') for name in SECTIONS]
    assert positions == sorted(positions)
    assert page.tags.count("h1") == 1 and page.tags.count("svg") == 4
    assert 'class="missing"' not in text
    for label in ("before", "after"):
        summary = load_tasks(workdir, label)["procedural"]
        assert f"{100 * summary['accuracy']:.1f}\u202f%" in page.text
        for cell in (summary, *summary["by_category"].values(), *summary["by_difficulty"].values()):
            assert shown(cell["accuracy"], cell["ci95"]) in numbers(text)
        for name in ("unparsed", "unclosed", "truncated", "weak"):
            assert f"<td>{100 * summary[name] / 480:.1f}</td>" in text
        assert f"<td>{summary['tokens_per_correct']:,.0f}</td>" in text
        assert f"<td>{summary['mean_tokens']:,.0f}</td>" in text
    for words in (
        *CATEGORIES, "Accuracy rose from", "exact McNemar test p < 0.001", "difficulty 5", "longer than seq_len",
        "3,417", "6 min 1 s", "train.num_steps", "protocol chat, thinking True, temperature 0.6", "grader 2",
    ):  # fmt: skip
        assert words in page.text
    assert "someone" not in page.text  # the paths of eval.tasks


def test_several_tasks_with_several_samples_have_an_overview(tmp_path):
    tasks = ("gsm8k", "math", "humaneval")
    workdir = make_workdir(tmp_path / "run", tasks=tasks, n=60, k=4)
    samples = read_lines(workdir / "eval" / "samples.jsonl")
    for sample in samples:
        if sample["task"] == "humaneval":
            sample["how"] = sample["how"] and "program"
    write_eval(workdir, samples)
    text, page = read(write_report(workdir))
    assert "Accuracy on 3 tasks: 3 rose, 0 fell, 0 without a clear difference" in page.text
    assert text.index("overview") < text.index('id="training"') and page.text.count("sign-flip") == 3
    assert page.tags.count("svg") == 2 + 2 * len(tasks) and len(page.ids) == len(set(page.ids))
    for label, task in itertools.product(("before", "after"), tasks):
        summary = load_tasks(workdir, label)[task]
        assert shown(summary["accuracy"], summary["ci95"]) in numbers(text)
        for size in ("2", "4"):
            assert shown(summary["pass_at"][size], summary["pass_at_ci95"][size]) in numbers(text)
        if task == "humaneval":
            assert summary["maj_at_k"] is None
        else:
            assert shown(summary["maj_at_k"], summary["maj_at_k_ci95"]) in numbers(text)
    assert page.text.count("maj@4") == 2 and page.text.count("pass@4") == 3


def test_a_model_from_elsewhere_is_reported_alone(tmp_path):
    workdir = make_workdir(tmp_path / "run", models=("model",), n=60)
    text, page = read(write_report(workdir))
    rate = load_tasks(workdir, "model")["procedural"]["accuracy"]
    assert f"Accuracy: the model {100 * rate:.1f}\u202f% on 60 test problems (procedural)" in page.text
    assert not re.search(r"McNemar|sign-flip|before training|after training|>points<", text)


def test_a_task_without_categories_and_levels_has_no_parts(tmp_path):
    workdir = make_workdir(tmp_path / "run", models=("model",), tasks=("humaneval", "mbpp"), n=60)
    samples = read_lines(workdir / "eval" / "samples.jsonl")
    write_eval(workdir, [sample | {"category": "code", "difficulty": 0} for sample in samples])
    text, page = read(write_report(workdir))
    assert page.tags.count("svg") == 4 and "Category" not in page.text and ">points<" not in text


def test_a_task_that_one_model_was_not_asked_has_no_comparison(tmp_path):
    workdir = make_workdir(tmp_path / "run", tasks=("gsm8k", "math"), n=60)
    samples = read_lines(workdir / "eval" / "samples.jsonl")
    write_eval(workdir, [sample for sample in samples if sample["model"] == "after" or sample["task"] == "math"])
    text, page = read(write_report(workdir))
    rows = re.findall(r"<tr>(.*?)</tr>", text[text.index("overview") :].partition("</table>")[0])
    assert [len(re.findall("<t[hd]", row)) for row in rows] == [6] * 3
    assert "Accuracy on 2 tasks: 1 rose" in page.text and "(gsm8k)" in page.text
    assert page.text.count("exact McNemar") == 1


def test_what_chance_alone_may_do_is_computed(finished):
    _, page = read(finished[1])
    for n in (30, 164, 480, 500, 1319):
        assert f"{n:,} problems \u00b1{100 * margin(n):.1f}" in page.text


def points(svg):
    """Of the lines in an svg: the points of each."""
    paths = re.findall(r'<path d="([^"]+)"[^>]*stroke: var\(--good\); stroke-width: 1.2', svg)
    return [[float(y) for _, y in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path)] for path in paths]


def test_lengths_are_drawn_against_what_became_of_them(tmp_path):
    workdir = make_workdir(tmp_path / "run", models=("after",), n=160)
    samples = read_lines(workdir / "eval" / "samples.jsonl")
    for number, sample in enumerate(samples):  # the longer, the worse
        verdict = "correct" if number % 20 >= 2 * (number // 20) else "wrong"
        sample |= {"verdict": verdict, "how": "boxed", "num_tokens": 100 + number, "truncated": number == 153}
    write_eval(workdir, samples)
    text, page = read(write_report(workdir))
    (line,) = points(re.findall(r"<svg.*?</svg>", text, re.DOTALL)[-1])
    assert len(line) == 8
    np.testing.assert_allclose(np.diff(line), line[1] - line[0], atol=1e-3)
    assert line[1] > line[0]  # y grows downwards
    median = np.median([sample["num_tokens"] for sample in samples if sample["verdict"] == "correct"])
    assert f"correct {median:,.0f}" in page.text and "cut off 253" in page.text and "no answer" in page.text


@pytest.mark.parametrize("tokens", [[0], [7], [7, 7, 7], [1, 32768], [40, 41]])
def test_lengths_of_any_kind_are_drawn(tmp_path, tokens):
    workdir = make_workdir(tmp_path / "run", models=("after",), n=len(tokens))
    samples = read_lines(workdir / "eval" / "samples.jsonl")
    write_eval(workdir, [sample | {"num_tokens": count} for sample, count in zip(samples, tokens, strict=True)])
    assert "Completions by their length" in read(write_report(workdir))[1].text


def test_heat_map_shows_every_category_at_every_difficulty(finished):
    workdir, path = finished
    summary = json.loads((workdir / "eval" / "results.json").read_text())["after"]["tasks"]["procedural"]
    text = path.read_text()
    cells = re.findall(r"<td style=\"--heat:([0-9.]+)\".*?<b>(\d+)</b><small>n = (\d+)</small>", text)
    expected = [cell for levels in summary["by_category_and_difficulty"].values() for cell in levels.values()]
    assert len(cells) == 30
    for (heat, percent, n), cell in zip(cells, expected, strict=True):
        assert float(heat) == pytest.approx(cell["accuracy"], abs=6e-4)
        assert (percent, int(n)) == (f"{100 * cell['accuracy']:.0f}", cell["n"])
    assert "#samples?task=procedural&amp;model=after&amp;category=logic&amp;difficulty=5" in text


def test_page_loads_nothing_from_outside_and_ids_are_unique(finished):
    text, page = read(finished[1])
    assert "http://" not in text and "https://" not in text
    assert not {"link", "iframe", "img", "object"} & set(page.tags) and page.tags.count("script") == 2
    assert "default-src 'none'" in text
    assert len(page.ids) == len(set(page.ids))
    for _, name, value in page.attributes:
        if name in ("href", "src"):
            assert value.startswith("#") and value[1:].partition("?")[0] in page.ids
    for target in re.findall(r"url\(([^)]*)\)", text):
        assert target[0] == "#" and target[1:] in page.ids


def test_page_is_the_same_every_time(finished):
    workdir, path = finished
    text = path.read_bytes()
    assert write_report(workdir).read_bytes() == text


def edit_json(path, edit):
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


FILES = (
    "metrics.jsonl",
    "eval/results.json",
    "eval/samples.jsonl",
    "data/summary.json",
    "run.json",
    "config.json",
)


@pytest.mark.parametrize("missing", [FILES, *((name,) for name in FILES)], ids=str)
def test_a_missing_file_is_named_and_the_rest_is_written(finished, tmp_path, missing):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    for name in missing:
        (workdir / name).unlink()
    text, page = read(write_report(workdir))
    assert [name for name in SECTIONS if name in page.ids] == list(SECTIONS)
    assert text.count('class="missing"') == len(missing)
    for name in missing:
        assert f"No {name} in this folder" in page.text
    assert ("has not been evaluated yet" in page.text) == ("eval/results.json" in missing)


@pytest.mark.parametrize("keep", ["before", "after"])
def test_half_an_evaluation_is_reported(tmp_path, keep):
    _, page = read(write_report(make_workdir(tmp_path / "run", models=(keep,), n=60)))
    assert f"Accuracy: {keep} training" in page.text and "McNemar" not in page.text
    assert f"The last two columns are of \u201c{keep}\u201d" in page.text


def test_an_evaluation_by_an_earlier_version_is_refused_with_a_remedy(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    samples = read_lines(workdir / "eval" / "samples.jsonl")
    write_lines(workdir / "eval" / "samples.jsonl", [{k: v for k, v in s.items() if k != "how"} for s in samples])
    with pytest.raises(UserError, match="samples.jsonl was written by an earlier version.*sample 1 has no how.*=eval"):
        write_report(workdir)
    edit_json(workdir / "eval" / "results.json", lambda v: v["after"]["tasks"]["procedural"].pop("num_samples"))
    with pytest.raises(UserError, match=r"results.json was .*procedural \(after\) has no num_samples; evaluate again"):
        write_report(workdir)


@pytest.mark.parametrize(("low", "high", "word"), [(0.1, 0.3, "rose"), (-0.3, -0.1, "fell"), (-0.1, 0.1, "went")])
def test_headline_claims_no_more_than_the_interval(finished, tmp_path, low, high, word):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    comparison = {"n": 480, "difference": (low + high) / 2, "ci95": [low, high], "p_value": 0.04}
    edit_json(workdir / "eval" / "results.json", lambda v: v.update(comparison={"procedural": comparison}))
    _, page = read(write_report(workdir))
    assert f"Accuracy {word} from" in page.text
    assert ("no clear difference" in page.text) == (word == "went")


def test_a_short_and_a_long_training_are_drawn(tmp_path):
    rows = make_metrics(np.random.default_rng(0), 30_000)
    rows[3]["loss"] = float("nan")
    for number, part in enumerate((rows[:1], rows[:2], rows)):
        workdir = tmp_path / str(number)
        workdir.mkdir()
        write_lines(workdir / "metrics.jsonl", part)
        path = write_report(workdir)
        assert read(path)[1].tags.count("svg") == 2 and path.stat().st_size < 400_000


MIXTURE = (0.1, 0.2, 0.3, 0.25, 0.15)


def run_with_mixture(workdir, num_steps=400, asked=(1, 2, 3, 4, 5), edit=lambda rows: None):
    """The svg elements and the text of a page whose run noted a constant mixture and, if any were asked, pass rates."""
    rows = make_metrics(np.random.default_rng(0), num_steps)
    for row in rows:
        row |= {f"mixture_{level}": share for level, share in enumerate(MIXTURE, start=1)}
        if row["step"] % 100 == 0:
            row |= {f"pass_rate_{level}": (6 - level) / 5 for level in asked}
    edit(rows)
    write_lines(workdir / "metrics.jsonl", rows)
    text, page = read(write_report(workdir))
    return re.findall(r"<svg.*?</svg>", text, re.DOTALL), page


def height(svg, level):
    """Of the area in a level's colour: its vertical extent."""
    path = re.search(rf'<path d="([^"]+)" clip-path[^>]*fill: var\(--level-{level}\)', svg).group(1)
    y = [float(y) for y in re.findall(r"[ML] [-\d.]+ ([-\d.]+)", path)]
    return max(y) - min(y)


def lines(svg, level):
    """Of the lines in a level's colour: their points."""
    paths = re.findall(rf'<path d="([^"]+)"[^>]*stroke: var\(--level-{level}\); stroke-width: 1.8', svg)
    return [[(float(x), float(y)) for x, y in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path)] for path in paths]


def test_the_mixture_is_drawn_to_scale_above_the_accuracy_of_each_difficulty(tmp_path):
    (_, mixture, _), page = run_with_mixture(tmp_path)
    drawn = [height(mixture, level) for level in range(1, 6)]
    np.testing.assert_allclose(np.array(drawn) / sum(drawn), MIXTURE, atol=1e-4)
    curves = [lines(mixture, level) for level in range(1, 6)]
    assert [len(curve) for curve in curves] == [1] * 5 and all(len(curve[0]) == 4 for curve in curves)
    last = [curve[0][-1] for curve in curves]
    assert len({x for x, _ in last}) == 1
    np.testing.assert_allclose(np.diff([y for _, y in last]), last[1][1] - last[0][1], atol=1e-3)  # a fifth apart
    assert last[0][1] < last[4][1]  # y grows downwards: the easiest is highest
    assert "difficulty 1, easy" in page.text and "accuracy on validation problems" in page.text


def test_a_difficulty_that_was_not_asked_has_no_line_and_a_gap_is_bridged(tmp_path):
    def forget(rows):
        del rows[199]["pass_rate_2"]

    (_, mixture, _), _ = run_with_mixture(tmp_path, asked=(1, 2, 4), edit=forget)
    assert [len(lines(mixture, level)) for level in range(1, 6)] == [1, 1, 0, 1, 0]
    assert [len(lines(mixture, level)[0]) for level in (1, 2)] == [4, 3]


def test_the_caption_says_which_curriculum_and_of_how_many_problems(tmp_path):
    config = {"data": {"curriculum": "<i>", "control": True, "num_validation": 60}, "train": {"num_probe": 100}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    _, page = run_with_mixture(tmp_path)
    assert "curriculum: <i>, its draws shuffled (control)." in page.text
    assert "accuracy on 60 validation problems by difficulty, each of about 12 problems" in page.text


@pytest.mark.parametrize(("num_steps", "asked"), [(1, ()), (2, ()), (30, ()), (100, (3,))])
def test_a_short_run_without_a_probe_shows_its_mixture_alone(tmp_path, num_steps, asked):
    svgs, page = run_with_mixture(tmp_path, num_steps, asked)
    assert len(svgs) == 3 and page.text.count("share of the tokens trained on") == 1
    assert ("accuracy on" in page.text) == bool(asked)


def test_steps_of_an_older_program_have_no_mixture_and_do_no_harm(tmp_path):
    def forget(rows):
        rows[:] = [{key: row[key] for key in row if row["step"] > 250 or "_" not in key[-2:]} for row in rows]

    svgs, _ = run_with_mixture(tmp_path, edit=forget)
    assert len(svgs) == 3
    drawn = [height(svgs[1], level) for level in range(1, 6)]
    np.testing.assert_allclose(np.array(drawn) / sum(drawn), MIXTURE, atol=1e-4)


def test_a_step_written_twice_counts_once(tmp_path):
    rows = make_metrics(np.random.default_rng(0), 20)
    write_lines(tmp_path / "metrics.jsonl", [*rows, *rows[10:]])
    assert "over 20 steps" in read(write_report(tmp_path))[1].text


@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_named_with_a_remedy(finished, tmp_path, name):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    with (workdir / name).open("a", encoding="utf-8") as file:
        file.write('{"torn": ')
    if name == "metrics.jsonl":  # written line by line, where the others are replaced whole
        assert write_report(workdir).exists()
        with (workdir / name).open("a", encoding="utf-8") as file:
            file.write("\n")
    with pytest.raises(DamagedError if name.endswith("l") else UserError, match=f"{name}.* is not JSON .*; delete"):
        write_report(workdir)


def test_the_report_shows_where_a_run_was_interrupted(tmp_path):
    workdir = make_workdir(tmp_path / "w")
    for event in ({"event": "start"}, {"event": "save", "step": 100}, {"event": "start"},
                  {"event": "resume", "step": 100}, {"event": "signal", "name": "SIGTERM"}, {"event": "end"},
                  {"event": "start"}, {"event": "resume", "step": 230}, {"event": "end"}):  # fmt: skip
        events.record(workdir, **event)
    page = write_report(workdir).read_text()
    assert "went on, at step 100 (killed), at step 230 (stopped)." in page
    (workdir / events.FILE).unlink()
    assert "went on, at step" not in write_report(workdir).read_text()
