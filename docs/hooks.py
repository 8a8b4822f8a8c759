"""What building the site adds to MkDocs: links to the repository, the notebook as a page, `llms.txt`, and what docstrings are read for."""

from __future__ import annotations

import ast
import inspect
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

import prefect_happyhorse
import prefect_happyhorse.cli

# A warning fails a strict build.
_log = logging.getLogger("mkdocs.hooks.happyhorse")
_lines: dict[str, str] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave out what Prefect says of its blocks' docstrings, which it reads with Griffe too, as `<module>`; let defaults be words."""
    _say_defaults(prefect_happyhorse.cli.main)
    for handler in logging.getLogger("mkdocs").handlers:
        handler.addFilter(lambda record: "<module>:" not in record.getMessage())
    return config


def _say_defaults(command: click.Command) -> None:
    """mkdocs-click prints a default as Python does, also one that is none or that is looked up."""
    context = click.Context(command)
    # With the option --help, which is none of its `params`.
    for option in command.get_params(context):
        if isinstance(option, click.Option):
            is_told = callable(option.default) and isinstance(option.show_default, str)
            option.default = option.show_default if is_told else option.to_info_dict()["default"]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if (sub := command.get_command(context, name)) is not None:
                _say_defaults(sub)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Show the notebook as a page, so that it is found by the search and looks like the others."""
    notebook = json.loads((Path(config.docs_dir) / "notebook.ipynb").read_text(encoding="utf-8"))
    parts = [
        "".join(cell["source"]) if cell["cell_type"] == "markdown" else f"```python\n{''.join(cell['source'])}\n```"
        for cell in notebook["cells"]
    ]
    files.append(File.generated(config, "notebook.md", content="\n\n".join(parts) + "\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links out of `docs` lead to the repository, where the same page has them as they are written."""
    del files
    first = next(iter(re.findall(r"^(?![#>|!`:<\s-])[^\n]+(?:\n(?![\n#>|`])[^\n]+)*", markdown, re.MULTILINE)), "")
    sentence = re.match(r".*?[.:](?=\s|$)", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(first.split())))
    _lines[page.file.src_uri] = (sentence[0] if sentence else "").rstrip(":").rstrip(".")
    folder = Path(config.docs_dir) / Path(page.file.src_uri).parent

    def outside(link: re.Match[str]) -> str:
        target = (folder / link[1]).resolve()
        root = Path(config.docs_dir).resolve().parent
        if target.is_relative_to(root / "docs") or not target.exists():
            return link[0]
        return f"]({config.repo_url.rstrip('/')}/blob/main/{target.relative_to(root).as_posix()}"

    return re.sub(r"\]\((\.\./[^)#]+)", outside, markdown)


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Complain of every public object that has no docstring, and of whatever the package exports and no page of the reference names."""
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (Path(config.docs_dir) / "reference").glob("*.md"))
    shown = set(re.findall(r"^::: prefect_happyhorse\.([\w.]+)$", pages, re.MULTILINE))
    for name in sorted(undocumented()):
        _log.warning("%s is public and has no docstring.", name)
    for name in sorted({*prefect_happyhorse.__all__} - {"__version__"} - shown):
        _log.warning("prefect_happyhorse.%s is public, and no page in docs/reference names it with `:::`.", name)
    return nav


def on_post_build(config: MkDocsConfig) -> None:
    """Write `llms.txt`: every page of the navigation, with its first sentence."""
    lines = [f"# {config.site_name}", "", f"> {config.site_description}"]
    for section in config.nav or []:
        for title, pages in section.items():
            lines += ["", f"## {title}", ""]
            lines += [_line(name, page) for entry in pages for name, page in entry.items()]
    (Path(config.site_dir) / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _line(name: str, page: str) -> str:
    said = _lines.get(page)
    return f"- [{name}]({page.removesuffix('.md')}.html){f': {said}' if said else ''}"


def undocumented() -> Iterator[str]:
    """What of the package is public and has no docstring, nor a description: objects, methods, properties and fields."""
    for name in prefect_happyhorse.__all__:
        value = getattr(prefect_happyhorse, name)
        if inspect.isclass(value):
            yield from (f"{name}{member}" for member in _undocumented_in(value))
        elif callable(value) and not inspect.getdoc(getattr(value, "fn", value)):
            yield name


def _undocumented_in(kind: type) -> Iterator[str]:
    if not kind.__dict__.get("__doc__"):
        yield ""
    for name, member in vars(kind).items():
        wanted = isinstance(member, (property, classmethod, staticmethod)) or inspect.isfunction(member)
        if wanted and not name.startswith("_") and not inspect.getdoc(member):
            yield f".{name}"


class Docstrings(griffe.Extension):
    """Read a field's `description` as its docstring, and `Example:` as the section that Griffe calls `Examples:`."""

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **_: Any) -> None:
        """Take what `Field(description=...)` says."""
        call = getattr(node, "value", None)
        if attr.docstring is None and isinstance(call, ast.Call):
            for keyword in call.keywords:
                if keyword.arg == "description":
                    attr.docstring = griffe.Docstring(ast.literal_eval(keyword.value), parent=attr)

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
