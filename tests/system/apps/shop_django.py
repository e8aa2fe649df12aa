"""A shop in Django, in one file. See test_serve_frameworks.py."""

import json

from django.conf import settings  # type: ignore[import-untyped]
from django.core.wsgi import get_wsgi_application  # type: ignore[import-untyped]
from django.http import (  # type: ignore[import-untyped]
    HttpRequest,
    HttpResponse,
    JsonResponse,
    StreamingHttpResponse,
)
from django.urls import path  # type: ignore[import-untyped]

from tests.system.apps.pieces import TYPE, pieces


def hello(_request: HttpRequest, name: str) -> HttpResponse:
    return HttpResponse(f"hello {name}", content_type=TYPE)


def add(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"sum": sum(json.loads(request.body)["numbers"])})


def form(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.POST["name"], content_type=TYPE)


def stream(request: HttpRequest) -> HttpResponse:
    return StreamingHttpResponse(pieces(request.GET["gate"]), content_type=TYPE)


def where(request: HttpRequest) -> HttpResponse:
    client = request.META["REMOTE_ADDR"]
    return HttpResponse(f"{request.build_absolute_uri()} from {client}", content_type=TYPE)


def error(_request: HttpRequest) -> HttpResponse:
    raise RuntimeError("out of stock")


urlpatterns = [
    path("hello/<str:name>", hello),
    path("sum", add),
    path("form", form),
    path("pieces", stream),
    path("where", where),
    path("error", error),
]
settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "root": {"handlers": ["console"]},
    },
)
app = get_wsgi_application()
