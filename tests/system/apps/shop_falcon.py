"""A shop in Falcon. See test_serve_frameworks.py."""

import falcon

from tests.system.apps.pieces import TYPE, pieces


class Hello:
    def on_get(self, _request: falcon.Request, response: falcon.Response, name: str) -> None:
        response.content_type = TYPE
        response.text = f"hello {name}"


class Sum:
    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        response.media = {"sum": sum(request.get_media()["numbers"])}


class Form:
    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        response.content_type = TYPE
        response.text = request.get_media()["name"]


class Pieces:
    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        response.content_type = TYPE
        response.stream = pieces(request.get_param("gate", required=True))


class Where:
    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        response.content_type = TYPE
        response.text = f"{request.url} from {request.remote_addr}"


class Error:
    def on_get(self, _request: falcon.Request, _response: falcon.Response) -> None:
        raise RuntimeError("out of stock")


app = falcon.App()
app.add_route("/hello/{name}", Hello())
app.add_route("/sum", Sum())
app.add_route("/form", Form())
app.add_route("/pieces", Pieces())
app.add_route("/where", Where())
app.add_route("/error", Error())
