"""Runs a command: a user's error ends with one line and exit status 2."""

import errno
import functools
import os
import pathlib
import re
import sys
import textwrap
from collections.abc import Callable

from absl import app, flags, logging

from reid_jax import errors
from reid_jax.cli import compilation_cache

# Errors of the file system that say something about the user's files and disks, not about this program.
_USER_ERRNOS = frozenset(
    (
        errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOTDIR,
        errno.EISDIR, errno.ENAMETOOLONG, errno.EIO, errno.EEXIST,
    )
)  # fmt: skip


# What ml_collections raises for a config file or a --config.FIELD that is wrong.
_CONFIG_ERRORS = (AttributeError, KeyError, OSError, TypeError, ValueError)
_HELP = frozenset(("--help", "-help", "--helpshort", "-h", "-?"))
# How the scripts' docstrings start their programs, and how the console command does.
started_as: str | None = None  # "reid search", where the console command started the script
_groups: list[tuple[str, frozenset[str]]] = []  # titles, and the flags that were defined before
_SCRIPT = re.compile(r"python (?:experiments|data_prep)/\w+\.py")
_CONFIG = re.compile(r"experiments/configs/(\w+)\.py:")


def run(
    main: Callable[..., None],
    define_flags: Callable[[], None],
    *,
    more_help: Callable[[], str] | None = None,
    takes_words: bool = False,
) -> None:
    """Defines and parses the command line's absl flags and calls `main`; does not return.

    A UserError, a flag that is unknown or has a bad value, a leftover argument, a missing or damaged file, missing
    rights and a full disk print "error: ..." as one line on standard error and end with exit status 2; a loss that
    is not finite does so with status 1. Ctrl-C ends with status 130. Any other error keeps its traceback.

    --help prints the script's docstring and its own flags, not absl's, and ends with status 0. XLA's
    compilations are cached for the next start (`compilation_cache`).

    Args:
        main: does the work, reading flags.FLAGS.
        define_flags: defines the flags; in here, because config flags look at the command line when defined.
        more_help: what --help adds at its end.
        takes_words: whether the command line may have words that are no flags, such as `get NAME`. They are given to
            `main` as a list; without any, it is the help that is printed.
    """
    compilation_cache.enable()
    foreign = set(flags.FLAGS)
    try:
        define_flags()
    except flags.Error as error:
        _fail(_last_line(error))
    except _CONFIG_ERRORS as error:
        _fail(f"--config: {_last_line(error)}")
    if _HELP.intersection(sys.argv[1:]) or (takes_words and len(sys.argv) == 1):
        own = [name for name in flags.FLAGS if name not in foreign]
        _guarded(functools.partial(_print_help, own, more_help), [])
        sys.exit(0)
    app.run(functools.partial(_with_words if takes_words else _guarded, main), flags_parser=_parse)


def group(title: str) -> None:
    """Begins a group of flags: --help prints those that are defined from here on under this title."""
    _groups.append((title, frozenset(flags.FLAGS)))


def _title_of(name: str) -> str:
    return next((title for title, earlier in reversed(_groups) if name not in earlier), "Flags")


def require(*names: str) -> None:
    """Checks that flags were given.

    Raises:
        UserError: one was not; names it.
    """
    for name in names:
        if not flags.FLAGS[name].value:
            raise errors.UserError(f"--{name} is needed")


def check_folder_of(output: str) -> None:
    """Checks, before any work, that the folder which --output is to lie in is there.

    Raises:
        UserError: it is not.
    """
    if not pathlib.Path(output).expanduser().absolute().parent.is_dir():
        raise errors.UserError(f"--output: the folder of {output!r} is not there")


def _print_help(names: list[str], more_help: Callable[[], str] | None) -> None:
    """Prints the script's docstring and its own flags in groups, in the order of their definition."""
    text = (sys.modules["__main__"].__doc__ or "").strip()
    if started_as:
        text = _CONFIG.sub(r"\1:", _SCRIPT.sub(started_as, text))
    print(text)
    title = None
    for name in names:
        flag = flags.FLAGS[name]
        if flag.help.startswith("Alias for") or name.startswith("config."):
            continue
        if (wanted := _title_of(name)) != title:
            title = wanted
            print(f"\n{title}:\n")
        default = flag.default_unparsed
        default = ",".join(default) if isinstance(default, list) else default
        shown = "" if flag.default in (None, [], "") or name == "config" else f" (default: {default})"
        text = flag.help.partition(";\n")[0] + shown  # absl appends how a flag is given several times
        print(textwrap.fill(text, 118, initial_indent=f"  --{name}  ", subsequent_indent="      "))
    if more_help is not None:
        print(more_help())
    sys.stdout.flush()


def _parse(argv: list[str]) -> list[str]:
    try:
        arguments = flags.FLAGS(argv)
        if "config" in flags.FLAGS:
            hasattr(flags.FLAGS.config, "seed")  # looking at a field raises if the file could not be loaded
    except flags.IllegalFlagValueError as error:
        _fail(_broken_rule(error) or _last_line(error))
    except (flags.Error, *_CONFIG_ERRORS) as error:
        _fail(_last_line(error))
    if not flags.FLAGS["verbosity"].present:
        # Libraries report what they load at this level; people asked for results.
        logging.set_verbosity(logging.WARNING)
    return arguments


def _broken_rule(error: flags.IllegalFlagValueError) -> str | None:
    """What a flag's value must be, where absl only repeats Python's complaint; None for a flag without such a rule."""
    given = str(error).removesuffix(f": {error.__context__}")  # flag --NAME=VALUE
    name = given.removeprefix("flag --").partition("=")[0]
    if name not in flags.FLAGS:
        return None
    parser = flags.FLAGS[name].parser
    rule = "true or false" if isinstance(parser, flags.BooleanParser) else parser.syntactic_help
    return f"{given}: it must be {rule}" if rule else None


def _last_line(error: Exception) -> str:
    """What went wrong, out of the tracebacks that ml_collections puts into its messages and causes."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    # str() of a KeyError is its message in quotes.
    message = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    if "Traceback" not in message:
        return message
    flag, _, trace = message.partition("Error whilst parsing config file")
    return f"{flag}{trace.strip().splitlines()[-1].partition(': ')[2]}"


def _with_words(main: Callable[[list[str]], None], argv: list[str]) -> None:
    _guarded(functools.partial(main, argv[1:]), [])


def _guarded(main: Callable[[], None], argv: list[str]) -> None:
    if len(argv) > 1:
        _fail(f"unexpected argument {argv[1]!r}; every option is written --name=value")
    try:
        main()
    except errors.UserError as error:
        _fail(error)
    except errors.NonFiniteLossError as error:
        _fail(error, status=1)
    except BrokenPipeError:  # the reader of our output, such as head, has enough
        # Python flushes standard output once more at its end, into the same closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as a shell reports a program that SIGPIPE ended
    except OSError as error:
        if error.errno is None:  # a decoder's, for a damaged file
            _fail(error)
        if error.errno not in _USER_ERRNOS:
            raise
        _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    except KeyboardInterrupt as error:
        print(f"interrupted; {error}" if str(error) else "interrupted", file=sys.stderr)
        sys.exit(130)


def _fail(message: object, *, status: int = 2) -> None:
    # One line, whatever is in a file name or in another library's message.
    print("error: " + " ".join(str(message).split()), file=sys.stderr)
    sys.exit(status)
