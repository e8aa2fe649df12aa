#!/bin/sh
# Pulls an image and becomes its engine's client: an ordinary command for `sengu start`.
# IMAGE is what to run; ENGINE and OPTIONS are words, the arguments are the container's.
set -eu

ENGINE=${ENGINE:-podman}
$ENGINE pull "${PULL_FROM:-$IMAGE}" >&2
# The client passes TERM on. With `exec` it is the worker itself, and hears of it.
exec $ENGINE run --rm --net=host ${OPTIONS:-} --env SENGU_SLOT --env SENGU_GENERATION "$IMAGE" "$@"
