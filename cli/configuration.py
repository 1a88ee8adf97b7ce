"""Commands whose options can come from the environment or a file, and can be saved to one.

An option's value is that of its flag, else of the environment variable `HWC_ONNX_<COMMAND>_<OPTION>`, else of the file that
`--config` names, else its default. What may stand in a file follows from the command's own options: `model_of` makes a
pydantic model of them, which checks files and from which the published JSON Schema is made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hwc_onnx.configuration import ACCELERATORS, PATHS
from hwc_onnx.errors import UsageError
from hwc_onnx.plugins import nearest

from .parameters import ACCELERATOR, COMPLETED, LISTS, PATH

if TYPE_CHECKING:
    from pydantic import BaseModel

PREFIX = "HWC_ONNX"
ONCE = frozenset({"json", "quiet", "debug", "log_level", "config", "save_config", "dry_run", "resume", "fresh", "help"})
"""Options about one call and how it is shown: no part of a configuration."""
FILES = PATHS | {"data", "policy"}
"""Options whose values may be files."""
OWN = ("schema", "command", "extends", "run")
"""Keys of a file that are no options."""
TEXTS = (click.STRING, PATH, ACCELERATOR, *COMPLETED.values())
"""Types of options that take any text."""
ORIGINS = "hwc_onnx.origins"
"""Where the context keeps which file each option came from."""
WORDS = {
    ParameterSource.COMMANDLINE: "command line",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "file",
    ParameterSource.DEFAULT: "default",
}

STRENGTH = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)
"""Sources of an option, the strongest first."""
UNIFORM = ("uniform", "spec")
NARROWING = ("include", "exclude", "lanes", "min_channels", "ratio_bounds", "keep_heads", "first_last")
"""Options of a uniform setting that a plan has its own of."""


class Configurable(click.Command):
    """A command with `--config` and `--save-config`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for param in self.params:
            if param.type is click.STRING and param.name is not None:
                # the same text, which a shell completes
                text = PATH if param.name in FILES else COMPLETED.get(param.name, param.type)
                param.type = ACCELERATOR if param.name in ACCELERATORS else text
        self.params += [
            click.Option(
                ["--config"],
                metavar="FILE.yaml",
                type=PATH,
                is_eager=True,
                expose_value=False,
                callback=_load,
                help="Take options from this file where neither a flag nor the environment gives them (docs/configuration.md).",
            ),
            click.Option(
                ["--save-config"],
                metavar="FILE.yaml",
                type=PATH,
                expose_value=False,
                callback=_remember,
                help="Write the options of this call into a file for --config, then go on.",
            ),
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; a wrong value names the file or variable that it came from."""
        _name_variables(ctx)
        _check_environment(ctx)
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            where = None if error.param is None or error.param.name is None else _place(ctx, error.param)
            if where is None:
                raise
            raise click.UsageError(f"{where}: {error.message}", ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Save the options where that was asked for, then run."""
        _choose_plan(ctx)
        target = ctx.meta.get("hwc_onnx.save_config")
        if target is not None:
            from hwc_onnx.configuration import write

            write(Path(target), saved(ctx, Path(target)))
        return super().invoke(ctx)


def _choose_plan(ctx: click.Context) -> None:
    """A plan replaces a uniform setting from a weaker source with all that narrows it, and such a setting a weaker plan."""
    setting = next((name for name in UNIFORM if name in ctx.params), None)
    if setting is None or "plan" not in ctx.params:
        return
    plan, uniform = _strength(ctx, "plan"), _strength(ctx, setting)
    dropped = [setting, *NARROWING] if plan < uniform else ["plan"] if uniform < plan else []
    for name in dropped:
        if name in ctx.params and _strength(ctx, name) > min(plan, uniform):
            param = next(param for param in ctx.command.params if param.name == name)
            ctx.params[name] = () if getattr(param, "multiple", False) else None
            ctx.set_parameter_source(name, ParameterSource.DEFAULT)


def _strength(ctx: click.Context, name: str) -> int:
    """Place of an option's source in `STRENGTH`; behind the last where it was not given."""
    source = ctx.get_parameter_source(name)
    return STRENGTH.index(source) if source in STRENGTH else len(STRENGTH)


def full_name(ctx: click.Context) -> str:
    """The command without the program, such as `data check`."""
    names: list[str] = []
    while ctx.parent is not None:
        names.insert(0, ctx.info_name or "")
        ctx = ctx.parent
    return " ".join(names)


def key_of(param: click.Parameter) -> str:
    """What the option is called in a file: its long flag, or the name of an argument."""
    flags = [flag for flag in param.opts if flag.startswith("--")]
    return flags[0].removeprefix("--") if flags else param.name or ""


def options_of(command: click.Command) -> dict[str, click.Parameter]:
    """The options that a file may hold, by key."""
    return {key_of(param): param for param in command.params if param.name is not None and param.name not in ONCE}


def origins(ctx: click.Context) -> dict[str, str]:
    """Where each option's value came from: command line, environment, the file's path, or default."""
    files: Mapping[str, Path] = ctx.meta.get(ORIGINS, {})
    found = {}
    for key, param in options_of(ctx.command).items():
        word = WORDS.get(ctx.get_parameter_source(param.name or "") or ParameterSource.DEFAULT, "command line")
        found[key] = str(files[key]) if word == "file" and key in files else word
    return found


def with_origins(ctx: click.Context) -> dict[str, tuple[Any, str]]:
    """Each option's value as a file in the current folder would hold it, and where it came from."""
    from hwc_onnx.configuration import written

    here = Path("here.yaml")
    return {
        key: (written(param.name or "", ctx.params[param.name or ""], here), origin)
        for (key, param), origin in zip(options_of(ctx.command).items(), origins(ctx).values(), strict=True)
    }


def saved(ctx: click.Context, target: Path) -> str:
    """The file of this call: what was given, and the defaults as comments."""
    from hwc_onnx.configuration import file_text, written

    given: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for key, param in options_of(ctx.command).items():
        name = param.name or ""
        source = ctx.get_parameter_source(name)
        value = written(name, ctx.params[name], target)
        if value is not None:
            (defaults if source == ParameterSource.DEFAULT else given)[key] = value
    name = full_name(ctx)
    text = file_text(name, given, [f"hwc-onnx {name} --config {target.name}"])
    lines = "".join(f"# {key}: {_inline(value)}\n" for key, value in defaults.items() if value is not False)
    return text + (f"# defaults:\n{lines}" if lines else "")


def _inline(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")


def model_of(command: click.Command, name: str) -> type[BaseModel]:
    """The pydantic model of a command's configuration file."""
    from pydantic import ConfigDict, Field, create_model

    fields: dict[str, Any] = {}
    for key, param in options_of(command).items():
        text = param.help if isinstance(param, click.Option) else f"The argument {param.human_readable_name}."
        fields[f"option_{param.name}"] = (_annotation(param) | None, Field(None, alias=key, description=text))
    return create_model(
        f"{name} configuration",
        __config__=ConfigDict(extra="forbid"),
        option_schema=(_literal(1) | None, Field(None, alias="schema", description="Version of this format.")),
        option_command=(_literal(name) | None, Field(None, alias="command", description="The command of this file.")),
        option_extends=(str | None, Field(None, alias="extends", description="A file whose options these replace.")),
        option_run=(
            dict[str, Any] | None,
            Field(None, alias="run", description="What a run was known by; written by compress, not read by --config."),
        ),
        **fields,
    )


def _literal(*values: Any) -> Any:
    from typing import Literal

    return Literal[values]


def _annotation(param: click.Parameter) -> Any:
    """The type of an option's value in a file."""
    from typing import Annotated

    from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr

    kind: Any
    if isinstance(param, click.Option) and param.is_flag:
        return StrictBool
    if isinstance(param.type, click.Choice):
        kind = _literal(*param.type.choices)
    elif isinstance(param.type, click.IntRange):
        kind = Annotated[StrictInt, Field(ge=param.type.min, le=param.type.max)]
    elif param.type is click.INT:
        kind = StrictInt
    elif param.type in TEXTS:
        kind = StrictStr
    else:
        kind = StrictInt | StrictFloat | StrictStr
    listed = isinstance(param, click.Option) and param.multiple
    return kind | list[kind] if listed or isinstance(param.type, LISTS) else kind


def _load(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    """Read a configuration into the context's defaults."""
    if value is None or ctx.resilient_parsing:
        return
    from hwc_onnx.configuration import from_file, read_chain

    options = options_of(ctx.command)
    name = full_name(ctx)
    model = model_of(ctx.command, name)
    defaults: dict[str, Any] = {}
    files: dict[str, Path] = {}
    for layer in read_chain(Path(value)):
        _check(model, layer.path, layer.content, name, options)
        for key, found in layer.content.items():
            if key in OWN:
                continue
            option = options[key].name or ""
            defaults.pop(option, None)
            if found is not None:
                defaults[option] = _given(options[key], found, lambda text, o=option, p=layer.path: from_file(o, text, p))
                files[key] = layer.path
    ctx.default_map = defaults
    ctx.meta[ORIGINS] = files


def _given(param: click.Parameter, value: Any, located: Any) -> Any:
    """A value of a file as click takes it: text, as from a flag, so that the same checks apply."""
    if isinstance(value, bool):
        return value
    parts = [located(str(part)) for part in (value if isinstance(value, list) else [value])]
    if isinstance(param, click.Option) and param.multiple:
        return parts
    return ",".join(parts)


def _check(
    model: type[BaseModel], path: Path, content: Mapping[str, Any], command: str, options: Mapping[str, click.Parameter]
) -> None:
    """Refuse keys that are no options and values of another kind, naming the file and the key (UsageError)."""
    from pydantic import ValidationError

    other = content.get("command")
    if isinstance(other, str) and other != command:
        raise UsageError(f"{path}: was saved for `hwc-onnx {other}`, not for `{command}`; run that, or remove the key 'command'")
    unknown = [key for key in content if key not in options and key not in OWN]
    if unknown:
        said = "is about one call, give it as a flag" if unknown[0].replace("-", "_") in ONCE else "is no option"
        raise UsageError(
            f"{path}: key '{unknown[0]}' {said} of `{command}`{nearest(unknown[0], list(options))}; allowed: "
            f"{', '.join((*options, *OWN[:3]))}"
        )
    try:
        model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = str(first["loc"][0])
        allowed = _allowed(options[key]) if key in options else "see docs/configuration.md"
        raise UsageError(f"{path}: key '{key}': found {_found(content[key])}; expected {allowed}") from error


def _found(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    return f"{value!r:.60}"


def _allowed(param: click.Parameter) -> str:
    if isinstance(param, click.Option) and param.is_flag:
        return "true or false"
    several = (isinstance(param, click.Option) and param.multiple) or isinstance(param.type, LISTS)
    after = ", or a list of such" if several else ""
    if isinstance(param.type, click.Choice):
        return f"one of {', '.join(param.type.choices)}{after}"
    if isinstance(param.type, click.IntRange):
        upper = "" if param.type.max is None else f" to {param.type.max}"
        return f"a whole number from {param.type.min}{upper or ' up'}{after}"
    if param.type is click.INT:
        return f"a whole number{after}"
    return f"{'text' if param.type in TEXTS else 'what the flag takes'}{after}"


def _remember(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.meta["hwc_onnx.save_config"] = value


def _place(ctx: click.Context, param: click.Parameter) -> str | None:
    """The file and key, or the variable, that a value came from; None for flags and defaults."""
    source = ctx.get_parameter_source(param.name or "")
    if source == ParameterSource.DEFAULT_MAP:
        return f"{ctx.meta[ORIGINS][key_of(param)]}: key '{key_of(param)}'"
    if source == ParameterSource.ENVIRONMENT:
        return f"{_variable(ctx, param)} in the environment"
    return None


def _variable(ctx: click.Context, param: click.Parameter) -> str:
    return f"{ctx.auto_envvar_prefix}_{key_of(param).replace('-', '_').upper()}"


def _name_variables(ctx: click.Context) -> None:
    """Have options read the variable named after their flag (click would name it after the function's argument)."""
    for param in ctx.command.params if ctx.auto_envvar_prefix is not None else ():
        if isinstance(param, click.Option):
            param.envvar = _variable(ctx, param)


def variables(ctx: click.Context) -> Iterator[str]:
    """The environment variables that the command reads."""
    for param in ctx.command.params:
        if isinstance(param, click.Option):
            yield _variable(ctx, param)


def _check_environment(ctx: click.Context) -> None:
    """Refuse variables that look like an option of this command and are none (UsageError)."""
    if ctx.auto_envvar_prefix is None or ctx.resilient_parsing:
        return
    known = list(variables(ctx))
    for name in sorted(os.environ):
        if name.startswith(f"{ctx.auto_envvar_prefix}_") and name not in known:
            raise UsageError(
                f"{name} in the environment: `{full_name(ctx)}` has no such option{nearest(name, known)}; unset it"
            )
