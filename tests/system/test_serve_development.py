"""`--reload`: a change is a deploy, a mistake is a page. And what shells are told."""

import pytest

from tests.support import Instance, Sengu
from tests.system.puppets import of_type, wait_until
from tests.system.web import (
    ENVIRONMENT,
    Client,
    Response,
    Site,
    ask,
    fetch,
    parse_answer,
    serve,
    wait_watched,
)

TARGETS = ("plain:app", "plain:asgi")


def serve_watched(sengu: Sengu, site: Site, port: int, target: str = "plain:app") -> Instance:
    """When the files are watched."""
    instance = serve(sengu, site, port, "--workers", "1", "--reload", target=target)
    wait_watched(instance)
    return instance


def version(port: int) -> str:
    """Empty when the answer is a failure. For a moment of a deploy old workers answer as well."""
    response = fetch(port)
    return parse_answer(response).version if response.status == 200 else ""


def wait_for_failure(port: int) -> Response:
    found: list[Response] = []

    def has_failed() -> bool:
        found.append(fetch(port))
        return found[-1].status == 500

    wait_until(has_failed)
    return found[-1]


@pytest.mark.parametrize("target", TARGETS)
def test_a_change_of_a_file_is_a_deploy(sengu: Sengu, site: Site, port: int, target: str) -> None:
    instance = serve_watched(sengu, site, port, target)
    assert ask(port).version == "one"
    site.release("two")
    instance.wait_for_line(r"changed: version\.py.*; deploying")
    instance.wait_event(of_type("deploy_concluded", generation=2, outcome="succeeded"))
    wait_until(lambda: version(port) == "two")


@pytest.mark.parametrize("target", TARGETS)
def test_broken_code_is_shown_as_a_page_and_heals_when_it_is_corrected(
    sengu: Sengu, site: Site, port: int, target: str
) -> None:
    serve_watched(sengu, site, port, target)
    site.write("version.py", "import no_such_module")
    page = wait_for_failure(port)
    assert page.headers["Content-Type"].startswith("text/html")
    assert "No module named &#x27;no_such_module&#x27;" in page.text
    assert "version.py" in page.text
    site.release("three")
    wait_until(lambda: version(port) == "three")


@pytest.mark.parametrize("target", TARGETS)
def test_an_application_that_is_broken_from_the_start_is_waited_for(
    sengu: Sengu, site: Site, port: int, target: str
) -> None:
    site.write("version.py", "def broken(:")
    serve_watched(sengu, site, port, target)
    assert "SyntaxError" in fetch(port).text
    site.release("two")
    wait_until(lambda: version(port) == "two")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("options", [(), ("--reload",)], ids=["production", "development"])
def test_the_traceback_of_a_request_is_shown_to_developers_only(
    sengu: Sengu, site: Site, port: int, target: str, options: tuple[str, ...]
) -> None:
    instance = serve(sengu, site, port, "--workers", "1", *options, target=target)
    with Client(port) as client:
        response = client.fetch("/fail")
    assert response.status == 500
    assert ("RuntimeError: as asked for" in response.text) is bool(options)
    assert ("plain.py" in response.text) is bool(options)
    instance.wait_for_line("RuntimeError: as asked for")


def test_shells_complete_what_can_be_served(sengu: Sengu, site: Site) -> None:
    asked = {"_SENGU_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    words = {"COMP_WORDS": "sengu serve pl"}
    done = sengu.run(env=ENVIRONMENT | asked | words, cwd=site.directory)
    assert "plain,plain:app" in done.stdout.splitlines()
