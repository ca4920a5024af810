"""What a batch prints: one line after each step, with the time left, instead of Snakemake's bookkeeping."""

import logging
import time
from datetime import timedelta

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

HIDDEN = LogEvent.RUN_INFO, LogEvent.RESOURCES_INFO, LogEvent.JOB_STARTED, LogEvent.JOB_FINISHED, LogEvent.PROGRESS


def show_progress():
    """Let this batch print how many steps are done, and how long the rest takes at this pace."""
    started = time.monotonic()

    def is_shown(record):
        event = getattr(record, "event", None)
        if event == LogEvent.PROGRESS:
            left = timedelta(seconds=round((time.monotonic() - started) / record.done * (record.total - record.done)))
            print(f"{record.done} of {record.total} steps done, about {left} left", flush=True)
        return event not in HIDDEN and record.msg != "Select jobs to execute..."

    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler):  # the log under .snakemake keeps everything
            handler.addFilter(is_shown)
