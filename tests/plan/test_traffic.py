"""pytest tests/plan/test_traffic.py: benchmarks/traffic.py reads a compiled program as it is, or stops."""

import sys
from pathlib import Path

import pytest

MODULE = """HloModule jit_step, is_scheduled=true

%fused_add (a: bf16[4,8], b: bf16[4,8]) -> bf16[4,8] {
  %a = bf16[4,8]{1,0} parameter(0)
  %b = bf16[4,8]{1,0} parameter(1)
  ROOT %sum = bf16[4,8]{1,0} add(%a, %b)
}

%body (s: s32[]) -> s32[] {
  ROOT %s = s32[] parameter(0)
}
FUSED
ENTRY %main (x: bf16[4,8], w: bf16[8,8]) -> bf16[4,8] {
  %x = bf16[4,8]{1,0} parameter(0)
  %w = bf16[8,8]{1,0} parameter(1)
  %call = (bf16[4,8]{1,0}, /*index=1*/s8[64]{0}) custom-call(%x, %w), custom_call_target="__cublas$lt$matmul", metadata={op_name="a) %b"}
  %y = bf16[4,8]{1,0} get-tuple-element(%call), index=0
  %out = (bf16[4,8]{1,0}, f32[4,4]{1,0}) custom-call(%y), custom_call_target="__cudnn$fmhaSoftmax"
  %z = bf16[4,8]{1,0} get-tuple-element(%out), index=0
  %loop = s32[] while(%n), condition=%body, body=%body
  ROOT %result = bf16[4,8]{1,0} fusion(%z, %x), kind=kLoop, calls=%CALLED
}
"""  # noqa: E501
WITH_PRODUCT = """
%fused_dot (a: bf16[4,8], b: bf16[8,8]) -> bf16[4,8] {
  %a = bf16[4,8]{1,0} parameter(0)
  %b = bf16[8,8]{1,0} parameter(1)
  ROOT %product = bf16[4,8]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""


@pytest.fixture
def traffic(monkeypatch):
    """The benchmark, whose import sets the environment."""
    for name in ("XLA_FLAGS", "JAX_PLATFORMS", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
        monkeypatch.setenv(name, "")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import traffic

    yield traffic
    for name in ("traffic", "plan"):
        del sys.modules[name]


def module(fused: str, called: str) -> str:
    return MODULE.replace("FUSED", fused).replace("CALLED", called)


def test_kernels_and_bytes_by_kind(traffic):
    a, w = 4 * 8 * 2, 8 * 8 * 2
    assert traffic.count(module("", "fused_add")) == {
        "products": [1, a + 64 + a + w], "attention": [1, a + 4 * 4 * 4 + a], "rest": [1, 3 * a],
    }  # fmt: skip


def test_what_is_not_understood_stops_it(traffic):
    with pytest.raises(SystemExit, match="a product that cuBLAS does not compute"):
        traffic.count(module(WITH_PRODUCT, "fused_dot"))
    with pytest.raises(KeyError, match="missing"):
        traffic.count(module("", "fused_add").replace("fusion(%z, %x)", "fusion(%missing)"))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [("f32[]", 4), ("pred[3]", 3), ("(bf16[2,3]{1,0}, s8[5]{0})", 17), ("u16[7]{0:T(128)}", 14), ("s32[0]", 0)],
)
def test_bytes_of_a_shape(traffic, shape, expected):
    assert traffic.num_bytes(shape) == expected
