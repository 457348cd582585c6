"""The stubs that editors read are those of the op table."""
import importlib
import re

import pytest
from stubs import ROOT, stubs

from minillm.kernels import select


@pytest.mark.parametrize("path, text", [pytest.param(path, text, id=str(path.relative_to(ROOT)))
                                        for path, text in stubs().items()])
def test_it_is_up_to_date(path, text):
    assert path.read_text(encoding="utf-8") == text, "run python tests/stubs.py"


@pytest.mark.skipif(select._cpp is None, reason="no kernels are built")
def test_kernels_have_what_their_stub_says():
    (text,) = [text for path, text in stubs().items() if path.name == "scalar.pyi"]
    names = re.findall(r"^(\w+) = ", text, re.M)
    module = importlib.import_module(select._cpp.__name__)
    assert len(names) > 30 and all(hasattr(module, name) for name in names)
