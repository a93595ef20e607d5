"""The pages of a home, put together.

What a step or a decision wrote is found by identity and shown under a policy that lets nothing run or load; the other
pages are drawn here.
"""

import re
from typing import Any

import jinja2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from phi3_assets.chat.page import Describe, Settings, make_chat
from phi3_assets.chat.serving import Models
from phi3_assets.core.errors import UserError
from phi3_assets.core.home import SHORT
from phi3_assets.core.ledger import product_key
from phi3_assets.core.manifest import Manifest, read_manifest
from phi3_assets.core.web_address import DECISION, LINEAGE, REPORT, page_path
from phi3_assets.release.history import DECISIONS
from phi3_assets.resources.origin import origin_of
from phi3_assets.resources.store import ArtifactStore
from phi3_assets.steps import EVAL_REPORT, RELEASE_BUNDLE
from phi3_assets.web.overview import overviews
from phi3_assets.web.server import GUARDED, POLICY

REPORT_FILE = "report.html"
# Written by a step or an op out of what rows and models say: escaped there, and powerless here all the same.
KEPT_PAGE = {
    POLICY: "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
}
_IDENTITY = re.compile(r"[0-9a-f]{64}")
_PRODUCT = re.compile(r"[a-z0-9-]{1,63}")
_PAGE_NAME = re.compile(r"[0-9a-f]{16}-[a-z0-9-]+\.html")


def make_app(store: ArtifactStore, models: Models, describe: Describe, settings: Settings) -> Starlette:
    """All pages.

    Args:
        store: Of the home.
        models: Those that the chat page asks.
        describe: Says who they are.
        settings: What the chat page starts with.
    """

    def index(request: Request) -> Response:
        return _drawn("index.html.j2", products=overviews(store), home=str(store.home_path))

    def report(request: Request) -> Response:
        manifest = _standing(store, EVAL_REPORT.name, request.path_params["identity"])
        content = (store.peek(manifest.ref, REPORT_FILE) / REPORT_FILE).read_text(encoding="utf-8")
        return HTMLResponse(content, headers=KEPT_PAGE)

    def linked_report(request: Request) -> Response:
        """A decision page links to reports as files of the home, so that it can be read without this server."""
        short = request.path_params["short"]
        if not re.fullmatch(rf"[0-9a-f]{{{SHORT}}}", short):
            raise HTTPException(404)
        try:
            identity = read_manifest(store.directory(EVAL_REPORT.name, short)).call.identity
        except FileNotFoundError:
            raise _gone(store, EVAL_REPORT.name, short) from None
        return RedirectResponse(page_path(REPORT, identity))

    def decision(request: Request) -> Response:
        product, name = request.path_params["product"], request.path_params["name"]
        if not (_PRODUCT.fullmatch(product) and _PAGE_NAME.fullmatch(name)):
            raise HTTPException(404)
        value = store.ledger.read(product_key(product, DECISIONS, name))
        if value is None:
            raise UserError(f"Product {product} of {store.home_path} has no decision page {name}.")
        return HTMLResponse(value.content, headers=KEPT_PAGE)

    def lineage(request: Request) -> Response:
        manifest = _standing(store, RELEASE_BUNDLE.name, request.path_params["identity"])
        origin = origin_of(store, manifest.ref)
        report = next((page_path(REPORT, one.identity) for one in origin.made if one.kind == EVAL_REPORT.name), "")
        versions = {name: version for one in origin.made for name, version in one.versions.items()}
        return _drawn("lineage.html.j2", origin=origin, report=report, versions=sorted(versions.items()))

    return Starlette(
        routes=[
            Route("/", index),
            Route(page_path(REPORT, "{identity}"), report),
            Route("/gen-model/eval_report/{short}/report.html", linked_report),
            Route(page_path(DECISION, "{product}", "{name}"), decision),
            Route(page_path(LINEAGE, "{identity}"), lineage),
            Mount("/chat", make_chat(models, describe, settings)),
            Mount("/static", StaticFiles(packages=[("phi3_assets.web", "static")])),
        ],
        middleware=GUARDED,
        exception_handlers={UserError: _told, HTTPException: _no_page},
    )


def _standing(store: ArtifactStore, kind: str, identity: str) -> Manifest:
    """The artefact that an address names.

    Raises:
        HTTPException: The address names none.
        UserError: It does not stand in this home.
    """
    if not _IDENTITY.fullmatch(identity):
        raise HTTPException(404)
    manifest = store.find(kind, identity)
    if manifest is None:
        raise _gone(store, kind, identity)
    return manifest


def _gone(store: ArtifactStore, kind: str, identity: str) -> UserError:
    return UserError(
        f"{kind} {identity[:SHORT]} does not stand in {store.home_path}. It was removed, or is of another home: then "
        "end this server and start `phi3 web --home` with that one."
    )


def _told(request: Request, error: Exception) -> Response:
    return _drawn("message.html.j2", status=404, message=str(error))


def _no_page(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return _drawn("message.html.j2", status=status, message="There is no such page.")


def _drawn(template: str, status: int = 200, **values: Any) -> Response:
    return HTMLResponse(_templates().get_template(template).render(**values), status)


def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("phi3_assets.web"),
        autoescape=True,  # names of files and recipes, and people's reasons: untrusted text
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
