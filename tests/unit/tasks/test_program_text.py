"""Which of a response's code blocks is the program."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.tasks.program_text import program_in


@pytest.mark.parametrize(
    ("text", "program"),
    [("```bash\npip install x\n```\nThen:\n```python\nprint(3)\n```\n", "print(3)"),
     ("```python\nprint(3)\n```\n```text\n3\n```\n", "print(3)"),
     ("1. So:\n   ```python\n   if 1:\n       print(3)\n   ```\n", "if 1:\n    print(3)"),
     ("```python\r\nif 1:\r\n    print(3)\r\n```\r\n", "if 1:\n    print(3)"),
     ("```python3.11\nprint(3)\n```", "print(3)"), ("````python\nprint('\\\n```\n')\n````", "print('\\\n```\n')"),
     ("~~~py\nprint(3)\n~~~", "print(3)"), ("```{.python}\nprint(3)\n```", "print(3)"),
     ('```python title="x"\nprint(3)\n```', "print(3)"),
     ("```python\ndef f():\n    '\\\n    ```\n    '\n```", "def f():\n    '\\\n    ```\n    '"),
     ("```pycon\n>>> 1\n```", None), ("```bash\nls\n```", None), ("```python\nprint(3)\n````x", "print(3)")],
)  # fmt: skip
def test_the_program_is_the_last_closed_block_of_python_or_of_no_language(text: str, program: str | None) -> None:
    assert program_in(text) == program


HALF = "```python\ndef f():\n    return (1,"
CARELESS = {
    "unclosed": ("Here:\n```python\nprint(1)\n", "print(1)"),
    "unclosed, and cut off": (HALF, None),
    "cut off after a draft": (f"```python\nprint(1)\n```\nBetter:\n{HALF}", "print(1)"),
    "unclosed before another": ("```python\nprint(1)\n\n```python\nprint(2)\n```\n", "print(2)"),
    "unclosed before the output": ("```python\nprint(1)\n\n```text\n1\n```\n", "print(1)"),
    "glued to the code": ("```python\nprint(1)```\nThat is it.", "print(1)"),
    "glued, then a sample": ("```python\nprint(1)```\n\nOutput:\n```\n1\n```", "print(1)"),
    "glued to the text": ("The program:```python\nprint(1)\n```", "print(1)"),
    "code on the fence's line": ("```python print(1)\n```", "print(1)"),
    "code glued to the tag": ("```pythonimport re\nprint(re)\n```", "import re\nprint(re)"),
    "more code after the fence's line": ("```python x = 1\nprint(x)\n```", "x = 1\nprint(x)"),
    "text after the fence": ("```python\nprint(1)\n``` and that is it", "print(1)"),
    "an untagged sample of output": ("```python\nprint(3)\n```\nOutput:\n```\n3\n```", "print(3)"),
    "a list as a sample": ("```python\nprint([1])\n```\nOutput:\n```\n[1]\n```", "print([1])"),
    "words as a sample": ("```python\nprint('YES')\n```\nIt prints\n```\nYES\n```", "print('YES')"),
    "an assignment as a sample": ("```python\nprint('x =', 3)\n```\nIt prints\n```\nx = 3\n```", "print('x =', 3)"),
    "a later untagged program": (
        '```python\nprint(1)\n```\nShorter:\n```\nfor i in range(3):\n    print(i)\n```',
        'for i in range(3):\n    print(i)',
    ),
    "a broken draft": ("```python\nprint(1\n```\nNow right:\n```python\nprint(1)\n```", "print(1)"),
    "a broken last one": ("```python\nprint(1)\n```\nor\n```python\nprint(1\n```", "print(1)"),
    "a broken one alone": ("```python\nprint(1\n```", "print(1"),
    "another language last": ("```python\nprint(1)\n```\nIn C:\n```c\nint x;\n```", "print(1)"),
    "thinking": ("<think>\n```python\nprint(0)\n```\n</think>\n```python\nprint(1)\n```", "print(1)"),
    "thinking without end": ("<think>\n```python\nprint(0)\n```", None),
    "a fence in prose": ("Put it in a ```python``` block.\n```python\nprint(1)\n```", "print(1)"),
    "a fence in a string": ("```python\ns = '```'\nprint(s)\n```", "s = '```'\nprint(s)"),
    "a fence in a docstring": (
        '```python\ndef f():\n    """\n    ```\n    f()\n    ```\n    """\n```',
        'def f():\n    """\n    ```\n    f()\n    ```\n    """',
    ),
    "a fence at the docstring's margin": (
        '```python\n"""\n```\nf()\n```\n"""\nprint(1)\n```',
        '"""\n```\nf()\n```\n"""\nprint(1)',
    ),
    "in a box": ("\\boxed{\n```python\nprint(1)\n```\n}", "print(1)"),
    "capitals": ("```Python\nprint(1)\n```", "print(1)"),
    "a file's name": ("```python main.py\nprint(1)\n```", "print(1)"),
    "no block": ("print(1)", None),
}  # fmt: skip


@pytest.mark.parametrize(("text", "program"), CARELESS.values(), ids=CARELESS.keys())
def test_a_program_is_found_however_carelessly_it_is_fenced(text: str, program: str | None) -> None:
    assert program_in(text) == program
    assert program_in(text.replace("\n", "\r\n")) == program


LINES = st.sampled_from(["```", "```python", "~~~", "x = 1", "    y = 2", "text", "", "print(1)```", "``` so", '"""', "````py"])


@settings(deadline=None, derandomize=True)
@given(st.lists(LINES, max_size=12))
def test_any_text_is_read_and_what_is_found_is_part_of_it(lines: list[str]) -> None:
    found = program_in("\n".join(lines))
    assert found is None or all(line.strip() in "\n".join(lines) for line in found.split("\n"))


@settings(deadline=None, derandomize=True)
@given(
    st.sampled_from(["x = 1", "def f():\n    return 1", "print(1)"]),
    st.text("ab \n", max_size=20),
    st.text("ab \n", max_size=20),
)
def test_a_properly_fenced_program_is_found_whatever_is_said_around_it(code: str, before: str, after: str) -> None:
    assert program_in(f"{before}\n```python\n{code}\n```\n{after}") == code
