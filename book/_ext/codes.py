"""Links every code (A8, T5, C3) in a page's or a notebook's text to its definition, with its meaning as a tooltip,
keeps a number and its unit on one line, and takes the marks of nbval out of the code that readers see.

A definition is an HTML anchor in a table of the chapters below, as in `| <span id="a8"></span>A8 | meaning | ...`.
"""

import re
from pathlib import Path

from docutils import nodes

HOMES = ("book/not-said", "book/claims", "book/mutants")
DEFINED = re.compile(r"^[|-] <span id=\"([\w-]+)\"></span>([A-Z]\d+'?) ?(?:\| )?([^|\n]+)", re.MULTILINE)
CODE = re.compile(r"(?<![\w.'’-])([A-HKT]\d{1,2}['’]?)(?![\w%])")
BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|px)(?!\w))")
MARK = "# NBVAL_CHECK_OUTPUT"
AS_WRITTEN = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw)
WITHOUT_LINKS = (nodes.reference, nodes.title, *AS_WRITTEN)


def definitions(source: Path) -> dict[str, tuple[str, str, str]]:
    """Code -> (page, anchor, meaning)."""
    found = {}
    for page in HOMES:
        text = (source / f"{page}.md").read_text(encoding="utf-8")
        for anchor, code, meaning in DEFINED.findall(text):
            found.setdefault(code, (page, anchor, re.sub(r"[*`]|\{\w+\}", "", meaning).strip()))
    return found


def link(app, doctree: nodes.document, page: str) -> None:
    """Replace the codes in the text of `page`, but for those in titles, links, code and formulas."""
    known = definitions(Path(app.srcdir))
    for block in list(doctree.findall(nodes.literal_block)):  # nbval's marks are for nbval
        if block.rawsource.startswith(MARK) or block.astext().startswith(MARK):
            text = block.astext().removeprefix(MARK).lstrip("\n")
            block.replace_self(nodes.literal_block(text, text, **block.attributes))
    for text in list(doctree.findall(nodes.Text)):
        above = text.parent
        while above is not None and not isinstance(above, WITHOUT_LINKS):
            above = above.parent
        unbroken = BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", text.astext())
        parts = CODE.split(unbroken) if above is None else [unbroken]
        if isinstance(above, AS_WRITTEN) or parts == [text.astext()]:
            continue
        made = []
        for i, part in enumerate(parts):
            code = part.replace("’", "'")
            if i % 2 and code in known:
                home, anchor, meaning = known[code]
                title = {} if home == page else {"reftitle": f"{code}: {meaning}"}
                target = f"{app.builder.get_relative_uri(page, home)}#{anchor}"  # on its own page: #anchor
                made.append(nodes.reference("", part, refuri=target, internal=True, **title))
            elif part:
                made.append(nodes.Text(part))
        text.parent.replace(text, made)


def setup(app) -> dict:
    app.connect("doctree-resolved", link)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
