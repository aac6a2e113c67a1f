"""The service on Ray Serve: the same application on many machines.

serve run docs/service/ray.yaml

Each replica has a network of its own. The arguments of ``build`` are the options of serve.py, as a config file or
``serve run cloth_segmentation.serve.on_ray:build places=32`` gives them.
"""

from dataclasses import fields
from typing import Any

from fastapi import FastAPI
from ray import serve

from cloth_segmentation.command.base_options import OptionError, option_types
from cloth_segmentation.segmenter import Segmenter
from cloth_segmentation.serve.application import create
from cloth_segmentation.serve.main import read_keys
from cloth_segmentation.serve.options import ServeOptions

NOT_HERE = ("host", "port", "proxies", "page")
"""Options that Ray Serve has its own of, or none."""


def build(arguments: dict[str, Any]) -> serve.Application:
    """The service as an application of Ray Serve.

    Args:
        arguments: options of serve.py by their names.

    Raises:
        OptionError: an option is unknown or has no such value.
    """
    known = [item.name for item in fields(ServeOptions) if item.name not in NOT_HERE]
    if unknown := sorted(set(arguments) - set(known)):
        raise OptionError(f"args: expected some of {', '.join(known)}, found {', '.join(unknown)}")
    types = option_types(ServeOptions)
    # The command line of serve run gives texts only.
    given = {name: _converted(name, value, types[name][0]) for name, value in arguments.items()}
    opt = ServeOptions(**given)

    keys = read_keys(opt)  # here, where people set them: replicas have the environment of their machine

    def application() -> FastAPI:
        """In each replica."""
        return create(Segmenter.load(**opt.loading), opt, keys)

    return serve.deployment(name="Service", max_ongoing_requests=2 * opt.places)(serve.ingress(application)()).bind()


def _converted(name: str, value: Any, kind: type) -> Any:
    if not isinstance(value, str) or kind is str:
        return value
    try:
        return {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
    except (ValueError, KeyError):
        raise OptionError(f"args: expected {name} to be {kind.__name__}, found {value!r}") from None
