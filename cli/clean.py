"""`hwc-onnx clean`: make room in run folders."""

from __future__ import annotations

from pathlib import Path

import click

from .parameters import PATH, ByteSize
from .settings import Settings, shared_options


@click.command(short_help="Make room in run folders.")
@click.argument("folders", metavar="[RUN_DIR]...", type=PATH, nargs=-1)
@click.option(
    "--limit", type=ByteSize, help="Remove only until each folder takes at most this, such as 500MB: used longest ago first."
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@shared_options
def clean(settings: Settings, folders: tuple[str, ...], limit: int | None, dry_run: bool) -> None:
    """Remove the caches of run folders, then files that killed processes left half-written.

    Models, plans, results, reports and the record of the search stay, so a finished run loses nothing and an unfinished one makes its
    cache anew. Without RUN_DIR, those in the current folder. A folder that is no run folder, or that a running process owns, is
    refused.

    \b
    Examples:
      hwc-onnx clean model.hwc
      hwc-onnx clean --dry-run
      hwc-onnx clean model.hwc --limit 500MB
    """
    from hwc_onnx.cleaning import clean as clean_folder
    from hwc_onnx.cleaning import run_folders
    from hwc_onnx.errors import UsageError
    from hwc_onnx.report.clean_table import clean_payload, clean_tables

    chosen = [Path(name) for name in folders] or run_folders(Path())
    cleaned, refused = [], []
    for folder in chosen:
        try:
            cleaned.append(clean_folder(folder, limit=limit, dry_run=dry_run))
        except UsageError as error:  # one that is in use does not keep the others full
            refused.append(str(error))
    if cleaned or not refused:
        payload = clean_payload(cleaned, dry_run)
        settings.show(payload, lambda: clean_tables(payload))
    if refused:
        raise UsageError("\n".join(refused))
