"""The clients that people use."""

import re
import subprocess
from pathlib import Path

import httpx
import pytest
import requests

from tests.support import Instance, Sengu, requires
from tests.system.web import (
    Client,
    Site,
    connect,
    get_request,
    read_all,
    serve,
)

TARGETS = ("plain:app", "plain:asgi")
REQUESTS = "2000"


def run(*command: str, stdin: bytes = b"") -> str:
    """What the program says, when it is content."""
    done = subprocess.run(
        [requires(command[0]), *command[1:]],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    said = done.stdout.decode()
    assert done.returncode == 0, said
    return said


@pytest.fixture(params=TARGETS)
def served(request: pytest.FixtureRequest, sengu: Sengu, site: Site, port: int) -> Instance:
    return serve(sengu, site, port, "--workers", "2", target=request.param)


def test_curl_gets_and_posts(served: Instance, port: int, free_path: Path) -> None:
    url = f"http://127.0.0.1:{port}"
    assert run("curl", "--silent", "--fail", f"{url}/steady") == "steady"
    body = free_path / "body"
    body.write_bytes(bytes(3_000_000))
    put = ("curl", "--silent", "--fail", "--upload-file", str(body))
    assert run(*put, f"{url}/upload") == "3000000"
    assert run(*put, "--header", "Transfer-Encoding: chunked", f"{url}/upload") == "3000000"
    assert run(*put, "--http1.0", f"{url}/upload") == "3000000"
    assert served.status()["generation"] == 1


def test_curl_is_told_to_go_on_with_a_large_body(
    served: Instance, port: int, free_path: Path
) -> None:
    body = free_path / "body"
    body.write_bytes(bytes(3_000_000))
    expect = ("--verbose", "--silent", "--header", "Expect: 100-continue")
    # Longer than any test: without an answer to its question, curl would not send the body.
    wait = ("--expect100-timeout", "3600", "--upload-file", str(body))
    said = run("curl", *expect, *wait, f"http://127.0.0.1:{port}/upload")
    assert "< HTTP/1.1 100 Continue" in said
    assert said.endswith("3000000")


def test_requests_keeps_its_connection(served: Instance, port: int) -> None:
    with requests.Session() as session:
        url = f"http://127.0.0.1:{port}"
        pids = {session.get(f"{url}/").text.split()[3] for _ in range(20)}
        assert len(pids) == 1
        assert session.post(f"{url}/upload", data=b"x" * 100_000).text == "100000"
        pieces = (b"x" * 1000 for _ in range(100))
        assert session.post(f"{url}/upload", data=pieces).text == "100000"
        assert session.head(f"{url}/steady").headers["Content-Length"] == "6"


def test_httpx_keeps_its_connection(served: Instance, port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert len({client.get("/").text.split()[3] for _ in range(20)}) == 1
        assert client.post("/upload", content=b"x" * 100_000).text == "100000"
        assert client.post("/upload", content=iter([b"x" * 1000] * 100)).text == "100000"


def test_ab_has_no_failure(served: Instance, port: int) -> None:
    for options in (("-c", "20"), ("-k", "-c", "100")):
        said = run("ab", "-q", "-n", REQUESTS, *options, f"http://127.0.0.1:{port}/steady")
        assert re.search(r"^Failed requests: +0$", said, re.M), said
        assert re.search(rf"^Complete requests: +{REQUESTS}$", said, re.M), said
        assert "Non-2xx" not in said


def test_wrk_has_no_error(served: Instance, port: int) -> None:
    patient = ("--timeout", "20s")  # a slower answer counts as an error
    said = run("wrk", "-t1", "-c50", "-d1s", *patient, f"http://127.0.0.1:{port}/steady")
    assert re.search(r"^ +\d+ requests in ", said, re.M), said
    assert "errors" not in said
    assert "Non-2xx" not in said


def test_h2load_has_no_failure(served: Instance, port: int) -> None:
    url = f"http://127.0.0.1:{port}/steady"
    said = run("h2load", "--h1", "-n", REQUESTS, "-c", "20", url)
    assert f"{REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout" in said, said


def test_h2load_pipelines(served: Instance, port: int) -> None:
    url = f"http://127.0.0.1:{port}/steady"
    said = run("h2load", "--h1", "-m", "8", "-n", REQUESTS, "-c", "10", url)
    assert f"{REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout" in said, said


def test_answers_to_pipelined_requests_come_in_order(served: Instance, port: int) -> None:
    paths = [f"/{path}" for path in ("steady", "", "steady", "frozen", "")]
    requests_ = [get_request(path) for path in paths] + [get_request("/", "Connection: close")]
    with connect(port, "".join(requests_)) as client:
        text = read_all(client).decode()
    bodies = re.findall(r"\r\n\r\n(.+?)(?=HTTP/1\.1|$)", text)
    assert [bodies[0], bodies[2]] == ["steady", "steady"]
    assert bodies[3].isdecimal()
    assert bodies[1] == bodies[4] == bodies[5]
    assert served.status()["workers"][0]["state"] == "ready"


def test_a_body_in_between_does_not_confuse_the_next_request(served: Instance, port: int) -> None:
    """Nobody reads the body of `/steady`; it is read past, or the connection ends."""
    with Client(port) as client:
        for _ in range(3):
            assert client.fetch("/steady", b"GET /fail HTTP/1.1\r\n\r\n").text == "steady"
            assert client.fetch("/upload", b"x" * 10).text == "10"
    assert not [line for line in served.lines if "as asked for" in line]
