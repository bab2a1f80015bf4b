"""The report's browser of samples: a bounded choice of them inside the page, and the script that filters and shows it.

What a model wrote is untrusted. It lies in the page as JSON without a single "<", and the script puts it on the
screen as text, never as HTML; the page's policy runs no script but this one.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable

MAX_SAMPLES = 500  # in the page
MAX_BYTES = 3_000_000  # of all of them; fewer samples are shown where they are long
MAX_PROMPT_CHARS = 2000
MAX_COMPLETION_CHARS = 4000
MAX_ANSWER_CHARS = 300
SHOWN = (
    "model", "task", "id", "sample", "category", "difficulty", "prompt", "completion", "extracted", "how", "answer",
    "verdict", "truncated", "unclosed", "num_tokens", "detail",
)  # fmt: skip


def shorten(sample: dict) -> dict:
    """A sample with the texts that the page shows, of a bounded length; the middle goes, because the end decides."""
    return sample | {
        "prompt": _cut(sample["prompt"], MAX_PROMPT_CHARS),
        "completion": _cut(sample["completion"], MAX_COMPLETION_CHARS),
        "answer": _cut(sample["answer"], MAX_ANSWER_CHARS),
        "extracted": sample["extracted"] and _cut(sample["extracted"], MAX_ANSWER_CHARS),
        "detail": _cut(sample["detail"], MAX_ANSWER_CHARS),
    }


def _cut(text: str, max_chars: int) -> str:
    left_out = len(text) - max_chars
    if left_out <= 0:
        return text
    half = max_chars // 2
    return f"{text[:half]}\u2026 [{left_out:,} characters left out here; see eval/samples.jsonl] \u2026{text[-half:]}"


def choose(samples: list[dict]) -> list[dict]:
    """Up to MAX_SAMPLES samples by a fixed rule: every task, model and outcome in turn, and within them every
    category and difficulty. The order of the file does not matter.
    """
    kind = lambda s: (s["task"], s["model"], s["verdict"], s["truncated"], s["how"] == "last number")
    digest = lambda s: hashlib.sha256(s["id"].encode(errors="replace")).digest()
    shuffled = sorted(samples, key=lambda s: (digest(s), s["task"], s["model"], s["sample"]))
    by_cell = _by_turns(shuffled, lambda sample: (*kind(sample), sample["category"], sample["difficulty"]))
    return _by_turns(by_cell, kind)[:MAX_SAMPLES]


def _by_turns(samples: list[dict], group: Callable[[dict], tuple]) -> list[dict]:
    """The first of every group, then the second of every group, and so on."""
    seen: Counter[tuple] = Counter()
    turns = []
    for sample in samples:
        turns.append((seen[group(sample)], sample))
        seen[group(sample)] += 1
    return [sample for _, sample in sorted(turns, key=lambda turn: turn[0])]


def browser(samples: list[dict]) -> str | None:
    """The HTML of the browser over shortened samples: form, data, script; None without samples."""
    if not samples:
        return None
    lines, num_bytes = [], 0
    for sample in choose(samples):
        line = _to_json({name: sample[name] for name in SHOWN})
        num_bytes += len(line.encode(errors="replace"))
        if num_bytes > MAX_BYTES:
            break
        lines.append(line)
    note = "All" if len(lines) == len(samples) else f"{len(lines):,} of"
    return BROWSER.format(
        note=f"{note} {len(samples):,} samples are in this page", data=",\n".join(lines), script=SCRIPT
    )


def _to_json(sample: dict) -> str:
    """JSON that a page may hold in a script element: nothing in it can end the element or begin another."""
    text = json.dumps(sample, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


BROWSER = """<p class="note">{note}; a fixed rule goes round tasks, models, outcomes, categories and difficulties. The
address of the page keeps the filter, so that a view can be linked.</p>
<noscript><p class="note">Without JavaScript the samples stay hidden; eval/samples.jsonl has them all.</p></noscript>
<form id="filter">
<label>outcome <select name="verdict"><option value="">all</option><option value="correct">correct</option><option
value="wrong">wrong</option><option value="unparsed">no answer</option><option value="truncated">cut off</option><option
value="unclosed">still thinking</option><option value="weak">weak (last number)</option></select></label>
<label>task <select name="task"><option value="">all</option></select></label>
<label>model <select name="model"><option value="">all</option></select></label>
<label>category <select name="category"><option value="">all</option></select></label>
<label>difficulty <select name="difficulty"><option value="">all</option></select></label>
<label class="text">text <input name="text" type="search" placeholder="words in problem, completion or id"></label>
</form>
<p id="count" class="note" aria-live="polite"></p>
<div id="found"></div>
<button id="more" type="button" hidden>Show more</button>
<script type="application/json" id="samples-data">[{data}]</script>
<script>{script}</script>"""

SCRIPT = """
"use strict";
const PER_PAGE = 20, FOLD_CHARS = 600, PREFIX = "#samples?";
const samples = JSON.parse(document.getElementById("samples-data").textContent);
const [form, count, found, more] = ["filter", "count", "found", "more"].map(id => document.getElementById(id));
const FIELDS = ["task", "model", "category", "difficulty"];
const OUTCOMES = {
  correct: s => s.verdict === "correct",
  wrong: s => s.verdict === "wrong",
  unparsed: s => s.verdict === "unparsed",
  truncated: s => s.truncated,
  unclosed: s => s.unclosed,
  weak: s => s.how === "last number",
};
const MARKS = { correct: "\\u2713 correct", wrong: "\\u2717 wrong", unparsed: "? no answer" };
const searchable = samples.map(s =>
  [s.id, s.prompt, s.completion, s.extracted, s.answer, s.detail].join("\\n").toLowerCase());
