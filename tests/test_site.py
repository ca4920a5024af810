"""The site's pages made from the repository, and what the check of the built site finds."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from course.notebooks import results, weights_files

sys.path.append(str(ROOT / "docs"))
import pages
from check_site import check_site


def test_a_link_leads_to_the_page_that_shows_the_file_or_else_to_the_repository(monkeypatch):
    text = (
        "[lesson](../s03_first_convnet/README.md#data) [code](../../common/model.py#L3) [folder](../../benchmarks) "
        "[here](#data) [paper](https://arxiv.org/abs/1512.03385) ![map](images/steps.png)"
    )
    found = pages.local(text, "sessions/s04_three_iterations/README.md", "docs/sessions/s04_three_iterations.md")
    assert re.findall(r"\]\((.*?)\)", found) == [
        "s03_first_convnet.md#data",
        f"{pages.REPOSITORY}/blob/{pages.RELEASE}/common/model.py#L3",
        f"{pages.REPOSITORY}/tree/{pages.RELEASE}/benchmarks",
        "#data",
        "https://arxiv.org/abs/1512.03385",
        "../../sessions/s04_three_iterations/images/steps.png",
    ]
    monkeypatch.setattr(Path, "exists", lambda path: True)  # as the pages of the sessions do once the site is built
    again = pages.local(found, "docs/sessions/s04_three_iterations.md", "docs/sessions/s04_three_iterations.md")
    assert again == found


def test_both_notebooks_of_exercises_are_shown_by_one_page():
    for name in ("exercises", "solutions"):
        assert pages.page_of(f"sessions/s06_under_10k/{name}.ipynb") == "docs/exercises/s06_under_10k.md"


def test_a_link_to_the_demo_keeps_its_network():
    found = pages.local("[draw](demo/index.html?network=s06_under_10k)", "docs/index.md", "docs/sessions/x.md")
    assert found == "[draw](../demo/index.html?network=s06_under_10k){.external}"


def test_a_link_to_a_file_that_does_not_exist_is_refused():
    with pytest.raises(pages.PageError, match=r"README\.md links to common/none\.py, which does not exist"):
        pages.local("[code](common/none.py)", "README.md", "docs/index.md")


def test_images_of_other_sites_become_their_text():
    badges = "![torch](https://img.shields.io/badge/torch)\n[![Open in Colab](https://x.org/a.svg)](https://y.org/b)"
    assert pages.local(badges, "README.md", "docs/index.md") == "[Open in Colab](https://y.org/b)"


@pytest.mark.parametrize("code", ["`[0](none)`", "```python\nx[0](none)\n```", "````text\n```\n[0](none)\n```\n````"])
def test_code_has_no_links(code):
    assert pages.local(f"before\n\n{code}\n\nafter", "README.md", "docs/index.md") == f"before\n\n{code}\n\nafter"


def test_an_include_is_not_code():
    text = "```{include} x.md\n```\n[code](common/model.py)"
    assert pages.local(text, "README.md", "docs/index.md").endswith("/common/model.py)")


@pytest.fixture
def session_with_exercises(tmp_path):
    """A folder like that of a session, with one exercise."""
    text = new_markdown_cell("## Exercise 1", id="text")
    hint = new_markdown_cell("Think of *padding*.", id="hint", metadata={"tags": ["hint"]})
    check = new_code_cell("checks.one(answer)", id="check", metadata={"tags": ["check"]})
    wrong = new_code_cell("answer = 1", id="wrong", metadata={"tags": ["wrong"]})
    bootstrap = new_code_cell("import subprocess", id="bootstrap", metadata={"tags": ["bootstrap"]})
    solved = new_code_cell("answer = 2  # solution", id="one", metadata={"tags": ["exercise"]})
    stub = new_code_cell("answer = ...  # your code", id="one", metadata={"tags": ["exercise"]})
    nbformat.write(new_notebook(cells=[bootstrap, text, solved, hint, check, wrong]), tmp_path / "solutions.ipynb")
    nbformat.write(new_notebook(cells=[bootstrap, text, stub, check]), tmp_path / "exercises.ipynb")
    return tmp_path


def test_hints_and_solutions_are_folded_and_the_solution_comes_last(session_with_exercises):
    page = pages.exercises_page(session_with_exercises)
    folded = re.findall(r"<details><summary>(\w+)</summary>(.*?)</details>", page, re.DOTALL)
    assert [(name, text.strip()) for name, text in folded] == [
        ("Hint", "Think of *padding*."),
        ("Solution", "```python\nanswer = 2  # solution\n```"),
    ]
    open_text = re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)
    assert "answer = ...  # your code" in open_text and "checks.one(answer)" in open_text
    assert "answer = 2" not in open_text and "answer = 1" not in page and "subprocess" not in page
    assert page.index("checks.one") < page.index("answer = 2")


def test_every_record_is_a_row_and_those_whose_weights_are_committed_are_verified():
    rows = pages.runs().splitlines()[2:]
    records = [record for session in pages.sessions() for record in results(session.folder)]
    assert len(rows) == len(records) > 0
    for row, record in zip(rows, records, strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[1:3] == [record["variant"], str(record["seed"])]
        assert float(cells[3].split()[0]) == round(100 * record["metrics"]["test_accuracy"], 2)
        assert cells[7] == record["finished"][:10]
    for session in pages.sessions():
        verified = [row for row in rows if pages.link(session) in row and not row.endswith("|  |")]
        assert len(verified) == len(weights_files(results(session.folder)))


def test_a_picture_of_filters_shows_the_weights(tmp_path):
    import torch
    from safetensors.torch import save_file

    kernels = torch.tensor([[[[1.0, -2.0], [0.5, 0.0]]], [[[0.0, 0.0], [0.0, 1.0]]]])  # (2, 1, 2, 2)
    save_file(
        {"0.weight": kernels, "1.weight": torch.ones(4, 2, 3, 3), "step 1/0.weight": -kernels},
        tmp_path / "weights.safetensors",
    )
    assert pages.first_layer(tmp_path / "weights.safetensors") == kernels[:, 0].tolist()
    squares = re.findall(r'fill="(.*?)" fill-opacity="(.*?)"', pages.filters(tmp_path / "weights.safetensors"))
    assert squares[:3] == [(pages.ORANGE, "0.50"), (pages.BLUE, "1.00"), (pages.ORANGE, "0.25")]
    assert len(squares) == kernels.numel()


def test_a_colour_filter_is_shown_by_its_mean(tmp_path):
    import torch
    from safetensors.torch import save_file

    kernels = torch.randn(4, 3, 3, 3)
    save_file({"stem.weight": kernels}, tmp_path / "weights.safetensors")
    torch.testing.assert_close(torch.tensor(pages.first_layer(tmp_path / "weights.safetensors")), kernels.mean(1))


def test_a_docstring_is_plain_text_with_code_in_backticks():
    assert pages.plain(["w_k is a * b | c", "`x_k` (N,)"]) == [r"w\_k is a \* b \| c", "``x_k`` (N,)"]


def test_the_address_of_the_repository_is_defined_once(own_course):
    """After changing that one line and running `course index`, all links are those of the fork."""
    shutil.copytree(ROOT / "docs", own_course.root / "docs", ignore=shutil.ignore_patterns("_*"))
    project = own_course.root / "pyproject.toml"
    project.write_text(project.read_text().replace(pages.REPOSITORY, "https://github.com/Someone/fork"))
    assert own_course("index").returncode == 0
    assert "https://someone.github.io/fork/" in (own_course.root / "README.md").read_text()
    code = "import json, pages; print(json.dumps([pages.cards(), pages.REPOSITORY, pages.index.site_address()]))"
    environment = {**own_course.environment(), "PYTHONPATH": f"{own_course.root}{os.pathsep}{own_course.root}/docs"}
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=own_course.root, env=environment, capture_output=True, text=True, check=True
    )
    cards, repository, site = json.loads(printed.stdout)
    assert repository == "https://github.com/Someone/fork" and site == "https://someone.github.io/fork/"
    assert "github/Someone/fork" in cards and pages.REPOSITORY.removeprefix("https://github.com") not in cards


GOOD = '<html><body><h1 id="top">A page</h1><a href="#top">top</a><img src="a.png" alt="a plot"></body></html>'


@pytest.fixture
def built(tmp_path):
    """A site of two pages."""
    (tmp_path / "index.html").write_text(GOOD)
    (tmp_path / "other.html").write_text(GOOD.replace('href="#top"', 'href="index.html#top"'))
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "style.css").write_text("body { background: url(a.png) }")
    return tmp_path


def problems(site):
    return list(check_site(site, pages.REPOSITORY, pages.RELEASE, ROOT))


def test_a_good_site_passes(built):
    assert problems(built) == []


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ('<a href="none.html">', "none.html, which is not on the site"),
        ('<a href="other.html#none">', "other.html#none, which is not on the site"),
        ('<img src="b.png" alt="">', "b.png, which is not on the site"),
        ('<img src="a.png">', "the image a.png has no text that says what it shows"),
        ('<img src="https://img.shields.io/x.svg" alt="x">', "loads https://img.shields.io/x.svg from elsewhere"),
        ('<img src="other.html" srcset="https://x.org/b.png 2x" alt="x">', "loads https://x.org/b.png from elsewhere"),
        ('<object data="https://x.org/a.svg"></object>', "loads https://x.org/a.svg from elsewhere"),
        ('<embed src="https://x.org/a.svg">', "loads https://x.org/a.svg from elsewhere"),
        ('<script src="//cdn.org/a.js"></script>', "loads //cdn.org/a.js from elsewhere"),
        ('<link rel="stylesheet" href="https://fonts.org/a.css">', "loads https://fonts.org/a.css from elsewhere"),
        ('<link rel="preconnect" href="https://fonts.org">', "loads https://fonts.org from elsewhere"),
        (f'<a href="{pages.REPOSITORY}/blob/{pages.RELEASE}/none.py">', "none.py, which is not in the repository"),
    ],
)
def test_what_is_wrong_with_a_page_is_named(built, bad, sentence):
    (built / "index.html").write_text(GOOD.replace("</body>", f"{bad}</body>"))
    (found,) = problems(built)
    assert sentence in found and found.startswith("index.html")


@pytest.mark.parametrize(
    "style",
    ["@font-face { src: url('https://x.org/a') }", '@import "https://x.org/a";', "@import url(https://x.org/a);"],
)
def test_a_style_that_loads_from_elsewhere_is_named(built, style):
    (built / "style.css").write_text(style)
    assert problems(built) == ["style.css loads https://x.org/a from elsewhere."]
