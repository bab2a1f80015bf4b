"""Run: pytest tests/eval/test_report.py. The page of a full run, of hostile ones and of empty ones."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval.report import _choose, write_report
from tiny_reasoning_jax.eval.statistics import paired_difference, summarize

CATEGORIES = ("arithmetic", "algebra", "geometry", "probability", "logic", "code")
ATTACK = "$\\x$<script>alert('x')</script><img src=\"https://example.com/x.png\">\ud800\x00&amp;"
SECTIONS = ("headline", "training", "accuracy", "samples", "data", "cost", "configuration")
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Parses a page, checks that its tags are balanced, and keeps its tags, ids, attributes and text."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.attributes, self.text = [], [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1:]}>"
        self.open.pop()

    def handle_data(self, data):
        self.text += data


def make_samples(rng, rates, model):
    samples = []
    for number in range(480):
        category, difficulty = CATEGORIES[number % 6], number // 6 % 5 + 1
        rate = rates[0] - rates[1] * difficulty - 0.04 * (number % 6)
        verdict = "correct" if rng.random() < rate else ("wrong" if rng.random() < 0.85 else "unparsed")
        left, right = rng.integers(10, 10 ** (difficulty + 1), size=2)
        answer = str(left + right)
        given = {"correct": answer, "wrong": str(left + right + 10), "unparsed": None}[verdict]
        steps = [f"Add the digits of place {place}: carry {place % 2}." for place in range(4 * difficulty)]
        end = "" if given is None else f"\n</think>\n\n\\boxed{{{given}}}"
        samples.append({
            "model": model, "id": f"{category}-{number:04d}", "task": "procedural", "category": category,
            "difficulty": difficulty, "prompt": f"A farmer has {left} hens & buys {right}. How many now?",
            "completion": "<think>\n" + "\n".join(steps) + end, "extracted": given, "answer": answer,
            "verdict": verdict, "truncated": given is None, "num_tokens": 30 * difficulty,
        })  # fmt: skip
    return samples


def make_metrics(rng, num_steps=600):
    rows = []
    for step in range(1, num_steps + 1):
        loss = 0.35 + 5.6 * np.exp(-step / 60) + rng.normal(0, 0.05)
        rate = 3e-3 * min(1, step / 30) * (0.55 + 0.45 * np.cos(np.pi * step / num_steps))
        row = {
            "step": step, "loss": loss, "tokens": 8192 * step, "trained_tokens": 5000 * step,
            "grad_norm": abs(rng.normal(0.6, 0.1)) + 3 * np.exp(-step / 20), "learning_rate": rate,
            "tokens_per_second": rng.normal(14_000, 300), "data_wait_seconds": 0.002, "seconds": 0.6 * step,
        }  # fmt: skip
        if step % 50 == 0:
            row["validation_loss"] = loss + 0.04
        rows.append(row)
    return rows


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_workdir(path):
    """Writes what a finished run leaves behind."""
    rng = np.random.default_rng(0)
    (path / "eval").mkdir(parents=True)
    (path / "data").mkdir()
    before, after = make_samples(rng, (0.10, 0.02), "before"), make_samples(rng, (1.1, 0.12), "after")
    solved = [[sample["verdict"] == "correct" for sample in samples] for samples in (before, after)]
    results = {
        "before": {"model": "random, seed 0", "seconds": 31.0, "tasks": {"procedural": summarize(before)}},
        "after": {"model": "step 600", "seconds": 24.5, "tasks": {"procedural": summarize(after)}},
        "comparison": {"procedural": paired_difference(*solved)},
    }
    splits = {}
    for number, split in enumerate(("train", "validation", "test")):
        splits[split] = {
            "kept": 100_000 // 50**number, "tokens": 14_325_000 // 50**number,
            "length": {"mean": 143.3, "p50": 128, "p90": 260, "p99": 402, "max": 511},
            "by_category": {category: dict.fromkeys("12345", 3333 // 50**number) for category in CATEGORIES},
            "dropped": {} if number else {"longer than seq_len": 12, "duplicate": 3417},
        }  # fmt: skip
    summary = {"fingerprint": {"seed": 0, "data.source": "procedural"}, "vocab_size": 768, "splits": splits}
    config = {"workdir": "runs/x", "seed": 0, "stages": ["data"], "train": {"num_steps": 600, "b1": 0.9}}
    run = {
        "device": "TFRT_CPU_0 (cpu)", "num_parameters": 827_392, "train_seconds": 361.4, "tokens": 4_915_200,
        "eval_seconds": 55.5, "versions": {"python": "3.12.3", "jax": "0.10.2", "flax": "0.12.0"},
    }  # fmt: skip
    write_lines(path / "metrics.jsonl", make_metrics(rng))
    write_lines(path / "eval" / "samples.jsonl", before + after)
    for name, value in {
        "eval/results": results,
        "data/summary": summary,
        "config": config,
        "run": run,
    }.items():
        (path / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run and its page; tests that change files copy it."""
    workdir = make_workdir(tmp_path_factory.mktemp("runs") / "reason")
    return workdir, write_report(workdir)


