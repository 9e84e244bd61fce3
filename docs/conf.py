"""How the site is made of the Markdown in this repository: `make docs`.

The source folder is the repository itself, so that a link from one page to another is the same relative path on the
site as where the files are read one by one. Links to files that are no pages lead to copies of these.
"""

from __future__ import annotations

import builtins
import inspect
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["PACKETCORE_PURE"] = "1"  # what is written in Python has signatures, and its fields have docstrings

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.nodes import find_pending_xref_condition

from packetcore import AsyncEvent, Host, Wiretap, __version__
from packetcore.framings import Framing

if TYPE_CHECKING:
    from docutils.nodes import Element, TextElement
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

ROOT = Path(__file__).resolve().parent.parent

project = "packetcore"
author = "the authors of packetcore"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/api/*.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "cli/README.md",
    "cluster/README.md",
    "conformance/README.md",
    "tap/README.md",
    "transports/*/README.md",
    "examples/*/README.md",
]
exclude_patterns = [".*", "build", "dist"]

html_theme = "furo"
html_title = "packetcore"
pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_extra"]  # index.html at the top, which leads to the first page
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False

myst_heading_anchors = 4
myst_linkify_fuzzy_links = False
myst_fence_as_directive: list[str] = []

nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"packetcore\w*(\.\w+)*\.[A-Z]"),  # type variables
    ("py:.*", r"packetcore\w*(\.\w+)*\._\w+\.\w+"),  # types in signatures that no namespace makes public
]
default_role = "py:obj"
python_use_unqualified_type_names = True
autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    # Save what these give to all: what a private class above a public one has is public there.
    "inherited-members": "object,BaseException,Exception,tuple,Enum,Thread,Generic,Protocol",
}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"

OURS = re.compile(r"packetcore(_[a-z]+)?(\.|$)")
NAMESPACES = (
    "packetcore",
    "packetcore.framings",
    "packetcore.testing",
    "packetcore_sockets",
    "packetcore_asyncio",
    "packetcore_gevent",
    "packetcore_twisted",
    "packetcore_blocking",
    "packetcore_tap",
    "packetcore_cluster",
    "packetcore_conformance.simulation",
)
"""Where names are public. A class says the private module that it is written in."""

SECTIONS = Config(napoleon_use_rtype=False, napoleon_use_ivar=True)
"""How `Args`, `Returns`, `Raises` and `Attributes` of a docstring are shown."""


def resolve(app: Sphinx, env: BuildEnvironment, node: Element, contnode: TextElement) -> nodes.Node | None:
    """Find a name of ours by its public place; leave one of Python or another library as text.

    A word between backticks in a docstring that names nothing documented is just code. Only a type of ours that
    stands in no public namespace is left to the warning.
    """
    if node.get("refdomain") != "py":
        return None
    if (short := find_pending_xref_condition(node, "*")) is not None:
        contnode = short.children[0]  # of a type in a signature, its last name
    target = node["reftarget"]
    name = target.rpartition(".")[2] if OURS.match(target) else target
    domain = env.domains.python_domain
    for space in NAMESPACES:
        if f"{space}.{name}" in domain.objects:
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", f"{space}.{name}", node, contnode)
    if node.get("reftype") == "obj" or not OURS.match(target):
        return contnode
    return None


def without_builtins(app: Sphinx, doctree: nodes.document) -> None:
    """`type` in a signature is Python's own, and no field of that name."""
    for node in list(doctree.findall(pending_xref)):
        if node.get("refdomain") == "py" and node.get("reftype") == "class" and node["reftarget"] in vars(builtins):
            short = find_pending_xref_condition(node, "*")
            node.replace_self(node.children if short is None else short.children)


