"""Run: pytest tests/eval/test_report_samples.py. The browser of samples: what it holds, and that no text can run."""

import base64
import hashlib
import html
import itertools
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from fake_run import CATEGORIES, make_samples, make_workdir, read_lines, write_eval, write_lines
from parsed_page import read

from tiny_reasoning_jax.eval.report import write_report
from tiny_reasoning_jax.eval.report_samples import MAX_SAMPLES, SCRIPT, choose

ATTACK = (
    '$\\x$</script><script>document.title=\'hit\'</script><img src="https://example.com/x.png" onerror="document.'
    "title='hit'\"><!--<script>\ud800\x00&amp;\u2028\x85"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run; tests that change files copy it."""
    return make_workdir(tmp_path_factory.mktemp("runs") / "reason")


def embedded(page):
    """The samples in a page, as its script reads them."""
    return json.loads(page.scripts[0])


def attacked(workdir):
    """A run that has the attack wherever a model, a data set or a user may write."""
    samples = read_lines(workdir / "eval" / "samples.jsonl")
    for sample in samples:
        sample |= dict.fromkeys(("prompt", "completion", "answer", "category", "task", "detail"), ATTACK)
        sample |= {"id": sample["id"] + ATTACK, "extracted": sample["extracted"] and ATTACK}
    write_eval(workdir, samples)
    hostile = {ATTACK: {ATTACK: [ATTACK, {}]}, f"{ATTACK}2": {"a": {ATTACK: 1}, ATTACK: {ATTACK: ATTACK}}}
    for name, more in {
        "data/summary": hostile,
        "config": {ATTACK: ATTACK, "data": {"curriculum": ATTACK}},
        "run": {ATTACK: None, "device": ATTACK},
        "eval/results": {},
    }.items():
        value = json.loads((workdir / f"{name}.json").read_text()) | more
        if name == "eval/results":
            value["before"]["model"] = value["after"]["model"] = ATTACK
            value["after"]["settings"]["eval"]["protocol"] = ATTACK
        (workdir / f"{name}.json").write_text(json.dumps(value))
    return workdir


def test_everything_a_model_or_a_data_set_wrote_is_text(finished, tmp_path):
    workdir = attacked(shutil.copytree(finished, tmp_path / "<b>&run{body}"))
    text, page = read(write_report(workdir))
    assert not {"img", "b&run"} & set(page.tags) and page.tags.count("script") == 2
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert "<b>&run{body}: report" in page.text
    assert page.text.count("<script>document.title='hit'</script>") >= 15  # shown as text
    shown = embedded(page)
    assert len(shown) > 100 and all("</script><script>" in sample["completion"] for sample in shown)
    assert not set("<>&") & set(page.scripts[0])


def test_the_policy_allows_this_script_alone_and_it_writes_no_html(finished):
    _, page = read(write_report(finished))
    (policy,) = (value for tag, name, value in page.attributes if tag == "meta" and "default-src" in value)
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy and "default-src 'none'" in policy
    assert page.scripts[1] == SCRIPT and len(page.scripts) == 2
    assert not re.search("innerHTML|outerHTML|insertAdjacentHTML|document.write|eval|Function|fetch|import", SCRIPT)


def test_the_samples_in_the_page_are_those_of_the_file(finished):
    _, page = read(write_report(finished))
    samples = {(s["model"], s["id"]): s for s in read_lines(finished / "eval" / "samples.jsonl")}
    shown = embedded(page)
    assert len(shown) == MAX_SAMPLES and f"500 of {len(samples):,} samples are in this page" in page.text
    for sample in shown:
        assert sample.items() <= samples[sample["model"], sample["id"]].items()


def test_long_texts_are_cut_in_the_middle_and_bound_the_page(finished, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    samples = read_lines(workdir / "eval" / "samples.jsonl")[::6]
    for sample in samples:
        long = {"prompt": "<" * 100_000, "completion": "a" + "&" * 99_998 + "z", "answer": "9" * 100_000}
        sample |= long | {"extracted": sample["extracted"] and "8" * 100_000}
    write_lines(workdir / "eval" / "samples.jsonl", samples)
    path = write_report(workdir)
    assert path.stat().st_size < 3_500_000
    shown = embedded(read(path)[1])
    assert 60 < len(shown) < len(samples)
    for sample in shown:
        assert sample["completion"].startswith("a&") and sample["completion"].endswith("&z")
        assert "96,000 characters left out here; see eval/samples.jsonl" in sample["completion"]


def test_line_separators_inside_a_completion_do_not_break_a_line(finished, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    path = workdir / "eval" / "samples.jsonl"
    line = read_lines(path)[0] | {"completion": "a\u2028b\x85c"}
    path.write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
    _, page = read(write_report(workdir))
    assert [sample["completion"] for sample in embedded(page)] == ["a\u2028b\x85c"]
    assert "All 1 samples are in this page" in page.text


def test_chosen_samples_cover_every_outcome_of_every_model_category_and_difficulty():
    rng = np.random.default_rng(0)
    pairs = itertools.product(("before", "after"), ("a", "b"))
    samples = [sample for model, task in pairs for sample in make_samples(rng, model, task, n=960, k=2)]
    chosen = choose(samples)
    assert len(chosen) == MAX_SAMPLES == len({(s["task"], s["model"], s["id"], s["sample"]) for s in chosen})
    assert choose(samples[::-1]) == chosen
    count = lambda **facts: sum(all(sample[name] == value for name, value in facts.items()) for sample in chosen)
    for task in "ab":
        for model in ("before", "after"):
            assert 80 < count(task=task, model=model) < 170
            for verdict in ("correct", "wrong", "unparsed"):
                assert count(task=task, model=model, verdict=verdict) >= min(
                    25, sum((s["task"], s["model"], s["verdict"]) == (task, model, verdict) for s in samples)
                )
    for category in CATEGORIES:
        assert count(category=category, model="after", verdict="correct") >= 5
    for difficulty in range(1, 6):
        assert count(difficulty=difficulty, model="after", verdict="wrong") >= 5
    assert count(truncated=True) >= 50 and count(how="last number") >= 50
    assert len(choose(samples[:3])) == 3


# --- in a browser ---------------------------------------------------------------------------------


def browse(path, view=""):
    """The page after its script has run, as HTML."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    profile = path.parent / "browser"
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom"]
    command = [browser, *options, f"file://{path}{view}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_a_linked_view_is_filtered_in_a_browser(finished):
    path = write_report(finished)
    shown = embedded(read(path)[1])
    dom = browse(path, "#samples?verdict=wrong&model=after&difficulty=4")
    right = [s for s in shown if (s["verdict"], s["model"], s["difficulty"]) == ("wrong", "after", 4)]
    assert f"{len(right)} of these {len(shown)} match" in dom
    cards = re.findall(r'<article class="(\w+)">.*?<pre[^>]*>(.*?)</pre>', dom, re.DOTALL)
    assert [verdict for verdict, _ in cards] == ["wrong"] * min(20, len(right))
    assert [html.unescape(prompt) for _, prompt in cards] == [sample["prompt"] for sample in right[:20]]
    word = shown[7]["id"]
    assert "1 of these 500 match" in browse(path, f"#samples?text={word}&model={shown[7]['model']}")


def test_nothing_that_a_model_wrote_runs_in_a_browser(finished, tmp_path):
    dom = browse(write_report(attacked(shutil.copytree(finished, tmp_path / "run"))))
    assert "<title>run: report</title>" in dom and dom.count("<script") == 2 and "<img" not in dom
    assert re.search(r"(\d+) of these \1 match", dom)