def read(path):
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_page_of_a_finished_run_tells_the_whole_story(finished):
    workdir, path = finished
    text, page = read(path)
    assert path == workdir / "report.html" and path.stat().st_size < 2_000_000
    assert not list(workdir.glob("*.tmp"))
    positions = [text.index(f'id="{name}"') for name in SECTIONS]
    assert positions == sorted(positions)
    assert page.tags.count("h1") == 1 and page.tags.count("article") == 20 and page.tags.count("svg") == 3
    assert 'class="missing"' not in text
    results = json.loads((workdir / "eval" / "results.json").read_text())
    before, after = (results[when]["tasks"]["procedural"] for when in ("before", "after"))
    for cell in (before, after):
        assert f"{100 * cell['accuracy']:.1f}\u202f%" in page.text
        assert f"{100 * cell['ci95'][0]:.1f}\u2013{100 * cell['ci95'][1]:.1f}" in page.text
    assert "Accuracy rose from" in page.text and "p < 0.001" in page.text
    for shown in (
        *CATEGORIES,
        "difficulty 5",
        "longer than seq_len",
        "3,417",
        "6 min 1 s",
        "train.num_steps",
    ):
        assert shown in page.text


def test_heat_map_shows_every_category_at_every_difficulty(finished):
    workdir, path = finished
    summary = json.loads((workdir / "eval" / "results.json").read_text())["after"]["tasks"]["procedural"]
    cells = re.findall(r"<td style=\"--heat:([0-9.]+)\".*?<b>(\d+)</b><small>n = (\d+)</small>", path.read_text())
    expected = [cell for levels in summary["by_category_and_difficulty"].values() for cell in levels.values()]
    assert len(cells) == 30
    for (heat, shown, n), cell in zip(cells, expected, strict=True):
        assert float(heat) == pytest.approx(cell["accuracy"], abs=6e-4)
        assert (shown, int(n)) == (f"{100 * cell['accuracy']:.0f}", cell["n"])


def test_page_loads_nothing_from_outside_and_ids_are_unique(finished):
    text, page = read(finished[1])
    assert "http://" not in text and "https://" not in text
    assert not {"script", "link", "iframe", "img", "object"} & set(page.tags)
    assert len(page.ids) == len(set(page.ids))
    for _, name, value in page.attributes:
        if name in ("href", "src"):
            assert value.startswith("#") and value[1:] in page.ids
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


