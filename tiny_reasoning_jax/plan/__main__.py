"""The plan stage alone: python -m tiny_reasoning_jax.plan --config configs/reason.py:1.7b --config.plan.gpu=h100"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.argv.append("--config.stages=plan")
    runpy.run_path(str(Path(__file__).parents[2] / "main.py"), run_name="__main__")
