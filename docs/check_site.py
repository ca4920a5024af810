"""Checks the built site: no link leads nowhere, nothing is loaded from elsewhere, every image says what it shows."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a page loads when it opens, as tag and attribute. Other addresses are only followed.
LOADED = {(tag, "src") for tag in ("img", "script", "iframe", "source", "video", "audio", "embed", "input", "track")}
LOADED |= {("object", "data"), ("video", "poster")}
LOADING_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "manifest"}


class Page(HTMLParser):
    """The addresses, the ids and the images without a text in the HTML of a page."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.leads, self.ids, self.silent = [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.update(found[name] for name in ("id", "name") if found.get(name))
        if tag == "img" and "alt" not in found:
            self.silent.append(found.get("src", ""))
        loads = tag == "link" and LOADING_LINKS & set(found.get("rel", "").split())
        self.loads += [part.split()[0] for part in (found.get("srcset") or "").split(",") if part.strip()]
        for name in ("src", "href", "data", "poster"):
            if found.get(name):
                (self.loads if loads or (tag, name) in LOADED else self.leads).append(found[name])


def check_site(site, repository, release, root):
    """Yield what is wrong with the site in the folder `site`, one sentence each.

    Links to files of the repository are looked up in its checkout `root`.
    """
    paths = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]  # the theme's own templates
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in paths}
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        for address in page.silent:
            yield f"{name}: the image {address} has no text that says what it shows."
        for address in page.loads:
            if is_elsewhere(address):
                yield f"{name} loads {address} from elsewhere."
        for address in {*page.loads, *page.leads}:
            if is_elsewhere(address):
                if not in_repository(address, repository, release, root):
                    yield f"{name} links to {address}, which is not in the repository."
            elif not is_there(address, path, pages):
                yield f"{name} links to {address}, which is not on the site."
    for path in sorted(site.rglob("*.css")):
        for address in re.findall(
            r"(?:url\(\s*|@import\s+(?!url))['\"]?([^'\")\s;]+)", path.read_text(encoding="utf-8")
        ):
            if urlsplit(address).netloc:
                yield f"{path.relative_to(site).as_posix()} loads {address} from elsewhere."


def is_elsewhere(address):
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme not in ("", "data")


def in_repository(address, repository, release, root):
    """Whether a link to a file of the repository leads to one; all other links do."""
    match = re.match(rf"{re.escape(repository)}/(?:blob|tree|raw)/{re.escape(release)}/([^#?]*)", address)
    return not match or (root / unquote(match[1])).exists()


def is_there(address, path, pages):
    """Whether an address on the page at `path` leads to a file of the site and, in it, to an element."""
    parts = urlsplit(address)
    if parts.scheme == "data":
        return True
    target = Path(path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return False
    return not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].ids
