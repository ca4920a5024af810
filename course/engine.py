"""`python -m course.engine`: papermill, which saves less often and does not wait for the end of the kernel."""

from papermill.__main__ import papermill
from papermill.engines import NBClientEngine, papermill_engines


class LeanEngine(NBClientEngine):
    """Papermill's own engine without two of its costs, which are seconds of a quick run.

    It writes the notebook anew, with all its plots, whenever a cell starts or ends, 80 times in a session. Here it does
    so once a second at most, and once more at the end, so nothing is lost. And after the last cell it waits a second
    until the kernel has ended by itself. Here it ends the kernel: all cells have run, and what they wrote is written.
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **options):
        save = nb_man.save

        def save_sometimes(**changes):
            if (nb_man.now() - nb_man.last_save_time).total_seconds() > 1:
                save(**changes)

        nb_man.save = save_sometimes
        try:
            super().execute_managed_notebook(nb_man, kernel_name, shutdown_kernel="immediate", **options)
        finally:
            nb_man.save = save


if __name__ == "__main__":
    papermill_engines.register(None, LeanEngine)
    papermill()
