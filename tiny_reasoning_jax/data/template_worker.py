"""The process that renders foreign chat templates for template.py, one line of JSON for one line of JSON.

It renders with transformers itself, so that the text is what every other tool makes of the template. It ends with its
input, and when the processor time or the memory of a render is used up.
"""

import json
import os
import resource
import signal
import sys

os.environ["USE_TORCH"] = "0"  # not needed here, and it would count as this process's memory

from tokenizers import Tokenizer, models  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

MAX_MEMORY = 1 << 30  # bytes of address space beyond what it starts with


def _limit_memory() -> None:
    with open("/proc/self/statm", encoding="ascii") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MAX_MEMORY, used + MAX_MEMORY))


def _render(tokenizer, question: dict) -> tuple[str, str]:
    """Returns (text, ""), or ("", what was wrong)."""
    try:
        given = {"chat_template": question["template"], "tokenize": False, **question["options"]}
        text = tokenizer.apply_chat_template(question["messages"], **given)
        text.encode()  # a template can spell half of a surrogate pair, which no tokenizer takes
        return text, ""
    except MemoryError:
        return "", "it took too much memory"
    except Exception as error:  # of a program that may do anything
        return "", f"{type(error).__name__}: {str(error)[:300]}"


def _main() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))  # knows nothing and need not
    _limit_memory()
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            question = json.loads(line)
            signal.setitimer(signal.ITIMER_PROF, question["seconds"])  # its signal ends the process
            reply = json.dumps(_render(tokenizer, question))
        except MemoryError:
            reply = '["", "it took too much memory"]'
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(reply, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which every process of a job may get; this one ends with its input
    _main()