def test_everything_a_model_or_a_data_set_wrote_is_escaped(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "<b>&run")
    lines = [json.loads(line) for line in (workdir / "eval" / "samples.jsonl").read_text().splitlines()]
    for sample in lines:
        sample |= dict.fromkeys(("prompt", "completion", "answer", "category", "task"), ATTACK)
        sample["extracted"] = sample["extracted"] and ATTACK
    write_lines(workdir / "eval" / "samples.jsonl", lines)
    hostile = {ATTACK: {ATTACK: [ATTACK, {}]}, f"{ATTACK}2": {"a": {ATTACK: 1}, ATTACK: {ATTACK: ATTACK}}}
    edit_json(workdir / "data" / "summary.json", lambda value: value.update(hostile))
    edit_json(workdir / "config.json", lambda value: value.update({ATTACK: ATTACK}))
    edit_json(workdir / "run.json", lambda value: value.update({ATTACK: None, "device": ATTACK}))

    def rename(results):
        for when in ("before", "after"):
            summary = results[when]["tasks"].pop("procedural")
            for key in ("by_category", "by_category_and_difficulty"):
                summary[key][ATTACK] = summary[key].pop("logic")
            results[when] |= {"model": ATTACK, "tasks": {ATTACK: summary}}
        results["comparison"] = {ATTACK: results["comparison"]["procedural"]}

    edit_json(workdir / "eval" / "results.json", rename)
    text, page = read(write_report(workdir))
    assert not {"script", "img", "b&run"} & set(page.tags)
    assert page.text.count("<script>alert('x')</script>") >= 60  # shown as text
    assert "&amp;amp;" in text


def test_long_texts_are_folded_and_cut(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    lines = [json.loads(line) for line in (workdir / "eval" / "samples.jsonl").read_text().splitlines()]
    lines = lines[480::8]
    for sample in lines:
        sample |= {"prompt": "<" * 100_000, "completion": "&" * 100_000, "answer": "9" * 100_000}
    write_lines(workdir / "eval" / "samples.jsonl", lines)
    path = write_report(workdir)
    text, _ = read(path)
    assert path.stat().st_size < 2_000_000
    assert "94,000 more characters in eval/samples.jsonl" in text
    assert text.count("<details") == 41  # problem and completion of 20 samples, and the configuration


def test_line_separators_inside_a_completion_do_not_break_a_line(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    path = workdir / "eval" / "samples.jsonl"
    line = json.loads(path.read_text().partition("\n")[0]) | {"completion": "a\u2028b\x85c"}
    path.write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
    assert "a\u2028b\x85c" in write_report(workdir).read_text(encoding="utf-8")


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
def test_half_an_evaluation_is_reported(finished, tmp_path, keep):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    edit_json(workdir / "eval" / "results.json", lambda value: [value.pop(k) for k in list(value) if k != keep])
    lines = [json.loads(line) for line in (workdir / "eval" / "samples.jsonl").read_text().splitlines()]
    write_lines(workdir / "eval" / "samples.jsonl", [line for line in lines if line["model"] == keep])
    _, page = read(write_report(workdir))
    assert f"Accuracy {keep} training" in page.text and "McNemar" not in page.text
    assert f"The model {keep} training" in page.text


@pytest.mark.parametrize(("low", "high", "word"), [(0.1, 0.3, "rose"), (-0.3, -0.1, "fell"), (-0.1, 0.1, "went")])
def test_headline_claims_no_more_than_the_interval(finished, tmp_path, low, high, word):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    comparison = {"difference": (low + high) / 2, "ci95": [low, high], "p_value": 0.04}
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
    with pytest.raises(UserError, match=f"{name}.* is not JSON .*; delete"):
        write_report(workdir)


def test_chosen_samples_spread_over_categories_and_difficulties():
    samples = make_samples(np.random.default_rng(0), (1.1, 0.12), "after")
    chosen = _choose(samples, 10)
    assert len({sample["id"] for sample in chosen}) == 10
    assert {sample["category"] for sample in chosen} == set(CATEGORIES)
    assert {sample["difficulty"] for sample in chosen} == {1, 2, 3, 4, 5}
    assert _choose(samples[::-1], 10) == chosen
    assert len(_choose(samples[:3], 10)) == 3
