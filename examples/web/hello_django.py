"""Django in one file; in a project of yours it is `mysite.wsgi:application`."""
# mypy: disable-error-code=import-untyped

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path


def hello(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"hello from process {os.getpid()}\n", content_type="text/plain")


urlpatterns = [path("", hello)]
settings.configure(ALLOWED_HOSTS=["localhost", "127.0.0.1"], ROOT_URLCONF=__name__)
application = get_wsgi_application()
