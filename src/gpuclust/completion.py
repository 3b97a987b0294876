"""Tab completion: the completions of a command line, and the scripts for the shells.

Groups, keys and values of the configuration come from the schema and from conf/, options of sub-commands from their parsers,
and paths from the disk. No heavy module is imported, because the shell waits for the result.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

from gpuclust.algorithms.registry import algorithms, known_keys
from gpuclust.commands import Options
from gpuclust.config import Choices, Config, conf_dir, conf_dirs
from gpuclust.errors import ConfigurationError
from gpuclust.overrides import PATH_KEYS

Commands = Mapping[str, Callable[[list[str]], int]]
FOLDER, FILE = "folder", "file"
# The kind of path of an argument or option, by its metavar.
PATHS = {"DIR": FOLDER, "FILE": FILE}
OVERRIDES = ("KEY=VALUE", "data.KEY=VALUE")
RUN = "run"

BASH = """\
_gpuclust_complete() {
    local line="${COMP_LINE:0:$COMP_POINT}" word prefix="" IFS=$'\\n'
    word="${line##*[[:space:]]}"
    COMPREPLY=($(COMP_LINE="$line" "$1" -sc query=bash 2>/dev/null))
    if [[ "$COMP_WORDBREAKS" == *=* && "$word" == *=* ]]; then  # the shell completes what follows the =
        prefix="${word%=*}="
        COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    fi
    if [[ -e "${COMPREPLY[0]}" ]]; then
        compopt -o filenames 2>/dev/null
    elif [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" != *[=./] ]]; then
        COMPREPLY=("${COMPREPLY[0]} ")
    fi
}
complete -o nospace -o default -F _gpuclust_complete gpuclust
"""

FISH = """\
function _gpuclust_complete
    set -lx COMP_LINE (commandline -cp)
    gpuclust -sc query=fish 2>/dev/null
end
complete -c gpuclust -f -a '(_gpuclust_complete)'
"""

UNINSTALL = {"bash": "complete -r gpuclust; unset -f _gpuclust_complete\n", "fish": "complete -e -c gpuclust\n"}
INSTALL = {"bash": BASH, "fish": FISH}


def script(what: str, shell: str) -> str:
    """The script that installs or uninstalls the completion in a shell."""
    scripts = {"install": INSTALL, "uninstall": UNINSTALL}.get(what, {})
    if shell not in scripts:
        raise ConfigurationError(
            "-sc takes install=bash, install=fish, uninstall=bash or uninstall=fish; zsh uses bash's through bashcompinit"
        )
    return scripts[shell]


def candidates(line: str, commands: Commands) -> list[str]:
    """The completions of the last word of a command line, as complete words, by kind."""
    words, word = _split(line)
    if len(words) == 1 and not word.startswith("-") and "=" not in word:
        return [*_starting(commands, word), *_overrides(words[1:], word)]
    name = words[1] if len(words) > 1 and words[1] in commands else RUN
    given = words[2:] if len(words) > 1 and words[1] in commands else words[1:]
    parser = _parser(commands[name])
    return list(dict.fromkeys(_arguments(parser, given, word)))


def _split(line: str) -> tuple[list[str], str]:
    """The finished words of a line, and the unfinished last one (empty after a space)."""
    try:
        words = shlex.split(line)
    except ValueError:  # an open quote
        words = line.split()
    unfinished = bool(words) and not line[-1:].isspace()
    return (words[:-1], words[-1].lstrip("'\"")) if unfinished else (words, "")


def _parser(command: Callable[[list[str]], int]) -> argparse.ArgumentParser:
    try:
        command(["--complete"])
    except Options as options:
        return options.parser
    raise AssertionError("every command's parser has the option --complete")


def _arguments(parser: argparse.ArgumentParser, given: Sequence[str], word: str) -> Iterator[str]:
    """Completions after the given words: values of an option, positional arguments, or options."""
    options = {text: action for action in parser._actions for text in action.option_strings}
    positionals = [action for action in parser._actions if not action.option_strings]
    waiting: argparse.Action | None = None
    n_positional = 0
    for text in given:
        if text.startswith("-"):
            action = options.get(text)
            waiting = action if action is not None and action.nargs != 0 else None
        elif waiting is not None and waiting.nargs is None:
            waiting = None
        elif waiting is None:
            n_positional += 1
    option, equals, value = word.partition("=")
    if equals and option in options:
        yield from (f"{option}={found}" for found in _values(options[option], given, value))
        return
    if waiting is not None and not word.startswith("-"):
        yield from _values(waiting, given, word)
        return
    if positionals and not word.startswith("-"):
        last = positionals[min(n_positional, len(positionals) - 1)]
        if n_positional < len(positionals) or last.nargs in ("*", "+"):
            yield from _values(last, given, word)
    if not word or word.startswith("-"):
        for action in parser._actions:
            if action.help != argparse.SUPPRESS and not set(action.option_strings) & set(given):
                yield from _starting([text for text in action.option_strings if text.startswith("--")], word)


def _values(action: argparse.Action, given: Sequence[str], word: str) -> Iterator[str]:
    if action.choices is not None:
        yield from _starting(map(str, action.choices), word)
        return
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    if metavar in OVERRIDES and not action.option_strings:
        yield from (text for text in _overrides(given, word) if metavar == "KEY=VALUE" or text.startswith("data."))
    elif metavar in PATHS:
        yield from _paths(word, PATHS[metavar])
    else:
        yield from _starting([text for text in metavar.split("|") if text.islower()], word)
        if "RUN" in metavar:
            yield from _starting(["best"], word)


def _starting(words: object, start: str) -> list[str]:
    return [word for word in words if word.startswith(start)]  # type: ignore[attr-defined]


def _overrides(given: Sequence[str], word: str) -> list[str]:
    """Groups and keys, or the values of a key before ``=``."""
    key, equals, value = word.partition("=")
    if equals:
        *before, last = value.split(",")
        start = ",".join([*before, ""]) if before else ""
        return [f"{key}={start}{found}" for found in _values_of(key, last, _config_dirs(given))]
    chosen = [text.partition("=")[2].split(",") for text in given if text.startswith("cluster=")]
    wanted = chosen[-1] if chosen else list(algorithms())
    keys = [
        key
        for key, owners in known_keys().items()
        if (not owners or set(owners) & set(wanted)) and not key.endswith((".name", ".method", ".store"))
    ]
    groups = [path.name for path in sorted(conf_dir().iterdir()) if path.is_dir()]
    if "." not in word:  # groups, and the prefixes of their keys
        inner = dict.fromkeys(f"{k.partition('.')[0]}." for k in keys if "." in k)
        names = [*(f"{g}=" for g in groups), *(f"{k}=" for k in keys if "." not in k and k not in groups)]
        found = [text for text in (*names, *inner) if text.startswith(word)]
        return [text for text in found if not text.endswith(".") or text.partition(".")[0] in groups]
    return [f"{k}=" for k in keys if k.startswith(word)]


def _values_of(key: str, word: str, folders: Sequence[Path]) -> list[str]:
    if key in PATH_KEYS:
        return _paths(word, FILE)
    group = "experiments" if key == "experiment" else key
    files = sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})
    if files and "." not in group:
        return [name for name in files if name.startswith(word)]
    return _starting(_words(key), word)


def _words(key: str) -> list[str]:
    """The allowed words of a key, or true and false."""
    for algorithm in (a.config for a in algorithms().values()):
        node: object = Config(cluster=algorithm())
        *groups, name = key.split(".")
        for group in groups:
            node = getattr(node, group, None)
        for f in fields(node) if is_dataclass(node) else ():
            if f.name == name:
                constraint = f.metadata.get("constraint")
                if isinstance(constraint, Choices):
                    return list(constraint.words)
                if isinstance(getattr(node, name), bool):
                    return ["true", "false"]
    return []


def _config_dirs(given: Sequence[str]) -> list[Path]:
    """The folders of configuration files: conf/, those of plug-ins, and that of --config-dir."""
    folders = conf_dirs()
    for i, word in enumerate(given):
        option, equals, value = word.partition("=")
        if option in ("-cd", "--config-dir"):
            folders += [Path(text).expanduser() for text in ([value] if equals else given[i + 1 : i + 2])]
    return folders


def _paths(word: str, kind: str) -> list[str]:
    """Files and folders whose path begins with the word; folders end with a slash. Hidden files need a leading dot."""
    head, slash, start = word.rpartition("/")
    folder = Path(os.path.expanduser(f"{head}{slash}") or ".")  # noqa: PTH111  an unknown ~user is kept
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return []
    found = []
    for entry in entries:
        if entry.name.startswith(start) and (start.startswith(".") or not entry.name.startswith(".")):
            if entry.is_dir():
                found.append(f"{head}{slash}{entry.name}/")
            elif kind == FILE:
                found.append(f"{head}{slash}{entry.name}")
    return found