let matching = [];

function make(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function fold(title, text, isOpen) {
  const details = make("details", "", "");
  details.open = isOpen;
  details.append(make("summary", "", title), make("pre", "", text));
  return details;
}

function makeCard(sample) {
  const card = make("article", sample.verdict, "");
  const tags = make("p", "tags", "");
  tags.append(make("b", "", MARKS[sample.verdict]));
  const facts = [sample.task, sample.model, sample.category,
    sample.difficulty ? "difficulty " + sample.difficulty : "no level",
    sample.num_tokens.toLocaleString("en") + " tokens", sample.id + ", sample " + (sample.sample + 1)];
  if (sample.truncated) facts.push("cut off");
  if (sample.unclosed) facts.push("still thinking");
  if (OUTCOMES.weak(sample)) facts.push("weak: last number");
  for (const fact of facts) tags.append(make("span", "", fact));
  const answers = make("p", "answers", "answered ");
  answers.append(sample.extracted === null ? make("em", "", "nothing") : make("code", "", sample.extracted));
  if (sample.answer) answers.append(", expected ", make("code", "", sample.answer));
  if (sample.detail) answers.append("; ", make("span", "detail", sample.detail));
  card.append(tags, fold("prompt", sample.prompt, sample.prompt.length <= FOLD_CHARS), answers,
    fold("what the model wrote", sample.completion, sample.completion.length <= FOLD_CHARS));
  return card;
}

function showMore() {
  const shown = found.children.length;
  found.append(...matching.slice(shown, shown + PER_PAGE).map(makeCard));
  more.hidden = found.children.length >= matching.length;
}

function filter() {
  const wanted = new FormData(form);
  const words = wanted.get("text").toLowerCase().split(/\\s+/).filter(Boolean);
  const outcome = wanted.get("verdict");
  matching = samples.filter((sample, index) =>
    (!outcome || OUTCOMES[outcome]?.(sample)) &&
    FIELDS.every(name => !wanted.get(name) || String(sample[name]) === wanted.get(name)) &&
    words.every(word => searchable[index].includes(word)));
  count.textContent = matching.length + " of these " + samples.length + " match";
  found.replaceChildren();
  showMore();
}

function readAddress() {
  const isFilter = location.hash.startsWith(PREFIX);
  const wanted = new URLSearchParams(isFilter ? location.hash.slice(PREFIX.length) : "");
  for (const control of form.elements) {
    const value = wanted.get(control.name) ?? "";
    const isChoice = control.tagName === "SELECT";
    if (isChoice && ![...control.options].some(option => option.value === value)) control.add(new Option(value));
    if (control.value !== value) control.value = value;
  }
  filter();
  if (isFilter && !form.contains(document.activeElement)) document.getElementById("samples").scrollIntoView();
}

function writeAddress() {
  const wanted = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  location.replace(PREFIX + wanted);
}

for (const name of FIELDS) {
  const values = [...new Set(samples.map(sample => String(sample[name])))].sort();
  for (const value of values) form.elements[name].add(new Option(value));
  form.elements[name].parentElement.hidden = values.length < 2;
}
form.addEventListener("input", writeAddress);
form.addEventListener("submit", event => event.preventDefault());
more.addEventListener("click", showMore);
addEventListener("hashchange", readAddress);
readAddress();
"""
