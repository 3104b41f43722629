"""The command line: `opsin VERB …`, one verb per thing a person wants, the same for every task."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

import typer

from opsin.core.cli import catalog, check_data, doctor, measure, new_task, published, run
from opsin.core.errors import as_user_error
from opsin.core.task import tasks


def _usage_error() -> type[Exception]:
    """Click's exception for a wrong command line; typer carries its own copy of click from 0.29 on."""
    return next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


USAGE_ERROR = _usage_error()

app = typer.Typer(
    name="opsin",
    help="Published vision and attention systems on OpenMMLab's runners.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for _part in (run, check_data, catalog, published, measure, doctor, new_task):
    _part.register(app)


def _add_verbs_of_tasks() -> None:
    """A package whose verbs can't be loaded is told in a warning: it must not take the others down."""
    for module in sorted({command for task in tasks().values() for command in task.commands}):
        try:
            import_module(module).register(app)
        except Exception as error:
            logging.getLogger("opsin").warning("the verbs of %s can't be loaded: %s", module, error)


_add_verbs_of_tasks()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; a person's mistake ends in one line and exit code 2.

    Args:
        arguments: what follows `opsin`; default the process's own. `--debug` anywhere shows tracebacks.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    if not debug:  # OpenMMLab's advice to its own developers
        warnings.filterwarnings("ignore", category=UserWarning, module=r"(mmengine|mmcv|mmdet|mmseg)\.")
    try:
        code = app(given, standalone_mode=False, prog_name="opsin")
    except USAGE_ERROR as error:
        context = getattr(error, "ctx", None)
        hint = f"; see {context.command_path} --help" if context else ""
        message = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        _leave(f"{message}{hint}", 2)
    except (typer.Abort, KeyboardInterrupt):
        _leave("stopped", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        mistake = as_user_error(error)
        if debug or mistake is None:
            raise
        _leave(str(mistake), 2)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _leave(line: str, code: int) -> None:
    print(f"opsin: {line}", file=sys.stderr)
    sys.exit(code)