def as_rst(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings here are sentences, with words of code between backticks; what is set in behind a blank line is a
    block of it."""
    if what == "data":
        lines[:] = below(name)
    if lines[:1] and lines[0].startswith("Alias for field number"):
        lines.clear()
    if what == "method" and not any(lines):
        lines[:] = promised(name.rpartition(".")[2])
    told: list[str] = []
    text, code = 0, None  # how far the last line of text, and the open block of code, are set in
    for line in lines:
        if line.strip():
            indent = len(line) - len(line.lstrip())
            if code is not None and indent < code:
                code = None
            if code is None and told and not told[-1].strip() and indent >= text + 4:
                told += [" " * text + "::", ""]
                code = indent
            if code is None:
                text = indent
                line = re.sub(r"(`[^`]+`)(?=\w)", r"\1\\ ", line)
                if line.count("*") % 2:
                    line = line.replace("*", "\\*")
        told.append(line)
    if what not in ("attribute", "data", "property"):  # these have no Args, and may have a colon
        told = str(GoogleDocstring(told, SECTIONS, app, what, name, obj, options)).splitlines()
    lines[:] = told


def promised(method: str) -> list[str]:
    """What a protocol says of a method, where a class that keeps it says nothing."""
    for protocol in (Framing, Host, Wiretap, AsyncEvent):
        if (told := inspect.getdoc(getattr(protocol, method, None))) and hasattr(protocol, method):
            return told.splitlines()
    return []


def below(name: str) -> list[str]:
    """The string below a constant or an alias, in whichever module it was written."""
    space, _, short = name.rpartition(".")
    for module in [each for each in sys.modules if each.startswith(f"{space}.")]:
        if module.rpartition(".")[2] != "_speedups":
            found = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", short))
            if found is not None:
                return list(found)
    return []


def without_private(app: Sphinx, name: str, obj: type, options: object, bases: list[Any]) -> None:
    bases[:] = [base for base in bases if not OURS.match(str(base.__module__)) or is_public(base)]


def is_public(base: Any) -> bool:
    """Whether a class, with or without its parameters, stands in a public namespace."""
    name = getattr(base, "__origin__", base).__name__
    return any(name in getattr(sys.modules.get(space), "__all__", ()) for space in NAMESPACES)


def contents(page: str) -> str:
    """What contents.txt puts below a page, chapter by chapter, in words of Sphinx: the pages themselves go without."""
    chapters: dict[str, list[str]] = {}
    chapter, above = "", ""
    for line in (ROOT / "docs/contents.txt").read_text(encoding="utf-8").splitlines()[1:]:
        name, depth = line.strip(), line.count("    ")
        if depth == 0:
            chapter = f":caption: {name}\n"
        elif page == (root_doc if depth == 1 else above):
            found = sorted(str(path.relative_to(ROOT).with_suffix("")) for path in ROOT.glob(f"{name}.md"))
            chapters.setdefault(chapter if depth == 1 else "", []).extend(f"/{each}" for each in found)
        if depth == 1:
            above = name
    return "".join(
        f"\n```{{toctree}}\n:hidden:\n{options}\n{chr(10).join(pages)}\n```\n" for options, pages in chapters.items()
    )


def lead(app: Sphinx, page: str, source: list[str]) -> None:
    """Lead links to the repository's own page to the site's first, and those to a folder to its page or to nothing."""
    here = (ROOT / page).parent

    def replaced(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        if re.match(r"[a-z]+:", target):
            return found[0]
        path = (here / target).resolve()
        if path == ROOT / "README.md":
            return f"{text}({os.path.relpath(ROOT / 'docs/index.md', here)})"
        if path.is_dir():
            if (readme := path / "README.md").is_file() and app.project.path2doc(readme) in app.project.docnames:
                return f"{text}({os.path.relpath(readme, here)}{anchor})"
            return text[1:-1]
        return found[0]

    source[0] = re.sub(r"^```(?:mermaid|conf)$", "```text", source[0], flags=re.M)  # which Pygments does not know
    source[0] += contents(page)
    source[0] = re.sub(r"(\[[^\]]*\])\(([^)#\s]+)(#[^)\s]*)?\)", replaced, source[0])


def pages_above(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """The pages that others stand below: a new page, or a line of contents.txt, changes them and not their files."""
    return [root_doc, *(page for page in env.found_docs if contents(page))]


def listed(app: Sphinx, failure: Exception | None) -> None:
    """Links that lead out are not followed, since there may be no network. They are listed."""
    if failure is None:
        found = {
            node["refuri"]
            for page in app.env.found_docs
            for node in app.env.get_doctree(page).findall(nodes.reference)
            if node.get("refuri", "").startswith("http")
        }
        links = Path(app.outdir).parent / "external-links.txt"
        links.write_text("".join(f"{link}\n" for link in sorted(found)), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-docstring", as_rst)
    app.connect("autodoc-process-bases", without_private)
    app.connect("source-read", lead)
    app.connect("doctree-read", without_builtins)
    app.connect("env-get-outdated", pages_above)
    app.connect("build-finished", listed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
